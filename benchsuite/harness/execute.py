"""Make the runs of a plan, each in a process of its own, and collect their results."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from benchsuite.core.errors import StoreError, UserError
from benchsuite.core.registry import get_registry
from benchsuite.core.result import FINISHED, Result, RunSpec, parse_result
from benchsuite.harness.cache import default_cache_root
from benchsuite.harness.environment import HEAVY_LIBRARIES, describe
from benchsuite.harness.job import Job, Report
from benchsuite.harness.plan import Plan, PlannedRun
from benchsuite.harness.store import Store

_FIRST_OPTIMIZER_IMPORTS = "torch._dynamo"  # two seconds that every run would spend
_SHUTDOWN_S = 15.0


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what."""

    out: Path = Path("runs")
    workers: int = 1  # a run that needs several CPUs counts as so many
    timeout: float | None = None
    force: bool = False


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
    """What came of a plan, in its order."""

    results: list[Result] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    unstored: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def all_well(self) -> bool:
        """True if every run finished and is stored."""
        finished = all(result.status in FINISHED for result in self.results)
        return finished and not self.unstored and not self.interrupted


class ForkServer:
    """The process that forks one of its own for every run (`benchsuite.harness.spawner`), started when first needed.

    Several plans may share it: libraries that it has loaded are loaded once. On leaving, whatever the reason, it and
    all below it are ended. Not to be used by two threads at once.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._threads = 0

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def started(self, threads: int, libraries: Sequence[str]) -> subprocess.Popen[bytes]:
        """Return the process, with these libraries loaded and as many threads for each run."""
        if self._process is not None and (self._threads != threads or self._process.poll() is not None):
            self.close()
        if self._process is None:
            limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
            with tempfile.TemporaryFile() as errors:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "benchsuite.harness.spawner"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env={**os.environ, **limits},
                    start_new_session=True,
                )
            self._threads = threads
        _send(self._process, {"preload": list(libraries)})
        return self._process

    def close(self) -> None:
        """End it and every run in flight."""
        if self._process is not None:
            process, self._process = self._process, None
            _shut_down(process)


def execute(plan: Plan, options: Options, reporter: Reporter, server: ForkServer | None = None) -> Summary:
    """Run what is not yet measured; results already stored are returned as they are.

    Ctrl-C ends the runs in flight and returns what there is, marked ``interrupted``. Without a ``server`` the runs get
    one of their own.
    """
    if options.workers < 1:
        raise UserError(f"--workers {options.workers}: give 1 or more")
    if options.timeout is not None and options.timeout <= 0:
        raise UserError(f"--timeout {options.timeout:g}: give seconds above 0")
    store = Store(options.out)
    store.check_writable()
    done: dict[int, tuple[Result, Path]] = {}
    waiting: deque[int] = deque()
    for index, planned in enumerate(plan.runs):
        before = None if options.force else store.finished(planned.identity)
        if before is None or not _has_artifacts(before.result, planned.wanted_artifacts):
            waiting.append(index)
        else:
            done[index] = (before.result, before.path)
            reporter.finished(planned, before.result, stored_before=True)
    summary = Summary()
    if waiting:
        pool = _Pool(plan, options, reporter, waiting)
        try:
            with contextlib.ExitStack() as stack:
                pool.run(done, server or stack.enter_context(ForkServer()))
        except KeyboardInterrupt:
            summary.interrupted = True
        summary.unstored = pool.unstored
    for index in sorted(done):
        result, path = done[index]
        summary.results.append(result)
        summary.paths.append(path)
    return summary


def _has_artifacts(result: Result, wanted: tuple[str, ...]) -> bool:
    """Return whether a stored result kept what is asked for (``model``: a file named ``model.*``)."""
    kept = {Path(name).stem for name in result.artifacts}
    return kept.issuperset(wanted)


class _Pool:
    """The runs in flight, and the fork server that carries them."""

    def __init__(self, plan: Plan, options: Options, reporter: Reporter, waiting: deque[int]) -> None:
        self.plan = plan
        self.options = options
        self.reporter = reporter
        self.waiting = waiting
        self.in_flight: set[int] = set()
        self.unstored: list[str] = []

    def run(self, done: dict[int, tuple[Result, Path]], server: ForkServer) -> None:
        requires = [name for i in self.waiting for name in self.plan.runs[i].requires]
        preload = [name for name in HEAVY_LIBRARIES if name in requires or name == "numpy"]
        if "torch" in preload:
            preload.append(_FIRST_OPTIMIZER_IMPORTS)
        try:
            self._carry(server.started(self.plan.runs[self.waiting[0]].run.threads, preload), done)
        except BaseException:
            server.close()
            raise

    def _carry(self, spawner: subprocess.Popen[bytes], done: dict[int, tuple[Result, Path]]) -> None:
        self._start_what_fits(spawner)
        for message in _messages(spawner):
            index = int(message["id"])
            if "progress" in message:
                step, total, description = message["progress"]
                self.reporter.progress(self.plan.runs[index], step, total, description)
                continue
            self._finish(Report.model_validate(message), done)
            self._start_what_fits(spawner)
            if not self.in_flight and not self.waiting:
                return
        raise UserError("the process that carries the runs ended unexpectedly: run the same command again to go on")

    def _start_what_fits(self, spawner: subprocess.Popen[bytes]) -> None:
        while self.waiting:
            planned = self.plan.runs[self.waiting[0]]
            running = [self.plan.runs[i] for i in self.in_flight]
            alone = planned.exclusive or any(run.exclusive for run in running)
            busy = sum(run.cpus for run in running)
            if running and (alone or busy + planned.cpus > self.options.workers):
                return
            index = self.waiting.popleft()
            self.in_flight.add(index)
            _call_hook("benchsuite_run_started", self.reporter, run=planned.run)
            self.reporter.started(planned)
            _send(spawner, self._job(index).model_dump())

    def _job(self, index: int) -> Job:
        planned = self.plan.runs[index]
        environment = describe(planned.requires)
        libraries = sorted(environment["libraries"].items())
        return Job(
            id=index,
            identity=planned.identity,
            shared_digest=planned.shared_digest,
            device=planned.device,
            data_roots=dict(planned.data_roots),
            readers={name: f"{code} {libraries}" for name, code in planned.readers.items()},
            uses=list(planned.uses),
            weights=str(planned.weights.resolve()) if planned.weights else None,
            store=str(self.options.out.resolve()),
            cache=str(default_cache_root().resolve()),
            timeout=self.options.timeout,
            force=self.options.force or bool(planned.wanted_artifacts),
            artifacts=list(planned.wanted_artifacts),
            environment=environment,
        )

    def _finish(self, report: Report, done: dict[int, tuple[Result, Path]]) -> None:
        self.in_flight.discard(report.id)
        planned = self.plan.runs[report.id]
        if report.path is None:
            problem = f"{planned.label} {seed_text(planned.run)}: {report.problem}"
            self.unstored.append(problem)
            self.reporter.unstored(planned, problem)
            return
        path = Path(report.path)
        try:
            result = parse_result(path.read_bytes(), path)
        except (OSError, StoreError) as error:
            self.unstored.append(str(error))
            self.reporter.unstored(planned, str(error))
            return
        done[report.id] = (result, path)
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


def _shut_down(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        _pipe(process.stdin).close()
    try:
        process.wait(_SHUTDOWN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _pipe(process.stdout).close()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _send(process: subprocess.Popen[bytes], message: dict[str, object]) -> None:
    stream = _pipe(process.stdin)
    try:
        stream.write(json.dumps(message).encode() + b"\n")
        stream.flush()
    except BrokenPipeError:  # the reading side notices the end of the output and says so
        pass


def _messages(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the JSON lines that come back until the fork server ends."""
    descriptor = _pipe(process.stdout).fileno()
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if not selector.select(timeout=0.5):
                continue
            block = os.read(descriptor, 1 << 16)
            if not block:
                return
            *lines, pending = (pending + block).split(b"\n")
            for line in lines:
                yield json.loads(line)
