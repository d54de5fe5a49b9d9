"""Few-shot instance segmentation: base classes are learned from many images, novel ones from K objects each.

Three settings. ``fsis``: the model is tuned on the shots of the novel classes and finds those only. ``gfsis``: it is
tuned on shots of all classes and finds all. ``ifsis``: it is tuned on shots of the novel classes without any base
image, and still finds all. Protocol: TFA's split, shots and loader; scores as pycocotools computes them.
"""

from __future__ import annotations

import json
import math
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import ConfigError, Method, Metric, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.datasets import coco_split
from benchsuite.datasets.coco import Annotation, CocoDataset, ImageSet, Instance, Record, encode_mask
from benchsuite.metrics.instance_segmentation import AveragePrecision, average_precision

__all__ = ["Detection", "FewShotData", "FewShotSegmenter", "ImageSet", "Instance", "Record", "Segmenter"]

Setting = Literal["fsis", "gfsis", "ifsis"]

MOST_DETECTIONS = 100

_PREDICTIONS = "predictions.json"
_PICTURE = "detections.png"
_VALIDATION_SHARE = 0.2
# The headline is fsis: the other two settings are published with fewer draws of shots, to keep all three cheap.
_FEWER_SEEDS: Mapping[str, int] = {"base": 3, "shots": 3}


@dataclass(frozen=True)
class FewShotProtocol:
    """What belongs to neither method nor data.

    Attributes
    ----------
    shots
        K, the objects of a class to learn from.
    source
        ``sampler`` draws them as TFA does; ``tfa-files`` and ``meta-detr-files`` read theirs under the data root.
    group
        Which of the files' groups (their seed).
    infeasible
        Classes whose images cannot add up to K objects: ``drop`` them with a warning, or ``refuse`` to run.
    merge_records
        One training record an image with all its shots, instead of TFA's one record a shot.
    """

    shots: int = 5
    source: Literal["sampler", "tfa-files", "meta-detr-files"] = "sampler"
    group: int = 1
    infeasible: Literal["drop", "refuse"] = "drop"
    merge_records: bool = False

    def __post_init__(self) -> None:
        if self.shots not in coco_split.SHOTS:
            raise ConfigError(f"shots must be one of {', '.join(map(str, coco_split.SHOTS))}, not {self.shots}")
        if self.group < 0:
            raise ConfigError("group must not be negative")


@dataclass(frozen=True)
class Detection:
    """A found object: class, score in [0, 1], mask (H, W) bool, box (x, y, w, h) in pixels."""

    category_id: int
    score: float
    mask: NDArray[np.bool_]
    box: tuple[float, float, float, float]


class Segmenter:
    """A tuned model."""

    parameters: int | None = None

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """Return at most 100 detections for each image (H, W, 3)."""
        raise NotImplementedError


@dataclass
class FewShotData:
    """What a method may see.

    Attributes
    ----------
    base
        Training images with the annotations of base classes. In ``ifsis`` asking for it raises after
        `finish_base`.
    shots
        Records to tune on, one annotation each; every other object in the image is unlabelled.
    base_classes, novel_classes
        Category ids, ascending.
    head_classes
        Category ids that the tuned model tells apart, ascending.
    names
        Category id to name.
    setting
        ``fsis``, ``gfsis`` or ``ifsis``.
    """

    base_images: ImageSet = field(repr=False)
    shots: ImageSet = field(repr=False)
    base_classes: tuple[int, ...]
    novel_classes: tuple[int, ...]
    head_classes: tuple[int, ...]
    names: Mapping[int, str]
    setting: Setting
    base_is_over: bool = False

    @property
    def base(self) -> ImageSet:
        """Return the base images.

        Raises
        ------
        RuntimeError
            In ``ifsis`` after `finish_base`.
        """
        if self.base_is_over and self.setting == "ifsis":
            raise RuntimeError(
                "no base image may be used in the fine-tuning stage of ifsis: store what you need before"
            )
        return self.base_images

    def finish_base(self) -> None:
        """Say that the base stage is over."""
        self.base_is_over = True


class FewShotSegmenter(Method):
    """A way to learn novel classes from few objects."""

    @abstractmethod
    def fit(self, data: FewShotData, ctx: RunContext) -> Segmenter:
        """Learn the base classes, call ``data.finish_base()``, learn from the shots, and return a model.

        The base stage belongs in ``ctx.cached`` with ``data.base.digest`` among its inputs and seeds from
        ``ctx.seed_for("base", ...)``, so that settings, shots and rows share it. Seeds of the second stage come from
        ``ctx.seed_for("shots", ...)``.
        """


_SEGM = "of masks, mean over IoU thresholds .50 to .95, recalls and"


def _of_classes(prefix: str, classes: str) -> tuple[Metric, ...]:
    return (
        Metric(f"{prefix}ap", "max", doc=f"average precision {_SEGM} {classes}"),
        Metric(f"{prefix}ap50", "max", doc=f"the same at IoU .50 ({classes})"),
        Metric(f"{prefix}ap75", "max", doc=f"the same at IoU .75 ({classes})"),
        Metric(f"{prefix}ap_bbox", "max", doc=f"average precision of boxes ({classes})"),
        Metric(f"{prefix}ap50_bbox", "max", doc=f"the same at IoU .50 ({classes})"),
        Metric(f"{prefix}ap75_bbox", "max", doc=f"the same at IoU .75 ({classes})"),
    )


_NOVEL = (
    *_of_classes("n", "novel classes"),
    Metric("nap_small", "max", doc="nap of objects below 32 x 32 pixels"),
    Metric("nap_medium", "max", doc="nap of objects between 32 x 32 and 96 x 96 pixels"),
    Metric("nap_large", "max", doc="nap of objects above 96 x 96 pixels"),
)
_SPEED = (Metric("images_per_second", "max", "1/s", "cost", doc="test images a CPU second of prediction gets through"),)
_ALL = (*_NOVEL, *_of_classes("b", "base classes"), *_of_classes("", "all classes"), *_SPEED)


class FewShotInstanceSegmentation(Task):
    """What the three settings share."""

    setting: ClassVar[Setting]
    version = "1"
    Protocol = FewShotProtocol
    presets: ClassVar[Mapping[str, Preset]] = {"embedded": Preset(), "paper": Preset({"shots": 10})}
    seed_axes = ("base", "shots")
    published_seeds: ClassVar[Mapping[str, int]] = {"base": 3, "shots": 8}
    ranking = Ranking("nap")
    reference = "mask2former-ft"
    data_type = "benchsuite.datasets.coco:CocoDataset"
    method_type = FewShotSegmenter
    default_data = "synth-fsis"

    def evaluate(self, method: Method, data: Mapping[str, Any], protocol: Any, ctx: RunContext) -> Outcome:
        """Hand out base images and shots, let the method learn, and judge its detections."""
        assert isinstance(method, FewShotSegmenter)
        train, held_out = _parts(data, ctx)
        dataset: CocoDataset = data["train"]
        few, dropped = self.few_shot_data(dataset, train, protocol, ctx.seed_for("shots", "sampler"))
        for note in (dataset.note, *dropped):
            if note:
                ctx.log.warning(note)
        with ctx.phase("fit"):
            model = method.fit(few, ctx)
        with ctx.phase("predict"):
            before = time.process_time()
            detections = predict(model, held_out, few.head_classes)
            seconds = time.process_time() - before
        ctx.artifact(_PREDICTIONS).write_text(json.dumps(detections))
        outcome = self.judge(few, held_out, detections)
        outcome.scores["images_per_second"] = len(held_out) / max(seconds, 1e-9)
        outcome.parameters = model.parameters
        outcome.tables["left_out"] = [{"class": note} for note in dropped]
        _draw(ctx.artifact(_PICTURE), held_out, detections, few)
        return outcome

    def few_shot_data(
        self, dataset: CocoDataset, train: ImageSet, protocol: FewShotProtocol, seed: int
    ) -> tuple[FewShotData, list[str]]:
        """Return what the method sees, and for each class that was left out why.

        Raises
        ------
        DataError
            If no novel or no base class is left, or a class is left out and the protocol refuses that.
        """
        base, novel = split_classes(dataset, train)
        needing = sorted(novel if self.setting != "gfsis" else (*base, *novel))
        shots, dropped = _draw_shots(dataset, train, needing, protocol, seed)
        notes = [f"{dataset.categories[c]} is left out: {reason}" for c, reason in sorted(dropped.items())]
        if dropped and protocol.infeasible == "refuse":
            raise DataError(f"{len(dropped)} classes cannot give {protocol.shots} shots; {notes[0]}")
        kept = tuple(c for c in novel if c not in dropped)
        if not kept or not base:
            raise DataError(
                f"{len(base)} base classes and {len(kept)} novel ones with {protocol.shots} shots: too few to run"
            )
        head = kept if self.setting == "fsis" else tuple(sorted({*base, *kept} - dropped.keys()))
        few = FewShotData(
            base_images=train.with_classes(base),
            shots=_shot_records(train, shots, protocol.merge_records),
            base_classes=base,
            novel_classes=kept,
            head_classes=head,
            names=dataset.categories,
            setting=self.setting,
        )
        return few, notes

    def judge(self, few: FewShotData, images: ImageSet, detections: Sequence[Mapping[str, Any]]) -> Outcome:
        """Return all quality metrics of COCO results, and a table of classes."""
        novel = list(few.novel_classes)
        base = [c for c in few.head_classes if c not in few.novel_classes]
        subsets = {"n": novel} | ({"b": base, "": list(few.head_classes)} if self.setting != "fsis" else {})
        truth = images.ground_truth(few.head_classes)
        scores: dict[str, float | None] = {}
        classes: dict[int, dict[str, Any]] = {c: {"class": few.names[c], "novel": c in novel} for c in few.head_classes}
        for prefix, subset in subsets.items():
            for suffix, iou_type in (("", "segm"), ("_bbox", "bbox")):
                found = average_precision(truth, detections, subset, "segm" if iou_type == "segm" else "bbox")
                scores |= _named(prefix, suffix, found)
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

    def with_other_answers(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the data with the class of every test object changed."""
        dataset: CocoDataset = data["test"]
        ids = list(dataset.categories)
        following = dict(zip(ids, [*ids[1:], ids[0]], strict=True))

        def other(record: Record) -> Record:
            changed = ({**a, "category_id": following[a["category_id"]]} for a in record.annotations)
            return replace(record, annotations=tuple(changed))

        test = ImageSet([other(record) for record in dataset.test], dataset.test.source)
        return {role: replace(found, test=test) for role, found in data.items()}

    def score(self, predictions: Path, data: Mapping[str, Any], protocol: Any) -> Outcome:
        """Judge a COCO results json: a list of image_id, category_id, score, segmentation and bbox.

        All novel classes count (and in gfsis and ifsis all base classes), whether or not they can give K shots.
        """
        dataset: CocoDataset = data["test"]
        base, novel = split_classes(dataset, dataset.train)
        head = novel if self.setting == "fsis" else tuple(sorted((*base, *novel)))
        few = FewShotData(dataset.train, ImageSet((), ""), base, novel, head, dataset.categories, self.setting)
        detections = _read_results(predictions, dataset.test, head)
        outcome = self.judge(few, dataset.test, detections)
        outcome.scores["images_per_second"] = None
        outcome.undefined["images_per_second"] = "predicted elsewhere"
        return outcome


class FewShot(FewShotInstanceSegmentation):
    """Novel classes only."""

    name = "fsis"
    title = "Few-shot instance segmentation: novel classes only"
    setting = "fsis"
    metrics = (*_NOVEL, *_SPEED)


class GeneralisedFewShot(FewShotInstanceSegmentation):
    """All classes, tuned on shots of all."""

    name = "gfsis"
    title = "Generalised few-shot instance segmentation: base and novel classes"
    setting = "gfsis"
    published_seeds: ClassVar[Mapping[str, int]] = _FEWER_SEEDS
    metrics = _ALL


class IncrementalFewShot(FewShotInstanceSegmentation):
    """All classes, tuned without base images."""

    name = "ifsis"
    title = "Incremental few-shot instance segmentation: novel classes added without base images"
    setting = "ifsis"
    published_seeds: ClassVar[Mapping[str, int]] = _FEWER_SEEDS
    metrics = _ALL


def split_classes(dataset: CocoDataset, train: ImageSet) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the base and the novel classes that have a countable training object, as ascending category ids.

    Novel are those that the data name as such, else COCO's twenty.
    """
    shown = {int(a["category_id"]) for r in train for a in r.annotations if not a.get("iscrowd", 0)}
    novel = set(dataset.novel if dataset.novel is not None else coco_split.COCO_NOVEL)
    return tuple(sorted(shown - novel)), tuple(sorted(shown & novel))


def _parts(data: Mapping[str, Any], ctx: RunContext) -> tuple[ImageSet, ImageSet]:
    """Return the images to learn from and those to judge on; for ``val`` a fifth of the training images is judged."""
    train: ImageSet = data["train"].train
    if ctx.split == "test":
        return train, data["test"].test
    order = np.random.default_rng(0).permutation(len(train))
    chosen = set(order[: max(1, round(_VALIDATION_SHARE * len(train)))].tolist())
    learned, held_out = (
        ImageSet([r for i, r in enumerate(train) if (i in chosen) == judged], f"{train.source}:val")
        for judged in (False, True)
    )
    return learned, held_out


def _draw_shots(
    dataset: CocoDataset, train: ImageSet, classes: Sequence[int], protocol: FewShotProtocol, seed: int
) -> tuple[dict[int, tuple[int, ...]], dict[int, str]]:
    """Return the annotation ids of the shots of each class, and why classes were left out."""
    if protocol.source == "sampler":
        annotations = [a for record in train for a in record.annotations]
        annotations.sort(key=lambda a: int(a["id"]))
        drawn = coco_split.sample_shots(annotations, sorted(dataset.categories), seed)
        shots = {c: drawn[c].by_k[protocol.shots] for c in classes if protocol.shots in drawn[c].by_k}
        return shots, {c: drawn[c].reason for c in classes if c not in shots}
    if dataset.root is None:
        raise DataError("files of shots need a data root")
    read = coco_split.read_tfa_shots if protocol.source == "tfa-files" else coco_split.read_meta_detr_shots
    shots = read(dataset.root, {c: dataset.categories[c] for c in classes}, protocol.shots, protocol.group)
    return {c: s for c, s in shots.items() if s}, {c: "the file of shots has none" for c, s in shots.items() if not s}


def _shot_records(train: ImageSet, shots: Mapping[int, Sequence[int]], merge: bool) -> ImageSet:
    where: dict[int, tuple[Record, Annotation]] = {int(a["id"]): (r, a) for r in train for a in r.annotations}
    wanted = [number for category in sorted(shots) for number in shots[category]]
    missing = [number for number in wanted if number not in where]
    if missing:
        raise DataError(f"annotation {missing[0]} of the shots is not among the training images")
    records = [replace(where[n][0], annotations=(where[n][1],)) for n in wanted]
    if merge:
        merged: dict[int, Record] = {}
        for record in records:
            before = merged.get(record.image_id)
            merged[record.image_id] = (
                replace(before, annotations=before.annotations + record.annotations) if before else record
            )
        records = list(merged.values())
    return ImageSet(records, train.source)


def _named(prefix: str, suffix: str, found: AveragePrecision) -> dict[str, float | None]:
    scores = {
        f"{prefix}ap{suffix}": found.ap,
        f"{prefix}ap50{suffix}": found.ap50,
        f"{prefix}ap75{suffix}": found.ap75,
    }
    if prefix == "n" and not suffix:
        scores |= {"nap_small": found.small, "nap_medium": found.medium, "nap_large": found.large}
    return scores


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


def _read_results(path: Path, images: ImageSet, classes: Sequence[int]) -> list[dict[str, Any]]:
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


def _draw(path: Path, images: ImageSet, results: Sequence[Mapping[str, Any]], few: FewShotData) -> None:
    from benchsuite.tasks._mask_sheets import draw_sheet

    draw_sheet(path, images, results, few.names, frozenset(few.head_classes))
