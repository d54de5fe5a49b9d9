"""What trained models predict, checked, and what it is worth: classes, label maps and boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Outcome
from benchsuite.core.errors import InvalidPrediction
from benchsuite.metrics.instance_segmentation import average_precision
from benchsuite.metrics.label_maps import Areas, areas, overlap
from benchsuite.metrics.ranked_classes import ranked, top_k_accuracy
from benchsuite.tasks.visual_recognition.contract import (
    IGNORED,
    MOST_DETECTIONS,
    Found,
    Trained,
    TrainedDetector,
)
from benchsuite.tasks.visual_recognition.sources import Annotated

if TYPE_CHECKING:
    import torch

__all__ = [
    "BATCH",
    "RANKS",
    "checked",
    "judge_boxes",
    "judge_classes",
    "judge_maps",
    "predict_boxes",
    "predict_classes",
    "predict_map",
    "ranks_of",
]

BATCH = 50
"""Pictures of a batch of prediction."""

RANKS = 5
"""So many of the classes thought most likely are kept."""

_NO_TOP5 = "five classes or fewer: every picture would be right"

Detection = dict[str, Any]
"""``image_id``, ``category_id``, ``bbox`` (x, y, w, h in pixels) and ``score``."""


def checked(trained: Any, kind: type[Trained]) -> Any:
    """Return what a method returned, its network in evaluation mode; raises `InvalidPrediction` if it is none."""
    from torch import nn

    if not isinstance(trained, kind) or not isinstance(trained.network, nn.Module):
        raise InvalidPrediction(f"the method returned {type(trained).__name__}, needs {kind.__name__} with a network")
    trained.network.eval()
    return trained


def ranks_of(classes: int) -> int:
    """Return how many ranked classes are kept where there are so many."""
    return min(RANKS, classes)


def predict_classes(
    trained: Trained, count: int, classes: int, prepared: Callable[[Sequence[int]], torch.Tensor], device: str
) -> NDArray[np.int64]:
    """Return the ranked classes (N, K) of all pictures, the most likely first.

    Raises
    ------
    InvalidPrediction
        For logits of another shape or type, or that are not finite.
    """
    import torch

    found = []
    for first in range(0, count, BATCH):
        batch = prepared(range(first, min(first + BATCH, count)))
        with torch.no_grad():
            logits = trained.network(batch.to(device))
        if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != (len(batch), classes):
            raise InvalidPrediction(f"logits are {_kind(logits)}: needs a tensor {(len(batch), classes)}")
        found.append(ranked(_finite(logits), ranks_of(classes)))
    return np.concatenate(found)


def judge_classes(best: NDArray[np.int64], labels: NDArray[np.int64], names: Sequence[str]) -> Outcome:
    """Return the quality of ranked classes (N, K)."""
    scores: dict[str, float | None] = {"top1": top_k_accuracy(best, labels, 1), "top5": None}
    undefined = {"top5": _NO_TOP5}
    if len(names) > RANKS:
        scores["top5"], undefined = top_k_accuracy(best, labels, RANKS), {}
    right = best[:, 0] == labels
    rows = [
        {"class": names[label], "pictures": int((labels == label).sum()), "top1": float(right[labels == label].mean())}
        for label in np.unique(labels).tolist()
    ]
    counts = {"test_pictures": len(labels), "classes": len(names), "right": int(right.sum())}
    return Outcome(scores, undefined, counts, {"classes": rows})


def predict_map(
    trained: Trained, image: torch.Tensor, classes: int, height: int, width: int, device: str
) -> NDArray[np.uint8]:
    """Return the label map (height, width) of one picture.

    Logits are brought to the size of the input, then to that of the picture, bilinear each, as mmsegmentation does; the
    first of the largest is the class.

    Raises
    ------
    InvalidPrediction
        For logits of another shape or type, or that are not finite.
    """
    import torch
    from torch.nn import functional

    with torch.no_grad():
        logits = trained.network(image.to(device))
        if not isinstance(logits, torch.Tensor) or logits.ndim != 4 or tuple(logits.shape[:2]) != (1, classes):
            raise InvalidPrediction(f"logits are {_kind(logits)}: needs a tensor (1, {classes}, h, w)")
        _finite(logits)
        for size in (tuple(image.shape[2:]), (height, width)):
            if tuple(logits.shape[2:]) != size:
                logits = functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        found: NDArray[np.uint8] = logits[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return found


def judge_maps(pairs: Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]], names: Sequence[str]) -> Outcome:
    """Return the quality of pairs of predicted and true label maps."""
    sums: list[Areas] = [areas(predicted, truth, len(names), IGNORED) for predicted, truth in pairs]
    found = overlap(sums)
    scores = {"miou": found.miou, "macc": found.macc, "aacc": found.aacc}
    undefined = {name: "every pixel is ignored" for name, value in scores.items() if value is None}
    rows = [
        {"class": name, "iou": iou, "accuracy": accuracy}
        for name, iou, accuracy in zip(names, found.iou, found.accuracy, strict=True)
    ]
    counts = {
        "test_pictures": len(sums),
        "classes": len(names),
        "classes_with_iou": sum(iou is not None for iou in found.iou),
        "pixels": int(sum(pair[2].sum() for pair in sums)),
    }
    return Outcome(scores, undefined, counts, {"classes": rows})


def predict_boxes(
    trained: TrainedDetector,
    test: Annotated,
    categories: Sequence[int],
    prepared: Callable[[Sequence[int]], tuple[torch.Tensor, NDArray[np.int64], NDArray[np.float64]]],
    batch_size: int,
    device: str,
) -> list[Detection]:
    """Return the detections of all pictures, in pixels of the stored pictures and cut at their edges.

    Raises
    ------
    InvalidPrediction
        For another number of lists than of pictures, and what `_check_found` finds.
    """
    import torch

    found: list[Detection] = []
    for first in range(0, len(test.pictures), batch_size):
        places = range(first, min(first + batch_size, len(test.pictures)))
        images, sizes, scales = prepared(places)
        with torch.no_grad():
            lists = trained.detect(images.to(device), sizes)
        if len(lists) != len(places):
            raise InvalidPrediction(f"detect returned {len(lists)} lists for {len(places)} pictures")
        for place, one, scale in zip(places, lists, scales, strict=True):
            _check_found(one, len(categories))
            best = np.argsort(-one.scores, kind="stable")[:MOST_DETECTIONS]
            height, width = test.sizes[place]
            corners = one.boxes[best].astype(np.float64) / scale[[1, 0, 1, 0]]
            corners = np.clip(corners, 0, [width, height, width, height])
            for box, score, label in zip(corners, one.scores[best], one.labels[best], strict=True):
                x, y, right, bottom = box.tolist()
                found.append(
                    {
                        "image_id": test.ids[place],
                        "category_id": int(categories[label]),
                        "bbox": [x, y, right - x, bottom - y],
                        "score": float(score),
                    }
                )
    return found


def _check_found(found: Found, classes: int) -> None:
    """Raise `InvalidPrediction` for wrong shapes or types, boxes that are none, scores and labels out of range."""
    boxes, scores, labels = found.boxes, found.scores, found.labels
    count = len(scores)
    if boxes.shape != (count, 4) or scores.shape != (count,) or labels.shape != (count,):
        raise InvalidPrediction(
            f"boxes {boxes.shape}, scores {scores.shape} and labels {labels.shape} do not fit: needs (n, 4), (n,), (n,)"
        )
    if boxes.dtype.kind != "f" or scores.dtype.kind != "f" or labels.dtype.kind not in "iu":
        raise InvalidPrediction(f"boxes are {boxes.dtype}, scores {scores.dtype}, labels {labels.dtype}")
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] >= boxes[:, :2]).all()):
        raise InvalidPrediction("boxes must be finite, x1 <= x2 and y1 <= y2")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise InvalidPrediction("scores must lie in [0, 1]")
    if count and not 0 <= labels.min() <= labels.max() < classes:
        raise InvalidPrediction(f"labels must be classes from 0 to {classes - 1}")


def judge_boxes(
    detections: Sequence[Mapping[str, Any]], test: Annotated, categories: Sequence[int], names: Sequence[str]
) -> Outcome:
    """Return the quality of detections, as pycocotools computes it for boxes."""
    truth = _truth(test, categories)
    found = average_precision(truth, detections, list(categories), "bbox")
    scores = {
        "ap": found.ap,
        "ap50": found.ap50,
        "ap75": found.ap75,
        "ap_small": found.small,
        "ap_medium": found.medium,
        "ap_large": found.large,
    }
    undefined = {name: "no such object in the test pictures" for name, value in scores.items() if value is None}
    rows = [{"class": name, "ap": found.per_class[category]} for category, name in zip(categories, names, strict=True)]
    counts = {
        "test_pictures": len(test.pictures),
        "classes": len(names),
        "objects": len(truth["annotations"]),
        "n_detections": len(detections),
    }
    return Outcome(scores, undefined, counts, {"classes": rows})


def _truth(test: Annotated, categories: Sequence[int]) -> dict[str, Any]:
    """Return the pictures and their objects as a COCO data set."""
    annotations: list[dict[str, Any]] = []
    for picture, answers in zip(test.ids, test.answers, strict=True):
        for box, label, crowd, area in zip(
            answers.boxes.tolist(), answers.labels, answers.crowd, answers.areas, strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": picture,
                    "category_id": int(categories[label]),
                    "bbox": box,
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
    return {
        "images": [
            {"id": picture, "height": height, "width": width}
            for picture, (height, width) in zip(test.ids, test.sizes, strict=True)
        ],
        "annotations": annotations,
        "categories": [{"id": category, "name": str(category)} for category in categories],
    }


def _finite(logits: torch.Tensor) -> NDArray[Any]:
    import torch

    if not logits.is_floating_point() or not bool(torch.isfinite(logits).all()):
        raise InvalidPrediction(f"logits ({logits.dtype}) must be finite floats: did the training diverge?")
    found: NDArray[Any] = logits.float().cpu().numpy()
    return found


def _kind(value: Any) -> str:
    return str(tuple(value.shape)) if hasattr(value, "shape") else type(value).__name__
