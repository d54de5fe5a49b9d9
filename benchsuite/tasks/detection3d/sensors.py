"""Sensor conditions, and reading what the sensors deliver under one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import process_time

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchsuite.core.errors import DataError
from benchsuite.datasets.driving_scenes.points import read_sweeps
from benchsuite.datasets.driving_scenes.scenes import POINT_COLUMNS, Boxes, Camera, Keyframe, Racks
from benchsuite.tasks.detection3d.contract import CameraView, Conditions, Frame, Frames

__all__ = [
    "CORRUPTIONS",
    "EVERY",
    "FULL",
    "NO_CAMERAS",
    "NO_LIDAR",
    "Condition",
    "FrameReader",
    "conditions_of",
    "shown",
]

_RING = POINT_COLUMNS.index("ring")


@dataclass(frozen=True)
class Condition:
    """What the sensors do.

    Attributes
    ----------
    name
        As metrics and files call it.
    lidar, cameras
        False: they deliver nothing.
    cameras_missing
        So many cameras, drawn anew for every keyframe, deliver nothing.
    every_beam
        Of the LiDAR's beams every n-th delivers.
    pixel_noise, point_noise
        Standard deviations of normal noise: of every colour of a pixel, where 1 is white, and of every coordinate of a
        point in metres.
    """

    name: str
    lidar: bool = True
    cameras: bool = True
    cameras_missing: int = 0
    every_beam: int = 1
    pixel_noise: float = 0.0
    point_noise: float = 0.0


FULL = Condition("full")
NO_LIDAR = Condition("no_lidar", lidar=False)
NO_CAMERAS = Condition("no_cameras", cameras=False)
CORRUPTIONS: dict[str, tuple[Condition, ...]] = {
    "missing_cameras": tuple(Condition(f"missing_cameras_{k}", cameras_missing=k) for k in (1, 2, 3)),
    "beams": tuple(Condition(f"beams_{n}", every_beam=n) for n in (2, 4, 8)),
    "noise": tuple(
        Condition(f"noise_{k}", pixel_noise=pixels, point_noise=points)
        for k, pixels, points in ((1, 0.08, 0.1), (2, 0.16, 0.2), (3, 0.24, 0.4))
    ),
}
"""Corruptions by name, each in three severities."""

EVERY = (FULL, NO_LIDAR, NO_CAMERAS, *(one for severities in CORRUPTIONS.values() for one in severities))


def conditions_of(which: Conditions) -> tuple[Condition, ...]:
    """Return the conditions that a protocol asks for, the full one first."""
    return {"full": (FULL,), "modalities": (FULL, NO_LIDAR, NO_CAMERAS), "every": EVERY}[which]


@dataclass(frozen=True, eq=False)
class FrameReader:
    """Reads keyframes under a condition. It holds no answers, and pickles.

    What is drawn (which cameras are missing, noise) depends on condition and keyframe alone, so every method meets the
    same.

    Attributes
    ----------
    keyframes
        Without answers; see `frames`.
    condition
        Of the sensors.
    sweeps
        How many earlier LiDAR sweeps are read.
    spent
        Its only item: CPU seconds that reading took in this process.
    """

    keyframes: tuple[Keyframe, ...]
    condition: Condition
    sweeps: int
    spent: list[float]

    @classmethod
    def frames(cls, keyframes: Sequence[Keyframe], condition: Condition, sweeps: int) -> Frames:
        """Return keyframes as a method sees them."""
        reader = cls(tuple(map(_without_answers, keyframes)), condition, sweeps, [0.0])
        return Frames(tuple(frame.token for frame in keyframes), reader)

    def __call__(self, place: int) -> Frame:
        """Return a frame; raises `DataError` for a file that is missing or broken."""
        start = process_time()
        key = self.keyframes[place]
        rng = _generator(self.condition.name, key.token)
        missing = self._missing(len(key.cameras), rng)
        frame = Frame(
            token=key.token,
            timestamp=key.timestamp,
            views=tuple(self._view(camera, i in missing, rng) for i, camera in enumerate(key.cameras)),
            points=self._points(key, rng) if self.condition.lidar else None,
            lidar_to_ego=key.lidar_to_ego,
            ego_to_global=key.ego_to_global,
        )
        self.spent[0] += process_time() - start
        return frame

    def _missing(self, count: int, rng: Generator) -> frozenset[int]:
        if not self.condition.cameras:
            return frozenset(range(count))
        return frozenset(rng.permutation(count)[: self.condition.cameras_missing].tolist())

    def _view(self, camera: Camera, missing: bool, rng: Generator) -> CameraView:
        image = None if missing else camera.pixels()
        height, width = camera.height_and_width() if image is None else image.shape[:2]
        if image is not None and self.condition.pixel_noise:
            image = _noisy(image, self.condition.pixel_noise, rng)
        return CameraView(camera.channel, image, (height, width), camera.intrinsic, camera.lidar_to_camera)

    def _points(self, key: Keyframe, rng: Generator) -> NDArray[np.float32]:
        points = read_sweeps(key.lidar[: 1 + self.sweeps])
        if self.condition.every_beam > 1:
            rings = points[:, _RING]
            if rings.max() == rings.min():
                raise DataError(
                    f"{key.lidar[0].path}: does not say which beam points are of: set conditions=modalities"
                )
            points = points[rings % self.condition.every_beam == 0]
        if self.condition.point_noise:
            points[:, :3] += rng.normal(0, self.condition.point_noise, (len(points), 3)).astype(np.float32)
        return points


def _without_answers(key: Keyframe) -> Keyframe:
    nothing = np.zeros(0, dtype=np.int64)
    none, no_places, flat = np.zeros(0, dtype=bool), np.zeros((0, 3)), np.zeros((0, 2))
    empty = Boxes(no_places, no_places, np.zeros(0), flat, nothing, nothing, nothing)[none]
    return replace(key, boxes=empty, global_boxes=empty, racks=Racks(no_places, no_places, np.zeros((0, 3, 3))))


def _generator(condition: str, token: str) -> Generator:
    digest = hashlib.blake2b(f"{condition}:{token}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _noisy(image: NDArray[np.uint8], spread: float, rng: Generator) -> NDArray[np.uint8]:
    grain = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(255 * spread)
    return np.clip(image + grain, 0, 255).round().astype(np.uint8)


def shown(condition: Condition) -> str:
    """Return a condition in words, for pictures and tables."""
    if condition is FULL or condition == FULL:
        return "all sensors"
    if condition.cameras_missing:
        return f"{condition.cameras_missing} cameras missing" if condition.cameras_missing > 1 else "1 camera missing"
    if condition.every_beam > 1:
        return f"1 of {condition.every_beam} beams"
    if condition.pixel_noise:
        return f"noise, degree {condition.name[-1]}"
    return condition.name.replace("_", " ").replace("lidar", "LiDAR")
