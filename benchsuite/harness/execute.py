"""Make the runs of a plan that are not measured yet, and collect the results of all."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchsuite.core.errors import ConfigError, StoreError, UserError, did_you_mean
from benchsuite.core.registry import get_registry
from benchsuite.core.result import FINISHED, Result, RunSpec, parse_result
from benchsuite.harness.devices import this_machine
from benchsuite.harness.executor import Event, Executor, Note, Options, Progress, Started
from benchsuite.harness.job import Report
from benchsuite.harness.local import LocalExecutor
from benchsuite.harness.plan import Plan, PlannedRun
from benchsuite.harness.store import Store


class Reporter(Protocol):
    """Who is told what happens; the command line shows it."""

    def started(self, run: PlannedRun) -> None:
        """A run begins."""

    def progress(self, run: PlannedRun, done: int, total: int, description: str) -> None:
        """A loop inside a run has come so far."""

    def finished(self, run: PlannedRun, result: Result, stored_before: bool) -> None:
        """A run has a result; ``stored_before`` if it had it already."""

    def unstored(self, run: PlannedRun, problem: str) -> None:
        """A run ended and its result could not be stored."""

    def note(self, text: str) -> None:
        """Anything else worth a line."""


class SilentReporter:
    """Tells nobody."""

    def started(self, run: PlannedRun) -> None:
        """Do nothing."""

    def progress(self, run: PlannedRun, done: int, total: int, description: str) -> None:
        """Do nothing."""

    def finished(self, run: PlannedRun, result: Result, stored_before: bool) -> None:
        """Do nothing."""

    def unstored(self, run: PlannedRun, problem: str) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


@dataclass
class Summary:
    """What came of a plan, in its order. ``lost`` runs ended with their node, as often as they were submitted."""

    results: list[Result] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    unstored: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def all_well(self) -> bool:
        """True if every run finished and is stored."""
        finished = all(result.status in FINISHED for result in self.results)
        return finished and not self.unstored and not self.lost and not self.interrupted


EXECUTORS = ("local", "ray")


def open_executor(
    name: str = "local", *, address: str | None = None, workers: int = 1, gpus: str = "", resubmit: int = 2
) -> Executor:
    """Return the executor of a name, ready to carry runs, to be left as a context.

    Parameters
    ----------
    name
        ``local`` or ``ray``.
    address, resubmit
        See `RayExecutor`.
    workers
        CPUs of a Ray cluster that is started for this alone.
    gpus
        See `this_machine`.

    Raises
    ------
    ConfigError
        For another name, or an option of the other executor.
    MissingDependency
        If ray is asked for and not installed.
    """
    if name not in EXECUTORS:
        raise ConfigError(f"--executor {name!r}{did_you_mean(name, EXECUTORS)}")
    if resubmit < 0:
        raise ConfigError(f"--resubmit {resubmit}: give 0 or more")
    if name == "local":
        if address:
            raise ConfigError(f"--address {address} is of a cluster: give --executor ray")
        return LocalExecutor(this_machine(gpus))
    from benchsuite.harness.cluster import RayExecutor

    return RayExecutor(address, workers, gpus, resubmit)


def execute(plan: Plan, options: Options, reporter: Reporter, executor: Executor | None = None) -> Summary:
    """Run what is not yet measured; results already stored are returned as they are.

    Ctrl-C ends the runs in flight and returns what there is, marked ``interrupted``. Without an ``executor`` the runs
    are made on this machine.
    """
    if options.workers < 1:
        raise UserError(f"--workers {options.workers}: give 1 or more")
    if options.timeout is not None and options.timeout <= 0:
        raise UserError(f"--timeout {options.timeout:g}: give seconds above 0")
    store = Store(options.out)
    store.check_writable()
    sweep = _Sweep(plan, reporter)
    waiting: dict[int, PlannedRun] = {}
    for index, planned in enumerate(plan.runs):
        before = None if options.force else store.finished(planned.identity)
        if before is None or not _has_artifacts(before.result, planned.wanted_artifacts):
            waiting[index] = planned
        else:
            sweep.done[index] = (before.result, before.path)
            reporter.finished(planned, before.result, stored_before=True)
    interrupted = False
    if waiting:
        try:
            with contextlib.closing((executor or LocalExecutor()).carry(waiting, options)) as events:
                for event in events:
                    sweep.take(event)
        except KeyboardInterrupt:
            interrupted = True
    results = [sweep.done[index] for index in sorted(sweep.done)]
    return Summary(
        [result for result, _ in results], [path for _, path in results], sweep.unstored, sweep.lost, interrupted
    )


def _has_artifacts(result: Result, wanted: tuple[str, ...]) -> bool:
    """Return whether a stored result kept what is asked for (``model``: a file named ``model.*``)."""
    kept = {Path(name).stem for name in result.artifacts}
    return kept.issuperset(wanted)


class _Sweep:
    """What is known of the runs of a plan; tells the plugins and the user."""

    def __init__(self, plan: Plan, reporter: Reporter) -> None:
        self.plan = plan
        self.reporter = reporter
        self.done: dict[int, tuple[Result, Path]] = {}
        self.unstored: list[str] = []
        self.lost: list[str] = []

    def take(self, event: Event) -> None:
        """Take note of what happened."""
        if isinstance(event, Note):
            self.reporter.note(event.text)
            return
        planned = self.plan.runs[event.id]
        if isinstance(event, Started):
            _call_hook("benchsuite_run_started", self.reporter, run=planned.run)
            self.reporter.started(planned)
        elif isinstance(event, Progress):
            self.reporter.progress(planned, event.done, event.total, event.description)
        else:
            self._finish(planned, event)

    def _finish(self, planned: PlannedRun, report: Report) -> None:
        if report.path is None:
            problem = f"{planned.label} {seed_text(planned.run)}: {report.problem}"
            (self.lost if report.lost else self.unstored).append(problem)
            self.reporter.unstored(planned, problem)
            return
        path = Path(report.path)
        try:
            result = parse_result(path.read_bytes(), path)
        except (OSError, StoreError) as error:
            self.unstored.append(str(error))
            self.reporter.unstored(planned, str(error))
            return
        self.done[report.id] = (result, path)
        _call_hook("benchsuite_run_finished", self.reporter, result=result)
        self.reporter.finished(planned, result, report.stored_before)


def seed_text(run: RunSpec) -> str:
    """Return the seeds of a run for a line of text: ``seed 0`` or ``base 0, shots 3``."""
    if len(run.seeds) == 1:
        return f"seed {next(iter(run.seeds.values()))}"
    return ", ".join(f"{axis} {value}" for axis, value in run.seeds.items())


def _call_hook(name: str, reporter: Reporter, **arguments: object) -> None:
    try:
        getattr(get_registry().manager.hook, name)(**arguments)
    except Exception as error:  # a plugin that only watches must not stop the sweep
        reporter.note(f"a plugin's {name} raised {type(error).__name__}: {error}")
