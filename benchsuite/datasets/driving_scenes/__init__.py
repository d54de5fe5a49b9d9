"""Driving scenes with cameras, LiDAR and boxes: nuScenes, and generated ones in its format."""

from __future__ import annotations

from typing import Any

from benchsuite.core import DatasetSpec

WORLD_VERSION = "1"
WORLD: dict[str, Any] = {
    "scenes": {"train": 2000, "val": 250},
    "tells": {"a": 0.0, "b": 0.12, "c": 0.05},
    "classes": ["car", "truck", "pedestrian", "bicycle"],  # large warm, large cool, small warm, small cool
    "sides": [[4.2, 1.9, 1.6], [1.0, 1.0, 1.7]],
    "hues": [[0.85, 0.30, 0.20], [0.20, 0.35, 0.85]],
    "hue_spread": 0.15,
    "objects": [2, 5],
    "yaw": 0.6,
    "reach": 16.0,
    "highest": 2.8,
    "farthest_centre": 14.5,
    "nearest_centre": 4.0,
    "apart": 4.5,
    "attempts": 200,
    "cameras": {"CAM_FRONT": 0.0, "CAM_LEFT": 90.0, "CAM_BACK": 180.0, "CAM_RIGHT": 270.0},
    "camera_height": 1.6,
    "field_of_view": 96.0,
    "size": [32, 64],
    "sky": [0.55, 0.95],
    "ground": [0.25, 0.5],
    "exposure": [0.7, 1.2],
    "ground_noise": 0.05,
    "pixel_noise": 0.04,
    "lidar_height": 1.8,
    "elevations": [-22.0, 3.0, 16],
    "azimuths": 240,
    "farthest": 22.6,
    "noise": 0.03,
    "drop": 0.1,
}

STREETS_VERSION = "1"
STREETS: dict[str, Any] = {
    "scenes": {"train": 10, "val": 5},
    "keyframes": 4,
    "between": 0.5,
    "sweeps": 2,
    "of_each": 2,
    # length, width, height; farthest from the car at first; least and greatest speed of those that move
    "kinds": {
        "car": [[4.6, 1.95, 1.73], 30, [3, 9]],
        "truck": [[6.9, 2.5, 2.8], 30, [3, 8]],
        "bus": [[11.0, 2.9, 3.5], 34, [3, 8]],
        "trailer": [[12.0, 2.9, 3.9], 34, [3, 8]],
        "construction_vehicle": [[6.4, 2.8, 3.2], 30, [1, 3]],
        "pedestrian": [[0.73, 0.67, 1.77], 18, [0.8, 1.8]],
        "motorcycle": [[2.1, 0.77, 1.47], 22, [3, 9]],
        "bicycle": [[1.7, 0.6, 1.28], 22, [2, 5]],
        "traffic_cone": [[0.41, 0.41, 1.07], 14, [0, 0]],
        "barrier": [[0.5, 2.5, 0.98], 18, [0, 0]],
    },
    "hues": {
        "car": [0.80, 0.20, 0.20],
        "truck": [0.20, 0.40, 0.80],
        "bus": [0.85, 0.75, 0.20],
        "trailer": [0.55, 0.55, 0.60],
        "construction_vehicle": [0.90, 0.55, 0.10],
        "pedestrian": [0.25, 0.65, 0.30],
        "motorcycle": [0.55, 0.20, 0.60],
        "bicycle": [0.20, 0.70, 0.70],
        "traffic_cone": [0.95, 0.40, 0.15],
        "barrier": [0.90, 0.90, 0.90],
        "static_object.bicycle_rack": [0.35, 0.35, 0.35],
    },
    "hue_spread": 0.1,
    "moving": 0.5,
    "rack": 1.6,
    "nearest_centre": 6.0,
    "clear": 2.0,
    "attempts": 400,
    "car_speed": [3.0, 8.0],
    "car_turn": [-0.35, 0.35],
    "cameras": {
        "CAM_FRONT": [0.0, [1.7, 0.0, 1.5], 70.0],
        "CAM_FRONT_RIGHT": [-55.0, [1.5, -0.5, 1.5], 70.0],
        "CAM_FRONT_LEFT": [55.0, [1.5, 0.5, 1.5], 70.0],
        "CAM_BACK": [180.0, [0.0, 0.0, 1.5], 110.0],
        "CAM_BACK_LEFT": [110.0, [1.0, 0.5, 1.5], 70.0],
        "CAM_BACK_RIGHT": [-110.0, [1.0, -0.5, 1.5], 70.0],
    },
    "size": [90, 160],
    "sky": [0.65, 0.9],
    "ground": [0.3, 0.45],
    "exposure": [0.85, 1.15],
    "ground_noise": 0.04,
    "pixel_noise": 0.02,
    "lidar_yaw": -90.0,
    "lidar_place": [0.94, 0.0, 1.84],
    "elevations": [-30.0, 10.0, 32],
    "azimuths": 360,
    "farthest": 60.0,
    "noise": 0.02,
    "drop": 0.1,
}

_SCENES = "benchsuite.datasets.driving_scenes.scenes:DrivingScenes"
_GENERATED = "benchsuite.datasets.driving_scenes.generated"
_TABLES = "benchsuite.datasets.driving_scenes.tables"
_SHARED: dict[str, Any] = {
    "data_type": _SCENES,
    "requires": ("numpy", "PIL"),
    "install": "pip install 'benchsuite[vision]'",
}
_EMBEDDED: dict[str, Any] = {**_SHARED, "embedded": True, "licence": "Apache-2.0"}
_NUSCENES: dict[str, Any] = {
    **_SHARED,
    "homepage": "https://www.nuscenes.org",
    "licence": "CC BY-NC-SA 4.0, after registration",
    "citation": "H. Caesar et al.: nuScenes: A multimodal dataset for autonomous driving, CVPR 2020",
}


def _world(letter: str, what: str) -> DatasetSpec:
    return DatasetSpec(
        name=f"cuboids-{letter}",
        version=WORLD_VERSION,
        title=f"Generated world {letter.upper()}: four cameras, LiDAR, boxes of four classes; {what}",
        load=f"{_GENERATED}:load_world_{letter}",
        parameters={**WORLD, "tell": WORLD["tells"][letter]},
        **_EMBEDDED,
    )


def _tables(name: str, version: str, title: str, load: str) -> DatasetSpec:
    tables = ("category", "attribute", "sensor", "calibrated_sensor", "scene", "sample", "instance")
    return DatasetSpec(
        name=name,
        version="1",
        title=title,
        load=f"{_TABLES}:{load}",
        files=tuple(f"{version}/{table}.json" for table in (*tables, "sample_annotation")),
        optional_files=(f"{version}/splits.json",),
        bulk_files=(f"{version}/sample_data.json", f"{version}/ego_pose.json", "samples/**/*", "sweeps/LIDAR_TOP/*"),
        layout=f"{version}/*.json, samples/CAM_*/*, samples/LIDAR_TOP/*, sweeps/LIDAR_TOP/*",
        **_NUSCENES,
    )


DATASETS = (
    _world("c", "heights tell something of the colour"),
    _world("a", "heights tell nothing of the colour"),
    _world("b", "heights tell the colour"),
    DatasetSpec(
        name="cuboid-streets",
        version=STREETS_VERSION,
        title="Generated streets in the official schema: six cameras, LiDAR sweeps, moving boxes of all ten classes",
        load=f"{_GENERATED}:load_streets",
        parameters=STREETS,
        **_EMBEDDED,
    ),
    _tables("nuscenes", "v1.0-trainval", "nuScenes: 700 scenes to learn from, 150 to judge on", "load_trainval"),
    _tables("nuscenes-mini", "v1.0-mini", "nuScenes mini: 8 scenes to learn from, 2 to judge on", "load_mini"),
    _tables("nuscenes-format", "v1.0-*", "A folder in the format of nuScenes with a split of its own", "load_own"),
    DatasetSpec(
        name="nuscenes-infos",
        version="1",
        title="Info files of mmdet3d 1.4 and the files that they name",
        load="benchsuite.datasets.driving_scenes.infos:load_infos",
        files=("*info*.[jp][sk]*",),
        bulk_files=("samples/**/*", "sweeps/LIDAR_TOP/*", "*.jpg", "*.png", "*.pcd.bin"),
        layout="*infos_train*.pkl, *infos_val*.pkl (or .json), samples/*/*, sweeps/LIDAR_TOP/*",
        **_NUSCENES,
    ),
)
