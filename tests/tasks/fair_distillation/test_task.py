"""What a student is shown, what its teacher may learn from, and how predictions are judged and ranked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch_geometric")

from benchsuite.core.registry import get_registry
from benchsuite.datasets.fairness_graphs import SYNTHETIC_PARAMETERS
from benchsuite.datasets.fairness_graphs.generated import load_synthetic
from benchsuite.datasets.fairness_graphs.graph import FairnessGraph
from benchsuite.harness.context import HarnessContext
from benchsuite.harness.plan import definition_of
from benchsuite.harness.store import StoredResult
from benchsuite.leaderboard.tables import build_tables
from benchsuite.tasks.fair_distillation import teachers
from benchsuite.tasks.fair_distillation.contract import (
    FairDistillationProtocol,
    FairDistiller,
    Student,
    StudentGraph,
    Teacher,
    Validation,
)
from benchsuite.tasks.fair_distillation.judge import judge
from benchsuite.tasks.fair_distillation.task import FairDistillation, student_view, train_teacher

PROTOCOL = FairDistillationProtocol(teacher_epochs=3, teacher_dropout=0.25, teacher_lr=0.02, teacher_patience=7)


@pytest.fixture
def graph(monkeypatch: Any) -> FairnessGraph:
    monkeypatch.setitem(SYNTHETIC_PARAMETERS, "nodes", 100)
    return load_synthetic(None, 0)


def context(folder: Path, **changes: Any) -> HarnessContext:
    values: dict[str, Any] = {
        "seeds": {"run": 0},
        "seed_axes": ("run",),
        "workdir": folder,
        "artifact_folder": folder / "artifacts",
        "cache_root": folder / "cache",
        "shared_digest": "d",
    }
    return HarnessContext(**(values | changes))


def test_a_student_sees_everything_but_hidden_labels(graph: FairnessGraph) -> None:
    view = student_view(graph)
    for name in ("features", "edge_index", "sensitive", "train", "validation", "test"):
        assert np.array_equal(getattr(view, name), getattr(graph, name)), name
    assert np.array_equal(view.train_labels, graph.labels[graph.train])
    assert len(view.train_labels) == len(view.train)
    assert not any(np.array_equal(value, graph.labels) for value in vars(view).values())


@pytest.mark.parametrize("shown", ["train", "all"])
def test_labels_are_shown_as_the_protocol_says(graph: FairnessGraph, tmp_path: Path, shown: Any) -> None:
    seen: list[StudentGraph] = []

    class Looks(FairDistiller):
        def distil(self, graph: StudentGraph, teacher: Teacher, validation: Validation, ctx: Any) -> Student:
            seen.append(graph)
            return Student(np.exp(teacher.log_probabilities), 1)

    protocol = replace(PROTOCOL, student_labels=shown)
    FairDistillation().evaluate(Looks(None), {"test": graph}, protocol, context(tmp_path))
    labels = seen[0].labels
    assert labels is None if shown == "train" else np.array_equal(labels, graph.labels)
    assert FairDistillationProtocol().student_labels == "train"


def test_the_validation_judge_by_hand() -> None:
    validation = Validation(np.array([3, 1]), np.array([1, 0]))
    shares = np.array([[0.5, 0.5], [0.8, 0.2], [0.1, 0.9], [0.6, 0.4]])
    assert validation.accuracy(shares) == pytest.approx(0.5)
    assert validation.cross_entropy(np.log(shares)) == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)


def test_nothing_that_trains_depends_on_labels_of_test_nodes(graph: FairnessGraph, tmp_path: Path) -> None:
    other = FairDistillation().with_other_answers({"test": graph})["test"]
    assert (other.labels != graph.labels).nonzero()[0].tolist() == sorted(graph.test.tolist())
    trained = [
        train_teacher(g, Validation(g.validation, g.labels[g.validation]), PROTOCOL, context(tmp_path / str(number)))
        for number, g in enumerate((graph, other))
    ]
    assert np.array_equal(trained[0].log_probabilities, trained[1].log_probabilities)
    assert np.array_equal(trained[0].embedding, trained[1].embedding)


@pytest.mark.parametrize(
    "change", [{"teacher": "graphsage"}, {"teacher_dropout": 0.5}, {"teacher_epochs": 4}, {"seed": 1}, {"labels": 1}]
)
def test_a_teacher_is_shared_only_by_what_trains_it_alike(
    graph: FairnessGraph, tmp_path: Path, change: dict[str, Any]
) -> None:
    settings = dict(change)
    seed, changed = settings.pop("seed", 0), graph
    if settings.pop("labels", 0):
        labels = graph.labels.copy()
        labels[graph.train[0]] ^= 1
        changed = replace(graph, labels=labels)
    found = []
    for g, p, s in ((graph, PROTOCOL, 0), (graph, PROTOCOL, 0), (changed, replace(PROTOCOL, **settings), seed)):
        ctx = context(tmp_path, seeds={"run": s})
        found.append(train_teacher(g, Validation(g.validation, g.labels[g.validation]), p, ctx))
    assert np.array_equal(found[0].log_probabilities, found[1].log_probabilities)
    assert not np.array_equal(found[0].log_probabilities, found[2].log_probabilities)


def test_the_protocol_is_what_the_teacher_trains_by(graph: FairnessGraph, tmp_path: Path, monkeypatch: Any) -> None:
    seen: dict[str, Any] = {}

    def noted(model: Any, features: Any, edges: Any, train: Any, labels: Any, accuracy: Any, **settings: Any) -> None:
        epochs = list(settings.pop("steps")({}))
        seen.update(settings, dropout=model.dropout, epochs=len(epochs), train=train.numpy(), labels=labels.numpy())

    monkeypatch.setattr(teachers, "train_teacher", noted)
    teachers.train_on(student_view(graph), lambda scores: 0.0, PROTOCOL, context(tmp_path))
    assert np.array_equal(seen.pop("train"), graph.train)
    assert np.array_equal(seen.pop("labels"), graph.labels[graph.train])
    assert seen == {"lr": 0.02, "weight_decay": 0.001, "patience": 7, "dropout": 0.25, "epochs": 3}


def test_paper_presets_are_the_published_settings() -> None:
    paper = FairDistillation.presets["paper"]
    gcn = FairDistillationProtocol(**paper.resolve({"teacher": "gcn"}))
    sage = replace(gcn, **paper.resolve({"teacher": "graphsage"}))
    assert (gcn.teacher_epochs, gcn.teacher_patience, gcn.teacher_lr) == (1000, 500, 0.01)
    assert (gcn.teacher_dropout, gcn.teacher_weight_decay) == (0.8, 0.001)
    assert (sage.teacher_dropout, sage.teacher_weight_decay) == (0.5, 0.0005)


class Scripted(FairDistiller):
    """Says of every node what it is told to."""

    classes: np.ndarray

    def distil(self, graph: StudentGraph, teacher: Teacher, validation: Validation, ctx: Any) -> Student:
        return Student(np.eye(2)[self.classes], 1)


@pytest.mark.parametrize("split", ["test", "val"])
def test_only_nodes_of_the_split_are_judged(graph: FairnessGraph, tmp_path: Path, split: Any) -> None:
    nodes = graph.test if split == "test" else graph.validation
    method = Scripted(Scripted.Config())
    method.classes = 1 - graph.labels
    method.classes[nodes] = graph.labels[nodes]
    outcome = FairDistillation().evaluate(method, {"test": graph}, PROTOCOL, context(tmp_path, split=split))
    assert outcome.scores["accuracy"] == pytest.approx(1)
    assert outcome.counts["nodes"] == len(nodes)


def test_the_judge_by_hand(graph: FairnessGraph) -> None:
    """Accuracy 3/8; group 0 is called 1 in 3 of 4 cases, group 1 in 1 of 4; of those of class 1, 2 of 3 and 1 of 4."""
    few = replace(
        graph,
        labels=np.array([9, 1, 1, 1, 0, 1, 1, 1, 1, 9]) % 9,
        sensitive=np.array([9, 0, 0, 0, 0, 1, 1, 1, 1, 9]) % 9,
    )
    predicted = np.array([1, 1, 0, 1, 0, 0, 1, 0])
    scores = judge(few, np.arange(1, 9), np.eye(2)[predicted]).scores
    assert scores["accuracy"] == pytest.approx(3 / 8)
    assert scores["statistical_parity_difference"] == pytest.approx(3 / 4 - 1 / 4)
    assert scores["equal_opportunity_difference"] == pytest.approx(2 / 3 - 1 / 4)


def test_the_fairest_row_leads_among_those_not_far_less_accurate_than_the_teacher(make_result: Any) -> None:
    definition = definition_of(get_registry().task("fair-distillation"), FairDistillation)
    names = FairDistillation.metric_names()

    def row(method: str, accuracy: float, parity: float, opportunity: float) -> list[Any]:
        """Return four seeds, each a little less fair than the one before."""
        given = {"accuracy": accuracy, "equal_opportunity_difference": opportunity}
        results = []
        for seed in range(4):
            scores = {name: given.get(name, 0.5) for name in names}
            scores["statistical_parity_difference"] = parity * (1 + 0.02 * seed)
            results.append(
                make_result(method=method, label=method, seeds={"run": seed}, definition=definition, scores=scores)
            )
        return results

    results = [
        *row("teacher", 0.95, 0.3, 0.0),
        *row("cpf", 0.94, 0.4, 0.1),
        *row("reliant", 0.88, 0.1, 0.3),
        *row("coin", 0.86, 0.0, 0.0),
    ]
    stored = [StoredResult(result, Path(f"/x/{i}/attempt-1/result.json")) for i, result in enumerate(results)]
    (table,) = build_tables(stored, lambda result: "s" * 64)
    ranks = {row.label: row.rank_text for row in table.rows}
    assert ranks == {"reliant": "1", "teacher": "2", "cpf": "3", "coin": "-"}
