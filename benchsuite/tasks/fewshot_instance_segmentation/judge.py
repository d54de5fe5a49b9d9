"""What a model predicts as COCO results, checked; the scores of a subset of classes; files of results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.datasets.coco.reader import ImageSet, Record, encode_mask
from benchsuite.metrics.instance_segmentation import AveragePrecision
from benchsuite.tasks.fewshot_instance_segmentation.contract import Detection, Segmenter

MOST_DETECTIONS = 100


def predict(model: Segmenter, images: ImageSet, classes: Sequence[int], chunk: int = 16) -> list[dict[str, Any]]:
    """Return a model's detections as COCO results, best first within an image.

    Raises
    ------
    InvalidPrediction
        For more than 100 detections in an image, unknown classes, or scores, masks or boxes that are out of range.
    """
    results: list[dict[str, Any]] = []
    known = frozenset(classes)
    for first in range(0, len(images), chunk):
        records = images[first : first + chunk]
        found = model.predict([record.pixels() for record in records])
        if len(found) != len(records):
            raise InvalidPrediction(f"predict returned {len(found)} lists for {len(records)} images")
        for record, detections in zip(records, found, strict=True):
            if len(detections) > MOST_DETECTIONS:
                raise InvalidPrediction(f"{len(detections)} detections in an image: at most {MOST_DETECTIONS} count")
            ordered = sorted(detections, key=lambda d: -d.score)
            results += [_as_result(d, record, known) for d in ordered]
    return results


def _as_result(detection: Detection, record: Record, classes: frozenset[int]) -> dict[str, Any]:
    if detection.category_id not in classes:
        raise InvalidPrediction(f"a detection of class {detection.category_id}, which this setting does not have")
    if not 0 <= detection.score <= 1:
        raise InvalidPrediction(f"a detection with the score {detection.score}: scores lie in [0, 1]")
    if detection.mask.shape != (record.height, record.width) or detection.mask.dtype != bool:
        raise InvalidPrediction(
            f"a mask of {detection.mask.dtype} {detection.mask.shape}: needs bool {(record.height, record.width)}"
        )
    box = [float(value) for value in detection.box]
    if len(box) != 4 or not all(math.isfinite(value) for value in box) or min(box[2:]) < 0:
        raise InvalidPrediction(f"a box {detection.box}: needs x, y, width, height in pixels")
    return {
        "image_id": record.image_id,
        "category_id": int(detection.category_id),
        "score": float(detection.score),
        "segmentation": encode_mask(detection.mask),
        "bbox": box,
    }


def named(prefix: str, suffix: str, found: AveragePrecision) -> dict[str, float | None]:
    """Return the metrics of a subset of classes under their names."""
    return {
        f"{prefix}ap{suffix}": found.ap,
        f"{prefix}ap50{suffix}": found.ap50,
        f"{prefix}ap75{suffix}": found.ap75,
        f"{prefix}ap_small{suffix}": found.small,
        f"{prefix}ap_medium{suffix}": found.medium,
        f"{prefix}ap_large{suffix}": found.large,
    }


def read_results(path: Path, images: ImageSet, classes: Sequence[int]) -> list[dict[str, Any]]:
    """Return the results of a COCO results file that are of these classes."""
    try:
        results = [_result(entry) for entry in json.loads(path.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a COCO results file ({type(error).__name__}: {error})") from None
    known = {record.image_id: [record.height, record.width] for record in images}
    for result in results:
        if known.get(result["image_id"]) != result["segmentation"]["size"]:
            raise DataError(f"{path}: image {result['image_id']} is no test image of that size")
    return [result for result in results if result["category_id"] in set(classes)]


def _result(entry: Mapping[str, Any]) -> dict[str, Any]:
    mask = entry["segmentation"]
    return {
        "image_id": int(entry["image_id"]),
        "category_id": int(entry["category_id"]),
        "score": float(entry["score"]),
        "segmentation": {"size": [int(side) for side in mask["size"]], "counts": str(mask["counts"])},
        "bbox": [float(value) for value in entry["bbox"]],
    }
