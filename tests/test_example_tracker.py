"""The example plugin that logs runs to a tracker, with a store in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples/benchsuite_mlflow/benchsuite_mlflow.py"
FAILS = """
from skeletons.graph import Distiller
from benchsuite.core import MethodSpec

class Fails(Distiller):
    def distil(self, features, teacher, ctx):
        raise ValueError("the gradient exploded")

def benchsuite_methods():
    return [MethodSpec("fails", "1", ("toy-graph",), "failing:Fails")]
"""


@pytest.fixture
def tracked(cli: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("mlflow")
    cli.install("benchsuite_mlflow", EXAMPLE.read_text())
    cli.install("failing", FAILS)
    store = {"MLFLOW_TRACKING_URI": (cli.folder / "tracker").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
    cli.environment |= store
    for name, value in store.items():
        monkeypatch.setenv(name, value)
    return cli


def logged(task: str) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name(task)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_runs_are_logged_with_settings_scores_and_status(tracked: Any) -> None:
    done = tracked(
        "run", "--task", "toy-graph", "--method", "toy-student", "--method", "fails", "--set", "lr=0.3", "--json"
    )
    assert done.code == 1
    results: Any = {result["run"]["method"]: result for result in done.json()}
    runs = logged("toy-graph")
    assert runs.keys() == {"toy-student run 0", "fails run 0", "toy-copy run 0"}
    student, failed = runs["toy-student run 0"], runs["fails run 0"]
    assert student.info.status == "FINISHED"
    assert student.data.params["method.lr"] == "0.3"
    assert student.data.params["task.teacher"] == "mean"
    assert student.data.metrics["accuracy"] == results["toy-student"]["scores"]["accuracy"]
    assert student.data.metrics["seconds.fit"] == results["toy-student"]["timings"]["fit"]["wall_s"]
    assert student.data.tags["benchsuite.fingerprint"] == results["toy-student"]["fingerprint"]
    assert failed.info.status == "FAILED"
    assert failed.data.tags["benchsuite.error"] == "ValueError: the gradient exploded"
    again = tracked("run", "--task", "toy-graph", "--method", "toy-student", "--set", "lr=0.3")
    assert again.code == 0
    assert len(logged("toy-graph")) == 3  # what is stored is not logged twice


def test_a_tracker_that_is_not_there_stops_no_run(tracked: Any) -> None:
    (tracked.folder / "file").write_text("")
    tracked.environment["MLFLOW_TRACKING_URI"] = (tracked.folder / "file/store").as_uri()
    done = tracked("run", "--task", "toy-graph", "--method", "toy-student")
    assert done.code == 0
    assert "a plugin's benchsuite_run_started raised" in done.err
