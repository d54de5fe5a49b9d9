"""Classification metrics: how often, and how confidently, predicted classes are right.

Conventions
-----------
Labels and predictions are 1-D arrays of whole numbers, class indices from 0. Scores are real numbers,
larger meaning more likely: (N,) for class 1 of two, or one column a class, (N, C). Rates are fractions
in [0, 1]. A value that is not defined on the given data is None, never NaN.

Metrics
-------
* `accuracy`: share of correct predictions
* `f1`: harmonic mean of precision and recall
* `auroc`: probability that a random positive outranks a random negative
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchsuite.core.errors import DataError


def validate(predictions: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Check predicted and true classes, and return them as int64 arrays.

    Parameters
    ----------
    predictions, labels
        (N,) class indices, N >= 1.

    Raises
    ------
    DataError
        If the arrays are empty, differ in length, are not 1-D, or hold anything but class indices.
    """
    predicted = class_indices(predictions, "predictions")
    true = class_indices(labels, "labels")
    if len(predicted) != len(true):
        raise DataError(f"{len(predicted)} predictions but {len(true)} labels: give both for the same items")
    return predicted, true


def validate_scores(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Check scores and true classes, and return them as float64 and int64 arrays.

    Parameters
    ----------
    scores
        (N,) scores of class 1, or (N, C) scores of every class, C >= 2.
    labels
        (N,) class indices below C (0 and 1 for 1-D scores).

    Raises
    ------
    DataError
        If shapes do not fit, a score is not finite, or a label has no score column.
    """
    true = class_indices(labels, "labels")
    values = np.asarray(scores)
    if values.dtype.kind not in "fiub":
        raise DataError(f"scores are of type {values.dtype}: give real numbers")
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] < 2):
        raise DataError(f"scores have shape {values.shape}: give (N,) or (N, C) with at least two classes")
    if len(values) != len(true):
        raise DataError(f"{len(values)} rows of scores but {len(true)} labels: give both for the same items")
    if not np.isfinite(values).all():
        raise DataError("scores hold NaN or infinite values: check the model's output")
    num_classes = 2 if values.ndim == 1 else values.shape[1]
    if true.max() >= num_classes:
        raise DataError(f"label {true.max()} has no score: the scores cover {num_classes} classes")
    return values.astype(np.float64, copy=False), true


def class_indices(values: ArrayLike, what: str) -> NDArray[np.int64]:
    """Return whole numbers >= 0 as a 1-D int64 array.

    Parameters
    ----------
    values
        (N,) of any integer, boolean or whole-valued floating type, N >= 1.
    what
        What the values are, for messages.

    Raises
    ------
    DataError
        If the values are empty, not 1-D, not finite, not whole, or negative.
    """
    array: NDArray[Any] = np.asarray(values)
    if array.ndim != 1:
        hint = " - did you pass scores instead of classes?" if array.ndim == 2 else ""
        raise DataError(f"{what} must be 1-D, not of shape {array.shape}{hint}")
    if array.size == 0:
        raise DataError(f"{what} are empty: there is nothing to measure")
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what} are of type {array.dtype}: give class indices")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise DataError(f"{what} hold NaN or infinite values")
        if (array != np.floor(array)).any():
            raise DataError(f"{what} are not whole numbers - did you pass probabilities instead of classes?")
    if array.min() < 0:
        raise DataError(f"{what} hold {array.min()}: classes are numbered from 0 (code -1 as 0)")
    return array.astype(np.int64, copy=False)


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Return the share of predictions that equal their label.

    Parameters
    ----------
    predictions, labels
        (N,) class indices.

    Returns
    -------
    float
        Fraction in [0, 1]. Equals scikit-learn's ``accuracy_score``.

    Raises
    ------
    DataError
        See `validate`.
    """
    predicted, true = validate(predictions, labels)
    return float((predicted == true).mean())


def f1(predictions: ArrayLike, labels: ArrayLike, num_classes: int | None = None) -> float | None:
    """Return the F1 score, ``2 TP / (2 TP + FP + FN)``.

    For two classes it is the score of class 1. For more it is the unweighted mean over the classes that
    occur among labels or predictions (scikit-learn's ``f1_score`` with ``average="macro"``).

    Parameters
    ----------
    predictions, labels
        (N,) class indices.
    num_classes
        Number of classes of the problem; default: the largest index present plus one, at least 2. Give
        it where a class may be absent from the evaluated items.

    Returns
    -------
    float or None
        Fraction in [0, 1]; None for two classes when class 1 neither occurs nor is predicted (0/0).

    Raises
    ------
    DataError
        See `validate`; or if a class is not below ``num_classes``.
    """
    predicted, true = validate(predictions, labels)
    classes = count_classes(num_classes, predicted, true)
    hits = np.bincount(true[predicted == true], minlength=classes)
    occurrences = np.bincount(true, minlength=classes) + np.bincount(predicted, minlength=classes)
    if classes == 2:
        return float(2 * hits[1] / occurrences[1]) if occurrences[1] else None
    present = occurrences > 0
    return float((2 * hits[present] / occurrences[present]).mean())


def auroc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Return the area under the ROC curve as a rank statistic.

    The area is the probability that a random item of the class scores higher than a random other item,
    ties counting one half (Mann-Whitney U divided by the number of pairs). For more than two classes it
    is the unweighted mean over classes of each class against the rest (scikit-learn's ``roc_auc_score``
    with ``multi_class="ovr"``).

    Parameters
    ----------
    scores
        (N,) scores of class 1, or (N, C) scores of every class; of two columns only the last is used.
    labels
        (N,) class indices.

    Returns
    -------
    float or None
        Fraction in [0, 1]; None when a class has no item or no other item to be ranked against.

    Raises
    ------
    DataError
        See `validate_scores`.
    """
    values, true = validate_scores(scores, labels)
    if values.ndim == 1:
        return _binary_auroc(values, true == 1)
    if values.shape[1] == 2:
        return _binary_auroc(values[:, 1], true == 1)
    areas = [_binary_auroc(values[:, c], true == c) for c in range(values.shape[1])]
    defined = [area for area in areas if area is not None]
    return float(np.mean(defined)) if len(defined) == len(areas) else None


def count_classes(num_classes: int | None, *arrays: NDArray[np.int64]) -> int:
    """Return the number of classes: as given, else the largest index present plus one, at least 2.

    Raises
    ------
    DataError
        If an index is not below ``num_classes``.
    """
    largest = max(int(array.max()) for array in arrays)
    if num_classes is None:
        return max(largest + 1, 2)
    if largest >= num_classes:
        raise DataError(f"class {largest} does not exist: there are {num_classes} classes, numbered from 0")
    return num_classes


def _binary_auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if positives == 0 or negatives == 0:
        return None
    _, order, counts = np.unique(scores, return_inverse=True, return_counts=True)
    # Items of equal score share the mean of the ranks (from 1) that they occupy together.
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[order]
    wins = ranks[positive].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))
