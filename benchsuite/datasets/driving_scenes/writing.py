"""Writing the official tables of nuScenes, with files of pictures and points beside them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.datasets.driving_scenes.scenes import ATTRIBUTES

_TABLES = (
    *("category", "attribute", "visibility", "instance", "sensor", "calibrated_sensor", "ego_pose", "log", "scene"),
    *("sample", "sample_data", "sample_annotation", "map"),
)
_VISIBILITIES = ("v0-40", "v40-60", "v60-80", "v80-100")


@dataclass
class Tables:
    """Tables that are being filled; every record gets a token that depends on its name alone."""

    root: Path
    version: str
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in _TABLES})

    def add(self, table: str, name: str, /, **fields: Any) -> str:
        """Add a record and return its token."""
        token = token_of(table, name)
        self.rows[table].append({"token": token, **fields})
        return token

    def add_constants(self, categories: Sequence[str]) -> None:
        """Add categories, attributes, visibilities, one drive and its (blank) map."""
        from PIL import Image

        for name in categories:
            self.add("category", name, name=name, description="generated")
        for name in ATTRIBUTES:
            self.add("attribute", name, name=name, description="generated")
        for place, level in enumerate(_VISIBILITIES, start=1):
            self.rows["visibility"].append({"token": str(place), "level": level, "description": "generated"})
        drive = {"logfile": "generated", "vehicle": "generated", "date_captured": "2018-01-01"}
        log = self.add("log", "log", **drive, location="generated")
        self.add("map", "map", log_tokens=[log], category="semantic_prior", filename="maps/blank.png")
        (self.root / "maps").mkdir(parents=True)
        Image.new("L", (8, 8), 255).save(self.root / "maps" / "blank.png")

    def write(self, splits: Mapping[str, Sequence[str]]) -> None:
        """Write all tables, and which scenes belong to which split."""
        folder = self.root / self.version
        folder.mkdir(parents=True)
        for name, rows in self.rows.items():
            (folder / f"{name}.json").write_text(json.dumps(rows))
        (folder / "splits.json").write_text(json.dumps(splits))


def token_of(table: str, name: str) -> str:
    """Return a token as nuScenes has them: 32 hexadecimal digits."""
    return hashlib.blake2b(f"{table}:{name}".encode(), digest_size=16).hexdigest()


def quaternion(rotation: NDArray[np.float64]) -> list[float]:
    """Return w, x, y, z of a rotation (3, 3)."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation.tolist()
    squares = (1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz)  # four times each square
    largest = max(range(4), key=squares.__getitem__)
    products = (
        (squares[0], zy - yz, xz - zx, yx - xy),
        (zy - yz, squares[1], xy + yx, xz + zx),
        (xz - zx, xy + yx, squares[2], yz + zy),
        (yx - xy, xz + zx, yz + zy, squares[3]),
    )[largest]  # four times each part times the largest part
    scale = 2 * math.sqrt(squares[largest])
    return [product / scale for product in products]


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture as JPEG or PNG."""
    from PIL import Image

    Image.fromarray(picture).save(path, quality=92, compress_level=1)


def write_points(path: Path, points: NDArray[np.float32]) -> None:
    """Write points (N, 5) as a ``.pcd.bin`` file."""
    path.write_bytes(np.ascontiguousarray(points, dtype="<f4").tobytes())
