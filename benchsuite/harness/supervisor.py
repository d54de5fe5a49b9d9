"""The process that watches one run.

It forks the worker, samples the memory of the whole process tree, enforces the timeout, ends every
descendant when the run is over (also those that detached themselves: on Linux it is their subreaper),
and writes the result. If its own parent dies, so does everything below it.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psutil
from pydantic import ValidationError

from benchsuite.core.result import FINISHED, Failure, Result
from benchsuite.harness.job import Job, Report
from benchsuite.harness.log import CappedLog
from benchsuite.harness.store import LOG_FILE, RESULT_FILE, Store, checkpoint_folder, write_atomic
from benchsuite.harness.worker import OutcomeFile, run_job

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.05
_LOOK_S = 0.2
_LOOK_COST = 50.0  # times what a look takes may pass until the next
_GRACE_S = 8.0  # for a training to keep its state
_OUTCOME_FILE = "work/outcome.json"


class Cancelled(BaseException):
    """The run was told to end: Ctrl-C, or its parent is gone."""


def supervise(job: Job, report_fd: int, parent: int) -> NoReturn:
    """Make one run in a child process, store its result, report, and exit.

    Runs in a process just forked by ``parent``.
    """
    os.setsid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, _cancel)
    report = Report(id=job.id, problem="cancelled")
    try:
        report = _run_locked(job, report_fd, parent)
    except Cancelled:
        pass
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        report = Report(id=job.id, problem=f"cannot store the result: {error.strerror or error}{where}")
    except Exception as error:  # a fault of the harness itself must still be told
        report = Report(id=job.id, problem=f"internal error: {type(error).__name__}: {error}")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _ask_to_end()
        end_descendants()
        _send(report_fd, report)
        os._exit(0)


def _cancel(signum: int, frame: FrameType | None) -> None:
    raise Cancelled


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _send(fd: int, report: Report) -> None:
    with contextlib.suppress(OSError):  # the parent is gone; the result, if any, is on the disk
        os.write(fd, report.model_dump_json().encode() + b"\n")


def _run_locked(job: Job, report_fd: int, parent: int) -> Report:
    store = Store(Path(job.store))
    run = job.identity.run
    with store.lock(run, poll=lambda: _check_parent(parent)):
        if not job.force and (before := store.finished(job.identity)):
            return Report(id=job.id, path=str(before.path), stored_before=True)
        attempt = store.new_attempt(run)
        result = _run_worker(job, attempt, report_fd, parent)
        path = attempt / RESULT_FILE
        write_atomic(path, result.model_dump_json(indent=1).encode() + b"\n")
        shutil.rmtree(attempt / "work", ignore_errors=True)
        if result.status in FINISHED:
            shutil.rmtree(checkpoint_folder(attempt, job.identity), ignore_errors=True)
        return Report(id=job.id, path=str(path), log=str(attempt / LOG_FILE))


def _check_parent(parent: int) -> None:
    if os.getppid() != parent:
        raise Cancelled


def _run_worker(job: Job, attempt: Path, report_fd: int, parent: int) -> Result:
    started, clock = datetime.datetime.now(datetime.timezone.utc), time.monotonic()
    supervisor = os.getpid()
    reader, writer = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(reader)
        _become_worker(job, attempt, report_fd, supervisor, writer)
    os.close(writer)
    log = CappedLog(attempt / LOG_FILE, reader)
    peak = _PeakMemory()
    status: int | None = None
    timed_out = False
    while status is None:
        peak.sample()
        time.sleep(_POLL_S)
        _check_parent(parent)
        pid, code = os.waitpid(worker, os.WNOHANG)
        if pid:
            status = code
        elif job.timeout is not None and time.monotonic() - clock > job.timeout:
            timed_out, status = True, 0
    if timed_out:
        _ask_to_end()
    left_behind = end_descendants()
    log.close()
    if left_behind and not timed_out:
        _append(attempt / LOG_FILE, f"the run left {left_behind} processes behind; they were ended")
    outcome = _timeout(job) if timed_out else _read_outcome(attempt / _OUTCOME_FILE, status)
    if outcome.error is not None and not outcome.error.traceback:
        _append(attempt / LOG_FILE, outcome.error.message)
    return Result(
        **dict(job.identity),
        peak_memory_mb=peak.megabytes,
        started=started.isoformat(timespec="seconds"),
        wall_s=round(time.monotonic() - clock, 3),
        environment=job.environment | ({"gpu": outcome.gpu} if outcome.gpu else {}),
        **outcome.model_dump(exclude={"gpu"}),
    )


def _become_worker(job: Job, attempt: Path, report_fd: int, supervisor: int, log: int) -> NoReturn:
    """Turn this forked process into the worker: own log, no input, dies with its supervisor."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(code)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.close(log)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(fd, mode, buffering=1) for fd, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        run_job(job, attempt, attempt / _OUTCOME_FILE, report_fd)
        code = 0
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _append(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(f"benchsuite: {text}\n")


def _timeout(job: Job) -> OutcomeFile:
    message = f"stopped after {job.timeout:g} s (--timeout)"
    return OutcomeFile(status="timeout", error=Failure(message=message))


def _read_outcome(path: Path, wait_status: int) -> OutcomeFile:
    try:
        return OutcomeFile.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        pass
    except ValidationError as error:
        return OutcomeFile(status="failed", error=Failure(message=f"unusable outcome: {error.errors()[0]['msg']}"))
    code = os.waitstatus_to_exitcode(wait_status)
    if code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
        how += " (out of memory?)" if code == -signal.SIGKILL else ""
    else:
        how = f"exited with code {code}"
    return OutcomeFile(status="failed", error=Failure(message=f"the process {how} without a result"))


class _PeakMemory:
    """Largest proportional set size of the process tree below this process, sampled.

    A page that several processes share counts once, in parts: the sum of resident sizes counts it in each of them.
    Looking costs tens of milliseconds where processes are large or many: it is done more seldom the longer the run
    lasts, until it takes a fiftieth of a CPU.
    """

    def __init__(self) -> None:
        self.megabytes = 0.0
        self._began = self._next = time.monotonic()

    def sample(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        cost = time.process_time()
        total = 0
        for process in psutil.Process().children(recursive=True):
            try:
                total += _proportional_size(process)
            except psutil.Error:
                continue
        self.megabytes = max(self.megabytes, total / 1e6)
        cost = time.process_time() - cost
        self._next = now + max(_LOOK_S, min(_LOOK_COST * cost, (now - self._began) / 20))


def _proportional_size(process: psutil.Process) -> int:
    """Return bytes: the proportional set size where the system tells it, else the resident size."""
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", memory.rss))


def _ask_to_end() -> None:
    """Send SIGTERM to every process below this one, and wait a little for those that keep a state first."""
    below = psutil.Process().children(recursive=True)
    for process in below:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(below, timeout=_GRACE_S)


def end_descendants() -> int:
    """Kill every process below this one; returns how many there were."""
    count = 0
    for _ in range(100):
        alive = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
        for process in alive:
            try:
                process.kill()
                count += 1
            except psutil.Error:
                continue
        while _reap():
            pass
        if not alive:
            return count
        time.sleep(0.02)
    return count


def _reap() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False
