"""The harness' side of `benchsuite.core.context.RunContext`."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import pickle
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchsuite.core.context import RunContext
from benchsuite.core.method import Method
from benchsuite.core.registry import get_registry
from benchsuite.core.result import DataRef, Timing
from benchsuite.harness.apart import call_apart
from benchsuite.harness.cache import Built, Cache, Charge
from benchsuite.harness.checkpoint import Checkpoint, Interrupted, Position, TermSignal
from benchsuite.harness.parts import build_method
from benchsuite.harness.randomness import random_state

_PROGRESS_INTERVAL_S = 0.25
_DATA_FILE = "data.pickle"


class UndeclaredUse(Exception):
    """A task or method asks for another method that its spec does not declare."""


@dataclass
class Clock:
    """Wall and CPU seconds of this process and its finished children."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    @classmethod
    def now(cls) -> Clock:
        """Return the present reading."""
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return cls(time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in usages))

    def __sub__(self, other: Clock) -> Clock:
        return Clock(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s)

    def __add__(self, other: Clock) -> Clock:
        return Clock(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)


@dataclass
class HarnessContext(RunContext):
    """See `RunContext`. Plain data throughout, so that the context of a rank pickles."""

    seeds: dict[str, int]
    seed_axes: tuple[str, ...]
    workdir: Path
    artifact_folder: Path
    cache_root: Path
    shared_digest: str
    preset: str = "embedded"
    device: str = "cpu"
    threads: int = 1
    split: Literal["test", "val"] = "test"
    weights: Path | None = None
    wanted_artifacts: frozenset[str] = frozenset()
    deadline: float | None = None
    max_steps: int | None = None
    rank: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    uses: frozenset[str] = frozenset()
    readers: Mapping[str, str] = field(default_factory=dict)
    checkpoint_folder: Path | None = None
    progress_fd: int | None = None
    job_id: int = 0
    truncated: bool = False
    peak_gpu_memory_mb: float = 0.0  # of processes apart from this one
    timings: dict[str, Clock] = field(default_factory=dict)
    charges: dict[str, Charge] = field(default_factory=dict)
    _spent_in_cache: Clock = field(default_factory=Clock)
    _spent_before: Clock = field(default_factory=Clock)  # by killed processes whose trainings this one goes on with
    _trainings: dict[str, int] = field(default_factory=dict)
    _last_progress: float = 0.0

    @property
    def log(self) -> logging.Logger:  # type: ignore[override]
        """The run's logger."""
        return logging.getLogger("benchsuite.run")

    def seed_for(self, axis: str, name: str) -> int:
        """See `RunContext.seed_for`."""
        self.draw_of(axis)
        outer = self.seed_axes[: self.seed_axes.index(axis) + 1]
        parts: list[Any] = [[a, self.seeds[a]] for a in outer] + [name]
        if self.rank is not None:
            parts.append(self.rank)
        return _hash_to_seed(parts)

    def draw_of(self, axis: str) -> int:
        """See `RunContext.draw_of`."""
        if axis not in self.seed_axes:
            raise KeyError(f"no seed axis {axis!r}; this task has {', '.join(self.seed_axes)}")
        return self.seeds[axis]

    def steps(self, total: int, description: str = "steps") -> Iterator[int]:
        """See `RunContext.steps`."""
        last = total if self.max_steps is None else min(total, self.max_steps)
        self.truncated |= last < total
        for step in range(last):
            self._report(step, total, description)
            yield step

    def resumable(self, name: str, total: int, parts: Mapping[str, Any], description: str = "") -> Iterator[int]:
        """See `RunContext.resumable`."""
        if self.checkpoint_folder is None or importlib.util.find_spec("torch") is None:
            yield from self.steps(total, description or name)
            return
        self._trainings[name] = number = self._trainings.get(name, 0) + 1
        checkpoint = Checkpoint(self.checkpoint_folder / f"{name}-{number}.pt", parts)
        position = checkpoint.restore()
        if position.step:
            self.log.info("%s goes on at step %d of %d", name, position.step, total)
            self._spent_before = self._spent_before + Clock(position.wall_s, position.cpu_s)
        start = Clock.now() - Clock(position.wall_s, position.cpu_s)

        def reached(step: int) -> Position:
            spent = Clock.now() - start
            return Position(step, spent.wall_s, spent.cpu_s)

        last = total if self.max_steps is None else min(total, self.max_steps)
        self.truncated |= last < total
        with TermSignal() as term:
            for step in range(position.step, last):
                self._report(step, total, description or name)
                yield step
                if term.received or checkpoint.due(step + 1):
                    checkpoint.save(reached(step + 1))
                if term.received:
                    raise Interrupted(128 + signal.SIGTERM)
        if position.step < last:
            checkpoint.save(reached(last))  # later stages may be killed: this one need not be repeated

    def _report(self, step: int, total: int, description: str) -> None:
        now = time.monotonic()
        if self.progress_fd is None or now - self._last_progress < _PROGRESS_INTERVAL_S:
            return
        self._last_progress = now
        message = {"id": self.job_id, "progress": [step, total, description[:60]]}
        with contextlib.suppress(OSError):  # nobody listens any more: the run is about to be ended
            os.write(self.progress_fd, json.dumps(message).encode() + b"\n")

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """See `RunContext.phase`. Seconds spent building cache entries are charged apart."""
        start, cached_before, before = Clock.now(), self._spent_in_cache, self._spent_before
        try:
            yield
        finally:
            spent = Clock.now() - start - (self._spent_in_cache - cached_before) + (self._spent_before - before)
            self.timings[name] = self.timings.get(name, Clock()) + spent

    def cached(self, name: str, inputs: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """See `RunContext.cached`."""
        key_parts = {
            "name": name,
            "inputs": json.loads(json.dumps(dict(inputs), sort_keys=True)),
            "source": self.shared_digest,
            "device": self.device.partition(":")[0],
            "threads": self.threads,
            "max_steps": self.max_steps,
        }
        start, cached_before = Clock.now(), self._spent_in_cache
        # Not from the source digest: a changed comment must not change the numbers.
        seed = _hash_to_seed([name, key_parts["inputs"]])

        def timed_build(folder: Path) -> Built:
            outer_charges, self.charges = self.charges, {}
            outer_truncated, self.truncated = self.truncated, False
            outer_trainings, self._trainings = self._trainings, {}
            outer_checkpoints, outer_before = self.checkpoint_folder, self._spent_before
            if outer_checkpoints is not None:
                partial = folder.parent  # KEY.HOST.partial: what a node leaves, another goes on with
                self.checkpoint_folder = partial.with_name(f"{partial.name.partition('.')[0]}.checkpoint")
            build_start, nested_before = Clock.now(), self._spent_in_cache
            try:
                with random_state(seed):
                    build(folder)
                spent = Clock.now() - build_start - (self._spent_in_cache - nested_before)
                spent += self._spent_before - outer_before
                if outer_checkpoints is not None and self.checkpoint_folder is not None:
                    shutil.rmtree(self.checkpoint_folder, ignore_errors=True)
                charge = Charge(name=name, wall_s=spent.wall_s, cpu_s=max(spent.cpu_s, 0.0))
                return Built({**self.charges, _short(key_parts): charge}, self.truncated)
            finally:
                self.charges, self.truncated = outer_charges, outer_truncated
                self.checkpoint_folder, self._trainings = outer_checkpoints, outer_trainings
                self._spent_before = outer_before

        folder = Cache(self.cache_root).get(name, key_parts, timed_build)
        self._spent_in_cache = cached_before + (Clock.now() - start)
        self.charges.update(folder.entry.charges)
        self.truncated |= folder.entry.truncated
        return folder.path

    def read_once(self, ref: DataRef, root: Path | None, draw: int, read: Callable[[], Any]) -> Any:
        """Return a real data set as ``read`` gives it; runs that share files, reader and draw share one reading.

        Kept pickled in the cache. What does not pickle is read again by every run, and so is what another user of a
        shared cache left there: opening a pickle runs what its writer put into it.
        """
        self.announce(f"reading {ref.name}")
        if ref.name not in self.readers:
            return read()
        inputs = {"data": ref.model_dump(), "root": str(root), "draw": draw, "reader": self.readers[ref.name]}
        loaded: list[Any] = []

        def build(folder: Path) -> Built:
            loaded.append(read())
            try:
                content = pickle.dumps(loaded[0], protocol=pickle.HIGHEST_PROTOCOL)
            except Exception as error:  # a stranger's class: open files, generators
                self.log.info("%s is read anew by every run: it does not pickle (%s)", ref.name, error)
            else:
                (folder / _DATA_FILE).write_bytes(content)
            return Built({})

        file = Cache(self.cache_root).get("data", inputs, build).path / _DATA_FILE
        if loaded:
            return loaded[0]
        mine = file.is_file() and file.stat().st_uid == os.getuid()
        return pickle.loads(file.read_bytes()) if mine else read()

    def announce(self, description: str) -> None:
        """Show what a run does before its first loop."""
        self._last_progress = 0.0
        self._report(0, 1, description)
        self._last_progress = 0.0

    def artifact(self, name: str) -> Path:
        """See `RunContext.artifact`."""
        self.artifact_folder.mkdir(parents=True, exist_ok=True)
        path = (self.artifact_folder / name).resolve()
        if not path.is_relative_to(self.artifact_folder.resolve()):
            raise ValueError(f"artifact {name!r} would lie outside the run's folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def method(self, name: str, **settings: Any) -> Method:
        """See `RunContext.method`."""
        spec = get_registry().method(name)
        if name not in self.uses:
            raise UndeclaredUse(
                f"ctx.method({name!r}): neither the task's nor the method's spec names {name!r} in 'uses',"
                " so that a change of its code would go unseen"
            )
        preset = spec.presets.get(self.preset) or spec.presets["embedded"]
        return build_method(spec, {**preset.resolve(self.facts), **settings})

    @contextlib.contextmanager
    def scratch(self, name: str) -> Iterator[HarnessContext]:
        """See `RunContext.scratch`."""
        inside = self._inside(name, cache_root=self.cache_root)
        try:
            yield inside
        finally:
            self._take_over(inside)
            shutil.rmtree(inside.workdir, ignore_errors=True)

    def apart(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """See `RunContext.apart`."""
        inside = self._inside(name, cache_root=self.workdir / name / "cache")
        try:
            value, after, gpu_mb = call_apart(inside, function, arguments, self.progress_fd)
            self.peak_gpu_memory_mb = max(self.peak_gpu_memory_mb, gpu_mb)
            self._take_over(after)
            if after.artifact_folder.is_dir():
                shutil.copytree(after.artifact_folder, self.artifact_folder, dirs_exist_ok=True)
        finally:
            shutil.rmtree(inside.workdir, ignore_errors=True)
        return value

    def _inside(self, name: str, cache_root: Path) -> HarnessContext:
        """Return the context of a stage, with a folder of its own."""
        folder = self.workdir / name
        folder.mkdir()
        return replace(
            self,
            timings={},
            charges={},
            truncated=False,
            _trainings={},
            workdir=folder,
            artifact_folder=folder / "artifacts",
            cache_root=cache_root,
            checkpoint_folder=self.checkpoint_folder and self.checkpoint_folder / name,
        )

    def _take_over(self, stage: HarnessContext) -> None:
        """Count for the run what a stage has spent and cut short."""
        for phase, clock in stage.timings.items():
            self.timings[phase] = self.timings.get(phase, Clock()) + clock
        self.charges.update(stage.charges)
        self.truncated |= stage.truncated
        self._spent_in_cache = stage._spent_in_cache

    def for_rank(self, rank: int) -> HarnessContext:
        """See `RunContext.for_rank`."""
        workdir = self.workdir / f"rank-{rank}"
        return replace(
            self, rank=rank, progress_fd=None, checkpoint_folder=None, timings={}, charges={}, workdir=workdir
        )

    def timing_table(self) -> dict[str, Timing]:
        """Return all phases, and what the cached steps that were used cost when they were built."""
        table = {name: Timing(wall_s=c.wall_s, cpu_s=max(c.cpu_s, 0.0)) for name, c in self.timings.items()}
        for charge in self.charges.values():
            name = f"cached:{charge.name}"
            before = table.get(name, Timing(wall_s=0.0, cpu_s=0.0))
            wall, cpu = before.wall_s + charge.wall_s, before.cpu_s + charge.cpu_s
            table[name] = Timing(wall_s=wall, cpu_s=cpu, shared=True)
        return table


def _short(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _hash_to_seed(parts: list[Any]) -> int:
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
