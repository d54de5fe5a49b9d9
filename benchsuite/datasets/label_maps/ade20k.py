"""ADE20K as the scene parsing challenge of 2016 published it: a jpeg and an 8-bit PNG of labels a picture.

In the files 0 is "unlabelled" and 1 to 150 are the classes. Here 255 is ignored and classes count from 0.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets.picture_files import read_label_map, read_rgb, size_of

IGNORED = 255
"""The value of label maps that counts nowhere."""

CLASSES = 150
_FOLDERS = {"train": "training", "test": "validation"}


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """Pictures with label maps that are read when they are asked for.

    Attributes
    ----------
    name
        Of the data set.
    root
        The folder read from.
    classes
        Names; a label is a place in this tuple.
    train, test
        ``PART/NAME`` of the pictures, sorted; the published validation pictures are the test part.
    """

    name: str
    root: Path
    classes: tuple[str, ...] = field(repr=False)
    train: tuple[str, ...] = field(repr=False)
    test: tuple[str, ...] = field(repr=False)

    def pixels(self, picture: str) -> NDArray[np.uint8]:
        """Return a picture, uint8 RGB (H, W, 3); raises `DataError` for a file that is none."""
        return read_rgb(self.root / "images" / f"{picture}.jpg")

    def labels(self, picture: str) -> NDArray[np.uint8]:
        """Return the label map of a picture, uint8 (H, W); 255 is ignored.

        Raises
        ------
        DataError
            For a file that is no label map, one of another size than its picture, and labels beyond the last class.
        """
        path = self.root / "annotations" / f"{picture}.png"
        stored = read_label_map(path)
        height, width = size_of(self.root / "images" / f"{picture}.jpg")
        if stored.shape != (height, width):
            raise DataError(
                f"{path}: is {stored.shape[1]} x {stored.shape[0]} pixels, the picture {width} x {height}:"
                " give the label map of this picture"
            )
        largest = int(stored.max(initial=0))
        if largest > len(self.classes):
            raise DataError(
                f"{path}: holds the label {largest}: 0 is unlabelled and 1 to {len(self.classes)} are classes"
            )
        return without_zero(stored)

    @cached_property
    def training_digest(self) -> str:
        """The sha256 of the names and sizes of all training files."""
        digest = hashlib.sha256()
        for picture in self.train:
            for path in (f"images/{picture}.jpg", f"annotations/{picture}.png"):
                digest.update(f"{path!a} {(self.root / path).stat().st_size}\n".encode())
        return digest.hexdigest()

    def summary(self) -> dict[str, int]:
        """Return the numbers of classes and pictures."""
        return {
            "classes": len(self.classes),
            "training pictures": len(self.train),
            "test pictures": len(self.test),
        }

    def verify(self) -> None:
        """Read every picture and label map; raises `DataError` for the first that is broken or does not fit."""
        for picture in (*self.train, *self.test):
            self.pixels(picture)
            self.labels(picture)


def without_zero(stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return labels that count from 0: the stored 0 becomes 255 (ignored), c becomes c - 1."""
    return stored - np.uint8(1)  # 0 wraps to 255


def load_ade20k(root: Path | None, draw: int) -> LabelMaps:
    """Read the lists of files below ``root``.

    The names of the classes are not part of the files: classes are called by their number in the official list.

    Raises
    ------
    DatasetNotFound
        If a folder is missing.
    DataError
        For a picture without label map, a label map without picture, and a folder without any.
    """
    if root is None:
        raise DatasetNotFound("give the folder with images/ and annotations/ of ADEChallengeData2016: --data-root DIR")
    parts = {}
    for part, folder in _FOLDERS.items():
        pictures = _names(root / "images" / folder, ".jpg")
        maps = _names(root / "annotations" / folder, ".png")
        odd = sorted(pictures ^ maps)
        if odd:
            missing = "label map" if odd[0] in pictures else "picture"
            raise DataError(f"{folder}/{odd[0]}: has no {missing}, as {len(odd)} in all: complete the data set")
        if not pictures:
            raise DataError(f"{root / 'images' / folder}: holds no ADE_*.jpg")
        parts[part] = tuple(f"{folder}/{name}" for name in sorted(pictures))
    names = tuple(f"class {number}" for number in range(1, CLASSES + 1))
    return LabelMaps("ade20k", root, names, parts["train"], parts["test"])


def _names(folder: Path, ending: str) -> frozenset[str]:
    if not folder.is_dir():
        raise DatasetNotFound(f"{folder}: there is no such folder: unpack ADEChallengeData2016")
    return frozenset(path.stem for path in folder.glob(f"ADE_*{ending}"))
