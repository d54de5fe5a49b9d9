"""The judge: class probabilities to scores and counts; checking, writing and reading predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Outcome
from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.datasets.fairness_graphs.graph import FairnessGraph
from benchsuite.metrics import classification, fairness
from benchsuite.tasks.fair_distillation.contract import Integers


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
    if not np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-3):
        raise InvalidPrediction("a student's probabilities must sum to 1 for every node")
    return probabilities


def write_predictions(path: Path, nodes: Integers, probabilities: NDArray[Any]) -> None:
    """Write a CSV: columns node, probability_0, probability_1, ..."""
    columns = ",".join(["node", *(f"probability_{c}" for c in range(probabilities.shape[1]))])
    formats = ["%d"] + ["%.9g"] * probabilities.shape[1]
    np.savetxt(path, np.column_stack([nodes, probabilities]), fmt=formats, delimiter=",", header=columns, comments="")


def read_predictions(path: Path) -> tuple[Integers, NDArray[Any]]:
    """Read what `write_predictions` wrote, or a table like it.

    Raises
    ------
    DataError
        If it is no such table.
    """
    try:
        table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a table of node,probability_0,probability_1 ({error})") from None
    if table.shape[1] < 3 or not np.isfinite(table).all():
        raise DataError(f"{path}: needs columns node,probability_0,probability_1,... with finite numbers")
    return table[:, 0].astype(np.int64), table[:, 1:]
