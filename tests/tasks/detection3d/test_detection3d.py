"""3-D detection: who sees what under which condition, what is judged, and results made elsewhere."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driving import VERSION, streets, streets_folder, world
from PIL import Image
from support import context

from benchsuite.core import RunContext
from benchsuite.core.errors import ConfigError, DataError, InvalidPrediction
from benchsuite.datasets.driving_scenes.geometry import moved
from benchsuite.datasets.driving_scenes.infos import load_infos
from benchsuite.datasets.driving_scenes.scenes import ATTRIBUTES, CLASSES, DrivingScenes
from benchsuite.metrics.nuscenes import resistance_ability
from benchsuite.tasks.detection3d.contract import (
    Boxes,
    CameraView,
    Detection3DMethod,
    Detection3DProtocol,
    Detections,
    Detector,
    Frames,
    TrainingScenes,
)
from benchsuite.tasks.detection3d.judge import Judge, check_found, read_results, write_results
from benchsuite.tasks.detection3d.pictures import draw_sheet, lines_in_view
from benchsuite.tasks.detection3d.sensors import CORRUPTIONS, EVERY, FULL, Condition, FrameReader, conditions_of
from benchsuite.tasks.detection3d.task import Detection3D

QUANTITIES = ("centres", "sizes", "yaws", "velocities", "labels")


def as_found(boxes: Boxes, scores: Any = None) -> Detections:
    """Return true boxes that count as if a detector had found them."""
    boxes = boxes[boxes.points > 0]
    values = {name: getattr(boxes, name) for name in QUANTITIES}
    values["velocities"] = np.nan_to_num(values["velocities"])
    given = np.linspace(0.5, 1, len(boxes)) if scores is None else np.full(len(boxes), scores)
    return Detections(**values, scores=given, attributes=boxes.attributes)


class Oracle(Detection3DMethod):
    """Finds what it is told to find, and remembers what it was shown."""

    def __init__(self, answers: Callable[[Frames, int], list[Detections]]) -> None:
        self.answers, self.shown = answers, []  # type: ignore[var-annotated]

    def fit(self, scenes: TrainingScenes, ctx: RunContext) -> Detector:
        self.scenes = scenes
        return _Oracle(self)


class _Oracle(Detector):
    parameters = 7
    table = ({"step": 1},)

    def __init__(self, method: Oracle) -> None:
        self.method = method

    def detect(self, frames: Frames, ctx: RunContext) -> list[Detections]:
        self.method.shown.append(frames)
        return self.method.answers(frames, len(self.method.shown) - 1)


def truth_of(scenes: DrivingScenes, part: str = "test") -> Callable[..., list[Detections]]:
    boxes = {key.token: key.boxes for key in scenes.parts[part]}  # type: ignore[index]
    return lambda frames, call: [as_found(boxes[token]) for token in frames.tokens]


def judged(folder: Path, scenes: DrivingScenes, method: Oracle, **protocol: Any) -> Any:
    given = {"train": scenes, "test": scenes}
    return Detection3D().evaluate(method, given, Detection3DProtocol(**protocol), context(folder))


# --- conditions ---


def read(condition: Condition, scenes: DrivingScenes | None = None, place: int = 1, sweeps: int = 0) -> Any:
    keyframes = (scenes or streets()).parts["test"]
    return FrameReader.frames(keyframes, condition, sweeps)[place]


def test_all_sensors_deliver_what_lies_on_disk() -> None:
    key, frame = streets().parts["test"][1], read(FULL)
    assert [view.channel for view in frame.views] == list(streets().channels)
    for view, camera in zip(frame.views, key.cameras, strict=True):
        assert view.image.shape == (90, 160, 3)
        assert view.size == (90, 160)
        assert (view.image == np.asarray(Image.open(camera.path))).all()
        point = key.boxes.centres[0]
        seen = view.lidar_to_image @ [*point, 1]
        place = camera.lidar_to_camera @ [*point, 1]
        assert seen[:2] / seen[2] == pytest.approx((camera.intrinsic @ place[:3])[:2] / place[2])
    assert frame.points.dtype == np.float32
    assert (frame.points[:, 5] == 0).all()
    with_sweeps = read(FULL, sweeps=2)
    assert np.unique(with_sweeps.points[:, 5]) == pytest.approx([0, 0.05, 0.1])
    assert (with_sweeps.points[: len(frame.points)] == frame.points).all()


@pytest.mark.parametrize("condition", EVERY, ids=lambda condition: condition.name)
def test_a_condition_changes_its_sensors_and_no_others(condition: Condition) -> None:
    full, frame, again = read(FULL), read(condition), read(condition)
    missing = sum(view.image is None for view in frame.views)
    assert missing == (condition.cameras_missing if condition.cameras else 6)
    assert (frame.points is None) == (not condition.lidar)
    for view, was, repeated in zip(frame.views, full.views, again.views, strict=True):
        assert view.size == was.size
        assert (view.lidar_to_camera == was.lidar_to_camera).all()
        if view.image is None:
            assert repeated.image is None
            continue
        assert (view.image == repeated.image).all()
        noise = np.abs(view.image.astype(int) - was.image).mean() / 255
        assert noise == pytest.approx(0.8 * condition.pixel_noise, rel=0.25, abs=0)
    if frame.points is not None:
        assert (frame.points == again.points).all()
        assert set(frame.points[:, 4] % condition.every_beam) == {0}
        rings = len(set(full.points[:, 4]))
        assert len(set(frame.points[:, 4])) == pytest.approx(rings / condition.every_beam, abs=1)
        if condition.point_noise:
            apart = frame.points[:, :3] - full.points[:, :3]
            assert apart.std() == pytest.approx(condition.point_noise, rel=0.05)
            assert (frame.points[:, 3:] == full.points[:, 3:]).all()
        elif condition.every_beam == 1:
            assert (frame.points == full.points).all()


def test_which_cameras_are_missing_is_drawn_for_every_keyframe() -> None:
    condition = CORRUPTIONS["missing_cameras"][1]
    gone = [
        frozenset(i for i, view in enumerate(frame.views) if view.image is None)
        for frame in FrameReader.frames(world().parts["train"], condition, 0)
    ]
    assert all(len(one) == 2 for one in gone)
    assert len(set(gone)) == 6  # of four cameras two


def test_protocols_ask_for_conditions() -> None:
    assert [one.name for one in conditions_of("modalities")] == ["full", "no_lidar", "no_cameras"]
    assert conditions_of("full") == (FULL,)
    assert len(conditions_of("every")) == 12
    for wrong in (-1, 11):
        with pytest.raises(ConfigError, match="sweeps must be from 0 to 10"):
            Detection3DProtocol(sweeps=wrong)


def test_frames_pickle_and_hold_no_answers() -> None:
    frames = FrameReader.frames(streets().parts["test"], FULL, 1)
    copied = pickle.loads(pickle.dumps(frames))
    assert (copied[-1].points == frames[3].points).all()
    assert len(copied[1:3]) == 2
    with pytest.raises(IndexError):
        frames[4]
    for key in frames.read.keyframes:
        assert len(key.boxes) == len(key.global_boxes) == len(key.racks.centres) == 0


def test_a_picture_of_another_size_than_its_table_says(tmp_path: Path) -> None:
    key = streets().parts["test"][0]
    small = tmp_path / "small.jpg"
    Image.new("RGB", (80, 45)).save(small)
    broken = replace(key, cameras=(replace(key.cameras[0], path=small), *key.cameras[1:]))
    with pytest.raises(DataError, match=r"has 45 x 80 pixels, its table says 90 x 160"):
        FrameReader.frames([broken], FULL, 0)[0]
    small.write_bytes(small.read_bytes()[:100])
    with pytest.raises(DataError, match="not a readable picture"):
        FrameReader.frames([broken], FULL, 0)[0]


# --- the task ---


def test_perfect_boxes_score_one_and_nothing_scores_nothing(tmp_path: Path) -> None:
    scenes = streets()
    truth = truth_of(scenes)

    def answers(frames: Frames, call: int) -> list[Detections]:
        return (
            truth(frames, call) if call == 0 else [as_found(scenes.parts["test"][0].boxes[:0]) for _ in frames.tokens]
        )

    method = Oracle(answers)
    outcome = judged(tmp_path, scenes, method)
    for name in ("map", "nds", "nds3"):
        assert outcome.scores[name] == pytest.approx(1.0, abs=1e-9)
    assert outcome.scores["map_no_lidar"] == outcome.scores["nds_no_cameras"] == 0
    assert outcome.scores["mave"] == pytest.approx(0, abs=1e-9)
    assert outcome.undefined["mra"] == outcome.undefined["ra_beams"] == "not asked for"
    assert outcome.parameters == 7
    assert outcome.tables["training"] == [{"step": 1}]
    assert [row["condition"] for row in outcome.tables["conditions"]] == ["full", "no_lidar", "no_cameras"]
    assert len(outcome.tables["classes"]) == 10
    assert len(method.shown) == 3
    assert method.shown[0].tokens == tuple(key.token for key in scenes.parts["test"])
    for name in ("full", "no_lidar", "no_cameras"):
        assert Image.open(next(tmp_path.rglob(f"boxes-{name}.png"))).size[0] > 800


def test_resistance_is_measured_in_every_condition(tmp_path: Path) -> None:
    scenes = world()
    truth = truth_of(scenes)

    def answers(frames: Frames, call: int) -> list[Detections]:
        """Find most with all sensors, and in corruptions the less the worse they are."""
        severity = 1 if call < 3 else 2 + (call - 3) % 3
        found = truth(frames, call)
        return [one if i % 5 >= severity else replace_with_none(one) for i, one in enumerate(found)]

    outcome = judged(tmp_path, scenes, Oracle(answers), conditions="every")
    table = {row["condition"]: row["map"] for row in outcome.tables["conditions"]}
    assert len(table) == 12
    for name, severities in CORRUPTIONS.items():
        expected = resistance_ability([table[one.name] for one in severities], table["full"])
        assert outcome.scores[f"ra_{name}"] == pytest.approx(expected)
        assert 0 < outcome.scores[f"ra_{name}"] < 1
    assert outcome.scores["mra"] == pytest.approx(np.mean([outcome.scores[f"ra_{name}"] for name in CORRUPTIONS]))


def replace_with_none(found: Detections) -> Detections:
    return Detections(**{name: getattr(found, name)[:0] for name in (*QUANTITIES, "scores")})


def test_a_part_of_the_classes_has_no_nds_and_says_why(tmp_path: Path) -> None:
    outcome = judged(tmp_path, world(), Oracle(truth_of(world())), conditions="full")
    assert outcome.scores["nds"] is None
    assert outcome.undefined["nds"] == "the data have 4 of the ten classes"
    assert outcome.undefined["mave"] == "the boxes have no velocities"
    assert outcome.undefined["maae"] == "the boxes have no attributes"
    assert outcome.scores["map"] == pytest.approx(1.0)
    assert outcome.scores["nds3"] == pytest.approx(1.0)
    assert all(row["velocity_error"] is None for row in outcome.tables["classes"])
    assert Detection3D.ranking.otherwise == "map"


def test_what_a_method_learns_from_and_what_is_held_out(tmp_path: Path) -> None:
    scenes = world()
    method = Oracle(
        lambda frames, call: [replace_with_none(as_found(scenes.parts["test"][0].boxes)) for _ in frames.tokens]
    )
    judged(tmp_path / "test", scenes, method, conditions="full")
    assert len(method.scenes.frames) == len(method.scenes.boxes) == 30
    assert method.scenes.extent == scenes.extent
    whole = method.scenes.digest
    ctx = context(tmp_path / "val", split="val")
    Detection3D().evaluate(method, {"train": scenes, "test": scenes}, Detection3DProtocol(conditions="full"), ctx)
    assert len(method.scenes.frames) == 27
    held_out = method.shown[-1].tokens
    assert len(held_out) == 3
    assert not set(held_out) & set(method.scenes.frames.tokens)
    assert set(held_out) | set(method.scenes.frames.tokens) == {key.token for key in scenes.parts["train"]}
    assert method.scenes.digest != whole


def test_other_answers_change_what_is_judged_and_nothing_else(tmp_path: Path) -> None:
    scenes = streets()
    other = Detection3D().with_other_answers({"train": scenes, "test": scenes})["test"]
    assert judged(tmp_path, other, Oracle(truth_of(scenes)), conditions="full").scores["map"] < 0.1
    for key, was in zip(other.parts["test"], scenes.parts["test"], strict=True):
        assert key.cameras is was.cameras
        assert (key.boxes.labels != was.boxes.labels).all()
    assert other.parts["train"] is scenes.parts["train"]


def test_mirrored_and_shifted_boxes_lose(tmp_path: Path) -> None:
    """Boxes are judged in the global frame: a detector that confuses frames finds nothing."""
    scenes = streets()
    keys = {key.token: key for key in scenes.parts["test"]}

    def in_ego_frame(frames: Frames, call: int) -> list[Detections]:
        return [as_found(moved(keys[token].boxes, keys[token].lidar_to_ego)) for token in frames.tokens]

    assert judged(tmp_path, scenes, Oracle(in_ego_frame), conditions="full").scores["map"] < 0.1


def test_missing_attributes_are_the_usual_ones(tmp_path: Path) -> None:
    scenes = streets()
    truth = truth_of(scenes)

    def answers(frames: Frames, call: int) -> list[Detections]:
        return [replace(one, attributes=None) for one in truth(frames, call)]

    assert judged(tmp_path, scenes, Oracle(answers), conditions="full").scores["maae"] == pytest.approx(0)
    key = scenes.parts["test"][0]
    (found,) = check_found([replace(as_found(key.boxes), attributes=None)], [key], CLASSES)
    fast = np.hypot(*found.boxes.velocities.T) > 0.2
    for label, attribute, moving in zip(found.boxes.labels, found.boxes.attributes, fast, strict=True):
        name = CLASSES[label]
        expected = {
            "pedestrian": ("pedestrian.standing", "pedestrian.moving"),
            "bicycle": ("cycle.without_rider", "cycle.with_rider"),
            "motorcycle": ("cycle.without_rider", "cycle.with_rider"),
            "bus": ("vehicle.stopped", "vehicle.moving"),
            "traffic_cone": ("", ""),
            "barrier": ("", ""),
        }.get(name, ("vehicle.parked", "vehicle.moving"))[int(moving)]
        assert (ATTRIBUTES[attribute] if attribute >= 0 else "") == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"centres": np.zeros((2, 2))}, r"centres are float64 \(2, 2\): needs floats \(1, 3\)"),
        ({"centres": [[0.0, 0, 0]]}, "centres are list: needs floats"),
        ({"centres": np.full((1, 3), np.nan)}, "centres hold NaN or infinity"),
        ({"velocities": np.full((1, 2), np.inf)}, "velocities hold NaN or infinity"),
        ({"sizes": np.zeros((1, 3))}, "sizes must be positive"),
        ({"scores": np.array([1.2])}, r"scores lie in \[0, 1\]"),
        ({"scores": np.array([1])}, "scores are int64"),
        ({"labels": np.array([10])}, "labels are places in classes, 0 to 9"),
        ({"labels": np.array([0.0])}, "labels are float64"),
        ({"attributes": np.array([8])}, "attributes are places in ATTRIBUTES"),
        ({"attributes": np.array([0.5])}, "attributes must be integers"),
    ],
)
def test_detections_that_are_none(change: dict[str, Any], message: str) -> None:
    right = Detections(
        np.zeros((1, 3)), np.ones((1, 3)), np.zeros(1), np.zeros((1, 2)), np.array([0.5]), np.array([0]), np.array([0])
    )
    key = streets().parts["test"][0]
    assert len(check_found([right], [key], CLASSES)) == 1
    with pytest.raises(InvalidPrediction, match=message):
        check_found([replace(right, **change)], [key], CLASSES)
    with pytest.raises(InvalidPrediction, match="detect returned 0 for 1 keyframes"):
        check_found([], [key], CLASSES)
    many = Detections(*(np.repeat(getattr(right, n), 501, axis=0) for n in (*QUANTITIES[:4], "scores", "labels")))
    with pytest.raises(InvalidPrediction, match="501 boxes in a keyframe: at most 500"):
        check_found([many], [key], CLASSES)


# --- results made elsewhere ---


def results(edit: Callable[[dict[str, Any]], Any] | None = None) -> dict[str, Any]:
    """Return the results file of a detector that finds everything."""
    keys = streets().parts["test"]
    folder = Path(streets_folder().parent)
    path = folder / "results-of-tests.json"
    write_results(path, check_found([as_found(key.boxes) for key in keys], keys, CLASSES), keys, CLASSES)
    content: dict[str, Any] = json.loads(path.read_text())
    path.unlink()
    if edit is not None:
        edit(content)
    return content


def test_a_results_file_is_judged_as_its_run_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    boxes = {key.token: as_found(key.boxes) for key in streets().parts["test"]}

    def answers(frames: Frames, call: int) -> list[Detections]:
        shaken = []
        for token in frames.tokens:
            one = boxes[token]
            noise = {n: rng.normal(0, s, getattr(one, n).shape) for n, s in (("centres", 0.6), ("yaws", 0.3))}
            scores = np.round(rng.random(len(one.scores)), 1)  # many are equal
            shaken.append(replace(one, scores=scores, **{n: getattr(one, n) + v for n, v in noise.items()}))
        return shaken

    outcome = judged(tmp_path, streets(), Oracle(answers), conditions="full")
    data = {"train": streets(), "test": streets()}
    again = Detection3D().score(next(tmp_path.rglob("predictions.json")), data, Detection3DProtocol())
    for name in ("nds", "map", "nds3", "mate", "mase", "maoe", "mave", "maae"):
        assert again.scores[name] == pytest.approx(outcome.scores[name], abs=1e-9)
    assert 0.05 < again.scores["map"] < 0.95
    assert again.undefined["map_no_lidar"] == "a results file is of one condition"


def test_detection_eval_of_the_devkit_gives_the_same(tmp_path: Path) -> None:
    reason = "nuscenes-devkit is not installed: pip install --no-deps nuscenes-devkit, and what it imports"
    nuscenes = pytest.importorskip("nuscenes", reason=reason)
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    rng = np.random.default_rng(1)
    content = results()
    for listed in content["results"].values():
        for box in listed:
            box["translation"] = (np.array(box["translation"]) + rng.normal(0, 0.7, 3)).tolist()
            box["size"] = (np.array(box["size"]) * rng.uniform(0.8, 1.2, 3)).tolist()
            box["velocity"] = rng.normal(0, 2, 2).tolist()
            box["detection_score"] = float(np.round(rng.random(), 1))
            angle = rng.uniform(-4, 4)
            box["rotation"] = [math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)]
        listed += [{**box, "detection_score": 0.3, "attribute_name": ""} for box in listed[::3]]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    theirs = DetectionEval(
        nuscenes.NuScenes(version=VERSION, dataroot=str(streets_folder()), verbose=False),
        config_factory("detection_cvpr_2019"),
        str(path),
        "generated_val",
        str(tmp_path / "out"),
        verbose=False,
    ).main(render_curves=False)
    data = {"train": streets(), "test": streets()}
    mine = Detection3D().score(path, data, Detection3DProtocol()).scores
    assert mine["nds"] == pytest.approx(theirs["nd_score"], abs=1e-9)
    assert mine["map"] == pytest.approx(theirs["mean_ap"], abs=1e-9)
    names = {"mate": "trans_err", "mase": "scale_err", "maoe": "orient_err", "mave": "vel_err", "maae": "attr_err"}
    for name, their_name in names.items():
        assert mine[name] == pytest.approx(theirs["tp_errors"][their_name], abs=1e-9)
    assert 0.05 < mine["map"] < 0.95


def box(edit: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda content: edit(next(iter(content["results"].values()))[0])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("results"), "is no results file of nuScenes"),
        (lambda c: c.pop("meta"), "has no meta"),
        (lambda c: c["results"].update(nowhere=[]), "sample 'nowhere' is none of the 4 that are judged"),
        (lambda c: c["results"].popitem(), "1 of 4 samples are missing"),
        (lambda c: next(iter(c["results"].values())).extend([{}] * 501), r"has \d+ boxes: at most 500"),
        (box(lambda b: b.update(detection_score="np.float64(0.5)")), r"box 1 .*detection_score is 'np.float64\(0.5\)'"),
        (box(lambda b: b.update(detection_score=float("nan"))), "detection_score is nan: write a finite number"),
        (box(lambda b: b.update(detection_name="cra")), "detection_name 'cra' is unknown - did you mean 'car'"),
        (box(lambda b: b.update(velocity=[0, float("nan")])), "velocity is nan: write a finite number|velocity"),
        (box(lambda b: b.update(size=[1, 1, 0])), "width, length and height must be positive"),
        (box(lambda b: b.update(rotation=[0, 0, 0, 0])), "a quaternion w, x, y, z of length 1"),
        (box(lambda b: b.update(attribute_name="moving")), "attribute_name is 'moving': write one of the eight"),
        (box(lambda b: b.update(sample_token="x")), "sample_token is 'x', not the sample that it is listed under"),
        (box(lambda b: b.pop("translation")), "it has no translation"),
    ],
)
def test_broken_results_are_told_in_one_line(tmp_path: Path, edit: Any, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results(edit)))
    with pytest.raises(DataError, match=message) as caught:
        read_results(path, streets().parts["test"], CLASSES)
    assert "\n" not in str(caught.value)
    path.write_text(path.read_text()[:-50])
    with pytest.raises(DataError, match=r"not a results file of nuScenes .* cut short or damaged"):
        read_results(path, streets().parts["test"], CLASSES)


def test_classes_that_the_data_lack_are_counted_not_judged(tmp_path: Path) -> None:
    keys = world().parts["test"]
    path = tmp_path / "results.json"
    found = check_found([as_found(key.boxes) for key in keys], keys, world().classes)
    write_results(path, found, keys, world().classes)
    content = json.loads(path.read_text())
    next(iter(content["results"].values())).append(
        {**next(iter(content["results"].values()))[0], "detection_name": "bus"}
    )
    path.write_text(json.dumps(content))
    outcome = Detection3D().score(path, {"train": world(), "test": world()}, Detection3DProtocol())
    assert outcome.counts["boxes_not_judged"] == 1
    assert outcome.scores["map"] == pytest.approx(1.0)


def test_a_bicycle_in_a_rack_is_not_judged() -> None:
    keys = streets().parts["test"]
    no_racks = FrameReader.frames(keys, FULL, 0).read.keyframes[0].racks
    all_objects = Judge(streets(), [replace(key, racks=no_racks) for key in keys]).objects
    racked = 0
    for key in keys:
        (centre,) = key.racks.centres
        near = np.hypot(*(key.global_boxes.centres - centre).T[:2]) < 0.1
        assert {CLASSES[label] for label in key.global_boxes.labels[near]} == {"bicycle"}
        racked += int((key.boxes.points[near] > 0).sum())
    assert racked > 0
    assert Judge(streets(), keys).objects == all_objects - racked


# --- pictures ---


def test_edges_are_cut_where_they_pass_behind_a_camera() -> None:
    view = CameraView("X", None, (100, 100), np.array([[50.0, 0, 50], [0, 50, 50], [0, 0, 1]]), np.eye(4))

    def one(z: float, length: float) -> Boxes:
        centre = np.array([[0.0, 0, z]])
        size = np.array([[1.0, 1, length]])
        whole = np.zeros(1, dtype=np.int64)
        return Boxes(centre, size, np.zeros(1), np.zeros((1, 2)), whole, whole, whole)

    assert lines_in_view(one(10, 2), view).shape == (12, 2, 2)
    assert len(lines_in_view(one(-10, 2), view)) == 0
    beside = lines_in_view(one(0, 20), view)  # half of it lies behind
    assert 4 <= len(beside) < 12
    assert np.isfinite(beside).all()
    # The four edges along the line of sight leave the picture sideways: half a metre at the nearest depth.
    sideways = np.abs(beside[..., 0] - 50).max(axis=1)
    assert sorted(sideways)[-4:] == pytest.approx([50 * 0.5 / 0.3] * 4)
    front = lines_in_view(one(10, 2), view)
    assert front.min() == pytest.approx(50 - 50 * 0.5 / 9)


def test_small_pictures_are_enlarged_pixel_by_pixel(tmp_path: Path) -> None:
    keys = streets().parts["test"][:1]
    nothing = check_found([as_found(keys[0].boxes[:0])], keys, CLASSES)
    draw_sheet(tmp_path / "sheet.png", FULL, keys, nothing, streets())

    def colours(picture: Any) -> set[Any]:
        return set(map(tuple, np.asarray(picture).reshape(-1, 3).tolist()))

    seen = set().union(*(colours(Image.open(camera.path)) for camera in keys[0].cameras))
    drawn = colours(Image.open(tmp_path / "sheet.png").convert("RGB"))
    assert len(seen & drawn) > 0.9 * len(seen)  # blended, most colours would be between those of two pixels


def test_sheets_are_drawn_of_the_real_keyframe(real_data: Path, tmp_path: Path) -> None:
    scenes = load_infos(real_data / "nuscenes_sample", 0)
    keys = scenes.parts["test"]
    found = check_found([as_found(keys[0].boxes)], keys, scenes.classes)
    for condition in (FULL, CORRUPTIONS["beams"][2], EVERY[1]):
        path = tmp_path / f"{condition.name}.png"
        draw_sheet(path, condition, keys, found, scenes)
        pixels = np.asarray(Image.open(path)).reshape(-1, 3)
        assert ((pixels == (220, 40, 40)).all(axis=1)).sum() > 500  # found boxes are drawn over the true ones
    assert len({p.read_bytes() for p in tmp_path.iterdir()}) == 3


def test_the_real_keyframe_is_judged_end_to_end(real_data: Path, tmp_path: Path) -> None:
    scenes = load_infos(real_data / "nuscenes_sample", 0)
    outcome = judged(tmp_path, scenes, Oracle(truth_of(scenes)))
    present = sum(row["objects"] > 0 for row in outcome.tables["classes"])
    assert outcome.scores["map"] == pytest.approx(present / 10)
    assert outcome.scores["map_no_lidar"] == outcome.scores["map"]
