"""The ranks' lives: start, failure, end."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchsuite.core.errors import ConfigError
from benchsuite.tasks.distributed_training.ranks import RankFailed, run_ranks


def work(rank: int, what: str, tell: Any) -> int:
    """Do as told on rank 1; rank 0 waits for it."""
    tell()
    if rank == 0:
        if what != "well":
            time.sleep(60)
        return 10
    if what == "raise":
        raise ZeroDivisionError("the gradient is gone")
    if what == "refuse":
        raise ConfigError("this world is too small: make it larger")
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(3)
    return 11


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def test_ranks_return_what_they_found_and_tell_of_their_steps(tmp_path: Path) -> None:
    told, started = [], []
    results = run_ranks(
        work,
        [(0, "well"), (1, "well")],
        tmp_path,
        on_step=lambda: told.append(1),
        on_start=lambda pids: started.extend(pids),
    )
    assert (results, len(told), len(started)) == ([10, 11], 1, 2)


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("raise", RankFailed, "^rank 1 failed: ZeroDivisionError: the gradient is gone$"),
        ("refuse", ConfigError, "^this world is too small: make it larger$"),
        ("kill", RankFailed, r"^rank 1 was killed by SIGKILL \(out of memory\?\)$"),
        ("exit", RankFailed, "^rank 1 exited with code 3 without a word$"),
    ],
)
def test_a_rank_that_fails_ends_all_within_seconds(tmp_path: Path, what: str, error: type, message: str) -> None:
    start, others = time.monotonic(), children()  # other tests of this process may have left a fork server
    with pytest.raises(error, match=message) as caught:
        run_ranks(work, [(0, what), (1, what)], tmp_path)
    assert time.monotonic() - start < 15
    assert children() - others == set()
    if what == "raise":
        assert "in work" in str(caught.value.__cause__)


def test_ranks_die_with_the_process_that_started_them(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            run_ranks(
                work,
                [(0, "kill-parent"), (0, "kill-parent")],
                tmp_path,
                on_start=lambda pids: os.write(writing, json.dumps(list(pids)).encode()) and None,
            )
        finally:
            os._exit(0)
    ranks = json.loads(os.read(reading, 1000))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 15
    while any(alive(pid) for pid in ranks) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in ranks)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
