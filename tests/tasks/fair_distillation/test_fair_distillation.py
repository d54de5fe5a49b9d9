"""The task through the command line: tables, saved models, real graphs, hidden labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchsuite.core.errors import UserError

pytest.importorskip("torch_geometric")

TASK = ("run", "--task", "fair-distillation")
FEW = {"epochs": 5, "teacher_epochs": 5}
FEW_TEACHER = {"teacher_epochs": 5}
SHORT = ("--set", "epochs=5", "--set", "teacher_epochs=5", "--json")


def by_method(done: Any) -> dict[str, Any]:
    assert done.code == 0, done.err
    return {result["run"]["method"]: result for result in done.json()}


@pytest.mark.parametrize("student", ["cpf", "graph-akd"])
def test_reliant_without_proxy_and_bias_term_is_the_vanilla_student_bit_for_bit(evaluate: Any, student: str) -> None:
    reliant = {"cpf": "reliant", "graph-akd": "reliant-graph-akd"}[student]
    vanilla = evaluate("fair-distillation", student, FEW)
    off = evaluate("fair-distillation", reliant, {**FEW, "proxy_mode": "none", "bias_weight": 0})
    predictions = [(run.artifacts / "predictions.csv").read_bytes() for run in (vanilla, off)]
    assert predictions[0] == predictions[1]


@pytest.mark.parametrize("method", ["reliant", pytest.param("reliant-graph-akd", marks=pytest.mark.slow)])
def test_a_saved_model_is_judged_again_without_training(cli: Any, method: str) -> None:
    command = (*TASK, "--method", method, "--no-reference", *SHORT)
    kept = by_method(cli(*command, "--artifacts", "model"))[method]
    assert "model.pt" in kept["artifacts"]
    assert cli(*command, "--artifacts", "model").err.count("stored before") == 1
    (model,) = cli.folder.glob("runs/**/artifacts/model.pt")
    again = by_method(cli(*command, "--weights", model))[method]
    assert again["scores"] == kept["scores"]
    assert again["fingerprint"] != kept["fingerprint"]
    assert again["timings"]["fit"]["cpu_s"] < kept["timings"]["fit"]["cpu_s"]
    refused = cli(*TASK, "--method", "teacher", "--weights", model)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "method 'teacher' has no model to save or load" in refused.err
    (cli.folder / "garbage.pt").write_bytes(b"no checkpoint")
    broken = cli(*command, "--weights", "garbage.pt")
    assert broken.code == 1
    assert "--weights garbage.pt does not fit this student" in broken.err


def test_the_same_seed_repeats_bit_for_bit_with_any_workers_and_cache(cli: Any) -> None:
    command = (*TASK, "--method", "reliant", "--no-reference", "--seeds", "2", *SHORT)
    one = cli(*command, "--out", "a")
    assert cli("cache", "clear").code == 0
    two = cli(*command, "--out", "b", "--workers", "2")
    scores = [{r["fingerprint"]: r["scores"] for r in done.json()} for done in (one, two)]
    assert scores[0] == scores[1]
    assert len({str(value) for value in scores[0].values()}) == 2


MODES = [
    {"objective": "eo"},
    {"objective": "eo", "eo_labels": "teacher"},
    {"task.teacher": "graphsage"},
    {"proxy_mode": "replace", "scale_lambda": True},
]


@pytest.mark.parametrize("method", ["reliant", "reliant-graph-akd"])
def test_objectives_labels_teachers_and_modes(evaluate: Any, method: str) -> None:
    plain = evaluate("fair-distillation", method, FEW).outcome.scores
    for mode in MODES:
        if method == "reliant-graph-akd" and "scale_lambda" in mode:
            with pytest.raises(UserError, match="scale_lambda is for CPF"):
                evaluate("fair-distillation", method, {**FEW, **mode})
        else:
            assert evaluate("fair-distillation", method, {**FEW, **mode}).outcome.scores != plain


def test_the_validation_split_is_judged_on_the_validation_nodes(evaluate: Any) -> None:
    judged = [evaluate("fair-distillation", "teacher", FEW_TEACHER, split=split).outcome for split in ("test", "val")]
    assert [outcome.counts["nodes"] for outcome in judged] == [501, 200]


def test_predictions_made_elsewhere(cli: Any, evaluate: Any) -> None:
    run = evaluate("fair-distillation", "teacher", FEW_TEACHER)
    predictions = run.artifacts / "predictions.csv"
    judged: Any = cli("score", "--task", "fair-distillation", "--predictions", predictions, "--json").json()
    assert judged["scores"] == pytest.approx(run.outcome.scores)
    lines = predictions.read_text().splitlines()
    (cli.folder / "short.csv").write_text("\n".join(lines[:-1]))
    assert (
        "needs exactly the 501 test nodes"
        in cli("score", "--task", "fair-distillation", "--predictions", "short.csv").err
    )
    (cli.folder / "text.csv").write_text("node,p\na,b\n")
    assert (
        "not a table of node,probability_0"
        in cli("score", "--task", "fair-distillation", "--predictions", "text.csv").err
    )


@pytest.mark.real_data
def test_the_real_graph_german(cli: Any, real_data: Path) -> None:
    root = real_data / "graphs" / "german"
    done = cli(*TASK, "--dataset", "german", "--data-root", root, "--method", "reliant", *SHORT)
    results = by_method(done)
    assert {result["run"]["data"]["test"]["name"] for result in results.values()} == {"german"}
    found = cli("data", "verify", "german", "--data-root", root, "--json")
    assert found.json()["summary"]["entries"] == 44_484


@pytest.mark.real_data
@pytest.mark.slow
def test_one_seed_of_the_vanilla_student_on_bail(cli: Any, real_data: Path) -> None:
    root = real_data / "graphs" / "bail"
    short = ("--set", "epochs=20", "--set", "teacher_epochs=50", "--json")
    done = cli(*TASK, "--dataset", "bail", "--data-root", root, "--method", "cpf", *short, timeout=900)
    (result,) = done.json()
    assert result["parameters"] == 39_116
    assert result["counts"]["nodes"] == 9_438
