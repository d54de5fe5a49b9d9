"""Tables of features and class labels: scikit-learn's digits, and data of a linear teacher.

Both are embedded: the digits come with scikit-learn, the teacher's data are generated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SPLIT_SEED = 0


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
    """Return the 1,797 handwritten digits of 8 x 8 pixels, grey values in [0, 1].

    Split once for all runs: 60 % training, 15 % validation, 25 % test.
    """
    from sklearn import datasets

    pixels, labels = datasets.load_digits(return_X_y=True)
    return _split("digits", pixels / 16.0, labels, 10)


def load_linear_teacher(root: Path | None, draw: int) -> TabularDataset:
    """Return 6,000 Gaussian samples of 64 features, labelled by the largest of ten noisy linear scores."""
    rng = np.random.default_rng([7, draw])
    features = rng.standard_normal((6000, 64))
    scores = features @ rng.standard_normal((64, 10)) + rng.standard_normal((6000, 10))
    return _split("linear-teacher", features, scores.argmax(axis=1), 10)


def _split(name: str, features: NDArray[Any], labels: NDArray[Any], num_classes: int) -> TabularDataset:
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
    train, validation, test = np.split(order, [int(0.6 * len(order)), int(0.75 * len(order))])
    return TabularDataset(
        name=name,
        features=np.ascontiguousarray(features, dtype=np.float32),
        labels=labels.astype(np.int64),
        train=np.sort(train),
        validation=np.sort(validation),
        test=np.sort(test),
        num_classes=num_classes,
    )
