"""The protocol of few-shot instance segmentation in its three settings."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("hotcoco")
pytest.importorskip("PIL")

from benchsuite.core.errors import ConfigError, DataError, InvalidPrediction
from benchsuite.datasets.coco import generated as synth_fsis
from benchsuite.datasets.coco import reader as coco
from benchsuite.tasks.fewshot_instance_segmentation import task as few
from benchsuite.tasks.fewshot_instance_segmentation.contract import (
    Detection,
    FewShotProtocol,
    FewShotSegmenter,
    Segmenter,
)
from benchsuite.tasks.fewshot_instance_segmentation.judge import predict

TASKS = {"fsis": few.FewShot, "gfsis": few.GeneralisedFewShot, "ifsis": few.IncrementalFewShot}


@pytest.fixture(scope="module")
def data():
    dataset = synth_fsis.load_generated(None, 0)
    test = coco.ImageSet([dataset.test[i] for i in range(24)], "some")
    return replace(dataset, test=test)


class Context:
    """What the task needs of a run."""

    def __init__(self, folder, split="test"):
        self.folder, self.split, self.log = folder, split, logging.getLogger("test")

    def seed_for(self, axis, name):
        return 5

    def phase(self, name):
        import contextlib

        return contextlib.nullcontext()

    def artifact(self, name):
        return self.folder / name


class Oracle(Segmenter):
    """Knows the answers."""

    parameters = 3

    def __init__(self, images, classes, score=0.9):
        self.records = {record.pixels().tobytes(): record for record in images}
        self.classes, self.score = classes, score

    def predict(self, images):
        found = []
        for image in images:
            instances = self.records[image.tobytes()].instances()
            found.append(
                [
                    Detection(i.category_id, self.score, i.mask, i.box)
                    for i in instances
                    if i.category_id in self.classes
                ]
            )
        return found


class Method(FewShotSegmenter):
    def __init__(self, make):
        super().__init__(None)
        self.make = make

    def fit(self, data, ctx):
        data.finish_base()
        self.data = data
        return self.make(data)


def run(task, data, make, tmp_path, protocol=None, split="test"):
    method = Method(make)
    both = {"train": data, "test": data}
    return TASKS[task]().evaluate(method, both, protocol or FewShotProtocol(), Context(tmp_path, split)), method.data


@pytest.mark.parametrize("task", TASKS)
def test_an_oracle_is_perfect(task, data, tmp_path):
    outcome, seen = run(task, data, lambda d: Oracle(data.test, d.head_classes), tmp_path)
    quality = {m.name for m in TASKS[task].metrics if m.kind == "quality"}
    assert quality <= outcome.scores.keys()
    for name in quality - {"nap_medium", "nap_large"}:
        assert outcome.scores[name] == pytest.approx(1.0), name
    assert outcome.scores["nap_large"] is None
    assert outcome.undefined["nap_large"]
    assert (tmp_path / "detections.png").is_file()
    assert TASKS[task]().score(tmp_path / "predictions.json", {"train": data, "test": data}, FewShotProtocol()).scores[
        "nap"
    ] == pytest.approx(1.0)
    shots = {"fsis": 20, "gfsis": 60, "ifsis": 20}[task]
    assert len(seen.shots) == shots
    assert all(len(record.annotations) == 1 for record in seen.shots)


def test_what_a_method_sees(data, tmp_path):
    _, seen = run("fsis", data, lambda d: Oracle(data.test, ()), tmp_path)
    assert seen.base_classes == tuple(range(1, 9))
    assert seen.head_classes == seen.novel_classes == (9, 10, 11, 12)
    assert {a["category_id"] for r in seen.base for a in r.annotations} == set(range(1, 9))
    _, general = run("gfsis", data, lambda d: Oracle(data.test, ()), tmp_path)
    assert general.head_classes == tuple(range(1, 13))
    assert general.base.digest == seen.base.digest


def test_no_detections_are_zero_and_counted(data, tmp_path):
    outcome, _ = run("fsis", data, lambda d: Oracle(data.test, ()), tmp_path)
    assert outcome.scores["nap"] == 0.0
    assert outcome.counts["n_detections"] == 0


def test_no_base_image_in_the_incremental_stage(data, tmp_path):
    def peek(seen):
        return seen.base

    with pytest.raises(RuntimeError, match="no base image may be used"):
        run("ifsis", data, peek, tmp_path)
    run("gfsis", data, lambda d: (d.base, Oracle(data.test, ()))[1], tmp_path)


def test_validation_images_come_from_training(data, tmp_path):
    held_out = []

    def make(seen):
        held_out.append({r.image_id for r in seen.base})
        return Oracle(data.train, seen.head_classes)

    outcome, _ = run("fsis", data, make, tmp_path, split="val")
    assert outcome.counts["images"] == 132
    assert len(held_out[0]) < 600


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": 1.5}, r"scores lie in \[0, 1\]"),
        ({"score": float("nan")}, r"scores lie in \[0, 1\]"),
        ({"category_id": 1}, "does not have"),
        ({"mask": np.zeros((3, 3), bool)}, "needs bool"),
        ({"mask": np.zeros((64, 64))}, "needs bool"),
        ({"box": (0.0, 0.0, -1.0, 2.0)}, "needs x, y, width, height"),
        ({"box": (0.0, 0.0, float("inf"), 2.0)}, "needs x, y, width, height"),
    ],
)
def test_bad_detections(data, tmp_path, change, message):
    good = Detection(9, 0.5, np.ones((64, 64), bool), (0.0, 0.0, 64.0, 64.0))
    model = SimpleNamespace(predict=lambda images: [[replace(good, **change)] for _ in images], parameters=None)
    with pytest.raises(InvalidPrediction, match=message):
        predict(model, data.test, (9, 10, 11, 12))


def test_too_many_detections_and_too_few_lists(data):
    one = Detection(9, 0.5, np.ones((64, 64), bool), (0.0, 0.0, 64.0, 64.0))
    with pytest.raises(InvalidPrediction, match="at most 100"):
        predict(SimpleNamespace(predict=lambda images: [[one] * 101 for _ in images]), data.test, (9,))
    with pytest.raises(InvalidPrediction, match="lists for"):
        predict(SimpleNamespace(predict=lambda images: []), data.test, (9,))


def test_classes_that_cannot_give_shots(data, tmp_path, caplog):
    protocol = FewShotProtocol(shots=30)
    with pytest.raises(DataError, match="too few to run"):
        run("fsis", data, lambda d: Oracle(data.test, ()), tmp_path, protocol)
    with pytest.raises(DataError, match="cannot give 30 shots; tri-check is left out"):
        run("fsis", data, lambda d: Oracle(data.test, ()), tmp_path, replace(protocol, infeasible="refuse"))
    with pytest.raises(ConfigError, match="shots must be one of"):
        FewShotProtocol(shots=4)


@pytest.mark.real_data
def test_the_real_sample_leaves_classes_out_and_says_so(real_data, tmp_path, caplog):
    dataset = coco.load_coco(real_data / "coco_tiny", 0)
    with caplog.at_level(logging.WARNING):
        outcome, seen = run(
            "fsis", dataset, lambda d: Oracle(dataset.test, d.head_classes), tmp_path, FewShotProtocol(1)
        )
    assert "became the test part" in caplog.text
    assert "is left out" in caplog.text
    assert outcome.counts["shot_records"] == len(seen.novel_classes) > 0
    assert outcome.scores["nap"] == pytest.approx(1.0)


def test_merged_records_keep_every_shot(data, tmp_path):
    _, seen = run("fsis", data, lambda d: Oracle(data.test, ()), tmp_path, FewShotProtocol(merge_records=True))
    assert sum(len(r.annotations) for r in seen.shots) == 20
    assert len({r.image_id for r in seen.shots}) == len(seen.shots)


def test_other_answers_change_the_test_images_only(data):
    other = few.FewShot().with_other_answers({"train": data, "test": data})["test"]
    assert other.train.digest == data.train.digest
    assert other.test.digest != data.test.digest


def test_broken_results_files(data, tmp_path):
    path = tmp_path / "results.json"
    for text, message in (("{", "not a COCO results file"), ('[{"image_id": 1}]', "not a COCO results file")):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            few.FewShot().score(path, {"train": data, "test": data}, FewShotProtocol())
    path.write_text(
        '[{"image_id": 1, "category_id": 9, "score": 1, "bbox": [0, 0, 1, 1],'
        ' "segmentation": {"size": [1, 1], "counts": "01"}}]'
    )
    with pytest.raises(DataError, match="no test image of that size"):
        few.FewShot().score(path, {"train": data, "test": data}, FewShotProtocol())
