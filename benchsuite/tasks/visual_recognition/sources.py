"""Data sets of every type as what the three tasks need: pictures with a class, a label map or objects."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import Incompatible
from benchsuite.datasets.coco.reader import CocoDataset, ImageSet, Record
from benchsuite.datasets.image_folders.reader import ImageFolders, Part
from benchsuite.datasets.label_maps.ade20k import LabelMaps
from benchsuite.datasets.pictures import Pictures, held_out
from benchsuite.datasets.shapes.generated import Scenes, ShapeScenes
from benchsuite.datasets.small_images.reader import SmallImages
from benchsuite.tasks.visual_recognition.contract import Objects

__all__ = [
    "Annotated",
    "Answers",
    "Labelled",
    "Mapped",
    "Source",
    "annotated",
    "labelled",
    "mapped",
    "relabelled",
    "sha256",
]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pictures, as everybody rounds them: for all but the sets of small images."""

Colours = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Pictures with a class each, (N,) int64."""

    pictures: Pictures
    labels: NDArray[np.int64] = field(repr=False)

    def part(self, places: Sequence[int]) -> Labelled:
        """Return some of them."""
        return Labelled(_part(self.pictures, places), self.labels[list(places)])


@dataclass(frozen=True, eq=False)
class Mapped:
    """Pictures with a label map each: place to uint8 (H, W), 255 ignored."""

    pictures: Pictures
    label_map: Callable[[int], NDArray[np.uint8]] = field(repr=False)

    def part(self, places: Sequence[int]) -> Mapped:
        """Return some of them."""
        chosen = list(places)
        return Mapped(_part(self.pictures, places), lambda index: self.label_map(chosen[index]))


@dataclass(frozen=True, eq=False)
class Answers:
    """The annotated objects of a picture, as they are stored.

    Attributes
    ----------
    boxes
        (n, 4) float64: x, y, width, height in pixels.
    labels
        (n,) int64.
    crowd
        (n,) bool.
    areas
        (n,) float64: pixels of the masks.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]

    def objects(self) -> Objects:
        """Return what a detector may learn from: without objects of no area or narrower than a pixel (mmdetection)."""
        usable = (self.areas > 0) & (self.boxes[:, 2:] >= 1).all(axis=1)
        corners = self.boxes[usable]
        corners[:, 2:] += corners[:, :2]
        return Objects(corners.astype(np.float32), self.labels[usable], self.crowd[usable])


@dataclass(frozen=True, eq=False)
class Annotated:
    """Pictures with objects.

    Attributes
    ----------
    pictures
        The pictures.
    answers
        The objects of each.
    sizes
        Height and width of each picture.
    ids
        Of each picture in files of results.
    """

    pictures: Pictures
    answers: tuple[Answers, ...] = field(repr=False)
    sizes: tuple[tuple[int, int], ...] = field(repr=False)
    ids: tuple[int, ...] = field(repr=False)

    def part(self, places: Sequence[int]) -> Annotated:
        """Return some of them."""
        return Annotated(
            _part(self.pictures, places),
            tuple(self.answers[i] for i in places),
            tuple(self.sizes[i] for i in places),
            tuple(self.ids[i] for i in places),
        )


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as a task takes it.

    Attributes
    ----------
    name
        Of the data set.
    classes
        Names; a label is a place in this tuple.
    mean, std
        Of the colours, where 255 is 1.
    train, test
        The two parts, of one type: `Labelled`, `Mapped` or `Annotated`.
    categories
        In detection the number of each class in files of results.
    note
        What the reader decided by itself.
    """

    name: str
    classes: tuple[str, ...]
    mean: Colours
    std: Colours
    train: Any
    test: Any
    categories: tuple[int, ...] = ()
    note: str = ""

    def parts(self, split: str) -> tuple[Any, Any]:
        """Return what is learned from and what is judged: for ``val`` a fifth of the training pictures is judged."""
        if split == "test":
            return self.train, self.test
        labels = self.train.labels if isinstance(self.train, Labelled) else None
        chosen = held_out(len(self.train.pictures), labels)
        rest = sorted(set(range(len(self.train.pictures))) - set(chosen))
        return self.train.part(rest), self.train.part(chosen)


def labelled(data: Any) -> Source:
    """Return a data set for classification.

    Raises
    ------
    Incompatible
        If its pictures show several objects.
    """
    if isinstance(data, SmallImages):
        train, test = (
            Labelled(_of_planes(images, part), labels)
            for part, images, labels in (
                ("train", data.train_images, data.train_labels),
                ("test", data.test_images, data.test_labels),
            )
        )
        classes = tuple(str(number) for number in range(data.num_classes))
        return Source(data.name, classes, _three(data.mean), _three(data.std), train, test)
    if isinstance(data, ImageFolders):
        train, test = (
            Labelled(Pictures(part.files, _reader(data.pixels, part.files), digest), part.labels)
            for part, digest in ((data.train, data.training_digest), (data.test, ""))
        )
        return Source(data.name, data.classes, MEAN, STD, train, test)
    for scenes in (data.train, data.test):
        if any(len(found) != 1 for found in scenes.labels):
            raise Incompatible(f"pictures of {data.name!r} show several objects or none: classify those of 'shapes'")
    train, test = (
        Labelled(_of_scenes(scenes, part), np.concatenate(scenes.labels))
        for part, scenes in (("train", data.train), ("test", data.test))
    )
    return Source(data.name, data.classes, MEAN, STD, train, test)


def mapped(data: Any) -> Source:
    """Return a data set for semantic segmentation; generated scenes have the ground as their first class."""
    if isinstance(data, LabelMaps):
        train, test = (_files_of_maps(data, files, digest) for files, digest in _halves(data))
        return Source(data.name, data.classes, MEAN, STD, train, test)
    train, test = (
        Mapped(_of_scenes(scenes, part), _reader_of(scenes.label_maps))
        for part, scenes in (("train", data.train), ("test", data.test))
    )
    return Source(data.name, ("background", *data.classes), MEAN, STD, train, test)


def annotated(data: Any) -> Source:
    """Return a data set for detection.

    The numbers of classes and pictures in files of results are COCO's own, and count from 1 in generated scenes.
    """
    if isinstance(data, CocoDataset):
        numbers = {category: label for label, category in enumerate(data.categories)}
        train, test = (_of_records(images, numbers) for images in (data.train, data.test))
        names = tuple(data.categories.values())
        return Source(data.name, names, MEAN, STD, train, test, tuple(data.categories), data.note)
    train, test = (_objects_of(scenes, part) for part, scenes in (("train", data.train), ("test", data.test)))
    return Source(data.name, data.classes, MEAN, STD, train, test, tuple(range(1, len(data.classes) + 1)))


def relabelled(data: Any) -> Any:
    """Return a data set whose test answers are all other classes; pictures and training part stay as they are.

    Raises
    ------
    NotImplementedError
        If the answers are files, or there is one class only.
    """
    if isinstance(data, SmallImages):
        return replace(data, test_labels=(data.test_labels + 1) % data.num_classes)
    if isinstance(data, ImageFolders):
        test = Part(data.test.files, (data.test.labels + 1) % len(data.classes))
        return replace(data, test=test)
    if isinstance(data, ShapeScenes) and len(data.classes) > 1:
        count, scenes = len(data.classes), data.test
        maps = np.where(scenes.label_maps > 0, scenes.label_maps % count + 1, 0).astype(np.uint8)
        labels = tuple((found + 1) % count for found in scenes.labels)
        return replace(data, test=replace(scenes, label_maps=maps, labels=labels))
    if isinstance(data, CocoDataset):
        ids = list(data.categories)
        following = dict(zip(ids, [*ids[1:], ids[0]], strict=True))

        def other(record: Record) -> Record:
            changed = tuple({**a, "category_id": following[a["category_id"]]} for a in record.annotations)
            return replace(record, annotations=changed)

        return replace(data, test=data.test.part(other(record) for record in data.test))
    raise NotImplementedError


def sha256(*parts: Any) -> str:
    """Return a digest of arrays, texts and numbers."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()


def _part(pictures: Pictures, places: Sequence[int]) -> Pictures:
    chosen = list(places)
    names = tuple(pictures.names[place] for place in chosen)
    return Pictures(names, lambda index: pictures[chosen[index]], sha256(pictures.digest, chosen))


def _three(values: Iterable[float]) -> Colours:
    found = tuple(values)
    first, second, third = found * 3 if len(found) == 1 else found
    return first, second, third


def _reader(read: Callable[[str], NDArray[np.uint8]], files: Sequence[str]) -> Callable[[int], NDArray[np.uint8]]:
    return lambda index: read(files[index])


def _reader_of(arrays: NDArray[np.uint8]) -> Callable[[int], NDArray[np.uint8]]:
    return lambda index: arrays[index]


def _names(part: str, count: int) -> tuple[str, ...]:
    return tuple(f"{part}/{number}" for number in range(count))


def _of_planes(images: NDArray[np.uint8], part: str) -> Pictures:
    """Return pictures of (N, C, H, W) bytes; one channel is repeated."""

    def read(index: int) -> NDArray[np.uint8]:
        found = images[index].transpose(1, 2, 0)
        return found.repeat(3, axis=2) if found.shape[2] == 1 else found

    return Pictures(_names(part, len(images)), read, sha256(images))


def _of_scenes(scenes: Scenes, part: str) -> Pictures:
    return Pictures(_names(part, len(scenes)), _reader_of(scenes.images), scenes.digest)


def _halves(data: LabelMaps) -> tuple[tuple[tuple[str, ...], str], ...]:
    return (data.train, data.training_digest), (data.test, "")


def _files_of_maps(data: LabelMaps, files: tuple[str, ...], digest: str) -> Mapped:
    return Mapped(Pictures(files, _reader(data.pixels, files), digest), _reader(data.labels, files))


def _objects_of(scenes: Scenes, part: str) -> Annotated:
    size = scenes.images.shape[1:3]
    answers = []
    for boxes, labels, areas in zip(scenes.boxes, scenes.labels, scenes.areas, strict=True):
        stored = boxes.astype(np.float64)
        stored[:, 2:] -= stored[:, :2]
        answers.append(Answers(stored, labels, np.zeros(len(labels), dtype=bool), areas.astype(np.float64)))
    ids = tuple(range(1, len(scenes) + 1))
    return Annotated(_of_scenes(scenes, part), tuple(answers), ((size[0], size[1]),) * len(scenes), ids)


def _of_records(images: ImageSet, numbers: dict[int, int]) -> Annotated:
    def read(index: int) -> NDArray[np.uint8]:
        return images[index].pixels()

    answers = tuple(
        Answers(
            boxes=np.array([a["bbox"] for a in record.annotations], dtype=np.float64).reshape(-1, 4),
            labels=np.array([numbers[a["category_id"]] for a in record.annotations], dtype=np.int64),
            crowd=np.array([bool(a["iscrowd"]) for a in record.annotations], dtype=bool),
            areas=np.array([a["area"] for a in record.annotations], dtype=np.float64),
        )
        for record in images
    )
    return Annotated(
        pictures=Pictures(tuple(str(record.image_id) for record in images), read, images.digest),
        answers=answers,
        sizes=tuple((record.height, record.width) for record in images),
        ids=tuple(record.image_id for record in images),
    )
