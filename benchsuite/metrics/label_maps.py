"""Semantic segmentation: how well predicted label maps cover the true ones.

Conventions
-----------
Label maps are whole numbers, one a pixel, any shape. Pixels whose true label is ``ignored`` are dropped from prediction
and truth. For each class c the areas of a whole set are summed first: I_c pixels that are c in both, P_c predicted, G_c
true. Ratios are taken of the sums: IoU_c = I_c / (P_c + G_c - I_c), Acc_c = I_c / G_c. A class that occurs in neither
map has no IoU, one that does not occur in the truth no accuracy (0/0): means leave it out. Ratios lie in [0, 1].

Metrics
-------
* `Overlap.miou`, `Overlap.macc`: means of IoU_c and Acc_c over the classes that have one
* `Overlap.aacc`: sum of I over sum of G

Equal to mmsegmentation's (``mmseg/core/evaluation/metrics.py`` of v0.28, ``IoUMetric`` of v1).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError

__all__ = ["Overlap", "areas", "overlap", "validate"]

Areas = NDArray[np.float64]
"""(3, C): intersection, predicted and true pixels of every class."""


@dataclass(frozen=True)
class Overlap:
    """The overlap over a whole set; None: no class has such a ratio.

    Attributes
    ----------
    miou, macc, aacc
        See the module.
    iou, accuracy
        Of each class, None where there is none.
    """

    miou: float | None
    macc: float | None
    aacc: float | None
    iou: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]


def validate(predicted: NDArray[Any], truth: NDArray[Any], classes: int, ignored: int) -> None:
    """Check two label maps.

    Raises
    ------
    DataError
        If they are no whole numbers, differ in shape, or hold a label that is no class (nor ignored, in the truth).
    """
    for name, labels in (("predicted", predicted), ("true", truth)):
        if labels.dtype.kind not in "iu":
            raise DataError(f"{name} labels are {labels.dtype}: give class indices - did you pass scores?")
    if predicted.shape != truth.shape:
        raise DataError(
            f"a predicted label map is {predicted.shape}, the true one {truth.shape}: resize the prediction"
        )
    wrong = predicted[(predicted < 0) | (predicted >= classes)]
    if wrong.size:
        raise DataError(f"a predicted label is {wrong.flat[0]}: there are {classes} classes, numbered from 0")
    wrong = truth[((truth < 0) | (truth >= classes)) & (truth != ignored)]
    if wrong.size:
        raise DataError(f"a true label is {wrong.flat[0]}: neither one of {classes} classes nor {ignored} (ignored)")


def areas(predicted: NDArray[Any], truth: NDArray[Any], classes: int, ignored: int = 255) -> Areas:
    """Return the areas of one pair of label maps, see the module.

    Parameters
    ----------
    predicted, truth
        Label maps of one shape.
    classes
        Their number, C.
    ignored
        The true label that counts nowhere.

    Raises
    ------
    DataError
        See `validate`.
    """
    validate(predicted, truth, classes, ignored)
    counted = truth != ignored
    found, true = predicted[counted].astype(np.int64), truth[counted].astype(np.int64)
    parts = (true[found == true], found, true)
    return np.array([np.bincount(labels, minlength=classes) for labels in parts], dtype=np.float64)


def overlap(pairs: Iterable[Areas]) -> Overlap:
    """Return the scores of a set from the areas of its pairs; raises `DataError` if there is none."""
    whole: Areas | int = 0
    for pair in pairs:
        whole = whole + pair
    if isinstance(whole, int):
        raise DataError("there is no label map to measure")
    both, found, true = whole
    with np.errstate(invalid="ignore", divide="ignore"):
        iou, accuracy = both / (found + true - both), both / true
    return Overlap(
        miou=_mean(iou),
        macc=_mean(accuracy),
        aacc=float(both.sum() / true.sum()) if true.any() else None,
        iou=_values(iou),
        accuracy=_values(accuracy),
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def _values(values: NDArray[np.float64]) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else float(value) for value in values)
