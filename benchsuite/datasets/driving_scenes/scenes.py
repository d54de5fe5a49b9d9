"""Driving scenes as read: keyframes with calibrated cameras, a LiDAR sweep, and annotated boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError
from benchsuite.datasets.driving_scenes.point_files import read_points
from benchsuite.datasets.picture_files import read_rgb, size_of

Part = Literal["train", "test"]
Extent = tuple[float, float, float, float, float, float]

CLASSES = (
    "car",
    "truck",
    "bus",
    "trailer",
    "construction_vehicle",
    "pedestrian",
    "motorcycle",
    "bicycle",
    "traffic_cone",
    "barrier",
)
"""The ten classes of the nuScenes detection task, in the order of its devkit."""

ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.moving",
    "pedestrian.standing",
    "pedestrian.sitting_lying_down",
)
"""The eight attributes of nuScenes."""

NO_ATTRIBUTE = -1

POINT_COLUMNS = ("x", "y", "z", "intensity", "ring", "lag")
"""Columns of points: metres in the LiDAR frame of the keyframe, 0 .. 255, number of the beam, seconds before it."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Upright boxes in one frame of reference: that of the keyframe's LiDAR, or the global one.

    Attributes
    ----------
    centres
        (n, 3) float64: the middle of the box (not of its bottom), metres.
    sizes
        (n, 3) float64: length (along the box's own x), width, height, metres, positive.
    yaws
        (n,) float64: radians, counter-clockwise from the frame's x axis to the box's length seen from above.
    velocities
        (n, 2) float64: over ground, along the frame's x and y, metres a second; NaN where unknown.
    labels
        (n,) int64: places in the data set's ``classes``.
    attributes
        (n,) int64: places in `ATTRIBUTES`, -1 for none.
    points
        (n,) int64: LiDAR and radar points in the box; boxes with none are not judged.
    """

    centres: NDArray[np.float64]
    sizes: NDArray[np.float64]
    yaws: NDArray[np.float64]
    velocities: NDArray[np.float64]
    labels: NDArray[np.int64]
    attributes: NDArray[np.int64]
    points: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Boxes:
        """Return the chosen boxes."""
        return Boxes(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera's picture of a keyframe before it is read.

    Attributes
    ----------
    channel
        Name of the camera (``CAM_FRONT``).
    path
        JPEG or PNG.
    intrinsic
        (3, 3) float64: camera frame (x right, y down, z forward) to pixels of the stored picture.
    lidar_to_camera
        (4, 4) float64: LiDAR frame of the keyframe to the camera's frame when it was exposed.
    size
        Height and width in pixels; None if only the picture itself says.
    """

    channel: str
    path: Path
    intrinsic: NDArray[np.float64]
    lidar_to_camera: NDArray[np.float64]
    size: tuple[int, int] | None = None

    def pixels(self) -> NDArray[np.uint8]:
        """Return the picture, uint8 RGB (H, W, 3).

        Raises
        ------
        DataError
            If it cannot be read, or has another size than ``size``: its calibration is not for it.
        """
        image = read_rgb(self.path)
        height, width = image.shape[:2]
        if self.size not in (None, (height, width)):
            raise DataError(
                f"{self.path}: has {height} x {width} pixels, its table says {self.size[0]} x {self.size[1]}: the"
                " camera's calibration is for that size"
            )
        return image

    def height_and_width(self) -> tuple[int, int]:
        """Return the size in pixels without reading more of the picture than its head; raises `DataError`."""
        return self.size or size_of(self.path)


@dataclass(frozen=True, eq=False)
class Racks:
    """Bicycle racks in the global frame.

    Attributes
    ----------
    centres
        (k, 3) float64, metres.
    sizes
        (k, 3) float64: length, width, height, metres.
    rotations
        (k, 3, 3) float64: their own axes, in columns.
    """

    centres: NDArray[np.float64]
    sizes: NDArray[np.float64]
    rotations: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sweep:
    """A LiDAR sweep before it is read.

    Attributes
    ----------
    path
        ``.pcd.bin``.
    to_key
        (4, 4) float64: its own LiDAR frame to that of the keyframe.
    lag
        Seconds by which it is older than the keyframe.
    """

    path: Path
    to_key: NDArray[np.float64]
    lag: float


@dataclass(frozen=True, eq=False)
class Keyframe:
    """An annotated moment.

    Attributes
    ----------
    token, scene
        Unique name, and the scene it belongs to.
    timestamp
        Seconds.
    lidar_to_ego, ego_to_global
        (4, 4) float64, of the LiDAR sweep.
    cameras
        In the data set's order of ``channels``.
    lidar
        The sweep of the keyframe (``lag`` 0) and then earlier ones, the latest first.
    boxes, global_boxes
        The answers, in the LiDAR frame and in the global one, in the same order; objects of other classes left out.
    racks
        Bicycles and motorcycles in them do not count.
    """

    token: str
    scene: str
    timestamp: float
    lidar_to_ego: NDArray[np.float64]
    ego_to_global: NDArray[np.float64]
    cameras: tuple[Camera, ...]
    lidar: tuple[Sweep, ...]
    boxes: Boxes
    global_boxes: Boxes
    racks: Racks


@dataclass(frozen=True, eq=False)
class DrivingScenes:
    """A set of driving scenes.

    Attributes
    ----------
    name
        Of the data set.
    classes
        The classes that are annotated, a part of `CLASSES` in its order.
    channels
        Names of the cameras; every keyframe has them all.
    extent
        x, y, z of the least, then of the greatest corner of what is worth looking at, metres in the LiDAR frame.
    parts
        ``train`` and ``test`` (the official validation scenes) to keyframes, scene by scene in order of time.
    has_attributes, has_velocities
        Whether boxes are annotated so at all.
    left_out
        How many annotations were not taken, by the reason.
    note
        What a user should know of these files; empty: nothing.
    """

    name: str
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    extent: Extent
    parts: Mapping[Part, Sequence[Keyframe]] = field(repr=False)
    has_attributes: bool = True
    has_velocities: bool = True
    left_out: Mapping[str, int] = field(default_factory=dict)
    note: str = ""

    def summary(self) -> dict[str, int]:
        """Return the numbers of keyframes and boxes of each part."""
        counts = {}
        for part, name in (("train", "training"), ("test", "test")):
            keyframes = self.parts[part]  # type: ignore[index]
            counts[f"{name} keyframes"] = len(keyframes)
            counts[f"{name} boxes"] = sum(len(frame.boxes) for frame in keyframes)
        return counts | dict(self.left_out)

    def verify(self) -> None:
        """Read every picture and every sweep; raises `DataError` for the first that is broken."""
        keyframes = [frame for frames in self.parts.values() for frame in frames]
        for camera in {camera.path: camera for frame in keyframes for camera in frame.cameras}.values():
            camera.pixels()
        for path in dict.fromkeys(sweep.path for frame in keyframes for sweep in frame.lidar):
            read_points(path)
