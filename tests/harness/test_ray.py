"""The same sweeps on a real Ray cluster: two nodes on this machine, and kills of all that may end (minutes: --slow)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]

METHODS = """
import os, subprocess, sys, time
from pathlib import Path
from skeletons.graph import Distiller
from benchsuite.core import MethodSpec, Resources

class Looks(Distiller):
    def distil(self, features, teacher, ctx):
        ctx.artifact("seen.txt").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        return teacher - 0.5

class Lasts(Distiller):
    def distil(self, features, teacher, ctx):
        marks = Path(os.environ["MARK"])
        marks.mkdir(exist_ok=True)
        (marks / f"{ctx.draw_of('run')}-{os.getpid()}").touch()
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
        seconds = marks.with_name("seconds")  # nodes have an environment of their own
        time.sleep(float(seconds.read_text()) if seconds.exists() else 2)
        return teacher - 0.5

class Raises(Distiller):
    def distil(self, features, teacher, ctx):
        raise ValueError("the gradient exploded")

class Ends(Distiller):
    def distil(self, features, teacher, ctx):
        os._exit(3)

class Sleeps(Distiller):
    def distil(self, features, teacher, ctx):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
        time.sleep(300)

class Leaves(Distiller):
    def distil(self, features, teacher, ctx):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
        return teacher - 0.5

class Killed(Distiller):
    def distil(self, features, teacher, ctx):
        os.kill(os.getpid(), 9)

class NotANumber(Distiller):
    def distil(self, features, teacher, ctx):
        return "three"

def benchsuite_methods():
    rows = {
        "looks": Looks, "lasts": Lasts, "raises": Raises, "ends": Ends, "sleeps": Sleeps, "leaves": Leaves,
        "killed": Killed, "not-a-number": NotANumber,
    }
    needs = {"looks": Resources(gpus=0.5)}
    return [
        MethodSpec(n, "1", ("toy-graph",), f"carried:{c.__name__}", resources=needs.get(n, Resources()))
        for n, c in rows.items()
    ]
"""


class TwoNodes:
    """A Ray cluster of two nodes of one CPU and one declared GPU each, and the command line that uses it."""

    def __init__(self, cli: Any) -> None:
        from ray.cluster_utils import Cluster

        cli.install("carried", METHODS)
        cli.environment["MARK"] = str(cli.folder / "marks")
        before = dict(os.environ)
        os.environ.update(cli.full_environment())
        try:
            settings = {
                "health_check_initial_delay_ms": 500,
                "health_check_period_ms": 500,
                "health_check_timeout_ms": 1000,
                "health_check_failure_threshold": 2,
            }
            small = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 80 << 20}
            self.cluster = Cluster(True, head_node_args={**small, "_system_config": settings})
            self.second = self.cluster.add_node(**small)
            self.cluster.wait_for_nodes()
        finally:
            os.environ.clear()
            os.environ.update(before)
        self.cli = cli

    def command(self, *arguments: str) -> list[str]:
        return ["run", "--task", "toy-graph", *arguments, "--executor", "ray", "--address", self.cluster.address]

    def run_processes(self) -> list[psutil.Process]:
        """Return what runs on the nodes for the command: workers of Ray at work, fork servers, runs, their children."""
        ours = (" -m benchsuite.", "time.sleep(300)", "ray::carry")
        found = []
        for process in self.cli.processes():
            try:
                if any(word in " ".join(process.cmdline()) for word in ours):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def assert_nobody_left(self, within: float) -> None:
        deadline = time.monotonic() + within
        while (left := self.run_processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [process.cmdline() for process in left if process.is_running()] == []

    def started(self, count: int) -> None:
        marks = Path(self.cli.environment["MARK"])
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if marks.is_dir() and len(list(marks.iterdir())) >= count:
                return
            time.sleep(0.05)
        raise AssertionError("the runs did not start")

    def at_work(self, node: Any) -> list[psutil.Process]:
        """Wait until a node makes a run, and return all processes below it."""
        (raylet,) = node.all_processes["raylet"]
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            below = psutil.Process(raylet.process.pid).children(recursive=True)
            with contextlib.suppress(psutil.Error):
                if any("time.sleep(300)" in " ".join(process.cmdline()) for process in below):
                    return below
            time.sleep(0.1)
        raise AssertionError("no run began on the node")

    def assert_all_end(self, below: list[psutil.Process]) -> None:
        """Wait until these processes, which lay below what was killed, are gone."""
        assert below
        _, left = psutil.wait_procs(below, timeout=5)
        assert [p for p in left if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []

    def stored(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.cli.folder.glob("runs/**/result.json")}


@pytest.fixture
def two(cli: Any) -> Iterator[TwoNodes]:
    nodes = TwoNodes(cli)
    yield nodes
    nodes.cluster.shutdown()


def scores(results: Any) -> dict[tuple[str, ...], Any]:
    return {(r["run"]["method"], str(r["run"]["seeds"]), r["fingerprint"]): r["scores"] for r in results}


def test_a_sweep_gives_the_same_on_two_nodes(two: TwoNodes) -> None:
    """The same scores bit for bit, equal tables, and every status as at home."""
    names = ("toy-student", "raises", "ends", "sleeps", "leaves", "killed", "not-a-number")
    sweep = [part for name in names for part in ("--method", name)]
    sweep += ["--seeds", "3", "--timeout", "4", "--set", "toy-student.lr=0.1,0.2,0.3", "--json"]
    at_home = two.cli("run", "--task", "toy-graph", *sweep, "--workers", "2", "--out", "home", timeout=400)
    assert two.cli("cache", "clear").code == 0
    away = two.cli(*two.command(*sweep, "--out", "away"), timeout=400)
    assert (at_home.code, away.code) == (1, 1), away.err
    assert scores(at_home.json()) == scores(away.json())

    def kinds(done: Any) -> Any:
        return [(r["run"]["method"], r["status"], (r["error"] or {}).get("message")) for r in done.json()]

    assert kinds(at_home) == kinds(away)
    tables = [two.cli("leaderboard", "--results", folder, "--json").json() for folder in ("home", "away")]
    rows = [[(row["label"], row["rank"], row["scores"]["accuracy"]) for row in table[0]["rows"]] for table in tables]
    assert rows[0] == rows[1]
    two.assert_nobody_left(5)
    again = two.cli(*two.command("--method", "toy-student", "--seeds", "3", "--out", "away"), timeout=400)
    assert again.code == 0
    assert again.err.count("stored before") == 3  # the opponent's; the student ran with other settings only


def test_a_run_sees_what_ray_gave_it(two: TwoNodes) -> None:
    done = two.cli(*two.command("--method", "looks", "--device", "cuda", "--seeds", "3", "--json"), timeout=200)
    assert done.code == 0, done.err
    looks = [path.read_text() for path in two.cli.folder.glob("runs/*/*/looks/**/seen.txt")]
    assert looks == ["0", "0", "0"]
    two_gpus = two.cli(*two.command("--method", "looks", "--device", "cuda", "--gpus", "0"), timeout=200)
    assert two_gpus.code == 2
    assert "--gpus is for GPUs of this machine" in two_gpus.err


def sweep(two: TwoNodes) -> subprocess.Popen[str]:
    return two.cli.start(*two.command("--method", "lasts", "--no-reference", "--seeds", "6", "--json"))


def finish(two: TwoNodes, before: dict[Path, bytes]) -> None:
    """Give the command again: what is missing is made, once; nothing that was stored has changed."""
    done = two.cli(*two.command("--method", "lasts", "--no-reference", "--seeds", "6", "--json"), timeout=300)
    assert done.code == 0, done.err
    assert sorted(r["run"]["seeds"]["run"] for r in done.json()) == list(range(6))
    after = two.stored()
    assert {path: after[path] for path in before} == before
    assert len(after) == 6
    two.assert_nobody_left(5)


def test_kill_9_of_the_driver(two: TwoNodes) -> None:
    process = sweep(two)
    two.started(3)
    process.kill()
    process.communicate()
    two.assert_nobody_left(5)
    before = two.stored()
    assert len(before) < 6
    finish(two, before)


def test_ctrl_c_ends_all_by_force(two: TwoNodes) -> None:
    (two.cli.folder / "seconds").write_text("300")
    process = sweep(two)
    two.started(1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted with 6 runs to go" in err
    two.assert_nobody_left(5)


def test_kill_9_of_a_worker_of_ray(two: TwoNodes) -> None:
    process = sweep(two)
    two.started(2)
    worker = next(p for p in two.run_processes() if "ray::carry" in " ".join(p.cmdline()))
    below = worker.children(recursive=True)
    worker.kill()
    two.assert_all_end(below)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "unfinished runs are submitted again" in err
    assert len(json.loads(out)) == len(two.stored()) == 6
    finish(two, two.stored())


def test_a_node_that_is_killed(two: TwoNodes) -> None:
    (two.cli.folder / "seconds").write_text("6")
    process = sweep(two)
    two.started(1)
    below = two.at_work(two.second)
    two.cluster.remove_node(two.second, allow_graceful=False)
    two.assert_all_end(below)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "unfinished runs are submitted again" in err
    assert len(json.loads(out)) == len(two.stored()) == 6
    two.assert_nobody_left(5)


def test_a_cluster_that_is_not_there_is_told_in_one_line(cli: Any) -> None:
    done = cli("run", "--task", "toy-graph", "--executor", "ray", "--address", "127.0.0.1:1", timeout=300)
    assert done.code == 2
    assert "cannot use the Ray cluster at 127.0.0.1:1" in done.err
    assert "Traceback" not in done.err
