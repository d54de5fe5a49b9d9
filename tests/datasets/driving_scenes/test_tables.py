"""The official tables: geometry, velocities, filters' data, splits, and broken files."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driving import VERSION, streets, streets_folder

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets.driving_scenes.geometry import corners, inverse, moved, placed, rotation_of
from benchsuite.datasets.driving_scenes.points import read_points, read_sweeps
from benchsuite.datasets.driving_scenes.scenes import ATTRIBUTES, CLASSES, Boxes
from benchsuite.datasets.driving_scenes.splits import (
    MINI_TRAIN,
    MINI_VALIDATION,
    VALIDATION,
    WITHOUT_ANSWERS,
    split_scenes,
)
from benchsuite.datasets.driving_scenes.tables import load_mini, load_own, load_trainval, read_version

DEVKIT = "nuscenes-devkit is not installed: pip install --no-deps nuscenes-devkit, and what it imports"
Rows = list[dict[str, Any]]


def frame(part: str = "test", place: int = 1) -> Any:
    return streets().parts[part][place]


def test_what_is_read() -> None:
    scenes = streets()
    assert scenes.classes == CLASSES
    assert scenes.channels == (
        *("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT"),
    )
    assert [len(scenes.parts[part]) for part in ("train", "test")] == [8, 4]
    times = [key.timestamp for key in scenes.parts["test"]]
    assert times == sorted(times)
    assert scenes.left_out == {"annotations: static_object.bicycle_rack": 12}
    key = frame()
    assert len(key.boxes) == len(key.global_boxes) == 20
    assert len(key.racks.centres) == 1
    assert [sweep.lag for sweep in key.lidar] == pytest.approx([0, 0.05, 0.1, 0.5, 0.55, 0.6])


def test_boxes_hold_the_points_that_lie_in_them() -> None:
    """The LiDAR frame of boxes and points is the same: tables count the points, geometry finds them again."""
    key = frame()
    points = read_points(key.lidar[0].path)[:, :3].astype(np.float64)
    boxes = key.boxes
    for i in range(len(boxes)):
        apart = points - boxes.centres[i]
        cosine, sine = math.cos(boxes.yaws[i]), math.sin(boxes.yaws[i])
        along = apart[:, 0] * cosine + apart[:, 1] * sine, apart[:, 1] * cosine - apart[:, 0] * sine, apart[:, 2]
        inside = np.all([np.abs(a) <= s / 2 + 0.08 for a, s in zip(along, boxes.sizes[i], strict=True)], axis=0)
        assert inside.sum() == pytest.approx(boxes.points[i], abs=5 + 0.15 * boxes.points[i]), i


def test_cameras_see_boxes_where_their_colour_is() -> None:
    from PIL import Image

    key, seen = frame(), 0
    reds = np.flatnonzero((key.boxes.labels == CLASSES.index("car")) & (key.boxes.points > 30))
    for camera in key.cameras:
        picture = np.asarray(Image.open(camera.path)).astype(float)
        for place in placed(key.boxes.centres[reds], camera.lidar_to_camera):
            if place[2] > 2:
                u, v, _ = camera.intrinsic @ (place / place[2])
                if 2 < u < picture.shape[1] - 3 and 2 < v < picture.shape[0] - 3:
                    red, green, blue = picture[round(v) - 1 : round(v) + 2, round(u) - 1 : round(u) + 2].mean((0, 1))
                    seen += red > 1.4 * green and red > 1.4 * blue
    assert seen


def test_velocities_are_those_that_objects_were_given() -> None:
    key, later = frame(place=1), frame(place=2)
    moved_by = (later.global_boxes.centres - key.global_boxes.centres)[:, :2] / 0.5
    assert key.global_boxes.velocities == pytest.approx(moved_by, abs=1e-6)
    assert np.hypot(*key.boxes.velocities.T) == pytest.approx(np.hypot(*moved_by.T), abs=1e-6)
    moving = key.global_boxes.attributes == ATTRIBUTES.index("vehicle.moving")
    assert (np.hypot(*key.boxes.velocities[moving].T) > 0.5).all()
    along = np.arctan2(*key.boxes.velocities[moving].T[::-1]) - key.boxes.yaws[moving]
    assert np.cos(along) == pytest.approx(np.ones(moving.sum()))


def test_static_points_of_a_turning_car_come_to_one_place() -> None:
    """Sweeps are turned, then moved: on a standing box's side the points of all sweeps lie in one plane."""
    for part in ("train", "test"):
        key = streets().parts[part][2]
        heading = inverse(streets().parts[part][0].ego_to_global) @ key.ego_to_global
        assert abs(math.atan2(heading[1, 0], heading[0, 0])) > 0.02, "the car must turn"
        still = (np.hypot(*key.boxes.velocities.T) == 0) & (key.boxes.points > 40)
        points = read_sweeps(key.lidar)
        assert still.any()
        for i in np.flatnonzero(still):
            boxes = key.boxes
            apart = points[:, :3] - boxes.centres[i]
            cosine, sine = math.cos(boxes.yaws[i]), math.sin(boxes.yaws[i])
            local = np.stack(
                [apart[:, 0] * cosine + apart[:, 1] * sine, apart[:, 1] * cosine - apart[:, 0] * sine, apart[:, 2]]
            ).T
            half = boxes.sizes[i] / 2
            near = (np.abs(local) < half + 0.3).all(axis=1) & (points[:, 5] > 0) & (local[:, 2] > -half[2] + 0.1)
            outside = np.maximum(np.abs(local[near]) - half, 0).max(axis=1)
            assert near.sum() > 10
            assert np.quantile(outside, 0.95) < 0.1, "points of earlier sweeps left the box that stands still"
            depth = np.min(half - np.abs(local[near]), axis=1)
            assert np.quantile(depth, 0.95) < 0.1, "points of earlier sweeps lie inside the box"


def test_moving_points_and_boxes_to_and_fro() -> None:
    key = frame()
    to_global = key.ego_to_global @ key.lidar_to_ego
    back = moved(moved(key.boxes, to_global), inverse(to_global))
    for name in ("centres", "velocities"):
        assert getattr(back, name) == pytest.approx(getattr(key.boxes, name))
    assert np.cos(back.yaws - key.boxes.yaws) == pytest.approx(np.ones(len(back)))
    assert corners(key.global_boxes) == pytest.approx(
        placed(corners(key.boxes).reshape(-1, 3), to_global).reshape(-1, 8, 3), abs=1e-6
    )


def test_quaternions_are_w_first() -> None:
    half = math.pi / 4
    assert rotation_of([math.cos(half), 0, 0, math.sin(half)]) == pytest.approx(
        np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    )


def test_official_splits(tmp_path: Path) -> None:
    assert (len(VALIDATION), len(WITHOUT_ANSWERS), len(MINI_TRAIN), len(MINI_VALIDATION)) == (150, 150, 8, 2)
    every = [f"scene-{n:04d}" for n in range(1, 1111)]
    parts = split_scenes(tmp_path / "v1.0-trainval", every)
    assert parts["test"] == VALIDATION
    assert not parts["train"] & (VALIDATION | WITHOUT_ANSWERS)
    assert split_scenes(tmp_path / "v1.0-mini", every)["test"] == {"scene-0103", "scene-0916"}


def test_official_splits_are_the_devkits() -> None:
    splits = pytest.importorskip("nuscenes.utils.splits", reason=DEVKIT).create_splits_scenes()
    assert set(splits["val"]) == VALIDATION
    assert set(splits["test"]) == WITHOUT_ANSWERS
    assert (set(splits["mini_train"]), set(splits["mini_val"])) == (MINI_TRAIN, MINI_VALIDATION)


def test_the_devkit_reads_the_same() -> None:
    nuscenes = pytest.importorskip("nuscenes", reason=DEVKIT)
    theirs = nuscenes.NuScenes(version=VERSION, dataroot=str(streets_folder()), verbose=False)
    for key in streets().parts["test"]:
        sample = theirs.get("sample", key.token)
        path, found, intrinsic = theirs.get_sample_data(sample["data"]["CAM_BACK_LEFT"])
        camera = key.cameras[4]
        assert Path(path) == camera.path
        assert camera.intrinsic == pytest.approx(intrinsic)
        seen = {tuple(np.round(box.center, 6)) for box in found}
        mine = {tuple(np.round(c, 6)) for c in placed(key.boxes.centres, camera.lidar_to_camera)}
        assert len(seen - mine) <= 1  # the rack
        _, found, _ = theirs.get_sample_data(sample["data"]["LIDAR_TOP"])
        boxes = [box for box in found if "rack" not in box.name]
        assert key.boxes.centres == pytest.approx(np.array([box.center for box in boxes]))
        assert key.boxes.sizes[:, [1, 0, 2]] == pytest.approx(np.array([box.wlh for box in boxes]))
        yaws = np.array([box.orientation.yaw_pitch_roll[0] for box in boxes])
        assert np.cos(key.boxes.yaws - yaws) == pytest.approx(np.ones(len(yaws)))
        speeds = np.array([theirs.box_velocity(box.token)[:2] for box in boxes])
        assert key.global_boxes.velocities == pytest.approx(speeds, nan_ok=True)


# --- broken files ---


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return tables that may be changed."""
    shutil.copytree(streets_folder() / VERSION, tmp_path / VERSION)
    return tmp_path / VERSION


def change(folder: Path, table: str, edit: Callable[[Rows], Any]) -> None:
    path = folder / f"{table}.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps(edit(rows) or rows))


def first(key: str, value: Any) -> Callable[[Rows], None]:
    def edit(rows: Rows) -> None:
        rows[0][key] = value

    return edit


def drop_last(rows: Rows) -> Rows:
    return rows[:-1]


def lonely(rows: Rows) -> None:
    """Leave the first annotation without neighbours, and put the second's next one far away in time."""
    rows[0]["prev"] = rows[0]["next"] = ""


@pytest.mark.parametrize(
    ("table", "edit", "message"),
    [
        ("sample", drop_last, r"sample_data\.json: '\w+': sample_token '\w+' is not in sample\.json: is it cut off"),
        ("ego_pose", drop_last, "is not in ego_pose.json: is it cut off"),
        ("sample_data", drop_last, "has no keyframe of|is not in"),
        ("instance", drop_last, "is not in instance.json: is it cut off"),
        ("category", first("name", "vehicle.ship"), ""),
        ("sample_annotation", first("size", [1, 2]), "size is .* it needs 3 numbers"),
        ("sample_annotation", first("size", [1, 0, 2]), "width, length and height must be positive"),
        ("sample_annotation", first("rotation", [0, 0, 0, 0]), "a quaternion w, x, y, z of length 1"),
        ("sample_annotation", first("translation", [0, None, 0]), "translation is None: write a finite number"),
        ("sample_annotation", first("num_lidar_pts", -1), "num_lidar_pts is -1"),
        ("sample_annotation", first("attribute_tokens", ["a", "b"]), "attribute_tokens is .* a list of one token"),
        ("sample_annotation", first("attribute_tokens", ["a"]), r"attribute\.json: has no 'a'"),
        ("sample_data", first("filename", "/etc/passwd"), "needs a file below the folder"),
        ("sample_data", first("filename", "../../x"), "needs a file below the folder"),
        ("sample_data", first("is_key_frame", 1), "is_key_frame is 1: write true or false"),
        ("calibrated_sensor", first("camera_intrinsic", [[1, 0, 0], [0, 1, 0]]), "needs three rows of three numbers"),
        ("scene", lambda rows: [rows[0], rows[0]], "is there twice"),
        ("scene", lambda rows: {"a": 1}, "needs a list of records"),
    ],
)
def test_broken_tables_are_told_in_one_line(copy: Path, table: str, edit: Any, message: str) -> None:
    change(copy, table, edit)
    if not message:
        assert "vehicle.ship" in str(read_version(copy, "x").left_out)
        return
    with pytest.raises(DataError, match=message) as caught:
        read_version(copy, "x")
    assert "\n" not in str(caught.value)
    assert ".json" in str(caught.value)


def test_a_table_cut_off(copy: Path) -> None:
    path = copy / "sample_annotation.json"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"sample_annotation.json: not a table of nuScenes .* cut short or damaged"):
        read_version(copy, "x")
    path.unlink()
    with pytest.raises(DataError, match=r"sample_annotation.json: is missing: complete the tables"):
        read_version(copy, "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"my_train": ["train-00000"]}, "names 0 splits with 'val'"),
        ({"my_train": ["nowhere"], "my_val": []}, "names 'nowhere', which scene.json does not have"),
        ({"a_train": ["train-00000"], "a_val": ["train-00000"]}, "train-00000 is both learned from and judged on"),
        ({"a_train": ["train-00000"], "a_val": []}, "no scene to judge on"),
        ([], "needs names of splits"),
    ],
)
def test_broken_splits(copy: Path, content: Any, message: str) -> None:
    (copy / "splits.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_version(copy, "x")


def test_versions_are_found_and_missed(tmp_path: Path) -> None:
    for load in (load_trainval, load_mini, load_own):
        for root in (None, tmp_path):
            with pytest.raises(DatasetNotFound, match=r"data-root|holds"):
                load(root, 0)
    assert load_own(streets_folder(), 0).name == "nuscenes-format"
    shutil.copytree(streets_folder() / VERSION, tmp_path / "v1.0-mini")
    with pytest.raises(DataError, match=r"v1.0-mini/scene.json: no scene to learn from"):
        load_mini(tmp_path, 0)


def test_a_velocity_needs_a_neighbour_that_is_near_in_time(copy: Path) -> None:
    rows = json.loads((copy / "sample_annotation.json").read_text())
    lone = next(row["token"] for row in rows if row["prev"] and row["next"])

    def part(rows: Rows) -> None:
        for row in rows:
            if row["token"] == lone:
                row["prev"] = row["next"] = ""

    change(copy, "sample_annotation", part)
    unknown = [np.isnan(key.boxes.velocities).sum() for keys in read_version(copy, "x").parts.values() for key in keys]
    assert sum(unknown) == 2
    change(copy, "sample", lambda rows: [{**r, "timestamp": 4 * r["timestamp"]} for r in rows])
    slow = read_version(copy, "x").parts["test"]  # two seconds apart: none at the ends, none across four
    assert all(np.isnan(key.boxes.velocities).all() for key in slow)


# --- points ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes, needs a multiple of 20"),
        (b"x" * 33, "has 33 bytes, needs a multiple of 20 .* is it cut off"),
        (np.full(5, np.nan, dtype="<f4").tobytes(), "NaN or farther than"),
        (np.full(5, 1e6, dtype="<f4").tobytes(), "NaN or farther than"),
    ],
)
def test_broken_points_are_told_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.pcd.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_points(path)


def test_a_missing_sweep(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.pcd.bin: is missing: complete the data set"):
        read_points(tmp_path / "a.pcd.bin")


def test_verify_reads_what_a_run_reads(tmp_path: Path) -> None:
    scenes = streets()
    scenes.verify()
    assert scenes.summary()["test keyframes"] == 4
    assert scenes.summary()["test boxes"] == 80
    key = scenes.parts["test"][0]
    broken = tmp_path / "a.pcd.bin"
    broken.write_bytes(b"x")
    for changed, message in (
        (replace(key, lidar=(*key.lidar, replace(key.lidar[0], path=broken))), "has 1 bytes"),
        (replace(key, cameras=(replace(key.cameras[0], path=broken),)), "not a readable picture"),
    ):
        with pytest.raises(DataError, match=message):
            replace(scenes, parts={"train": [], "test": [changed]}).verify()


def test_boxes_can_be_chosen() -> None:
    boxes = frame().boxes
    assert isinstance(boxes[boxes.points > 5], Boxes)
    assert len(boxes[np.array([1, 3])]) == 2
