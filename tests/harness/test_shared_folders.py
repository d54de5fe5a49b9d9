"""Folders that nodes share without seeing each other's locks: two may do the same at once, and nothing breaks."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchsuite.harness import cache as caching
from benchsuite.harness.cache import Built, Cache, CachedFolder, Charge
from benchsuite.harness.checkpoint import Checkpoint, Position
from benchsuite.harness.store import Store, file_lock


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every lock be had at once, as where a file system keeps them from other nodes."""
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, operation: None)


def together(count: int, action: Callable[[int], Any]) -> list[Any]:
    """Return what ``action`` gives in as many threads at once."""
    found: list[Any] = [None] * count

    def call(number: int) -> None:
        try:
            found[number] = action(number)
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=call, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


@pytest.mark.usefixtures("without_locks")
def test_two_nodes_that_build_the_same_step_make_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = threading.local()
    monkeypatch.setattr(caching, "_host", lambda: hosts.name)
    meeting = threading.Barrier(3, timeout=30)

    def node(number: int) -> CachedFolder:
        hosts.name = f"host{number}"

        def build(folder: Path) -> Built:
            (folder / "first").write_text("1")
            meeting.wait()  # all build at once
            (folder / "second").write_text("2")
            return Built({"step": Charge(name="step", wall_s=1.0, cpu_s=1.0)})

        return Cache(tmp_path).get("step", {"n": 1}, build)

    found = together(3, node)
    assert all(isinstance(item, CachedFolder) for item in found), found
    assert len({item.path for item in found}) == 1
    assert sorted(path.name for path in found[0].path.iterdir()) == ["first", "second"]
    left = [path.name for path in (tmp_path / "step").iterdir() if path.is_dir()]
    assert left == [found[0].path.parent.name]


def test_a_build_that_breaks_off_is_cleared_by_its_own_host_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: Path) -> Built:
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    def whole(folder: Path) -> Built:
        assert not list(folder.iterdir())
        return Built({})

    for host in ("one", "two"):
        monkeypatch.setattr(caching, "_host", lambda host=host: host)
        with pytest.raises(KeyboardInterrupt):
            Cache(tmp_path).get("step", {}, broken)
    Cache(tmp_path).get("step", {}, whole)
    (left,) = (tmp_path / "step").glob("*.partial")
    assert ".one." in left.name  # its build may still be going on


@pytest.mark.usefixtures("without_locks")
def test_two_drivers_make_two_attempts(tmp_path: Path, make_result: Any) -> None:
    store, run = Store(tmp_path), make_result().run
    meeting = threading.Barrier(4, timeout=30)

    def driver(number: int) -> Path:
        with store.lock(run, poll=lambda: None):
            meeting.wait()
            return store.new_attempt(run)

    found = together(4, driver)
    assert sorted(path.name for path in found) == ["attempt-1", "attempt-2", "attempt-3", "attempt-4"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_used_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with file_lock(tmp_path / "lock"):
        pass
    number = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), file_lock(tmp_path / "lock"):
        pass


def test_a_state_is_kept_although_the_same_run_ended_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    checkpoint = Checkpoint(tmp_path / "kept" / "training-1.pt", {"weights": torch.zeros(2)})
    checkpoint.save(Position(1))
    mkdir, times = Path.mkdir, []

    def taken_away(self: Path, *arguments: Any, **more: Any) -> None:
        mkdir(self, *arguments, **more)
        times.append(self)
        if len(times) == 1:
            shutil.rmtree(self)

    monkeypatch.setattr(Path, "mkdir", taken_away)
    checkpoint.save(Position(2))
    assert checkpoint.restore().step == 2
    assert len(times) == 2
