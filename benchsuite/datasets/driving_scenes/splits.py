"""Which scenes of nuScenes are learned from, and which are judged on."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from benchsuite.core.errors import DataError
from benchsuite.datasets.driving_scenes.scenes import Part
from benchsuite.datasets.json_values import read_json, shown

TRAINVAL, MINI = "v1.0-trainval", "v1.0-mini"

_VALIDATION = (
    "3 12-18 35-36 38-39 92-110 221 268-278 329-332 344-346 519-524 552-565 625-627 629-630 632-638 770-771 775 777-778"
    " 780-784 794-800 802 904-917 919-931 962-963 966-969 971-972 1059-1073"
)
_TEST = (
    "77-91 111-119 140 142-148 265-266 279-282 307-314 333-343 481-498 547-551 601-604 606-624 827-831 833-842 844-846"
    " 932-933 935-943 1026-1043"
)
_MINI_TRAIN, _MINI_VALIDATION = "61 553 655 757 796 1077 1094 1100", "103 916"


def _names(ranges: str) -> frozenset[str]:
    names = set()
    for part in ranges.split():
        first, _, last = part.partition("-")
        names |= {f"scene-{number:04d}" for number in range(int(first), int(last or first) + 1)}
    return frozenset(names)


VALIDATION, WITHOUT_ANSWERS = _names(_VALIDATION), _names(_TEST)
MINI_TRAIN, MINI_VALIDATION = _names(_MINI_TRAIN), _names(_MINI_VALIDATION)


def split_scenes(folder: Path, scenes: Collection[str]) -> dict[Part, frozenset[str]]:
    """Return which of the scenes of a version belong to each part.

    Parameters
    ----------
    folder
        With the tables. ``v1.0-trainval`` and ``v1.0-mini`` have their official split; another version needs
        ``splits.json``, which maps two names, one with "train" and one with "val" in it, to lists of scenes.
    scenes
        Names of all scenes there are.

    Raises
    ------
    DataError
        For a version without a known split, a broken ``splits.json``, or a part without a scene.
    """
    present = frozenset(scenes)
    parts: dict[Part, frozenset[str]]
    if folder.name == TRAINVAL:
        parts, source = {"train": present - VALIDATION - WITHOUT_ANSWERS, "test": present & VALIDATION}, "scene.json"
    elif folder.name == MINI:
        parts, source = {"train": present & MINI_TRAIN, "test": present & MINI_VALIDATION}, "scene.json"
    else:
        parts, source = _read_splits(folder / "splits.json", present), "splits.json"
    for part, names in parts.items():
        if not names:
            raise DataError(f"{folder / source}: no scene to {'learn from' if part == 'train' else 'judge on'}")
    return parts


def _read_splits(path: Path, present: frozenset[str]) -> dict[Part, frozenset[str]]:
    content, _ = read_json(path, "a table of splits")
    if not isinstance(content, dict):
        raise DataError(f"{path}: is {shown(content)}, needs names of splits with lists of scenes")
    parts: dict[Part, frozenset[str]] = {}
    wanted: tuple[tuple[Part, str], ...] = (("train", "train"), ("test", "val"))
    for part, word in wanted:
        named = [name for name in content if word in name]
        if len(named) != 1:
            raise DataError(f"{path}: names {len(named)} splits with {word!r} in their name, needs one")
        scenes = content[named[0]]
        if not isinstance(scenes, list) or not all(type(scene) is str for scene in scenes):
            raise DataError(f"{path}: {named[0]} is {shown(scenes)}, needs a list of names of scenes")
        absent = sorted(set(scenes) - present)
        if absent:
            raise DataError(f"{path}: {named[0]} names {shown(absent[0])}, which scene.json does not have")
        parts[part] = frozenset(scenes)
    both = sorted(parts["train"] & parts["test"])
    if both:
        raise DataError(f"{path}: {both[0]} is both learned from and judged on: keep one")
    return parts
