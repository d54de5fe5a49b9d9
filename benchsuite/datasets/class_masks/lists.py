"""The published lists of episodes: text files, and pickles of nothing but dict, list, str and int."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchsuite.core.errors import DataError
from benchsuite.datasets.class_masks.images import Line
from benchsuite.datasets.plain_pickles import read_plain_pickle

_LINE = re.compile(r"(?P<image>\S.*)__(?P<label>[0-9]{2})")
_MOST_BYTES = 256 * 2**20
_SHOWN = 60


def read_text(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file without blanks around them; empty ones at the end are left out.

    Raises
    ------
    DataError
        If it cannot be read, is no text, is empty, or has an empty line between others.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no UTF-8 text: save it as a text file") from None
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if not any(lines):
        raise DataError(f"{path}: lists nothing: is it the whole file?")
    for number, line in enumerate(lines, start=1):
        if not line or not line.isprintable():
            raise DataError(f"{path}: line {number}: {_shown(line)} is no entry: remove it")
    return lines


def read_pairs(path: Path, labels: Collection[int]) -> tuple[Line, ...]:
    """Return the lines ``<image>__<two-digit 1-based label>`` of a list.

    Parameters
    ----------
    path
        The file.
    labels
        0-based classes that may be listed.

    Raises
    ------
    DataError
        For a line of another form, a class that does not belong into this list, or an entry that occurs twice.
    """
    found: dict[Line, int] = {}
    for number, text in enumerate(read_text(path), start=1):
        match = _LINE.fullmatch(text)
        if match is None:
            raise DataError(f"{path}: line {number}: {_shown(text)} is no <image>__<label> (e.g. 2007_000032__01)")
        line = Line(match["image"], int(match["label"]) - 1)
        if line.label not in labels:
            raise DataError(
                f"{path}: line {number}: label {match['label']} does not belong into this list"
                f" (labels there: {_labels(labels)}): is it the list of another fold?"
            )
        if line in found:
            raise DataError(f"{path}: line {number}: repeats line {found[line]}: remove one")
        found[line] = number
    return tuple(found)


def read_names(path: Path) -> tuple[str, ...]:
    """Return the names of a list, one a line; raises `DataError` for one that occurs twice or leaves its folder."""
    found: dict[str, int] = {}
    for number, name in enumerate(read_text(path), start=1):
        if name in found:
            raise DataError(f"{path}: line {number}: repeats line {found[name]}: remove one")
        if "/" in name or "\\" in name or name in (".", ".."):
            raise DataError(f"{path}: line {number}: {_shown(name)} is no name of a folder")
        found[name] = number
    return tuple(found)


def read_pickled(path: Path, classes: int) -> dict[int, tuple[str, ...]]:
    """Return class id (0-based) to image names of a pickled list.

    Raises
    ------
    DataError
        If the file holds anything but one dict of int to lists of str (an object, a function: nothing of it is
        executed), a class id beyond ``classes``, or an image that a class lists twice.
    """
    content = read_plain_pickle(path, "a list of plain dict, list, str and int", _MOST_BYTES)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds {type(content).__name__}, needs a dict of class id to image names")
    found: dict[int, tuple[str, ...]] = {}
    for label, images in content.items():
        if type(label) is not int or not 0 <= label < classes:
            raise DataError(f"{path}: {_shown(label)} is no class id from 0 to {classes - 1}")
        if type(images) is not list or not all(type(image) is str and image.isprintable() for image in images):
            raise DataError(f"{path}: class {label} is {_shown(images)}, needs a list of image names")
        if len(set(images)) != len(images):
            twice = next(image for image in images if images.count(image) > 1)
            raise DataError(f"{path}: class {label} lists {_shown(twice)} twice: remove one")
        found[label] = tuple(images)
    return found


def check_listed(lines: Sequence[Line], present: Collection[str], file: Path, what: str) -> None:
    """Raise `DataError` if a list names images that are not there."""
    absent = list(dict.fromkeys(line.image for line in lines if line.image not in present))
    if absent:
        raise DataError(f"{file}: names {len(absent)} images without {what}, e.g. {_shown(absent[0])}: complete them")


def lines_of(images: Mapping[int, Sequence[str]], labels: Collection[int]) -> tuple[Line, ...]:
    """Return the lines of some classes, class by class in ascending order, images as listed."""
    return tuple(Line(image, label) for label in sorted(labels) for image in images.get(label, ()))


def _labels(labels: Collection[int]) -> str:
    shown = [f"{label + 1:02d}" for label in sorted(labels)]
    return ", ".join(shown if len(shown) < 8 else [*shown[:5], "..."])


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
