"""Object detection: a network learns to find and name objects, judged by COCO's average precision and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Case, Metric, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.datasets.pictures import kept
from benchsuite.tasks.visual_recognition.contract import (
    DetectionData,
    DetectionProtocol,
    ObjectDetector,
    Pictures,
    TrainedDetector,
)
from benchsuite.tasks.visual_recognition.costs import COSTS, measure_costs, predicted_elsewhere
from benchsuite.tasks.visual_recognition.judge import BATCH, checked, judge_boxes, predict_boxes
from benchsuite.tasks.visual_recognition.prediction_files import read_boxes, write_boxes
from benchsuite.tasks.visual_recognition.preparing import bounded_size, padded_batch, resized, up_to
from benchsuite.tasks.visual_recognition.sources import Annotated, Source, annotated, relabelled, sha256

_PREDICTIONS = "predictions.json"
_PICTURE = "examples.png"

_LARGE = 512
"""Pictures with a longer side are predicted one by one: a batch of them would take gigabytes."""


class ObjectDetection(Task[ObjectDetector, Any, DetectionProtocol]):
    """See the module."""

    name = "object-detection"
    version = "1"
    Protocol = DetectionProtocol
    presets: ClassVar[Mapping[str, Preset]] = {
        "embedded": Preset(cases=(Case({"dataset": "coco"}, {"size": 320, "max_size": 320}),)),
        "paper": Preset({"size": 320, "max_size": 320}),
    }
    metrics = (
        Metric("ap", "max", doc="average precision of boxes, mean over classes, IoU thresholds .50 to .95 and recalls"),
        Metric("ap50", "max", doc="the same at IoU .50"),
        Metric("ap75", "max", doc="the same at IoU .75"),
        Metric("ap_small", "max", doc="ap of objects below 32 x 32 pixels"),
        Metric("ap_medium", "max", doc="ap of objects between 32 x 32 and 96 x 96 pixels"),
        Metric("ap_large", "max", doc="ap of objects above 96 x 96 pixels"),
        *COSTS,
    )
    ranking = Ranking("ap")
    reference = "mobilenetv3"
    data_type = "benchsuite.datasets.shapes.generated:ShapeScenes"
    also_takes = ("benchsuite.datasets.coco.reader:CocoDataset",)
    method_type = ObjectDetector
    default_data = "shape-scenes"

    def evaluate(
        self, method: ObjectDetector, data: Mapping[str, Any], protocol: DetectionProtocol, ctx: RunContext
    ) -> Outcome:
        """Let the method learn, judge its boxes, measure its network."""
        source = annotated(data["test"])
        if source.note:
            ctx.log.warning(source.note)
        train, test = source.parts(ctx.split)
        prepared = _prepared(test.pictures, source, protocol)
        batch = 1 if protocol.keep_ratio or protocol.size > _LARGE else BATCH

        def predict(trained: TrainedDetector) -> list[dict[str, Any]]:
            return predict_boxes(trained, test, source.categories, prepared, batch, ctx.device)

        def score(trained: TrainedDetector) -> float:
            found = predict(checked(trained, TrainedDetector))
            return float(judge_boxes(found, test, source.categories, source.classes).scores["ap"] or 0.0)

        objects = [found.objects() for found in train.answers]
        training = DetectionData(
            dataset=source.name,
            pictures=train.pictures,
            classes=source.classes,
            mean=source.mean,
            std=source.std,
            digest=sha256(
                train.pictures.digest,
                source.classes,
                protocol.size,
                protocol.max_size,
                protocol.keep_ratio,
                *(part for found in objects for part in (found.boxes, found.labels, found.crowd)),
            ),
            score=score if protocol.selection == "test" else None,
            objects=objects.__getitem__,
            size=protocol.size,
            max_size=protocol.max_size,
            keep_ratio=protocol.keep_ratio,
            prepared=_prepared(train.pictures, source, protocol),
        )
        with ctx.phase("fit"):
            trained = checked(method.fit_detector(training, ctx), TrainedDetector)
        with ctx.phase("predict"):
            detections = predict(trained)
        write_boxes(ctx.artifact(_PREDICTIONS), detections)
        outcome = judge_boxes(detections, test, source.categories, source.classes)
        with ctx.phase("costs"):
            measure_costs(outcome, trained, *_input_size(protocol), protocol, ctx.device)
        outcome.counts["training_pictures"] = len(train.pictures)
        _draw(ctx.artifact(_PICTURE), detections, test, source)
        return outcome

    def with_other_answers(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the data with another class for every object of the test pictures."""
        return {role: relabelled(found) for role, found in data.items()}

    def score(self, predictions: Path, data: Mapping[str, Any], protocol: DetectionProtocol) -> Outcome:
        """Judge a COCO results file, see `read_boxes`; ``predictions.json`` of a run is one."""
        source = annotated(data["test"])
        test = source.test
        sizes = dict(zip(test.ids, test.sizes, strict=True))
        truth = {picture: found.boxes for picture, found in zip(test.ids, test.answers, strict=True)}
        detections = read_boxes(predictions, sizes, truth, source.categories)
        return predicted_elsewhere(judge_boxes(detections, test, source.categories, source.classes))


def _input_size(protocol: DetectionProtocol) -> tuple[int, int]:
    """Return height and width of the input that costs are measured on."""
    if protocol.keep_ratio:
        return up_to(protocol.size), up_to(protocol.max_size)
    return protocol.size, protocol.size


def _prepared(pictures: Pictures, source: Source, protocol: DetectionProtocol) -> Any:
    """Return what `DetectionData.prepared` is."""
    own_sizes: dict[int, tuple[int, int]] = {}

    def target(height: int, width: int) -> tuple[int, int]:
        if protocol.keep_ratio:
            return bounded_size(height, width, protocol.size, protocol.max_size)
        return protocol.size, protocol.size

    def fit(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return resized(pixels, *target(pixels.shape[0], pixels.shape[1]))

    one = kept(pictures, fit, 3 * protocol.size * protocol.max_size)

    def own_size(place: int) -> tuple[int, int]:
        if place not in own_sizes:
            height, width = pictures[place].shape[:2]
            own_sizes[place] = height, width
        return own_sizes[place]

    def prepared(places: Sequence[int]) -> Any:
        images, sizes = padded_batch(
            [one(place) for place in places], source.mean, source.std, multiple=protocol.keep_ratio
        )
        own = np.array([own_size(place) for place in places], dtype=np.float64)
        return images, sizes, sizes / own

    return prepared


def _draw(path: Path, detections: Sequence[Mapping[str, Any]], test: Annotated, source: Source) -> None:
    from benchsuite.tasks.visual_recognition.pictures import draw_boxes

    names = dict(zip(source.categories, source.classes, strict=True))
    true = [
        [(box, source.classes[label]) for box, label in zip(found.boxes.tolist(), found.labels, strict=True)]
        for found in test.answers
    ]
    draw_boxes(path, test.pictures, test.ids, true, detections, names)
