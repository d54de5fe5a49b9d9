"""CPUs, GPUs and memory: what a machine offers, what a run needs, and which run has what.

A GPU is known by the name that ``CUDA_VISIBLE_DEVICES`` gives it (a number, or ``GPU-...``). A process that was itself
started with such a mask hands on parts of it: its runs see those devices of that mask that they were given, no others.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from benchsuite.core.errors import ConfigError, Incompatible
from benchsuite.core.method import Resources

MASK = "CUDA_VISIBLE_DEVICES"

# What a machine with a GPU that torch can use has: NVIDIA's driver, WSL's, AMD's.
_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
_WHOLE = 10_000  # a GPU is shared out in ten-thousandths, in whole numbers: shares of 0.1 add up
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Needs:
    """What one run takes while it lasts.

    ``gpus`` is a share of one, a whole number of them, or infinite (all that there are); ``only`` the place of the one
    GPU that will do, ``memory_mb`` 0 if the method does not say.
    """

    cpus: int = 1
    gpus: float = 0
    memory_mb: float = 0
    exclusive: bool = False
    only: int | None = None


def needs_of(resources: Resources, device: str) -> Needs:
    """Return the needs of a run on ``cpu``, ``cuda`` or ``cuda:N``: one GPU if it says none, all if it runs alone."""
    gpus: float = 0
    if device != "cpu":
        gpus = resources.gpus or (math.inf if resources.exclusive else 1)
    place = device.partition(":")[2]
    return Needs(resources.cpus, gpus, resources.memory_mb, resources.exclusive, int(place) if place else None)


class Machine:
    """What a machine offers to runs.

    Parameters
    ----------
    gpus
        The names of the devices; None: those that this process sees, looked for when first asked.
    memory_mb
        None: not known, so that runs are not held back for it.
    """

    def __init__(self, gpus: Sequence[str] | None = None, memory_mb: float | None = None) -> None:
        self._gpus = None if gpus is None else tuple(gpus)
        self.memory_mb = memory_mb

    @functools.cached_property
    def gpus(self) -> tuple[str, ...]:
        """The names of the devices."""
        return find_gpus() if self._gpus is None else self._gpus

    def misfit(self, needs: Needs) -> str:
        """Return why a run can never be made here (``needs 2 GPUs, and there is 1 here``); nothing if it can."""
        if needs.gpus:
            there = len(self.gpus) if needs.only is None else 1
            if there < (1 if needs.gpus == math.inf else needs.gpus):
                where = "here" if needs.only is None else f"as --device cuda:{needs.only} names one"
                return f"needs {_counted(needs.gpus)}, and there {'is' if there == 1 else 'are'} {there} {where}"
        if self.memory_mb is not None and needs.memory_mb > self.memory_mb:
            return f"needs {needs.memory_mb:g} MB of memory, and there are {self.memory_mb:.0f} here"
        return ""


def _counted(gpus: float) -> str:
    return f"{gpus:g} GPU{'' if gpus == 1 else 's'}" if gpus >= 1 and gpus != math.inf else "a GPU"


def this_machine(chosen: str = "") -> Machine:
    """Return what this machine offers, of its GPUs only those ``chosen`` (``0,1``; empty: all that this process sees).

    Raises
    ------
    ConfigError
        If a chosen GPU is not there.
    """
    return Machine(choose_gpus(find_gpus(), chosen) if chosen else None, find_memory_mb())


def find_gpus() -> tuple[str, ...]:
    """Return the names of the GPUs that this process sees; CUDA is not started for it in processes that fork."""
    if not any(map(os.path.exists, _GPU_FILES)) or importlib.util.find_spec("torch") is None:
        return ()  # and torch need not be imported to know
    import torch

    return visible_gpus(os.environ.get(MASK), torch.cuda.device_count() if torch.cuda.is_available() else 0)


def visible_gpus(mask: str | None, count: int) -> tuple[str, ...]:
    """Return the names of the ``count`` devices that CUDA shows a process with this mask."""
    names = [str(number) for number in range(count)] if mask is None else [name.strip() for name in mask.split(",")]
    return tuple(names[:count])


def choose_gpus(there: Sequence[str], chosen: str) -> tuple[str, ...]:
    """Return some of the GPUs by their places (``0,1``), in the order given; places count as in ``cuda:0``.

    Raises
    ------
    ConfigError
        If a place is no number, is not there, or comes twice.
    """
    places = [part.strip() for part in chosen.split(",")]
    if not all(place.isdecimal() for place in places):
        raise ConfigError(f"--gpus {chosen}: give places, such as 0 or 0,1")
    numbers = [int(place) for place in places]
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"--gpus {chosen} names a GPU twice")
    if max(numbers) >= len(there):
        raise ConfigError(f"--gpus {chosen}: there is no GPU {max(numbers)} here ({len(there)} found)")
    return tuple(there[number] for number in numbers)


def find_memory_mb() -> float:
    """Return the memory that processes here may use together: that of the machine, or of the container they are in."""
    limits = [float(psutil.virtual_memory().total)]
    for name in _MEMORY_LIMITS:
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            limits.append(float(text))
    return min(limits) / 1e6


def resolve_device(name: str, requires: set[str], resources: Resources, machine: Machine) -> str:
    """Return ``cpu``, ``cuda`` or ``cuda:N`` for one run; ``auto``: a GPU where there is one and the run can use it.

    Parameters
    ----------
    name
        As the user gives it.
    requires
        Import names of the libraries of the run: with torch, or if its ``resources`` name GPUs, it can use one.

    Raises
    ------
    ConfigError
        For another name, or a GPU that is not there.
    """
    kind, _, index = name.partition(":")
    if name == "cpu" or (name == "auto" and "torch" not in requires and not resources.gpus):
        return "cpu"
    if kind not in ("cuda", "auto") or (index and not index.isdigit()) or (kind == "auto" and index):
        raise ConfigError(f"--device {name!r} is none of auto, cpu, cuda, cuda:N")
    count = len(machine.gpus)
    if name == "auto":
        return "cuda" if count else "cpu"
    if int(index or 0) >= count:
        if importlib.util.find_spec("torch") is None:
            raise ConfigError(f"--device {name} needs torch, which is not installed - run: pip install torch")
        raise ConfigError(f"--device {name}: there is no such GPU here ({count} found); use --device cpu")
    return name


class Shares:
    """Who has what of a machine. Of CPUs there are as many as the user says; a run alone may take more."""

    def __init__(self, machine: Machine, cpus: int) -> None:
        self._machine = machine
        self._cpus = cpus
        self._held: dict[int, Needs] = {}
        self._gpus: dict[int, tuple[int, ...]] = {}  # run to the places of its devices
        self._free: dict[int, int] | None = None

    def take(self, run: int, needs: Needs) -> Literal["", "gpus", "room"]:
        """Give a run what it needs, or return what it lacks: nothing but GPUs, or anything else.

        Raises
        ------
        Incompatible
            If the machine will never have it.
        """
        held = self._held.values()
        if held:
            alone = needs.exclusive or any(other.exclusive for other in held)
            if alone or sum(other.cpus for other in held) + needs.cpus > self._cpus:
                return "room"
            memory = sum(other.memory_mb for other in held) + needs.memory_mb
            if needs.memory_mb and self._machine.memory_mb is not None and memory > self._machine.memory_mb:
                return "room"
        elif problem := self._machine.misfit(needs):
            raise Incompatible(f"a run {problem}")
        places = self._places(needs)
        if places is None:
            return "gpus"
        for place in places:
            self._free_places()[place] -= _units(needs.gpus)
        self._held[run], self._gpus[run] = needs, places
        return ""

    def give_back(self, run: int) -> None:
        """Take back what a run had."""
        units = _units(self._held.pop(run).gpus)
        for place in self._gpus.pop(run):
            self._free_places()[place] += units

    def gpus_of(self, run: int) -> tuple[str, ...]:
        """Return the names of the devices that a run has."""
        return tuple(self._machine.gpus[place] for place in self._gpus[run])

    def _places(self, needs: Needs) -> tuple[int, ...] | None:
        """Return the places of free devices: for a share the fullest that has room, so that others stay whole."""
        if not needs.gpus:
            return ()
        free = self._free_places()
        units = _units(needs.gpus)
        fitting = [place for place in free if free[place] >= units and needs.only in (None, place)]
        if needs.gpus == math.inf:
            return tuple(fitting) if fitting else None
        if needs.gpus < 1:
            return (min(fitting, key=lambda place: free[place]),) if fitting else None
        count = round(needs.gpus)
        return tuple(fitting[:count]) if len(fitting) >= count else None

    def _free_places(self) -> dict[int, int]:
        if self._free is None:
            self._free = dict.fromkeys(range(len(self._machine.gpus)), _WHOLE)
        return self._free


def _units(gpus: float) -> int:
    return _WHOLE if gpus >= 1 else round(gpus * _WHOLE)


class Waiting:
    """Runs that wait, in their order. One that lacks nothing but a GPU holds up none that needs no GPU."""

    def __init__(self, needs: Mapping[int, Needs]) -> None:
        order = list(enumerate(needs))
        self._needs = needs
        self._lines = [deque(item for item in order if bool(needs[item[1]].gpus) is gpu) for gpu in (False, True)]

    def __bool__(self) -> bool:
        return any(self._lines)

    def next(self, shares: Shares) -> int | None:
        """Return the next run, with what it needs taken for it, or None if it has to wait."""
        for line in sorted((line for line in self._lines if line), key=lambda line: line[0]):
            run = line[0][1]
            lacks = shares.take(run, self._needs[run])
            if not lacks:
                line.popleft()
                return run
            if lacks != "gpus":
                return None
        return None
