"""The harness under fire: real signals, real limits, real full disks, through the command line.

Every fault on this machine and on a Ray cluster that the command starts (where ray is installed, `--slow`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FAULTY = """
import os, resource, subprocess, sys, time
from pathlib import Path
from skeletons.graph import Distiller
from benchsuite.core import MethodSpec

class Raises(Distiller):
    def distil(self, features, teacher, ctx):
        raise ValueError("the gradient\\nexploded")

class Exits(Distiller):
    def distil(self, features, teacher, ctx):
        os._exit(3)

class Hungry(Distiller):
    def distil(self, features, teacher, ctx):
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        blocks = []
        while True:
            blocks.append(bytearray(64 << 20))

class Sleeps(Distiller):
    def distil(self, features, teacher, ctx):
        Path(os.environ["MARK"]).mkdir(exist_ok=True)
        Path(os.environ["MARK"], f"{os.getpid()}").touch()
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
        time.sleep(300)

class Leaves(Distiller):
    def distil(self, features, teacher, ctx):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
        return teacher - 0.5

class Slow(Distiller):
    def distil(self, features, teacher, ctx):
        Path(os.environ["MARK"]).mkdir(exist_ok=True)
        for step in range(10):
            time.sleep(0.1)
        Path(os.environ["MARK"], f"done-{os.getpid()}").touch()
        return teacher - 0.5

class NotANumber(Distiller):
    def distil(self, features, teacher, ctx):
        return "three"

class Killed(Distiller):
    def distil(self, features, teacher, ctx):
        os.kill(os.getpid(), 9)

def benchsuite_methods():
    names = ["raises", "exits", "hungry", "sleeps", "leaves", "slow", "not-a-number", "killed"]
    classes = ["Raises", "Exits", "Hungry", "Sleeps", "Leaves", "Slow", "NotANumber", "Killed"]
    return [MethodSpec(n, "1", ("toy-graph",), f"faulty:{c}") for n, c in zip(names, classes)]
"""


@pytest.fixture
def faulty(carried: Any) -> Any:
    """The command line with misbehaving methods, and a mark on every process that it starts."""
    carried.install("faulty", FAULTY)
    carried.environment["MARK"] = str(carried.folder / "marks")
    return carried


def wait_for_mark(cli: Any, count: int = 1) -> None:
    deadline = time.monotonic() + 60
    marks = Path(cli.environment["MARK"])
    while time.monotonic() < deadline:
        if marks.is_dir() and len(list(marks.iterdir())) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("the run did not start")


def statuses(done: Any) -> dict[str, str]:
    return {r["run"]["method"]: r["status"] for r in json.loads(done.out)}


def test_one_bad_method_never_harms_the_others(faulty: Any) -> None:
    names = ["raises", "exits", "sleeps", "leaves", "not-a-number", "killed", "toy-student"]
    arguments = [part for name in names for part in ("--method", name)]
    done = faulty("run", "--task", "toy-graph", *arguments, "--timeout", "3", "--workers", "2", "--json")
    assert done.code == 1
    assert statuses(done) == {
        "raises": "failed",
        "exits": "failed",
        "sleeps": "timeout",
        "leaves": "ok",
        "not-a-number": "failed",
        "killed": "failed",
        "toy-student": "ok",
        "toy-copy": "ok",
    }
    errors = {r["run"]["method"]: (r["error"] or {}).get("message") for r in json.loads(done.out)}
    assert errors["raises"] == "ValueError: the gradient exploded"
    assert errors["exits"] == "the process exited with code 3 without a result"
    assert errors["killed"] == "the process was killed by SIGKILL (out of memory?) without a result"
    assert errors["sleeps"] == "stopped after 3 s (--timeout)"
    for name in ("raises", "exits", "sleeps", "killed"):
        (line,) = [text for text in done.err.splitlines() if text.startswith(f"  {name} ")]
        assert Path(faulty.folder / line.rpartition("log: ")[2]).is_file()
    faulty.assert_nobody_left()
    log = next(faulty.folder.glob("runs/*/*/leaves/*/attempt-1/log.txt"))
    assert "left 1 processes behind" in log.read_text()

    again = faulty("run", "--task", "toy-graph", "--method", "raises", "--method", "toy-student")
    assert again.err.count("stored before") == 2
    attempts = sorted(p.parent.name for p in faulty.folder.glob("runs/*/*/raises/*/attempt-*/result.json"))
    assert attempts == ["attempt-1", "attempt-2"]
    traceback = json.loads(next(faulty.folder.glob("runs/*/*/raises/*/attempt-1/result.json")).read_text())["error"]
    assert str(faulty.folder) not in traceback["traceback"]


def test_a_truncated_run_that_failed_has_no_scores_to_print(faulty: Any) -> None:
    done = faulty("run", "--task", "toy-graph", "--method", "raises", "--max-steps", "2")
    assert done.code == 1
    assert "toy-copy (truncated, not on a leaderboard): " in done.out
    assert "raises (" not in done.out


def test_memory_that_runs_out_fails_the_run_only(faulty: Any) -> None:
    done = faulty("run", "--task", "toy-graph", "--method", "hungry", "--json")
    assert done.code == 1
    results = {r["run"]["method"]: r for r in done.json()}
    assert results["hungry"]["status"] == "failed"
    assert results["hungry"]["error"]["message"] == "MemoryError"
    assert results["toy-copy"]["status"] == "ok"
    faulty.assert_nobody_left()


def start_sweep(cli: Any, method: str, *more: str) -> subprocess.Popen[str]:
    command = ["run", "--task", "toy-graph", "--method", method, "--method", "toy-student", *more]
    process: subprocess.Popen[str] = cli.start(*cli.carried(*command))
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_everything_and_the_next_call_goes_on(faulty: Any, number: signal.Signals) -> None:
    process = start_sweep(faulty, "sleeps")
    wait_for_mark(faulty)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted with 3 runs to go: the same command goes on from here" in err
    assert "Traceback" not in err
    faulty.assert_nobody_left()
    done = faulty("run", "--task", "toy-graph", "--method", "toy-student")
    assert done.code == 0


def test_kill_9_of_the_parent_leaves_no_process_and_loses_nothing(faulty: Any) -> None:
    process = start_sweep(faulty, "slow", "--seeds", "3")
    wait_for_mark(faulty, count=2)
    process.kill()
    process.communicate(timeout=30)
    faulty.assert_nobody_left()
    stored = {path: path.read_bytes() for path in faulty.folder.glob("runs/**/result.json")}
    assert len(stored) >= 1
    done = faulty("run", "--task", "toy-graph", "--method", "slow", "--method", "toy-student", "--seeds", "3", "--json")
    assert done.code == 0
    assert len(done.json()) == 9
    assert done.err.count("stored before") == len(stored)
    assert all(path.read_bytes() == content for path, content in stored.items())


def test_two_processes_with_the_same_sweep_measure_each_run_once(faulty: Any) -> None:
    first, second = (start_sweep(faulty, "slow", "--json") for _ in range(2))
    outputs = [process.communicate(timeout=120) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert json.loads(outputs[0][0]) == json.loads(outputs[1][0])
    assert len(list(faulty.folder.glob("runs/**/result.json"))) == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB, where mounting is permitted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as stream:
        while True:
            stream.write(b"x" * 512)


def test_a_full_disk_is_told_and_the_run_is_made_again_when_there_is_room(faulty: Any, small_disk: Path) -> None:
    out = small_disk / "runs"
    assert faulty("run", "--task", "toy-graph", "--method", "toy-copy", "--out", out).code == 0
    before = {path: path.read_bytes() for path in out.glob("**/result.json")}
    filler = small_disk / "filler"
    fill(filler)
    done = faulty("run", "--task", "toy-graph", "--method", "toy-student", "--out", out)
    assert done.code in (1, 2)
    assert "No space left on device" in done.err
    assert "Traceback" not in done.err
    assert {path: path.read_bytes() for path in out.glob("**/result.json")} == before
    filler.unlink()
    done = faulty("run", "--task", "toy-graph", "--method", "toy-student", "--out", out)
    assert done.code == 0
    assert done.err.count("stored before") == 1
    faulty.assert_nobody_left()


def test_a_read_only_folder_is_told_before_anything_runs(faulty: Any, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = faulty("run", "--task", "toy-graph", "--out", small_disk / "runs")
    assert done.code == 2
    assert "Read-only file system" in done.err
    assert "choose another folder with --out" in done.err
    board = faulty("run", "--task", "toy-graph", "--method", "toy-copy")
    assert board.code == 0
    done = faulty("leaderboard", "--out", small_disk / "tables")
    assert done.code == 2
    assert "cannot write the tables" in done.err
    faulty.environment["BENCHSUITE_CACHE"] = str(small_disk / "cache")
    done = faulty("run", "--task", "toy-graph", "--method", "toy-copy", "--force")
    assert done.code == 1
    assert "set BENCHSUITE_CACHE to another folder" in done.err


@pytest.mark.parametrize("damage", ["truncate", "future", "empty", "binary"])
def test_a_damaged_result_is_named_and_measured_again(faulty: Any, damage: str) -> None:
    command = ("run", "--task", "toy-graph", "--method", "toy-copy")
    faulty(*command)
    path = next(faulty.folder.glob("runs/**/result.json"))
    text = path.read_text()
    if damage == "truncate":
        path.write_text(text[: len(text) // 2])
    elif damage == "future":
        path.write_text(text.replace('"schema_version": 1', '"schema_version": 2'))
    else:
        path.write_bytes(b"" if damage == "empty" else b"\x00\xff\xfe")
    content = path.read_bytes()
    done = faulty(*command)
    assert done.code == 0
    assert path.name in done.err
    assert "stored before" not in done.err
    assert path.read_bytes() == content
    assert (path.parent.parent / "attempt-2/result.json").is_file()
    assert "Traceback" not in done.err
    if damage == "future":
        assert "result schema 2 is newer" in done.err
    assert faulty("leaderboard").code == 0


def test_a_method_whose_module_cannot_be_imported_is_named(cli: Any) -> None:
    cli.install(
        "halfway",
        "from benchsuite.core import MethodSpec\n"
        "def benchsuite_methods():\n    return [MethodSpec('halfway', '1', ('toy-graph',), 'halfway_broken:X')]",
    )
    (cli.plugins / "halfway_broken.py").write_text("import no_such_module")
    done = cli("run", "--task", "toy-graph")
    assert done.code == 1
    assert "left out: toy-graph halfway: cannot be imported: ModuleNotFoundError" in done.err
    assert len(list(cli.folder.glob("runs/**/result.json"))) == 2


def test_progress_goes_to_a_terminal_and_lines_to_a_pipe(faulty: Any) -> None:
    script = shutil.which("script")
    if script is None:
        pytest.skip("the command 'script' is not here")
    arguments = faulty.carried("run", "--task", "toy-graph", "--method", "slow", "--no-reference")
    command = shlex.join([sys.executable, "-m", "benchsuite.cli", *map(str, arguments)])
    done = subprocess.run(
        [script, "-qec", command, "/dev/null"],
        cwd=faulty.folder,
        env={**faulty.full_environment(), "TERM": "xterm", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0
    assert "toy-graph slow run 0" in done.stdout
    assert "━" in done.stdout
