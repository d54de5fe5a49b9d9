"""Image classification: a network learns to name what a picture shows, and is judged by Top-1, Top-5 and what it costs.

Protocol: resize the shorter side, cut the middle, normalise, one view; as ImageNet is evaluated everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from benchsuite.core import Case, Metric, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.datasets.pictures import centre_square, kept, normalised
from benchsuite.tasks.visual_recognition.contract import (
    ClassificationData,
    ClassificationProtocol,
    ImageClassifier,
    Pictures,
    Trained,
)
from benchsuite.tasks.visual_recognition.costs import COSTS, measure_costs, predicted_elsewhere
from benchsuite.tasks.visual_recognition.judge import checked, judge_classes, predict_classes, ranks_of
from benchsuite.tasks.visual_recognition.prediction_files import read_classes, write_classes
from benchsuite.tasks.visual_recognition.sources import Source, labelled, relabelled, sha256

_PREDICTIONS = "predictions.csv"
_PICTURE = "examples.png"

_IMAGENET = Case({"dataset": "imagenet"}, {"size": 224, "crop": 0.875})


class ImageClassification(Task[ImageClassifier, Any, ClassificationProtocol]):
    """See the module."""

    name = "image-classification"
    version = "1"
    Protocol = ClassificationProtocol
    presets: ClassVar[Mapping[str, Preset]] = {
        "embedded": Preset(
            cases=(_IMAGENET, *(Case({"dataset": name}, {"size": 64}) for name in ("shapes", "glyph-pairs")))
        ),
        "paper": Preset({"size": 224}, (_IMAGENET,)),
    }
    metrics = (
        Metric("top1", "max", doc="share of test pictures whose class has the largest logit"),
        Metric("top5", "max", doc="share of test pictures whose class is among the five largest logits"),
        *COSTS,
    )
    ranking = Ranking("top1")
    reference = "mobilenetv3"
    data_type = "benchsuite.datasets.shapes.generated:ShapeScenes"
    also_takes = (
        "benchsuite.datasets.small_images.reader:SmallImages",
        "benchsuite.datasets.image_folders.reader:ImageFolders",
    )
    method_type = ImageClassifier
    default_data = "shapes"

    def evaluate(
        self, method: ImageClassifier, data: Mapping[str, Any], protocol: ClassificationProtocol, ctx: RunContext
    ) -> Outcome:
        """Let the method learn, judge its ranked classes, measure its network."""
        source = labelled(data["test"])
        train, test = source.parts(ctx.split)
        count, prepared = len(test.pictures), _prepared(test.pictures, source, protocol)

        def score(trained: Trained) -> float:
            best = predict_classes(checked(trained, Trained), count, len(source.classes), prepared, ctx.device)
            return float(judge_classes(best, test.labels, source.classes).scores["top1"] or 0.0)

        training = ClassificationData(
            dataset=source.name,
            pictures=train.pictures,
            classes=source.classes,
            mean=source.mean,
            std=source.std,
            digest=sha256(train.pictures.digest, train.labels, source.classes, protocol.size, protocol.crop),
            score=score if protocol.selection == "test" else None,
            labels=train.labels,
            size=protocol.size,
            prepared=_prepared(train.pictures, source, protocol),
        )
        with ctx.phase("fit"):
            trained = checked(method.fit_classifier(training, ctx), Trained)
        with ctx.phase("predict"):
            best = predict_classes(trained, count, len(source.classes), prepared, ctx.device)
        write_classes(ctx.artifact(_PREDICTIONS), test.pictures.names, best)
        outcome = judge_classes(best, test.labels, source.classes)
        with ctx.phase("costs"):
            measure_costs(outcome, trained, protocol.size, protocol.size, protocol, ctx.device)
        outcome.counts["training_pictures"] = len(train.pictures)
        _draw(ctx.artifact(_PICTURE), test, best, source)
        return outcome

    def with_other_answers(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the data with another class for every test picture."""
        return {role: relabelled(found) for role, found in data.items()}

    def score(self, predictions: Path, data: Mapping[str, Any], protocol: ClassificationProtocol) -> Outcome:
        """Judge a CSV of ranked classes, see `read_classes`; ``predictions.csv`` of a run is one."""
        source = labelled(data["test"])
        test, classes = source.test, len(source.classes)
        best = read_classes(predictions, test.pictures.names, classes, ranks_of(classes))
        return predicted_elsewhere(judge_classes(best, test.labels, source.classes))


def _prepared(pictures: Pictures, source: Source, protocol: ClassificationProtocol) -> Any:
    """Return what `ClassificationData.prepared` is."""
    size, crop = protocol.size, protocol.crop
    one = kept(pictures, lambda pixels: centre_square(pixels, size, crop), 3 * size * size)
    return lambda places: normalised([one(place) for place in places], source.mean, source.std)


def _draw(path: Path, test: Any, best: Any, source: Source) -> None:
    from benchsuite.tasks.visual_recognition.pictures import draw_classes

    draw_classes(path, test.pictures, test.labels, best, source.classes)
