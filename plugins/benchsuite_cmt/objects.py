"""Objects of other frames pasted into a frame: their points, and their pictures (GT sampling, section 6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchsuite_cmt.examples import HEAD_CLASSES, Example

__all__ = [
    "ObjectStore",
    "StoredObject",
    "boxes_overlap",
    "corners_of",
    "paste_objects",
    "points_inside",
    "store_objects",
]

PER_SAMPLE = {
    "car": 2,
    "truck": 3,
    "construction_vehicle": 7,
    "bus": 4,
    "trailer": 6,
    "barrier": 2,
    "motorcycle": 6,
    "bicycle": 6,
    "pedestrian": 2,
    "traffic_cone": 2,
}
"""So many objects of a class a sample has at least, as far as there is room."""

FEWEST_POINTS = 5
_BLEND = 0.5
_SIGNS = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])


def corners_of(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners (m, 8, 3) of boxes (m, 9)."""
    local = _SIGNS * boxes[:, None, 3:6]
    cosine, sine = np.cos(boxes[:, 6, None]), np.sin(boxes[:, 6, None])
    x = local[..., 0] * cosine - local[..., 1] * sine
    y = local[..., 0] * sine + local[..., 1] * cosine
    return np.stack([x, y, local[..., 2]], axis=-1) + boxes[:, None, :3]


def points_inside(points: NDArray[np.float32], box: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which points (n, 3 or more) lie in a box (9,)."""
    apart = points[:, :3] - box[:3]
    cosine, sine = np.cos(box[6]), np.sin(box[6])
    along = np.abs(apart[:, 0] * cosine + apart[:, 1] * sine)
    across = np.abs(apart[:, 1] * cosine - apart[:, 0] * sine)
    return (along <= box[3] / 2) & (across <= box[4] / 2) & (np.abs(apart[:, 2]) <= box[5] / 2)


def boxes_overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return bool (m, n): which boxes overlap seen from above, by the theorem of separating axes."""
    if not len(first) or not len(second):
        return np.zeros((len(first), len(second)), bool)
    apart = np.zeros((len(first), len(second)), bool)
    flat = [corners_of(boxes)[:, ::2, :2] for boxes in (first, second)]  # (m, 4, 2)
    for owner, boxes in enumerate((first, second)):
        for turn in (0.0, np.pi / 2):
            axis = np.stack([np.cos(boxes[:, 6] + turn), np.sin(boxes[:, 6] + turn)], axis=1)  # (k, 2)
            shadows = [np.einsum("kd,mcd->kmc", axis, corners) for corners in flat]
            low, high = [s.min(2) for s in shadows], [s.max(2) for s in shadows]  # (k, m)
            rows = np.arange(len(boxes))
            other = 1 - owner
            parted = (low[owner][rows, rows, None] > high[other]) | (high[owner][rows, rows, None] < low[other])
            apart |= parted if owner == 0 else parted.T
    return ~apart


@dataclass(frozen=True, eq=False)
class StoredObject:
    """An object as one frame saw it.

    Attributes
    ----------
    box
        float64 (9,).
    label
        Place among the head's classes.
    path
        ``.npz`` with its ``points`` (n, 5), and ``patch_V`` (h, w, 3), its picture, for each camera V that sees it.
    """

    box: NDArray[np.float64]
    label: int
    path: Path


@dataclass(frozen=True)
class ObjectStore:
    """Objects by their class (a place among the head's classes)."""

    by_class: dict[int, list[StoredObject]]

    @classmethod
    def read(cls, folder: Path) -> ObjectStore:
        """Return what `store_objects` wrote."""
        with np.load(folder / "objects.npz") as table:
            boxes, labels = table["boxes"], table["labels"]
        found: dict[int, list[StoredObject]] = {}
        for place, (box, label) in enumerate(zip(boxes, labels, strict=True)):
            found.setdefault(int(label), []).append(StoredObject(box, int(label), folder / f"{place:07d}.npz"))
        return cls(found)


def store_objects(examples: Iterable[Example], folder: Path) -> None:
    """Write every object of at least five points: points, and the pictures of the cameras that see its middle."""
    boxes: list[NDArray[np.float64]] = []
    labels: list[int] = []
    for example in examples:
        for box, label in zip(example.boxes, example.labels, strict=True):
            inside = points_inside(example.points, box)
            if inside.sum() < FEWEST_POINTS:
                continue
            arrays: dict[str, Any] = {
                f"patch_{view}": _as_bytes(example.images[view][rows, columns])
                for view, (rows, columns) in _rectangles(example, box).items()
            }
            path = folder / f"{len(boxes):07d}.npz"
            np.savez(path, **arrays, points=example.points[inside])
            boxes.append(box)
            labels.append(int(label))
    np.savez(folder / "objects.npz", boxes=np.reshape(boxes, (-1, 9)), labels=np.asarray(labels, np.int64))


def _as_bytes(image: NDArray[np.floating | np.uint8]) -> NDArray[np.uint8]:
    return np.clip(image, 0, 255).astype(np.uint8)


def _rectangles(example: Example, box: NDArray[np.float64]) -> dict[int, tuple[slice, slice]]:
    """Return rows and columns of the rectangle around a box in each picture that shows all of it."""
    corners = np.concatenate([corners_of(box[None])[0], np.ones((8, 1))], axis=1)
    found = {}
    for view, matrix in enumerate(example.lidar_to_image):
        x, y, depth = (matrix @ corners.T)[:3]
        if (depth <= 0.1).any():
            continue
        height, width = example.images[view].shape[:2]
        left, right = np.clip([(x / depth).min(), (x / depth).max()], 0, width).astype(int)
        top, bottom = np.clip([(y / depth).min(), (y / depth).max()], 0, height).astype(int)
        if right - left > 1 and bottom - top > 1:
            found[view] = (slice(top, bottom), slice(left, right))
    return found


def paste_objects(example: Example, store: ObjectStore, generator: np.random.Generator) -> Example:
    """Return an example with further objects where there is room for them.

    Each class gets so many that `PER_SAMPLE` are there. Points of the frame inside a new box give way. Pictures are
    pasted from far to near, half transparent.
    """
    chosen: list[StoredObject] = []
    boxes = example.boxes
    for label, candidates in sorted(store.by_class.items()):
        wanted = PER_SAMPLE[HEAD_CLASSES[label]] - int((example.labels == label).sum())
        for place in generator.permutation(len(candidates))[: max(wanted, 0)]:
            one = candidates[place]
            if not boxes_overlap(one.box[None], boxes).any():
                chosen.append(one)
                boxes = np.concatenate([boxes, one.box[None]])
    if not chosen:
        return example
    points, images = example.points, [image.copy() for image in example.images]
    clouds = []
    for one in sorted(chosen, key=lambda one: -float(np.hypot(*one.box[:2]))):
        points = points[~points_inside(points, one.box)]
        with np.load(one.path) as kept:
            clouds.append(kept["points"])
            for view, (rows, columns) in _rectangles(example, one.box).items():
                if f"patch_{view}" in kept:
                    _blend(images[view], kept[f"patch_{view}"], rows, columns)
    labels = np.concatenate([example.labels, [one.label for one in chosen]]).astype(np.int64)
    return replace(example, points=np.concatenate([points, *clouds]), images=images, boxes=boxes, labels=labels)


def _blend(image: NDArray[np.floating | np.uint8], patch: NDArray[np.uint8], rows: slice, columns: slice) -> None:
    """Mix a patch, resized, into a rectangle of a picture."""
    size = (rows.stop - rows.start, columns.stop - columns.start)
    resized = np.asarray(Image.fromarray(patch).resize(size[::-1], Image.Resampling.BILINEAR), np.float32)
    mixed = (1 - _BLEND) * image[rows, columns].astype(np.float32) + _BLEND * resized
    image[rows, columns] = mixed.astype(image.dtype)
