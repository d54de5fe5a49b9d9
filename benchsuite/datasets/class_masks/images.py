"""What every few-shot segmentation data set is: lists of (image, class) in folds, pictures, masks of one class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError

__all__ = ["ClassMasks", "Line", "Pool", "Rule", "class_mask", "read_grey", "read_labels", "read_rgb"]

Rule = Literal["pascal", "coco", "fss-1000"]
"""How episodes are drawn from the lists (see the task's ``episodes``)."""

IGNORED = 255
"""The value of label maps that counts nowhere: the boundaries of VOC."""

Mask = NDArray[np.bool_]


class Line(NamedTuple):
    """One entry of a list: an image, and a class that it shows (0-based id)."""

    image: str
    label: int


@dataclass(frozen=True)
class Pool:
    """Pictures of further categories, none of them a class of the episodes, to pre-train a backbone on.

    Attributes
    ----------
    names
        The categories; a label is a place in this tuple.
    train, test
        Files and labels.
    """

    names: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    test: tuple[tuple[str, int], ...]

    @staticmethod
    def read(files: Sequence[tuple[str, int]]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the pictures, uint8 (N, H, W, 3), and their labels, int64 (N,)."""
        pictures = np.stack([read_rgb(Path(file)) for file, _ in files])
        return pictures, np.array([label for _, label in files], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ClassMasks(ABC):
    """Images with masks a class, listed fold by fold.

    Attributes
    ----------
    name
        Of the data set.
    rule
        How its episodes are drawn.
    classes
        Names; a class id is a place in this tuple.
    folds
        The classes of each fold: those that its test episodes are about.
    train, test
        For each fold the lines of its own classes, in the order of the published file; training images, test images.
    validation
        Lines of further classes to validate on (FSS-1000), else None: another fold serves.
    pool
        To pre-train a backbone on, if the data bring that.
    note
        What the reader decided by itself, in one line; else empty.
    relabelled
        For conformance checks: every query has its foreground and background exchanged when it is judged.
    """

    name: str
    rule: Rule
    classes: tuple[str, ...]
    folds: tuple[tuple[int, ...], ...]
    train: tuple[tuple[Line, ...], ...] = field(repr=False)
    test: tuple[tuple[Line, ...], ...] = field(repr=False)
    validation: tuple[Line, ...] | None = field(default=None, repr=False)
    pool: Pool | None = field(default=None, repr=False)
    note: str = ""
    relabelled: bool = False

    @abstractmethod
    def picture(self, image: str) -> NDArray[np.uint8]:
        """Return an image, uint8 RGB (H, W, 3); raises `DataError` for a file that is none."""

    @abstractmethod
    def mask(self, image: str, label: int) -> tuple[Mask, Mask]:
        """Return where a class is, and what counts nowhere, bool (H, W) each.

        Ignored pixels are no foreground. Raises `DataError` for a broken file, a mask of another size than its image,
        or one without a single pixel of the class.
        """

    def lines(self) -> Iterator[Line]:
        """Yield every line of every list."""
        for part in (*self.train, *self.test, self.validation or ()):
            yield from part

    def summary(self) -> dict[str, int]:
        """Return the numbers of classes, folds, lines and images."""
        lines = set(self.lines())
        return {
            "classes": len(self.classes),
            "folds": len(self.folds),
            "pairs of image and class": len(lines),
            "images": len({line.image for line in lines}),
            "pictures of the pool": len(self.pool.train) + len(self.pool.test) if self.pool else 0,
        }

    def verify(self) -> None:
        """Read every picture and every mask that a run can read; raises `DataError` for the first that is broken."""
        seen: dict[str, tuple[int, ...]] = {}
        for line in dict.fromkeys(self.lines()):
            if line.image not in seen:
                seen[line.image] = self.picture(line.image).shape[:2]
            target, _ = self.mask(line.image, line.label)
            check_size(target.shape, seen[line.image], line.image)
        if self.pool:
            for file, _ in (*self.pool.train, *self.pool.test):
                read_rgb(Path(file))


def check_size(mask: tuple[int, ...], picture: tuple[int, ...], image: str) -> None:
    """Raise `DataError` if a mask has another size than its picture."""
    if mask != picture:
        raise DataError(
            f"{image}: its mask is {mask[1]} x {mask[0]} pixels, its picture {picture[1]} x {picture[0]}:"
            " give the mask of this picture"
        )


def class_mask(labels: NDArray[np.uint8], value: int, where: str) -> tuple[Mask, Mask]:
    """Return where a label map has a value, and where it is ignored.

    Parameters
    ----------
    labels
        (H, W) uint8; 255 is ignored.
    value
        Of the class in the map.
    where
        Names file and class in messages.

    Raises
    ------
    DataError
        If the map is ignored everywhere, or has no such pixel.
    """
    target, ignored = labels == value, labels == IGNORED
    if ignored.all():
        raise DataError(f"{where}: is {IGNORED} (ignored) everywhere: give the label map, not an outline or a blank")
    if not target.any():
        held = ", ".join(map(str, np.unique(labels)[:8]))
        raise DataError(f"{where}: holds no pixel of the value {value}, only {held}: correct the list or the mask")
    return target, ignored


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Return a picture, uint8 RGB (H, W, 3).

    Raises
    ------
    DataError
        If it cannot be read, or has more than 8 bits a colour, inks or transparency.
    """
    return np.asarray(_open(path, ("RGB", "L", "P", "1"), "RGB"))


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Return a label map, uint8 (H, W): the palette indices or grey values exactly as stored.

    Raises
    ------
    DataError
        If it cannot be read, or stores colours instead of labels.
    """
    return np.asarray(_open(path, ("P", "L"), None))


def read_grey(path: Path) -> NDArray[np.uint8]:
    """Return the grey values of a picture, uint8 (H, W), by the weights of ITU-R 601."""
    return np.asarray(_open(path, ("RGB", "L", "P", "1", "RGBA"), "L"))


def _open(path: Path, modes: tuple[str, ...], convert: str | None) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            mode, found = image.mode, image.convert(convert) if convert else image.copy()
    except FileNotFoundError:
        raise DataError(f"{path}: is missing: complete the data set, or take it off the list") from None
    except Exception as error:  # readers of pictures fail in many ways
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: not a readable image ({type(error).__name__}: {reason})") from None
    if mode not in modes:
        wanted = "labels (8-bit grey or palette)" if convert is None else "8-bit RGB or grey"
        raise DataError(f"{path}: stores pixels as {mode}, needs {wanted}: save it so")
    return found
