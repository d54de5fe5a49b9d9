"""What a result says of the machine: commit, versions, memory."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchsuite.harness import environment, store, supervisor
from benchsuite.harness.store import write_atomic


def test_the_commit_is_that_of_the_checkout_whatever_git_dir_says(tmp_path: Path, monkeypatch: Any) -> None:
    other = tmp_path / "other"
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", "init", "-q", other], check=True)
    subprocess.run(["git", "-C", other, *identity, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    before = environment._git(other, "rev-parse", "HEAD")
    assert len(before) == 40
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert environment._git(other, "rev-parse", "HEAD") == before


def test_every_installed_distribution_is_named_with_its_version() -> None:
    described = environment.describe(["numpy"])
    assert described["distributions"]["pluggy"] == metadata.version("pluggy")
    assert described["distributions"]["numpy"] == described["libraries"]["numpy"]
    assert "pluggy" not in described["libraries"]  # other versions of which do not make times incomparable


SHARED = """
import os, time
data = bytearray(100 * 2**20)
for _ in range(3):
    if os.fork() == 0:
        break
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system tells no proportional set sizes")
def test_pages_that_processes_share_count_once() -> None:
    script = (
        "import subprocess, sys\nfrom benchsuite.harness.supervisor import _PeakMemory\n"
        f"child = subprocess.Popen([sys.executable, '-c', {SHARED!r}], stdout=-1, start_new_session=True)\n"
        "for _ in range(4):\n    child.stdout.readline()\n"
        "peak = _PeakMemory()\npeak.sample()\nprint(peak.megabytes)\n"
        "import os, signal\nos.killpg(child.pid, signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 100 < float(done.stdout) < 200  # four processes of 110 MB each


def test_memory_is_looked_at_often_at_first_and_then_for_a_fiftieth_of_a_cpu(monkeypatch: Any) -> None:
    """A played clock: every look takes 40 ms of CPU, a run asks every 50 ms for ten minutes."""
    clock = {"wall": 100.0, "cpu": 0.0}
    looks: list[float] = []

    def look(process: Any) -> int:
        clock["cpu"] += 0.04
        looks.append(clock["wall"] - 100.0)
        return int(1e6 * len(looks))

    monkeypatch.setattr(
        supervisor,
        "time",
        SimpleNamespace(**{"monotonic": lambda: clock["wall"], "process_time": lambda: clock["cpu"]}),
    )
    children = SimpleNamespace(children=lambda recursive: ["a process"])
    monkeypatch.setattr(supervisor, "psutil", SimpleNamespace(Process=lambda: children, Error=OSError))
    monkeypatch.setattr(supervisor, "_proportional_size", look)
    peak = supervisor._PeakMemory()
    while clock["wall"] < 700.0:
        peak.sample()
        clock["wall"] += 0.05
    assert len([moment for moment in looks if moment < 1.0]) >= 4
    gaps = [later - earlier for earlier, later in pairwise(looks)]
    assert max(gaps) == pytest.approx(2.0, abs=0.06)  # fifty times what a look takes
    assert 0.04 * len(looks) < 600.0 / 40
    assert peak.megabytes == len(looks)


def test_two_hosts_with_one_process_number_do_not_share_a_temporary_file(tmp_path: Path, monkeypatch: Any) -> None:
    path, sync, inner = tmp_path / "result.json", os.fsync, []
    monkeypatch.setattr(os, "getpid", lambda: 7)

    def slow(descriptor: int) -> None:
        sync(descriptor)
        if not inner:
            inner.append(True)
            write_atomic(path, b"the other's")  # while ours is being written

    monkeypatch.setattr(store.os, "fsync", slow)
    write_atomic(path, b"ours")
    assert path.read_bytes() == b"ours"
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]
