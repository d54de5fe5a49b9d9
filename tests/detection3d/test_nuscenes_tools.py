"""mmdet3d's own conversion, data set and metric on the suite's streets, held against the suite's readers and NDS."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mmdet3d", reason="mmdet3d has an environment of its own: tox -e detection3d")

import mmdet3d
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from mmdet3d.utils import register_all_modules

from benchsuite.datasets.driving_scenes.generated import write_streets
from benchsuite.datasets.driving_scenes.infos import load_infos
from benchsuite.datasets.driving_scenes.scenes import DrivingScenes, Keyframe
from benchsuite.datasets.driving_scenes.tables import load_mini
from benchsuite.datasets.plain_pickles import read_plain_pickle
from benchsuite.tasks.detection3d.contract import Detections
from benchsuite.tasks.detection3d.judge import Judge, check_found

NAMES = {"train": ("scene-0061", "scene-0553"), "val": ("scene-0103", "scene-0916")}
HEAD = (
    *("car", "truck", "construction_vehicle", "bus", "trailer", "barrier"),
    *("motorcycle", "bicycle", "pedestrian", "traffic_cone"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return streets that call themselves nuScenes mini, with the info files of mmdet3d's converter."""
    place = tmp_path_factory.mktemp("mmdet3d")
    root = place / "data" / "nuscenes"
    root.mkdir(parents=True)
    write_streets(root, 100, {part: len(names) for part, names in NAMES.items()})
    tables = root / "v1.0-mini"
    next(root.glob("v1.0-*")).rename(tables)
    scenes = json.loads((tables / "scene.json").read_text())
    for scene in scenes:
        part, number = scene["name"].split("-")
        scene["name"] = NAMES[part][int(number)]
    (tables / "scene.json").write_text(json.dumps(scenes))
    (tables / "splits.json").unlink(missing_ok=True)
    convert(place, root)
    return root


def convert(place: Path, root: Path) -> None:
    """Run the converter that mmdet3d ships; its second step reads ./data/nuscenes whatever it is told."""
    tools = Path(mmdet3d.__file__).parent / ".mim"
    before = Path.cwd()
    sys.path.insert(0, str(tools))
    os.chdir(place)
    try:
        from tools.dataset_converters import nuscenes_converter, update_infos_to_v2

        nuscenes_converter.create_nuscenes_infos("data/nuscenes", "nuscenes", version="v1.0-mini", max_sweeps=10)
        for part in ("train", "val"):
            update_infos_to_v2.update_pkl_infos(
                "nuscenes", out_dir="data/nuscenes", pkl_path=f"data/nuscenes/nuscenes_infos_{part}.pkl"
            )
    finally:
        os.chdir(before)
        sys.path.remove(str(tools))


@pytest.fixture(scope="module")
def streets(folder: Path) -> DrivingScenes:
    return load_mini(folder, 0)


def by_token(frames: Any) -> dict[str, Keyframe]:
    return {frame.token: frame for frame in frames}


def sorted_boxes(frame: Keyframe) -> np.ndarray[Any, Any]:
    b = frame.boxes
    rows = np.column_stack([b.labels, b.centres, b.sizes, np.cos(b.yaws), np.sin(b.yaws), b.points])
    return rows[np.lexsort(rows[:, 1:3].round(2).T)]


@pytest.mark.parametrize("part", ["train", "test"])
def test_their_info_files_say_what_the_tables_say(folder: Path, streets: DrivingScenes, part: Any) -> None:
    ours, theirs = by_token(streets.parts[part]), by_token(load_infos(folder, 0).parts[part])
    assert set(ours) == set(theirs)
    assert len(ours) == 8
    for token, frame in ours.items():
        other = theirs[token]
        seen = frame.boxes.points > 0
        kept = other.boxes.points > 0
        assert seen.sum() == kept.sum()
        assert np.allclose(sorted_boxes(frame)[:, :4], sorted_boxes(other)[:, :4], atol=1e-3)
        assert np.allclose(sorted_boxes(frame), sorted_boxes(other), atol=1e-3)
        for mine, his in zip(frame.cameras, other.cameras, strict=True):
            assert mine.channel == his.channel
            assert mine.path.name == his.path.name
            assert np.allclose(mine.intrinsic, his.intrinsic, atol=1e-3)
        assert [sweep.path.name for sweep in frame.lidar] == [sweep.path.name for sweep in other.lidar]
        for mine, his in zip(frame.lidar, other.lidar, strict=True):
            assert np.allclose(mine.to_key, his.to_key, atol=1e-4)


def test_their_data_set_reads_the_same_boxes(folder: Path, streets: DrivingScenes) -> None:
    from mmdet3d.datasets import NuScenesDataset

    register_all_modules(init_default_scope=True)
    data = NuScenesDataset(
        data_root=str(folder),
        ann_file="nuscenes_infos_val.pkl",
        metainfo={"classes": HEAD},
        data_prefix={"pts": "samples/LIDAR_TOP", "img": "", "sweeps": "sweeps/LIDAR_TOP"},
        pipeline=[],
        test_mode=True,
        load_eval_anns=True,
    )
    ours = by_token(streets.parts["test"])
    assert len(data) == len(ours)
    for place in range(len(data)):
        info = data.get_data_info(place)
        frame = ours[info["token"]]
        known = info["eval_ann_info"]["gt_labels_3d"] >= 0  # -1: racks and other things that are not judged
        boxes = info["eval_ann_info"]["gt_bboxes_3d"][known]
        assert isinstance(boxes, LiDARInstance3DBoxes)
        theirs = np.column_stack([boxes.gravity_center.numpy(), boxes.tensor[:, 3:7].numpy()])
        labels = np.array([HEAD[label] for label in info["eval_ann_info"]["gt_labels_3d"][known]])
        mine = np.column_stack([frame.boxes.centres, frame.boxes.sizes, frame.boxes.yaws])
        names = np.array([streets.classes[label] for label in frame.boxes.labels])
        apart = np.linalg.norm(mine[:, None, :3] - theirs[None, :, :3], axis=2)
        pairs = apart.argmin(0)
        assert apart.min(0).max() < 1e-3
        assert (names[pairs] == labels).all()
        assert np.allclose(mine[pairs, 3:6], theirs[:, 3:6], atol=1e-3)
        assert np.allclose(np.exp(1j * mine[pairs, 6]), np.exp(1j * theirs[:, 6]), atol=1e-3)


def noisy_detections(frames: Any, classes: tuple[str, ...]) -> list[Detections]:
    """Return most of the true boxes, moved, with some wrong ones."""
    rng = np.random.default_rng(5)
    found = []
    for frame in frames:
        b = frame.boxes
        kept = rng.random(len(b)) < 0.8
        n = int(kept.sum())
        labels = np.where(rng.random(n) < 0.9, b.labels[kept], rng.integers(0, len(classes), n))
        found.append(
            Detections(
                b.centres[kept] + rng.normal(0, 0.4, (n, 3)),
                b.sizes[kept] * rng.uniform(0.8, 1.2, (n, 3)),
                b.yaws[kept] + rng.normal(0, 0.2, n),
                np.nan_to_num(b.velocities[kept]) + rng.normal(0, 0.3, (n, 2)),
                rng.uniform(0.1, 1, n),
                labels.astype(np.int64),
            )
        )
    return found


def test_their_metric_gives_the_same_score(folder: Path, streets: DrivingScenes) -> None:
    from mmdet3d.evaluation.metrics import NuScenesMetric

    frames = streets.parts["test"]
    found = noisy_detections(frames, streets.classes)
    ours = Judge(streets, frames).scores(check_found(found, frames, streets.classes))
    metric = NuScenesMetric(
        data_root=str(folder),
        ann_file=str(folder / "nuscenes_infos_val.pkl"),
        metric="bbox",
        modality={"use_lidar": True, "use_camera": True},
    )
    metric.dataset_meta = {"classes": HEAD, "version": "v1.0-mini"}
    order = {token: place for place, token in enumerate(sample_order(folder))}
    for frame, one in zip(frames, found, strict=True):
        boxes = np.column_stack([one.centres, one.sizes, one.yaws, one.velocities])
        tensors = LiDARInstance3DBoxes(torch.from_numpy(boxes).double(), box_dim=9, origin=(0.5, 0.5, 0.5))
        tensors.tensor = tensors.tensor.double()
        labels = torch.tensor([HEAD.index(streets.classes[label]) for label in one.labels])
        predicted = {"bboxes_3d": tensors, "scores_3d": torch.from_numpy(one.scores), "labels_3d": labels}
        metric.process({}, [{"pred_instances_3d": predicted, "pred_instances": {}, "sample_idx": order[frame.token]}])
    theirs = metric.evaluate(len(frames))
    prefix = "NuScenes metric/pred_instances_3d_NuScenes/"
    assert theirs[f"{prefix}mAP"] == pytest.approx(ours.mean_average_precision, abs=1e-3)
    assert theirs[f"{prefix}NDS"] == pytest.approx(ours.nds, abs=1e-3)


def sample_order(folder: Path) -> list[str]:
    """Return the tokens of the validation part in the order of mmdet3d's sample_idx."""
    content = read_plain_pickle(folder / "nuscenes_infos_val.pkl", "info file", 1 << 30, arrays=True)
    return [item["token"] for item in sorted(content["data_list"], key=lambda item: item["sample_idx"])]
