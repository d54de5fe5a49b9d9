"""Images with instance annotations in the COCO format, split into training and test images.

Read are the layouts of COCO 2014 and 2017, the split files of TFA (``trainvalno5k.json`` and ``5k.json``), and any
folder with one annotation file, which is then split here. Format: cocodataset.org.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets import json_values
from benchsuite.datasets.coco import values
from benchsuite.datasets.coco.pictures import find_pictures, read_pixels
from benchsuite.datasets.coco.shots import verify_shots

LAYOUT = "annotations/instances_*.json (or TFA's datasplit/*.json) and the folders of images that they name"

_SPLIT_FILES = (
    ("cocosplit/datasplit/trainvalno5k.json", "cocosplit/datasplit/5k.json"),
    ("datasplit/trainvalno5k.json", "datasplit/5k.json"),
    ("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
    ("annotations/instances_train2014.json", "annotations/instances_val2014.json"),
)
_TEST_SHARE = 0.3
_SLACK = 2.0
"""Pixels by which boxes and polygons may reach beyond their image: annotators round."""

Annotation = Mapping[str, Any]
"""``id``, ``image_id`` and ``category_id`` (int), ``bbox`` (x, y, w, h) and ``area`` in pixels, ``iscrowd`` (0 or 1),
and ``segmentation``: polygons [[x, y, x, y, ...], ...] or a run-length code of the image's size."""


@dataclass(frozen=True, eq=False)
class Instance:
    """One object: its mask (H, W) bool and its box (x, y, w, h) in pixels."""

    category_id: int
    mask: NDArray[np.bool_]
    box: tuple[float, float, float, float]
    iscrowd: bool
    annotation_id: int


@dataclass(frozen=True)
class Record:
    """One image with some of its annotations; pixels and masks are decoded when asked for."""

    image_id: int
    height: int
    width: int
    file: str
    annotations: tuple[Annotation, ...] = ()

    def pixels(self) -> NDArray[np.uint8]:
        """Return the image, uint8 RGB (H, W, 3), exactly as it is stored.

        Raises
        ------
        DataError
            If the file cannot be read, has another size than annotated, or holds what 8 bits of red, green and blue
            cannot (see `read_pixels`).
        """
        return read_pixels(self.file, self.height, self.width)

    def instances(self) -> tuple[Instance, ...]:
        """Return the annotated objects, crowd regions included."""
        return tuple(
            Instance(
                category_id=int(a["category_id"]),
                mask=decode_mask(a["segmentation"], self.height, self.width),
                box=(float(a["bbox"][0]), float(a["bbox"][1]), float(a["bbox"][2]), float(a["bbox"][3])),
                iscrowd=bool(a.get("iscrowd", 0)),
                annotation_id=int(a["id"]),
            )
            for a in self.annotations
        )


class ImageSet(Sequence[Record]):
    """Annotated images in a fixed order.

    ``digest`` identifies the content: two sets with the same digest hold the same annotations of the same images, as
    far as the names and sizes of their files tell.

    Parameters
    ----------
    records
        The images; each holds its annotations in the order of the file.
    source
        Identifies the file of annotations and the files of pictures.
    places
        Annotation id to its place in the file, for files that do not list annotations image by image; None: as the
        images come.
    """

    def __init__(self, records: Iterable[Record], source: str, places: Mapping[int, int] | None = None) -> None:
        self._records = tuple(records)
        self.source = source
        self._places = places
        parts = [source] + [f"{r.image_id}:{','.join(_identity(a) for a in r.annotations)}" for r in self._records]
        self.digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        return self._records[index]

    def annotations(self) -> list[Annotation]:
        """Return the annotations of all images in the order of the file."""
        found = [a for record in self._records for a in record.annotations]
        if self._places is None:
            return found
        places = self._places
        return sorted(found, key=lambda a: places[int(a["id"])])

    def part(self, records: Iterable[Record], source: str = "") -> ImageSet:
        """Return some of these images, or some of their annotations, in the same order of the file."""
        kept = tuple(records)
        places = self._places
        if places is not None:
            places = {int(a["id"]): places[int(a["id"])] for record in kept for a in record.annotations}
        return ImageSet(kept, source or self.source, places)

    def with_classes(self, classes: Iterable[int]) -> ImageSet:
        """Return the images that show a countable object of some classes, with the annotations of these classes."""
        kept = frozenset(classes)
        records = [_only(record, kept) for record in self._records]
        return self.part(r for r in records if any(not a.get("iscrowd", 0) for a in r.annotations))

    def ground_truth(self, classes: Iterable[int]) -> dict[str, Any]:
        """Return all images with the annotations of some classes as a COCO data set (crowds included)."""
        kept = frozenset(classes)
        return {
            "images": [{"id": r.image_id, "height": r.height, "width": r.width} for r in self._records],
            "annotations": [dict(a) for r in self._records for a in r.annotations if a["category_id"] in kept],
            "categories": [{"id": c, "name": str(c)} for c in sorted(kept)],
        }


def _identity(annotation: Annotation) -> str:
    return f"{annotation['id']}/{annotation['category_id']}"


def _only(record: Record, classes: frozenset[int]) -> Record:
    return replace(record, annotations=tuple(a for a in record.annotations if a["category_id"] in classes))


@dataclass(frozen=True, eq=False)
class CocoDataset:
    """Training and test images with their classes.

    Attributes
    ----------
    categories
        Category id to name, in ascending order of ids.
    train, test
        All images with all annotations.
    novel
        Category ids of the novel classes if the data themselves say so, else None.
    root
        The folder read from.
    note
        What the reader decided by itself, in one line; else empty.
    """

    name: str
    categories: Mapping[int, str]
    train: ImageSet
    test: ImageSet
    novel: tuple[int, ...] | None = None
    root: Path | None = None
    note: str = field(default="")

    def summary(self) -> dict[str, int]:
        """Return the numbers of images, objects and classes."""
        return {
            "training images": len(self.train),
            "test images": len(self.test),
            "objects": sum(len(record.annotations) for part in (self.train, self.test) for record in part),
            "classes": len(self.categories),
        }

    def verify(self) -> None:
        """Read everything that a run can read: the pixels of all images, all masks, and all files of shots.

        Raises
        ------
        DataError
            For the first file or annotation that a run would stumble over.
        """
        for record in (*self.train, *self.test):
            record.pixels()
            for annotation in record.annotations:
                try:
                    decode_mask(annotation["segmentation"], record.height, record.width)
                except DataError as error:
                    raise DataError(f"annotation {annotation['id']} of image {record.image_id}: {error}") from None
        if self.root is not None:
            verify_shots(self.root, self.categories, self.train.annotations())


def load_coco(root: Path | None, draw: int) -> CocoDataset:
    """Read COCO data under ``root``; with one annotation file 30 % of its images become the test part.

    Raises
    ------
    DatasetNotFound
        If there is no annotation file.
    DataError
        For broken files: one line that names the file and what is wrong.
    """
    if root is None:
        raise DatasetNotFound(f"give the folder with {LAYOUT}: --data-root DIR")
    return read_folder(root, "coco")


def read_folder(root: Path, name: str) -> CocoDataset:
    """See `load_coco`."""
    pair = next((p for p in _SPLIT_FILES if all((root / f).is_file() for f in p)), None)
    if pair is not None:
        (categories, train, info), (others, test, other_info) = (read_annotations(root / file, root) for file in pair)
        _compare_categories(categories, others, *pair)
        novel, told = _novel(info, categories, root / pair[0]), _novel(other_info, others, root / pair[1])
        if told is not None and novel is not None and told != novel:
            raise DataError(f"{pair[1]}: other novel_category_ids than in {pair[0]}: make them the same")
        return CocoDataset(name, categories, train, test, novel, root)
    single = sorted((root / "annotations").glob("instances_*.json"))
    if not single:
        raise DatasetNotFound(f"{root}: holds no annotation file; expected {LAYOUT}")
    if len(single) > 1:
        names = ", ".join(file.name for file in single)
        raise DataError(f"{root}: {names} are no training and test files that belong together; expected {LAYOUT}")
    categories, images, info = read_annotations(single[0], root)
    if len(images) < 2:
        raise DataError(f"{single[0]}: {len(images)} images are too few to split into training and test")
    order = np.random.default_rng(0).permutation(len(images))
    chosen = set(order[: max(1, round(_TEST_SHARE * len(images)))].tolist())
    train, test = (
        images.part(r for i, r in enumerate(images) if (i in chosen) == is_test) for is_test in (False, True)
    )
    note = f"only {single[0].name} is there: {len(test)} of its {len(images)} images became the test part"
    return CocoDataset(name, categories, train, test, _novel(info, categories, single[0]), root, note)


def _compare_categories(train: Mapping[int, str], test: Mapping[int, str], train_file: str, test_file: str) -> None:
    for number, name in test.items():
        if train.get(number) != name:
            there = f"is {train[number]!a}" if number in train else "does not exist"
            raise DataError(
                f"{test_file}: category {number} is {name!a}, in {train_file} it {there}: make them the same"
            )


def _novel(info: Mapping[str, Any], categories: Mapping[int, str], file: Path) -> tuple[int, ...] | None:
    ids = info.get("novel_category_ids")
    if ids is None:
        return None
    try:
        found = [json_values.whole(number) for number in ids] if isinstance(ids, list) else None
    except ValueError as error:
        raise DataError(f"{file}: novel_category_ids of info: one {error}") from None
    if found is None or len(set(found)) != len(found) or not categories.keys() >= set(found):
        raise DataError(f"{file}: novel_category_ids of info must be ids of categories, each once")
    return tuple(sorted(found))


def read_annotations(file: Path, root: Path) -> tuple[dict[int, str], ImageSet, dict[str, Any]]:
    """Return the categories, the annotated images and the ``info`` of one COCO file.

    Ids, sizes and crowd flags become ints, whether they are written as 1, 1.0 or "1"; nothing else is converted.

    Raises
    ------
    DataError
        For json that is broken or not COCO; ids that are no whole numbers or occur twice, and annotation ids that are
        not positive (scorers take 0 for "no match"); names of categories or images that occur twice; unknown categories
        or images; boxes, areas and polygons that are not finite, or do not lie in their image; run lengths that are not
        of their image's size; boxes that are not x, y, width, height of their masks; and images that are missing.
    """
    data, content = json_values.read_json(file)
    if not isinstance(data, dict) or not all(
        isinstance(data.get(k), list) for k in ("images", "annotations", "categories")
    ):
        raise DataError(f"{file}: not a COCO file: needs lists of images, annotations and categories")
    categories = _categories(data["categories"], file)
    images = _images(data["images"], file)
    annotations = _annotations(data["annotations"], images, categories, file)
    found = find_pictures(root, [name for _, _, name in images.values()], file)
    by_image: dict[int, list[Annotation]] = {}
    for annotation in annotations:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    records = [
        Record(key, height, width, found[name], tuple(by_image.get(key, ())))
        for key, (height, width, name) in sorted(images.items())
    ]
    info = data.get("info")
    source = hashlib.sha256(content)
    for name, path in sorted(found.items()):
        try:
            source.update(f"\n{name!a} {Path(path).stat().st_size}".encode())
        except OSError as error:
            raise DataError(f"{path}: not a readable image ({error.strerror}): is it a link to nothing?") from None
    places = {annotation["id"]: place for place, annotation in enumerate(annotations)}
    found_info = info if isinstance(info, dict) else {}
    return dict(sorted(categories.items())), ImageSet(records, source.hexdigest(), places), found_info


def _categories(entries: Sequence[Any], file: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    for place, given in enumerate(entries):
        try:
            number = json_values.field(json_values.entry(given), "id", json_values.whole)
            name = json_values.field(given, "name", json_values.text)
        except ValueError as error:
            raise DataError(
                f"{file}: category {values.name_of(given, place)} lacks or garbles a field: {error}"
            ) from None
        if number in found:
            raise DataError(f"{file}: the category id {number} occurs twice: number them differently")
        found[number] = name
    names = [name.strip() for name in found.values()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{file}: two categories have the name {twice!a}: name them differently")
    return found


def _images(entries: Sequence[Any], file: Path) -> dict[int, tuple[int, int, str]]:
    """Return image id to height, width and file name."""
    found: dict[int, tuple[int, int, str]] = {}
    names: dict[str, int] = {}
    for place, given in enumerate(entries):
        try:
            number = json_values.field(json_values.entry(given), "id", json_values.whole)
            height, width = (json_values.field(given, key, json_values.whole) for key in ("height", "width"))
            name = json_values.field(given, "file_name", json_values.text)
            if not 0 < height * width < 2**31:
                raise ValueError(f"height and width are {height} and {width}: write its size in pixels")
        except ValueError as error:
            raise DataError(f"{file}: image {values.name_of(given, place)} lacks or garbles a field: {error}") from None
        if number in found:
            raise DataError(f"{file}: an image id occurs twice ({number}): number images differently")
        other = names.setdefault(PurePosixPath(name).as_posix(), number)
        if other != number:
            raise DataError(f"{file}: images {other} and {number} are both {name!a}: keep one")
        found[number] = height, width, name
    if not found:
        raise DataError(f"{file}: not a COCO file of images: it lists none")
    return found


def _annotations(
    entries: Sequence[Any], images: Mapping[int, tuple[int, int, str]], categories: Mapping[int, str], file: Path
) -> list[Annotation]:
    seen: set[int] = set()
    found: list[Annotation] = []
    boxes: list[tuple[Sequence[float], Sequence[float], tuple[int, int]]] = []
    for place, given in enumerate(entries):
        try:
            number, image, category = (
                json_values.field(json_values.entry(given), key, json_values.whole)
                for key in ("id", "image_id", "category_id")
            )
        except ValueError as error:
            raise DataError(
                f"{file}: annotation {values.name_of(given, place)} lacks or garbles a field: {error}"
            ) from None
        if number <= 0 or number in seen:
            raise DataError(f"{file}: annotation id {number} is not positive and unique: number them from 1")
        if category not in categories:
            raise DataError(f"{file}: annotation {number} has the unknown category {category}: add it or leave it out")
        if image not in images:
            raise DataError(f"{file}: annotation {number} belongs to the unknown image {image}: add it or leave it out")
        height, width, _ = images[image]
        try:
            geometry = _geometry(given, height, width)
            around = _around(geometry["segmentation"], height, width)
            if any(around) and values.apart(geometry["bbox"], around, _SLACK):
                raise ValueError(
                    f"bbox {json_values.shown(geometry['bbox'])} does not touch the mask: give x, y, width, height"
                    " in pixels"
                )
        except ValueError as error:
            raise DataError(f"{file}: annotation {number}: {error}") from None
        seen.add(number)
        boxes.append((geometry["bbox"], around, (height, width)))
        found.append({"id": number, "image_id": image, "category_id": category, **geometry})
    if (other := values.other_reading(boxes)) is not None:
        number, reading = found[other[0]]["id"], other[1]
        raise DataError(
            f"{file}: most boxes (e.g. of annotation {number}) are {reading}: give x, y, width, height in pixels"
        )
    return found


def _geometry(given: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    box = json_values.field(given, "bbox", lambda value: values.box(value, height, width, _SLACK))
    area = json_values.field(given, "area", json_values.number)
    if not 0 <= area <= (height + _SLACK) * (width + _SLACK):
        raise ValueError(
            f"area is {json_values.shown(area)}: give the pixels of the object, in an image of {width} x {height}"
        )
    crowd = json_values.field(given, "iscrowd", values.crowd) if "iscrowd" in given else 0
    shape = json_values.field(given, "segmentation", lambda value: normal_segmentation(value, height, width))
    return {"bbox": box, "area": area, "iscrowd": crowd, "segmentation": shape}


def normal_segmentation(segmentation: Any, height: int, width: int) -> Any:
    """Return polygons, or a run-length code with the size and the run lengths as ints (or their compressed text).

    Raises
    ------
    ValueError
        If polygons are not finite or have too few points, or the run lengths are not those of an image of that size.
    """
    if not isinstance(segmentation, dict):
        return values.polygons(segmentation, height, width, _SLACK)
    lengths = values.run_lengths(segmentation, height, width)
    counts = segmentation["counts"]
    return {"size": [height, width], "counts": lengths if isinstance(counts, list) else counts}


def _around(segmentation: Any, height: int, width: int) -> tuple[float, ...]:
    """Return the box (x, y, w, h) around a normal segmentation."""
    if not isinstance(segmentation, dict):
        return values.extent(segmentation)
    return mask_box(encode_segmentation(segmentation, height, width))


def mask_box(encoded: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the box (x, y, w, h) around the mask of a compressed run-length code; all 0 for an empty one."""
    from hotcoco import mask as masks

    return tuple(float(value) for value in masks.to_bbox(dict(encoded)))


def decode_mask(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask (H, W) bool of polygons or of a run-length code (lists or strings).

    Raises
    ------
    DataError
        If it cannot be decoded to that size.
    """
    from hotcoco import mask as masks

    try:
        encoded = encode_segmentation(normal_segmentation(segmentation, height, width), height, width)
        decoded = np.asarray(masks.decode(encoded)).astype(bool)
    except Exception as error:  # the library raises many kinds
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"a mask cannot be decoded ({type(error).__name__}: {reason})") from None
    if decoded.shape != (height, width):
        raise DataError(f"a mask has the size {decoded.shape}, its image {(height, width)}")
    return decoded


def encode_segmentation(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Return a normal segmentation (polygons or any run-length code) as a compressed run-length code."""
    from hotcoco import mask as masks

    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            encoded = masks.fr_py_objects(segmentation, height, width)
            return dict(encoded[0] if isinstance(encoded, list) else encoded)
        return segmentation
    parts = masks.fr_py_objects([list(map(float, polygon)) for polygon in segmentation], height, width)
    return dict(masks.merge(parts))


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return a mask (H, W) as a run-length code for json: ``size`` and ``counts`` as text."""
    from hotcoco import mask as masks

    encoded = masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = encoded["counts"]
    return {"size": list(map(int, encoded["size"])), "counts": counts.decode() if isinstance(counts, bytes) else counts}
