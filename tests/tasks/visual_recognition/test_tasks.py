"""The three tasks from end to end: what a method sees, what is measured, files that are judged again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("PIL")
pytest.importorskip("hotcoco")

import torch
from PIL import Image
from skeletons.recognition import FAST, Config, Everything, scenes, shapes
from support import context

from benchsuite.core import Outcome
from benchsuite.core.config import build_config
from benchsuite.core.errors import ConfigError, DataError, InvalidPrediction
from benchsuite.datasets.image_folders.reader import load_imagenet
from benchsuite.datasets.label_maps.ade20k import load_ade20k
from benchsuite.tasks.visual_recognition.contract import Trained
from benchsuite.tasks.visual_recognition.image_classification import ImageClassification
from benchsuite.tasks.visual_recognition.object_detection import ObjectDetection, _input_size
from benchsuite.tasks.visual_recognition.semantic_segmentation import SemanticSegmentation

TASKS: dict[str, Any] = {
    "classification": ImageClassification,
    "segmentation": SemanticSegmentation,
    "detection": ObjectDetection,
}
SIZES: dict[str, dict[str, Any]] = {
    "classification": {"size": 32},
    "segmentation": {"size": 64, "max_size": 64},
    "detection": {"size": 64, "max_size": 64},
}
EACH = pytest.mark.parametrize("kind", TASKS)


class Run:
    """One evaluation of the toy method."""

    def __init__(
        self, folder: Path, kind: str, data: Any, method: Any = None, split: str = "test", **more: Any
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "artifacts").mkdir(exist_ok=True)
        self.task, self.data = TASKS[kind](), {"train": data, "test": data}
        self.protocol = TASKS[kind].Protocol(**(FAST | SIZES[kind] | more))
        self.method = method or Everything(Config())
        self.folder = folder / "artifacts"
        self.outcome: Outcome = self.task.evaluate(self.method, self.data, self.protocol, context(folder, split=split))

    @property
    def predictions(self) -> Path:
        (found,) = self.folder.glob("predictions.*")
        return found


def _data(kind: str) -> Any:
    return shapes() if kind == "classification" else scenes()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {kind: Run(folder / kind, kind, _data(kind)) for kind in TASKS}


@EACH
def test_every_metric_is_there_or_why_not(runs: dict[str, Run], kind: str) -> None:
    outcome = runs[kind].outcome
    assert set(outcome.scores) == set(TASKS[kind].metric_names())
    assert {name for name, value in outcome.scores.items() if value is None} == set(outcome.undefined)
    assert outcome.parameters == sum(p.numel() for p in runs[kind].method.trained.network.parameters())
    assert outcome.scores["macs"] == outcome.counts["multiply_adds"] / 1e6
    assert outcome.tables["classes"]
    assert outcome.tables["costs"]


@EACH
def test_a_runs_file_gives_the_runs_scores(runs: dict[str, Run], kind: str) -> None:
    run = runs[kind]
    again = run.task.score(run.predictions, run.data, run.protocol)
    assert set(again.scores) == set(run.outcome.scores)
    for name, value in again.scores.items():
        assert value is None or value == run.outcome.scores[name]
    assert again.undefined["macs"] == "predicted elsewhere"


@EACH
def test_predictions_do_not_depend_on_hidden_answers(tmp_path: Path, runs: dict[str, Run], kind: str) -> None:
    task = TASKS[kind]()
    other = task.with_other_answers(runs[kind].data)["test"]
    changed = Run(tmp_path, kind, other)
    assert changed.predictions.read_bytes() == runs[kind].predictions.read_bytes()
    if kind != "detection":  # whose toy finds nothing
        ranking = task.ranking.metric
        assert changed.outcome.scores[ranking] != runs[kind].outcome.scores[ranking]


@EACH
def test_a_picture_is_drawn(runs: dict[str, Run], kind: str) -> None:
    picture = np.asarray(Image.open(runs[kind].folder / "examples.png"))
    assert min(picture.shape[:2]) > 150
    assert picture.std() > 10


@EACH
def test_methods_see_training_pictures_only(tmp_path: Path, kind: str) -> None:
    data = _data(kind)
    seen = Run(tmp_path / "test", kind, data).method.seen
    assert len(seen.pictures) == len(data.train)
    assert all(name.startswith("train/") for name in seen.pictures.names)
    assert seen.score is None
    held = Run(tmp_path / "val", kind, data, split="val")
    assert len(held.method.seen.pictures) == 0.8 * len(data.train)
    assert held.outcome.counts["test_pictures"] == 0.2 * len(data.train)
    assert held.method.seen.digest != seen.digest


@EACH
def test_selection_on_the_judged_part_must_be_asked_for(tmp_path: Path, kind: str) -> None:
    run = Run(tmp_path, kind, _data(kind), selection="test")
    score = run.method.seen.score
    assert score is not None
    assert score(run.method.trained) == run.outcome.scores[run.task.ranking.metric]


@EACH
def test_a_method_that_returns_no_model_is_refused(tmp_path: Path, kind: str) -> None:
    class Empty(Everything):
        def fit_classifier(self, data: Any, ctx: Any) -> Any:
            return None

        fit_segmenter = fit_detector = fit_classifier

    with pytest.raises(InvalidPrediction, match="the method returned NoneType"):
        Run(tmp_path, kind, _data(kind), Empty(Config()))


def test_a_classifier_sees_labels_and_prepared_pictures(runs: dict[str, Run]) -> None:
    seen, data = runs["classification"].method.seen, runs["classification"].data["test"]
    assert np.array_equal(seen.labels, np.concatenate(data.train.labels))
    batch = seen.prepared([3, 0])
    assert (batch.shape, batch.dtype) == ((2, 3, 32, 32), torch.float32)
    assert seen.pictures[0].shape == (48, 48, 3)
    expected = (
        np.asarray(Image.fromarray(seen.pictures[0]).resize((32, 32), Image.Resampling.BICUBIC)) / 255 - seen.mean
    ) / seen.std
    assert np.allclose(batch[1].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert runs["classification"].outcome.tables["training"][0]["step"] == 3


def test_a_segmenter_sees_maps_at_both_sizes(runs: dict[str, Run]) -> None:
    seen, data = runs["segmentation"].method.seen, runs["segmentation"].data["test"]
    assert np.array_equal(seen.label_map(1), data.train.label_maps[1])
    assert seen.prepared(1).shape == (1, 3, 64, 64)
    assert seen.prepared_map(1).shape == (64, 64)
    assert set(np.unique(seen.prepared_map(1))) <= set(np.unique(seen.label_map(1)))
    assert seen.size == (64, 64)


def test_a_detector_sees_boxes_and_scales(runs: dict[str, Run]) -> None:
    seen, data = runs["detection"].method.seen, runs["detection"].data["test"]
    assert np.array_equal(seen.objects(2).boxes, data.train.boxes[2])
    images, sizes, scales = seen.prepared([2, 5])
    assert images.shape == (2, 3, 64, 64)
    assert sizes.tolist() == [[64, 64]] * 2
    assert np.allclose(scales, 64 / 96)


def test_boxes_come_back_to_the_pictures_own_pixels(runs: dict[str, Run]) -> None:
    found = json.loads(runs["detection"].predictions.read_text())
    assert found[0]["bbox"] == [0.0, 0.0, 48.0, 48.0]  # the half of 96 pixels, from 32 of 64


def test_detection_that_keeps_proportions_pads(tmp_path: Path) -> None:
    run = Run(tmp_path, "detection", scenes(size=80), keep_ratio=True, size=40, max_size=70)
    images, sizes, scales = run.method.seen.prepared([0])
    assert images.shape == (1, 3, 64, 64)
    assert sizes.tolist() == [[40, 40]]
    assert np.allclose(scales, 0.5)
    assert not images[0, :, 40:].any()
    assert _input_size(run.protocol) == (64, 96)
    assert run.outcome.tables["costs"][0]["input"] == "64 x 96"
    assert json.loads(run.predictions.read_text())[0]["bbox"] == [0.0, 0.0, 40.0, 40.0]


def test_the_same_seed_gives_the_same_file_and_another_seed_another(tmp_path: Path, runs: dict[str, Run]) -> None:
    again = Run(tmp_path / "again", "segmentation", _data("segmentation"))
    assert again.predictions.read_bytes() == runs["segmentation"].predictions.read_bytes()
    folder = tmp_path / "other"
    (folder / "artifacts").mkdir(parents=True)
    run = runs["segmentation"]
    run.task.evaluate(Everything(Config()), run.data, run.protocol, context(folder, seeds={"run": 1}))
    assert (folder / "artifacts/predictions.zip").read_bytes() != run.predictions.read_bytes()


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("classification", {"size": 0}, "size must be positive"),
        ("classification", {"crop": 1.5}, r"crop in \(0, 1\]"),
        ("segmentation", {"size": 100, "max_size": 50}, "not above max_size"),
        ("detection", {"size": 0}, "must be positive"),
        ("detection", {"latency_repeats": 0}, "latency_repeats must be at least 1"),
        ("segmentation", {"throughput_batch": 0}, "throughput_batch must be at least 1"),
        ("classification", {"warm_ups": -1}, "warm_ups cannot be negative"),
        ("classification", {"selection": "best"}, "selection cannot be 'best'"),
    ],
)
def test_protocols_that_cannot_be(kind: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_config(TASKS[kind].Protocol, settings, "task")


@pytest.mark.parametrize(
    ("kind", "preset", "dataset", "expected"),
    [
        ("classification", "embedded", "digits", {"size": 32, "crop": 1.0}),
        ("classification", "embedded", "shapes", {"size": 64, "crop": 1.0}),
        ("classification", "embedded", "imagenet", {"size": 224, "crop": 0.875}),
        ("classification", "paper", "imagenet", {"size": 224, "crop": 0.875}),
        ("classification", "paper", "shapes", {"size": 224, "crop": 1.0}),
        ("segmentation", "embedded", "shape-scenes", {"size": 96, "max_size": 96}),
        ("segmentation", "paper", "ade20k", {"size": 512, "max_size": 2048}),
        ("detection", "embedded", "shape-scenes", {"size": 96, "max_size": 96, "keep_ratio": False}),
        ("detection", "embedded", "coco", {"size": 320, "max_size": 320}),
        ("detection", "paper", "coco", {"size": 320, "max_size": 320, "keep_ratio": False}),
    ],
)
def test_presets(kind: str, preset: str, dataset: str, expected: dict[str, Any]) -> None:
    settings = TASKS[kind].presets[preset].resolve({"dataset": dataset})
    protocol = build_config(TASKS[kind].Protocol, settings, "task")
    assert {name: getattr(protocol, name) for name in expected} == expected
    assert protocol.selection == "last"
    assert (protocol.latency_repeats, protocol.warm_ups, protocol.throughput_batch) == (12, 2, 32)


def test_imagenets_layout_from_end_to_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for label, name in enumerate(("n01", "n02", "n03")):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 80, size=(30 + number, 44, 3), dtype=np.uint8)
                pixels[..., label] += 150
                Image.fromarray(pixels).save(tmp_path / "data" / part / name / f"{number}.JPEG")
    data = load_imagenet(tmp_path / "data", 0)
    run = Run(tmp_path / "run", "classification", data, size=28, crop=0.875)
    assert run.method.seen.prepared([0]).shape == (1, 3, 28, 28)
    assert run.outcome.counts["test_pictures"] == 9
    assert run.outcome.scores["top5"] is None
    assert run.predictions.read_text().splitlines()[1].startswith("val/n01/0.JPEG,")
    assert run.task.score(run.predictions, run.data, run.protocol).scores["top1"] == run.outcome.scores["top1"]


def _ade(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for part, prefix in (("training", "ADE_train"), ("validation", "ADE_val")):
        for kind in ("images", "annotations"):
            (root / kind / part).mkdir(parents=True)
        for number, size in enumerate(((24, 32), (40, 20)), start=1):
            labels = rng.choice(np.array([0, 1, 2, 150], dtype=np.uint8), size=size)
            name = f"{prefix}_{number:08d}"
            Image.fromarray(np.repeat(labels[..., None], 3, axis=2)).save(root / "images" / part / f"{name}.jpg")
            Image.fromarray(labels).save(root / "annotations" / part / f"{name}.png")
    return root


def test_ade20ks_layout_from_end_to_end(tmp_path: Path) -> None:
    data = load_ade20k(_ade(tmp_path / "data"), 0)
    run = Run(tmp_path / "run", "segmentation", data, size=32, max_size=48)
    assert run.method.seen.prepared(0).shape == (1, 3, 32, 43)
    assert run.method.seen.prepared(1).shape == (1, 3, 48, 24)
    assert run.method.seen.prepared_map(0).shape == (32, 43)
    assert len(run.method.seen.classes) == 150
    assert 0 <= (run.outcome.scores["aacc"] or 0.0) < 0.2
    ignored = sum(
        int((np.asarray(Image.open(f)) == 0).sum()) for f in (tmp_path / "data/annotations/validation").iterdir()
    )
    assert run.outcome.counts["pixels"] == 24 * 32 + 40 * 20 - ignored
    again = run.task.score(run.predictions, run.data, run.protocol)
    assert again.scores["miou"] == run.outcome.scores["miou"]


def test_a_label_beyond_the_classes_ends_a_run_in_one_line(tmp_path: Path) -> None:
    root = _ade(tmp_path / "data")
    Image.fromarray(np.full((24, 32), 151, dtype=np.uint8)).save(root / "annotations/validation/ADE_val_00000001.png")
    with pytest.raises(DataError, match="holds the label 151"):
        Run(tmp_path / "run", "segmentation", load_ade20k(root, 0), size=32, max_size=48)


def test_a_network_that_trains_in_the_middle_of_a_run_is_judged_in_evaluation_mode(tmp_path: Path) -> None:
    class Modes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.modes = torch.nn.Parameter(torch.zeros(1)), set()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.modes.add(self.training)
            return x.mean(dim=(2, 3)).repeat(1, 4)[:, :10] + self.weight

    class Training(Everything):
        def fit_classifier(self, data: Any, ctx: Any) -> Trained:
            self.network = Modes().train()
            return Trained(self.network)

    method = Training(Config())
    Run(tmp_path, "classification", shapes(), method)
    assert method.network.modes == {False}


@pytest.mark.real_data
def test_coco_from_end_to_end(tmp_path: Path, real_data: Path) -> None:
    from benchsuite.datasets.coco.reader import load_coco

    data = load_coco(real_data / "coco_tiny", 0)
    run = Run(tmp_path, "detection", data, size=96, max_size=96)
    assert run.method.seen.prepared([0])[0].shape == (1, 3, 96, 96)
    assert run.outcome.counts["objects"] == sum(len(record.annotations) for record in data.test)
    assert {one["image_id"] for one in json.loads(run.predictions.read_text())} == {r.image_id for r in data.test}
    again = run.task.score(run.predictions, run.data, run.protocol)
    assert again.scores["ap"] == run.outcome.scores["ap"]
    assert run.task.with_other_answers(run.data)["test"].train is data.train


def test_nuclei_are_segmented_and_found_but_not_classified(tmp_path: Path) -> None:
    from benchsuite.core.errors import Incompatible

    data = replace(scenes(train=8, test=5), classes=("nucleus",))
    for part in (data.train, data.test):
        part.label_maps[:] = part.label_maps > 0
        for labels in part.labels:
            labels[:] = 0
    assert Run(tmp_path / "s", "segmentation", data).outcome.counts["classes"] == 2
    assert Run(tmp_path / "d", "detection", data).outcome.counts["classes"] == 1
    with pytest.raises(Incompatible, match="several objects or none"):
        Run(tmp_path / "c", "classification", data)
