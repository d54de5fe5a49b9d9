"""Average precision of detected instances, exactly as pycocotools computes it, with class subsets.

The engine is hotcoco; the tests hold it against pycocotools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

IouType = Literal["segm", "bbox"]

_AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


@dataclass(frozen=True)
class AveragePrecision:
    """Means over classes, in [0, 1]; None: no object to find (of that size).

    Attributes
    ----------
    ap, ap50, ap75
        Over IoU thresholds .50 to .95, at .50, and at .75.
    small, medium, large
        Over objects below 32 x 32 pixels, below 96 x 96, and above.
    per_class
        Category id to ap.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    small: float | None
    medium: float | None
    large: float | None
    per_class: Mapping[int, float | None]


def average_precision(
    ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], classes: Sequence[int], iou_type: IouType
) -> AveragePrecision:
    """Score detections against a COCO data set.

    All images count, also those without an object of ``classes``. The best 100 detections of an image and class count.
    Without any detection every defined value is 0.

    Parameters
    ----------
    ground_truth
        ``images``, ``annotations`` and ``categories`` in the COCO format.
    detections
        Dicts of ``image_id``, ``category_id``, ``score``, and ``bbox`` (xywh) or ``segmentation`` (run-length code).
    classes
        Category ids to average over; a class without a countable object is left out of the mean.
    """
    kept = [_result(d, iou_type) for d in detections if d["category_id"] in set(classes)]
    if not kept or not ground_truth["annotations"]:
        return _without_detections(ground_truth, classes)
    precision = _precision(ground_truth, kept, sorted(set(classes)), iou_type)
    # precision: (IoU thresholds, recalls, classes, areas, numbers of detections); -1 where there is no object.
    at_100 = precision[..., -1]
    return AveragePrecision(
        ap=_mean(at_100[:, :, :, 0]),
        ap50=_mean(at_100[0, :, :, 0]),
        ap75=_mean(at_100[5, :, :, 0]),
        small=_mean(at_100[:, :, :, 1]),
        medium=_mean(at_100[:, :, :, 2]),
        large=_mean(at_100[:, :, :, 3]),
        per_class={c: _mean(at_100[:, :, k, 0]) for k, c in enumerate(sorted(set(classes)))},
    )


def _result(detection: Mapping[str, Any], iou_type: IouType) -> dict[str, Any]:
    """Return a detection with the one shape that counts: with both, sizes would be taken from the box."""
    shape = "bbox" if iou_type == "bbox" else "segmentation"
    return {key: detection[key] for key in ("image_id", "category_id", "score", shape)}


def _precision(
    ground_truth: Mapping[str, Any], detections: list[dict[str, Any]], classes: list[int], iou_type: IouType
) -> np.ndarray:
    from hotcoco import COCO, COCOeval

    truth = COCO(dict(ground_truth))
    evaluation = COCOeval(truth, truth.load_res(detections), iou_type)
    evaluation.params.cat_ids = classes
    evaluation.evaluate()
    evaluation.accumulate()
    accumulated: Any = evaluation.eval
    return np.asarray(accumulated["precision"])


def _mean(values: np.ndarray) -> float | None:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else None


def _without_detections(ground_truth: Mapping[str, Any], classes: Sequence[int]) -> AveragePrecision:
    countable = [a for a in ground_truth["annotations"] if a["category_id"] in set(classes) and not a.get("iscrowd", 0)]
    total = 0.0 if countable else None
    sizes = {
        name: 0.0 if any(low <= a["area"] <= high for a in countable) else None for name, (low, high) in _AREAS.items()
    }
    present = {a["category_id"] for a in countable}
    return AveragePrecision(
        total, total, total, **sizes, per_class={c: 0.0 if c in present else None for c in sorted(set(classes))}
    )
