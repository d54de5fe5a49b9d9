"""Code that others wrote: what it leaves, prints, raises and returns harms nobody and is told in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchsuite.harness.log import HEAD_BYTES, TAIL_BYTES

METHODS = """
from benchsuite.core import MethodSpec, hookimpl

NAMES = {"writer": "Writer", "talker": "Talker", "quitter": "Quitter", "dier": "Dier", "absent": "Absent"}

@hookimpl
def benchsuite_methods():
    return [MethodSpec(name, "1", ("toy-graph",), f"strange_methods:{cls}") for name, cls in NAMES.items()]
"""
CODE = """
import os, sys
from pathlib import Path
from skeletons.graph import Distiller

class Writer(Distiller):
    def distil(self, features, teacher, ctx):
        Path("checkpoints").mkdir()
        Path("checkpoints/last.bin").write_bytes(b"x" * 100)
        assert [path.name for path in Path().iterdir()] == ["checkpoints"]
        return teacher - 0.5

class Talker(Distiller):
    def distil(self, features, teacher, ctx):
        print("the first line")
        for _ in range(120):
            os.write(1, b"." * 99_999 + b"\\n")
        print("the last line")
        return teacher - 0.5

class Quitter(Distiller):
    def distil(self, features, teacher, ctx):
        sys.exit("enough")

class Dier(Distiller):
    def distil(self, features, teacher, ctx):
        os._exit(4)
"""
TASK = """
import numpy as np
from benchsuite.core import DatasetSpec, MethodSpec, TaskSpec, hookimpl
from benchsuite.core import Method, Metric, Outcome, Ranking, Task

CELLS = {"integer": np.int64(3), "array": np.zeros(2), "nan": float("nan"), "truth": np.bool_(True)}

class Plain(Method):
    pass

def load(root, draw):
    return np.zeros(3)

class Odd(Task):
    name, version = "odd", "1"
    metrics = (Metric("accuracy", "max"),)
    ranking = Ranking("accuracy")
    reference = "plain"
    data_type = "odd_task:Zeros"
    method_type = Plain
    default_data = "odd-zeros"

    def evaluate(self, method, data, protocol, ctx):
        kind = method.name.removeprefix("plain-")
        if kind == "count":
            return Outcome({"accuracy": 1.0}, counts={"nodes": np.int64(3)})
        if kind == "score":
            return Outcome({"accuracy": "high"})
        if kind == "parameters":
            return Outcome({"accuracy": 1.0}, parameters=2.5)
        return Outcome({"accuracy": 1.0}, tables={"rows": [{"fine": 1}, {"cell": CELLS[kind]}]})

    def score(self, path, data, protocol):
        print("a judge speaks")
        if "wrong" in path.read_text():
            return Outcome({"accuracy": 7.0})
        raise KeyError(path.read_text().strip())

@hookimpl
def benchsuite_tasks():
    return [TaskSpec("odd", "an odd task", "odd_task:Odd")]

@hookimpl
def benchsuite_datasets():
    return [DatasetSpec("odd-zeros", "1", "odd_task:Zeros", "odd_task:load", embedded=True)]

@hookimpl
def benchsuite_methods():
    kinds = [*CELLS, "count", "score", "parameters"]
    return [MethodSpec(f"plain-{kind}", "1", ("odd",), "odd_task:Plain") for kind in kinds]
"""
READER = """
from benchsuite.core import DatasetSpec, hookimpl
from skeletons.signal import load_recorded

def load(root, draw):
    with (root / "readings").open("a") as file:
        file.write(f"{draw}\\n")
    return load_recorded(root, draw)

def load_open(root, draw):
    beats = load(root, draw)
    beats.records["open"] = (number for number in [])
    beats.records.pop("open") if draw > 90 else None
    return type("Local", (), {"records": {k: v for k, v in beats.records.items() if k != "open"}})()

@hookimpl
def benchsuite_datasets():
    facts = dict(homepage="https://example.org", files=("beats/*.txt",), layout="beats/RECORD.txt")
    return [
        DatasetSpec("counted", "1", "skeletons.signal:Beats", "counted:load", **facts),
        DatasetSpec("counted-open", "1", "skeletons.signal:Beats", "counted:load_open", **facts),
    ]
"""


@pytest.fixture
def strange(carried: Any) -> Any:
    carried.install("strange", METHODS)
    (carried.plugins / "strange_methods.py").write_text(CODE)
    return carried


def run(cli: Any, *methods: str) -> Any:
    named = [part for method in methods for part in ("--method", method)]
    return cli("run", "--task", "toy-graph", *named, "--no-reference", "--json")


def test_a_run_stands_in_a_folder_of_its_own_that_goes_with_it(strange: Any) -> None:
    done = strange(
        "run", "--task", "toy-graph", "--method", "writer", "--no-reference", "--seeds", "2", "--workers", "2"
    )
    assert done.code == 0, done.err
    assert [path.name for path in strange.folder.iterdir() if path.name == "checkpoints"] == []
    assert list(strange.folder.rglob("last.bin")) == []


def test_a_log_keeps_the_beginning_and_the_end_of_what_is_printed(strange: Any) -> None:
    done = run(strange, "talker")
    assert done.code == 0, done.err
    assert len(done.json()) == 1
    (log,) = strange.folder.glob("runs/**/log.txt")
    text = log.read_text()
    assert text.startswith("the first line\n")
    assert text.endswith("the last line\n")
    assert "bytes left out here" in text
    assert len(text) < HEAD_BYTES + TAIL_BYTES + 200_000


@pytest.mark.parametrize(
    ("method", "message"),
    [("quitter", "SystemExit: enough"), ("dier", "the process exited with code 4 without a result")],
)
def test_a_method_that_ends_its_process_fails_and_its_log_says_so(strange: Any, method: str, message: str) -> None:
    done = run(strange, method)
    assert done.code == 1
    assert done.json()[0]["error"]["message"] == message
    (log,) = strange.folder.glob("runs/**/log.txt")
    assert message.rpartition(": ")[2] in log.read_text()


def test_a_method_that_cannot_be_imported_is_one_line(strange: Any) -> None:
    asked_for = run(strange, "absent")
    assert asked_for.code == 1
    assert "Absent" in asked_for.err
    assert asked_for.err.count("\n") == 1
    among_others = strange("run", "--task", "toy-graph", "--max-steps", "1", "--json")
    assert among_others.code == 1
    assert len([line for line in among_others.err.splitlines() if "Absent" in line]) == 1
    assert "Traceback" not in among_others.err
    assert "toy-student" in {item["run"]["method"] for item in among_others.json()}


MALFORMED = {
    "integer": "table rows, record 1: cell is numpy.int64 np.int64(3); a cell is a bool, int, float, str or None",
    "array": "table rows, record 1: cell is numpy.ndarray array([0., 0.]); a cell is a bool, int, float, str or None",
    "nan": "table rows, record 1: cell is nan; what is undefined is None",
    "truth": "table rows, record 1: cell is numpy.bool",
    "count": "count nodes is numpy.int64 np.int64(3), not an int: write int(...)",
    "score": "score accuracy is str 'high', not a number",
    "parameters": "parameters is float 2.5, not an int: write int(...)",
}


def test_an_outcome_that_no_file_can_hold_is_told_by_its_field(carried: Any) -> None:
    carried.install("odd_task", TASK)
    done = carried("run", "--task", "odd", "--json")
    found = {item["run"]["method"].removeprefix("plain-"): item["error"]["message"] for item in done.json()}
    assert found.keys() == MALFORMED.keys()
    for kind, message in MALFORMED.items():
        assert message in found[kind]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("this", "task 'odd' cannot judge answers.csv: KeyError: 'this' (--debug shows where)"),
        ("wrong", "task 'odd', score: score accuracy is 7.0, not a fraction"),
    ],
)
def test_a_score_that_raises_or_is_no_score_is_one_line(cli: Any, content: str, message: str) -> None:
    cli.install("odd_task", TASK)
    (cli.folder / "answers.csv").write_text(content)
    done = cli("score", "--task", "odd", "--predictions", "answers.csv")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"benchsuite: {message}\n"


def signals(folder: Path) -> None:
    (folder / "beats").mkdir(parents=True)
    (folder / "beats/a.txt").write_text("1.0\n2.0\n3.1\n")


def test_real_data_are_read_once_for_runs_that_share_them(carried: Any) -> None:
    carried.install("counted", READER)
    carried.environment["BENCHSUITE_CACHE"] = str(carried.folder / "cache")
    signals(carried.folder / "mine")
    arguments = ("run", "--task", "toy-signal", "--data-root", "mine", "--seeds", "2", "--json")
    first = carried(*arguments, "--dataset", "counted")
    assert first.code == 0, first.err
    readings = carried.folder / "mine/readings"
    assert readings.read_text() == "0\n1\n"  # two methods, two draws
    again = carried(*arguments, "--dataset", "counted", "--force")
    assert readings.read_text() == "0\n1\n"
    assert [item["scores"]["sensitivity"] for item in again.json()] == [
        item["scores"]["sensitivity"] for item in first.json()
    ]
    reader = carried.plugins / "counted.py"
    reader.write_text(reader.read_text().replace('f"{draw}\\n"', 'f"{draw} again\\n"'))
    carried(*arguments, "--dataset", "counted")
    assert readings.read_text().count("again") == 2  # another reader
    (carried.folder / "mine/beats/b.txt").write_text("1.0\n2.0\n")
    carried(*arguments, "--dataset", "counted")
    assert readings.read_text().count("again") == 4  # other files


def test_data_that_do_not_pickle_are_read_by_every_run(carried: Any) -> None:
    carried.install("counted", READER)
    carried.environment["BENCHSUITE_CACHE"] = str(carried.folder / "cache")
    signals(carried.folder / "mine")
    done = carried("run", "--task", "toy-signal", "--data-root", "mine", "--dataset", "counted-open")
    assert done.code == 0, done.err
    assert (carried.folder / "mine/readings").read_text() == "0\n0\n"
    assert any("read anew by every run" in log.read_text() for log in carried.folder.glob("runs/**/log.txt"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('default_data = "odd-zeros"', "pass", "does not say its default_data"),
        ('Ranking("accuracy")', 'Ranking("acuracy")', "the ranking names the metric 'acuracy', which the task lacks"),
        ('"odd", "1"', '"even", "1"', "the task is registered as 'odd' and calls itself 'even'"),
        ("class Odd(Task)", "class Odd", "this is no subclass of Task"),
        ("class Odd(Task)", "1 / 0\nclass Odd(Task)", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_task_that_is_not_whole_is_one_line_before_anything_runs(cli: Any, old: str, new: str, message: str) -> None:
    hooks = TASK[TASK.index("@hookimpl") :].replace("[*CELLS,", "[")
    cli.install("odd_hooks", "from benchsuite.core import DatasetSpec, MethodSpec, TaskSpec, hookimpl\n" + hooks)
    (cli.plugins / "odd_task.py").write_text(TASK.replace(old, new, 1))
    for command in (("run", "--task", "odd"), ("info", "odd"), ("score", "--task", "odd", "--predictions", "x")):
        done = cli(*command)
        assert (done.code, done.out) == (2, ""), done.err
        assert message in done.err
        assert done.err.count("\n") == 1


def test_what_a_method_prints_stays_out_of_the_findings(strange: Any) -> None:
    done = strange("plugin", "check", "talker", "--json")
    findings: Any = done.json()
    assert {item["method"] for item in findings} == {"talker"}
    assert "the first line" not in done.out + done.err
    assert len(done.err) < 1000
    ended: Any = strange("plugin", "check", "quitter", "--json").json()
    assert "failed" in {item["verdict"] for item in ended}


def test_runs_that_are_timed_warm_their_cpus_up_first(carried: Any) -> None:
    carried.install(
        "timed",
        METHODS.replace('{cls}")', '{cls}", resources=Resources(cpus=2, exclusive=name == "writer"))').replace(
            "import MethodSpec", "import MethodSpec, Resources"
        ),
    )
    (carried.plugins / "strange_methods.py").write_text(CODE)
    done = carried("run", "--task", "toy-graph", "--method", "writer", "--method", "toy-copy")
    assert done.code == 0, done.err
    warmed = {
        log.parents[2].name: "warmed up 2 CPUs" in log.read_text() for log in carried.folder.glob("runs/**/log.txt")
    }
    assert warmed == {"writer": True, "toy-copy": False}
