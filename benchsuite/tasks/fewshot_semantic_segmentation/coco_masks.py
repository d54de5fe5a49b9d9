"""COCO-20i: a COCO data set seen as lists of (image, class) in four folds, with the masks that a protocol asks for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError
from benchsuite.datasets.class_masks.images import ClassMasks, Line, Mask, class_mask, read_labels
from benchsuite.datasets.class_masks.lists import check_listed, lines_of, read_pairs, read_pickled
from benchsuite.datasets.coco.filling import fill_even_odd
from benchsuite.datasets.coco.reader import Annotation, CocoDataset, ImageSet, Record

__all__ = ["CocoClassMasks", "class_masks_of"]

FOLDS = 4
_LISTS = "splits/coco"
_PICTURES = "annotations"

Masks = Literal["stored", "polygon-fill"]


@dataclass(frozen=True, eq=False)
class CocoClassMasks(ClassMasks):
    """See `ClassMasks`; an image is named by its file below the root, a class by its place among the category ids."""

    records: Mapping[str, Record] = field(default_factory=dict, repr=False)
    category_ids: tuple[int, ...] = ()
    root: Path = field(default=Path(), repr=False)
    masks: Masks = "polygon-fill"

    def picture(self, image: str) -> NDArray[np.uint8]:
        """See `ClassMasks.picture`."""
        return self.records[image].pixels()

    def mask(self, image: str, label: int) -> tuple[Mask, Mask]:
        """See `ClassMasks.mask`; nothing is ignored."""
        if self.masks == "stored":
            path = (self.root / _PICTURES / image).with_suffix(".png")
            target, _ = class_mask(read_labels(path), label + 1, f"{path} ({self.classes[label]})")
            return target, np.zeros_like(target)
        record = self.records[image]
        polygons: list[list[float]] = []
        for annotation in _of_class(record, self.category_ids[label]):
            if isinstance(annotation["segmentation"], dict):
                raise DataError(
                    f"{image}: annotation {annotation['id']} is a run-length code, no polygon to fill:"
                    " set task.masks=stored, with PNGs"
                )
            polygons += annotation["segmentation"]
        target = fill_even_odd(polygons, record.height, record.width)
        if not target.any():
            raise DataError(f"{image}: the polygons of {self.classes[label]} hold no pixel: take it off the list")
        return target, np.zeros_like(target)


def class_masks_of(dataset: CocoDataset, masks: Masks) -> CocoClassMasks:
    """Return COCO-20i: fold i has the classes i, i + 4, i + 8 ... of the categories in ascending order.

    Lists below ``splits/coco/{trn,val}/fold{0..3}.pkl`` or ``.txt`` are used where they are; else a class has every
    image that shows one object of it that is no crowd.

    Raises
    ------
    DataError
        For broken lists, or lists that name images which the annotations lack.
    """
    ids = tuple(dataset.categories)
    root = dataset.root or Path()
    folds = tuple(tuple(range(fold, len(ids), FOLDS)) for fold in range(FOLDS))
    if not folds[-1]:
        raise DataError(f"{dataset.name}: {len(ids)} categories are too few for {FOLDS} folds")
    records: dict[str, Record] = {}
    notes = [dataset.note] if dataset.note else []
    parts: dict[str, tuple[tuple[Line, ...], ...]] = {}
    for part, images in (("trn", dataset.train), ("val", dataset.test)):
        named = {_name(record, root): record for record in images}
        records |= named
        listed = _published(root / _LISTS / part, folds, len(ids), named)
        if listed is None:
            listed = _annotated(images, root, ids, folds)
            notes.append(f"no list below {_LISTS}/{part}: its episodes are drawn from the annotations")
        parts[part] = listed
    return CocoClassMasks(
        name=dataset.name,
        rule="coco",
        classes=tuple(dataset.categories.values()),
        folds=folds,
        train=parts["trn"],
        test=parts["val"],
        note="; ".join(notes),
        records=records,
        category_ids=ids,
        root=root,
        masks=masks,
    )


def _name(record: Record, root: Path) -> str:
    path = Path(record.file)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _of_class(record: Record, category: int) -> list[Annotation]:
    return [a for a in record.annotations if a["category_id"] == category and not a.get("iscrowd", 0)]


def _annotated(
    images: ImageSet, root: Path, ids: tuple[int, ...], folds: tuple[tuple[int, ...], ...]
) -> tuple[tuple[Line, ...], ...]:
    place = {category: label for label, category in enumerate(ids)}
    found: dict[int, list[str]] = {}
    for record in images:
        for label in sorted({place[a["category_id"]] for a in record.annotations if not a.get("iscrowd", 0)}):
            found.setdefault(label, []).append(_name(record, root))
    return tuple(lines_of(found, labels) for labels in folds)


def _published(
    folder: Path, folds: tuple[tuple[int, ...], ...], classes: int, present: Collection[str]
) -> tuple[tuple[Line, ...], ...] | None:
    """Return the lists of a part fold by fold, None if there are none.

    A training pickle of fold i holds the classes of the other folds, a test pickle its own: each class is taken from
    the first file that lists images of it.
    """
    files = [found for fold in range(len(folds)) if (found := _file(folder, fold)) is not None]
    if not files:
        return None
    if len(files) < len(folds):
        raise DataError(f"{folder}: holds {len(files)} of {len(folds)} lists fold{{0..3}}: complete them")
    images: dict[int, tuple[str, ...]] = {}
    for path in files:
        if path.suffix == ".pkl":
            content: Mapping[int, tuple[str, ...]] = read_pickled(path, classes)
        else:
            lines = read_pairs(path, range(classes))
            content = {c: tuple(line.image for line in lines if line.label == c) for c in range(classes)}
        for label, listed in content.items():
            if not listed:
                continue
            if images.setdefault(label, listed) != listed:
                raise DataError(f"{path}: class {label} has other images than in another fold's list: use one version")
            check_listed([Line(image, label) for image in listed], present, path, "an entry in the annotations")
    return tuple(lines_of(images, labels) for labels in folds)


def _file(folder: Path, fold: int) -> Path | None:
    found = [path for suffix in (".pkl", ".txt") if (path := folder / f"fold{fold}{suffix}").is_file()]
    if len(found) > 1:
        raise DataError(f"{folder}: fold{fold} is there as .pkl and as .txt: keep one")
    return found[0] if found else None
