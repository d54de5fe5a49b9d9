"""Average precision against pycocotools on random data, and hand cases."""

from __future__ import annotations

import contextlib
import copy
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("hotcoco")

from benchsuite.datasets.coco.reader import encode_mask
from benchsuite.metrics.instance_segmentation import average_precision, average_precisions

HEIGHT, WIDTH = 120, 160


def rectangle(x, y, w, h):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y : y + h, x : x + w] = True
    return mask


def entry(box, **fields):
    x, y, w, h = box
    area = int(rectangle(*box).sum())
    return {"bbox": [x, y, w, h], "segmentation": encode_mask(rectangle(*box)), "area": area, **fields}


boxes = st.tuples(st.integers(0, 80), st.integers(0, 60), st.integers(1, 75), st.integers(1, 55))
truths = st.lists(st.tuples(boxes, st.integers(1, 4), st.integers(1, 3), st.booleans()), max_size=12)
found = st.lists(
    st.tuples(boxes, st.integers(1, 4), st.integers(1, 3), st.sampled_from([0.1, 0.3, 0.5, 0.5, 0.9])), max_size=30
)


def coco_data(objects, images=4, categories=3):
    return {
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(1, images + 1)],
        "annotations": [
            entry(box, id=n, image_id=image, category_id=category, iscrowd=int(crowd))
            for n, (box, image, category, crowd) in enumerate(objects, start=1)
        ],
        "categories": [{"id": c, "name": str(c)} for c in range(1, categories + 1)],
    }


def results(detections):
    return [entry(box, image_id=image, category_id=category, score=score) for box, image, category, score in detections]


def by_pycocotools(truth, detections, classes, iou_type):
    COCO = pytest.importorskip("pycocotools.coco").COCO  # noqa: N806
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = copy.deepcopy(truth)
        gt.createIndex()
        drop = "segmentation" if iou_type == "bbox" else "bbox"
        kept = [{k: v for k, v in d.items() if k not in (drop, "area")} for d in copy.deepcopy(detections)]
        evaluation = COCOeval(gt, gt.loadRes(kept), iou_type)
        evaluation.params.catIds = list(classes)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
    per_class = [precision[:, :, k] for k in range(len(classes))]
    return [None if v == -1 else v for v in evaluation.stats[:6]], [
        float(p[p > -1].mean()) if (p > -1).any() else None for p in per_class
    ]


@settings(max_examples=60)
@given(truths, found, st.sampled_from([(1,), (2, 3), (1, 2, 3)]), st.sampled_from(["segm", "bbox"]))
def test_equals_pycocotools(objects, detections, classes, iou_type):
    truth, detections = coco_data(objects), results(detections)
    mine = average_precision(truth, detections, classes, iou_type)
    if not any(d["category_id"] in classes for d in detections) or not objects:
        assert mine.ap in (0.0, None)
        return
    stats, per_class = by_pycocotools(truth, detections, classes, iou_type)
    ours = [mine.ap, mine.ap50, mine.ap75, mine.small, mine.medium, mine.large]
    for a, b in zip([*ours, *mine.per_class.values()], [*stats, *per_class], strict=True):
        assert a == b  # to the last digit


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_more_than_a_hundred_detections(iou_type):
    rng = np.random.default_rng(0)
    truth = coco_data([((10, 10, 30, 30), 1, 1, False), ((60, 40, 40, 40), 1, 1, False)])
    detections = [((int(rng.integers(80)), int(rng.integers(60)), 30, 30), 1, 1, 0.5 + 0.001 * i) for i in range(150)]
    detections = results([*detections, ((10, 10, 30, 30), 1, 1, 0.1)])
    mine = average_precision(truth, detections, [1], iou_type)
    stats, _ = by_pycocotools(truth, detections, [1], iou_type)
    assert mine.ap == stats[0]


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_subsets_of_classes_are_scored_in_one_pass(iou_type, monkeypatch):
    import hotcoco

    rng = np.random.default_rng(0)
    corners = [(int(rng.integers(80)), int(rng.integers(60)), 30, 30) for _ in range(60)]
    truth = coco_data([(box, n % 4 + 1, n % 3 + 1, n % 7 == 0) for n, box in enumerate(corners[:20])])
    near = [(x + 2, y, 30, 30) for x, y, *_ in corners]
    detections = results([(box, n % 4 + 1, n % 2 + 1, 0.3 + 0.01 * (n % 37)) for n, box in enumerate(near)])
    subsets = [[3], [2, 1], [1, 2, 3], []]
    alone = [average_precision(truth, detections, subset, iou_type) for subset in subsets]
    passes, engine = [], hotcoco.COCOeval
    monkeypatch.setattr(hotcoco, "COCOeval", lambda *given: passes.append(given) or engine(*given))
    assert average_precisions(truth, detections, subsets, iou_type) == alone
    assert len(passes) == 1
    assert (alone[0].ap, alone[3].ap) == (0.0, None)  # nothing of class 3 was found
    assert alone[1].ap > alone[2].ap > 0
    stats, per_class = by_pycocotools(truth, detections, [1, 2, 3], iou_type)
    assert [alone[2].ap, *alone[2].per_class.values()] == [stats[0], *per_class]


def test_a_true_detection_ranked_151st_does_not_count():
    truth = coco_data([((10, 10, 30, 30), 1, 1, False)])
    false = [((100, 80, 20, 20), 1, 1, 0.9)] * 150
    assert average_precision(truth, results([*false, ((10, 10, 30, 30), 1, 1, 0.1)]), [1], "segm").ap == 0.0


def test_perfect_and_nothing():
    truth = coco_data([((10, 10, 30, 30), 1, 1, False), ((10, 10, 50, 50), 2, 3, False)])
    perfect = results([((10, 10, 30, 30), 1, 1, 0.9), ((10, 10, 50, 50), 2, 3, 0.9)])
    assert average_precision(truth, perfect, [1, 3], "segm").ap == pytest.approx(1.0)
    nothing = average_precision(truth, [], [1, 2, 3], "segm")
    assert (nothing.ap, nothing.small, nothing.medium, nothing.large) == (0.0, 0.0, 0.0, None)
    assert nothing.per_class == {1: 0.0, 2: None, 3: 0.0}


def test_crowds_forgive_and_alone_are_undefined():
    truth = coco_data([((10, 10, 60, 60), 1, 1, True), ((100, 70, 40, 40), 1, 1, False)])
    detections = results([((12, 12, 20, 20), 1, 1, 0.95), ((100, 70, 40, 40), 1, 1, 0.9)])
    assert average_precision(truth, detections, [1], "segm").ap == pytest.approx(1.0)
    only_crowd = coco_data([((10, 10, 60, 60), 1, 1, True)])
    assert average_precision(only_crowd, detections, [1], "segm").ap is None


def test_detections_are_left_as_they_were():
    truth = coco_data([((10, 10, 30, 30), 1, 1, False)])
    detections = results([((10, 10, 30, 30), 1, 1, 0.9)])
    before = copy.deepcopy((truth, detections))
    for iou_type in ("segm", "bbox"):
        average_precision(truth, detections, [1], iou_type)
    assert (truth, detections) == before


SIZES = {"small": (8, 8, 31, 32), "medium": (8, 8, 40, 40), "large": (8, 8, 110, 100)}


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("size", SIZES)
def test_each_object_counts_in_its_range_of_areas(size, iou_type):
    truth = coco_data([(SIZES[size], 1, 1, False)])
    for detections, value in ((results([(SIZES[size], 1, 1, 0.9)]), 1.0), ([], 0.0)):
        found = average_precision(truth, detections, [1], iou_type)
        ranges = {name: getattr(found, name) for name in SIZES}
        assert ranges == {name: pytest.approx(value) if name == size else None for name in SIZES}
        assert found.ap == pytest.approx(value)


def test_the_size_of_a_detection_is_that_of_its_mask():
    ring = rectangle(10, 10, 60, 60) & ~rectangle(15, 15, 50, 50)  # 1100 pixels in a box of 3600
    small = {**entry((100, 60, 20, 20)), "image_id": 1, "category_id": 1}
    truth = coco_data([((100, 60, 20, 20), 1, 1, False), ((10, 10, 60, 60), 2, 1, False)])
    sliver = rectangle(10, 10, 60, 60) & (np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) % 8 == 4)
    false = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 60, 60], "score": 0.95}
    for mask, expected in ((sliver, 0.5), (ring, 1.0)):
        detections = [{**false, "segmentation": encode_mask(mask)}, {**small, "score": 0.9}]
        assert average_precision(truth, detections, [1], "segm").small == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_the_size_of_an_object_is_its_area(iou_type):
    """As the file gives it: a sparse object in a large box is small."""
    truth = coco_data([((10, 10, 60, 60), 1, 1, False)])
    truth["annotations"][0]["area"] = 900
    found = average_precision(truth, results([((10, 10, 60, 60), 1, 1, 0.9)]), [1], iou_type)
    assert (found.small, found.medium) == (pytest.approx(1.0), None)


def test_thresholds():
    truth = coco_data([((10, 10, 50, 50), 1, 1, False)])
    for width, hits in ((49, 10), (44, 8), (38, 6), (35, 5), (26, 1)):  # IoU .98, .88, .76, .70, .52
        found = average_precision(truth, results([((10, 10, width, 50), 1, 1, 0.9)]), [1], "segm")
        assert found.ap == pytest.approx(hits / 10)
        assert (found.ap50, found.ap75) == pytest.approx((1.0, float(width > 37)))


def test_only_the_classes_asked_for_count():
    truth = coco_data([((10, 10, 30, 30), 1, 1, False), ((10, 10, 30, 30), 2, 2, False), ((10, 10, 9, 9), 1, 3, True)])
    detections = results([((10, 10, 30, 30), 1, 1, 0.9), ((50, 50, 30, 30), 2, 2, 0.9)])
    for classes, expected in (([1], 1.0), ([2], 0.0), ([1, 2], 0.5), ([1, 2, 3], 0.5)):
        found = average_precision(truth, detections, classes, "segm")
        assert found.ap == pytest.approx(expected)
        assert list(found.per_class) == classes
    assert found.per_class == {1: pytest.approx(1.0), 2: 0.0, 3: None}


def test_crowds_alone_are_nothing_to_find():
    crowd = coco_data([((10, 10, 30, 30), 1, 1, True)])
    found = average_precision(crowd, [], [1], "segm")
    assert (found.ap, found.small, found.per_class[1]) == (None, None, None)


def test_a_hundred_detections_of_an_image_and_class_count():
    truth = coco_data([((10, 10, 30, 30), 1, 1, False)])
    for before, expected in ((99, 1 / 100), (100, 0.0)):
        false = [((100, 80, 20, 20), 1, 1, 0.9)] * before
        found = average_precision(truth, results([*false, ((10, 10, 30, 30), 1, 1, 0.1)]), [1], "segm")
        assert found.ap == pytest.approx(expected, abs=1e-6)
