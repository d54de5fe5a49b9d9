"""Pictures sorted into one folder a class: ``train/CLASS/*`` to learn from, ``val/CLASS/*`` to judge on.

A class's index is the place of its folder among the sorted names, as in torchvision's ``DatasetFolder``. The validation
pictures of ImageNet are the test part here, as everywhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets.picture_files import read_rgb

ENDINGS = (".jpeg", ".jpg", ".png")


@dataclass(frozen=True, eq=False)
class Part:
    """Some pictures and their classes.

    Attributes
    ----------
    files
        Paths below the root, ``train/CLASS/NAME``; sorted class by class.
    labels
        (N,) int64.
    """

    files: tuple[str, ...] = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True, eq=False)
class ImageFolders:
    """Labelled pictures that are read when they are asked for.

    Attributes
    ----------
    name
        Of the data set.
    root
        The folder read from.
    classes
        Names of the folders, sorted; a label is a place in this tuple.
    train, test
        The two parts.
    """

    name: str
    root: Path
    classes: tuple[str, ...] = field(repr=False)
    train: Part
    test: Part

    def pixels(self, file: str) -> NDArray[np.uint8]:
        """Return a picture, uint8 RGB (H, W, 3); raises `DataError` for a file that is none."""
        return read_rgb(self.root / file)

    @cached_property
    def training_digest(self) -> str:
        """The sha256 of the names and sizes of all training pictures."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for file in self.train.files:
            digest.update(f"{file!a} {(self.root / file).stat().st_size}\n".encode())
        return digest.hexdigest()

    def summary(self) -> dict[str, int]:
        """Return the numbers of classes and pictures."""
        return {
            "classes": len(self.classes),
            "training pictures": len(self.train.files),
            "test pictures": len(self.test.files),
        }

    def verify(self) -> None:
        """Read every picture; raises `DataError` for the first that is broken."""
        for part in (self.train, self.test):
            for file in part.files:
                self.pixels(file)


def load_imagenet(root: Path | None, draw: int) -> ImageFolders:
    """Read the folders below ``root``; see `read_folders`."""
    if root is None:
        raise DatasetNotFound("give the folder with train/CLASS and val/CLASS: --data-root DIR")
    return read_folders(root, "imagenet")


def read_folders(root: Path, name: str) -> ImageFolders:
    """Read a data set of class folders; pictures themselves are read later.

    Raises
    ------
    DatasetNotFound
        If ``train`` or ``val`` is missing.
    DataError
        For pictures outside class folders, a class folder without a picture, a file that is no picture by its name,
        fewer than two classes, and test classes without training pictures.
    """
    trained, tested = (_class_folders(root, part) for part in ("train", "val"))
    classes = tuple(sorted(trained))
    if len(classes) < 2:
        raise DataError(f"{root / 'train'}: holds {len(classes)} class folder: there is nothing to tell apart")
    unknown = sorted(tested.keys() - trained.keys())
    if unknown:
        raise DataError(f"{root / 'val' / unknown[0]}: there is no training folder of this class: complete train/")
    return ImageFolders(name, root, classes, _part(trained, classes), _part(tested, classes))


def _part(found: dict[str, list[str]], classes: tuple[str, ...]) -> Part:
    files = tuple(file for label in classes for file in found.get(label, ()))
    labels = np.repeat(np.arange(len(classes)), [len(found.get(label, ())) for label in classes])
    return Part(files, labels.astype(np.int64))


def _class_folders(root: Path, part: str) -> dict[str, list[str]]:
    """Return class to its files, sorted; hidden entries do not count."""
    folder = root / part
    if not folder.is_dir():
        raise DatasetNotFound(f"{root}: holds no folder {part}: needs train/CLASS/*.JPEG and val/CLASS/*.JPEG")
    found: dict[str, list[str]] = {}
    for entry in _entries(folder):
        if not entry.is_dir():
            hint = ": sort the pictures into one folder a class" if _is_picture(entry.name) else ": remove it"
            raise DataError(f"{folder / entry.name}: lies beside the class folders{hint}")
        files = []
        for inner in _entries(folder / entry.name):
            if not _is_picture(inner.name) or inner.is_dir():
                raise DataError(f"{folder / entry.name / inner.name}: is no picture ({', '.join(ENDINGS)}): remove it")
            files.append(f"{part}/{entry.name}/{inner.name}")
        if not files:
            raise DataError(f"{folder / entry.name}: the class folder is empty: fill or remove it")
        found[entry.name] = files
    if not found:
        raise DataError(f"{folder}: holds no class folder: needs {part}/CLASS/*.JPEG")
    return found


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what lies in a folder in the order of the names."""
    with os.scandir(folder) as entries:
        yield from sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)


def _is_picture(name: str) -> bool:
    return name.lower().endswith(ENDINGS)
