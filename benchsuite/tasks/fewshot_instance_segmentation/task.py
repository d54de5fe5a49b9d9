"""Few-shot instance segmentation: base classes are learned from many images, novel ones from K objects each.

Three settings. ``fsis``: the model is tuned on the shots of the novel classes and finds those only. ``gfsis``: it is
tuned on shots of all classes and finds all. ``ifsis``: it is tuned on shots of the novel classes without any base
image, all at once or class by class, and still finds all.

Protocol: TFA's split, shots and loader; scores as pycocotools computes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchsuite.core import Metric, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.core.errors import DataError
from benchsuite.datasets.coco.reader import CocoDataset, ImageSet, Record
from benchsuite.metrics.instance_segmentation import IouType, average_precisions
from benchsuite.tasks.fewshot_instance_segmentation.contract import (
    BaseData,
    FewShotData,
    FewShotProtocol,
    FewShotSegmenter,
    IncrementalProtocol,
    Setting,
)
from benchsuite.tasks.fewshot_instance_segmentation.judge import named, read_results
from benchsuite.tasks.fewshot_instance_segmentation.shots import draw_shots, shot_records, split_classes
from benchsuite.tasks.fewshot_instance_segmentation.tuning import (
    Tuned,
    check_state,
    tune_and_detect,
    tune_apart,
    tune_one_by_one,
)

_PREDICTIONS = "predictions.json"
_PICTURE = "detections.png"
_VALIDATION_SHARE = 0.2

_SEGM = "of masks, mean over IoU thresholds .50 to .95, recalls and"


_SIZES = {
    "small": "below 32 x 32 pixels",
    "medium": "between 32 x 32 and 96 x 96 pixels",
    "large": "above 96 x 96 pixels",
}


def _of_classes(prefix: str, classes: str) -> tuple[Metric, ...]:
    sizes = tuple(
        Metric(f"{prefix}ap_{size}{suffix}", "max", doc=f"{prefix}ap{suffix} of objects {what}")
        for suffix in ("", "_bbox")
        for size, what in _SIZES.items()
    )
    return (
        Metric(f"{prefix}ap", "max", doc=f"average precision {_SEGM} {classes}"),
        Metric(f"{prefix}ap50", "max", doc=f"the same at IoU .50 ({classes})"),
        Metric(f"{prefix}ap75", "max", doc=f"the same at IoU .75 ({classes})"),
        Metric(f"{prefix}ap_bbox", "max", doc=f"average precision of boxes ({classes})"),
        Metric(f"{prefix}ap50_bbox", "max", doc=f"the same at IoU .50 ({classes})"),
        Metric(f"{prefix}ap75_bbox", "max", doc=f"the same at IoU .75 ({classes})"),
        *sizes,
    )


_NOVEL = _of_classes("n", "novel classes")
_SPEED = (Metric("images_per_second", "max", "1/s", "cost", doc="test images a CPU second of prediction gets through"),)
_ALL = (*_NOVEL, *_of_classes("b", "base classes"), *_of_classes("", "all classes"), *_SPEED)


class FewShotInstanceSegmentation(Task[FewShotSegmenter, CocoDataset, FewShotProtocol]):
    """What the three settings share."""

    setting: ClassVar[Setting]
    version = "2"
    Protocol = FewShotProtocol
    presets: ClassVar[Mapping[str, Preset]] = {"embedded": Preset(), "paper": Preset({"shots": 10})}
    seed_axes = ("base", "shots")
    ranking = Ranking("nap")
    reference = "mask2former-ft"
    data_type = "benchsuite.datasets.coco.reader:CocoDataset"
    method_type = FewShotSegmenter
    default_data = "synth-fsis"
    roles_may_differ = True

    def evaluate(
        self,
        method: FewShotSegmenter,
        data: Mapping[str, CocoDataset],
        protocol: FewShotProtocol,
        ctx: RunContext,
    ) -> Outcome:
        """Let the method learn the base classes, tune a fresh one on shots, and judge its detections."""
        train, held_out = _parts(data, ctx)
        dataset = data["train"]
        _compare_classes(dataset, data["test"])
        group = None if protocol.source == "sampler" else protocol.group_of(ctx.draw_of("shots"))
        seed = ctx.seed_for("shots", "sampler") if group is None else group
        base, few, dropped = self.few_shot_data(dataset, train, protocol, seed)
        for note in (dataset.note, *dropped):
            if note:
                ctx.log.warning(note)
        with ctx.scratch("base") as stage, stage.phase("fit"):
            state = check_state(method.learn_base(base, stage))
        fresh = type(method)(method.config)
        fresh.name = method.name
        tuned = self.way_of_tuning(protocol)(ctx, fresh, state, few, held_out)
        ctx.artifact(_PREDICTIONS).write_text(json.dumps(tuned.detections))
        outcome = self.judge(few, held_out, tuned.detections)
        outcome.scores["images_per_second"] = len(held_out) / max(tuned.seconds, 1e-9)
        outcome.parameters = tuned.parameters
        outcome.counts["base_state_bytes"] = sum(array.nbytes for array in state.values())
        if group is not None:
            outcome.counts["shots_group"] = group
        outcome.tables["left_out"] = [{"class": note} for note in dropped]
        _draw(ctx.artifact(_PICTURE), held_out, tuned.detections, few)
        return outcome

    def way_of_tuning(self, protocol: FewShotProtocol) -> Callable[..., Tuned]:
        """Return how the second call of a method is made."""
        return tune_and_detect

    def few_shot_data(
        self, dataset: CocoDataset, train: ImageSet, protocol: FewShotProtocol, seed: int
    ) -> tuple[BaseData, FewShotData, list[str]]:
        """Return what the method sees in its two calls, and for each class that was left out why.

        ``seed`` is that of the sampler, or the published group of shots.

        Raises
        ------
        DataError
            If no novel or no base class is left, or a class is left out and the protocol refuses that.
        """
        base, novel = split_classes(dataset, train)
        needing = sorted(novel if self.setting != "gfsis" else (*base, *novel))
        shots, dropped = draw_shots(dataset, train, needing, protocol, seed)
        notes = [f"{dataset.categories[c]} is left out: {reason}" for c, reason in sorted(dropped.items())]
        if dropped and protocol.infeasible == "refuse":
            raise DataError(f"{len(dropped)} classes cannot give {protocol.shots} shots; {notes[0]}")
        kept = tuple(c for c in novel if c not in dropped)
        if not kept or not base:
            raise DataError(
                f"{len(base)} base classes and {len(kept)} novel ones with {protocol.shots} shots: too few to run"
            )
        head = kept if self.setting == "fsis" else tuple(sorted({*base, *kept} - dropped.keys()))
        images = train.with_classes(base)
        classes: dict[str, Any] = {
            "base_classes": base,
            "novel_classes": kept,
            "head_classes": head,
            "names": dataset.categories,
            "setting": self.setting,
        }
        few = FewShotData(
            shots=shot_records(train, shots, protocol.merge_records),
            base_images=None if self.setting == "ifsis" else images,
            **classes,
        )
        return BaseData(images=images, **classes), few, notes

    def judge(self, few: FewShotData, images: ImageSet, detections: Sequence[Mapping[str, Any]]) -> Outcome:
        """Return all quality metrics of COCO results, and a table of classes."""
        novel = list(few.novel_classes)
        base = [c for c in few.head_classes if c not in few.novel_classes]
        subsets = {"n": novel} | ({"b": base, "": list(few.head_classes)} if self.setting != "fsis" else {})
        truth = images.ground_truth(few.head_classes)
        scores: dict[str, float | None] = {}
        classes: dict[int, dict[str, Any]] = {c: {"class": few.names[c], "novel": c in novel} for c in few.head_classes}
        shapes: Mapping[str, IouType] = {"": "segm", "_bbox": "bbox"}
        for suffix, iou_type in shapes.items():
            averages = average_precisions(truth, detections, list(subsets.values()), iou_type)
            for prefix, found in zip(subsets, averages, strict=True):
                scores |= named(prefix, suffix, found)
                for category, value in found.per_class.items():
                    classes[category][f"ap{suffix}"] = value
        expected = [m.name for m in self.metrics if m.kind == "quality"]
        undefined = {n: "no such object in the test images" for n in expected if scores[n] is None}
        counts = {
            "images": len(images),
            "n_detections": len(detections),
            "objects": len(truth["annotations"]),
            "novel_classes": len(novel),
            "base_classes": len(few.base_classes),
            "shot_records": len(few.shots),
        }
        return Outcome({n: scores[n] for n in expected}, undefined, counts, {"classes": list(classes.values())})

    def with_other_answers(self, data: Mapping[str, CocoDataset]) -> Mapping[str, CocoDataset]:
        """Return the data with the class of every test object changed."""
        dataset = data["test"]
        ids = list(dataset.categories)
        following = dict(zip(ids, [*ids[1:], ids[0]], strict=True))

        def other(record: Record) -> Record:
            changed = ({**a, "category_id": following[a["category_id"]]} for a in record.annotations)
            return replace(record, annotations=tuple(changed))

        test = dataset.test.part(other(record) for record in dataset.test)
        return {role: replace(found, test=test) for role, found in data.items()}

    def score(self, predictions: Path, data: Mapping[str, CocoDataset], protocol: FewShotProtocol) -> Outcome:
        """Judge a COCO results json: a list of image_id, category_id, score, segmentation and bbox.

        All novel classes count (and in gfsis and ifsis all base classes), whether or not they can give K shots. What is
        found of other classes of the data is left out and counted in ``n_not_judged``. Raises as `read_results` does.
        """
        dataset = data["test"]
        base, novel = split_classes(dataset, dataset.train)
        head = novel if self.setting == "fsis" else tuple(sorted((*base, *novel)))
        few = FewShotData(ImageSet((), ""), None, base, novel, head, dataset.categories, self.setting)
        detections, others = read_results(predictions, dataset.test, head, dataset.categories)
        outcome = self.judge(few, dataset.test, detections)
        outcome.counts["n_not_judged"] = others
        outcome.scores["images_per_second"] = None
        outcome.undefined["images_per_second"] = "predicted elsewhere"
        return outcome


class FewShot(FewShotInstanceSegmentation):
    """Novel classes only."""

    name = "fsis"
    setting = "fsis"
    metrics = (*_NOVEL, *_SPEED)


class GeneralisedFewShot(FewShotInstanceSegmentation):
    """All classes, tuned on shots of all."""

    name = "gfsis"
    setting = "gfsis"
    metrics = _ALL


class IncrementalFewShot(FewShotInstanceSegmentation):
    """All classes, tuned without base images."""

    name = "ifsis"
    setting = "ifsis"
    Protocol = IncrementalProtocol
    metrics = _ALL

    def way_of_tuning(self, protocol: FewShotProtocol) -> Callable[..., Tuned]:
        """See `FewShotInstanceSegmentation.way_of_tuning`: apart, and once a class where they arrive one by one."""
        one_by_one = isinstance(protocol, IncrementalProtocol) and protocol.arrival == "one-by-one"
        return tune_one_by_one if one_by_one else tune_apart


def _parts(data: Mapping[str, CocoDataset], ctx: RunContext) -> tuple[ImageSet, ImageSet]:
    """Return the images to learn from and those to judge on; for ``val`` a fifth of the training images is judged."""
    train = data["train"].train
    if ctx.split == "test":
        return train, data["test"].test
    order = np.random.default_rng(0).permutation(len(train))
    chosen = set(order[: max(1, round(_VALIDATION_SHARE * len(train)))].tolist())
    learned, held_out = (
        train.part((r for i, r in enumerate(train) if (i in chosen) == judged), f"{train.source}:val")
        for judged in (False, True)
    )
    return learned, held_out


def _compare_classes(train: CocoDataset, test: CocoDataset) -> None:
    """Raise `DataError` if two data sets call one category id by different names."""
    for category, name in test.categories.items():
        if train.categories.get(category, name) != name:
            raise DataError(
                f"category {category} is {train.categories[category]} in {train.name} but {name} in {test.name}:"
                " results of one cannot be judged on the other"
            )


def _draw(path: Path, images: ImageSet, results: Sequence[Mapping[str, Any]], few: FewShotData) -> None:
    from benchsuite.tasks.fewshot_instance_segmentation.pictures import draw_sheet

    draw_sheet(path, images, results, few.names, frozenset(few.head_classes))
