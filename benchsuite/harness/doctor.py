"""A look at the installation: what works here, and what would not."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import benchsuite
from benchsuite.core.errors import UserError
from benchsuite.core.registry import Registry, require
from benchsuite.harness.cache import default_cache_root
from benchsuite.harness.store import find_result_files, read_results


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    good: bool
    detail: str


def examine(registry: Registry, result_roots: Iterable[Path]) -> list[Finding]:
    """Return what was found. A missing optional library is no problem, a broken plugin is."""
    findings = [Finding("benchsuite", True, f"{benchsuite.__version__} on Python {platform.python_version()}")]
    findings.append(_gpu())
    owners = sorted(set(registry.owners.values()))
    findings.append(Finding("plugins", True, ", ".join(owners) or "none"))
    findings += [Finding(f"plugin {broken.name}", False, broken.error) for broken in registry.broken]
    for spec in sorted(registry.methods.values(), key=lambda m: m.name):
        try:
            require(f"method {spec.name!r}", spec.requires, spec.install)
        except UserError as error:
            findings.append(Finding(f"method {spec.name}", True, f"not usable here: {error}"))
    findings.append(_detection3d())
    findings.append(_writable("cache", default_cache_root()))
    stored, problems = read_results(find_result_files(result_roots))
    findings.append(Finding("results", not problems, f"{len(stored)} readable, {len(problems)} not"))
    findings += [Finding("result file", False, problem) for problem in problems]
    return findings


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("torch", True, "not installed: only listing, tables and methods without torch work")
    import torch

    if not torch.cuda.is_available():
        return Finding("torch", True, f"{torch.__version__}, no GPU: runs use the CPU")
    return Finding("torch", True, f"{torch.__version__}, GPU {torch.cuda.get_device_name(0)}")


# What tests of 3-D detection hold the suite's own code against: in an environment of its own (`tox -e detection3d`).
_DETECTION3D = ("mmcv", "mmdet3d", "spconv", "nuscenes")


def _detection3d() -> Finding:
    """Say whether mmdet3d's environment is this one, and whether mmcv's operations are compiled in it."""
    missing = [name for name in _DETECTION3D if importlib.util.find_spec(name) is None]
    if missing:
        return Finding("detection3d", True, f"mmdet3d's environment is another one (no {', '.join(missing)} here)")
    compiled = importlib.util.find_spec("mmcv._ext") is not None
    detail = "with mmcv's compiled operations" if compiled else "without mmcv's compiled operations (mmcv-lite)"
    return Finding("detection3d", True, f"mmdet3d's environment, {detail}")


def _writable(what: str, folder: Path) -> Finding:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return Finding(what, False, f"{folder} cannot be made ({error.strerror}): set BENCHSUITE_CACHE")
    good = os.access(folder, os.W_OK)
    return Finding(what, good, str(folder) if good else f"{folder} is not writable: set BENCHSUITE_CACHE")
