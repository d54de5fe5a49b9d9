"""One real picture of nuclei with the mask of each: it ships with the package stardist, whose code is not imported.

A fluorescence image of the Data Science Bowl 2018, 512 x 512 grey values. It is cut into tiles: those of the left half
are to learn from, those of the right half to judge on. Nuclei are cut where tiles end, and every piece is an object.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError, MissingDependency
from benchsuite.datasets.files import read_file
from benchsuite.datasets.shapes import NUCLEI
from benchsuite.datasets.shapes.generated import Scenes, ShapeScenes, box_of

_FOLDER = Path("data") / "images"


def load_nuclei(root: Path | None, draw: int) -> ShapeScenes:
    """Return the tiles; there is one class.

    Raises
    ------
    MissingDependency
        If stardist is not installed.
    DataError
        If its files are not those that are known.
    """
    found = importlib.util.find_spec("stardist")
    if found is None or not found.submodule_search_locations:
        raise MissingDependency("nuclei ship with stardist: pip install --no-deps stardist")
    folder = Path(found.submodule_search_locations[0]) / _FOLDER
    return read_nuclei(folder / "img2d.tif", folder / "mask2d.tif")


def read_nuclei(image: Path, mask: Path) -> ShapeScenes:
    """Return the tiles of a picture and of the numbers of its objects (0: ground); see `load_nuclei`."""
    pixels, numbers = _read(image), _read(mask)
    if pixels.shape != numbers.shape:
        raise DataError(f"{mask}: is {numbers.shape}, its picture {pixels.shape}: they do not belong together")
    if pixels.max() > 255:
        raise DataError(f"{image}: holds the value {pixels.max()}: known are grey values up to 255")
    side, middle = NUCLEI["tile"], pixels.shape[1] // 2
    if side > min(pixels.shape[0], middle):
        raise DataError(f"{image}: is {pixels.shape}, too small for tiles of {side}")
    train, test = (
        _tiles(pixels[:, half].astype(np.uint8), numbers[:, half], side)
        for half in (slice(0, middle), slice(middle, None))
    )
    return ShapeScenes("nuclei", ("nucleus",), train, test)


def _read(path: Path) -> NDArray[np.int64]:
    """Return the numbers of a grey TIFF, (H, W)."""

    def numbers() -> NDArray[np.int64]:
        from PIL import Image

        with Image.open(path) as image:
            if image.mode not in ("I;16", "L"):
                raise ValueError(f"stores its pixels as {image.mode}, known are 8 and 16 bits of grey")
            return np.asarray(image).astype(np.int64)

    return read_file(path, numbers)


def _tiles(pixels: NDArray[np.uint8], numbers: NDArray[np.int64], side: int) -> Scenes:
    """Return the whole tiles of a part, row by row."""
    corners = [
        (row, column)
        for row in range(0, pixels.shape[0] - side + 1, side)
        for column in range(0, pixels.shape[1] - side + 1, side)
    ]
    grey = np.stack([pixels[row : row + side, column : column + side] for row, column in corners])
    objects = np.stack([numbers[row : row + side, column : column + side] for row, column in corners])
    masks = [[tile == number for number in np.unique(tile[tile > 0])] for tile in objects]
    return Scenes(
        images=grey[..., None].repeat(3, axis=3),
        label_maps=(objects > 0).astype(np.uint8),
        boxes=tuple(np.array([box_of(mask) for mask in tile], dtype=np.float32).reshape(-1, 4) for tile in masks),
        labels=tuple(np.zeros(len(tile), dtype=np.int64) for tile in masks),
        areas=tuple(np.array([mask.sum() for mask in tile], dtype=np.int64) for tile in masks),
    )
