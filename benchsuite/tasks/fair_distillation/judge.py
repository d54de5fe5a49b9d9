"""The judge: class probabilities to scores and counts; checking, writing and reading predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Outcome
from benchsuite.core.columns import read_rows
from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.datasets.fairness_graphs.graph import FairnessGraph
from benchsuite.metrics import classification, fairness
from benchsuite.tasks.fair_distillation.contract import Integers

SUM_TOLERANCE = 1e-3


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


def checked_probabilities(probabilities: NDArray[Any], graph: FairnessGraph) -> NDArray[Any]:
    """Return a student's class probabilities (N, C) as float64.

    Raises
    ------
    InvalidPrediction
        For a wrong shape, a value that is not finite or negative, or rows that do not sum to 1.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    expected = (len(graph.labels), int(graph.labels.max()) + 1)
    if probabilities.shape != expected:
        raise InvalidPrediction(f"a student must predict probabilities of shape {expected}, not {probabilities.shape}")
    if not (np.isfinite(probabilities).all() and (probabilities >= 0).all()):
        raise InvalidPrediction("a student's probabilities must be finite and not negative")
    if not np.allclose(probabilities.sum(axis=1), 1.0, atol=SUM_TOLERANCE):
        raise InvalidPrediction("a student's probabilities must sum to 1 for every node")
    return probabilities


def write_predictions(path: Path, nodes: Integers, probabilities: NDArray[Any]) -> None:
    """Write a CSV: columns node, probability_0, probability_1, ..."""
    columns = ",".join(["node", *(f"probability_{c}" for c in range(probabilities.shape[1]))])
    formats = ["%d"] + ["%.9g"] * probabilities.shape[1]
    np.savetxt(path, np.column_stack([nodes, probabilities]), fmt=formats, delimiter=",", header=columns, comments="")


def read_predictions(path: Path, graph: FairnessGraph) -> NDArray[Any]:
    """Return (len(graph.test), C) float64 probabilities in the order of the graph's test nodes.

    The file is a CSV as `write_predictions` makes it; its rows and its columns may stand in any order.

    Raises
    ------
    DataError
        One line that names the file and the line: columns other than node and one probability a class, a node that is
        not a test node or stands there twice, a probability that is no number in 0 .. 1, probabilities of a node that
        do not sum to 1 (within .001), a test node that is missing.
    """
    classes = [f"probability_{c}" for c in range(int(graph.labels.max()) + 1)]
    place = {node: i for i, node in enumerate(graph.test.tolist())}
    wanted = f"needs exactly the {len(place)} test nodes of {graph.name}, once each"
    found: dict[int, list[float]] = {}
    for row in read_rows(path, ["node", *classes]):
        node = row.whole("node")
        if node not in place:
            raise row.wrong(f"node {node} is not a test node: {wanted}")
        if node in found:
            raise row.wrong(f"node {node} stands there twice: {wanted}")
        found[node] = [row.number(name) for name in classes]
        outside = next((name for name, p in zip(classes, found[node], strict=True) if not 0 <= p <= 1), None)
        if outside is not None:
            raise row.wrong(f"{outside} is {row.cells[outside]}, not in 0 .. 1")
        if abs(sum(found[node]) - 1) > SUM_TOLERANCE:
            raise row.wrong(f"the probabilities of node {node} sum to {sum(found[node]):.6g}, not to 1")
    missing = next((node for node in place if node not in found), None)
    if missing is not None:
        raise DataError(f"{path}: {wanted}: node {missing} is missing")
    return np.array([found[node] for node in place], dtype=np.float64)
