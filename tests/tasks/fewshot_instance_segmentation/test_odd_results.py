"""Files of results in which something is off: the control's scores, or one line that names file and detection."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hotcoco")
pytest.importorskip("PIL")

from PIL import Image

from benchsuite.core.errors import DataError
from benchsuite.datasets.coco import reader as coco
from benchsuite.tasks.fewshot_instance_segmentation import task as few
from benchsuite.tasks.fewshot_instance_segmentation.contract import FewShotProtocol, FewShotSegmenter

SQUARES = {1: (12, 6, 8, 6), 8: (24, 3, 9, 5)}


def mask_of(box: tuple[int, int, int, int]) -> np.ndarray:
    x, y, w, h = box
    mask = np.zeros((20, 40), dtype=bool)
    mask[y : y + h, x : x + w] = True
    return mask


def detections(**changes: Any) -> list[dict[str, Any]]:
    """Return what a perfect model finds of classes 1 (novel) and 8 (base); the first one is changed."""
    found = [
        {
            "image_id": image,
            "category_id": category,
            "score": 0.9,
            "bbox": [float(v) for v in box],
            "segmentation": coco.encode_mask(mask_of(box)),
        }
        for image in (1, 2, 3)
        for category, box in SQUARES.items()
    ]
    found[0] |= changes
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    truth = [
        {k: v for k, v in d.items() if k != "score"}
        | {"id": n, "area": mask_of(SQUARES[d["category_id"]]).sum().item()}
        for n, d in enumerate(detections(), start=1)
    ]
    images = [{"id": i, "height": 20, "width": 40, "file_name": f"{i}.png"} for i in (1, 2, 3)]
    categories = [{"id": 1, "name": "person"}, {"id": 8, "name": "truck"}, {"id": 10, "name": "traffic light"}]
    for part, red in (("train2017", 200), ("val2017", 7)):
        (root / part).mkdir()
        for number in (1, 2, 3):
            Image.new("RGB", (40, 20), (red, 0, 0)).save(root / part / f"{number}.png")
        content = {"images": images, "annotations": truth, "categories": categories}
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    dataset = coco.load_coco(root, 0)
    return {"train": dataset, "test": dataset}


@pytest.fixture
def score(tmp_path, data):
    def of(content: Any, task: str = "FewShot") -> Any:
        file = tmp_path / "results.json"
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content if isinstance(content, str) else json.dumps(content))
        return getattr(few, task)().score(file, data, FewShotProtocol())

    return of


def test_a_perfect_file_and_what_is_not_judged(score):
    outcome = score(detections())
    assert outcome.scores["nap"] == outcome.scores["nap_bbox"] == pytest.approx(1.0)
    assert (outcome.counts["n_detections"], outcome.counts["n_not_judged"]) == (3, 3)
    everything = score(detections(), "GeneralisedFewShot")
    assert everything.scores["ap"] == pytest.approx(1.0)
    assert everything.counts["n_not_judged"] == 0


def lengths_of(box: tuple[int, int, int, int]) -> list[int]:
    return coco.values.run_lengths(coco.encode_mask(mask_of(box)), 20, 40)


@pytest.mark.parametrize("changes", [
    {"image_id": "1"}, {"image_id": 1.0}, {"category_id": "1"}, {"category_id": 1.0}, {"id": 5}, {"area": "x"},
    {"segmentation": {"size": [20, 40], "counts": lengths_of(SQUARES[1])}},
    {"segmentation": {"size": [20.0, 40.0], "counts": [float(n) for n in lengths_of(SQUARES[1])]}},
    {"bbox": list(SQUARES[1])},
])  # fmt: skip
def test_what_means_the_same_scores_the_same(score, changes):
    assert score(detections(**changes)).scores == score(detections()).scores


def test_run_lengths_may_be_lists(score):
    listed = detections()
    for entry in listed:
        entry["segmentation"]["counts"] = lengths_of(SQUARES[entry["category_id"]])
    assert score(listed).scores == score(detections()).scores


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings(score, encoding):
    text = json.dumps(detections(), indent=1).replace("\n", "\r\n")
    assert score(text.encode(encoding)).scores == score(detections()).scores


@pytest.mark.parametrize(("changes", "reason"), [
    ({"image_id": 9}, "no such image"), ({"image_id": True}, "image_id is True"), ({"image_id": "one"}, "whole number"),
    ({"image_id": 1.5}, "whole number"), ({"image_id": 10**400}, "an enormous number"), ({"image_id": None}, "is None"),
    ({"category_id": 0}, "category 0 is none of the"), ({"category_id": 5}, "give their ids, not places in a list"),
    ({"category_id": True}, "category_id is True"), ({"category_id": float("nan")}, "category_id is nan"),
    ({"score": float("nan")}, "score is nan"), ({"score": float("inf")}, "score is inf"),
    ({"score": -0.1}, r"scores lie in \[0, 1\]"), ({"score": 90}, r"scores lie in \[0, 1\]"),
    ({"score": "0.9"}, "finite number"), ({"score": True}, "finite number"), ({"score": None}, "finite number"),
    ({"score": [0.9]}, "finite number"),
    ({"bbox": [1, 1, -3, 2]}, "must not be negative"), ({"bbox": [1, 1, 3]}, "four numbers"),
    ({"bbox": [1, 1, 3, float("nan")]}, "finite number"), ({"bbox": ["1", 1, 3, 3]}, "finite number"),
    ({"bbox": None}, "list of numbers"), ({"bbox": "1234"}, "list of numbers"),
    ({"segmentation": None}, "run-length codes"), ({"segmentation": [[1, 1, 4, 1, 4, 4]]}, "run-length codes"),
    ({"segmentation": {"size": [40, 20], "counts": "x"}}, "no test image of that size"),
    ({"segmentation": {"size": [20, 40], "counts": [1, 2, 3]}}, "run lengths of 6 pixels, its image 800"),
    ({"segmentation": {"size": [20, 40], "counts": [0.5, 799.5]}}, "whole number"),
    ({"segmentation": {"size": [20, 40], "counts": "\x00"}}, "no run-length code"),
    ({"segmentation": {"size": [20, 40], "counts": None}}, "compressed text"),
    ({"segmentation": {"size": [20, 40]}}, "without size or counts"),
    ({"segmentation": {"counts": "x"}}, "without size or counts"),
    ({"segmentation": {"size": "20x40", "counts": "x"}}, "has the size"),
])  # fmt: skip
def test_detections_that_cannot_be(score, changes, reason):
    with pytest.raises(DataError) as caught:
        score(detections(**changes))
    assert re.search(rf"results.json: .*detection 1 \(from 1\): .*{reason}", str(caught.value))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", ["image_id", "category_id", "score", "segmentation", "bbox"])
def test_a_missing_field_is_named(score, key):
    entries = detections()
    del entries[1][key]
    with pytest.raises(DataError, match=rf"detection 2 \(from 1\): it has no {key}"):
        score(entries)


@pytest.mark.parametrize("content", [
    "", "{", "{}", "3", "null", '"x"', "[3]", "[[]]", "[null]", "\ufeff\ufeff[]", b"\xff\xfe\x00", "[" * 100_000,
    json.dumps(detections())[:-5], json.dumps(detections()).replace('"score": 0.9', '"score": 0.9, "score": 0.1', 1),
    json.dumps({"annotations": detections()}),
])  # fmt: skip
def test_files_that_are_none(score, content):
    with pytest.raises(DataError, match="not a COCO results file") as caught:
        score(content)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("reading", "change"), [
    ("two corners", lambda x, y, w, h: [x, y, x + w, y + h]),
    ("centre, width and height", lambda x, y, w, h: [x + w / 2, y + h / 2, w, h]),
    ("y, x, height and width", lambda x, y, w, h: [y, x, h, w]),
    ("fractions of the image", lambda x, y, w, h: [x / 40, y / 20, w / 40, h / 20]),
])  # fmt: skip
def test_boxes_in_another_convention_are_told(score, reading, change):
    with pytest.raises(DataError, match=f"most boxes .* are {reading}.*: give x, y, width, height in pixels"):
        score([d | {"bbox": change(*d["bbox"])} for d in detections()])


def test_boxes_of_a_poor_detector_are_scored(score):
    entries = [d | {"bbox": [v * 0.7 for v in d["bbox"]]} for d in detections()]
    entries[0]["bbox"] = [-900.0, -900.0, 20.0, 20.0]
    outcome = score(entries)
    assert outcome.scores["nap"] == pytest.approx(1.0)
    assert outcome.scores["nap_bbox"] < 0.5


def test_one_detection_twice_is_two(score):
    outcome = score(detections() * 2)
    assert outcome.counts["n_detections"] == 6
    assert 0 < outcome.scores["nap"] <= 1


def test_empty_files_find_nothing(score):
    assert score([]).scores["nap"] == 0.0


@pytest.mark.parametrize("task", ["FewShot", "IncrementalFewShot"])
def test_training_and_test_images_of_one_id_keep_their_pixels(data, tmp_path, task):
    """In ifsis pictures are moved to a folder of their own."""
    seen: dict[str, set[int]] = {}

    class Looking(FewShotSegmenter):
        def learn_base(self, base, ctx):
            return {}

        def tune(self, state, shown, ctx):
            seen["shots"] = {int(record.pixels()[0, 0, 0]) for record in shown.shots}

            def find(images):
                seen.setdefault("test", set()).update(int(image[0, 0, 0]) for image in images)
                return [[] for _ in images]

            return SimpleNamespace(predict=find, parameters=None)

    folder = tmp_path / "run"
    folder.mkdir()
    ctx = SimpleNamespace(
        split="test", log=logging.getLogger("test"), workdir=folder, artifact=lambda name: folder / name,
        seed_for=lambda *_: 5, draw_of=lambda _: 0, phase=lambda _: contextlib.nullcontext(),
        scratch=lambda _: contextlib.nullcontext(ctx), apart=lambda _, function, *rest: function(ctx, *rest),
    )  # fmt: skip
    getattr(few, task)().evaluate(Looking(None), data, FewShotProtocol(shots=1), ctx)
    assert seen == {"shots": {200}, "test": {7}}


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "code", "said"), [
    ("counts-list", 0, "nap: 1\n"), ("score-nan", 2, "score is nan: write a finite number"),
    ("category-index", 2, "category 0 is none of the data"),
])  # fmt: skip
def test_the_command_line_on_odd_results(real_data, shared_cli, name, code, said):
    folder = real_data / "odd_inputs"
    root, file = folder / "coco-control", folder / "coco-predictions" / f"{name}.json"
    done = shared_cli("score", "--task", "fsis", "--dataset", "coco", "--data-root", root, "--predictions", file)
    assert done.code == code, done.err
    assert said in (done.err if code else done.out)
    assert len(done.err.splitlines()) == (1 if code else 0)
