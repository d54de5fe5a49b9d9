"""Predictions to scores: against pycocotools and plain loops; and what a method may not return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("hotcoco")

import torch
from skeletons.recognition import Corner, scenes
from torch import nn

from benchsuite.core.errors import InvalidPrediction
from benchsuite.datasets.coco.reader import CocoDataset, ImageSet, Record
from benchsuite.datasets.shapes.generated import ShapeScenes
from benchsuite.tasks.visual_recognition.contract import Found, Trained, TrainedDetector
from benchsuite.tasks.visual_recognition.judge import (
    checked,
    judge_boxes,
    judge_classes,
    judge_maps,
    predict_boxes,
    predict_classes,
    predict_map,
)
from benchsuite.tasks.visual_recognition.sources import Annotated, annotated


class Constant(nn.Module):
    """Returns what it was given, for as many pictures as asked."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.value[: len(x)]


def test_classes_are_ranked_batch_by_batch() -> None:
    images = torch.arange(120.0).reshape(120, 1, 1, 1).expand(120, 3, 2, 2)

    class Remainder(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -(torch.arange(7)[None] - x[:, 0, 0, :1] % 7).abs()

    best = predict_classes(Trained(Remainder()), 120, 7, lambda places: images[list(places)], "cpu")
    assert best.shape == (120, 5)
    assert np.array_equal(best[:, 0], np.arange(120) % 7)
    assert best[3].tolist() == [3, 2, 4, 1, 5]


@pytest.mark.parametrize(
    ("logits", "said"),
    [
        (torch.zeros(3, 4), "needs a tensor"),
        (torch.zeros(3), "needs a tensor"),
        (torch.full((3, 5), float("nan")), "did the training diverge"),
        (torch.tensor([[0, 1, 2, 3, float("inf")]] * 3), "did the training diverge"),
        (torch.zeros(3, 5, dtype=torch.int64), "must be finite floats"),
    ],
)
def test_logits_that_cannot_be_ranked_are_refused(logits: torch.Tensor, said: str) -> None:
    with pytest.raises(InvalidPrediction, match=said):
        predict_classes(Trained(Constant(logits)), 3, 5, lambda places: torch.zeros(len(places), 3, 2, 2), "cpu")


def test_classes_are_judged() -> None:
    names = [f"c{number}" for number in range(6)]
    best = np.array([[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [5, 4, 3, 2, 1], [2, 3, 4, 5, 1]])
    found = judge_classes(best, np.array([0, 0, 0, 2]), names)
    assert found.scores == {"top1": 0.5, "top5": 0.75}
    assert found.tables["classes"] == [
        {"class": "c0", "pictures": 3, "top1": pytest.approx(1 / 3)},
        {"class": "c2", "pictures": 1, "top1": 1.0},
    ]
    assert found.counts["right"] == 2


def test_top5_of_five_classes_says_nothing() -> None:
    found = judge_classes(np.array([[0, 1]]), np.array([1]), ["a", "b"])
    assert found.scores == {"top1": 0.0, "top5": None}
    assert set(found.undefined) == {"top5"}


def test_maps_are_resized_to_the_input_and_then_to_the_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 5, 7, generator=generator)
    found = predict_map(Trained(Constant(logits)), torch.zeros(1, 3, 20, 28), 3, 33, 41, "cpu")
    at_input = nn.functional.interpolate(logits, size=(20, 28), mode="bilinear", align_corners=False)
    expected = nn.functional.interpolate(at_input, size=(33, 41), mode="bilinear", align_corners=False)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected[0].argmax(0).numpy())
    assert not np.array_equal(
        found, nn.functional.interpolate(logits, size=(33, 41), mode="bilinear")[0].argmax(0).numpy()
    )


@pytest.mark.parametrize("logits", [torch.zeros(1, 4, 5, 5), torch.zeros(3, 5, 5), torch.zeros(2, 3, 5, 5)])
def test_maps_of_another_shape_are_refused(logits: torch.Tensor) -> None:
    class Whole(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return logits

    with pytest.raises(InvalidPrediction, match="needs a tensor"):
        predict_map(Trained(Whole()), torch.zeros(1, 3, 9, 9), 3, 9, 9, "cpu")


def test_maps_are_judged_over_the_whole_set() -> None:
    pairs = [(np.array([[0, 1]]), np.array([[0, 0]])), (np.array([[1, 1]]), np.array([[1, 255]]))]
    found = judge_maps(iter(pairs), ["a", "b", "c"])
    assert found.scores == {"miou": 0.5, "macc": 0.75, "aacc": pytest.approx(2 / 3)}
    assert found.tables["classes"][2] == {"class": "c", "iou": None, "accuracy": None}
    assert found.counts == {"test_pictures": 2, "classes": 3, "classes_with_iou": 2, "pixels": 3}


def test_a_set_without_labels_has_no_score() -> None:
    found = judge_maps(iter([(np.array([[0]]), np.array([[255]]))]), ["a"])
    assert found.scores == {"miou": None, "macc": None, "aacc": None}
    assert set(found.undefined) == {"miou", "macc", "aacc"}


@pytest.fixture(scope="module")
def data() -> ShapeScenes:
    return scenes(test=12)


@pytest.fixture(scope="module")
def judged_part(data: ShapeScenes) -> Annotated:
    found: Annotated = annotated(data).test
    return found


def _detections(test: Annotated, categories: tuple[int, ...], seed: int, count: int) -> list[dict[str, Any]]:
    """Return jittered true boxes and some of nothing."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        place = int(rng.integers(len(test.ids)))
        answers = test.answers[place]
        one = int(rng.integers(len(answers.labels)))
        x, y, w, h = answers.boxes[one] + rng.normal(0, 2.5, size=4)
        label = int(answers.labels[one]) if rng.random() < 0.8 else int(rng.integers(len(categories)))
        found.append(
            {
                "image_id": test.ids[place],
                "category_id": categories[label],
                "bbox": [float(x), float(y), float(max(w, 1)), float(max(h, 1))],
                "score": float(np.round(rng.random(), 1)),
            }
        )
    return found


@pytest.mark.parametrize("seed", range(3))
def test_boxes_are_judged_as_pycocotools_judges_them(data: ShapeScenes, judged_part: Annotated, seed: int) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    source = annotated(data)
    detections = _detections(judged_part, source.categories, seed, 120)
    found = judge_boxes(detections, judged_part, source.categories, source.classes)
    truth = coco.COCO()
    images = [{"id": i, "height": h, "width": w} for i, (h, w) in zip(judged_part.ids, judged_part.sizes, strict=True)]
    annotations: list[dict[str, Any]] = []
    for place, labels in enumerate(data.test.labels):
        for box, label, area in zip(data.test.boxes[place], labels, data.test.areas[place], strict=True):
            x1, y1, x2, y2 = box.tolist()
            annotations.append(
                {"id": len(annotations) + 1, "image_id": place + 1, "category_id": int(label) + 1, "iscrowd": 0}
                | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": int(area)}
            )
    truth.dataset = {"images": images, "annotations": annotations, "categories": [{"id": c} for c in range(1, 11)]}
    truth.createIndex()
    evaluation = cocoeval.COCOeval(truth, truth.loadRes(detections), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    for name, value in zip(("ap", "ap50", "ap75", "ap_small"), evaluation.stats[:4], strict=True):
        assert found.scores[name] == pytest.approx(value, abs=1e-9)
    assert found.scores["ap_large"] is None
    assert "ap_large" in found.undefined


class Listed(TrainedDetector):
    """Finds what it was given."""

    found: list[Found]

    def detect(self, images: torch.Tensor, sizes: np.ndarray) -> list[Found]:
        return self.found


def _found(boxes: Any, scores: Any, labels: Any) -> Found:
    return Found(np.array(boxes, dtype=np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, int))


def _predict(test: Annotated, found: list[Found], scale: tuple[float, float] = (1.0, 1.0)) -> list[dict[str, Any]]:
    model = Listed(nn.Identity())
    model.found = found
    one = test.part([0])
    prepared = lambda places: (torch.zeros(1, 3, 8, 8), np.array([[8, 8]]), np.array([scale]))  # noqa: E731
    return predict_boxes(model, one, tuple(range(1, 11)), prepared, 1, "cpu")


def test_boxes_are_scaled_back_and_cut_at_the_edges(judged_part: Annotated) -> None:
    (one,) = _predict(judged_part, [_found([[-4, 2, 20, 300]], [0.5], [3])], scale=(0.5, 2.0))
    assert one["bbox"] == [0.0, 4.0, 10.0, 92.0]
    assert (one["category_id"], one["score"], one["image_id"]) == (4, 0.5, judged_part.ids[0])


def test_the_best_hundred_of_a_picture_are_kept(judged_part: Annotated) -> None:
    scores = np.linspace(0, 1, 130)
    kept = _predict(judged_part, [_found([[0, 0, 5, 5]] * 130, scores, [0] * 130)])
    assert len(kept) == 100
    assert min(one["score"] for one in kept) == pytest.approx(scores[30])


def test_a_picture_without_detections(judged_part: Annotated) -> None:
    assert _predict(judged_part, [_found([], [], [])]) == []
    source = annotated(scenes(test=3))
    found = judge_boxes([], source.test, source.categories, source.classes)
    assert found.scores["ap"] == 0.0


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], "0 lists for 1 pictures"),
        ([_found([[0, 0, 1, 1]], [0.5, 0.5], [1])], "do not fit"),
        ([_found([[0, 0, 1, 1]], [1.5], [1])], r"scores must lie in \[0, 1\]"),
        ([_found([[0, 0, 1, 1]], [float("nan")], [1])], r"scores must lie in \[0, 1\]"),
        ([_found([[0, 0, 1, 1]], [0.5], [10])], "classes from 0 to 9"),
        ([_found([[0, 0, 1, 1]], [0.5], [-1])], "classes from 0 to 9"),
        ([_found([[3, 0, 1, 1]], [0.5], [1])], "x1 <= x2"),
        ([_found([[0, 0, float("inf"), 1]], [0.5], [1])], "must be finite"),
        ([Found(np.zeros((1, 4), int), np.zeros(1, np.float32), np.zeros(1, int))], "boxes are int64"),
    ],
)
def test_detections_that_are_none_are_refused(judged_part: Annotated, found: list[Found], said: str) -> None:
    with pytest.raises(InvalidPrediction, match=said):
        _predict(judged_part, found)


def test_what_a_method_returns_is_checked() -> None:
    network = nn.Linear(1, 1).train()
    assert checked(Trained(network), Trained).network is network
    assert not network.training
    for wrong, kind in ((network, Trained), (Trained(lambda x: x), Trained), (Trained(network), TrainedDetector)):
        with pytest.raises(InvalidPrediction, match="needs"):
            checked(wrong, kind)
    checked(Corner(network), TrainedDetector)


def _coco(*annotations: dict[str, Any]) -> Any:
    """Return a data set of one picture of 50 x 40 pixels with one class."""
    images = ImageSet([Record(1, 40, 50, "1.jpg", annotations)], "s")
    return annotated(CocoDataset("coco", {7: "thing"}, images, images))


def _annotation(number: int, box: list[float], area: float, crowd: int = 0) -> dict[str, Any]:
    return {"id": number, "image_id": 1, "category_id": 7, "bbox": box, "area": area, "iscrowd": crowd}


def _detection(box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 7, "bbox": box, "score": score}


def test_crowds_count_neither_as_right_nor_as_wrong() -> None:
    source = _coco(_annotation(1, [30, 20, 10, 10], 100.0), _annotation(2, [0, 0, 20, 20], 400.0, crowd=1))
    detections = [_detection([2, 2, 5, 5], 0.9), _detection([30, 20, 10, 10], 0.5)]
    found = judge_boxes(detections, source.test, source.categories, source.classes)
    assert found.scores["ap"] == pytest.approx(1.0)


def test_objects_are_sized_by_their_masks() -> None:
    source = _coco(_annotation(1, [0, 0, 40, 38], 900.0))
    found = judge_boxes([_detection([0, 0, 40, 38], 0.9)], source.test, source.categories, source.classes)
    assert found.scores["ap_small"] == pytest.approx(1.0)
    assert found.scores["ap_medium"] is None
