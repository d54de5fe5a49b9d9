"""Generated pictures of shapes on textured ground, with the class, the box and the mask of each.

Only the outline tells the class: size, place, angle, colours and texture are drawn alike for all of them. Shapes are
brighter than the ground, do not overlap and lie within the picture. A shape fits into some 18 to 40 pixels, and what
surrounds it says nothing about it: whoever claims that long range helps needs other data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchsuite.datasets.shapes import SCENES, SHAPES

Grid = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ATTEMPTS = 80
_GAP = 2  # pixels between two shapes
_REACH = 1.1  # radii from the centre within which a shape lies


def _star(u: Grid, v: Grid) -> Mask:
    """Five points; a tenth of the star lies between a tip (1, 0) and an inner corner."""
    inner, tenth = 0.42, np.pi / 5
    angle = np.abs((np.arctan2(v, u) + tenth) % (2 * tenth) - tenth)
    x, y = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.sin(angle)
    corner_x, corner_y = inner * np.cos(tenth), inner * np.sin(tenth)
    return np.asarray((x - 1) * corner_y - y * (corner_x - 1) <= 0)


def _triangle(u: Grid, v: Grid) -> Mask:
    sides = [u * np.cos(a) + v * np.sin(a) for a in (np.pi / 2, np.pi * 7 / 6, np.pi * 11 / 6)]
    return np.asarray(np.max(sides, axis=0) <= 0.5)


OUTLINES: Mapping[str, Callable[[Grid, Grid], Mask]] = {
    "circle": lambda u, v: u * u + v * v <= 0.81,
    "ring": lambda u, v: (np.hypot(u, v) <= 1) & (np.hypot(u, v) >= 0.55),
    "half-disk": lambda u, v: (np.hypot(u, v) <= 1) & (v >= 0),
    "crescent": lambda u, v: (np.hypot(u, v) <= 1) & (np.hypot(u - 0.5, v) >= 0.75),
    "square": lambda u, v: np.maximum(abs(u), abs(v)) <= 0.7,
    "bar": lambda u, v: (abs(u) <= 0.95) & (abs(v) <= 0.3),
    "triangle": _triangle,
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) <= 0.28) & (np.maximum(abs(u), abs(v)) <= 0.9),
    "star": _star,
    "corner": lambda u, v: (np.maximum(abs(u), abs(v)) <= 0.75) & (np.minimum(u, v) <= -0.2),
}
"""Class to its outline: where it is, of coordinates in units of the radius."""

CLASSES = tuple(OUTLINES)


@dataclass(frozen=True, eq=False)
class Scenes:
    """Generated pictures with their answers.

    Attributes
    ----------
    images
        (N, S, S, 3) uint8 RGB.
    label_maps
        (N, S, S) uint8: 0 is the ground, c + 1 the class c.
    boxes, labels, areas
        For each picture (n, 4) float32 x1, y1, x2, y2 in pixels (the last two exclusive), (n,) int64 classes, and (n,)
        int64 pixels of the masks.
    """

    images: NDArray[np.uint8] = field(repr=False)
    label_maps: NDArray[np.uint8] = field(repr=False)
    boxes: tuple[NDArray[np.float32], ...] = field(repr=False)
    labels: tuple[NDArray[np.int64], ...] = field(repr=False)
    areas: tuple[NDArray[np.int64], ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digest(self) -> str:
        """The sha256 of the pictures and their label maps."""
        return hashlib.sha256(self.images.tobytes() + self.label_maps.tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class ShapeScenes:
    """A training and a test part of generated pictures.

    Attributes
    ----------
    name
        Of the data set.
    classes
        Names; a label is a place in this tuple.
    train, test
        The two parts.
    """

    name: str
    classes: tuple[str, ...]
    train: Scenes
    test: Scenes

    def summary(self) -> dict[str, int]:
        """Return the numbers of classes, pictures and objects."""
        return {
            "classes": len(self.classes),
            "training pictures": len(self.train),
            "test pictures": len(self.test),
            "objects": sum(len(found) for part in (self.train, self.test) for found in part.labels),
        }


def load_shapes(root: Path | None, draw: int) -> ShapeScenes:
    """Return pictures of one shape each; every draw is another sample."""
    return generate("shapes", SHAPES, draw)


def load_scenes(root: Path | None, draw: int) -> ShapeScenes:
    """Return pictures of one to four shapes each; every draw is another sample."""
    return generate("shape-scenes", SCENES, draw)


def generate(name: str, parameters: Mapping[str, Any], draw: int) -> ShapeScenes:
    """Return a data set of some parameters, named as those of the package; each part comes from a stream of its own."""
    train, test = (
        _scenes(np.random.default_rng([2301, part, draw]), parameters, parameters[role])
        for part, role in enumerate(("train", "test"))
    )
    return ShapeScenes(name, CLASSES, train, test)


def _scenes(rng: Generator, parameters: Mapping[str, Any], count: int) -> Scenes:
    size, (fewest, most) = parameters["size"], parameters["objects"]
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    maps = np.zeros((count, size, size), dtype=np.uint8)
    answers: list[list[tuple[int, Mask]]] = []
    first = rng.permutation(count) % len(CLASSES)  # every class equally often, in pictures of one shape
    for number in range(count):
        others = rng.integers(len(CLASSES), size=rng.integers(fewest, most + 1) - 1)
        pixels = _ground(rng, size)
        placed = _placed(rng, [int(first[number]), *others.tolist()], size, parameters["radius"])
        for label, mask in placed:
            pixels[mask] = _paint(rng, size)[mask]
            maps[number][mask] = label + 1
        noisy = pixels + parameters["noise"] * rng.standard_normal(pixels.shape, dtype=np.float32)
        images[number] = np.clip(np.round(noisy), 0, 255).astype(np.uint8)
        answers.append(placed)
    return Scenes(
        images,
        maps,
        boxes=tuple(np.array([box_of(mask) for _, mask in found], dtype=np.float32) for found in answers),
        labels=tuple(np.array([label for label, _ in found], dtype=np.int64) for found in answers),
        areas=tuple(np.array([mask.sum() for _, mask in found], dtype=np.int64) for found in answers),
    )


def _placed(rng: Generator, labels: list[int], size: int, radii: tuple[float, float]) -> list[tuple[int, Mask]]:
    """Return the masks of shapes that neither touch each other nor the edge; what finds no room is left out."""
    found: list[tuple[int, Mask]] = []
    circles: list[tuple[NDArray[np.float64], float]] = []
    for label in labels:
        for _ in range(_ATTEMPTS):
            radius = _REACH * rng.uniform(*radii)
            centre = rng.uniform(radius, size - radius, size=2)
            if all(np.hypot(*(centre - other)) >= radius + reach + _GAP for other, reach in circles):
                circles.append((centre, radius))
                found.append((label, outline(label, size, centre, radius / _REACH, rng.uniform(0, 2 * np.pi))))
                break
    return found


def outline(label: int, size: int, centre: NDArray[np.float64], radius: float, angle: float) -> Mask:
    """Return the mask (size, size) of a shape.

    Parameters
    ----------
    label
        Place in `CLASSES`.
    size
        Side of the picture.
    centre, radius, angle
        y and x, in pixels; in pixels; in radians.
    """
    rows, columns = _grid(size)
    y, x = rows + 0.5 - centre[0], columns + 0.5 - centre[1]
    u = (np.cos(angle) * x + np.sin(angle) * y) / radius
    v = (-np.sin(angle) * x + np.cos(angle) * y) / radius
    return OUTLINES[CLASSES[label]](u, v)


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rows, as a column, and the columns, as a row."""
    places = np.arange(size, dtype=np.float64)
    return places[:, None], places[None, :]


def _ground(rng: Generator, size: int) -> Grid:
    """Return a smooth dark ground between two colours, (size, size, 3)."""
    share = _waves(rng, size, (1, 3))[..., None]
    first, second = rng.uniform(15, 105, size=(2, 3))
    return np.asarray(first * share + second * (1 - share))


def _paint(rng: Generator, size: int) -> Grid:
    """Return bright stripes of two near colours, (size, size, 3)."""
    share = _waves(rng, size, (6, 14))[..., None]
    return np.asarray(rng.uniform(130, 230, size=3) + (share - 0.5) * rng.uniform(0, 50))


def _waves(rng: Generator, size: int, periods: tuple[int, int]) -> Grid:
    """Return a plane wave in [0, 1] with so many periods across the picture."""
    angle, phase, count = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi), rng.uniform(*periods)
    rows, columns = _grid(size)
    along = (np.cos(angle) * columns + np.sin(angle) * rows) / size
    return np.asarray(0.5 + 0.5 * np.sin(2 * np.pi * count * along + phase))


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """Return x1, y1, x2, y2 around a mask, the last two exclusive."""
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
