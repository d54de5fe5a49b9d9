"""Semantic segmentation: a network learns to name every pixel, judged by mIoU, mAcc, aAcc and what it costs.

Protocol of mmsegmentation: the whole picture at one scale, areas summed over the whole set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Case, Metric, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.datasets.pictures import kept, normalised
from benchsuite.tasks.visual_recognition.contract import (
    Pictures,
    SegmentationData,
    SegmentationProtocol,
    SemanticSegmenter,
    Trained,
)
from benchsuite.tasks.visual_recognition.costs import COSTS, measure_costs, predicted_elsewhere
from benchsuite.tasks.visual_recognition.judge import checked, judge_maps, predict_map
from benchsuite.tasks.visual_recognition.prediction_files import LabelMapFile, write_maps
from benchsuite.tasks.visual_recognition.preparing import bounded_size, nearest, resized
from benchsuite.tasks.visual_recognition.sources import Mapped, Source, mapped, relabelled, sha256

_PREDICTIONS = "predictions.zip"
_PICTURE = "examples.png"


class SemanticSegmentation(Task[SemanticSegmenter, Any, SegmentationProtocol]):
    """See the module."""

    name = "semantic-segmentation"
    version = "1"
    Protocol = SegmentationProtocol
    presets: ClassVar[Mapping[str, Preset]] = {
        "embedded": Preset(cases=(Case({"dataset": "ade20k"}, {"size": 160, "max_size": 640}),)),
        "paper": Preset({"size": 512, "max_size": 2048}),
    }
    metrics = (
        Metric("miou", "max", doc="mean over classes of the IoU, areas summed over the whole set"),
        Metric("macc", "max", doc="mean over classes of the share of their pixels that is found, summed likewise"),
        Metric("aacc", "max", doc="share of all pixels that is right"),
        *COSTS,
    )
    ranking = Ranking("miou")
    reference = "mobilenetv3"
    data_type = "benchsuite.datasets.shapes.generated:ShapeScenes"
    also_takes = ("benchsuite.datasets.label_maps.ade20k:LabelMaps",)
    method_type = SemanticSegmenter
    default_data = "shape-scenes"

    def evaluate(
        self, method: SemanticSegmenter, data: Mapping[str, Any], protocol: SegmentationProtocol, ctx: RunContext
    ) -> Outcome:
        """Let the method learn, judge its label maps, measure its network."""
        source = mapped(data["test"])
        train, test = source.parts(ctx.split)
        one = _prepared(test.pictures, source, protocol)

        def predict(trained: Trained) -> Iterator[NDArray[np.uint8]]:
            for place in range(len(test.pictures)):
                height, width = test.pictures[place].shape[:2]
                yield predict_map(trained, one(place), len(source.classes), height, width, ctx.device)

        def score(trained: Trained) -> float:
            found = predict(checked(trained, Trained))
            pairs = ((labels, test.label_map(place)) for place, labels in enumerate(found))
            return float(judge_maps(pairs, source.classes).scores["miou"] or 0.0)

        def prepared_map(place: int) -> NDArray[np.uint8]:
            labels = train.label_map(place)
            height, width = labels.shape
            return nearest(labels, *bounded_size(height, width, protocol.size, protocol.max_size))

        training = SegmentationData(
            dataset=source.name,
            pictures=train.pictures,
            classes=source.classes,
            mean=source.mean,
            std=source.std,
            digest=sha256(train.pictures.digest, source.classes, protocol.size, protocol.max_size),
            score=score if protocol.selection == "test" else None,
            label_map=train.label_map,
            size=(protocol.size, protocol.max_size),
            prepared=_prepared(train.pictures, source, protocol),
            prepared_map=prepared_map,
        )
        with ctx.phase("fit"):
            trained = checked(method.fit_segmenter(training, ctx), Trained)
        path = ctx.artifact(_PREDICTIONS)
        with ctx.phase("predict"):
            write_maps(path, zip(test.pictures.names, predict(trained), strict=True))
        outcome = _judge(path, test, source)
        with ctx.phase("costs"):
            measure_costs(outcome, trained, protocol.size, protocol.size, protocol, ctx.device)
        outcome.counts["training_pictures"] = len(train.pictures)
        _draw(ctx.artifact(_PICTURE), path, test, source)
        return outcome

    def with_other_answers(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the data with another class for every object of the test pictures."""
        return {role: relabelled(found) for role, found in data.items()}

    def score(self, predictions: Path, data: Mapping[str, Any], protocol: SegmentationProtocol) -> Outcome:
        """Judge a ZIP of label maps, see `LabelMapFile`; ``predictions.zip`` of a run is one."""
        source = mapped(data["test"])
        return predicted_elsewhere(_judge(predictions, source.test, source))


def _judge(path: Path, test: Mapped, source: Source) -> Outcome:
    """Return the quality of a file of label maps."""
    names = test.pictures.names
    file = LabelMapFile(path, names, len(source.classes))

    def pairs() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        for place, name in enumerate(names):
            truth = test.label_map(place)
            yield file.read(name, truth.shape), truth

    return judge_maps(pairs(), source.classes)


def _prepared(pictures: Pictures, source: Source, protocol: SegmentationProtocol) -> Any:
    """Return what `SegmentationData.prepared` is."""

    def fit(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return resized(pixels, *bounded_size(pixels.shape[0], pixels.shape[1], protocol.size, protocol.max_size))

    one = kept(pictures, fit, 3 * protocol.size * protocol.max_size)
    return lambda place: normalised([one(place)], source.mean, source.std)


def _draw(path: Path, predictions: Path, test: Mapped, source: Source) -> None:
    from benchsuite.tasks.visual_recognition.pictures import draw_maps

    file = LabelMapFile(predictions, test.pictures.names, len(source.classes))
    draw_maps(path, test.pictures, test.label_map, lambda name, shape: file.read(name, shape), source.classes)
