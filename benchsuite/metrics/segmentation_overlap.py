"""Overlap of predicted and true foreground masks, as few-shot semantic segmentation counts it.

An episode has one class against the rest. Its areas of intersection and union, of background and of foreground, are
added up over all episodes of a class; ratios are taken of the sums (common/evaluation.py and common/logger.py of
HSNet, which MSHNet shares). Areas are whole numbers of pixels, int64: the official single-precision sums round beyond
2**24.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Overlap", "areas", "overlap", "validate"]

Areas = NDArray[np.int64]
"""(2, 2): intersection and union, each of background and foreground, in pixels."""


@dataclass(frozen=True)
class Overlap:
    """The overlap of all episodes.

    Attributes
    ----------
    miou
        Mean of ``per_class``, in [0, 1].
    fb_iou
        Mean of the pooled IoU of background and of foreground; None where one of them has no pixel at all.
    per_class
        Class to the IoU of its foreground; 0 for a class without episodes.
    """

    miou: float
    fb_iou: float | None
    per_class: Mapping[int, float]


def validate(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], ignored: NDArray[np.bool_]) -> None:
    """Raise `ValueError` unless all three are truth values of one shape (H, W)."""
    for name, mask in (("predicted", predicted), ("truth", truth), ("ignored", ignored)):
        if mask.dtype != bool:
            raise ValueError(f"{name} is {mask.dtype}, needs bool: is it a probability, or a label map?")
        if mask.ndim != 2 or mask.shape != truth.shape:
            raise ValueError(f"{name} has shape {mask.shape}, the truth {truth.shape}: needs the same (H, W)")


def areas(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], ignored: NDArray[np.bool_]) -> Areas:
    """Return intersection and union of background and foreground over the pixels that are not ignored.

    Parameters
    ----------
    predicted, truth, ignored
        (H, W) bool.

    Returns
    -------
    (2, 2) int64: [[I_0, I_1], [U_0, U_1]] with U_v = #(pred = v) + #(truth = v) - I_v.

    Raises
    ------
    ValueError
        See `validate`.
    """
    validate(predicted, truth, ignored)
    counts = np.bincount(2 * truth[~ignored] + predicted[~ignored].astype(np.int64), minlength=4)
    neither, false_alarm, missed, both = counts.astype(np.int64)
    wrong = false_alarm + missed
    return np.array([[neither, both], [neither + wrong, both + wrong]], dtype=np.int64)


def overlap(labels: Sequence[int], episodes: Iterable[Areas], classes: Sequence[int]) -> Overlap:
    """Return mIoU and FB-IoU of episodes.

    Parameters
    ----------
    labels
        The class of each episode.
    episodes
        The areas of each episode, see `areas`.
    classes
        All classes of the fold: one without episodes counts as 0 in the mean.

    Raises
    ------
    ValueError
        If an episode is of another class, there is no class, or the two lists differ in length.
    """
    if not classes:
        raise ValueError("there are no classes to average over")
    pooled = {label: np.zeros((2, 2), dtype=np.int64) for label in classes}
    for label, found in zip(labels, episodes, strict=True):
        if label not in pooled:
            raise ValueError(f"an episode of class {label}, which is none of {sorted(pooled)}")
        pooled[label] += found
    per_class = {label: float(found[0, 1] / max(found[1, 1], 1)) for label, found in pooled.items()}
    intersection, union = np.sum(list(pooled.values()), axis=0)
    fb_iou = float((intersection / union).mean()) if union.all() else None
    return Overlap(float(np.mean(list(per_class.values()))), fb_iou, per_class)
