"""FSS-1000: categories of ten pictures with masks; categories, not folds, part training from test.

A mask is a picture; grey values of at least 128 are foreground.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets.class_masks.images import ClassMasks, Line, Mask, read_grey, read_rgb
from benchsuite.datasets.class_masks.lists import read_names

_FOLDER = "FSS-1000"
_LISTS = "splits/fss"
_IMAGES = 10
_FOREGROUND = 128


@dataclass(frozen=True, eq=False)
class FSS1000(ClassMasks):
    """See `ClassMasks`; an image is named ``category/number``."""

    root: Path = field(default=Path(), repr=False)

    def picture(self, image: str) -> NDArray[np.uint8]:
        """See `ClassMasks.picture`."""
        return read_rgb(self.root / _FOLDER / f"{image}.jpg")

    def mask(self, image: str, label: int) -> tuple[Mask, Mask]:
        """See `ClassMasks.mask`; nothing is ignored."""
        path = self.root / _FOLDER / f"{image}.png"
        target = read_grey(path) >= _FOREGROUND
        if not target.any():
            raise DataError(f"{path}: holds no foreground (grey from {_FOREGROUND} on): give the mask of its picture")
        return target, np.zeros_like(target)


def load_fss1000(root: Path | None, draw: int) -> FSS1000:
    """Read FSS-1000 below ``root``: one fold, the test categories.

    Class ids count the sorted names of each list: training first, then validation, then test.

    Raises
    ------
    DatasetNotFound
        If the lists or the folder are not there.
    DataError
        For a list that is broken, a category in two lists, or one without its ten pictures and masks.
    """
    if root is None:
        raise DatasetNotFound("give the folder with splits/fss and FSS-1000: --data-root DIR")
    parts: dict[str, list[Line]] = {}
    classes: list[str] = []
    for part in ("trn", "val", "test"):
        path = root / _LISTS / f"{part}.txt"
        if not path.is_file():
            raise DatasetNotFound(f"{path}: is missing: copy the published lists below {_LISTS}")
        names = sorted(read_names(path))
        twice = next((name for name in names if name in classes), None)
        if twice is not None:
            raise DataError(f"{path}: lists {twice!a}, which another list has too: a category belongs into one")
        parts[part] = [
            Line(f"{name}/{number}", label)
            for label, name in enumerate(names, start=len(classes))
            for number in _numbers(root / _FOLDER / name, path)
        ]
        classes += names
    tested = tuple(sorted({line.label for line in parts["test"]}))
    return FSS1000(
        name="fss-1000",
        rule="fss-1000",
        classes=tuple(classes),
        folds=(tested,),
        train=(tuple(parts["trn"]),),
        test=(tuple(parts["test"]),),
        validation=tuple(parts["val"]),
        root=root,
    )


def _numbers(folder: Path, listed: Path) -> list[int]:
    """Return 1, 10, 2 ... 9 (the order of names), each of which must have its picture and its mask."""
    numbers = sorted(range(1, _IMAGES + 1), key=str)
    for number in numbers:
        for suffix in (".jpg", ".png"):
            if not (folder / f"{number}{suffix}").is_file():
                raise DataError(f"{listed}: {folder.name!a} lacks {number}{suffix}: complete {_FOLDER}/{folder.name}")
    return numbers
