"""The task through the command line: tables, saved models, real graphs, hidden labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch_geometric")

TASK = ("run", "--task", "fair-distillation")
SHORT = ("--set", "epochs=5", "--set", "teacher_epochs=5", "--json")


def by_method(done: Any) -> dict[str, Any]:
    assert done.code == 0, done.err
    return {result["run"]["method"]: result for result in done.json()}


@pytest.mark.parametrize("student", ["cpf", "graph-akd"])
def test_reliant_without_proxy_and_bias_term_is_the_vanilla_student_bit_for_bit(cli: Any, student: str) -> None:
    reliant = {"cpf": "reliant", "graph-akd": "reliant-graph-akd"}[student]
    off = ("--set", f"{reliant}.proxy_mode=none", "--set", f"{reliant}.bias_weight=0")
    results = by_method(cli(*TASK, "--method", student, "--method", reliant, "--no-reference", *off, *SHORT))
    assert results[student]["scores"] == results[reliant]["scores"]
    predictions = [p.read_bytes() for p in sorted(cli.folder.glob("runs/**/predictions.csv"))]
    assert len(predictions) == 2
    assert predictions[0] == predictions[1]


@pytest.mark.parametrize("method", ["reliant", pytest.param("reliant-graph-akd", marks=pytest.mark.slow)])
def test_a_saved_model_is_judged_again_without_training(cli: Any, method: str) -> None:
    command = (*TASK, "--method", method, "--no-reference", *SHORT)
    assert cli(*command).code == 0
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
    command = (*TASK, "--method", "reliant", "--seeds", "2", *SHORT)
    runs = [cli(*command, "--out", "a"), cli(*command, "--out", "b", "--workers", "2")]
    assert cli("cache", "clear").code == 0
    runs.append(cli(*command, "--out", "c", "--workers", "2"))
    scores = [{r["fingerprint"]: r["scores"] for r in done.json()} for done in runs]
    assert scores[0] == scores[1] == scores[2]
    assert len({str(value) for value in scores[0].values()}) == 4


def test_objectives_labels_teachers_and_modes(cli: Any) -> None:
    for extra in (
        ("objective=eo",),
        ("objective=eo", "eo_labels=teacher"),
        ("proxy_mode=replace", "scale_lambda=true"),
        ("task.teacher=graphsage",),
    ):
        settings = [part for text in extra for part in ("--set", text)]
        methods = ("--method", "reliant", *([] if "scale" in str(extra) else ["--method", "reliant-graph-akd"]))
        done = cli(*TASK, *methods, "--no-reference", *settings, *SHORT)
        assert done.code == 0, done.err
    refused = cli(*TASK, "--method", "reliant-graph-akd", "--no-reference", "--set", "scale_lambda=true", *SHORT)
    assert refused.code == 1
    assert "scale_lambda is for CPF" in refused.err


def test_the_validation_split_is_judged_on_the_validation_nodes(cli: Any) -> None:
    command = (*TASK, "--method", "teacher", "--no-reference", *SHORT[2:])
    test, val = (by_method(cli(*command, "--split", split))["teacher"] for split in ("test", "val"))
    assert (test["counts"]["nodes"], val["counts"]["nodes"]) == (501, 200)


def test_predictions_made_elsewhere(cli: Any) -> None:
    (result,) = cli(*TASK, "--method", "teacher", "--no-reference", *SHORT[2:]).json()
    (predictions,) = cli.folder.glob("runs/**/predictions.csv")
    judged: Any = cli("score", "--task", "fair-distillation", "--predictions", predictions, "--json").json()
    assert judged["scores"] == pytest.approx(result["scores"])
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
