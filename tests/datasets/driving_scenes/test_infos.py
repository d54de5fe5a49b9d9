"""Info files of mmdet3d: the real keyframe, plain pickles, sweeps, and broken files."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driving import streets

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets.driving_scenes.geometry import inverse, placed
from benchsuite.datasets.driving_scenes.infos import load_infos, read_infos
from benchsuite.datasets.driving_scenes.points import read_sweeps
from benchsuite.datasets.driving_scenes.scenes import ATTRIBUTES, CLASSES, Keyframe

ORDER = ("car", "truck", "trailer", "bus", "construction_vehicle", "bicycle", "motorcycle", "pedestrian",
         "traffic_cone", "barrier")  # fmt: skip
INFO_ATTRIBUTES = ("cycle.with_rider", "cycle.without_rider", "pedestrian.moving", "pedestrian.standing",
                   "pedestrian.sitting_lying_down", "vehicle.moving", "vehicle.parked", "vehicle.stopped")  # fmt: skip


def info_of(key: Keyframe) -> dict[str, Any]:
    """Return an item as mmdet3d's converter makes it: here from a keyframe that tables gave."""
    boxes = key.boxes
    rows = np.column_stack([boxes.centres, boxes.sizes, boxes.yaws])
    labels = [ORDER.index(CLASSES[label]) for label in boxes.labels]
    instances = [
        {
            "bbox_label": labels[i], "bbox_label_3d": labels[i], "bbox_3d": rows[i].tolist(), "bbox_3d_isvalid": True,
            "num_lidar_pts": np.int64(boxes.points[i]), "num_radar_pts": 0, "velocity": boxes.velocities[i].tolist(),
        }
        for i in range(len(boxes))
    ]  # fmt: skip
    seen = {}
    for camera in key.cameras:
        places = placed(boxes.centres, camera.lidar_to_camera)
        seen[camera.channel] = [
            {
                "bbox_label_3d": labels[i], "bbox_3d": [*places[i].tolist(), 1, 1, 1, 0],
                "attr_label": 8 if (a := boxes.attributes[i]) < 0 else INFO_ATTRIBUTES.index(ATTRIBUTES[a]),
            }
            for i in range(len(boxes)) if places[i, 2] > 0
        ]  # fmt: skip
    return {
        "sample_idx": 0, "token": key.token, "timestamp": key.timestamp, "ego2global": key.ego_to_global.tolist(),
        "images": {
            camera.channel: {
                "img_path": camera.path.name, "cam2img": camera.intrinsic.tolist(),
                "lidar2cam": camera.lidar_to_camera.tolist(),
            }
            for camera in key.cameras
        },
        "lidar_points": {
            "num_pts_feats": 5, "lidar_path": key.lidar[0].path.name, "lidar2ego": key.lidar_to_ego.tolist(),
        },
        "lidar_sweeps": [
            {
                "timestamp": key.timestamp - sweep.lag,
                "lidar_points": {
                    "lidar_path": f"/home/somebody/{sweep.path.name}", "lidar2sensor": inverse(sweep.to_key).tolist(),
                },
            }
            for sweep in key.lidar[1:]
        ],
        "instances": instances,
        "cam_instances": seen,
    }  # fmt: skip


def info_file(keys: list[Keyframe]) -> dict[str, Any]:
    categories = {name: place for place, name in enumerate(ORDER)} | {"animal": -1}
    about = {"categories": categories, "dataset": "nuscenes", "version": "v1.0-mini", "info_version": "1.1"}
    return {"metainfo": about, "data_list": [info_of(key) for key in keys]}


def linked(folder: Path) -> Path:
    """Return a folder with the streets' pictures and points."""
    root = streets().parts["test"][0].lidar[0].path.parents[2]
    for name in ("samples", "sweeps"):
        (folder / name).symlink_to(root / name)
    return folder


@pytest.mark.parametrize("ending", ["pkl", "json"])
def test_info_files_give_what_the_tables_give(tmp_path: Path, ending: str) -> None:
    linked(tmp_path)
    for part, name in (("train", "train"), ("test", "val")):
        content = info_file(list(streets().parts[part]))  # type: ignore[index]
        path = tmp_path / f"nuscenes_infos_{name}.{ending}"
        if ending == "pkl":
            path.write_bytes(pickle.dumps(content))
        else:
            path.write_text(json.dumps(content, default=int))
    found = load_infos(tmp_path, 0)
    assert found.classes == CLASSES
    assert found.channels == streets().channels
    assert found.note == ""
    for mine, theirs in zip(found.parts["test"], streets().parts["test"], strict=True):
        for boxes, wanted in ((mine.boxes, theirs.boxes), (mine.global_boxes, theirs.global_boxes)):
            for name in ("centres", "sizes", "velocities", "labels", "points"):
                assert getattr(boxes, name) == pytest.approx(getattr(wanted, name)), name
            assert np.cos(boxes.yaws - wanted.yaws) == pytest.approx(np.ones(len(boxes)))
        seen = mine.boxes.attributes >= 0
        assert (mine.boxes.attributes == theirs.boxes.attributes)[seen].all()
        assert seen.sum() > 5
        assert read_sweeps(mine.lidar) == pytest.approx(read_sweeps(theirs.lidar), abs=1e-4)


def test_the_real_keyframe_is_read(real_data: Path) -> None:
    found = load_infos(real_data / "nuscenes_sample", 0)
    (key,) = found.parts["test"]
    assert "what is judged on was learned from" in found.note
    assert np.bincount(key.boxes.labels).tolist() == [8, 2, 1, 0, 1, 30, 0, 1, 3, 22]
    known = key.boxes.attributes >= 0
    assert (known | np.isin(key.boxes.labels, (8, 9))).all()  # all but cones and barriers have an attribute
    assert found.left_out == {"boxes: other categories": 1}
    assert len(read_sweeps(key.lidar)) == 34688
    assert key.timestamp == 1532402927.647951


def test_boxes_of_the_real_keyframe_project_as_mmdet3d_says(real_data: Path) -> None:
    """Its info file holds each camera's boxes in the camera's frame and in pixels: ours fall on them."""
    folder = real_data / "nuscenes_sample"
    (item,) = json.loads((folder / "sample_info.json").read_text())["data_list"]
    (key,) = load_infos(folder, 0).parts["test"]
    near = 0
    for camera in key.cameras:
        places = placed(key.boxes.centres, camera.lidar_to_camera)
        pixels = places @ camera.intrinsic.T
        for seen in item["cam_instances"][camera.channel]:
            if seen["bbox_label_3d"] >= 0:
                apart = np.linalg.norm(places - seen["bbox_3d"][:3], axis=1)
                assert apart.min() < 0.01
                at = pixels[apart.argmin()]
                assert at[:2] / at[2] == pytest.approx(seen["center_2d"], abs=2.0)
                near += 1
    assert near > 60


# --- broken files ---


def edited(edit: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    content = copy.deepcopy(info_file([streets().parts["test"][1]]))
    edit(content)
    return content


def item(edit: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda content: edit(content["data_list"][0])


class Harm:
    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("data_list"), "needs metainfo and data_list"),
        (lambda c: c.update(infos=[]), "of mmdet3d 1.0 or older: convert it"),
        (lambda c: c["metainfo"]["categories"].update(ship=3), "class 'ship' is unknown"),
        (lambda c: c["data_list"].append(c["data_list"][0]), "is there twice"),
        (item(lambda i: i.pop("token")), "item 0 .* has no token"),
        (item(lambda i: i["images"]["CAM_BACK"].update(cam2img=[[1, 0], [0, 1]])), "CAM_BACK: cam2img is"),
        (item(lambda i: i["images"]["CAM_BACK"].update(img_path="no.jpg")), "'no.jpg' is neither in samples/CAM_BACK"),
        (item(lambda i: i["lidar_points"].update(lidar_path="../x.bin")), "'x.bin' is neither in samples/LIDAR_TOP"),
        (item(lambda i: i["lidar_points"].update(num_pts_feats=4)), "num_pts_feats is 4, needs 5"),
        (item(lambda i: i["lidar_points"].update(lidar2ego=[[2, 0, 0, 0]] * 4)), "needs a rotation, a place"),
        (item(lambda i: i["lidar_sweeps"][0].update(timestamp=1.5e15)), "s older than its keyframe, needs 0 to 5"),
        (item(lambda i: i["instances"][0].update(bbox_3d=[0] * 7)), "instance 0: bbox_3d is .* must be positive"),
        (item(lambda i: i["instances"][0].update(velocity=[0])), "instance 0: is .* needs two numbers"),
    ],
)
def test_broken_info_files_are_told_in_one_line(tmp_path: Path, edit: Any, message: str) -> None:
    linked(tmp_path)
    path = tmp_path / "x_infos.pkl"
    path.write_bytes(pickle.dumps(edited(edit)))
    with pytest.raises(DataError, match=message) as caught:
        read_infos(path)
    assert "\n" not in str(caught.value)


def test_code_in_a_pickle_is_never_called(tmp_path: Path) -> None:
    path = tmp_path / "x_infos.pkl"
    for content in (Harm(), {"metainfo": Harm(), "data_list": []}, np.array([Harm()], dtype=object)):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match=r"it names posix.system\): nothing of it was executed"):
            read_infos(path)
    path.write_bytes(b"\x80\x04no pickle")
    with pytest.raises(DataError, match="not an info file of plain values and arrays"):
        read_infos(path)


def test_folders_without_the_right_files(tmp_path: Path) -> None:
    for root in (None, tmp_path):
        with pytest.raises(DatasetNotFound, match="info file"):
            load_infos(root, 0)
    for name in ("a_infos_train", "b_infos_train", "a_infos_val"):
        (tmp_path / f"{name}.json").write_text("{}")
    with pytest.raises(DataError, match="holds 2 info files with 'train' in their name, needs one"):
        load_infos(tmp_path, 0)
    shutil.rmtree(tmp_path)
