"""Small generated driving scenes, written once a test process."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from benchsuite.datasets.driving_scenes.generated import world_extent, write_streets, write_world
from benchsuite.datasets.driving_scenes.scenes import DrivingScenes
from benchsuite.datasets.driving_scenes.tables import read_version

VERSION = "v1.0-generated"


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="driving-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.lru_cache
def streets_folder() -> Path:
    """Return a folder with two scenes to learn from and one to judge on; never change it."""
    folder = _folder()
    write_streets(folder, 3, {"train": 2, "val": 1})
    return folder


@functools.lru_cache
def world_folder() -> Path:
    """Return a folder with a world of 30 and 6 scenes; never change it."""
    folder = _folder()
    write_world(folder, 0.05, 3, {"train": 30, "val": 6})
    return folder


@functools.lru_cache
def streets() -> DrivingScenes:
    return read_version(streets_folder() / VERSION, "cuboid-streets")


@functools.lru_cache
def world() -> DrivingScenes:
    return read_version(world_folder() / VERSION, "cuboids-c", world_extent())
