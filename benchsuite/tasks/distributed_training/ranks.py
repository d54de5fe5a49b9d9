"""Run one function on several ranks: real processes that start, end and fail together.

The first rank that fails ends the others at once, and its error is the one that is raised; a rank that
was killed counts before those that only noticed its absence. Ranks die with the process that started
them. They meet through a file, so no port is taken.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchsuite.core.errors import UserError

_PR_SET_PDEATHSIG = 1
_SETTLE_S = 1.0  # how long after one rank's end others may report an earlier error of their own


class RankFailed(RuntimeError):
    """A rank raised, or was killed; the cause holds its traceback."""


class _TracebackOfRank(Exception):
    """The text of a traceback in another process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class _Failure:
    """What a failed rank leaves behind: when (monotonic seconds), what, its traceback, a mistake of the user's."""

    moment: float
    summary: str
    text: str
    user_error: UserError | None


def run_ranks(
    work: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    folder: Path,
    fork: bool = True,
    on_step: Callable[[], object] = lambda: None,
    on_start: Callable[[Sequence[int]], object] = lambda pids: None,
) -> list[Any]:
    """Call ``work(*arguments[r], tell)`` in one process a rank and return what the ranks returned.

    Parameters
    ----------
    work
        A module-level function. Its last argument, ``tell``, is called without arguments after each step.
    arguments
        One tuple a rank; they must pickle.
    folder
        Where the ranks leave what they return, pickled: a folder that only this run writes to.
    fork
        Copy this process (fast: libraries are loaded). False starts afresh, which CUDA needs.
    on_step
        Called here whenever rank 0 told of a step.
    on_start
        Called here with the process ids as soon as all ranks exist.

    Raises
    ------
    UserError
        If that is what the first failing rank raised.
    RankFailed
        For every other failure.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context: Any = multiprocessing.get_context("fork" if fork else "spawn")
    listener, speaker = context.Pipe(duplex=False)
    processes: list[BaseProcess] = []
    try:
        for rank, values in enumerate(arguments):
            process = context.Process(
                target=_rank_main,
                args=(work, values, _file(folder, rank), speaker if rank == 0 else None, os.getpid()),
                name=f"rank-{rank}",
                daemon=True,
            )
            process.start()
            processes.append(process)
        speaker.close()
        on_start([process.pid or 0 for process in processes])
        _watch(processes, listener, on_step)
        if any(process.exitcode for process in processes):
            raise _first_failure(processes, folder)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
            process.close()
        listener.close()
    return [pickle.loads(_file(folder, rank).read_bytes()) for rank in range(len(arguments))]


def _file(folder: Path, rank: int) -> Path:
    return folder / f"returned-{rank}.pickle"


def _watch(processes: Sequence[BaseProcess], listener: Connection, on_step: Callable[[], object]) -> None:
    """Return when all ranks are done, or shortly after the first one failed."""
    ends: dict[Any, BaseProcess] = {process.sentinel: process for process in processes}
    waiting: list[Any] = [listener, *ends]
    give_up: float | None = None
    while any(process.exitcode is None for process in processes):
        patience = None if give_up is None else max(0.0, give_up - time.monotonic())
        for ready in wait(waiting, patience):
            if ready is listener:
                try:
                    listener.recv_bytes()
                    on_step()
                except EOFError:
                    waiting.remove(listener)
            else:
                ends[ready].join()  # it is ending, but may not have ended yet
                waiting.remove(ready)
        if give_up is None and any(process.exitcode for process in processes):
            give_up = time.monotonic() + _SETTLE_S
        if give_up is not None and time.monotonic() >= give_up:
            return


def _first_failure(processes: Sequence[BaseProcess], folder: Path) -> Exception:
    """Return the error to raise: of a killed rank, else of the rank that raised first."""
    failures: dict[int, _Failure] = {}
    for rank, process in enumerate(processes):
        if not process.exitcode:
            continue
        with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError):
            failures[rank] = pickle.loads(_file(folder, rank).read_bytes())
        if rank not in failures:
            return RankFailed(f"rank {rank} {_how_it_ended(process.exitcode)}")
    rank = min(failures, key=lambda r: failures[r].moment)
    failure = failures[rank]
    error = failure.user_error or RankFailed(f"rank {rank} failed: {failure.summary}")
    error.__cause__ = _TracebackOfRank(failure.text)
    return error


def _how_it_ended(code: int) -> str:
    if code < 0:
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{hint}"
    return f"exited with code {code} without a word"


def _rank_main(
    work: Callable[..., Any], values: tuple[Any, ...], file: Path, speaker: Connection | None, parent: int
) -> None:
    """Be a rank: do the work, leave its result or its error, and go without waiting for anybody."""
    _die_with(parent)

    def tell() -> None:
        if speaker is not None:
            speaker.send_bytes(b"step")

    code = 0
    try:
        result = work(*values, tell)
    except BaseException as error:
        user_error = error if isinstance(error, UserError) else None
        summary = "".join(traceback.format_exception_only(error)).strip()
        result = _Failure(time.monotonic(), summary, traceback.format_exc(), user_error)
        traceback.print_exc()
        code = 1
    file.write_bytes(pickle.dumps(result))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # destructors of half-dead process groups may wait for ever


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
