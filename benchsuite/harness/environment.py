"""Provenance: on what machine, with which libraries and from which commit a run was made."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import benchsuite

_ALWAYS = ("benchsuite", "numpy", "scipy", "pandas")
_DISTRIBUTIONS = {"torch_geometric": "torch-geometric", "sklearn": "scikit-learn", "cv2": "opencv-python"}


def describe(requires: Iterable[str]) -> dict[str, Any]:
    """Return the environment of a run that needs the given import names (a GPU run adds its own GPU)."""
    libraries = {name: _version(name) for name in sorted({*_ALWAYS, *requires})}
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "gpu": None,
        "libraries": libraries,
        **_commit(),
    }


def comparable_part(environment: dict[str, Any]) -> tuple[Any, ...]:
    """Return what two runs must share for their times to be compared."""
    keys = ("python", "platform", "cpu", "cpu_count", "gpu")
    return (*(environment.get(key) for key in keys), str(environment.get("libraries")))


def _version(module: str) -> str | None:
    try:
        return metadata.version(_DISTRIBUTIONS.get(module, module))
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


@functools.cache
def _commit() -> dict[str, Any]:
    """Return the commit of the checkout that benchsuite runs from (None for an installed wheel)."""
    folder = Path(benchsuite.__file__).resolve().parent.parent
    nothing = {"commit": None, "dirty": None}
    if not (folder / ".git").exists():
        return nothing
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return nothing


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
