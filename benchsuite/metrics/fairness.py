"""Group fairness of hard predictions: how differently a classifier treats the groups.

Conventions
-----------
Predictions and labels are (N,) class indices, the sensitive attribute is (N,) group indices; all count
from 0. Differences are fractions in [0, 1], 0 meaning equal treatment. Only the evaluated items belong
in the arrays: pass the test nodes, not the whole graph. With several classes or groups the difference of
a class is the largest over all pairs of groups, and ``reduce`` says how the classes are combined.

A value that needs an empty group is None, never NaN.

Metrics
-------
* `statistical_parity_difference`: do the groups get each class equally often?
* `equal_opportunity_difference`: is each class recognised equally often in all groups?
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchsuite.core.errors import DataError
from benchsuite.metrics.classification import class_indices, count_classes

Reduce = Literal["mean", "max"]


def validate(sensitive: ArrayLike, **classes: ArrayLike) -> tuple[NDArray[np.int64], ...]:
    """Check group indices and any number of class arrays, and return them as int64 arrays.

    Parameters
    ----------
    sensitive
        (N,) group indices, N >= 1.
    **classes
        (N,) class indices by name (``predictions=...``).

    Raises
    ------
    DataError
        If an array is empty, not 1-D, of another length, or holds anything but indices.
    """
    groups = class_indices(sensitive, "sensitive")
    checked = [groups]
    for name, values in classes.items():
        array = class_indices(values, name)
        if len(array) != len(groups):
            raise DataError(f"{len(array)} {name} but {len(groups)} sensitive values: give both for the same items")
        checked.append(array)
    return tuple(checked)


def statistical_parity_difference(
    predictions: ArrayLike,
    sensitive: ArrayLike,
    reduce: Reduce = "mean",
    num_classes: int | None = None,
) -> float | None:
    """Return how differently often the groups are assigned the classes.

    For two classes and two groups this is ``|P(p = 1 | s = 0) - P(p = 1 | s = 1)|``. In general, per
    class c, ``max over groups a, b of |P(p = c | s = a) - P(p = c | s = b)|``, combined over classes.
    Equals fairlearn's ``demographic_parity_difference`` for two classes.

    Parameters
    ----------
    predictions
        (N,) predicted classes.
    sensitive
        (N,) groups. Groups are the values 0 .. the largest present.
    reduce
        How the classes are combined; for two classes both give the same.
    num_classes
        Number of classes of the problem; default: the largest prediction plus one, at least 2.

    Returns
    -------
    float or None
        Fraction in [0, 1]; None if a group has no item.

    Raises
    ------
    DataError
        See `validate`.
    """
    groups, predicted = validate(sensitive, predictions=predictions)
    counts = _contingency(groups, predicted, count_classes(num_classes, predicted))
    sizes = counts.sum(axis=1, keepdims=True)
    if (sizes == 0).any():
        return None
    return _combine(_largest_gaps(counts / sizes), reduce)


def equal_opportunity_difference(
    predictions: ArrayLike,
    labels: ArrayLike,
    sensitive: ArrayLike,
    reduce: Reduce = "mean",
    num_classes: int | None = None,
) -> float | None:
    """Return how differently often a class is recognised in the groups.

    For two classes only class 1 counts: the difference of true positive rates,
    ``|P(p = 1 | s = 0, y = 1) - P(p = 1 | s = 1, y = 1)|`` (the largest over pairs of groups). For more,
    per class c, ``max over groups a, b of |P(p = c | s = a, y = c) - P(p = c | s = b, y = c)|``, combined
    over classes. Equals fairlearn's ``equal_opportunity_difference`` for two classes; it is not the
    equalized-odds difference, which also looks at false positives.

    Parameters
    ----------
    predictions, labels
        (N,) predicted and true classes.
    sensitive
        (N,) groups. Groups are the values 0 .. the largest present.
    reduce
        How more than two classes are combined.
    num_classes
        Number of classes of the problem; default: the largest index present plus one, at least 2.

    Returns
    -------
    float or None
        Fraction in [0, 1]; None if a group has no item of a class that counts.

    Raises
    ------
    DataError
        See `validate`.
    """
    groups, predicted, true = validate(sensitive, predictions=predictions, labels=labels)
    classes = count_classes(num_classes, predicted, true)
    occurrences = _contingency(groups, true, classes)
    right = predicted == true
    hits = _contingency(groups[right], true[right], classes, num_groups=len(occurrences))
    if classes == 2:
        occurrences, hits = occurrences[:, 1:], hits[:, 1:]
    if (occurrences == 0).any():
        return None
    return _combine(_largest_gaps(hits / occurrences), reduce)


def _contingency(
    groups: NDArray[np.int64], classes: NDArray[np.int64], num_classes: int, num_groups: int | None = None
) -> NDArray[np.int64]:
    """Count items by group and class, (G, C); at least two groups, so that a lone one has an empty peer."""
    if num_groups is None:
        num_groups = max(int(groups.max()) + 1, 2)
    cells = np.bincount(groups * num_classes + classes, minlength=num_groups * num_classes)
    return cells.reshape(num_groups, num_classes)


def _largest_gaps(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    # The largest difference over all pairs is that between the extremes.
    return rates.max(axis=0) - rates.min(axis=0)


def _combine(gaps: NDArray[np.float64], reduce: Reduce) -> float:
    if reduce == "mean":
        return float(gaps.mean())
    if reduce == "max":
        return float(gaps.max())
    raise DataError(f"reduce cannot be {reduce!r}: choose 'mean' or 'max'")
