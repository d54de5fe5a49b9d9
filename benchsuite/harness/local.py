"""Runs on this machine: each in a process of its own, as many at once as CPUs, GPUs and memory allow."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import IO, Any

from benchsuite.core.errors import UserError
from benchsuite.harness.devices import Machine, Shares, Waiting, this_machine
from benchsuite.harness.environment import HEAVY_LIBRARIES
from benchsuite.harness.executor import Event, Options, Progress, Started, make_job
from benchsuite.harness.job import Report
from benchsuite.harness.plan import PlannedRun

_FIRST_OPTIMIZER_IMPORTS = "torch._dynamo"  # two seconds that every run would spend
_SHUTDOWN_S = 15.0


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


class LocalExecutor:
    """Carries runs on this machine through a fork server, its own or one that it is lent."""

    def __init__(self, machine: Machine | None = None, server: ForkServer | None = None) -> None:
        self._machine = machine or this_machine()
        self._server = server

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *details: object) -> None:
        """Leave: nothing is kept from one sweep to the next."""

    @property
    def machine(self) -> Machine:
        """See `Executor.machine`."""
        return self._machine

    def carry(self, runs: Mapping[int, PlannedRun], options: Options) -> Generator[Event, None, None]:
        """See `Executor.carry`."""
        with contextlib.ExitStack() as stack:
            server = self._server or stack.enter_context(ForkServer())
            try:
                yield from _Pool(runs, options, self._machine).run(server)
            except BaseException:
                server.close()
                raise


class _Pool:
    """The runs in flight, and what is left for others."""

    def __init__(self, runs: Mapping[int, PlannedRun], options: Options, machine: Machine) -> None:
        self.runs = runs
        self.options = options
        self.shares = Shares(machine, options.workers)
        self.waiting = Waiting({index: run.needs for index, run in runs.items()})
        self.in_flight: set[int] = set()

    def run(self, server: ForkServer) -> Iterator[Event]:
        """Carry all runs."""
        requires = {name for run in self.runs.values() for name in run.requires}
        preload = [name for name in HEAVY_LIBRARIES if name in requires or name == "numpy"]
        if "torch" in preload:
            preload.append(_FIRST_OPTIMIZER_IMPORTS)
        threads = next(iter(self.runs.values())).run.threads
        spawner = server.started(threads, preload)
        yield from self._start_what_fits(spawner)
        for message in _messages(spawner):
            if "progress" in message:
                yield Progress(int(message["id"]), *message["progress"])
                continue
            report = Report.model_validate(message)
            self.in_flight.discard(report.id)
            self.shares.give_back(report.id)
            yield report
            yield from self._start_what_fits(spawner)
            if not self.in_flight and not self.waiting:
                return
        raise UserError("the process that carries the runs ended unexpectedly: run the same command again to go on")

    def _start_what_fits(self, spawner: subprocess.Popen[bytes]) -> Iterator[Event]:
        while (index := self.waiting.next(self.shares)) is not None:
            self.in_flight.add(index)
            yield Started(index)
            job = make_job(index, self.runs[index], self.options, self.shares.gpus_of(index))
            _send(spawner, job.model_dump())


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
