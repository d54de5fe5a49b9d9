"""Files of LiDAR points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError

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
