"""Tables of features and class labels: scikit-learn's digits, and data of a linear teacher.

Both are embedded: the digits come with scikit-learn, the teacher's data are generated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.datasets.tabular_digits import DIGITS, LINEAR_TEACHER


@dataclass(frozen=True)
class TabularDataset:
    """Samples with a class each.

    Attributes
    ----------
    name
        For messages.
    features
        (N, F) float32.
    labels
        (N,) int64 in [0, num_classes).
    train, validation, test
        Sample indices, int64, disjoint.
    num_classes
        Number of classes.
    """

    name: str
    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    num_classes: int


def load_digits(root: Path | None, draw: int) -> TabularDataset:
    """Return the 1,797 handwritten digits of 8 x 8 pixels, grey values in [0, 1], split once for all runs."""
    from sklearn import datasets

    pixels, labels = datasets.load_digits(return_X_y=True)
    parts = _split(len(labels), DIGITS["train"], DIGITS["validation"], DIGITS["split_seed"])
    return _dataset("digits", pixels / 16.0, labels, 10, parts)


def load_linear_teacher(root: Path | None, draw: int) -> TabularDataset:
    """Return Gaussian samples labelled by the largest of their noisy linear scores; every draw has its own teacher."""
    samples, width, classes = LINEAR_TEACHER["samples"], LINEAR_TEACHER["features"], LINEAR_TEACHER["classes"]
    rng = np.random.default_rng([7, draw])
    features = rng.standard_normal((samples, width))
    scores = features @ rng.standard_normal((width, classes))
    scores += LINEAR_TEACHER["noise"] * rng.standard_normal((samples, classes))
    parts = _split(samples, LINEAR_TEACHER["train"], LINEAR_TEACHER["validation"], 0)
    return _dataset("linear-teacher", features, scores.argmax(axis=1), classes, parts)


def _split(size: int, train: float, validation: float, seed: int) -> list[NDArray[np.int64]]:
    order = np.random.default_rng(seed).permutation(size)
    return np.split(order, [int(train * size), int((train + validation) * size)])


def _dataset(
    name: str, features: NDArray[Any], labels: NDArray[Any], num_classes: int, parts: list[NDArray[np.int64]]
) -> TabularDataset:
    train, validation, test = parts
    return TabularDataset(
        name=name,
        features=np.ascontiguousarray(features, dtype=np.float32),
        labels=labels.astype(np.int64),
        train=np.sort(train),
        validation=np.sort(validation),
        test=np.sort(test),
        num_classes=num_classes,
    )
