"""Files of published shots, as TFA and Meta-DETR lay them beside COCO: which annotations they name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets import json_values
from benchsuite.datasets.coco import values

_PATTERNS = (
    "cocosplit/full_box_*shot_*_trainval.json",
    "cocosplit/seed*/full_box_*shot_*_trainval.json",
    "coco_fewshot/seed*/*shot.json",
)
_SHOTS = re.compile(r"(?:full_box_)?(\d+)shot(?:_(.+)_trainval)?\.json")


def read_shots(file: Path) -> list[dict[str, int]]:
    """Return ``id``, ``category_id`` and, where given, ``image_id`` of the annotations in a file of shots, in order.

    Raises
    ------
    DatasetNotFound
        If there is no such file.
    DataError
        If it is not a COCO file, an id is no whole number, or an annotation is in it twice.
    """
    if not file.is_file():
        raise DatasetNotFound(f"{file}: there is no such file of shots")
    data, _ = json_values.read_json(file)
    if not isinstance(data, dict) or not isinstance(data.get("annotations"), list):
        raise DataError(f"{file}: not a COCO file: needs a list of annotations")
    found: list[dict[str, int]] = []
    seen: set[int] = set()
    for place, given in enumerate(data["annotations"]):
        try:
            keys = ["id", "category_id", *(["image_id"] if "image_id" in json_values.entry(given) else [])]
            shot = {key: json_values.field(given, key, json_values.whole) for key in keys}
        except ValueError as error:
            name = values.name_of(given, place)
            raise DataError(f"{file}: annotation {name} lacks or garbles a field: {error}") from None
        if shot["id"] in seen:
            raise DataError(f"{file}: annotation {shot['id']} is in it twice: keep one")
        seen.add(shot["id"])
        found.append(shot)
    return found


def check_shots(shots: Iterable[Mapping[str, int]], training: Iterable[Mapping[str, Any]], file: Path) -> None:
    """Compare shots with the training annotations.

    Raises
    ------
    DataError
        If an annotation is not among the training images, is a crowd, or is of another class or image there.
    """
    known = {int(annotation["id"]): annotation for annotation in training}
    for shot in shots:
        annotation = known.get(shot["id"])
        if annotation is None:
            raise DataError(
                f"{file}: annotation {shot['id']} of the shots is not among the training images: is it their file?"
            )
        for key in ("category_id", "image_id"):
            if key in shot and shot[key] != annotation[key]:
                raise DataError(
                    f"{file}: annotation {shot['id']} has the {key} {shot[key]} as a shot, {annotation[key]} among the"
                    " training images: do they belong together?"
                )
        if annotation.get("iscrowd", 0):
            raise DataError(f"{file}: annotation {shot['id']} is a crowd, which is no object to learn from")


def check_counts(shots: Iterable[Mapping[str, int]], k: int, file: Path) -> None:
    """Raise `DataError` if a file that is named for K shots shows a class in another number of objects."""
    for category, count in sorted(Counter(shot["category_id"] for shot in shots).items()):
        if count != k:
            raise DataError(f"{file}: shows {count} objects of category {category}, its name says {k}: is it complete?")


def verify_shots(root: Path, categories: Mapping[int, str], training: Sequence[Mapping[str, Any]]) -> None:
    """Read every file of shots under a root, and compare it with its name and the training annotations.

    Raises
    ------
    DataError
        See `read_shots`, `check_shots` and `check_counts`; and if the name of a class is not that of its shots.
    """
    for pattern in _PATTERNS:
        for file in sorted(root.glob(pattern)):
            shots = read_shots(file)
            check_shots(shots, training, file)
            if (name := _SHOTS.fullmatch(file.name)) is None:
                continue
            check_counts(shots, int(name[1]), file)
            other = next((s for s in shots if name[2] is not None and categories[s["category_id"]] != name[2]), None)
            if other is not None:
                raise DataError(
                    f"{file}: annotation {other['id']} is of category {other['category_id']}, not of {name[2]}"
                )
