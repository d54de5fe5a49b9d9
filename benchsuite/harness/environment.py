"""Provenance: on what machine, with which libraries and from which commit a run was made."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import benchsuite

# Libraries that take long to import: the fork server loads them once, and listing must not.
HEAVY_LIBRARIES = ("numpy", "scipy", "pandas", "torch", "torchvision", "torch_geometric", "transformers", "sklearn")

_MACHINE = ("python", "platform", "cpu", "cpu_count", "gpu")
_ALWAYS = ("benchsuite", "numpy", "scipy", "pandas")
_DISTRIBUTIONS = {"torch_geometric": "torch-geometric", "sklearn": "scikit-learn", "cv2": "opencv-python"}


def describe(requires: Iterable[str]) -> dict[str, Any]:
    """Return the environment of a run that needs the given import names (a GPU run adds its own GPU).

    ``libraries`` are those that it needs, by import name; ``distributions`` all that are installed.
    """
    libraries = {name: _version(name) for name in sorted({*_ALWAYS, *requires})}
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "gpu": None,
        "libraries": libraries,
        "distributions": dict(_distributions()),
        **_commit(),
    }


def comparable_groups(environments: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Return the indices of environments in groups whose times may be compared.

    A group shares machine and Python, and no library that two of its members name has two versions there; runs name
    the libraries that they need, so members may name different ones.
    """
    groups: list[tuple[tuple[Any, ...], dict[str, Any], list[int]]] = []
    for index, environment in enumerate(environments):
        machine = tuple(environment.get(key) for key in _MACHINE)
        named = environment.get("libraries")
        libraries = dict(named) if isinstance(named, Mapping) else {}
        for known_machine, known, members in groups:
            if machine == known_machine and all(known.get(name, v) == v for name, v in libraries.items()):
                known.update(libraries)
                members.append(index)
                break
        else:
            groups.append((machine, libraries, [index]))
    return [members for _, _, members in groups]


def _version(module: str) -> str | None:
    try:
        return metadata.version(_DISTRIBUTIONS.get(module, module))
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def _distributions() -> Mapping[str, str]:
    """Return the version of every installed distribution, by its name as it is spelt there."""
    named = ((item.metadata["Name"], item.version) for item in metadata.distributions())
    return dict(sorted({name: version for name, version in named if name}.items(), key=lambda item: item[0].lower()))


@functools.cache
def _cpu_model() -> str:
    """Return the processor's name, with family and model where the name alone may stand for several."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name") or platform.processor() or "unknown"
    numbers = [f"{key.removeprefix('cpu ')} {facts[key]}" for key in ("cpu family", "model") if key in facts]
    return f"{name} ({', '.join(numbers)})" if numbers else name


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
    # GIT_DIR and its like (set in hooks) would name another repository than the folder's
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10, env=environment)
    return done.stdout.strip()
