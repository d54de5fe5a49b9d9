"""Frames of the task as examples of the network: columns, class order, sizes of pictures, and batches of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchsuite.tasks.detection3d.contract import Boxes, CameraView, Frame
from benchsuite_cmt.architecture import Architecture
from benchsuite_cmt.model import Sensors

__all__ = ["HEAD_CLASSES", "NO_POINTS", "Batch", "Example", "ImageFit", "collate", "example_of", "fitted", "normalised"]

HEAD_CLASSES = (
    "car",
    "truck",
    "construction_vehicle",
    "bus",
    "trailer",
    "barrier",
    "motorcycle",
    "bicycle",
    "pedestrian",
    "traffic_cone",
)
"""The order of the released heads."""

_COLUMNS = (0, 1, 2, 3, 5)  # x, y, z, intensity, lag
_MEAN, _STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # blue, green, red

NO_POINTS = np.zeros((1, len(_COLUMNS)), np.float32)
"""A removed LiDAR: all values of all points are 0, so that one point at the origin stands for all."""


@dataclass(eq=False)
class Example:
    """A sample on its way to the network.

    Attributes
    ----------
    points
        float32 (n, 5): x, y, z in metres, intensity, time lag in seconds.
    images
        uint8 or float32 RGB (H, W, 3), one a view; all zeros where the camera delivers nothing.
    intrinsics, lidar_to_camera
        float64 (views, 3, 3) and (views, 4, 4).
    boxes, labels
        float64 (m, 9), see `benchsuite_cmt.boxes`, and int64 (m,), places among the head's classes.
    """

    points: NDArray[np.float32]
    images: list[NDArray[np.floating | np.uint8]]
    intrinsics: NDArray[np.float64]
    lidar_to_camera: NDArray[np.float64]
    boxes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 9)))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def lidar_to_image(self) -> NDArray[np.float64]:
        """float64 (views, 4, 4)."""
        padded = np.tile(np.eye(4), (len(self.intrinsics), 1, 1))
        padded[:, :3, :3] = self.intrinsics
        return padded @ self.lidar_to_camera


@dataclass(frozen=True)
class Batch:
    """Sensors and answers of some samples.

    Attributes
    ----------
    sensors
        What the network sees.
    boxes, labels
        float32 (m, 9) and int64 (m,) a sample.
    lidar_seen, cameras_seen
        bool (B,): whether the sensor delivers anything.
    """

    sensors: Sensors
    boxes: list[Tensor]
    labels: list[Tensor]
    lidar_seen: Tensor
    cameras_seen: Tensor


def _picture(view: CameraView) -> NDArray[np.uint8]:
    return np.zeros((*view.size, 3), np.uint8) if view.image is None else view.image


def example_of(frame: Frame, boxes: Boxes | None = None, head: Sequence[int] = ()) -> Example:
    """Return a frame as an example.

    Parameters
    ----------
    frame
        What the sensors deliver; one that delivers nothing becomes zeros.
    boxes
        The answers; those without points are left out, unknown velocities are taken for 0.
    head
        For each label of the task its place among the head's classes.
    """
    points = NO_POINTS if frame.points is None else np.ascontiguousarray(frame.points[:, _COLUMNS])
    found = Example(
        points,
        [_picture(view) for view in frame.views],
        np.stack([view.intrinsic for view in frame.views]),
        np.stack([view.lidar_to_camera for view in frame.views]),
    )
    if boxes is None:
        return found
    seen = boxes[boxes.points > 0]
    columns = [seen.centres, seen.sizes, seen.yaws[:, None], np.nan_to_num(seen.velocities)]
    return replace(found, boxes=np.concatenate(columns, axis=1), labels=np.asarray(head, np.int64)[seen.labels])


@dataclass(frozen=True)
class ImageFit:
    """How pictures get the network's size: resized by a factor, cut at the bottom, perhaps mirrored.

    Attributes
    ----------
    factor
        Of both sides.
    left, top
        First column and row, of the resized picture, that is kept.
    size
        Height and width of what is kept; missing pixels are black.
    mirrored
        Whether what is kept is flipped left to right.
    """

    factor: float
    left: int
    top: int
    size: tuple[int, int]
    mirrored: bool = False

    @classmethod
    def for_test(cls, stored: tuple[int, int], size: tuple[int, int]) -> ImageFit:
        """Return the fit of evaluation: lowest rows and middle columns of the smallest picture that fills the size."""
        factor = max(size[0] / stored[0], size[1] / stored[1])
        height, width = int(stored[0] * factor), int(stored[1] * factor)
        return cls(factor, max(0, width - size[1]) // 2, height - size[0], size)

    def matrix(self) -> NDArray[np.float64]:
        """Return (3, 3): pixels of the stored picture to pixels of the fitted one, no half pixels."""
        found = np.array([[self.factor, 0, -self.left], [0, self.factor, -self.top], [0, 0, 1]], np.float64)
        flip = np.array([[-1, 0, self.size[1]], [0, 1, 0], [0, 0, 1]], np.float64)
        return flip @ found if self.mirrored else found

    def apply(self, image: NDArray[np.floating | np.uint8]) -> NDArray[np.floating | np.uint8]:
        """Return the fitted picture."""
        if self.factor != 1:
            image = _resized(image, (int(image.shape[0] * self.factor), int(image.shape[1] * self.factor)))
        rows, columns = self.size
        found = np.zeros((rows, columns, 3), image.dtype)
        kept = image[max(self.top, 0) : self.top + rows, max(self.left, 0) : self.left + columns]
        top, left = max(-self.top, 0), max(-self.left, 0)
        found[top : top + kept.shape[0], left : left + kept.shape[1]] = kept
        return found[:, ::-1] if self.mirrored else found


def _resized(image: NDArray[np.floating | np.uint8], size: tuple[int, int]) -> NDArray[np.floating | np.uint8]:
    from PIL import Image

    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
    whole = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return _resized(whole, size).astype(image.dtype)


def fitted(example: Example, fit: ImageFit) -> Example:
    """Return an example whose pictures, and intrinsics with them, are fitted."""
    images = [fit.apply(image) for image in example.images]
    return replace(example, images=images, intrinsics=fit.matrix() @ example.intrinsics)


def normalised(images: Tensor) -> Tensor:
    """Return float32 (..., 3, H, W), blue first, of RGB pictures (..., H, W, 3)."""
    mean, std = (torch.tensor(v, device=images.device) for v in (_MEAN, _STD))
    return ((images.flip(-1).float() - mean) / std).movedim(-1, -3).contiguous()


def collate(examples: Sequence[Example], sizes: Architecture, device: str) -> Batch:
    """Return a batch of examples whose pictures are fitted; one rig for all of them if they have the same."""
    points = [torch.from_numpy(np.ascontiguousarray(e.points)).to(device) for e in examples] if sizes.lidar else None
    images = rig = None
    if sizes.camera:
        stacked = np.stack([np.stack(e.images) for e in examples])
        images = normalised(torch.from_numpy(stacked).to(device))
        rigs = np.stack([e.lidar_to_image for e in examples])
        rigs = rigs[:1] if np.array_equal(rigs, np.broadcast_to(rigs[:1], rigs.shape)) else rigs
        rig = torch.from_numpy(rigs.astype(np.float32)).to(device)
    boxes = [torch.from_numpy(e.boxes.astype(np.float32)).to(device) for e in examples]
    labels = [torch.from_numpy(e.labels).to(device) for e in examples]
    lidar_seen = torch.tensor([bool(e.points.any()) for e in examples], device=device)
    cameras_seen = torch.tensor([any(image.any() for image in e.images) for e in examples], device=device)
    return Batch(Sensors(points, images, rig), boxes, labels, lidar_seen, cameras_seen)
