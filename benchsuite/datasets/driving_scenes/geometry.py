"""Rotations, poses and boxes between frames of reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.datasets.driving_scenes.scenes import Boxes

Floats = NDArray[np.float64]


def rotation_of(quaternion: Any) -> Floats:
    """Return (..., 3, 3) rotation matrices of quaternions (..., 4), w first; they need not have length 1."""
    parts = np.asarray(quaternion, dtype=np.float64)
    w, x, y, z = parts[..., 0], parts[..., 1], parts[..., 2], parts[..., 3]
    scale = 2.0 / (w * w + x * x + y * y + z * z)
    matrix = np.empty((*parts.shape[:-1], 3, 3))
    matrix[..., 0, 0] = 1 - scale * (y * y + z * z)
    matrix[..., 0, 1] = scale * (x * y - z * w)
    matrix[..., 0, 2] = scale * (x * z + y * w)
    matrix[..., 1, 0] = scale * (x * y + z * w)
    matrix[..., 1, 1] = 1 - scale * (x * x + z * z)
    matrix[..., 1, 2] = scale * (y * z - x * w)
    matrix[..., 2, 0] = scale * (x * z - y * w)
    matrix[..., 2, 1] = scale * (y * z + x * w)
    matrix[..., 2, 2] = 1 - scale * (x * x + y * y)
    return matrix


def pose(rotation: Floats, translation: Any) -> Floats:
    """Return the (4, 4) matrix that turns, then moves."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, translation
    return matrix


def inverse(matrix: Floats) -> Floats:
    """Return the inverse of a pose."""
    rotation = matrix[:3, :3].T
    return pose(rotation, -rotation @ matrix[:3, 3])


def about_z(angle: float) -> Floats:
    """Return the (3, 3) rotation about the z axis by radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def yaws_of(rotations: Floats) -> Floats:
    """Return (n,) angles of the x axes of rotations (n, 3, 3), seen from above."""
    return np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0])


def placed(points: NDArray[Any], matrix: Floats) -> NDArray[Any]:
    """Return points (n, 3) moved by a pose, in their own precision."""
    return points @ matrix[:3, :3].T.astype(points.dtype) + matrix[:3, 3].astype(points.dtype)


def moved(boxes: Boxes, matrix: Floats) -> Boxes:
    """Return boxes in another frame: ``matrix`` (4, 4) takes points of theirs to points of the other.

    Where the frames are tilted against each other, a box's direction is that of its length seen from above.
    """
    rotation = matrix[:3, :3]
    along = np.stack([np.cos(boxes.yaws), np.sin(boxes.yaws)], axis=1) @ rotation[:2, :2].T  # (n, 2)
    return Boxes(
        centres=placed(boxes.centres, matrix),
        sizes=boxes.sizes,
        yaws=np.arctan2(along[:, 1], along[:, 0]),
        velocities=boxes.velocities @ rotation[:2, :2].T,
        labels=boxes.labels,
        attributes=boxes.attributes,
        points=boxes.points,
    )


def corners(boxes: Boxes) -> Floats:
    """Return the corners (n, 8, 3) of boxes: four of the bottom, then four of the top, each front first."""
    signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]], dtype=np.float64) / 2
    flat = np.concatenate([np.column_stack([signs, np.full(4, z)]) for z in (-0.5, 0.5)])  # (8, 3)
    along = flat * boxes.sizes[:, None, :]  # (n, 8, 3)
    cosine, sine = np.cos(boxes.yaws)[:, None], np.sin(boxes.yaws)[:, None]
    x = along[..., 0] * cosine - along[..., 1] * sine
    y = along[..., 0] * sine + along[..., 1] * cosine
    return np.stack([x, y, along[..., 2]], axis=-1) + boxes.centres[:, None, :]
