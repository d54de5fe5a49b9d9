"""PASCAL-5i: VOC 2012 pictures, the label maps of SBD, and the published lists of the four folds.

Label maps are 8-bit PNGs: 0 background, 1 to 20 the classes, 255 the boundaries, which count nowhere.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DatasetNotFound
from benchsuite.datasets.class_masks.images import ClassMasks, Line, Mask, Pool, class_mask, read_labels, read_rgb
from benchsuite.datasets.class_masks.lists import check_listed, read_pairs

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle"),
    *("bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
FOLDS = tuple(tuple(range(5 * fold, 5 * fold + 5)) for fold in range(4))
_LISTS = "splits/pascal"
_PICTURES = "VOC2012/JPEGImages"
_MASKS = "VOC2012/SegmentationClassAug"


@dataclass(frozen=True, eq=False)
class Pascal(ClassMasks):
    """See `ClassMasks`; an image is named by its VOC id."""

    root: Path = field(default=Path(), repr=False)

    def picture(self, image: str) -> NDArray[np.uint8]:
        """See `ClassMasks.picture`."""
        return read_rgb(self.root / _PICTURES / f"{image}.jpg")

    def mask(self, image: str, label: int) -> tuple[Mask, Mask]:
        """See `ClassMasks.mask`: pixels of value ``label + 1``; 255 is ignored."""
        path = self.root / _MASKS / f"{image}.png"
        return class_mask(read_labels(path), label + 1, f"{path} ({self.classes[label]})")


def load_pascal(root: Path | None, draw: int) -> Pascal:
    """Read PASCAL-5i below ``root``.

    Raises
    ------
    DatasetNotFound
        If the lists or the folders are not there.
    DataError
        For a list that is broken, or that names images without picture or label map.
    """
    if root is None:
        raise DatasetNotFound("give the folder with splits/pascal and VOC2012: --data-root DIR")
    return read_pascal(root, "pascal-5i", CLASSES)


def read_pascal(root: Path, name: str, classes: tuple[str, ...], pool: Pool | None = None) -> Pascal:
    """Read a folder in the layout of PASCAL-5i with 20 classes of some names; see `load_pascal`."""
    present = {part: _names(root / part, suffix) for part, suffix in ((_PICTURES, ".jpg"), (_MASKS, ".png"))}
    parts: dict[str, list[tuple[Line, ...]]] = {"trn": [], "val": []}
    for part, lists in parts.items():
        for fold, labels in enumerate(FOLDS):
            path = root / _LISTS / part / f"fold{fold}.txt"
            if not path.is_file():
                raise DatasetNotFound(f"{path}: is missing: copy the published lists below splits/pascal")
            lines = read_pairs(path, labels)
            check_listed(lines, present[_PICTURES], path, f"picture ({_PICTURES}/ID.jpg)")
            check_listed(lines, present[_MASKS], path, f"label map ({_MASKS}/ID.png of SBD)")
            lists.append(lines)
    return Pascal(
        name=name,
        rule="pascal",
        classes=classes,
        folds=FOLDS,
        train=tuple(parts["trn"]),
        test=tuple(parts["val"]),
        pool=pool,
        root=root,
    )


def _names(folder: Path, suffix: str) -> frozenset[str]:
    """Return the names of the files of a folder that end so, without the ending."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name.removesuffix(suffix) for entry in entries if entry.name.endswith(suffix))
    except OSError:
        raise DatasetNotFound(f"{folder}: there is no such folder: unpack VOC 2012 and the label maps of SBD") from None
