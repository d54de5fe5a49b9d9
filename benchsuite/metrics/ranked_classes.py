"""Top-k accuracy: how often the true class is among the k that are thought most likely.

Conventions
-----------
Scores are real numbers, (N, C), larger meaning more likely; labels (N,) whole numbers below C. Equal scores are ranked
by class index, the lower first. Rates are fractions in [0, 1].

Metrics
-------
* `top_k_accuracy`: share of items whose true class is among the k best
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError
from benchsuite.metrics.classification import class_indices

__all__ = ["ranked", "top_k_accuracy"]


def ranked(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return the ``k`` most likely classes of each item, (N, k), the most likely first.

    Raises
    ------
    DataError
        If the scores are not finite numbers (N, C), or there are fewer than ``k`` classes.
    """
    if scores.ndim != 2 or scores.dtype.kind not in "fiu":
        raise DataError(f"scores are {scores.dtype} {scores.shape}: give real numbers (N, C)")
    if not np.isfinite(scores).all():
        raise DataError("scores hold NaN or infinite values: check the model's output")
    if not 1 <= k <= scores.shape[1]:
        raise DataError(f"there are no {k} best of {scores.shape[1]} classes")
    order = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")
    return order[:, :k].astype(np.int64)


def top_k_accuracy(best: NDArray[np.int64], labels: NDArray[np.int64], k: int) -> float:
    """Return the share of items whose label is among the first ``k`` of their ranked classes.

    Parameters
    ----------
    best
        (N, K) classes, the most likely first (`ranked`), K >= k.
    labels
        (N,) class indices.
    k
        How many count.

    Raises
    ------
    DataError
        If the arrays do not fit each other or are empty.
    """
    true = class_indices(labels, "labels")
    if best.ndim != 2 or len(best) != len(true) or not 1 <= k <= best.shape[1]:
        raise DataError(f"ranked classes of shape {best.shape} for {len(true)} labels and k = {k}: give (N, k) or more")
    return float((best[:, :k] == true[:, None]).any(axis=1).mean())
