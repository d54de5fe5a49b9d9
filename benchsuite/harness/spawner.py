"""The fork server: loads the heavy libraries once, then forks a supervisor for every run.

Started as ``python -m benchsuite.harness.spawner``. Reads one JSON object a line on standard input, and
writes reports (and the progress of runs) as JSON lines on standard output. End of input means that the
parent is gone or done: every run below is ended.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import time
from collections.abc import Iterator
from types import FrameType

from benchsuite.harness.job import Job
from benchsuite.harness.supervisor import end_descendants, supervise

_GRACE_S = 10.0


class _Stop(Exception):
    """The parent asked to stop."""


def main() -> None:
    """Serve until the input ends."""
    report_fd = os.dup(1)
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    supervisors: dict[int, int] = {}
    with contextlib.suppress(_Stop):
        for message in _messages(supervisors):
            if "preload" in message:
                _preload(message["preload"])
            else:
                job = Job.model_validate(message)
                supervisors[_fork(job, report_fd)] = job.id
    _end_all(supervisors)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise _Stop


def _messages(supervisors: dict[int, int]) -> Iterator[dict[str, object]]:
    pending = b""
    while True:
        _reap(supervisors)
        ready, _, _ = select.select([0], [], [], 0.2)
        if not ready:
            continue
        block = os.read(0, 1 << 16)
        if not block:
            return
        *lines, pending = (pending + block).split(b"\n")
        yield from (json.loads(line) for line in lines if line)


def _preload(modules: object) -> None:
    for name in modules if isinstance(modules, list) else ():
        with contextlib.suppress(Exception):  # the run that needs it will report the failure
            importlib.import_module(name)


def _fork(job: Job, report_fd: int) -> int:
    spawner = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(0)
        os.open(os.devnull, os.O_RDONLY)
        supervise(job, report_fd, spawner)
    return pid


def _reap(supervisors: dict[int, int]) -> None:
    while supervisors:
        pid, _ = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        supervisors.pop(pid, None)


def _end_all(supervisors: dict[int, int]) -> None:
    for pid in supervisors:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    while supervisors and time.monotonic() < deadline:
        _reap(supervisors)
        time.sleep(0.02)
    end_descendants()


if __name__ == "__main__":
    main()
