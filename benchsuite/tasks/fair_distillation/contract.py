"""What a student imports: the protocol, the visible graph, the teacher's view, the validation judge, the method."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Method, RunContext

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class FairDistillationProtocol:
    """What belongs to neither student nor data: the teacher, its training, and whose labels students see.

    The defaults are the published settings of the GCN teacher; the presets change what differs.

    Attributes
    ----------
    student_labels
        ``train``: students see the labels of the training nodes. ``all``: of all nodes, as in the official code of
        RELIANT, whose bias term reads them. Labels of test nodes leak then; such runs have a table of their own.
    """

    teacher: Literal["gcn", "graphsage"] = "gcn"
    teacher_epochs: int = 1000
    teacher_patience: int = 500
    teacher_lr: float = 0.01
    teacher_weight_decay: float = 0.001
    teacher_dropout: float = 0.8
    student_labels: Literal["train", "all"] = "train"


@dataclass(frozen=True)
class StudentGraph:
    """The graph as a student sees it: no label outside the training nodes, unless the protocol shows all.

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
    labels
        (N,) int64, of all nodes, only under ``student_labels=all``; else None.
    """

    features: Floats
    edge_index: Integers
    sensitive: Integers
    train: Integers
    validation: Integers
    test: Integers
    train_labels: Integers
    num_classes: int
    labels: Integers | None = None


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
            Take seeds from ``ctx.seed_for("run", ...)`` and draw epochs from ``ctx.resumable``.
        """
