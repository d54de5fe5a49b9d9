"""Which classes are novel, which annotations are the K shots of a class, and the records that show them.

Sources: class split and sampler of TFA (ucbdrive/few-shot-object-detection, ``datasets/prepare_coco_few_shot.py``),
file layouts of TFA and of Meta-DETR.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchsuite.core.errors import DataError
from benchsuite.datasets.coco.reader import Annotation, CocoDataset, ImageSet, Record
from benchsuite.datasets.coco.shots import check_counts, check_shots, read_shots
from benchsuite.tasks.fewshot_instance_segmentation.contract import SHOTS, FewShotProtocol

COCO_NOVEL = (1, 2, 3, 4, 5, 6, 7, 9, 16, 17, 18, 19, 20, 21, 44, 62, 63, 64, 67, 72)
"""Category ids of the 20 classes that COCO shares with Pascal VOC."""

COCO_BASE = (
    8, 10, 11, 13, 14, 15, 22, 23, 24, 25, 27, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 46, 47, 48, 49,
    50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 65, 70, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 84, 85, 86, 87, 88,
    89, 90,
)  # fmt: skip
"""Category ids of the other 60 classes."""


@dataclass(frozen=True)
class ClassShots:
    """The shots of one class: ``by_k[K]`` are annotation ids, nested; ``reason`` says why larger K are missing."""

    by_k: Mapping[int, tuple[int, ...]]
    reason: str = ""


def contiguous(classes: Sequence[int]) -> dict[int, int]:
    """Return category id to label 0 .. n - 1, in ascending order of ids."""
    return {category: label for label, category in enumerate(sorted(classes))}


def split_classes(dataset: CocoDataset, train: ImageSet) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the base and the novel classes that have a countable training object, as ascending category ids.

    Novel are those that the data name as such, else COCO's twenty.
    """
    shown = {int(a["category_id"]) for r in train for a in r.annotations if not a.get("iscrowd", 0)}
    novel = set(dataset.novel if dataset.novel is not None else COCO_NOVEL)
    return tuple(sorted(shown - novel)), tuple(sorted(shown & novel))


def sample_shots(
    annotations: Sequence[Mapping[str, Any]], classes: Sequence[int], seed: int, shots: Sequence[int] = SHOTS
) -> dict[int, ClassShots]:
    """Draw nested shots, whole images at a time, draw by draw as TFA does.

    For each class in ascending order and each K: draw K of its images, walk through them, and take all objects of an
    image that is new and fits, until there are exactly K; draw again otherwise. TFA's loop never ends where the objects
    of the remaining images cannot add up to K; here the class then stops at the K before, with the reason.

    Parameters
    ----------
    annotations
        In the order of the file; crowd regions are left out.
    classes
        Category ids.
    seed
        Of Python's generator; TFA's groups 1 to 9 are seeds 1 to 9.
    shots
        Ascending numbers of shots.
    """
    generator = random.Random(seed)
    by_class: dict[int, dict[int, list[int]]] = {category: {} for category in sorted(classes)}
    for annotation in annotations:
        images = by_class.get(int(annotation["category_id"]))
        if images is not None and not annotation.get("iscrowd", 0):
            images.setdefault(int(annotation["image_id"]), []).append(int(annotation["id"]))
    return {category: _shots_of_class(images, shots, generator) for category, images in by_class.items()}


def _shots_of_class(images: Mapping[int, Sequence[int]], shots: Sequence[int], generator: random.Random) -> ClassShots:
    chosen: list[int] = []
    taken: set[int] = set()
    by_k: dict[int, tuple[int, ...]] = {}
    names = list(images)
    for k in shots:
        if len(names) < k:
            return ClassShots(by_k, f"{len(names)} images, {k} shots need {k}")
        while len(chosen) < k:
            rest = [len(found) for image, found in images.items() if image not in taken]
            if not _adds_up(rest, k - len(chosen)):
                return ClassShots(by_k, f"the objects of its remaining images cannot add up to {k} shots")
            for image in generator.sample(names, k):
                if image in taken or len(images[image]) + len(chosen) > k:
                    continue
                taken.add(image)
                chosen.extend(images[image])
                if len(chosen) == k:
                    break
        by_k[k] = tuple(chosen)
    return ClassShots(by_k)


def _adds_up(counts: Sequence[int], total: int) -> bool:
    """Return whether some of the counts sum to ``total``."""
    reachable = 1  # bit s: a sum of s is possible
    mask = (1 << (total + 1)) - 1
    for count in counts:
        reachable |= (reachable << count) & mask
    return bool(reachable >> total & 1)


def read_tfa_shots(
    root: Path, names: Mapping[int, str], k: int, group: int, train: ImageSet | None = None
) -> dict[int, tuple[int, ...]]:
    """Return category id to annotation ids of TFA's files ``full_box_{K}shot_{name}_trainval.json``.

    Group 0 lies in ``cocosplit/`` itself, group N in ``cocosplit/seedN/``. With ``train`` the shots are compared with
    the training annotations.

    Raises
    ------
    DatasetNotFound
        If a file is missing.
    DataError
        See `read_shots` and `check_shots`; if a file shows another class, or not K objects (but for none at all); or if
        the name of a class cannot be part of a file's.
    """
    folder = root / "cocosplit" if group == 0 else root / "cocosplit" / f"seed{group}"
    found: dict[int, tuple[int, ...]] = {}
    for category, name in sorted(names.items()):
        if "/" in name or "\\" in name:
            raise DataError(
                f"category {category} is {name!r}: no file of TFA's shots can have that in its name, rename it"
            )
        file = folder / f"full_box_{k}shot_{name}_trainval.json"
        found |= _ids_by_class(file, [category], k, train)
        other = next((shot for shot in read_shots(file) if shot["category_id"] != category), None)
        if other is not None:
            raise DataError(
                f"{file}: annotation {other['id']} is of category {other['category_id']}, not of {name} ({category})"
            )
    return found


def read_meta_detr_shots(
    root: Path, names: Mapping[int, str], k: int, group: int, train: ImageSet | None = None
) -> dict[int, tuple[int, ...]]:
    """Return category id to annotation ids of Meta-DETR's file ``coco_fewshot/seed{N}/{K}shot.json``.

    The file holds all classes; those of ``names`` are returned. Raises as `read_tfa_shots` does.
    """
    return _ids_by_class(root / "coco_fewshot" / f"seed{group}" / f"{k}shot.json", names, k, train)


def _ids_by_class(file: Path, classes: Iterable[int], k: int, train: ImageSet | None) -> dict[int, tuple[int, ...]]:
    shots = read_shots(file)
    if train is not None:
        check_shots(shots, train.annotations(), file)
    found = {category: tuple(s["id"] for s in shots if s["category_id"] == category) for category in sorted(classes)}
    check_counts(shots, k, file)
    return found


def draw_shots(
    dataset: CocoDataset, train: ImageSet, classes: Sequence[int], protocol: FewShotProtocol, seed: int
) -> tuple[dict[int, tuple[int, ...]], dict[int, str]]:
    """Return the annotation ids of the shots of each class, and why classes were left out.

    ``seed`` is that of the sampler, or the published group.
    """
    if protocol.source in ("sampler", "tfa-groups"):
        drawn = sample_shots(train.annotations(), sorted(dataset.categories), seed)
        shots = {c: drawn[c].by_k[protocol.shots] for c in classes if protocol.shots in drawn[c].by_k}
        return shots, {c: drawn[c].reason for c in classes if c not in shots}
    if dataset.root is None:
        raise DataError("files of shots need a data root")
    read = read_tfa_shots if protocol.source == "tfa-files" else read_meta_detr_shots
    shots = read(dataset.root, {c: dataset.categories[c] for c in classes}, protocol.shots, seed, train)
    return {c: s for c, s in shots.items() if s}, {c: "the file of shots has none" for c, s in shots.items() if not s}


def shot_records(train: ImageSet, shots: Mapping[int, Sequence[int]], merge: bool) -> ImageSet:
    """Return a record for each shot, or, merged, one for each image with all its shots."""
    where: dict[int, tuple[Record, Annotation]] = {int(a["id"]): (r, a) for r in train for a in r.annotations}
    wanted = [number for category in sorted(shots) for number in shots[category]]
    missing = [number for number in wanted if number not in where]
    if missing:
        raise DataError(f"annotation {missing[0]} of the shots is not among the training images")
    records = [replace(where[n][0], annotations=(where[n][1],)) for n in wanted]
    if merge:
        merged: dict[int, Record] = {}
        for record in records:
            before = merged.get(record.image_id)
            merged[record.image_id] = (
                replace(before, annotations=before.annotations + record.annotations) if before else record
            )
        records = list(merged.values())
    return train.part(records)
