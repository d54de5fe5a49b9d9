"""Average precision of detected instances, exactly as pycocotools computes it, with class subsets.

The engine is hotcoco; the tests hold it against pycocotools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

IouType = Literal["segm", "bbox"]

_MOST_DETECTIONS = 100  # of an image and class
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
    """Score detections of some classes against a COCO data set; see `average_precisions`."""
    return average_precisions(ground_truth, detections, [classes], iou_type)[0]


def average_precisions(
    ground_truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    subsets: Sequence[Sequence[int]],
    iou_type: IouType,
) -> list[AveragePrecision]:
    """Score detections against a COCO data set, once for all subsets of classes.

    All images count, also those without an object of a subset. The best 100 detections of an image and class count.
    Without any detection every defined value is 0.

    Parameters
    ----------
    ground_truth
        ``images``, ``annotations`` and ``categories`` in the COCO format.
    detections
        Dicts of ``image_id``, ``category_id``, ``score``, and ``bbox`` (xywh) or ``segmentation`` (run-length code).
    subsets
        For each, category ids to average over; a class without a countable object is left out of the mean.
    iou_type
        ``segm`` compares masks, ``bbox`` boxes.
    """
    every = sorted({c for subset in subsets for c in subset})
    table = _table(detections, "bbox" if iou_type == "bbox" else None)
    chosen = np.isin(table[:, -1], every)
    if not chosen.any() or not ground_truth["annotations"]:
        return [_without_detections(ground_truth, subset) for subset in subsets]
    codes = None
    if iou_type == "segm":
        codes = [d["segmentation"] for d, wanted in zip(detections, chosen, strict=True) if wanted]
    truth = _truth(ground_truth, iou_type)
    precision = _precision(truth, _results(truth, table[chosen], codes), every, iou_type)
    places = {c: place for place, c in enumerate(every)}
    return [_averages(precision, {c: places[c] for c in sorted(set(subset))}) for subset in subsets]


def _averages(precision: np.ndarray, places: Mapping[int, int]) -> AveragePrecision:
    """Return the means over some classes, given their places in (IoU thresholds, recalls, classes, areas)."""
    of_classes = precision[:, :, list(places.values())]
    return AveragePrecision(
        ap=_mean(of_classes[:, :, :, 0]),
        ap50=_mean(of_classes[0, :, :, 0]),
        ap75=_mean(of_classes[5, :, :, 0]),
        small=_mean(of_classes[:, :, :, 1]),
        medium=_mean(of_classes[:, :, :, 2]),
        large=_mean(of_classes[:, :, :, 3]),
        per_class={c: _mean(precision[:, :, place, 0]) for c, place in places.items()},
    )


def _precision(truth: Any, results: Any, classes: list[int], iou_type: IouType) -> np.ndarray:
    """Return precision (IoU thresholds, recalls, classes, areas); -1 where there is no object."""
    from hotcoco import COCOeval

    evaluation = COCOeval(truth, results, iou_type)
    evaluation.params.cat_ids = classes
    evaluation.params.max_dets = [_MOST_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    accumulated: Any = evaluation.eval
    return np.asarray(accumulated["precision"])[..., 0]


def _truth(ground_truth: Mapping[str, Any], iou_type: IouType) -> Any:
    """Return the engine's data set, made from columns: a dictionary an object takes it longer to read."""
    from hotcoco import COCO

    annotations = ground_truth["annotations"]
    return COCO.from_arrays(
        ground_truth["images"],
        ground_truth["categories"],
        np.array([a["image_id"] for a in annotations]),
        np.array([a["category_id"] for a in annotations]),
        np.array([a["bbox"] for a in annotations], dtype=np.float64),
        ids=np.array([a["id"] for a in annotations]),
        area=np.array([a["area"] for a in annotations], dtype=np.float64),
        iscrowd=np.array([a.get("iscrowd", 0) for a in annotations]),
        segmentation=[a["segmentation"] for a in annotations] if iou_type == "segm" else None,
    )


def _results(truth: Any, table: np.ndarray, codes: list[Any] | None) -> Any:
    """Return the engine's detections from rows of `_table`, sized by their boxes, or by their masks if given."""
    if codes is None:
        return truth.load_res(table)
    from hotcoco import mask as masks

    results = truth.load_res(table, segmentation=codes)
    results.update_anns(ids=np.arange(1, len(codes) + 1), area=np.asarray(masks.area(codes), dtype=np.float64))
    return results


def _table(detections: Sequence[Mapping[str, Any]], box: str | None) -> np.ndarray:
    """Return rows of image, box, score and class, float64 (N, 7); without the name of a ``box``, of an empty one."""
    values: list[float] = []  # one flat list: an object a row would cost as much as all the rest
    add, extend = values.append, values.extend
    for detection in detections:
        add(detection["image_id"])
        extend((0, 0, 0, 0) if box is None else detection[box])
        add(detection["score"])
        add(detection["category_id"])
    return np.array(values, dtype=np.float64).reshape(-1, 7)


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
