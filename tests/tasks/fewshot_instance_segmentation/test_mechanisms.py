"""What the protocol does, step by step: classes that are dropped, shots of a record, subsets that are judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("hotcoco")
pytest.importorskip("PIL")

from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.datasets.coco.reader import CocoDataset, ImageSet, Record, encode_mask
from benchsuite.tasks.fewshot_instance_segmentation import task as few
from benchsuite.tasks.fewshot_instance_segmentation.contract import Detection, FewShotProtocol, Segmenter
from benchsuite.tasks.fewshot_instance_segmentation.judge import named, predict
from benchsuite.tasks.fewshot_instance_segmentation.shots import draw_shots, sample_shots, shot_records, split_classes

TASKS = {"fsis": few.FewShot, "gfsis": few.GeneralisedFewShot, "ifsis": few.IncrementalFewShot}
SIDE = 128


def square(x, y, side):
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[y : y + side, x : x + side] = True
    return mask


def annotation(number, image, category, mask=None, **fields):
    mask = square(8, 8, 20) if mask is None else mask
    rows, columns = np.nonzero(mask)
    box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
    shape = {"bbox": box, "area": int(mask.sum()), "segmentation": encode_mask(mask)}
    return {"id": number, "image_id": image, "category_id": category, "iscrowd": 0, **shape, **fields}


def images_of(classes_by_image, first=1):
    """Return an image for each list of classes."""
    records, number = [], 1000 * first
    for image, classes in enumerate(classes_by_image, start=first):
        annotations = tuple(annotation(number + n, image, c) for n, c in enumerate(classes))
        number += len(annotations)
        records.append(Record(image, SIDE, SIDE, "none.png", annotations))
    return ImageSet(records, "some")


def dataset_of(train, test=None, classes=(1, 2, 8, 9), novel=(8, 9)):
    names = {c: f"class {c}" for c in classes}
    return CocoDataset("some", names, train, train if test is None else test, novel)


class TestDroppedClasses:
    """Class 9 has one image with an object, class 2 has two: too few for three shots."""

    data = dataset_of(images_of([[1, 8]] * 6 + [[2, 1]] * 2 + [[9]]))

    def drawn(self, setting, **protocol):
        return TASKS[setting]().few_shot_data(self.data, self.data.train, FewShotProtocol(shots=3, **protocol), 0)

    @pytest.mark.parametrize(
        ("setting", "head", "left_out"),
        [("fsis", (8,), ["class 9"]), ("gfsis", (1, 8), ["class 2", "class 9"]), ("ifsis", (1, 2, 8), ["class 9"])],
    )
    def test_classes_without_enough_shots_are_in_neither_head_nor_shots(self, setting, head, left_out):
        base, shots, notes = self.drawn(setting)
        assert [note.partition(" is left out: ")[0] for note in notes] == left_out
        assert all("shots need" in note for note in notes)
        assert base.head_classes == shots.head_classes == head
        assert base.novel_classes == shots.novel_classes == (8,)
        assert base.base_classes == shots.base_classes == (1, 2)
        with_shots = {a["category_id"] for record in shots.shots for a in record.annotations}
        assert with_shots == set(head if setting == "gfsis" else (8,))
        assert len(shots.shots) == 3 * len(with_shots)

    def test_a_protocol_may_refuse_to_drop(self):
        with pytest.raises(DataError, match="1 classes cannot give 3 shots; class 9 is left out: 1 images"):
            self.drawn("fsis", infeasible="refuse")
        assert self.drawn("fsis", infeasible="drop")[2]

    def test_dropped_base_classes_are_still_learned_from_base_images(self):
        base, _, _ = self.drawn("gfsis")
        assert {a["category_id"] for record in base.images for a in record.annotations} == {1, 2}


class TestSplit:
    def test_the_data_say_which_classes_are_novel_or_cocos_twenty_are(self):
        train = images_of([[1, 2], [8, 9]])
        assert split_classes(dataset_of(train), train) == ((1, 2), (8, 9))
        assert split_classes(dataset_of(train, novel=None), train) == ((8,), (1, 2, 9))

    def test_classes_of_crowds_alone_do_not_exist(self):
        (record,) = images_of([[1, 8]])
        crowd = annotation(5, 1, 9, iscrowd=1)
        train = ImageSet([replace(record, annotations=(*record.annotations, crowd))], "some")
        assert split_classes(dataset_of(train), train) == ((1,), (8,))


class TestShots:
    train = images_of([[c, c] if n % 3 == 0 else [c] for c in (1, 2, 8, 9) for n in range(9)])
    data = dataset_of(train)

    def test_all_settings_share_the_shots_of_a_class(self):
        protocol = FewShotProtocol(shots=3)
        some, _ = draw_shots(self.data, self.train, [8, 9], protocol, 4)
        every, _ = draw_shots(self.data, self.train, [1, 2, 8, 9], protocol, 4)
        assert some == {c: every[c] for c in (8, 9)}
        assert draw_shots(self.data, self.train, [8, 9], protocol, 5)[0] != some

    def test_they_are_drawn_in_the_order_of_the_file(self):
        protocol = FewShotProtocol(shots=3)
        annotations = [a for record in self.train for a in record.annotations]
        shuffled = [annotations[i] for i in np.random.default_rng(0).permutation(len(annotations))]
        train = ImageSet(self.train, "some", {a["id"]: place for place, a in enumerate(shuffled)})
        expected = {c: s.by_k[3] for c, s in sample_shots(shuffled, [1, 2, 8, 9], 4).items()}
        assert expected != {c: s.by_k[3] for c, s in sample_shots(annotations, [1, 2, 8, 9], 4).items()}
        for images in (train, train.part(list(train)[::-1])):
            assert draw_shots(self.data, images, [1, 2, 8, 9], protocol, 4)[0] == expected

    def test_fewer_shots_are_the_first_of_more(self):
        annotations = [a for record in self.train for a in record.annotations]
        for shots in sample_shots(annotations, [1, 2, 8, 9], 1, (1, 2, 3, 5)).values():
            assert [len(shots.by_k[k]) for k in (1, 2, 3, 5)] == [1, 2, 3, 5]
            assert all(shots.by_k[5][:k] == shots.by_k[k] for k in (1, 2, 3))
            images = {a["id"]: a["image_id"] for a in annotations}
            whole = {image: sum(a["image_id"] == image for a in annotations) for image in images.values()}
            taken = [images[number] for number in shots.by_k[5]]
            assert all(taken.count(image) == whole[image] for image in taken)

    def test_a_record_shows_one_shot_and_everything_else_is_background(self):
        train = images_of([[8, 8, 1]])
        records = shot_records(train, {8: [1000, 1001]}, merge=False)
        assert [[a["id"] for a in record.annotations] for record in records] == [[1000], [1001]]
        merged = shot_records(train, {8: [1000, 1001]}, merge=True)
        assert [[a["id"] for a in record.annotations] for record in merged] == [[1000, 1001]]


class TestJudge:
    """Image 1 shows a small novel object (8) and a medium base object (1); image 2 shows nothing."""

    masks = {8: square(8, 8, 20), 1: square(60, 60, 50)}
    test = ImageSet(
        [
            Record(
                1, SIDE, SIDE, "none.png", tuple(annotation(n, 1, c, m) for n, (c, m) in enumerate(masks.items(), 1))
            ),
            Record(2, SIDE, SIDE, "none.png"),
        ],
        "some",
    )
    data = dataset_of(images_of([[1, 8]] * 6), test, (1, 8), (8,))

    def scores(self, *detections, setting="gfsis"):
        _, shots, _ = TASKS[setting]().few_shot_data(self.data, self.data.train, FewShotProtocol(shots=3), 0)
        results = [
            {"image_id": image, "category_id": category, "score": score, "segmentation": encode_mask(mask), "bbox": box}
            for image, category, score, mask, box in detections
        ]
        return TASKS[setting]().judge(shots, self.test, results)

    def right(self, category, image=1, score=0.9):
        found = annotation(1, 1, category, self.masks[category])
        return image, category, score, self.masks[category], found["bbox"]

    def test_each_metric_is_of_its_own_classes(self):
        scores = self.scores(self.right(8)).scores
        assert (scores["nap"], scores["bap"], scores["ap"]) == pytest.approx((1.0, 0.0, 0.5))
        scores = self.scores(self.right(1)).scores
        assert (scores["nap"], scores["bap"], scores["ap"]) == pytest.approx((0.0, 1.0, 0.5))
        assert self.scores(self.right(8), setting="fsis").scores["nap"] == pytest.approx(1.0)

    def test_detections_in_images_without_an_object_are_false(self):
        alone, beside = self.scores(self.right(8)), self.scores(self.right(8), self.right(8, image=2, score=0.95))
        assert alone.counts["images"] == beside.counts["images"] == 2
        assert beside.scores["nap"] == pytest.approx(0.5)

    def test_masks_and_boxes_are_judged_apart(self):
        image, category, score, mask, box = self.right(8)
        scores = self.scores((image, category, score, square(100, 100, 9), box)).scores
        assert (scores["nap"], scores["nap_bbox"]) == pytest.approx((0.0, 1.0))
        scores = self.scores((image, category, score, mask, [90.0, 90.0, 9.0, 9.0])).scores
        assert (scores["nap"], scores["nap_bbox"]) == pytest.approx((1.0, 0.0))

    def test_thresholds_and_sizes_have_their_own_names(self):
        part = np.zeros((SIDE, SIDE), dtype=bool)
        part[8:20, 8:28] = True  # 12 of 20 rows: an IoU of .6
        outcome = self.scores((1, 8, 0.9, part, [8, 8, 20, 12]))
        for suffix in ("", "_bbox"):
            found = [outcome.scores[f"nap{at}{suffix}"] for at in ("50", "75", "")]
            assert found == pytest.approx([1.0, 0.0, 0.3])
        assert outcome.scores["nap_small"] == pytest.approx(0.3)
        assert outcome.scores["nap_medium"] is outcome.scores["nap_large"] is None
        assert outcome.undefined.keys() >= {"nap_medium", "nap_large"}
        rows = {row["class"]: row for row in outcome.tables["classes"]}
        assert rows["class 8"]["novel"] is True
        assert rows["class 8"]["ap"] == pytest.approx(0.3)
        assert rows["class 1"]["ap"] == 0.0

    def test_sizes_are_named_as_they_are(self):
        from benchsuite.metrics.instance_segmentation import AveragePrecision

        found = named("n", "", AveragePrecision(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, {}))
        values = {"nap": 0.1, "nap50": 0.2, "nap75": 0.3, "nap_small": 0.4, "nap_medium": 0.5, "nap_large": 0.6}
        assert found == values
        of_boxes = named("b", "_bbox", AveragePrecision(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, {}))
        assert of_boxes == {name.replace("nap", "bap") + "_bbox": value for name, value in found.items()}

    def test_sizes_are_told_for_boxes_and_for_every_subset(self):
        """The novel object is small, the base object medium: of that the box is right and the mask is not."""
        image, category, score, _, box = self.right(1)
        scores = self.scores(self.right(8), (image, category, score, square(100, 100, 9), box)).scores
        expected = {"nap_small": 1.0, "nap_small_bbox": 1.0, "bap_medium": 0.0, "bap_medium_bbox": 1.0}
        expected |= {"ap_small": 1.0, "ap_small_bbox": 1.0, "ap_medium": 0.0, "ap_medium_bbox": 1.0}
        sizes = {name: value for name, value in scores.items() if "ap_" in name and "ap_bbox" not in name}
        assert len(sizes) == 18
        for name, value in sizes.items():
            assert value == (pytest.approx(expected[name]) if name in expected else None), name


class Same(Segmenter):
    def __init__(self, detections):
        self.detections = detections

    def predict(self, images):
        return [self.detections for _ in images]


class TestPredictions:
    def detection(self, score=0.5):
        return Detection(8, score, square(0, 0, 5), (0.0, 0.0, 5.0, 5.0))

    @pytest.fixture
    def images(self, tmp_path):
        from PIL import Image

        Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "1.png")
        return ImageSet([Record(1, SIDE, SIDE, str(tmp_path / "1.png"))], "some")

    def test_a_hundred_detections_of_a_picture_count_and_no_more(self, images):
        assert len(predict(Same([self.detection()] * 100), images, (8,))) == 100
        with pytest.raises(InvalidPrediction, match="101 detections in an image: at most 100 count"):
            predict(Same([self.detection()] * 101), images, (8,))

    def test_the_best_come_first_and_ties_keep_their_order(self, images):
        given = [self.detection(score) for score in (0.2, 0.9, 0.5)]
        assert [r["score"] for r in predict(Same(given), images, (8,))] == [0.9, 0.5, 0.2]
