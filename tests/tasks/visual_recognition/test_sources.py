"""Data sets of every type as the tasks take them: parts, names, answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")
pytest.importorskip("hotcoco")

from skeletons.recognition import scenes, shapes

from benchsuite.core.errors import Incompatible
from benchsuite.datasets.coco.reader import CocoDataset, ImageSet, Record
from benchsuite.datasets.pictures import held_out
from benchsuite.datasets.small_images.reader import SmallImages, load_digits
from benchsuite.tasks.visual_recognition.sources import annotated, labelled, mapped, relabelled


@pytest.fixture(scope="module")
def digits() -> SmallImages:
    return load_digits(None, 0)


def test_a_fifth_of_every_class_validates() -> None:
    labels = np.repeat([0, 1, 2, 3], [50, 10, 3, 2])
    chosen = held_out(len(labels), labels)
    assert chosen == sorted(set(chosen))
    assert np.bincount(labels[chosen], minlength=4).tolist() == [10, 2, 1, 0]
    assert held_out(len(labels), labels) == chosen
    assert len(held_out(37, None)) == 7


@pytest.mark.parametrize("kind", ["labelled", "mapped", "annotated"])
def test_validation_pictures_are_training_pictures_that_nobody_learns_from(kind: str) -> None:
    found = {"labelled": labelled, "mapped": mapped, "annotated": annotated}[kind]
    source = found(shapes())
    assert source.parts("test") == (source.train, source.test)
    train, judged = source.parts("val")
    assert set(train.pictures.names) | set(judged.pictures.names) == set(source.train.pictures.names)
    assert not set(train.pictures.names) & set(judged.pictures.names)
    assert len(judged.pictures) == 10
    place = source.train.pictures.names.index(judged.pictures.names[3])
    assert np.array_equal(judged.pictures[3], source.train.pictures[place])
    if kind == "labelled":
        assert judged.labels[3] == source.train.labels[place]
    elif kind == "mapped":
        assert np.array_equal(judged.label_map(3), source.train.label_map(place))
    else:
        assert judged.answers[3] is source.train.answers[place]
        assert judged.ids[3] == source.train.ids[place]
    assert train.pictures.digest != source.train.pictures.digest


def test_grey_is_repeated_and_normalised_by_its_own_mean(digits: SmallImages) -> None:
    source = labelled(digits)
    pixels = source.train.pictures[5]
    assert pixels.shape == (16, 16, 3)
    assert (pixels == digits.train_images[5, 0][..., None]).all()
    assert source.mean == digits.mean * 3
    assert np.array_equal(source.test.labels, digits.test_labels)
    assert source.classes == tuple("0123456789")


def test_colours_stay_in_order() -> None:
    images = np.zeros((2, 3, 4, 4), dtype=np.uint8)
    images[:, 1] = 9
    labels = np.array([0, 1])
    data = SmallImages("x", images, labels, images, labels, (0.1, 0.2, 0.3), (1.0, 1.0, 2.0))
    source = labelled(data)
    assert source.train.pictures[0][0, 0].tolist() == [0, 9, 0]
    assert (source.mean, source.std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 2.0))


def test_pictures_of_several_shapes_cannot_be_classified() -> None:
    with pytest.raises(Incompatible, match="show several objects or none: classify those of 'shapes'"):
        labelled(scenes())


def test_the_ground_is_the_first_class_of_generated_label_maps() -> None:
    data = scenes()
    source = mapped(data)
    assert source.classes == ("background", *data.classes)
    assert np.array_equal(source.test.label_map(2), data.test.label_maps[2])


def test_generated_objects_are_those_of_the_scene() -> None:
    data = scenes()
    source = annotated(data)
    answers = source.train.answers[0]
    x, y, w, h = answers.boxes[0]
    assert [x, y, x + w, y + h] == data.train.boxes[0][0].tolist()
    assert np.array_equal(answers.objects().boxes, data.train.boxes[0])
    assert source.categories == tuple(range(1, 11))
    assert source.train.sizes[0] == (96, 96)


def _record(number: int, *annotations: dict[str, Any]) -> Record:
    return Record(number, 40, 50, f"{number}.jpg", annotations)


def _annotation(number: int, category: int, box: list[float], area: float = 50.0, crowd: int = 0) -> dict[str, Any]:
    return {"id": number, "image_id": 1, "category_id": category, "bbox": box, "area": area, "iscrowd": crowd}


def test_cocos_categories_become_places_and_back() -> None:
    images = ImageSet(
        [_record(4, _annotation(1, 90, [1, 2, 10, 5]), _annotation(2, 3, [0, 0, 4, 4], crowd=1)), _record(9)], "s"
    )
    source = annotated(CocoDataset("coco", {3: "car", 90: "brush"}, images, images))
    assert (source.classes, source.categories) == (("car", "brush"), (3, 90))
    answers = source.train.answers[0]
    assert answers.labels.tolist() == [1, 0]
    assert answers.crowd.tolist() == [False, True]
    assert answers.objects().boxes.tolist() == [[1, 2, 11, 7], [0, 0, 4, 4]]
    assert source.train.ids == (4, 9)
    assert source.train.answers[1].boxes.shape == (0, 4)
    assert source.train.answers[1].objects().boxes.shape == (0, 4)


def test_what_is_narrower_than_a_pixel_is_judged_but_not_learned() -> None:
    images = ImageSet(
        [
            _record(
                1,
                _annotation(1, 1, [0, 0, 0.5, 9]),
                _annotation(2, 1, [0, 0, 9, 9], area=0.0),
                _annotation(3, 1, [1, 1, 9, 9]),
            )
        ],
        "s",
    )
    answers = annotated(CocoDataset("coco", {1: "a"}, images, images)).test.answers[0]
    assert len(answers.labels) == 3
    assert answers.objects().boxes.tolist() == [[1, 1, 10, 10]]
    assert answers.boxes[2].tolist() == [1, 1, 9, 9], "the stored boxes stay as they are"


def test_other_answers_differ_everywhere_and_leave_pictures_and_training_alone(digits: SmallImages) -> None:
    for data, of in ((digits, labelled), (shapes(), labelled), (scenes(), annotated)):
        before, after = of(data), of(relabelled(data))
        assert before.train.pictures.digest == after.train.pictures.digest
        assert np.array_equal(before.test.pictures[0], after.test.pictures[0])
        if of is labelled:
            assert (before.test.labels != after.test.labels).all()
            assert np.array_equal(before.train.labels, after.train.labels)
        else:
            for one, other in zip(before.test.answers, after.test.answers, strict=True):
                assert (one.labels != other.labels).all()
                assert np.array_equal(one.boxes, other.boxes)
    data = scenes()
    changed = relabelled(data)
    maps, others = data.test.label_maps, changed.test.label_maps
    assert np.array_equal(maps == 0, others == 0)
    assert (maps[maps > 0] != others[maps > 0]).all()
    assert others.max() <= 10
    assert set(np.unique(others[maps == 10])) == {1}
    assert np.array_equal(data.train.label_maps, changed.train.label_maps)


def test_other_answers_of_coco() -> None:
    images = ImageSet([_record(1, _annotation(1, 90, [1, 2, 10, 5]))], "s")
    data = CocoDataset("coco", {3: "car", 90: "brush"}, images, images)
    changed = relabelled(data)
    assert changed.test[0].annotations[0]["category_id"] == 3
    assert changed.train[0].annotations[0]["category_id"] == 90


def test_files_of_class_folders_are_named_by_their_place(tmp_path: Path) -> None:
    from PIL import Image

    from benchsuite.datasets.image_folders.reader import read_folders

    for part in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / part / label).mkdir(parents=True)
            Image.new("RGB", (4, 3), (7, 8, 9)).save(tmp_path / part / label / "x.png")
    data = read_folders(tmp_path, "imagenet")
    source = labelled(data)
    assert source.test.pictures.names == ("val/a/x.png", "val/b/x.png")
    assert source.test.pictures[1][0, 0].tolist() == [7, 8, 9]
    assert source.mean == (0.485, 0.456, 0.406)
    assert (relabelled(data).test.labels == [1, 0]).all()
    with pytest.raises(IndexError, match="numbered 0 to 1"):
        source.test.pictures[2]


def test_answers_in_files_and_of_one_class_cannot_be_exchanged() -> None:
    for data in (object(), replace(scenes(), classes=("thing",))):
        with pytest.raises(NotImplementedError):
            relabelled(data)
