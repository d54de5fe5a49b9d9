"""Reading the info files of mmdet3d 1.4: keyframes of nuScenes in one JSON or pickle, boxes in the LiDAR frame.

They hold no bicycle racks as such, so nothing is left out for standing in one, and attributes only for boxes that a
camera sees. Older info files have another layout and are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from benchsuite.core.errors import DataError, DatasetNotFound, did_you_mean
from benchsuite.datasets.driving_scenes.geometry import Floats, inverse, moved, placed
from benchsuite.datasets.driving_scenes.scenes import (
    ATTRIBUTES,
    CLASSES,
    NO_ATTRIBUTE,
    Boxes,
    Camera,
    DrivingScenes,
    Keyframe,
    Part,
    Racks,
    Sweep,
)
from benchsuite.datasets.driving_scenes.tables import CAMERAS, EXTENT, LIDAR, MOST_SWEEPS, camera_matrix, vector
from benchsuite.datasets.json_values import entry, field, number, read_json, shown, text, whole
from benchsuite.datasets.plain_pickles import read_plain_pickle

_ATTRIBUTES = (
    *("cycle.with_rider", "cycle.without_rider"),
    *("pedestrian.moving", "pedestrian.standing", "pedestrian.sitting_lying_down"),
    *("vehicle.moving", "vehicle.parked", "vehicle.stopped"),
)
"""The order that info files number attributes in; 8 is none."""

_SAME_PLACE = 0.1  # metres: matrices are stored in single precision
_MOST_BYTES = 8 * 2**30
_ENDINGS = (".json", ".pkl")
_NO_RACKS = Racks(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3, 3)))


def load_infos(root: Path | None, draw: int) -> DrivingScenes:
    """Return the keyframes of a folder with ``*infos_train`` and ``*infos_val`` files (``.json`` or ``.pkl``).

    Where there is one info file only, its keyframes are both learned from and judged on, and a note says so.

    Raises
    ------
    DatasetNotFound
        Without a folder, or without an info file in it.
    DataError
        As `read_infos`, and for several files that could be meant.
    """
    if root is None:
        raise DatasetNotFound("give the folder with info files of mmdet3d and the data: --data-root DIR")
    files = sorted(p for p in root.glob("*info*") if p.suffix in _ENDINGS and p.is_file())
    if not files:
        raise DatasetNotFound(f"{root}: holds no info file of mmdet3d, such as nuscenes_infos_val.pkl")
    note = ""
    if len(files) == 1:
        train = test = files[0]
        note = f"{files[0].name} is the only info file: what is judged on was learned from"
    else:
        train, test = (_only(root, files, word) for word in ("train", "val"))
    learned, classes, channels, left_out = read_infos(train)
    judged = learned
    if test != train:
        judged, others, other_channels, more = read_infos(test)
        if (others, other_channels) != (classes, channels):
            raise DataError(f"{test}: has other classes or cameras than {train.name}")
        left_out = left_out + more
    parts: dict[Part, list[Keyframe]] = {"train": learned, "test": judged}
    every = [frame.boxes for frame in (*learned, *judged)]
    return DrivingScenes(
        name="nuscenes-infos",
        classes=classes,
        channels=channels,
        extent=EXTENT,
        parts=parts,
        has_attributes=any((boxes.attributes >= 0).any() for boxes in every),
        has_velocities=any(np.isfinite(boxes.velocities).any() for boxes in every),
        left_out=dict(sorted(left_out.items())),
        note=note,
    )


def _only(root: Path, files: Sequence[Path], word: str) -> Path:
    found = [file for file in files if word in file.name]
    if len(found) != 1:
        raise DataError(f"{root}: holds {len(found)} info files with {word!r} in their name, needs one")
    return found[0]


def read_infos(path: Path) -> tuple[list[Keyframe], tuple[str, ...], tuple[str, ...], Counter[str]]:
    """Return keyframes, classes, cameras and what was left out of one info file.

    Raises
    ------
    DataError
        For a file that is damaged, of another layout, or (a pickle) holds more than plain values and arrays, an item
        that lacks what is needed, or one whose pictures or points are not there.
    """
    if path.suffix == ".pkl":
        what = "an info file of plain values and arrays"
        content = _plain(read_plain_pickle(path, what, _MOST_BYTES, arrays=True))
    else:
        content, _ = read_json(path, "an info file of mmdet3d")
    if isinstance(content, dict) and "infos" in content:
        raise DataError(f"{path}: is of mmdet3d 1.0 or older: convert it with its tool update_infos_to_v2.py")
    if not isinstance(content, dict) or not {"metainfo", "data_list"} <= content.keys():
        raise DataError(f"{path}: is no info file of mmdet3d 1.x: it needs metainfo and data_list")
    reader = _Reader(path, content["metainfo"])
    items = content["data_list"]
    if not isinstance(items, list) or not items:
        raise DataError(f"{path}: data_list is {shown(items)}, needs a list of keyframes")
    keyframes = []
    for place, item in enumerate(items):
        try:
            keyframes.append(reader.keyframe(entry(item)))
        except ValueError as error:
            raise DataError(f"{path}: item {place} (from 0): {error}") from None
    tokens = Counter(frame.token for frame in keyframes)
    if (twice := tokens.most_common(1)[0])[1] > 1:
        raise DataError(f"{path}: {shown(twice[0])} is there twice: keep one")
    return keyframes, reader.classes, reader.channels, reader.left_out


def _plain(value: Any) -> Any:
    """Return arrays and NumPy's numbers as lists and numbers."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _matrix(rows: int) -> Any:
    """Return a converter to a matrix with so many rows and columns whose last row is 0 ... 0 1."""

    def convert(value: Any) -> Floats:
        if not isinstance(value, list) or len(value) != rows:
            raise ValueError(f"is {shown(value)}: it needs {rows} rows of {rows} numbers")
        found = np.stack([vector(rows)(row) for row in value])
        rotation = found[:3, :3]
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or not np.array_equal(found[3], [0, 0, 0, 1]):
            raise ValueError(f"is {shown(value)}: it needs a rotation, a place, and 0, 0, 0, 1")
        return found

    return convert


def _velocity(value: Any) -> Floats:
    """Return two numbers; NaN is unknown."""
    if not isinstance(value, list) or len(value) != 2 or not all(type(one) in (int, float) for one in value):
        raise ValueError(f"is {shown(value)}: it needs two numbers")
    return np.array(value, dtype=np.float64)


def _box(value: Any) -> Floats:
    found = vector(7)(value)
    if not (found[3:6] > 0).all():
        raise ValueError(f"is {shown(value)}: length, width and height must be positive, in metres")
    return found


def _label(value: Any) -> int:
    return -1 if value == -1 and type(value) is int else whole(value)


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"is {shown(value)}: it needs a list")
    return value


class _Reader:
    """Turns items of one file into keyframes."""

    def __init__(self, path: Path, about: Any) -> None:
        self.path, self.root = path, path.parent
        self.left_out: Counter[str] = Counter()
        self.channels: tuple[str, ...] = ()
        try:
            categories = field(entry(about), "categories", entry)
            self.names = {name: field(categories, name, _label) for name in categories}
        except ValueError as error:
            raise DataError(f"{path}: metainfo: {error}") from None
        unknown = [name for name, label in self.names.items() if label >= 0 and name not in CLASSES]
        if unknown:
            raise DataError(
                f"{path}: metainfo: class {shown(unknown[0])} is unknown{did_you_mean(unknown[0], CLASSES)}"
            )
        self.classes = tuple(name for name in CLASSES if self.names.get(name, -1) >= 0)
        if not self.classes:
            raise DataError(f"{path}: metainfo: names no class of the detection task, such as car")
        self.labels = {self.names[name]: place for place, name in enumerate(self.classes)}

    def keyframe(self, item: Mapping[str, Any]) -> Keyframe:
        """Return a keyframe; raises `ValueError`, and `DataError` for files that are not there."""
        token = field(item, "token", text)
        images, lidar = field(item, "images", entry), field(item, "lidar_points", entry)
        self._check_channels(images)
        lidar_to_ego, ego_to_global = field(lidar, "lidar2ego", _matrix(4)), field(item, "ego2global", _matrix(4))
        if lidar.get("num_pts_feats") not in (5, None):
            raise ValueError(f"lidar_points: num_pts_feats is {shown(lidar['num_pts_feats'])}, needs 5")
        seconds = float(field(item, "timestamp", number))
        cameras = tuple(self._camera(channel, images[channel]) for channel in self.channels)
        sweeps = [Sweep(self._file(field(lidar, "lidar_path", text), LIDAR), np.eye(4), 0.0)]
        for sweep in _listed(item.get("lidar_sweeps", []))[:MOST_SWEEPS]:
            sweeps.append(self._sweep(entry(sweep), seconds))
        instances = [entry(one) for one in field(item, "instances", _listed)]
        boxes = self._boxes(instances, cameras, item.get("cam_instances"))
        return Keyframe(
            token=token,
            scene=token,  # info files do not say which scene
            timestamp=seconds,
            lidar_to_ego=lidar_to_ego,
            ego_to_global=ego_to_global,
            cameras=cameras,
            lidar=tuple(sweeps),
            boxes=boxes,
            global_boxes=moved(boxes, ego_to_global @ lidar_to_ego),
            racks=_NO_RACKS,
        )

    def _check_channels(self, images: Mapping[str, Any]) -> None:
        present = CAMERAS if set(images) == set(CAMERAS) else tuple(images)
        self.channels = self.channels or present
        if not present or set(present) != set(self.channels):
            raise ValueError(f"has the cameras {', '.join(present) or 'none'}, others {', '.join(self.channels)}")

    def _camera(self, channel: str, given: Any) -> Camera:
        try:
            image = entry(given)
            name = field(image, "img_path", text)
            intrinsic, to_camera = field(image, "cam2img", camera_matrix), field(image, "lidar2cam", _matrix(4))
        except ValueError as error:
            raise ValueError(f"{channel}: {error}") from None
        return Camera(channel, self._file(name, channel), intrinsic, to_camera)

    def _sweep(self, sweep: Mapping[str, Any], seconds: float) -> Sweep:
        lidar = field(sweep, "lidar_points", entry)
        lag = seconds - float(field(sweep, "timestamp", number))
        if not 0 < lag < 5:
            raise ValueError(f"lidar_sweeps: a sweep is {lag:g} s older than its keyframe, needs 0 to 5 (in seconds)")
        path = self._file(field(lidar, "lidar_path", text), LIDAR)
        return Sweep(path, inverse(field(lidar, "lidar2sensor", _matrix(4))), lag)

    def _file(self, given: str, channel: str) -> Path:
        """Return where a file lies: info files give names, or paths on the machine that made them."""
        name = PureWindowsPath(given).name  # takes both kinds of slashes
        places = [self.root / part / channel / name for part in ("samples", "sweeps")] + [self.root / name]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise DataError(
                f"{self.path}: {shown(name)} is neither in samples/{channel} nor sweeps/{channel} beside it"
            )
        return found

    def _boxes(self, instances: Sequence[Mapping[str, Any]], cameras: Sequence[Camera], seen: Any) -> Boxes:
        kept = []
        for place, one in enumerate(instances):
            try:
                label = field(one, "bbox_label_3d", _label)
                if label not in self.labels:
                    self.left_out["boxes: other categories"] += 1
                    continue
                points = field(one, "num_lidar_pts", whole) + field(one, "num_radar_pts", whole)
                velocity = _velocity(one["velocity"]) if "velocity" in one else np.full(2, np.nan)
                kept.append((field(one, "bbox_3d", _box), self.labels[label], points, velocity))
            except ValueError as error:
                raise ValueError(f"instance {place}: {error}") from None
        values = np.array([box for box, *_ in kept]).reshape(-1, 7)
        boxes = Boxes(
            centres=values[:, :3],
            sizes=values[:, 3:6],
            yaws=values[:, 6],
            velocities=np.array([velocity for *_, velocity in kept]).reshape(-1, 2),
            labels=np.array([label for _, label, *_ in kept], dtype=np.int64),
            attributes=np.full(len(kept), NO_ATTRIBUTE, dtype=np.int64),
            points=np.array([points for *_, points, _ in kept], dtype=np.int64),
        )
        for camera in cameras:
            if isinstance(seen, dict):
                self._take_attributes(boxes, camera, _listed(seen.get(camera.channel, [])))
        return boxes

    def _take_attributes(self, boxes: Boxes, camera: Camera, seen: Sequence[Any]) -> None:
        """Fill in the attributes of boxes that a camera sees: those at the same place with the same label."""
        places = placed(boxes.centres, camera.lidar_to_camera)
        for one in map(entry, seen):
            number_of_attribute = field(one, "attr_label", whole)
            if number_of_attribute >= len(_ATTRIBUTES):
                continue
            apart = np.linalg.norm(places - vector(7)(one.get("bbox_3d"))[:3], axis=1)
            apart[boxes.labels != self.labels.get(field(one, "bbox_label_3d", _label), -1)] = np.inf
            if len(apart) and apart.min() < _SAME_PLACE:
                boxes.attributes[apart.argmin()] = ATTRIBUTES.index(_ATTRIBUTES[number_of_attribute])
