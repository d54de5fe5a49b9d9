"""ADE20K's layout: small generated trees, whole and odd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets.label_maps.ade20k import load_ade20k, without_zero

FIRST = "ADE_train_00000001"


def write_tree(root: Path, sizes: tuple[tuple[int, int], ...] = ((24, 32), (40, 20), (30, 30))) -> Path:
    """Write pictures with label maps of classes 0, 1, 2 and 150, in two parts."""
    rng = np.random.default_rng(0)
    for part, prefix in (("training", "ADE_train"), ("validation", "ADE_val")):
        for kind in ("images", "annotations"):
            (root / kind / part).mkdir(parents=True)
        for number, size in enumerate(sizes, start=1):
            labels = rng.choice(np.array([0, 1, 2, 150], dtype=np.uint8), size=size)
            pixels = np.repeat((labels * 1.6).astype(np.uint8)[..., None], 3, axis=2)
            Image.fromarray(pixels).save(root / "images" / part / f"{prefix}_{number:08d}.jpg")
            Image.fromarray(labels).save(root / "annotations" / part / f"{prefix}_{number:08d}.png")
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path)


def test_unlabelled_is_ignored_and_classes_count_from_0(tree: Path) -> None:
    data = load_ade20k(tree, 0)
    assert len(data.classes) == 150
    assert data.train == tuple(f"training/ADE_train_0000000{n}" for n in (1, 2, 3))
    stored = np.asarray(Image.open(tree / "annotations/training" / f"{FIRST}.png"))
    labels = data.labels(data.train[0])
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {255, 0, 1, 149}
    assert np.array_equal(labels == 255, stored == 0)
    assert np.array_equal(labels[stored > 0], stored[stored > 0] - 1)
    assert data.pixels(data.train[1]).shape == (40, 20, 3)
    data.verify()


def test_zero_becomes_255_and_every_class_one_less() -> None:
    assert without_zero(np.arange(256, dtype=np.uint8)).tolist() == [255, *range(255)]


def test_the_digest_sees_names_and_sizes(tree: Path) -> None:
    before = load_ade20k(tree, 0).training_digest
    assert load_ade20k(tree, 0).training_digest == before
    path = tree / "annotations/training" / f"{FIRST}.png"
    path.write_bytes(path.read_bytes() + b"\0")
    assert load_ade20k(tree, 0).training_digest != before


def _map(root: Path) -> Path:
    return root / "annotations/training" / f"{FIRST}.png"


def _picture(root: Path) -> Path:
    return root / "images/training" / f"{FIRST}.jpg"


def _label_151(root: Path) -> None:
    Image.fromarray(np.full((24, 32), 151, dtype=np.uint8)).save(_map(root))


def _colours(root: Path) -> None:
    Image.new("RGB", (32, 24)).save(_map(root))


def _deep(root: Path) -> None:
    Image.fromarray(np.zeros((24, 32), dtype=np.uint16)).save(_map(root))


def _size(root: Path) -> None:
    Image.new("L", (24, 32)).save(_map(root))


def _cut_map(root: Path) -> None:
    _map(root).write_bytes(_map(root).read_bytes()[:60])


def _cut_picture(root: Path) -> None:
    _picture(root).write_bytes(_picture(root).read_bytes()[:-80])


def _transparent(root: Path) -> None:
    Image.new("RGBA", (32, 24)).save(_picture(root), format="PNG")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_label_151, "holds the label 151: 0 is unlabelled and 1 to 150 are classes"),
        (_colours, "stores its pixels as RGB: a label map is grey or has a palette"),
        (_deep, "a label map is grey or has a palette, with 8 bits"),
        (_size, "is 24 x 32 pixels, the picture 32 x 24"),
        (_cut_map, "png: not a readable picture"),
        (_cut_picture, "jpg: not a readable picture"),
        (_transparent, "stores its pixels as RGBA: needs RGB or grey"),
    ],
)
def test_odd_files_are_told_in_one_line(tree: Path, change: Callable[[Path], None], said: str) -> None:
    change(tree)
    with pytest.raises(DataError, match=said) as caught:
        load_ade20k(tree, 0).verify()
    assert "\n" not in str(caught.value)


def test_pictures_and_label_maps_must_pair(tree: Path) -> None:
    _map(tree).unlink()
    with pytest.raises(DataError, match=f"training/{FIRST}: has no label map"):
        load_ade20k(tree, 0)
    _picture(tree).unlink()
    load_ade20k(tree, 0)
    (tree / "images/validation/ADE_val_00000002.jpg").unlink()
    with pytest.raises(DataError, match="validation/ADE_val_00000002: has no picture"):
        load_ade20k(tree, 0)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match="--data-root"):
        load_ade20k(None, 0)
    with pytest.raises(DatasetNotFound, match="there is no such folder"):
        load_ade20k(tmp_path, 0)
    for kind in ("images", "annotations"):
        for part in ("training", "validation"):
            (tmp_path / kind / part).mkdir(parents=True)
    with pytest.raises(DataError, match=r"holds no ADE_\*"):
        load_ade20k(tmp_path, 0)


def test_a_palette_stands_for_its_indices(tree: Path) -> None:
    stored = np.asarray(Image.open(_map(tree)))
    image = Image.fromarray(stored, mode="P")
    image.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    image.save(_map(tree))
    assert np.array_equal(load_ade20k(tree, 0).labels(f"training/{FIRST}"), without_zero(stored))
