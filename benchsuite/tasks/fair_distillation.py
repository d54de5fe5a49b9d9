"""Fair knowledge distillation for graph neural networks.

A teacher is trained on a graph whose nodes carry a binary sensitive attribute; a student is distilled
from it and judged by how accurate it is and by how differently it treats the groups. The teacher
belongs to the task: one per seed, shared by all students. Features, edges and sensitive attributes of
all nodes are visible (transductive setting); labels only on the training nodes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Case, Constraint, Method, Metric, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.datasets.fairness_graphs import FairnessGraph
from benchsuite.metrics import classification, fairness

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

_PREDICTIONS = "predictions.csv"


@dataclass(frozen=True)
class FairDistillationProtocol:
    """What belongs to neither student nor data: the teacher and its training.

    The defaults are the published settings of the GCN teacher; the presets change what differs.
    """

    teacher: Literal["gcn", "graphsage"] = "gcn"
    teacher_epochs: int = 1000
    teacher_patience: int = 500
    teacher_lr: float = 0.01
    teacher_weight_decay: float = 0.001
    teacher_dropout: float = 0.8


@dataclass(frozen=True)
class StudentGraph:
    """The graph as a student sees it: no label outside the training nodes.

    Attributes
    ----------
    features
        (N, F) float32.
    edge_index
        (2, E) int64, symmetric, with one self-loop a node.
    sensitive
        (N,) int64, the group of every node.
    train, validation, test
        Node indices, int64.
    train_labels
        (len(train),) int64.
    num_classes
        Number of classes.
    """

    features: Floats
    edge_index: Integers
    sensitive: Integers
    train: Integers
    validation: Integers
    test: Integers
    train_labels: Integers
    num_classes: int


@dataclass(frozen=True)
class Teacher:
    """The trained teacher's view of every node.

    Attributes
    ----------
    architecture
        ``gcn`` or ``graphsage``.
    log_probabilities
        (N, C) float32.
    embedding
        (N, D) float32: the output of its first layer.
    parameters
        Number of trainable parameters.
    """

    architecture: str
    log_probabilities: Floats
    embedding: Floats
    parameters: int


class Validation:
    """Judges a student on the validation nodes, so that their labels need not leave the task."""

    def __init__(self, nodes: Integers, labels: Integers) -> None:
        self._nodes = nodes
        self._labels = labels

    def accuracy(self, scores: NDArray[Any]) -> float:
        """Return the share of validation nodes whose largest score (N, C) is at their label."""
        return float((scores[self._nodes].argmax(axis=1) == self._labels).mean())

    def cross_entropy(self, log_probabilities: NDArray[Any]) -> float:
        """Return the mean negative log-probability (N, C) of the validation labels."""
        return float(-log_probabilities[self._nodes, self._labels].mean())


@dataclass(frozen=True)
class Student:
    """A distilled student: class probabilities (N, C) of all nodes, and its number of parameters."""

    probabilities: NDArray[Any]
    parameters: int


class FairDistiller(Method):
    """A way to distil a student from a teacher."""

    @abstractmethod
    def distil(self, graph: StudentGraph, teacher: Teacher, validation: Validation, ctx: RunContext) -> Student:
        """Train a student and predict every node.

        Parameters
        ----------
        graph
            The visible part of the graph.
        teacher
            What the teacher says about every node.
        validation
            Judge for choosing the best epoch.
        ctx
            Take seeds from ``ctx.seed_for("run", ...)`` and draw epochs from ``ctx.steps``.
        """


class FairDistillation(Task):
    """See the module's description."""

    name = "fair-distillation"
    title = "Fair knowledge distillation for graph neural networks"
    version = "1"
    Protocol = FairDistillationProtocol
    presets: ClassVar[Mapping[str, Preset]] = {
        "embedded": Preset({"teacher_epochs": 150, "teacher_patience": 150, "teacher_dropout": 0.5}),
        "paper": Preset(
            cases=(Case({"teacher": "graphsage"}, {"teacher_dropout": 0.5, "teacher_weight_decay": 0.0005}),)
        ),
    }
    seed_axes = ("run",)
    published_seeds: ClassVar[Mapping[str, int]] = {"run": 10}
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
    data_type = "benchsuite.datasets.fairness_graphs:FairnessGraph"
    method_type = FairDistiller
    default_data = "biased-graph"

    def evaluate(self, method: Method, data: Mapping[str, Any], protocol: Any, ctx: RunContext) -> Outcome:
        """Train (or fetch) the teacher, distil, and judge on the test or validation nodes."""
        assert isinstance(method, FairDistiller)
        graph: FairnessGraph = data["test"]
        visible = student_view(graph)
        validation = Validation(graph.validation, graph.labels[graph.validation])
        teacher = train_teacher(graph, validation, protocol, ctx)
        with ctx.phase("fit"):
            student = method.distil(visible, teacher, validation, ctx)
        nodes = graph.test if ctx.split == "test" else graph.validation
        probabilities = _checked_probabilities(student.probabilities, graph)
        _write_predictions(ctx.artifact(_PREDICTIONS), nodes, probabilities[nodes])
        outcome = judge(graph, nodes, probabilities[nodes])
        outcome.parameters = student.parameters
        return outcome

    def with_other_answers(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the graph with the class of every test node changed."""
        graph: FairnessGraph = data["test"]
        labels = graph.labels.copy()
        labels[graph.test] = (labels[graph.test] + 1) % (labels.max() + 1)
        return dict.fromkeys(data, replace(graph, labels=labels))

    def score(self, predictions: Path, data: Mapping[str, Any], protocol: Any) -> Outcome:
        """Judge a CSV of test nodes: columns node, probability_0, probability_1, ..."""
        graph: FairnessGraph = data["test"]
        nodes, probabilities = _read_predictions(predictions)
        if not np.array_equal(np.sort(nodes), np.sort(graph.test)):
            raise DataError(f"{predictions}: needs exactly the {len(graph.test)} test nodes of {graph.name}, once each")
        return judge(graph, nodes, probabilities)


def student_view(graph: FairnessGraph) -> StudentGraph:
    """Return what a method may see of a graph."""
    return StudentGraph(
        features=graph.features,
        edge_index=graph.edge_index,
        sensitive=graph.sensitive,
        train=graph.train,
        validation=graph.validation,
        test=graph.test,
        train_labels=graph.labels[graph.train],
        num_classes=int(graph.labels.max()) + 1,
    )


def judge(graph: FairnessGraph, nodes: Integers, probabilities: NDArray[Any]) -> Outcome:
    """Return all metrics of class probabilities (len(nodes), C) on the given nodes."""
    labels, sensitive = graph.labels[nodes], graph.sensitive[nodes]
    predicted = probabilities.argmax(axis=1)
    scores: dict[str, float | None] = {
        "accuracy": classification.accuracy(predicted, labels),
        "f1": classification.f1(predicted, labels),
        "auroc": classification.auroc(probabilities, labels),
        "statistical_parity_difference": fairness.statistical_parity_difference(predicted, sensitive),
        "equal_opportunity_difference": fairness.equal_opportunity_difference(predicted, labels, sensitive),
    }
    reasons = {
        "f1": "no node of class 1 among labels and predictions",
        "auroc": "only one class among the labels",
        "statistical_parity_difference": "a group has no node here",
        "equal_opportunity_difference": "a group has no node of class 1 here",
    }
    undefined = {name: reasons[name] for name, value in scores.items() if value is None}
    counts = {"nodes": len(nodes), "nodes_of_group_1": int((sensitive == 1).sum())}
    return Outcome(scores=scores, undefined=undefined, counts=counts)


def train_teacher(
    graph: FairnessGraph, validation: Validation, protocol: FairDistillationProtocol, ctx: RunContext
) -> Teacher:
    """Return the teacher of this seed, trained once and shared by every student."""
    from benchsuite.tasks import _gnn_teachers

    inputs = {
        "graph": replace(graph, labels=_visible_labels(graph)).content_hash(),
        "seed": ctx.seed_for("run", "teacher"),
        **asdict(protocol),
    }

    def build(folder: Path) -> None:
        trained = _gnn_teachers.train_on(student_view(graph), validation.accuracy, protocol, ctx)
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


def _checked_probabilities(probabilities: NDArray[Any], graph: FairnessGraph) -> NDArray[Any]:
    probabilities = np.asarray(probabilities, dtype=np.float64)
    expected = (len(graph.labels), int(graph.labels.max()) + 1)
    if probabilities.shape != expected:
        raise InvalidPrediction(f"a student must predict probabilities of shape {expected}, not {probabilities.shape}")
    if not (np.isfinite(probabilities).all() and (probabilities >= 0).all()):
        raise InvalidPrediction("a student's probabilities must be finite and not negative")
    if not np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-3):
        raise InvalidPrediction("a student's probabilities must sum to 1 for every node")
    return probabilities


def _write_predictions(path: Path, nodes: Integers, probabilities: NDArray[Any]) -> None:
    columns = ",".join(["node", *(f"probability_{c}" for c in range(probabilities.shape[1]))])
    formats = ["%d"] + ["%.9g"] * probabilities.shape[1]
    np.savetxt(path, np.column_stack([nodes, probabilities]), fmt=formats, delimiter=",", header=columns, comments="")


def _read_predictions(path: Path) -> tuple[Integers, NDArray[Any]]:
    try:
        table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a table of node,probability_0,probability_1 ({error})") from None
    if table.shape[1] < 3 or not np.isfinite(table).all():
        raise DataError(f"{path}: needs columns node,probability_0,probability_1,... with finite numbers")
    return table[:, 0].astype(np.int64), table[:, 1:]
