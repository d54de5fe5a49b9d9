"""What a method of 3-D detection may import: the protocol, what the car's sensors deliver, and what it returns.

Everything that is handed out and handed back stands in the LiDAR frame of the keyframe: metres, z up, x and y as the
data set's car has them (x right and y forward in nuScenes, where the ground lies near z = -1.84). The task brings boxes
into the global frame, where they are judged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import ConfigError, Method, RunContext
from benchsuite.datasets.driving_scenes.scenes import ATTRIBUTES, CLASSES, NO_ATTRIBUTE, POINT_COLUMNS, Boxes

__all__ = [
    "ATTRIBUTES",
    "CLASSES",
    "MOST_BOXES",
    "NO_ATTRIBUTE",
    "POINT_COLUMNS",
    "Boxes",
    "CameraView",
    "Detection3DMethod",
    "Detection3DProtocol",
    "Detections",
    "Detector",
    "Frame",
    "Frames",
    "TrainingScenes",
]

MOST_BOXES = 500
"""So many boxes a keyframe may be found."""

MOST_SWEEPS = 10

Conditions = Literal["full", "modalities", "every"]


@dataclass(frozen=True)
class Detection3DProtocol:
    """What belongs to neither method nor data.

    Attributes
    ----------
    conditions
        The sensor conditions in which the trained detector is judged. ``full``: all sensors. ``modalities``: also
        without LiDAR and without cameras. ``every``: also with one, two and three cameras missing, with a half, a
        quarter and an eighth of the beams, and with three degrees of noise.
    sweeps
        How many earlier LiDAR sweeps are handed out with a keyframe's own, if the data have them: 0 to 10.
    """

    conditions: Conditions = "modalities"
    sweeps: int = MOST_SWEEPS

    def __post_init__(self) -> None:
        if not 0 <= self.sweeps <= MOST_SWEEPS:
            raise ConfigError(f"sweeps must be from 0 to {MOST_SWEEPS}, not {self.sweeps}")


@dataclass(frozen=True, eq=False)
class CameraView:
    """What one camera delivers.

    Attributes
    ----------
    channel
        Name of the camera.
    image
        uint8 RGB (H, W, 3) as stored; None if the camera delivers nothing.
    size
        Height and width in pixels, known without the image too.
    intrinsic
        (3, 3) float64: camera frame (x right, y down, z forward) to pixels, (0, 0) the middle of the first pixel.
    lidar_to_camera
        (4, 4) float64: LiDAR frame of the keyframe to camera frame (the car's motion between the two is in it).
    """

    channel: str
    image: NDArray[np.uint8] | None
    size: tuple[int, int]
    intrinsic: NDArray[np.float64]
    lidar_to_camera: NDArray[np.float64]

    @property
    def lidar_to_image(self) -> NDArray[np.float64]:
        """(4, 4) float64: (x, y, z, 1) to (u d, v d, d, 1) with pixel (u, v) and depth d."""
        padded = np.eye(4)
        padded[:3, :3] = self.intrinsic
        return padded @ self.lidar_to_camera


@dataclass(frozen=True, eq=False)
class Frame:
    """What the sensors deliver at a keyframe.

    Attributes
    ----------
    token
        Its name.
    timestamp
        Seconds.
    views
        The cameras, always in the same order and number.
    points
        float32 (N, 6), columns `POINT_COLUMNS`: the keyframe's own sweep first (``lag`` 0), then earlier ones, moved
        into the keyframe's LiDAR frame by the car's motion. None if the LiDAR delivers nothing. Nothing is cut away:
        the car itself is in it.
    lidar_to_ego, ego_to_global
        (4, 4) float64.
    """

    token: str
    timestamp: float
    views: tuple[CameraView, ...]
    points: NDArray[np.float32] | None
    lidar_to_ego: NDArray[np.float64]
    ego_to_global: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Frames(Sequence[Frame]):
    """Frames in a fixed order, read from files when they are asked for, each time anew.

    It pickles, so that a loader's worker processes can read from it.

    Attributes
    ----------
    tokens
        Names, all different.
    read
        Place to frame; raises `DataError` for a file that is missing or broken.
    """

    tokens: tuple[str, ...] = field(repr=False)
    read: Callable[[int], Frame] = field(repr=False)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.read(place) for place in range(len(self))[index]]
        return self.read(range(len(self))[index])


@dataclass(frozen=True, eq=False)
class TrainingScenes:
    """What a detector may learn from; all sensors deliver.

    Attributes
    ----------
    dataset
        Name of the data set.
    classes
        Names; a label is a place in this tuple. A part of `CLASSES` in its order.
    channels
        Names of the cameras in the order of `Frame.views`.
    extent
        x, y, z of the least, then of the greatest corner of what is worth looking at, metres in the LiDAR frame.
    frames
        To learn from, scene by scene in order of time.
    boxes
        The answers of each frame in its LiDAR frame. Those with ``points`` 0 are not judged.
    scenes
        Name of each frame's scene.
    digest
        Identifies frames, answers and the protocol's sweeps: for ``ctx.cached``.
    """

    dataset: str
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    extent: tuple[float, float, float, float, float, float]
    frames: Frames
    boxes: Sequence[Boxes] = field(repr=False)
    scenes: Sequence[str] = field(repr=False)
    digest: str


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes found in a frame, at most 500, in its LiDAR frame.

    Attributes
    ----------
    centres
        (n, 3) finite floats: the middle of the box, metres.
    sizes
        (n, 3) positive floats: length, width, height, metres.
    yaws
        (n,) finite floats: radians, from the frame's x axis to the length of the box.
    velocities
        (n, 2) finite floats: over ground, along the frame's x and y, metres a second. Zeros from who estimates none.
    scores
        (n,) floats in [0, 1].
    labels
        (n,) int64: places in ``classes``.
    attributes
        (n,) int64: places in `ATTRIBUTES` or -1; None: the task gives each box the attribute that is usual for its
        class at its speed (above 0.2 m/s: moving).
    """

    centres: NDArray[np.floating[Any]]
    sizes: NDArray[np.floating[Any]]
    yaws: NDArray[np.floating[Any]]
    velocities: NDArray[np.floating[Any]]
    scores: NDArray[np.floating[Any]]
    labels: NDArray[np.int64]
    attributes: NDArray[np.int64] | None = None


class Detector(ABC):
    """A trained detector.

    Attributes
    ----------
    parameters
        Number of trainable parameters, or None.
    table
        Flat records that are kept with the result (a loss curve).
    """

    parameters: int | None = None
    table: Sequence[dict[str, Any]] = ()

    @abstractmethod
    def detect(self, frames: Frames, ctx: RunContext) -> list[Detections]:
        """Return what is found in each frame; called once for each sensor condition, the full one first.

        Parameters
        ----------
        frames
            Of one condition. A sensor that delivers nothing is None; a detector that cannot do without it returns what
            it can, or nothing.
        ctx
            Take seeds from ``ctx.seed_for("run", ...)``. Every frame counts: ``ctx.steps`` would cut the loop short.
        """


class Detection3DMethod(Method):
    """A way to learn to find objects in what cameras and LiDAR deliver."""

    @abstractmethod
    def fit(self, scenes: TrainingScenes, ctx: RunContext) -> Detector:
        """Learn and return a detector.

        Parameters
        ----------
        scenes
            Frames and answers.
        ctx
            Take seeds from ``ctx.seed_for("run", ...)`` and draw steps from ``ctx.resumable``.
        """
