"""The protocol of few-shot instance segmentation in its three settings."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
    FewShotData,
    FewShotProtocol,
    FewShotSegmenter,
    IncrementalProtocol,
    Segmenter,
)
from benchsuite.tasks.fewshot_instance_segmentation.judge import predict
from benchsuite.tasks.fewshot_instance_segmentation.shots import sample_shots
from benchsuite.tasks.fewshot_instance_segmentation.tuning import arrivals, check_state

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

    draw = 0

    def seed_for(self, axis, name):
        return 5

    def draw_of(self, axis):
        assert axis == "shots"
        return self.draw

    def phase(self, name):
        import contextlib

        return contextlib.nullcontext()

    def artifact(self, name):
        return self.folder / name

    def scratch(self, name):
        import contextlib

        return contextlib.nullcontext(self)

    def apart(self, name, function, *arguments):
        return function(self, *arguments)

    @property
    def workdir(self):
        return self.folder


class Apart(Context):
    """Hands each stage a copy of what it is given, as another process would get it."""

    def apart(self, name, function, method, *arguments):
        fresh = type(method)(method.config)
        (self.folder / name).mkdir()  # each stage has a name of its own
        return function(self, fresh, *arguments)


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


@dataclass
class Seen:
    """How to make a model, and what the method saw in its two calls."""

    make: Callable
    base: Any = None
    tuning: Any = None
    state: Any = None


class Method(FewShotSegmenter):
    def learn_base(self, data, ctx):
        self.config.base = data
        return {"kept": np.arange(6, dtype=np.float32)}

    def tune(self, state, data, ctx):
        self.config.tuning, self.config.state = data, state
        return self.config.make(data)


def run(task, data, make, tmp_path, protocol=None, split="test"):
    seen = Seen(make)
    both = {"train": data, "test": data}
    tmp_path.mkdir(exist_ok=True)
    outcome = TASKS[task]().evaluate(Method(seen), both, protocol or FewShotProtocol(), Context(tmp_path, split))
    return outcome, seen


@pytest.mark.parametrize("task", TASKS)
def test_an_oracle_is_perfect(task, data, tmp_path):
    outcome, seen = run(task, data, lambda d: Oracle(data.test, d.head_classes), tmp_path)
    quality = {m.name for m in TASKS[task].metrics if m.kind == "quality"}
    assert quality <= outcome.scores.keys()
    for name in {name for name in quality if "medium" not in name and "large" not in name}:  # all are small
        assert outcome.scores[name] == pytest.approx(1.0), name
    assert outcome.scores["nap_large"] is None
    assert outcome.undefined["nap_large"]
    assert (tmp_path / "detections.png").is_file()
    assert TASKS[task]().score(tmp_path / "predictions.json", {"train": data, "test": data}, FewShotProtocol()).scores[
        "nap"
    ] == pytest.approx(1.0)
    shots = {"fsis": 20, "gfsis": 60, "ifsis": 20}[task]
    assert len(seen.tuning.shots) == shots
    assert all(len(record.annotations) == 1 for record in seen.tuning.shots)


def test_what_a_method_sees(data, tmp_path):
    _, seen = run("fsis", data, lambda d: Oracle(data.test, ()), tmp_path)
    assert seen.tuning.base_classes == seen.base.base_classes == tuple(range(1, 9))
    assert seen.tuning.head_classes == seen.tuning.novel_classes == (9, 10, 11, 12)
    assert {a["category_id"] for r in seen.base.images for a in r.annotations} == set(range(1, 9))
    assert seen.tuning.base_images.digest == seen.base.images.digest
    _, general = run("gfsis", data, lambda d: Oracle(data.test, ()), tmp_path)
    assert general.tuning.head_classes == tuple(range(1, 13))
    assert general.base.images.digest == seen.base.images.digest


def test_no_detections_are_zero_and_counted(data, tmp_path):
    outcome, _ = run("fsis", data, lambda d: Oracle(data.test, ()), tmp_path)
    assert outcome.scores["nap"] == 0.0
    assert outcome.counts["n_detections"] == 0


def test_only_the_incremental_setting_tunes_without_base_images(data, tmp_path):
    for task in TASKS:
        outcome, seen = run(task, data, lambda d: Oracle(data.test, ()), tmp_path / task)
        assert (seen.tuning.base_images is None) == (task == "ifsis")
        assert np.array_equal(seen.state["kept"], np.arange(6))
        assert outcome.counts["base_state_bytes"] == 24


class Growing(Segmenter):
    """Knows the answers, and leaves the classes that it knows."""

    def __init__(self, images, known):
        self.oracle, self.known = Oracle(images, known), known

    def predict(self, images):
        return self.oracle.predict(images)

    def state(self):
        return {"known": np.array(self.known)}


class OneByOne(FewShotSegmenter):
    """Tells what each call of tuning sees."""

    def learn_base(self, data, ctx):
        return {"known": np.array(data.base_classes)}

    def tune(self, state, data, ctx):
        seen, images = self.config
        assert not hasattr(self, "tuned"), "each call is made on a fresh object"
        self.tuned = True
        labelled = {a["category_id"] for record in data.shots for a in record.annotations}
        shown = {Path(record.file).name for record in data.shots}
        beside = {path.name for path in Path(data.shots[0].file).parent.iterdir()}
        seen.append((state["known"].tolist(), data, labelled, beside - shown))
        return Growing(images, [*state["known"].tolist(), *data.novel_classes])


class TestArrival:
    def run(self, data, tmp_path, method=OneByOne, **protocol):
        seen = []
        (tmp_path / "work").mkdir()
        task = few.IncrementalFewShot()
        both = {"train": data, "test": data}
        chosen = IncrementalProtocol(shots=2, **protocol)
        outcome = task.evaluate(method((seen, data.test)), both, chosen, Apart(tmp_path / "work"))
        return outcome, seen

    def test_classes_come_one_by_one_and_each_call_sees_the_shots_of_its_own(self, data, tmp_path):
        outcome, seen = self.run(data, tmp_path, arrival="one-by-one")
        base = list(range(1, 9))
        assert [known for known, *_ in seen] == [base, [*base, 9], [*base, 9, 10], [*base, 9, 10, 11]]
        for (known, stage, labelled, _), new in zip(seen, (9, 10, 11, 12), strict=True):
            assert labelled == {new}
            assert len(stage.shots) == 2
            assert (stage.base_classes, stage.novel_classes) == (tuple(known), (new,))
            assert stage.head_classes == (*known, new)
            assert stage.base_images is None
        assert all(not others for *_, others in seen[:-1])  # not even as files; the last finds the test images there
        assert outcome.counts["novel_classes"] == 4
        assert (outcome.scores["nap"], outcome.scores["bap"]) == (pytest.approx(1.0), pytest.approx(1.0))

    def test_they_come_together_unless_the_protocol_says_otherwise(self, data, tmp_path):
        (known, stage, labelled, _), *further = self.run(data, tmp_path)[1]
        assert (further, labelled, stage.novel_classes) == ([], {9, 10, 11, 12}, (9, 10, 11, 12))
        assert known == list(stage.base_classes)

    def test_a_method_without_a_state_to_go_on_from_says_so(self, data, tmp_path):
        class Stuck(OneByOne):
            def tune(self, state, data, ctx):
                return Segmenter()

        with pytest.raises(ConfigError, match="cannot add classes one by one: run it with --set"):
            self.run(data, tmp_path, Stuck, arrival="one-by-one")

    def test_a_merged_record_shows_the_class_that_arrives_and_no_other(self):
        square = {"bbox": [0, 0, 2, 2], "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]], "area": 4}
        both = tuple({"id": n, "image_id": 1, "category_id": n, **square} for n in (8, 9))
        shots = coco.ImageSet([coco.Record(1, 4, 4, "1.png", both)], "some")
        stages = arrivals(FewShotData(shots, None, (1, 2), (8, 9), (1, 2, 8, 9), {}, "ifsis"))
        assert [[a["id"] for record in stage.shots for a in record.annotations] for stage in stages] == [[8], [9]]

    def test_only_the_incremental_setting_has_arrivals(self):
        assert few.IncrementalFewShot.Protocol is IncrementalProtocol
        assert {few.FewShot.Protocol, few.GeneralisedFewShot.Protocol} == {FewShotProtocol}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1], "learn_base returned list"),
        ({"a": [1, 2]}, "left 'a' as list"),
        ({"a": np.array([object()])}, "left 'a' as ndarray of object"),
        ({"a": np.array(["text"])}, "give numpy arrays of numbers"),
        ({3: np.zeros(2)}, "left 3 as"),
    ],
)
def test_the_state_is_arrays_and_nothing_else(state, message):
    with pytest.raises(InvalidPrediction, match=message):
        check_state(state)


def test_validation_images_come_from_training(data, tmp_path):
    outcome, seen = run("fsis", data, lambda d: Oracle(data.train, d.head_classes), tmp_path, split="val")
    assert outcome.counts["images"] == 132
    assert len({record.image_id for record in seen.base.images}) < 600


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
    assert outcome.counts["shot_records"] == len(seen.tuning.novel_classes) > 0
    assert outcome.scores["nap"] == pytest.approx(1.0)


def nothing(few_shots):
    return SimpleNamespace(predict=lambda images: [[] for _ in images], parameters=None)


def shots_of(few_shots):
    found = {}
    for record in few_shots.shots:
        (annotation,) = record.annotations
        found.setdefault(annotation["category_id"], []).append(annotation["id"])
    return {category: tuple(ids) for category, ids in found.items()}


def test_draws_are_the_groups_of_tfa(data, tmp_path, monkeypatch):
    """Whatever the seed of base training, draw s shows what TFA's script samples with seed s + 1."""
    annotations = data.train.annotations()
    for draw in range(9):
        monkeypatch.setattr(Context, "draw", draw)
        outcome, seen = run("fsis", data, nothing, tmp_path, FewShotProtocol(source="tfa-groups"))
        expected = sample_shots(annotations, sorted(data.categories), draw + 1)
        assert shots_of(seen.tuning) == {c: expected[c].by_k[5] for c in (9, 10, 11, 12)}
        assert outcome.counts["shots_group"] == draw + 1
    fixed = FewShotProtocol(source="tfa-groups", group=4)
    outcome, seen = run("fsis", data, nothing, tmp_path, fixed)
    assert shots_of(seen.tuning)[9] == sample_shots(annotations, sorted(data.categories), 4)[9].by_k[5]
    assert outcome.counts["shots_group"] == 4
    assert "shots_group" not in run("fsis", data, nothing, tmp_path)[0].counts
    monkeypatch.setattr(Context, "draw", 9)
    with pytest.raises(ConfigError, match="TFA sampled groups 1 to 9, not 10: ask for --seeds shots=9"):
        run("fsis", data, nothing, tmp_path, FewShotProtocol(source="tfa-groups"))


def test_draws_are_the_groups_of_files(data, tmp_path, monkeypatch):
    first = [a["id"] for a in data.train.annotations() if a["category_id"] == 9]
    for group in (1, 2):
        (tmp_path / f"coco_fewshot/seed{group}").mkdir(parents=True)
        entries = [{"id": first[group], "category_id": 9}]
        (tmp_path / f"coco_fewshot/seed{group}/1shot.json").write_text(json.dumps({"annotations": entries}))
    there = replace(data, root=tmp_path)
    protocol = FewShotProtocol(shots=1, source="meta-detr-files")
    for draw in (0, 1):
        monkeypatch.setattr(Context, "draw", draw)
        outcome, seen = run("fsis", there, nothing, tmp_path / "run", protocol)
        assert shots_of(seen.tuning) == {9: (first[draw + 1],)}
        assert outcome.counts["shots_group"] == draw + 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group": 1}, "the sampler's shots are no published group: set source=tfa-groups"),
        ({"source": "tfa-groups", "group": 0}, "the groups of tfa-groups begin with 1"),
        ({"source": "tfa-groups", "group": 10}, "TFA sampled groups 1 to 9, not 10"),
        ({"source": "meta-detr-files", "group": 0}, "begin with 1"),
        ({"source": "tfa-files", "group": -1}, "begin with 0"),
    ],
)
def test_groups_that_do_not_exist(settings, message):
    with pytest.raises(ConfigError, match=message):
        FewShotProtocol(**settings)
    assert FewShotProtocol(source="tfa-files", group=0).group_of(3) == 0


def test_training_and_test_data_must_agree_on_their_classes(data, tmp_path):
    other = replace(data, name="other", categories={**data.categories, 9: "horse"})
    task = few.FewShot()
    with pytest.raises(DataError, match=r"category 9 is .* in synth-fsis but horse in other"):
        task.evaluate(Method(Seen(nothing)), {"train": data, "test": other}, FewShotProtocol(), Context(tmp_path))


def test_merged_records_keep_every_shot(data, tmp_path):
    _, seen = run("fsis", data, lambda d: Oracle(data.test, ()), tmp_path, FewShotProtocol(merge_records=True))
    assert sum(len(r.annotations) for r in seen.tuning.shots) == 20
    assert len({r.image_id for r in seen.tuning.shots}) == len(seen.tuning.shots)


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
    with pytest.raises(DataError, match="image 1 is no test picture"):
        few.FewShot().score(path, {"train": data, "test": data}, FewShotProtocol())
