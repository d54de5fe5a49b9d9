"""Casting rays at cuboids on flat ground: what cameras and a LiDAR see of a generated street."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchsuite.datasets.driving_scenes.geometry import Floats
from benchsuite.datasets.driving_scenes.scenes import Boxes

Reals = NDArray[np.float32]

GROUND, SKY = -1, -2
_LIGHT = np.array([0.8, 0.62, 1.0], dtype=np.float32)  # of faces across the length, the width and the height


@dataclass(frozen=True, eq=False)
class Hits:
    """Where rays end.

    Attributes
    ----------
    distances
        (R,) float32: in lengths of the ray's direction; infinite in the sky.
    objects
        (R,) int64: place of the box, `GROUND` or `SKY`.
    faces
        (R,) int64: axis of the box that the face lies across (0 length, 1 width, 2 height); 2 on the ground.
    """

    distances: Reals
    objects: NDArray[np.int64]
    faces: NDArray[np.int64]


@dataclass(frozen=True)
class Look:
    """What a picture looks like besides its boxes.

    Attributes
    ----------
    sky, ground, exposure
        Each the least and the greatest of what is drawn for every picture.
    ground_noise, pixel_noise
        Standard deviations, where 1 is white.
    """

    sky: tuple[float, float]
    ground: tuple[float, float]
    exposure: tuple[float, float]
    ground_noise: float
    pixel_noise: float


def cast(origin: Floats, directions: Reals, boxes: Boxes) -> Hits:
    """Return where rays end, in the frame of the boxes, whose ground is z = 0.

    Parameters
    ----------
    origin
        (3,): all rays begin here, above the ground and outside of boxes.
    directions
        (R, 3) float32, of any length.
    boxes
        In any order.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        nearest = np.where(directions[:, 2] < 0, -np.float32(origin[2]) / directions[:, 2], np.float32(np.inf))
        objects = np.where(np.isfinite(nearest), GROUND, SKY)
        faces = np.full(len(directions), 2)
        for place in range(len(boxes)):
            entry, face = _enter(origin, directions, boxes, place)
            closer = entry < nearest
            nearest = np.where(closer, entry, nearest)
            objects[closer], faces[closer] = place, face[closer]
    return Hits(nearest.astype(np.float32), objects, faces)


def _enter(origin: Floats, directions: Reals, boxes: Boxes, place: int) -> tuple[Reals, NDArray[np.int64]]:
    """Return at what distance rays enter a box (infinite: never) and through which face: the slab test."""
    cosine, sine = (np.float32(f(boxes.yaws[place])) for f in (np.cos, np.sin))
    start = (origin - boxes.centres[place]).astype(np.float32)
    starts = (cosine * start[0] + sine * start[1], cosine * start[1] - sine * start[0], start[2])
    x, y, z = directions.T
    rays = (cosine * x + sine * y, cosine * y - sine * x, z)
    entry, leave = np.full(len(directions), -np.inf, np.float32), np.full(len(directions), np.inf, np.float32)
    face = np.zeros(len(directions), dtype=np.int64)
    for axis in range(3):
        half = np.float32(boxes.sizes[place, axis] / 2)
        one, other = (-half - starts[axis]) / rays[axis], (half - starts[axis]) / rays[axis]
        near, far = np.minimum(one, other), np.maximum(one, other)
        face[near > entry] = axis
        entry, leave = np.maximum(entry, near), np.minimum(leave, far)
    return np.where((entry <= leave) & (entry > 0), entry, np.float32(np.inf)), face


def pixel_rays(intrinsic: Floats, size: tuple[int, int], camera_to_world: Floats) -> Reals:
    """Return the directions (H * W, 3) of a picture's pixels, row by row; depth 1 is length 1 along the camera's z."""
    height, width = size
    rows, columns = np.mgrid[:height, :width].reshape(2, -1)
    camera = np.stack([columns, rows, np.ones(height * width)], axis=1) @ np.linalg.inv(intrinsic).T
    return (camera @ camera_to_world[:3, :3].T).astype(np.float32)


def shade(hits: Hits, colours: Reals, size: tuple[int, int], look: Look, rng: Generator) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) of what rays of its pixels hit; ``colours`` (n, 3) in [0, 1] are the boxes'."""
    sky, ground, exposure = (rng.uniform(*bounds) for bounds in (look.sky, look.ground, look.exposure))
    palette = np.concatenate([colours, np.full((1, 3), sky), np.full((1, 3), ground)]).astype(np.float32)
    picture = palette[hits.objects] * _LIGHT[hits.faces, None]  # places -2 and -1 are the last two: sky and ground
    on_ground = hits.objects == GROUND
    grain = rng.standard_normal(len(picture), dtype=np.float32)[:, None] * np.float32(look.ground_noise)
    picture = np.where(on_ground[:, None], picture + grain, picture) * np.float32(exposure)
    picture += rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(look.pixel_noise)
    return (np.clip(picture, 0, 1) * 255).round().astype(np.uint8).reshape(*size, 3)


def beams(elevations: tuple[float, float, int], azimuths: int) -> tuple[Reals, NDArray[np.int64]]:
    """Return unit directions (R, 3) of a spinning LiDAR, and the ring of each, counted from below.

    ``elevations`` are the lowest and the highest in degrees, and how many.
    """
    low, high, count = elevations
    up = np.radians(np.linspace(low, high, count))[:, None]
    around = (np.arange(azimuths) * (2 * np.pi / azimuths))[None]
    flat = np.cos(up)
    directions = np.stack(np.broadcast_arrays(flat * np.cos(around), flat * np.sin(around), np.sin(up)), axis=-1)
    return directions.reshape(-1, 3).astype(np.float32), np.repeat(np.arange(count), azimuths)


def measure(hits: Hits, farthest: float, noise: float, drop: float, rng: Generator) -> tuple[NDArray[np.bool_], Reals]:
    """Return which rays of unit length come back to a LiDAR, and at what distance, with its noise."""
    kept = (hits.distances < farthest) & (rng.random(len(hits.distances), dtype=np.float32) >= drop)
    noisy = hits.distances[kept] + rng.standard_normal(int(kept.sum()), dtype=np.float32) * np.float32(noise)
    return kept, noisy
