"""Few-shot semantic segmentation: K support images show what to find in a query image.

A method learns from episodes of base classes and answers episodes of the classes of a fold, which it has never seen.
All methods of a table stand on the same frozen backbone. Each is judged twice: with the supports of the class that is
asked for, and with supports of another class, where a method that uses its supports must fail.

Protocol: episodes, image and mask handling and pooled areas of HSNet's code, with MSHNet's training lists.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchsuite.core import Case, ConfigError, Metric, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.core.errors import DataError
from benchsuite.datasets.class_masks.images import ClassMasks, Pool
from benchsuite.datasets.coco.reader import CocoDataset
from benchsuite.metrics.segmentation_overlap import Overlap
from benchsuite.tasks.fewshot_semantic_segmentation.contract import (
    FewShotMasksProtocol,
    FewShotSegmenter,
    Segmenter,
    TrainingData,
)
from benchsuite.tasks.fewshot_semantic_segmentation.episodes import (
    Draw,
    Lists,
    TrainingStream,
    digest,
    fold_lists,
    other_supports,
    test_draws,
)
from benchsuite.tasks.fewshot_semantic_segmentation.judge import judge, predict, read_predictions, write_predictions
from benchsuite.tasks.fewshot_semantic_segmentation.loading import Loader

_PREDICTIONS = "predictions.json"
_PICTURE = "episodes.png"

Data = ClassMasks | CocoDataset

_GENERATED = ("synth-fss", "synth-fss-weak")
# The full network on generated scenes: a check that it runs.
_FULL_ON_SMALL = {"size": 97, "episodes": 8}


class FewShotSemanticSegmentation(Task[FewShotSegmenter, Data, FewShotMasksProtocol]):
    """See the module."""

    name = "fss"
    version = "1"
    Protocol = FewShotMasksProtocol
    presets: ClassVar[Mapping[str, Preset]] = {
        "embedded": Preset(cases=(Case({"dataset": "coco"}, {"masks": "polygon-fill"}),)),
        "paper": Preset(
            {"size": 473, "episodes": 1000, "backbone": "resnet50"},
            (
                Case({"dataset": "coco"}, {"masks": "polygon-fill"}),
                *(Case({"dataset": name}, _FULL_ON_SMALL) for name in _GENERATED),
            ),
        ),
    }
    seed_axes = ("base", "fold")
    metrics = (
        Metric("miou", "max", doc="mean over classes of the foreground's IoU, areas summed over episodes"),
        Metric("fb_iou", "max", doc="mean of the IoU of background and of foreground, areas summed over all episodes"),
        Metric("miou_wrong_support", "min", doc="miou of the same queries with supports of another class: a control"),
        Metric("support_margin", "max", doc="half of miou minus miou_wrong_support: above 0 where supports are used"),
        Metric("pool_accuracy", "max", doc="share of unseen pool pictures whose category the tiny backbone names"),
        Metric("episodes_per_second", "max", unit="1/s", kind="cost", doc="test episodes a CPU second"),
    )
    ranking = Ranking("miou")
    reference = "panet"
    data_type = "benchsuite.datasets.class_masks.images:ClassMasks"
    also_takes = ("benchsuite.datasets.coco.reader:CocoDataset",)
    method_type = FewShotSegmenter
    default_data = "synth-fss"

    def evaluate(
        self, method: FewShotSegmenter, data: Mapping[str, Data], protocol: FewShotMasksProtocol, ctx: RunContext
    ) -> Outcome:
        """Let the method learn from episodes of base classes, and judge it on those of the fold, twice."""
        from benchsuite.tasks.fewshot_semantic_segmentation.backbones import load_backbone

        images = as_class_masks(data["test"], protocol)
        fold = ctx.draw_of("fold")
        lists = fold_lists(images, fold, protocol.shots, ctx.split)
        for note in (images.note, *(reason for _, reason in lists.dropped)):
            if note:
                ctx.log.warning(note)
        draws = test_draws(lists, protocol.shots, protocol.episodes)
        loader = Loader(images, protocol.size, protocol.original_size)
        backbone, facts = load_backbone(protocol, _pool_of(images, protocol, ctx), ctx)

        def score(model: Segmenter) -> float:
            return judge(draws, predict(model, draws, loader), loader, lists.tested).miou

        stream = TrainingStream(lists, protocol.shots, ctx.seed_for("fold", "episodes"))
        training = TrainingData(
            backbone=backbone,
            shots=protocol.shots,
            size=protocol.size,
            classes=stream.classes,
            episodes_per_epoch=stream.per_epoch,
            episode=lambda number: loader.labelled(stream(number)),
            score=score if protocol.selection == "test" else None,
        )
        with ctx.phase("fit"):
            model = method.fit(training, ctx)
        with ctx.phase("predict"):
            before = time.process_time()
            masks = predict(model, draws, loader)
            seconds = time.process_time() - before
        write_predictions(ctx.artifact(_PREDICTIONS), fold, draws, masks)
        found = judge(draws, masks, loader, lists.tested)
        with ctx.phase("predict with wrong supports"):
            wrong, why = _with_wrong_supports(model, draws, loader, lists)
        outcome = Outcome(
            scores={
                "miou": found.miou,
                "fb_iou": found.fb_iou,
                "miou_wrong_support": wrong.miou if wrong else None,
                "support_margin": found.miou / 2 - wrong.miou if wrong else None,
                "pool_accuracy": facts["pool_accuracy"],
                "episodes_per_second": len(draws) / max(seconds, 1e-9),
            },
            undefined={
                "fb_iou": "no background or no foreground pixel in any episode",
                "miou_wrong_support": why,
                "support_margin": why,
                "pool_accuracy": "the backbone was not pre-trained here",
            },
            counts={
                "episodes": len(draws),
                "tested_classes": len(lists.tested),
                "base_classes": len(stream.classes),
                "training_images": len({line.image for line in lists.train}),
                "test_images": len({line.image for line in lists.test}),
            },
            tables=self._tables(images, lists, draws, {fold: (found, wrong)}),
            parameters=model.parameters,
        )
        outcome.undefined = {name: why for name, why in outcome.undefined.items() if outcome.scores[name] is None}
        outcome.tables["backbone"] = [facts]
        outcome.tables["left_out"] = [{"class": images.classes[label], "why": why} for label, why in lists.dropped]
        _draw(ctx.artifact(_PICTURE), images, draws, masks, loader)
        return outcome

    @staticmethod
    def _tables(
        images: ClassMasks, lists: Lists, draws: Sequence[Draw], found: Mapping[int, tuple[Overlap, Overlap | None]]
    ) -> dict[str, list[dict[str, Any]]]:
        """Return the tables of folds and of classes."""
        folds = [
            {
                "fold": fold,
                "miou": right.miou,
                "fb_iou": right.fb_iou,
                "miou_wrong_support": wrong.miou if wrong else None,
                "episodes": len(draws),
                "episodes_sha256": digest(draws)[:12],
            }
            for fold, (right, wrong) in found.items()
        ]
        classes = [
            {
                "fold": fold,
                "class": images.classes[label],
                "iou": value,
                "iou_wrong_support": wrong.per_class[label] if wrong else None,
                "episodes": sum(draw.label == label for draw in draws),
            }
            for fold, (right, wrong) in found.items()
            for label, value in right.per_class.items()
        ]
        return {"folds": folds, "classes": classes}

    def with_other_answers(self, data: Mapping[str, Data]) -> Mapping[str, Data]:
        """Return the data with foreground and background of every query exchanged when it is judged."""
        changed = {}
        for role, found in data.items():
            if not isinstance(found, ClassMasks):
                raise NotImplementedError
            changed[role] = replace(found, relabelled=True)
        return changed

    def score(self, predictions: Path, data: Mapping[str, Data], protocol: FewShotMasksProtocol) -> Outcome:
        """Judge predicted masks of one or more folds; scores are means over the folds of the file.

        The format is that of `judge.read_predictions`; ``predictions.json`` of a run is one.
        """
        images = as_class_masks(data["test"], protocol)
        loader = Loader(images, protocol.size, protocol.original_size)
        lists: dict[int, Lists] = {}
        draws: dict[int, list[Draw]] = {}

        def draws_of(fold: int) -> tuple[list[Draw], list[tuple[int, int]]]:
            lists[fold] = fold_lists(images, fold, protocol.shots, "test")
            draws[fold] = test_draws(lists[fold], protocol.shots, protocol.episodes)
            side = (protocol.size, protocol.size)
            own = protocol.original_size
            return draws[fold], [loader.picture(draw.query)[1] if own else side for draw in draws[fold]]

        masks = read_predictions(predictions, range(len(images.folds)), draws_of)
        found = {fold: judge(draws[fold], masks[fold], loader, lists[fold].tested) for fold in masks}
        tables: dict[str, list[dict[str, Any]]] = {"folds": [], "classes": []}
        for fold, right in found.items():
            for name, rows in self._tables(images, lists[fold], draws[fold], {fold: (right, None)}).items():
                tables[name] += rows
        scores: dict[str, float | None] = dict.fromkeys(self.metric_names())
        scores["miou"] = float(np.mean([right.miou for right in found.values()]))
        both = [right.fb_iou for right in found.values() if right.fb_iou is not None]
        scores["fb_iou"] = float(np.mean(both)) if len(both) == len(found) else None
        undefined = {name: "predicted elsewhere" for name, value in scores.items() if value is None}
        if scores["fb_iou"] is None:
            undefined["fb_iou"] = "no background or no foreground pixel in any episode of a fold"
        counts = {"folds": len(found), "episodes": sum(map(len, draws.values()))}
        return Outcome(scores, undefined, counts, tables)


def as_class_masks(data: Data, protocol: FewShotMasksProtocol) -> ClassMasks:
    """Return data as lists of (image, class).

    Raises
    ------
    ConfigError
        If the protocol asks for masks that such data do not have.
    """
    if isinstance(data, CocoDataset):
        from benchsuite.tasks.fewshot_semantic_segmentation.coco_masks import class_masks_of

        return class_masks_of(data, protocol.masks)
    if protocol.masks != "stored":
        raise ConfigError(f"{data.name} has no polygons to fill: leave task.masks={protocol.masks} out")
    return data


def _pool_of(images: ClassMasks, protocol: FewShotMasksProtocol, ctx: RunContext) -> Pool | None:
    """Return what the tiny backbone is pre-trained on: the data's own pool, else that of the generated scenes."""
    if images.pool is not None or protocol.backbone != "tiny":
        return images.pool
    from benchsuite.datasets.class_masks.generated import load_generated

    ctx.log.warning("%s brings no pool: the tiny backbone is pre-trained on generated textures", images.name)
    return load_generated(None, ctx.draw_of("base")).pool


def _with_wrong_supports(
    model: Segmenter, draws: Sequence[Draw], loader: Loader, lists: Lists
) -> tuple[Overlap | None, str]:
    """Return how a model does with supports of another class; else why it cannot be told."""
    try:
        wrong = other_supports(lists, draws)
    except DataError as error:
        return None, str(error)
    return judge(wrong, predict(model, wrong, loader), loader, lists.tested), ""


def _draw(path: Path, images: ClassMasks, draws: Sequence[Draw], masks: Sequence[Any], loader: Loader) -> None:
    from benchsuite.tasks.fewshot_semantic_segmentation.pictures import draw_sheet

    draw_sheet(path, images.classes, draws, masks, loader)
