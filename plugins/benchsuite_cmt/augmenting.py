"""Augmentation: removed sensors, movements of the world, resized and mirrored pictures (section 6).

A movement of the world moves points and boxes and leaves pictures as they are: the cameras' matrices take it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchsuite_cmt.examples import NO_POINTS, Example, ImageFit

__all__ = [
    "facing_forward",
    "mirror_views",
    "mirrored",
    "moved",
    "random_fit",
    "random_movement",
    "within",
    "without_cameras",
    "without_lidar",
    "without_sensor",
]

_ROTATION, _SCALE, _SHIFT = 0.785, (0.9, 1.1), 0.5


def without_cameras(example: Example) -> Example:
    """Return an example whose pictures are black before they are normalised."""
    return replace(example, images=[np.zeros_like(image) for image in example.images])


def without_lidar(example: Example) -> Example:
    """Return an example all of whose point values are zero."""
    return replace(example, points=NO_POINTS)


def without_sensor(example: Example, draw: float, share: float = 0.25) -> Example:
    """Remove the cameras if ``draw`` (uniform in [0, 1)) is above 1 - share, the LiDAR in the ``share`` below that."""
    if draw > 1 - share:
        return without_cameras(example)
    return without_lidar(example) if draw > 1 - 2 * share else example


def moved(example: Example, matrix: NDArray[np.float64]) -> Example:
    """Return an example in a world that is rotated about z, scaled, mirrored at planes of x or y, and shifted.

    ``matrix`` (4, 4) maps old to new coordinates. Pictures stay: points of the new world meet the same pixels, since
    ``lidar_to_camera`` takes the movement back.
    """
    linear, shift = matrix[:3, :3], matrix[:3, 3]
    scale = float(np.linalg.norm(linear[:, 2]))
    points = example.points.copy()
    points[:, :3] = points[:, :3] @ linear.T + shift
    boxes = example.boxes.copy()
    boxes[:, :3] = boxes[:, :3] @ linear.T + shift
    boxes[:, 3:6] *= scale
    heading = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], axis=1) @ linear[:2, :2].T
    boxes[:, 6] = np.arctan2(heading[:, 1], heading[:, 0])
    boxes[:, 7:9] = boxes[:, 7:9] @ linear[:2, :2].T
    return replace(example, points=points, boxes=boxes, lidar_to_camera=example.lidar_to_camera @ np.linalg.inv(matrix))


def facing_forward(example: Example) -> Example:
    """Return an example whose boxes are turned by half a turn where they face backward: yaw in [-pi / 2, pi / 2)."""
    boxes = example.boxes.copy()
    boxes[:, 6] = (boxes[:, 6] + np.pi / 2) % np.pi - np.pi / 2
    return replace(example, boxes=boxes)


def random_movement(
    generator: np.random.Generator, strength: float = 1.0, flips: bool = True, shifts: bool = True
) -> NDArray[np.float64]:
    """Return a rotation, scaling, shift and two mirrorings as one matrix (4, 4).

    ``strength`` scales the ranges of angle (.785) and factor (.1); camera-only training uses a half, and neither shifts
    nor mirrors.
    """
    angle = generator.uniform(-_ROTATION, _ROTATION) * strength
    scale = 1 + (generator.uniform(*_SCALE) - 1) * strength
    shift = generator.normal(0, _SHIFT, 3) * shifts
    signs = np.where(generator.random(2) < 0.5, -1.0, 1.0) if flips else np.ones(2)
    found = np.eye(4)
    found[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    found[:3, :3] *= scale
    found[:3, 3] = shift
    return np.diag([signs[0], signs[1], 1.0, 1.0]) @ found


def within(example: Example, point_range: Sequence[float], lidar: bool = True) -> Example:
    """Keep points inside the range, and boxes whose centres are, seen from above. A cloud keeps at least one point."""
    low, high = np.asarray(point_range[:3]), np.asarray(point_range[3:])
    centres = example.boxes[:, :2]
    kept = ((centres > low[:2]) & (centres < high[:2])).all(1)
    points = example.points
    if lidar:
        inside = ((points[:, :3] > low) & (points[:, :3] < high)).all(1)
        points = points[inside] if inside.any() else NO_POINTS
    return replace(example, points=points, boxes=example.boxes[kept], labels=example.labels[kept])


def random_fit(
    generator: np.random.Generator, stored: tuple[int, int], size: tuple[int, int], factors: tuple[float, float]
) -> ImageFit:
    """Return a random size, the lowest rows, random columns, and a mirroring of one picture in two."""
    factor = generator.uniform(*factors)
    height, width = int(stored[0] * factor), int(stored[1] * factor)
    left = int(generator.uniform(0, max(0, width - size[1])))
    return ImageFit(factor, left, height - size[0], size, bool(generator.random() < 0.5))


def mirror_views(
    lidar_to_image: NDArray[np.float64], width: int, axis: int, tolerance: float = 1e-6
) -> tuple[int, ...] | None:
    """Return which camera sees mirrored what each one sees, if the rig is symmetric at x = 0 (axis 0) or y = 0.

    Parameters
    ----------
    lidar_to_image
        (views, 4, 4).
    width
        Of the pictures: pixel u becomes width - 1 - u.
    """
    mirror = np.eye(4)
    mirror[axis, axis] = -1
    flip = np.eye(4)
    flip[0, 0], flip[0, 2] = -1, width - 1
    turned = flip @ lidar_to_image @ mirror  # what each camera becomes
    apart = np.abs(turned[None] - lidar_to_image[:, None]).max((2, 3))  # (wanted, turned)
    scale = np.abs(lidar_to_image).max()
    partners = apart.argmin(1)
    return tuple(int(p) for p in partners) if (apart.min(1) <= tolerance * scale).all() else None


def mirrored(example: Example, axis: int, partners: Sequence[int]) -> Example:
    """Return an example in the mirrored world, pictures too: exact where `mirror_views` names partners."""
    signs = np.ones(4)
    signs[axis] = -1
    turned = moved(example, np.diag(signs))
    images = [example.images[partner][:, ::-1] for partner in partners]
    return replace(turned, images=images, lidar_to_camera=example.lidar_to_camera)
