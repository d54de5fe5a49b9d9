"""3-D detection: boxes of objects around a car, found by cameras and LiDAR, judged by the nuScenes detection score.

A detector is trained once, with all sensors, and then judged as it is under every sensor condition: without LiDAR,
without cameras, with some cameras missing, with fewer beams, with noise. It is not told which. Ranked by the NDS with
all sensors; where the data have a part of the ten classes there is no NDS, and mAP over those ranks.

Protocol: classes, ranges, filters and metrics as in nuScenes (``detection_cvpr_2019``); resistance to corruptions
as in MultiCorrupt, with corruptions of our own (`sensors.CORRUPTIONS`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from benchsuite.core import Metric, Outcome, Ranking, RunContext, Task
from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.datasets.driving_scenes.scenes import CLASSES, Boxes, DrivingScenes, Keyframe
from benchsuite.metrics.nuscenes import DISTANCES, ERRORS, DetectionScores, mean_resistance, resistance_ability
from benchsuite.tasks.detection3d.contract import (
    Detection3DMethod,
    Detection3DProtocol,
    Detector,
    Frames,
    TrainingScenes,
)
from benchsuite.tasks.detection3d.judge import Found, Judge, check_found, read_results, write_results
from benchsuite.tasks.detection3d.sensors import (
    CORRUPTIONS,
    FULL,
    NO_CAMERAS,
    NO_LIDAR,
    Condition,
    FrameReader,
    conditions_of,
)

_PREDICTIONS = "predictions.json"
_MEANS = {"mate": "translation", "mase": "scale", "maoe": "orientation", "mave": "velocity", "maae": "attribute"}
_WITHOUT = (NO_LIDAR, NO_CAMERAS)
_TOTALS = {
    "nds": "nuScenes detection score: (5 mAP + the five errors as scores) / 10, ten classes only",
    "map": "average precision, mean over classes and distances of 0.5, 1, 2 and 4 m between centres",
    "nds3": "(5 mAP + place, size and direction but for a half turn, as scores) / 8; not the official score",
}


def _totals(suffix: str, where: str) -> tuple[Metric, ...]:
    return tuple(Metric(f"{name}{suffix}", "max", doc=f"{doc}{where}") for name, doc in _TOTALS.items())


class Detection3D(Task[Detection3DMethod, DrivingScenes, Detection3DProtocol]):
    """See the module."""

    name = "detection3d"
    version = "1"
    Protocol = Detection3DProtocol
    metrics = (
        *_totals("", ""),
        Metric("mate", "min", "m", doc="mean distance of centres of right boxes, over classes"),
        Metric("mase", "min", doc="the same of 1 - IoU of sizes"),
        Metric("maoe", "min", "rad", doc="the same of the difference in direction (no traffic cones)"),
        Metric("mave", "min", "m/s", doc="the same of the difference in velocity (no cones, no barriers)"),
        Metric("maae", "min", doc="the same of wrong attributes (no cones, no barriers)"),
        *_totals("_no_lidar", "; the LiDAR delivers nothing"),
        *_totals("_no_cameras", "; no camera delivers anything"),
        *(
            Metric(
                f"ra_{name}",
                "max",
                "ratio",
                doc=f"{name.replace('_', ' ')}: NDS (mAP on a part of the classes) as a share of that with all sensors,"
                " mean of three severities",
            )
            for name in CORRUPTIONS
        ),
        Metric("mra", "max", "ratio", doc="mean of the former: mRA of MultiCorrupt"),
        Metric("frames_per_second", "max", "1/s", "cost", doc="keyframes a CPU second of detection gets through"),
        Metric(
            "loading_share", "min", kind="cost", doc="share of the CPU seconds of fit and detection that reading took"
        ),
    )
    ranking = Ranking("nds", otherwise="map")
    reference = "cmt-vanilla"
    data_type = "benchsuite.datasets.driving_scenes.scenes:DrivingScenes"
    method_type = Detection3DMethod
    default_data = "cuboids-c"

    def evaluate(
        self,
        method: Detection3DMethod,
        data: Mapping[str, DrivingScenes],
        protocol: Detection3DProtocol,
        ctx: RunContext,
    ) -> Outcome:
        """Let the method learn, and judge what its detector finds under every condition."""
        scenes = data["test"]
        if scenes.note:
            ctx.log.warning(scenes.note)
        learned, judged = _parts(scenes, ctx.split)
        training = _training(scenes, learned, protocol.sweeps)
        start = process_time()
        with ctx.phase("fit"):
            detector = method.fit(training, ctx)
        if not isinstance(detector, Detector):
            raise InvalidPrediction(f"fit returned {type(detector).__name__}: needs a Detector")
        fit_seconds, reading = process_time() - start, _read_seconds(training.frames)
        judge = Judge(scenes, judged)
        results: dict[str, DetectionScores] = {}
        outcome = Outcome({})
        for condition in conditions_of(protocol.conditions):
            frames = FrameReader.frames(judged, condition, protocol.sweeps)
            start = process_time()
            with ctx.phase("predict"):
                found = check_found(detector.detect(frames, ctx), judged, scenes.classes)
            seconds = process_time() - start
            if condition == FULL:
                reading += _read_seconds(frames)
                outcome.scores["frames_per_second"] = len(judged) / max(seconds, 1e-9)
                outcome.scores["loading_share"] = min(reading / max(fit_seconds + seconds, 1e-9), 1.0)
            results[condition.name] = judge.scores(found)
            _keep(ctx, condition, found, judged, scenes)
        _fill(outcome, results, scenes)
        outcome.parameters = detector.parameters
        outcome.counts |= {"training_keyframes": len(learned), "keyframes": len(judged), "objects": judge.objects}
        outcome.tables["left_out"] = [{"what": what, "count": count} for what, count in scenes.left_out.items()]
        if detector.table:
            outcome.tables["training"] = [dict(row) for row in detector.table]
        return outcome

    def with_other_answers(self, data: Mapping[str, DrivingScenes]) -> Mapping[str, DrivingScenes]:
        """Return the data with another class and another place for every object that is judged."""
        return {role: _with_other_answers(found) for role, found in data.items()}

    def score(self, predictions: Path, data: Mapping[str, DrivingScenes], protocol: Detection3DProtocol) -> Outcome:
        """Judge a results file of nuScenes, see `read_results`; ``predictions.json`` of a run is one.

        What is found of classes that the data do not have is left out and counted in ``boxes_not_judged``.
        """
        scenes = data["test"]
        judged = scenes.parts["test"]
        judge = Judge(scenes, judged)
        found, others = read_results(predictions, judged, scenes.classes)
        outcome = Outcome({})
        for name in ("frames_per_second", "loading_share"):
            outcome.scores[name], outcome.undefined[name] = None, "predicted elsewhere"
        _fill(outcome, {FULL.name: judge.scores_of(found)}, scenes, "a results file is of one condition")
        outcome.counts |= {"keyframes": len(judged), "objects": judge.objects, "boxes_not_judged": others}
        return outcome


def _parts(scenes: DrivingScenes, split: str) -> tuple[Sequence[Keyframe], Sequence[Keyframe]]:
    """Return what is learned from and what is judged; for ``val`` every tenth training scene is judged.

    With fewer than ten scenes every fifth, with fewer than five every second.

    Raises
    ------
    DataError
        If there is one training scene only.
    """
    train = scenes.parts["train"]
    if split == "test":
        return train, scenes.parts["test"]
    names = list(dict.fromkeys(frame.scene for frame in train))
    step = 10 if len(names) >= 10 else 5 if len(names) >= 5 else 2
    held_out = frozenset(names[step - 1 :: step])
    if not held_out:
        raise DataError(f"{scenes.name}: has one training scene, so none to hold out: judge on the test part")
    parts = ([frame for frame in train if (frame.scene in held_out) == judged] for judged in (False, True))
    learned, judged = parts
    return learned, judged


def _training(scenes: DrivingScenes, learned: Sequence[Keyframe], sweeps: int) -> TrainingScenes:
    digest = hashlib.sha256(repr((scenes.name, scenes.classes, scenes.channels, sweeps)).encode())
    for frame in learned:
        files = [camera.path.name for camera in frame.cameras] + [sweep.path.name for sweep in frame.lidar]
        digest.update(repr((frame.token, files)).encode())
        for name in Boxes.__dataclass_fields__:
            digest.update(np.ascontiguousarray(getattr(frame.boxes, name)).tobytes())
    return TrainingScenes(
        dataset=scenes.name,
        classes=scenes.classes,
        channels=scenes.channels,
        extent=scenes.extent,
        frames=FrameReader.frames(learned, FULL, sweeps),
        boxes=tuple(frame.boxes for frame in learned),
        scenes=tuple(frame.scene for frame in learned),
        digest=digest.hexdigest(),
    )


def _read_seconds(frames: Frames) -> float:
    return float(frames.read.spent[0]) if isinstance(frames.read, FrameReader) else 0.0


def _keep(
    ctx: RunContext, condition: Condition, found: Sequence[Found], judged: Sequence[Keyframe], scenes: DrivingScenes
) -> None:
    """Keep a sheet of pictures, and what was found with all sensors as a results file."""
    from benchsuite.tasks.detection3d.pictures import draw_sheet

    draw_sheet(ctx.artifact(f"boxes-{condition.name}.png"), condition, judged, found, scenes)
    if condition == FULL:
        write_results(ctx.artifact(_PREDICTIONS), found, judged, scenes.classes)


def _fill(
    outcome: Outcome, results: Mapping[str, DetectionScores], scenes: DrivingScenes, absent: str = "not asked for"
) -> None:
    """Fill in scores, reasons and tables of the conditions that were judged; ``absent`` says why others were not."""
    full = results[FULL.name]
    totals = {name: _total_scores(one, scenes) for name, one in results.items()}
    why = _why_no_nds(scenes)
    for condition in (FULL, *_WITHOUT):
        suffix = "" if condition == FULL else f"_{condition.name}"
        for name in _TOTALS:
            value = totals[condition.name][name] if condition.name in totals else None
            _set(outcome, f"{name}{suffix}", value, why if condition.name in totals else absent)
    for name, error in _MEANS.items():
        what = _unannotated(error, scenes)
        _set(outcome, name, None if what else full.mean_error(error), f"the boxes have no {what}")
    ranked = "map" if totals[FULL.name]["nds"] is None else "nds"
    abilities: list[float] = []
    for name, severities in CORRUPTIONS.items():
        judged = all(one.name in totals for one in severities)
        clean = totals[FULL.name][ranked] or 0.0
        ability = resistance_ability([totals[one.name][ranked] or 0.0 for one in severities], clean) if judged else None
        _set(outcome, f"ra_{name}", ability, "nothing is found with all sensors" if judged else absent)
        abilities += [] if ability is None else [ability]
    whole = len(abilities) == len(CORRUPTIONS)
    _set(outcome, "mra", mean_resistance(abilities) if whole else None, outcome.undefined.get("ra_noise", absent))
    outcome.tables["conditions"] = [_condition_row(name, one, totals[name], scenes) for name, one in results.items()]
    outcome.tables["classes"] = [_class_row(full, place, scenes) for place in range(len(full.classes))]


def _set(outcome: Outcome, name: str, value: float | None, reason: str) -> None:
    outcome.scores[name] = value
    if value is None:
        outcome.undefined[name] = reason


def _total_scores(found: DetectionScores, scenes: DrivingScenes) -> dict[str, float | None]:
    nds = None if _why_no_nds(scenes) else found.nds
    return {"nds": nds, "map": found.mean_average_precision, "nds3": found.nds3}


def _why_no_nds(scenes: DrivingScenes) -> str:
    """Return why data have no NDS; empty if they have."""
    if len(scenes.classes) < len(CLASSES):
        return f"the data have {len(scenes.classes)} of the ten classes"
    lacking = [what for error in ERRORS if (what := _unannotated(error, scenes))]
    return f"the boxes have no {' and no '.join(lacking)}" if lacking else ""


def _unannotated(error: str, scenes: DrivingScenes) -> str:
    """Return what the boxes lack that an error needs; empty if they have it."""
    if error == "velocity" and not scenes.has_velocities:
        return "velocities"
    return "attributes" if error == "attribute" and not scenes.has_attributes else ""


def _condition_row(
    name: str, found: DetectionScores, totals: Mapping[str, float | None], scenes: DrivingScenes
) -> dict[str, Any]:
    means = {short: None if _unannotated(error, scenes) else found.mean_error(error) for short, error in _MEANS.items()}
    return {"condition": name, **totals, **means}


def _class_row(found: DetectionScores, place: int, scenes: DrivingScenes) -> dict[str, Any]:
    precisions = found.average_precisions[place]
    errors = {error: None if _unannotated(error, scenes) else found.errors[error][place] for error in ERRORS}
    return {
        "class": found.classes[place],
        "objects": found.objects[place],
        "ap": float(np.mean(precisions)),
        **{f"ap_{distance:g}m": value for distance, value in zip(DISTANCES, precisions, strict=True)},
        **{f"{error}_error": value for error, value in errors.items()},
    }


def _with_other_answers(scenes: DrivingScenes) -> DrivingScenes:
    def other(boxes: Boxes) -> Boxes:
        return replace(boxes, labels=(boxes.labels + 1) % len(scenes.classes), centres=boxes.centres + 1.0)

    test = [
        replace(frame, boxes=other(frame.boxes), global_boxes=other(frame.global_boxes))
        for frame in scenes.parts["test"]
    ]
    return replace(scenes, parts={**scenes.parts, "test": test})
