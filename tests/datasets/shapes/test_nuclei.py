"""Tiles of a picture of nuclei: that which ships with stardist where it is installed, and a small one written here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from benchsuite.core.errors import DataError, MissingDependency
from benchsuite.datasets.shapes import nuclei


def _write(folder: Path, pixels: np.ndarray, numbers: np.ndarray) -> tuple[Path, Path]:
    files = folder / "img2d.tif", folder / "mask2d.tif"
    for path, array in zip(files, (pixels, numbers), strict=True):
        Image.fromarray(array.astype(np.uint16)).save(path)
    return files


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    pixels, numbers = np.full((130, 256), 9), np.zeros((130, 256), dtype=int)
    numbers[10:20, 60:70] = 300  # cut by the border between the first two tiles
    numbers[100:110, 200:230] = 7
    pixels[numbers > 0] = 250
    return _write(tmp_path, pixels, numbers)


def test_tiles_and_their_objects(files: tuple[Path, Path]) -> None:
    data = nuclei.read_nuclei(*files)
    assert data.train.images.shape == data.test.images.shape == (4, 64, 64, 3)
    assert [len(found) for found in data.train.labels] == [1, 1, 0, 0]
    assert data.train.boxes[0].tolist() == [[60, 10, 64, 20]]
    assert data.train.boxes[1].tolist() == [[0, 10, 6, 20]]
    assert data.train.areas[0].tolist() == [40]
    assert data.train.boxes[2].shape == (0, 4)
    assert [len(found) for found in data.test.labels] == [0, 0, 0, 1]
    assert data.test.boxes[3].tolist() == [[8, 36, 38, 46]]
    assert np.array_equal(data.test.label_maps > 0, data.test.images[..., 1] == 250)


@pytest.mark.parametrize(
    ("pixels", "numbers", "said"),
    [
        (np.zeros((64, 128)), np.zeros((64, 127)), "they do not belong together"),
        (np.full((64, 128), 256), np.zeros((64, 128)), "holds the value 256"),
        (np.zeros((64, 100)), np.zeros((64, 100)), "too small for tiles of 64"),
    ],
)
def test_other_pictures_are_refused(tmp_path: Path, pixels: np.ndarray, numbers: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        nuclei.read_nuclei(*_write(tmp_path, pixels, numbers))
    assert "\n" not in str(caught.value)


def test_files_of_another_kind_are_refused(files: tuple[Path, Path]) -> None:
    Image.new("RGB", (256, 130)).save(files[0])
    with pytest.raises(DataError, match="stores its pixels as RGB"):
        nuclei.read_nuclei(*files)
    files[0].write_bytes(files[1].read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read"):
        nuclei.read_nuclei(*files)
    files[0].unlink()
    with pytest.raises(DataError, match="is missing"):
        nuclei.read_nuclei(*files)


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nuclei.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install --no-deps stardist"):
        nuclei.load_nuclei(None, 0)


def test_the_picture_of_stardist() -> None:
    if importlib.util.find_spec("stardist") is None:
        pytest.skip("stardist is not installed")
    data = nuclei.load_nuclei(None, 0)
    assert data.summary() == {
        "classes": 1,
        "training pictures": 32,
        "test pictures": 32,
        "objects": sum(len(found) for part in (data.train, data.test) for found in part.labels),
    }
    for part in (data.train, data.test):
        for labels, areas, tile in zip(part.labels, part.areas, part.label_maps, strict=True):
            assert areas.sum() == (tile > 0).sum()
            assert len(labels) == len(areas)
