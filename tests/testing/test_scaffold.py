"""``plugin new`` for every task that exists: install, check, run, rank, edit, run again."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchsuite.core import Presentation
from benchsuite.core.registry import get_registry
from benchsuite.testing import checks
from benchsuite.testing.scaffold import write_task_scaffold

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


def test_a_task_of_ones_own_works_outside_the_repository_unedited(cli: Any) -> None:
    """Checks, table, claims, site, score and publication of a package that `plugin new --kind task` wrote."""
    pytest.importorskip("hatchling")
    assert cli("plugin", "new", "our-points", "--kind", "task").code == 0
    environment = cli.folder / "environment"
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", environment,
         cli.folder / "our-points"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert installed.returncode == 0, installed.stderr
    cli.environment["PYTHONPATH"] = f"{environment}:{cli.full_environment()['PYTHONPATH']}"
    checked = cli("plugin", "check", "our-points", "--json")
    assert checked.code == 0, checked.out
    found = {(item["method"], item["check"]): item["verdict"] for item in checked.json()}
    assert found["our-points-logistic", "score round trip"] == "passed"
    assert found["our-points-logistic", "hidden answers"] == "passed"
    if importlib.util.find_spec("torch"):  # without it no state is kept
        assert found["our-points-logistic", "goes on after a kill"] == "passed"

    run = cli("run", "--task", "our-points", "--seeds", "data=5", "--seeds", "fit=2", "--artifacts", "model")
    assert run.code == 0, run.err
    assert "1  our-points-logistic" in run.out
    (claim,) = [v for v in cli("claims", "--results", "runs", "--json").json() if v["task"] == "our-points"]
    assert claim["verdict"] == "holds on our-points-points"
    pilot = ("--split", "val", "--seeds", "data=100,101,102", "--out", "pilot")
    assert cli("run", "--task", "our-points", *pilot).code == 0
    plans = cli("claims", "--plan", "--results", "pilot", "--json").json()
    assert [p["pilot_seeds"] for p in plans if p["task"] == "our-points"] == [3]

    one = next(r for r in cli("results", "list", "--json").json() if r["run"]["seeds"] == {"data": 3, "fit": 1})
    again = cli("score", "--run", one["fingerprint"][:16], "--json")
    assert again.json()["scores"] == pytest.approx(one["scores"])
    (model,) = (cli.folder / one["path"]).parent.glob("artifacts/model.npz")
    loaded = cli("run", "--task", "our-points", "--method", "our-points-logistic", "--weights", model, "--no-reference")
    assert "(weights " in loaded.out.replace("\n", " ")
    published = cli("results", "publish", "--to", "published")
    assert published.code == 0, published.err
    assert cli("leaderboard", "--results", "published", "--out", "tables").code == 0
    assert "| 1 | our-points-logistic | method |" in (cli.folder / "tables/our-points.md").read_text()
    if importlib.util.find_spec("altair") and importlib.util.find_spec("itables"):
        assert cli("leaderboard", "--results", "published", "--site", "pages").code == 0

    (cli.folder / "data").mkdir()
    rows = [f"n{i},{i % 7 - 3},{i % 5 - 2 + 3 * (i % 2)},{i % 2}" for i in range(40)]
    (cli.folder / "data/points.csv").write_text("\n".join(["name,x,y,label", *rows]))
    real = ("--task", "our-points", "--dataset", "our-points-csv", "--data-root", "data", "--seeds", "data=2")
    assert cli("run", *real).code == 0
    (cli.folder / "data/points.csv").write_text("\n".join(["name,x,y,label", *rows, "n40,1,1,2"]))
    wrong = cli("run", *real)
    assert wrong.code != 0
    assert "line 42: label is '2', needs 0 or 1" in wrong.err


MISTAKES = {
    "default_data = ": ('default_data = "our-pionts"', "there is no data set 'our-pionts', the default of the task"),
    "ranking = ": ('ranking = Ranking("acuracy")', "the ranking names the metric 'acuracy'"),
    "reference = ": ('reference = "our-nearest-mean"', "there is no method 'our-nearest-mean'"),
    "name = ": ('name = "points"', "and calls itself 'points'"),
    "seed_axes = ": ('seed_axes = ("data", "model")', "the seeds of a published row name the axes data, fit"),
    "version = ": ('version = "1"; published_seeds = {"data": 5}', "published=Publication(...) in the TaskSpec is"),
}


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistakes_of_a_tasks_author_are_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    line, (new, message) = list(MISTAKES.items())[number]
    name = f"our-points-{number}"  # modules are imported once
    folder = write_task_scaffold(name, tmp_path, get_registry())
    file = folder / name.replace("-", "_") / "task.py"
    source = file.read_text()
    (old,) = [text for text in source.splitlines() if text.startswith(f"    {line}")]
    file.write_text(source.replace(old, f"    {new}"))
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(checks.Failed) as caught:
        checks.check_task(subject_of(name))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def subject_of(name: str) -> Any:
    """Return what is checked of a scaffolded task, registered nowhere."""
    package = importlib.import_module(name.replace("-", "_"))
    kinds = ((package.benchsuite_tasks, "tasks"), (package.benchsuite_datasets, "datasets"))
    registry: Any = SimpleNamespace(
        **{kind: {spec.name: spec for spec in hook()} for hook, kind in kinds},
        methods={spec.name: spec for spec in package.benchsuite_methods()},
    )
    registry.task, registry.dataset = registry.tasks.__getitem__, registry.datasets.__getitem__
    return SimpleNamespace(registry=registry, task=name)


def test_tables_cannot_show_a_metric_that_the_task_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(write_task_scaffold("our-shown-points", tmp_path, get_registry())))
    subject = subject_of("our-shown-points")
    checks.check_task(subject)
    tasks = subject.registry.tasks
    for shown in (Presentation(headline=("acuracy",)), Presentation(names={"acuracy": "Top-1"})):
        tasks["our-shown-points"] = replace(tasks["our-shown-points"], shown=shown)
        with pytest.raises(checks.Failed, match="names the metric 'acuracy', which the task lacks - did you mean"):
            checks.check_task(subject)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("new", "json", "--task", "toy-graph"), "a module 'json' can be imported already"),
        (("new", "numpy", "--kind", "task"), "a module 'numpy' can be imported already"),
        (("new", "toy-graph", "--kind", "task"), "a task 'toy-graph' is already registered"),
        (("new", "mine", "--kind", "taks"), "--kind 'taks' - did you mean 'task'"),
        (("new", "mine", "--kind", "task", "--task", "toy-graph"), "--kind task takes no --task"),
        (("new", "mine"), "a method needs its task: --task NAME"),
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
