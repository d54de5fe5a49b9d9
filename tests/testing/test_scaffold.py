"""``plugin new`` for every task that exists: install, check, run, rank, edit, run again."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchsuite.core.registry import get_registry

SHARES_ITS_SCAFFOLD = {"gfsis", "ifsis"}  # with fsis


def fields() -> dict[str, list[str]]:
    """Return the tasks whose new plugins one command checks: those of a package, which load the same libraries."""
    found = {"toys": ["toy-graph", "toy-fewshot", "toy-signal", "toy-attack", "toy-checked", "toy-parallel"]}
    for name, spec in sorted(get_registry().tasks.items()):
        repeats = " again" if name in SHARES_ITS_SCAFFOLD else ""
        found.setdefault(spec.load.split(".")[2] + repeats, []).append(name)
    return found


def is_slow(item: pytest.Item) -> bool:
    """Return whether a case repeats what another one shows."""
    return item.name.endswith(" again]")


def lacks_library(task: str) -> bool:
    spec = get_registry().tasks.get(task)
    requires = spec.requires if spec else ("torch",) if task == "toy-parallel" else ()
    return any(importlib.util.find_spec(name) is None for name in requires)


@pytest.mark.parametrize("field", fields())
def test_new_plugins_pass_the_checks_and_run_unedited(cli: Any, field: str) -> None:
    tasks = [task for task in fields()[field] if not lacks_library(task)]
    if not tasks:
        pytest.skip("the libraries of these tasks are not installed")
    for task in tasks:
        done = cli("plugin", "new", f"my-{task}", "--task", task)
        assert done.code == 0, done.err
    checked = cli("plugin", "check", *(f"my-{task}" for task in tasks), "--json", timeout=900)
    findings: Any = checked.json()
    assert [f for f in findings if f["verdict"] == "failed"] == []
    assert checked.code == 0
    assert {(f["method"], f["task"]) for f in findings if f["check"] == "runs"} == {(f"my-{t}", t) for t in tasks}


@pytest.mark.parametrize("task", ["fair-distillation", "toy-checked"])
def test_from_new_to_leaderboard_outside_the_repository(cli: Any, task: str) -> None:
    pytest.importorskip("hatchling")
    if lacks_library(task):
        pytest.skip("the libraries of this task are not installed")
    assert cli("plugin", "new", "mine", "--task", task).code == 0
    environment = cli.folder / "environment"
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", environment,
         cli.folder / "mine"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert installed.returncode == 0, installed.stderr
    cli.environment["PYTHONPATH"] = f"{environment}:{cli.full_environment()['PYTHONPATH']}"
    assert "mine" in cli("plugin", "list").out
    run = ("run", "--task", task, "--method", "mine", "--json")
    before: Any = cli(*run).json()
    board = cli("leaderboard")
    assert board.code == 0
    assert " mine " in board.out

    (method,) = Path(environment).glob("mine/method.py")
    source = method.read_text()
    if task == "fair-distillation":
        edited = source.replace("lr: float = 0.05", "lr: float = 0.0")
    else:
        edited = source + "\n    def guess(self, x, labels, ctx):\n        return -x[:, 0]\n"
    assert edited != source
    method.write_text(edited)
    after: Any = cli(*run).json()
    assert after[0]["scores"] != before[0]["scores"]
    assert after[1] == before[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("new", "Mine!", "--task", "toy-graph"), "is not a good name"),
        (("new", "toy-copy", "--task", "toy-graph"), "is already registered"),
        (("new", "mine", "--task", "toy-grahp"), "did you mean 'toy-graph'"),
        (("new", "plugins", "--task", "toy-graph"), "plugins is already there"),
        (("check", "toy-stdent"), "there is no plugin or method 'toy-stdent' - did you mean"),
        (("check", "plugins"), "plugins holds no pyproject.toml"),
    ],
)
def test_mistakes_are_told_in_one_line(shared_cli: Any, arguments: tuple[str, ...], message: str) -> None:
    done = shared_cli("plugin", *arguments)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_folder_that_is_not_installed_can_be_checked(cli: Any) -> None:
    assert cli("plugin", "new", "loose", "--task", "toy-checked").code == 0
    done = cli("plugin", "check", "loose", "--json")
    assert done.code == 0
    assert {item["method"] for item in done.json()} == {"loose"}


def test_predictions_made_elsewhere_are_judged(cli: Any) -> None:
    cli("run", "--task", "toy-checked", "--method", "toy-plain")
    (predictions,) = cli.folder.glob("runs/**/predictions.csv")
    (result,) = cli("results", "list", "--json").json()
    done = cli("score", "--task", "toy-checked", "--predictions", predictions, "--json")
    assert done.json()["scores"] == result["scores"]
    assert "cannot judge a file" in cli("score", "--task", "toy-graph", "--predictions", predictions).err
    assert "there is no such file" in cli("score", "--task", "toy-checked", "--predictions", "no.csv").err
    (cli.folder / "bad.csv").write_text("x y\n")
    bad = cli("score", "--task", "toy-checked", "--predictions", "bad.csv")
    assert (bad.code, bad.err.count("\n")) == (2, 1)
