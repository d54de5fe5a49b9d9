"""What carries runs: one small interface, and what passes through it.

An executor is handed runs and tells what happens to them. What is stored already, hooks, and what the user is shown are
none of its business (`benchsuite.harness.execute`), and it writes no result: each run's supervisor does.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchsuite.harness.cache import default_cache_root
from benchsuite.harness.devices import Machine
from benchsuite.harness.environment import describe
from benchsuite.harness.job import Job, Report
from benchsuite.harness.plan import PlannedRun

_WARM_UP_S = 0.5  # exclusive runs are timed: their cores are brought to speed first


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what."""

    out: Path = Path("runs")
    workers: int = 1  # a run that needs several CPUs counts as so many
    timeout: float | None = None
    force: bool = False


@dataclass(frozen=True)
class Started:
    """A run is about to begin."""

    id: int


@dataclass(frozen=True)
class Progress:
    """A loop inside a run has come so far."""

    id: int
    done: int
    total: int
    description: str


@dataclass(frozen=True)
class Note:
    """Something worth a line to the user that is about no run alone."""

    text: str


Event = Started | Progress | Report | Note


class Executor(Protocol):
    """Carries runs."""

    @property
    def machine(self) -> Machine:
        """What a run may get at most: what plans are made for."""

    def __enter__(self) -> Executor: ...

    def __exit__(self, *details: object) -> None: ...

    def carry(self, runs: Mapping[int, PlannedRun], options: Options) -> Generator[Event, None, None]:
        """Make the runs, in about their order, and yield what happens; one `Report` for each is the last of it.

        A run is started when the caller asks for the event after its `Started`. Closing the iterator ends every run in
        flight, with all that it started.

        Raises
        ------
        UserError
            If the runs that are left cannot be carried.
        """


def make_job(index: int, planned: PlannedRun, options: Options, gpus: tuple[str, ...] = ()) -> Job:
    """Return what the process of a run is handed on this machine; ``gpus`` are the devices that it may see."""
    environment = describe(planned.requires)
    libraries = sorted(environment["libraries"].items())
    return Job(
        id=index,
        identity=planned.identity,
        shared_digest=planned.shared_digest,
        device="cpu" if planned.device == "cpu" else "cuda:0",
        gpus=list(gpus),
        data_roots=dict(planned.data_roots),
        readers={name: f"{code} {libraries}" for name, code in planned.readers.items()},
        uses=list(planned.uses),
        weights=str(planned.weights.resolve()) if planned.weights else None,
        store=str(options.out.resolve()),
        cache=str(default_cache_root().resolve()),
        timeout=options.timeout,
        force=options.force or bool(planned.wanted_artifacts),
        artifacts=list(planned.wanted_artifacts),
        warm_up=(_WARM_UP_S, planned.resources.cpus) if planned.resources.exclusive else (0.0, 0),
        environment=environment,
    )
