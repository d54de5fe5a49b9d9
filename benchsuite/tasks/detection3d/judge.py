"""What a detector finds, checked and brought into the global frame; its scores; files of results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError, InvalidPrediction, did_you_mean
from benchsuite.datasets.driving_scenes.geometry import moved, rotation_of, yaws_of
from benchsuite.datasets.driving_scenes.scenes import ATTRIBUTES, CLASSES, NO_ATTRIBUTE, Boxes, DrivingScenes, Keyframe
from benchsuite.datasets.json_values import entry, field, number, numbers, read_json, shown, text
from benchsuite.metrics.nuscenes import DetectionScores, Racks, SampleBoxes, counted, evaluate
from benchsuite.tasks.detection3d.contract import MOST_BOXES, Detections

_MOVING = 0.2  # metres a second
_AT_REST: Mapping[str, str] = {
    **dict.fromkeys(("car", "truck", "trailer", "construction_vehicle"), "vehicle.parked"),
    "bus": "vehicle.stopped",
    "pedestrian": "pedestrian.standing",
    **dict.fromkeys(("motorcycle", "bicycle"), "cycle.without_rider"),
}
_IN_MOTION: Mapping[str, str] = {
    **dict.fromkeys(("car", "truck", "bus", "trailer", "construction_vehicle"), "vehicle.moving"),
    "pedestrian": "pedestrian.moving",
    **dict.fromkeys(("motorcycle", "bicycle"), "cycle.with_rider"),
}

_META = {"use_camera": True, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False}


@dataclass(frozen=True, eq=False)
class Found:
    """Boxes found in a keyframe, in the global frame.

    Attributes
    ----------
    boxes
        ``points`` are -1.
    scores
        (n,) float64.
    """

    boxes: Boxes
    scores: NDArray[np.float64]


def check_found(detections: Sequence[Detections], keyframes: Sequence[Keyframe], classes: Sequence[str]) -> list[Found]:
    """Return what was found, in the global frame.

    Raises
    ------
    InvalidPrediction
        For another number of keyframes, more than 500 boxes, arrays of the wrong shape or kind, values that no box has.
    """
    if not isinstance(detections, list) or len(detections) != len(keyframes):
        count = len(detections) if isinstance(detections, list) else type(detections).__name__
        raise InvalidPrediction(f"detect returned {count} for {len(keyframes)} keyframes: needs a list of Detections")
    found = []
    for one, key in zip(detections, keyframes, strict=True):
        boxes, scores = _checked(one, classes)
        found.append(Found(moved(boxes, key.ego_to_global @ key.lidar_to_ego), scores))
    return found


def _checked(given: Detections, classes: Sequence[str]) -> tuple[Boxes, NDArray[np.float64]]:
    if not isinstance(given, Detections):
        raise InvalidPrediction(f"detect returned {type(given).__name__} for a keyframe: needs Detections")
    n = len(given.labels) if isinstance(given.labels, np.ndarray) else -1
    if n > MOST_BOXES:
        raise InvalidPrediction(f"{n} boxes in a keyframe: at most {MOST_BOXES}, keep the best")
    shapes = {"centres": (n, 3), "sizes": (n, 3), "yaws": (n,), "velocities": (n, 2), "scores": (n,), "labels": (n,)}
    values: dict[str, NDArray[Any]] = {}
    for name, shape in shapes.items():
        array = getattr(given, name)
        kind = "iu" if name == "labels" else "f"
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.kind not in kind:
            what = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise InvalidPrediction(f"{name} are {what}: needs {'integers' if kind == 'iu' else 'floats'} {shape}")
        values[name] = array.astype(np.int64 if name == "labels" else np.float64)
        if not np.isfinite(values[name]).all():
            raise InvalidPrediction(f"{name} hold NaN or infinity")
    if not (values["sizes"] > 0).all():
        raise InvalidPrediction("sizes must be positive: length, width, height in metres")
    if n and not (0 <= values["scores"].min() <= values["scores"].max() <= 1):
        raise InvalidPrediction("scores lie in [0, 1]")
    if n and not (0 <= values["labels"].min() <= values["labels"].max() < len(classes)):
        raise InvalidPrediction(f"labels are places in classes, 0 to {len(classes) - 1}")
    scores = values.pop("scores")
    boxes = Boxes(**values, attributes=_attributes(given, values, classes), points=np.full(n, -1))
    return boxes, scores


def _attributes(given: Detections, values: Mapping[str, NDArray[Any]], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the attributes that were given, else the usual ones."""
    labels, attributes = values["labels"], given.attributes
    if attributes is None:
        fast = np.hypot(*values["velocities"].T) > _MOVING
        usual = np.array([[_place(of.get(name, "")) for name in classes] for of in (_AT_REST, _IN_MOTION)])
        return np.asarray(usual[fast.astype(int), labels], dtype=np.int64)
    if not isinstance(attributes, np.ndarray) or attributes.shape != labels.shape or attributes.dtype.kind not in "iu":
        raise InvalidPrediction(f"attributes must be integers {labels.shape}, or None")
    if len(attributes) and not (NO_ATTRIBUTE <= attributes.min() <= attributes.max() < len(ATTRIBUTES)):
        raise InvalidPrediction(f"attributes are places in ATTRIBUTES, 0 to {len(ATTRIBUTES) - 1}, or -1")
    return attributes.astype(np.int64)


def _place(attribute: str) -> int:
    return ATTRIBUTES.index(attribute) if attribute else NO_ATTRIBUTE


class Judge:
    """The answers of some keyframes.

    Parameters
    ----------
    data
        Whose classes are judged.
    keyframes
        To be judged on.
    """

    def __init__(self, data: DrivingScenes, keyframes: Sequence[Keyframe]) -> None:
        self.classes, self.keyframes = data.classes, keyframes
        self._ego = np.array([key.ego_to_global[:2, 3] for key in keyframes]).reshape(-1, 2)
        self._racks = Racks(
            np.repeat(np.arange(len(keyframes)), [len(key.racks.centres) for key in keyframes]),
            *(np.concatenate([getattr(key.racks, name) for key in keyframes]) for name in _RACK_PARTS),
        )
        self._truth = self._counted(_joined([(key.global_boxes, None) for key in keyframes]))
        self.objects = len(self._truth)

    def scores(self, found: Sequence[Found]) -> DetectionScores:
        """Return the scores of what was found in each keyframe."""
        joined = _joined([(one.boxes, one.scores) for one in found])
        return self.scores_of(joined)

    def scores_of(self, found: SampleBoxes) -> DetectionScores:
        """Return the scores of found boxes in an order of their own, which decides where scores are equal."""
        return evaluate(self._truth, self._counted(found), self.classes)

    def _counted(self, boxes: SampleBoxes) -> SampleBoxes:
        return boxes[counted(boxes, self.classes, self._ego, self._racks)]


_RACK_PARTS = ("centres", "sizes", "rotations")


def _joined(parts: Sequence[tuple[Boxes, NDArray[np.float64] | None]]) -> SampleBoxes:
    names = ("centres", "sizes", "yaws", "velocities", "labels", "attributes", "points")
    together = {name: np.concatenate([getattr(boxes, name) for boxes, _ in parts]) for name in names}
    scores = [np.full(len(boxes), -1.0) if scores is None else scores for boxes, scores in parts]
    samples = np.repeat(np.arange(len(parts)), [len(boxes) for boxes, _ in parts])
    return SampleBoxes(samples=samples, scores=np.concatenate(scores), **together)


def write_results(path: Path, found: Sequence[Found], keyframes: Sequence[Keyframe], classes: Sequence[str]) -> None:
    """Write a results file of nuScenes: anybody's tools, and `read_results`, read it."""
    results = {
        key.token: [
            {
                "sample_token": key.token,
                "translation": one.boxes.centres[i].tolist(),
                "size": one.boxes.sizes[i, [1, 0, 2]].tolist(),
                "rotation": [math.cos(one.boxes.yaws[i] / 2), 0.0, 0.0, math.sin(one.boxes.yaws[i] / 2)],
                "velocity": one.boxes.velocities[i].tolist(),
                "detection_name": classes[one.boxes.labels[i]],
                "detection_score": float(one.scores[i]),
                "attribute_name": ATTRIBUTES[a] if (a := int(one.boxes.attributes[i])) >= 0 else "",
            }
            for i in range(len(one.scores))
        ]
        for one, key in zip(found, keyframes, strict=True)
    }
    path.write_text(json.dumps({"meta": _META, "results": results}))


def read_results(path: Path, keyframes: Sequence[Keyframe], classes: Sequence[str]) -> tuple[SampleBoxes, int]:
    """Return the boxes of a results file of nuScenes in its order, and how many are of classes that are not judged.

    Parameters
    ----------
    path
        JSON with ``meta`` and ``results``: the token of every sample that is judged to a list of boxes, which may be
        empty.
    keyframes
        That are judged.
    classes
        Of the data.

    Raises
    ------
    DataError
        For json that is broken or cut off, samples that are missing or unknown, more than 500 boxes of one, and boxes
        that lack a field, have another type in it, or values that no box has.
    """
    content, _ = read_json(path, "a results file of nuScenes")
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise DataError(
            f"{path}: is no results file of nuScenes: it needs meta and results, which maps samples to boxes"
        )
    if not isinstance(content.get("meta"), dict):
        raise DataError(f"{path}: has no meta: which sensors were used (use_camera, use_lidar, ...)")
    places = {key.token: place for place, key in enumerate(keyframes)}
    results = content["results"]
    unknown = [token for token in results if token not in places]
    if unknown:
        raise DataError(
            f"{path}: sample {shown(unknown[0])} is none of the {len(places)} that are judged ({len(unknown)} such): is"
            " it of another split?"
        )
    absent = [token for token in places if token not in results]
    if absent:
        raise DataError(
            f"{path}: {len(absent)} of {len(places)} samples are missing, e.g. {shown(absent[0])}: give a list for"
            " each, which may be empty"
        )
    rows: list[tuple[Any, ...]] = []
    others = 0
    for token, listed in results.items():
        if not isinstance(listed, list):
            raise DataError(f"{path}: sample {shown(token)} is {shown(listed)}, needs a list of boxes")
        if len(listed) > MOST_BOXES:
            raise DataError(
                f"{path}: sample {shown(token)} has {len(listed)} boxes: at most {MOST_BOXES}, keep the best"
            )
        for place, given in enumerate(listed, start=1):
            try:
                row = _row(entry(given), token)
            except ValueError as error:
                raise DataError(f"{path}: sample {shown(token)}, box {place} (from 1): {error}") from None
            if row[0] not in classes:
                others += 1
                continue
            rows.append((places[token], classes.index(row[0]), *row[1:]))
    return _from_rows(rows), others


def _from_rows(rows: Sequence[tuple[Any, ...]]) -> SampleBoxes:
    columns = list(zip(*rows, strict=True)) or [()] * 8
    samples, labels, centres, sizes, rotations, velocities, scores, attributes = columns
    return SampleBoxes(
        samples=np.array(samples, dtype=np.int64),
        centres=np.array(centres, dtype=np.float64).reshape(-1, 3),
        sizes=np.array(sizes, dtype=np.float64).reshape(-1, 3)[:, [1, 0, 2]],
        yaws=yaws_of(rotation_of(np.array(rotations, dtype=np.float64).reshape(-1, 4))),
        velocities=np.array(velocities, dtype=np.float64).reshape(-1, 2),
        labels=np.array(labels, dtype=np.int64),
        attributes=np.array(attributes, dtype=np.int64),
        points=np.full(len(rows), -1),
        scores=np.array(scores, dtype=np.float64),
    )


def _row(given: Mapping[str, Any], token: str) -> tuple[Any, ...]:
    """Return class, centre, size, rotation, velocity, score and attribute of a box."""
    if field(given, "sample_token", text) != token:
        raise ValueError(f"sample_token is {shown(given['sample_token'])}, not the sample that it is listed under")
    name = field(given, "detection_name", text)
    if name not in CLASSES:
        raise ValueError(f"detection_name {shown(name)} is unknown{did_you_mean(name, CLASSES)}")
    size = field(given, "size", lambda value: _numbers(value, 3))
    if min(size) <= 0:
        raise ValueError(f"size is {shown(size)}: width, length and height must be positive, in metres")
    rotation = field(given, "rotation", lambda value: _numbers(value, 4))
    if not 0.9 < math.hypot(*rotation) < 1.1:
        raise ValueError(f"rotation is {shown(rotation)}: it needs a quaternion w, x, y, z of length 1")
    attribute = field(given, "attribute_name", _attribute)
    return (
        name,
        field(given, "translation", lambda value: _numbers(value, 3)),
        size,
        rotation,
        field(given, "velocity", lambda value: _numbers(value, 2)),
        field(given, "detection_score", number),
        attribute,
    )


def _numbers(value: Any, length: int) -> list[float]:
    found = numbers(value)
    if len(found) != length:
        raise ValueError(f"is {shown(value)}: it needs {length} numbers")
    return found


def _attribute(value: Any) -> int:
    if type(value) is not str or (value and value not in ATTRIBUTES):
        hint = did_you_mean(value, ATTRIBUTES) if type(value) is str else ""
        raise ValueError(f"is {shown(value)}: write one of the eight attributes of nuScenes, or ''{hint}")
    return _place(value)
