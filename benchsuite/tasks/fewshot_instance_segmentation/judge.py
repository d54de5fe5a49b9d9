"""What a model predicts as COCO results, checked; the scores of a subset of classes; files of results."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.datasets import json_values
from benchsuite.datasets.coco import values
from benchsuite.datasets.coco.reader import (
    ImageSet,
    Record,
    encode_mask,
    encode_segmentation,
    mask_box,
    normal_segmentation,
)
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


def read_results(
    path: Path, images: ImageSet, classes: Sequence[int], known: Collection[int]
) -> tuple[list[dict[str, Any]], int]:
    """Return the results of a COCO results file that are of some classes, and the number of the others.

    Parameters
    ----------
    path
        A json list of ``image_id``, ``category_id``, ``score`` in [0, 1], ``segmentation`` (a run-length code, as text
        or as a list) and ``bbox`` (x, y, w, h in pixels). One entry twice is two detections.
    images
        The test images.
    classes
        Category ids that are judged.
    known
        Category ids that the data have.

    Raises
    ------
    DataError
        For json that is broken or no such list, entries that lack a field or have another type in it, unknown images
        and categories, masks of another size than their image's, and boxes that are not x, y, width, height in pixels.
    """
    entries, _ = json_values.read_json(path, "a COCO results file")
    if not isinstance(entries, list):
        raise DataError(f"{path}: not a COCO results file: needs a list of detections")
    sizes = {record.image_id: (record.height, record.width) for record in images}
    results = []
    for place, entry in enumerate(entries, start=1):
        try:
            results.append(_result(entry, sizes, known))
        except ValueError as error:
            raise DataError(f"{path}: not a COCO results file: detection {place} (from 1): {error}") from None
    pairs = [
        (result["bbox"], around, sizes[result["image_id"]])
        for result in results
        if any(around := mask_box(result["segmentation"]))
    ]
    if (other := values.other_reading(pairs)) is not None:
        raise DataError(
            f"{path}: most boxes (e.g. {json_values.shown(pairs[other[0]][0])}) are {other[1]}: give x, y, width,"
            " height in pixels"
        )
    judged = [result for result in results if result["category_id"] in set(classes)]
    return judged, len(results) - len(judged)


def _result(given: Any, sizes: Mapping[int, tuple[int, int]], known: Collection[int]) -> dict[str, Any]:
    entry = json_values.entry(given)
    image, category, score = values.detection(entry, sizes, known)
    height, width = sizes[image]
    return {
        "image_id": image,
        "category_id": category,
        "score": score,
        "segmentation": json_values.field(entry, "segmentation", lambda mask: _mask(mask, height, width)),
        "bbox": json_values.field(entry, "bbox", _box),
    }


def _mask(mask: Any, height: int, width: int) -> dict[str, Any]:
    """Return a run-length code as a compressed text of the image's size."""
    if not isinstance(mask, dict):
        raise ValueError(f"is {json_values.shown(mask)}: detections need run-length codes (size, counts)")
    if isinstance(mask.get("size"), list) and mask["size"] != [height, width]:
        raise ValueError(
            f"has the size {json_values.shown(mask['size'])}: its image, [{height}, {width}], is no test image of that"
            " size"
        )
    encoded = encode_segmentation(normal_segmentation(mask, height, width), height, width)
    counts = encoded["counts"]
    return {"size": [height, width], "counts": counts.decode() if isinstance(counts, bytes) else counts}


def _box(box: Any) -> list[float]:
    """Return x, y, width and height; a detector may find boxes that reach beyond the image."""
    return [float(value) for value in values.box(box, 0, 0, math.inf)]
