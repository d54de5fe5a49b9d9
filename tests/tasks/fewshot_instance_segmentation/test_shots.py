"""The class split and the sampler of shots."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.tasks.fewshot_instance_segmentation import shots as coco_split
from benchsuite.tasks.fewshot_instance_segmentation.shots import sample_shots


def annotations_of(counts_by_class):
    """Return annotations: for each class, how many objects each of its images has."""
    found = []
    for category, counts in counts_by_class.items():
        for image, count in enumerate(counts, start=1000 * category):
            for _ in range(count):
                found.append({"id": len(found) + 1, "image_id": image, "category_id": category, "iscrowd": 0})
    return found


def test_the_two_parts_make_up_coco():
    base, novel = set(coco_split.COCO_BASE), set(coco_split.COCO_NOVEL)
    assert (len(base), len(novel), base & novel) == (60, 20, set())
    assert {12, 26, 29, 30, 45, 66, 68, 69, 71, 83} == set(range(1, 91)) - base - novel
    labels = coco_split.contiguous(coco_split.COCO_BASE)
    assert sorted(labels.values()) == list(range(60))
    assert [c for c, label in sorted(labels.items(), key=lambda x: x[1])] == sorted(base)


def reference_walk(images, shots, generator):
    """The published algorithm written down plainly; endless where K cannot be reached."""
    chosen, taken, found = [], [], {}
    for k in shots:
        while len(chosen) != k:
            for image in generator.sample(list(images), k):
                if image in taken or len(chosen) + len(images[image]) > k:
                    continue
                chosen = chosen + images[image]
                taken.append(image)
                if len(chosen) == k:
                    break
        found[k] = tuple(chosen)
    return found


@given(st.integers(0, 9), st.lists(st.integers(1, 3), min_size=40, max_size=50))
def test_draws_are_those_of_the_published_algorithm(seed, counts):
    annotations = annotations_of({1: [*counts, *[1] * 30], 2: [1] * 40})
    images = {}
    for a in annotations:
        images.setdefault(a["category_id"], {}).setdefault(a["image_id"], []).append(a["id"])
    generator = random.Random(seed)
    expected = {category: reference_walk(images[category], coco_split.SHOTS, generator) for category in (1, 2)}
    found = sample_shots(annotations, [1, 2], seed)
    assert {c: dict(s.by_k) for c, s in found.items()} == expected


@given(st.integers(0, 20), st.lists(st.integers(1, 6), min_size=1, max_size=25))
def test_shots_are_exact_nested_whole_images_and_always_end(seed, counts):
    annotations = annotations_of({1: counts})
    image_of = {a["id"]: a["image_id"] for a in annotations}
    shots = sample_shots(annotations, [1], seed)[1]
    before = ()
    for k, ids in shots.by_k.items():
        assert len(ids) == len(set(ids)) == k
        assert ids[: len(before)] == before
        before = ids
        for image in {image_of[i] for i in ids}:
            assert {i for i in image_of if image_of[i] == image} <= set(ids)
    assert bool(shots.reason) == (len(shots.by_k) < len(coco_split.SHOTS))


@pytest.mark.parametrize(
    ("counts", "largest", "reason"),
    [
        ([2, 2, 2], None, "cannot add up to 1 shots"),
        ([1, 2, 2, 2], 1, "cannot add up to 2 shots"),
        ([1, 1, 1], 3, "3 images, 5 shots need 5"),
        ([], None, "0 images, 1 shots need 1"),
    ],
)
def test_dead_ends_are_told(counts, largest, reason):
    shots = sample_shots(annotations_of({1: counts}), [1], 0)[1]
    assert max(shots.by_k, default=None) == largest
    assert reason in shots.reason


def test_crowds_are_no_shots():
    annotations = annotations_of({1: [1, 1]})
    annotations[0]["iscrowd"] = 1
    for seed in range(8):
        assert sample_shots(annotations, [1], seed, (1,))[1].by_k == {1: (2,)}


@pytest.mark.real_data
def test_classes_of_the_real_sample_that_cannot_give_shots(real_data):
    data = json.loads((real_data / "coco_tiny/annotations/instances_train2017.json").read_text())
    classes = sorted({a["category_id"] for a in data["annotations"]})
    shots = sample_shots(data["annotations"], classes, 1)
    assert sum(1 not in s.by_k for s in shots.values()) == 10
    assert sum(5 not in s.by_k for s in shots.values()) >= 52


def test_files_of_tfa_and_meta_detr(tmp_path):
    one = {"annotations": [{"id": 7, "category_id": 1}, {"id": 9, "category_id": 8}]}
    names = {1: "traffic light"}
    (tmp_path / "cocosplit/seed2").mkdir(parents=True)
    (tmp_path / "cocosplit/seed2/full_box_5shot_traffic light_trainval.json").write_text(json.dumps(one))
    (tmp_path / "cocosplit/seed2/full_box_1shot_traffic light_trainval.json").write_text(json.dumps(one))
    (tmp_path / "cocosplit/full_box_5shot_traffic light_trainval.json").write_text(json.dumps({"annotations": []}))
    with pytest.raises(DataError, match=r"annotation 9 is of category 8, not of traffic light \(1\)"):
        coco_split.read_tfa_shots(tmp_path, names, 1, 2)
    with pytest.raises(DataError, match="shows 1 objects of category 1, its name says 5"):
        coco_split.read_tfa_shots(tmp_path, names, 5, 2)
    five = {"annotations": [{"id": number, "category_id": 1} for number in (7, 3, 4, 9, 1)]}
    (tmp_path / "cocosplit/seed2/full_box_5shot_traffic light_trainval.json").write_text(json.dumps(five))
    assert coco_split.read_tfa_shots(tmp_path, names, 5, 2) == {1: (7, 3, 4, 9, 1)}
    assert coco_split.read_tfa_shots(tmp_path, names, 5, 0) == {1: ()}
    with pytest.raises(DatasetNotFound, match="no such file of shots"):
        coco_split.read_tfa_shots(tmp_path, names, 10, 2)
    (tmp_path / "coco_fewshot/seed1").mkdir(parents=True)
    file = tmp_path / "coco_fewshot/seed1/1shot.json"
    file.write_text(json.dumps(one))
    assert coco_split.read_meta_detr_shots(tmp_path, names, 1, 1) == {1: (7,)}
    file.write_text("{}")
    with pytest.raises(DataError, match="not a COCO file"):
        coco_split.read_meta_detr_shots(tmp_path, names, 1, 1)
