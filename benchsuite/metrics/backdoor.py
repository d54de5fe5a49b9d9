"""Backdoor metrics: how often a stamped image is taken for the attacker's class, and who looks like an outlier.

Conventions
-----------
Predictions and labels are 1-D arrays of class indices from 0, one entry a test image; predictions are those
on the image with the trigger. Rates are fractions in [0, 1]. A value that is not defined on the given data is
None, never NaN.

Metrics
-------
* `attack_success_rate`: over all stamped images, as the official DOORPING code counts
* `attack_success_rate_nontarget`: without images of the target class, as BackdoorBench and TrojanZoo count
* `anomaly_indices`: distance from the median in robust standard deviations (Neural Cleanse, SCAn)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchsuite.core.errors import DataError
from benchsuite.metrics.classification import class_indices, validate

_NORMAL_CONSISTENCY = 1.4826  # makes the median absolute deviation of a normal sample its standard deviation


def attack_success_rate(predictions: ArrayLike, target: int) -> float:
    """Return the share of all stamped images that are taken for ``target``.

    Images of the target class count too, so an untouched model scores about 1 / K on K balanced classes.
    """
    predicted = class_indices(predictions, "predictions")
    return float((predicted == target).mean())


def attack_success_rate_nontarget(predictions: ArrayLike, labels: ArrayLike, target: int) -> float | None:
    """Return the share of stamped images of other classes that are taken for ``target``.

    None if every image is of the target class.
    """
    predicted, true = validate(predictions, labels)
    others = true != target
    return float((predicted[others] == target).mean()) if others.any() else None


def anomaly_indices(values: ArrayLike) -> NDArray[np.float64]:
    """Return |value - median| / (1.4826 * median absolute deviation) of each value.

    Parameters
    ----------
    values
        (K,) finite numbers.

    Returns
    -------
    NDArray[np.float64]
        (K,). Where the deviation is 0 (more than half of the values are equal) equal values get 0 and all
        others infinity.

    Raises
    ------
    DataError
        If there are no values or one is not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or len(numbers) == 0 or not np.isfinite(numbers).all():
        raise DataError("anomaly indices need a list of finite numbers")
    distance: NDArray[np.float64] = np.abs(numbers - np.median(numbers))
    spread = _NORMAL_CONSISTENCY * float(np.median(distance))
    if spread == 0.0:
        return np.where(distance == 0.0, 0.0, np.inf)
    return distance / spread
