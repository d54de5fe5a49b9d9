"""LiDAR points: files of sweeps, and several sweeps in the frame of the latest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError
from benchsuite.datasets.driving_scenes.geometry import placed
from benchsuite.datasets.driving_scenes.scenes import Sweep

STORED = 5  # x, y, z, intensity, ring
_FARTHEST = 1e4


def read_points(path: Path) -> NDArray[np.float32]:
    """Return the points of a ``.pcd.bin`` file as stored: float32 (N, 5), columns x, y, z, intensity, ring.

    Raises
    ------
    DataError
        If it is missing, has no point, no whole number of points, or numbers that no point has.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: is missing: complete the data set") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if not content or len(content) % (4 * STORED):
        raise DataError(
            f"{path}: has {len(content)} bytes, needs a multiple of {4 * STORED} (five float32 a point): is it cut off?"
        )
    points = np.frombuffer(content, dtype="<f4").reshape(-1, STORED).astype(np.float32)
    if not (np.abs(points) < _FARTHEST).all():  # NaN is refused too
        raise DataError(f"{path}: holds a point that is NaN or farther than {_FARTHEST:g} m: is it a .pcd.bin file?")
    return points


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
