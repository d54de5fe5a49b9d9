"""Class folders in ImageNet's layout: small generated trees, whole and odd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from benchsuite.core.errors import DataError, DatasetNotFound, UserError
from benchsuite.datasets.image_folders.reader import load_imagenet, read_folders

CLASSES = ("n01440764", "n01443537", "n02085620")


def write_tree(root: Path, per_class: int = 3) -> Path:
    """Write pictures of three classes, a colour each, in two parts."""
    for part, count in (("train", per_class), ("val", 2)):
        for label, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.full((20 + number, 30, 3), 40, dtype=np.uint8)
                pixels[..., label] = 220
                Image.fromarray(pixels).save(folder / f"{name}_{number}.JPEG", quality=95)
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path)


def test_classes_are_numbered_by_sorted_folders(tree: Path) -> None:
    data = load_imagenet(tree, 0)
    assert data.classes == CLASSES
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.test.files[2] == "val/n01443537/n01443537_0.JPEG"
    assert data.test.labels.dtype == np.int64
    assert data.pixels(data.train.files[-1])[..., 2].mean() > 200
    assert data.pixels(data.train.files[1]).shape == (21, 30, 3)
    data.verify()
    assert data.summary() == {"classes": 3, "training pictures": 9, "test pictures": 6}


def test_a_training_class_may_lack_test_pictures(tree: Path) -> None:
    for file in (tree / "val" / CLASSES[1]).iterdir():
        file.unlink()
    (tree / "val" / CLASSES[1]).rmdir()
    assert load_imagenet(tree, 0).test.labels.tolist() == [0, 0, 2, 2]


def test_the_digest_sees_names_and_sizes(tree: Path) -> None:
    before = load_imagenet(tree, 0).training_digest
    assert load_imagenet(tree, 0).training_digest == before
    Image.new("RGB", (90, 80)).save(tree / "train" / CLASSES[0] / f"{CLASSES[0]}_0.JPEG")
    assert load_imagenet(tree, 0).training_digest != before


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_grey_and_inks_become_colours_as_the_official_loader_makes_them(tree: Path, mode: str) -> None:
    path = tree / "train" / CLASSES[0] / "other.jpg"
    Image.new(mode, (6, 5), 128 if mode == "L" else None).save(path)
    pixels = load_imagenet(tree, 0).pixels(f"train/{CLASSES[0]}/other.jpg")
    assert (pixels.shape, pixels.dtype) == ((5, 6, 3), np.uint8)
    assert np.array_equal(pixels, np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "F"])
def test_pictures_with_other_channels_are_refused(tree: Path, mode: str) -> None:
    name = f"train/{CLASSES[0]}/other.png"
    if mode == "F":
        Image.new("F", (6, 5)).save(tree / name, format="TIFF")
    else:
        Image.new(mode, (6, 5)).save(tree / name)
    with pytest.raises(DataError, match="needs RGB or grey with 8 bits") as caught:
        load_imagenet(tree, 0).pixels(name)
    assert "\n" not in str(caught.value)


def _cut(root: Path) -> None:
    path = root / "train" / CLASSES[1] / f"{CLASSES[1]}_1.JPEG"
    path.write_bytes(path.read_bytes()[:-60])


def test_a_truncated_jpeg_is_told_by_name(tree: Path) -> None:
    _cut(tree)
    with pytest.raises(DataError, match=r"n01443537_1.JPEG: not a readable picture") as caught:
        load_imagenet(tree, 0).verify()
    assert "\n" not in str(caught.value)


def _empty(root: Path) -> None:
    (root / "train" / "n09999999").mkdir()


def _flat(root: Path) -> None:
    (root / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")


def _note(root: Path) -> None:
    (root / "train" / "readme.txt").write_text("")


def _alien(root: Path) -> None:
    (root / "train" / CLASSES[0] / "notes.txt").write_text("")


def _unknown(root: Path) -> None:
    (root / "val" / "n00000000").mkdir()
    Image.new("RGB", (3, 3)).save(root / "val" / "n00000000" / "a.png")


def _single(root: Path) -> None:
    for name in CLASSES[1:]:
        for part in ("train", "val"):
            for file in (root / part / name).iterdir():
                file.unlink()
            (root / part / name).rmdir()


def _folder_inside(root: Path) -> None:
    (root / "train" / CLASSES[0] / "more.jpg").mkdir()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_empty, "n09999999: the class folder is empty: fill or remove it"),
        (_flat, "lies beside the class folders: sort the pictures into one folder a class"),
        (_note, "lies beside the class folders: remove it"),
        (_alien, "notes.txt: is no picture"),
        (_unknown, "there is no training folder of this class"),
        (_single, "holds 1 class folder"),
        (_folder_inside, "more.jpg: is no picture"),
    ],
)
def test_odd_trees_are_told_in_one_line(tree: Path, change: Callable[[Path], None], said: str) -> None:
    change(tree)
    with pytest.raises(DataError, match=said) as caught:
        load_imagenet(tree, 0)
    assert "\n" not in str(caught.value)


def test_hidden_entries_do_not_count(tree: Path) -> None:
    (tree / "train" / ".DS_Store").write_text("")
    (tree / "train" / CLASSES[0] / "._copy.JPEG").write_text("")
    assert len(load_imagenet(tree, 0).train.files) == 9


def test_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match="--data-root"):
        load_imagenet(None, 0)
    with pytest.raises(DatasetNotFound, match="holds no folder train"):
        read_folders(tmp_path, "imagenet")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="holds no class folder"):
        read_folders(tmp_path, "imagenet")
