"""The task: hides the labels, trains the teacher that all students of a seed share, distils, asks the judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchsuite.core import Case, Constraint, Metric, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.datasets.fairness_graphs.graph import FairnessGraph
from benchsuite.tasks.fair_distillation.contract import (
    FairDistillationProtocol,
    FairDistiller,
    Integers,
    StudentGraph,
    Teacher,
    Validation,
)
from benchsuite.tasks.fair_distillation.judge import checked_probabilities, judge, read_predictions, write_predictions

_PREDICTIONS = "predictions.csv"


class FairDistillation(Task[FairDistiller, FairnessGraph, FairDistillationProtocol]):
    """Distil a student from the task's teacher, and see how accurate it is and how it treats the groups.

    A teacher is trained on a graph whose nodes carry a binary sensitive attribute; a student is distilled
    from it and judged by how accurate it is and by how differently it treats the groups. The teacher
    belongs to the task: one per seed, shared by all students. Features, edges and sensitive attributes of
    all nodes are visible (transductive setting); labels only on the training nodes.
    """

    name = "fair-distillation"
    version = "1"
    Protocol = FairDistillationProtocol
    presets: ClassVar[Mapping[str, Preset]] = {
        "embedded": Preset({"teacher_epochs": 150, "teacher_patience": 150, "teacher_dropout": 0.5}),
        "paper": Preset(
            cases=(Case({"teacher": "graphsage"}, {"teacher_dropout": 0.5, "teacher_weight_decay": 0.0005}),)
        ),
    }
    seed_axes = ("run",)
    metrics = (
        Metric("accuracy", "max", doc="share of test nodes whose predicted class is their label"),
        Metric("f1", "max", doc="F1 of class 1 (macro average for more than two classes)"),
        Metric("auroc", "max", doc="area under the ROC curve of the predicted probability"),
        Metric(
            "statistical_parity_difference",
            "min",
            doc="|P(prediction = 1 | s = 0) - P(prediction = 1 | s = 1)| on the test nodes",
        ),
        Metric(
            "equal_opportunity_difference",
            "min",
            doc="the same among test nodes whose label is 1 (difference of true positive rates)",
        ),
    )
    ranking = Ranking("statistical_parity_difference", Constraint("accuracy", "teacher", 0.08))
    reference = "cpf"
    data_type = "benchsuite.datasets.fairness_graphs.graph:FairnessGraph"
    method_type = FairDistiller
    default_data = "biased-graph"

    def evaluate(
        self,
        method: FairDistiller,
        data: Mapping[str, FairnessGraph],
        protocol: FairDistillationProtocol,
        ctx: RunContext,
    ) -> Outcome:
        """Train (or fetch) the teacher, distil, and judge on the test or validation nodes."""
        graph = data["test"]
        visible = student_view(graph, protocol.student_labels == "all")
        validation = Validation(graph.validation, graph.labels[graph.validation])
        teacher = train_teacher(graph, validation, protocol, ctx)
        with ctx.phase("fit"):
            student = method.distil(visible, teacher, validation, ctx)
        nodes = graph.test if ctx.split == "test" else graph.validation
        probabilities = checked_probabilities(student.probabilities, graph)
        write_predictions(ctx.artifact(_PREDICTIONS), nodes, probabilities[nodes])
        outcome = judge(graph, nodes, probabilities[nodes])
        outcome.parameters = student.parameters
        return outcome

    def with_other_answers(self, data: Mapping[str, FairnessGraph]) -> Mapping[str, FairnessGraph]:
        """Return the graph with the class of every test node changed."""
        graph = data["test"]
        labels = graph.labels.copy()
        labels[graph.test] = (labels[graph.test] + 1) % (labels.max() + 1)
        return dict.fromkeys(data, replace(graph, labels=labels))

    def score(
        self, predictions: Path, data: Mapping[str, FairnessGraph], protocol: FairDistillationProtocol
    ) -> Outcome:
        """Judge a CSV of test nodes: columns node, probability_0, probability_1, ... in any order."""
        graph = data["test"]
        return judge(graph, graph.test, read_predictions(predictions, graph))


def student_view(graph: FairnessGraph, all_labels: bool = False) -> StudentGraph:
    """Return what a method may see of a graph; with ``all_labels`` that includes the labels that it is judged by."""
    return StudentGraph(
        features=graph.features,
        edge_index=graph.edge_index,
        sensitive=graph.sensitive,
        train=graph.train,
        validation=graph.validation,
        test=graph.test,
        train_labels=graph.labels[graph.train],
        num_classes=int(graph.labels.max()) + 1,
        labels=graph.labels if all_labels else None,
    )


def train_teacher(
    graph: FairnessGraph, validation: Validation, protocol: FairDistillationProtocol, ctx: RunContext
) -> Teacher:
    """Return the teacher of this seed, trained once and shared by every student."""
    from benchsuite.tasks.fair_distillation import teachers

    inputs = {
        "graph": replace(graph, labels=_visible_labels(graph)).content_hash(),
        "seed": ctx.seed_for("run", "teacher"),
        **asdict(protocol),
    }

    def build(folder: Path) -> None:
        trained = teachers.train_on(student_view(graph), validation.accuracy, protocol, ctx)
        arrays: dict[str, Any] = trained
        np.savez(folder / "teacher.npz", **arrays)

    folder = ctx.cached("teacher", inputs, build)
    with np.load(folder / "teacher.npz", allow_pickle=False) as arrays:
        return Teacher(
            architecture=protocol.teacher,
            log_probabilities=arrays["log_probabilities"],
            embedding=arrays["embedding"],
            parameters=int(arrays["parameters"]),
        )


def _visible_labels(graph: FairnessGraph) -> Integers:
    """Return the labels with those of the test nodes blanked: nothing that trains may depend on them."""
    labels = graph.labels.copy()
    labels[graph.test] = 0
    return labels
