"""Reading the official tables of nuScenes: a folder ``v1.0-...`` of JSON lists beside ``samples`` and ``sweeps``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets.driving_scenes.geometry import Floats, inverse, moved, pose, rotation_of, yaws_of
from benchsuite.datasets.driving_scenes.scenes import (
    ATTRIBUTES,
    CLASSES,
    NO_ATTRIBUTE,
    Boxes,
    Camera,
    DrivingScenes,
    Extent,
    Keyframe,
    Part,
    Racks,
    Sweep,
)
from benchsuite.datasets.driving_scenes.splits import MINI, TRAINVAL, split_scenes
from benchsuite.datasets.json_values import entry, field, numbers, read_json, shown, text, whole

T = TypeVar("T")
Row = Mapping[str, Any]

CATEGORIES: Mapping[str, str] = {
    "vehicle.car": "car",
    "vehicle.truck": "truck",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.trailer": "trailer",
    "vehicle.construction": "construction_vehicle",
    **{f"human.pedestrian.{who}": "pedestrian" for who in ("adult", "child", "construction_worker", "police_officer")},
    "vehicle.motorcycle": "motorcycle",
    "vehicle.bicycle": "bicycle",
    "movable_object.trafficcone": "traffic_cone",
    "movable_object.barrier": "barrier",
}
"""Category of an annotation to its class in the detection task; others are left out."""

RACK = "static_object.bicycle_rack"
LIDAR = "LIDAR_TOP"
CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
"""The six cameras of nuScenes, in the order that mmdet3d gives them; other rigs keep the order of ``sensor.json``."""

EXTENT: Extent = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
MOST_SWEEPS = 10
MICROSECOND = 1e-6

_LONGEST = 1.5  # seconds between two annotations that give a velocity; twice that from before to after
_TABLES = (
    *("category", "attribute", "sensor", "calibrated_sensor", "ego_pose", "scene", "sample", "sample_data"),
    *("instance", "sample_annotation"),
)


def load_trainval(root: Path | None, draw: int) -> DrivingScenes:
    """Return nuScenes: 700 scenes to learn from, the 150 validation scenes to judge on. Raises as `read_version`."""
    return read_version(_version(root, TRAINVAL), "nuscenes")


def load_mini(root: Path | None, draw: int) -> DrivingScenes:
    """Return nuScenes mini: 8 scenes and 2. Raises as `read_version`."""
    return read_version(_version(root, MINI), "nuscenes-mini")


def load_own(root: Path | None, draw: int) -> DrivingScenes:
    """Return a folder in the format of nuScenes with a split of its own (``splits.json``). Raises as `read_version`."""
    if root is None:
        raise DatasetNotFound("give the folder with v1.0-*/splits.json: --data-root DIR")
    found = sorted(root.glob("v1.0-*/splits.json"))
    if len(found) != 1:
        raise DatasetNotFound(f"{root}: holds {len(found)} files v1.0-*/splits.json, needs one")
    return read_version(found[0].parent, "nuscenes-format")


def _version(root: Path | None, version: str) -> Path:
    if root is None:
        raise DatasetNotFound(f"give the folder with {version}/, samples/ and sweeps/: --data-root DIR")
    if not (root / version).is_dir():
        raise DatasetNotFound(f"{root}: holds no {version}/ with the tables of nuScenes")
    return root / version


def read_version(folder: Path, name: str, extent: Extent = EXTENT) -> DrivingScenes:
    """Return the keyframes that tables describe; pictures and points stay on disk.

    Parameters
    ----------
    folder
        With the tables; files are named relative to the folder that it stands in.
    name
        Of the data set.
    extent
        See `DrivingScenes.extent`.

    Raises
    ------
    DataError
        For a table that is missing, cut off or damaged, a record that lacks what is needed, or one that names a record
        of another table that is not there.
    """
    return _Reader(folder, extent).read(name)


@dataclass(frozen=True, eq=False)
class _Table:
    """A table by token."""

    path: Path
    rows: Mapping[str, Row]

    def __getitem__(self, token: str) -> Row:
        if token not in self.rows:
            raise DataError(f"{self.path}: has no {shown(token)}, which another table names: is it cut off?")
        return self.rows[token]

    def wrong(self, row: Row, error: ValueError) -> DataError:
        return DataError(f"{self.path}: {shown(row['token'])}: {error}")

    def value(self, row: Row, key: str, convert: Callable[[Any], T]) -> T:
        """Return the converted value of a record's field; raises `DataError`."""
        try:
            found: T = field(row, key, convert)
        except ValueError as error:
            raise self.wrong(row, error) from None
        return found

    def link(self, row: Row, key: str, other: _Table) -> Row:
        """Return the record of another table that a field names."""
        token = self.value(row, key, text)
        if token not in other.rows:
            raise DataError(
                f"{self.path}: {shown(row['token'])}: {key} {shown(token)} is not in {other.path.name}: is it cut off?"
            )
        return other.rows[token]


def _read_table(path: Path) -> _Table:
    if not path.is_file():
        raise DataError(f"{path}: is missing: complete the tables")
    content, _ = read_json(path, "a table of nuScenes")
    if not isinstance(content, list):
        raise DataError(f"{path}: is {shown(content)}, needs a list of records")
    rows: dict[str, Row] = {}
    for place, row in enumerate(content, start=1):
        try:
            token = field(entry(row), "token", text)
        except ValueError as error:
            raise DataError(f"{path}: record {place} (from 1): {error}") from None
        if token in rows:
            raise DataError(f"{path}: record {place} (from 1): {shown(token)} is there twice: keep one")
        rows[token] = row
    return _Table(path, rows)


def vector(length: int) -> Callable[[Any], Floats]:
    """Return a converter to so many numbers."""

    def convert(value: Any) -> Floats:
        found = numbers(value)
        if len(found) != length:
            raise ValueError(f"is {shown(value)}: it needs {length} numbers")
        return np.array(found, dtype=np.float64)

    return convert


def turned(value: Any) -> Floats:
    """Return the (3, 3) rotation of a quaternion w, x, y, z."""
    quaternion = vector(4)(value)
    if not 0.9 < np.linalg.norm(quaternion) < 1.1:
        raise ValueError(f"is {shown(value)}: it needs a quaternion w, x, y, z of length 1")
    return rotation_of(quaternion)


def sides(value: Any) -> Floats:
    """Return width, length, height, all positive."""
    found = vector(3)(value)
    if not (found > 0).all():
        raise ValueError(f"is {shown(value)}: width, length and height must be positive, in metres")
    return found


def camera_matrix(value: Any) -> Floats:
    """Return a (3, 3) camera matrix."""
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"is {shown(value)}: it needs three rows of three numbers")
    found = np.stack([vector(3)(row) for row in value])
    if not (found[0, 0] > 0 and found[1, 1] > 0 and np.array_equal(found[2], [0, 0, 1])):
        raise ValueError(f"is {shown(value)}: it needs focal lengths in pixels, and 0, 0, 1 in the last row")
    return found


def file_name(value: Any) -> str:
    """Return the path of a file below the folder."""
    path = PurePosixPath(text(value))
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"is {shown(value)}: it needs a file below the folder")
    return str(path)


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"is {shown(value)}: write true or false")
    return value


def _link(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"is {shown(value)}: write a token, or '' at the end of a chain")
    return value


def _tokens(value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > 1:
        raise ValueError(f"is {shown(value)}: a list of one token at most is needed")
    return [text(token) for token in value]


class _Reader:
    """The tables of one version, and what is built from them."""

    def __init__(self, folder: Path, extent: Extent) -> None:
        self.folder, self.root, self.extent = folder, folder.parent, extent
        self.tables = {name: _read_table(folder / f"{name}.json") for name in _TABLES}
        self.poses: dict[tuple[str, str], Floats] = {}
        self.left_out: Counter[str] = Counter()

    def read(self, name: str) -> DrivingScenes:
        scenes, samples = self.tables["scene"], self.tables["sample"]
        names = {token: scenes.value(row, "name", text) for token, row in scenes.rows.items()}
        split = split_scenes(self.folder, names.values())
        self.classes, self.labels = self._classes()
        keyframes_of = self._sensors()
        annotations = self._annotations()
        channels = self._channels(keyframes_of)
        parts: dict[Part, list[Keyframe]] = {"train": [], "test": []}
        in_order = sorted(
            (names[samples.link(row, "scene_token", scenes)["token"]], samples.value(row, "timestamp", whole), token)
            for token, row in samples.rows.items()
        )
        for scene, _, token in in_order:
            for part, members in split.items():
                if scene in members:
                    sensors, boxes = keyframes_of.get(token, {}), annotations.get(token, [])
                    parts[part].append(self._keyframe(token, scene, sensors, channels, boxes))
        every = [frame.global_boxes for frames in parts.values() for frame in frames]
        return DrivingScenes(
            name=name,
            classes=self.classes,
            channels=channels,
            extent=self.extent,
            parts=parts,
            has_attributes=any((boxes.attributes >= 0).any() for boxes in every),
            has_velocities=any(np.isfinite(boxes.velocities).any() for boxes in every),
            left_out=dict(sorted(self.left_out.items())),
        )

    def _classes(self) -> tuple[tuple[str, ...], dict[str, int]]:
        """Return the classes that the categories belong to, and each such category's label by its token."""
        table = self.tables["category"]
        of = {token: CATEGORIES.get(table.value(row, "name", text)) for token, row in table.rows.items()}
        classes = tuple(name for name in CLASSES if name in of.values())
        if not classes:
            raise DataError(f"{table.path}: names no category of the detection task, such as vehicle.car")
        return classes, {token: classes.index(name) for token, name in of.items() if name is not None}

    def _sensors(self) -> dict[str, dict[str, Row]]:
        """Return for each sample the record of each channel's keyframe."""
        table, calibrated = self.tables["sample_data"], self.tables["calibrated_sensor"]
        sensors = self.tables["sensor"]
        channel_of = {
            token: sensors.value(calibrated.link(row, "sensor_token", sensors), "channel", text)
            for token, row in calibrated.rows.items()
        }
        found: dict[str, dict[str, Row]] = {}
        for row in table.rows.values():
            if not table.value(row, "is_key_frame", _truth):
                continue
            channel = channel_of[table.link(row, "calibrated_sensor_token", calibrated)["token"]]
            sample = table.link(row, "sample_token", self.tables["sample"])["token"]
            if channel in found.setdefault(sample, {}):
                raise DataError(f"{table.path}: sample {shown(sample)} has two keyframes of {channel}: keep one")
            found[sample][channel] = row
        return found

    def _channels(self, keyframes_of: Mapping[str, Mapping[str, Row]]) -> tuple[str, ...]:
        table = self.tables["sensor"]
        used = {channel for channels in keyframes_of.values() for channel in channels}
        cameras = [
            channel
            for row in table.rows.values()
            if table.value(row, "modality", text) == "camera" and (channel := table.value(row, "channel", text)) in used
        ]
        if not cameras:
            raise DataError(f"{self.tables['sample_data'].path}: has no keyframe of a camera")
        return CAMERAS if set(cameras) == set(CAMERAS) else tuple(dict.fromkeys(cameras))

    def _annotations(self) -> dict[str, list[Row]]:
        table = self.tables["sample_annotation"]
        found: dict[str, list[Row]] = {}
        for row in table.rows.values():
            found.setdefault(table.link(row, "sample_token", self.tables["sample"])["token"], []).append(row)
        return found

    def _pose(self, table: str, row: Row) -> Floats:
        """Return the (4, 4) pose of a record of ``calibrated_sensor`` or ``ego_pose``."""
        key = (table, row["token"])
        if key not in self.poses:
            of = self.tables[table]
            self.poses[key] = pose(of.value(row, "rotation", turned), of.value(row, "translation", vector(3)))
        return self.poses[key]

    def _to_global(self, row: Row) -> tuple[Floats, Floats]:
        """Return the (4, 4) poses of a sensor in the car, and of the car, for a record of ``sample_data``."""
        table = self.tables["sample_data"]
        sensor = table.link(row, "calibrated_sensor_token", self.tables["calibrated_sensor"])
        ego = table.link(row, "ego_pose_token", self.tables["ego_pose"])
        return self._pose("calibrated_sensor", sensor), self._pose("ego_pose", ego)

    def _keyframe(
        self, token: str, scene: str, sensors: Mapping[str, Row], channels: Sequence[str], annotations: Sequence[Row]
    ) -> Keyframe:
        data = self.tables["sample_data"]
        absent = [channel for channel in (LIDAR, *channels) if channel not in sensors]
        if absent:
            raise DataError(f"{data.path}: sample {shown(token)} has no keyframe of {absent[0]}: is the table cut off?")
        lidar_to_ego, ego_to_global = self._to_global(sensors[LIDAR])
        lidar_to_global = ego_to_global @ lidar_to_ego
        known, racks = self._boxes(annotations)
        return Keyframe(
            token=token,
            scene=scene,
            timestamp=data.value(sensors[LIDAR], "timestamp", whole) * MICROSECOND,
            lidar_to_ego=lidar_to_ego,
            ego_to_global=ego_to_global,
            cameras=tuple(self._camera(channel, sensors[channel], lidar_to_global) for channel in channels),
            lidar=self._sweeps(sensors[LIDAR], inverse(lidar_to_global)),
            boxes=moved(known, inverse(lidar_to_global)),
            global_boxes=known,
            racks=racks,
        )

    def _camera(self, channel: str, row: Row, lidar_to_global: Floats) -> Camera:
        data, calibrated = self.tables["sample_data"], self.tables["calibrated_sensor"]
        camera_to_ego, ego_to_global = self._to_global(row)
        sensor = data.link(row, "calibrated_sensor_token", calibrated)
        return Camera(
            channel=channel,
            path=self.root / data.value(row, "filename", file_name),
            intrinsic=calibrated.value(sensor, "camera_intrinsic", camera_matrix),
            lidar_to_camera=inverse(camera_to_ego) @ inverse(ego_to_global) @ lidar_to_global,
            size=(data.value(row, "height", whole), data.value(row, "width", whole)),
        )

    def _sweeps(self, row: Row, global_to_key: Floats) -> tuple[Sweep, ...]:
        """Return the keyframe's sweep and up to ten before it."""
        data = self.tables["sample_data"]
        start = data.value(row, "timestamp", whole)
        sweeps = [Sweep(self.root / data.value(row, "filename", file_name), np.eye(4), 0.0)]
        while len(sweeps) <= MOST_SWEEPS and data.value(row, "prev", _link):
            row = data.link(row, "prev", data)
            lidar_to_ego, ego_to_global = self._to_global(row)
            lag = (start - data.value(row, "timestamp", whole)) * MICROSECOND
            if lag <= 0:
                raise DataError(f"{data.path}: {shown(row['token'])} is a sweep before one that is older than it")
            path = self.root / data.value(row, "filename", file_name)
            sweeps.append(Sweep(path, global_to_key @ ego_to_global @ lidar_to_ego, lag))
        return tuple(sweeps)

    def _boxes(self, annotations: Sequence[Row]) -> tuple[Boxes, Racks]:
        """Return the boxes of a sample in the global frame, and its bicycle racks."""
        table, instances, categories = (self.tables[n] for n in ("sample_annotation", "instance", "category"))
        kept, racks = [], []
        for row in annotations:
            category = instances.link(table.link(row, "instance_token", instances), "category_token", categories)
            if category["token"] in self.labels:
                kept.append((row, self.labels[category["token"]]))
                continue
            if category["name"] == RACK:
                racks.append(row)
            self.left_out[f"annotations: {category['name']}"] += 1
        centres, sizes, rotations = self._geometry([row for row, _ in kept])
        boxes = Boxes(
            centres=centres,
            sizes=sizes,
            yaws=yaws_of(rotations),
            velocities=np.array([self._velocity(row) for row, _ in kept]).reshape(-1, 2),
            labels=np.array([label for _, label in kept], dtype=np.int64),
            attributes=np.array([self._attribute(row) for row, _ in kept], dtype=np.int64),
            points=np.array([self._points(row) for row, _ in kept], dtype=np.int64),
        )
        return boxes, Racks(*self._geometry(racks))

    def _geometry(self, rows: Sequence[Row]) -> tuple[Floats, Floats, Floats]:
        """Return centres (n, 3), lengths, widths and heights (n, 3), and rotations (n, 3, 3) of annotations."""
        table = self.tables["sample_annotation"]
        centres = np.array([table.value(row, "translation", vector(3)) for row in rows]).reshape(-1, 3)
        sizes = np.array([table.value(row, "size", sides) for row in rows]).reshape(-1, 3)[:, [1, 0, 2]]
        rotations = np.array([table.value(row, "rotation", turned) for row in rows]).reshape(-1, 3, 3)
        return centres, sizes, rotations

    def _points(self, row: Row) -> int:
        table = self.tables["sample_annotation"]
        return table.value(row, "num_lidar_pts", whole) + table.value(row, "num_radar_pts", whole)

    def _attribute(self, row: Row) -> int:
        table, attributes = self.tables["sample_annotation"], self.tables["attribute"]
        tokens = table.value(row, "attribute_tokens", _tokens)
        if not tokens:
            return NO_ATTRIBUTE
        name = attributes.value(attributes[tokens[0]], "name", text)
        if name not in ATTRIBUTES:
            raise DataError(f"{attributes.path}: {shown(name)} is none of the eight attributes of nuScenes")
        return ATTRIBUTES.index(name)

    def _velocity(self, row: Row) -> tuple[float, float]:
        """Return how fast an object moves along x and y, from its place before and after; NaN if unknown."""
        table, samples = self.tables["sample_annotation"], self.tables["sample"]
        before, after = (table.value(row, key, _link) for key in ("prev", "next"))
        if not before and not after:
            return math.nan, math.nan
        first = table.link(row, "prev", table) if before else row
        last = table.link(row, "next", table) if after else row
        times = [
            MICROSECOND * samples.value(table.link(one, "sample_token", samples), "timestamp", whole)
            for one in (first, last)
        ]
        seconds = times[1] - times[0]
        if seconds > _LONGEST * (2 if before and after else 1):
            return math.nan, math.nan
        if seconds <= 0:
            raise DataError(f"{table.path}: {shown(row['token'])} follows an annotation that is not older")
        places = [table.value(one, "translation", vector(3)) for one in (first, last)]
        x, y = ((places[1] - places[0])[:2] / seconds).tolist()
        return x, y
