"""Files of predictions, written by runs and read from anybody: ranked classes, label maps, boxes."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.columns import Row, read_rows
from benchsuite.core.errors import DataError
from benchsuite.datasets import json_values
from benchsuite.datasets.coco import values
from benchsuite.datasets.picture_files import read_label_map

__all__ = ["LabelMapFile", "read_boxes", "read_classes", "write_boxes", "write_classes", "write_maps"]

RANK_NAMES = ("first", "second", "third", "fourth", "fifth")
"""Columns of the classes thought most likely."""

_LARGEST_MAP = 2**28  # bytes of a member that is unpacked


def write_classes(path: Path, names: Sequence[str], best: NDArray[np.int64]) -> None:
    """Write a CSV of ``picture`` and its ranked classes, as `read_classes` takes it."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["picture", *RANK_NAMES[: best.shape[1]]])
        table.writerows([name, *row] for name, row in zip(names, best.tolist(), strict=True))


def read_classes(path: Path, names: Sequence[str], classes: int, ranks: int) -> NDArray[np.int64]:
    """Return ranked classes (N, ranks) in the order of the pictures.

    Parameters
    ----------
    path
        A CSV of ``picture`` (its name) and ``first``, ``second`` ...: class indices from 0, the most likely first.
    names
        Of all test pictures: each stands in one row.
    classes, ranks
        Their number, and how many are ranked.

    Raises
    ------
    DataError
        One line that names the row: an unknown or doubled picture, a class that does not exist or stands there twice, a
        picture that is missing, or a file that is no such table.
    """
    columns = RANK_NAMES[:ranks]
    places = {name: place for place, name in enumerate(names)}
    found = np.full((len(names), ranks), -1, dtype=np.int64)
    for row in read_rows(path, ("picture", *columns)):
        name = row.cells["picture"]
        if name not in places:
            raise row.wrong(f"there is no test picture {_shown(name)}")
        if found[places[name], 0] >= 0:
            raise row.wrong(f"the picture {_shown(name)} stands there twice: keep one")
        found[places[name]] = _ranked(row, columns, classes)
    missing = np.flatnonzero(found[:, 0] < 0)
    if missing.size:
        raise DataError(f"{path}: lacks {missing.size} of {len(names)} pictures, e.g. {_shown(names[missing[0]])}")
    return found


def _ranked(row: Row, columns: Sequence[str], classes: int) -> list[int]:
    best = [row.whole(column) for column in columns]
    for column, label in zip(columns, best, strict=True):
        if not 0 <= label < classes:
            raise row.wrong(f"{column} is {label}: there are {classes} classes, numbered from 0")
    if len(set(best)) < len(best):
        raise row.wrong("ranks one class twice")
    return best


def write_maps(path: Path, maps: Iterable[tuple[str, NDArray[np.uint8]]]) -> None:
    """Write a ZIP of grey PNGs, ``NAME.png``, as `LabelMapFile` reads it; equal maps give equal bytes."""
    from PIL import Image

    with zipfile.ZipFile(path, "w") as archive:
        for name, labels in maps:
            content = io.BytesIO()
            Image.fromarray(labels).save(content, format="PNG")
            archive.writestr(zipfile.ZipInfo(f"{name}.png"), content.getvalue())


class LabelMapFile:
    """A ZIP of predicted label maps: ``NAME.png`` for each test picture, 8-bit grey or palette, class indices from 0.

    Parameters
    ----------
    path
        Of the file.
    names
        Of all test pictures.
    classes
        Their number.

    Raises
    ------
    DataError
        If it is no ZIP, or lacks, doubles or adds a picture.
    """

    def __init__(self, path: Path, names: Sequence[str], classes: int) -> None:
        self._path, self._classes = path, classes
        try:
            with zipfile.ZipFile(path) as archive:
                listed = [entry for entry in archive.infolist() if not entry.is_dir()]
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise DataError(f"{path}: not a ZIP of label maps ({error}): cut short or damaged?") from None
        wanted = {f"{name}.png" for name in names}
        for entry in listed:
            if entry.filename not in wanted:
                raise DataError(
                    f"{path}: {_shown(entry.filename)} is no test picture, or stands there twice: remove it"
                )
            if entry.file_size > _LARGEST_MAP:
                raise DataError(f"{path}: {_shown(entry.filename)} unpacks to {entry.file_size} bytes: no label map")
            wanted.remove(entry.filename)
        if wanted:
            raise DataError(f"{path}: lacks {len(wanted)} of {len(names)} pictures, e.g. {_shown(min(wanted))}")

    def read(self, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return the label map of a picture.

        Raises
        ------
        DataError
            If it cannot be read, has another size than the true one, or holds a label that is no class.
        """
        inside = f"{self._path}: {name}.png"
        try:
            with zipfile.ZipFile(self._path) as archive:
                content = archive.read(f"{name}.png")
        except Exception as error:  # damaged archives fail in many ways
            raise DataError(f"{inside}: cannot be unpacked ({type(error).__name__}): damaged?") from None
        labels = read_label_map(io.BytesIO(content), inside)
        if labels.shape != shape:
            raise DataError(f"{inside}: is {labels.shape}, the true label map {shape} (height, width)")
        if labels.size and labels.max() >= self._classes:
            raise DataError(f"{inside}: holds {labels.max()}: there are {self._classes} classes, numbered from 0")
        return labels


def write_boxes(path: Path, detections: Sequence[Mapping[str, Any]]) -> None:
    """Write a COCO results file, as `read_boxes` takes it."""
    path.write_text(json.dumps(list(detections)))


def read_boxes(
    path: Path,
    sizes: Mapping[int, tuple[int, int]],
    truth: Mapping[int, NDArray[np.float64]],
    categories: Collection[int],
) -> list[dict[str, Any]]:
    """Return the detections of a COCO results file.

    Parameters
    ----------
    path
        A json list of ``image_id``, ``category_id``, ``score`` in [0, 1] and ``bbox`` (x, y, w, h in pixels); further
        keys do not count. One entry twice is two detections.
    sizes
        Number of each test picture to its height and width.
    truth
        Number of each test picture to its true boxes (n, 4), x, y, w, h.
    categories
        Numbers of the classes.

    Raises
    ------
    DataError
        One line that names the detection: json that is broken or no such list, a field that is missing or of another
        type, an unknown picture or class, a box that is none; and boxes most of which only fit when read another way.
    """
    entries, _ = json_values.read_json(path, "a COCO results file")
    if not isinstance(entries, list):
        raise DataError(f"{path}: not a COCO results file: needs a list of detections")
    found = []
    for place, entry in enumerate(entries, start=1):
        try:
            found.append(_detection(entry, sizes, categories))
        except ValueError as error:
            raise DataError(f"{path}: not a COCO results file: detection {place} (from 1): {error}") from None
    _check_convention(path, found, sizes, truth)
    return found


def _detection(given: Any, sizes: Mapping[int, tuple[int, int]], categories: Collection[int]) -> dict[str, Any]:
    entry = json_values.entry(given)
    image, category, score = values.detection(entry, sizes, categories)
    height, width = sizes[image]
    to_box: Callable[[Any], list[float]] = lambda value: values.box(value, height, width, max(height, width))  # noqa: E731
    box = [float(value) for value in json_values.field(entry, "bbox", to_box)]
    return {"image_id": image, "category_id": category, "score": score, "bbox": box}


def _check_convention(
    path: Path,
    found: Sequence[Mapping[str, Any]],
    sizes: Mapping[int, tuple[int, int]],
    truth: Mapping[int, NDArray[np.float64]],
) -> None:
    """Refuse boxes that all lie within the unit square although the pictures are larger: fractions, not pixels."""
    boxes = np.array([one["bbox"] for one in found]).reshape(-1, 4)
    larger = any(max(sizes[one["image_id"]]) > 8 for one in found)
    small = not any((true[:, 2:] <= 1).all(axis=1).any() for true in truth.values())
    if len(boxes) and larger and small and boxes.max() <= 1 and (boxes[:, 2:] > 0).any():
        raise DataError(
            f"{path}: all boxes lie in the unit square: give x, y, width, height in pixels, not in fractions"
        )


def _shown(text: str) -> str:
    found = ascii(text)
    return found if len(found) <= 60 else found[:57] + "..."
