"""LiDAR points: several sweeps in the frame of the latest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchsuite.datasets.driving_scenes.geometry import placed
from benchsuite.datasets.driving_scenes.point_files import STORED, read_points
from benchsuite.datasets.driving_scenes.scenes import Sweep

__all__ = ["read_points", "read_sweeps"]


def read_sweeps(sweeps: Sequence[Sweep]) -> NDArray[np.float32]:
    """Return the points of sweeps in the LiDAR frame of the keyframe: float32 (N, 6), columns `POINT_COLUMNS`.

    A sweep's pose turns, then moves its points (``to_key``), which is exact where the car turns; moving points that
    stand still so brings those of all sweeps to one place.

    Raises
    ------
    DataError
        As `read_points`.
    """
    parts = []
    for sweep in sweeps:
        stored = read_points(sweep.path)
        points = np.empty((len(stored), STORED + 1), dtype=np.float32)
        points[:, :STORED] = stored
        if sweep.lag or not np.array_equal(sweep.to_key, np.eye(4)):
            points[:, :3] = placed(stored[:, :3].astype(np.float64), sweep.to_key)
        points[:, STORED] = sweep.lag
        parts.append(points)
    return np.concatenate(parts)
