"""COCO as lists and masks: folds by place, published lists, both kinds of masks, and a run on real images."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("hotcoco")

from PIL import Image

from benchsuite.core.errors import DataError
from benchsuite.datasets.class_masks.lists import read_pickled
from benchsuite.datasets.coco.reader import CocoDataset, load_coco
from benchsuite.tasks.fewshot_semantic_segmentation.coco_masks import class_masks_of
from benchsuite.tasks.fewshot_semantic_segmentation.contract import FewShotMasksProtocol
from benchsuite.tasks.fewshot_semantic_segmentation.task import as_class_masks

SQUARE = [4.7, 4, 20, 4, 20, 15, 4.7, 15]


def write_coco(root: Path, per_class: int = 4, classes: int = 8) -> Path:
    """Write images of one class each, category ids 10, 20, 30 ..., with a crowd of another class."""
    (root / "annotations").mkdir(parents=True)
    for part, start in (("train2014", 1), ("val2014", 1000)):
        (root / part).mkdir()
        images, annotations = [], []
        for number in range(per_class * classes):
            image = start + number
            name = f"COCO_{part}_{image:012d}.jpg"
            pixels = np.random.default_rng(image).integers(0, 256, (30, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / part / name)
            images.append({"id": image, "height": 30, "width": 40, "file_name": name})
            label = number % classes
            shapes: list[tuple[int, Any, int]] = [(label, [SQUARE], 0), (label, [[10, 8, 30, 8, 30, 20, 10, 20]], 0)]
            shapes.append(((label + 1) % classes, {"size": [30, 40], "counts": [600, 30, 570]}, 1))
            for c, shape, crowd in shapes:
                box = [20, 0, 1, 30] if crowd else [4, 4, 26, 16]
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": image, "category_id": 10 * (c + 1), "bbox": box,
                     "area": 30, "iscrowd": crowd, "segmentation": shape}
                )  # fmt: skip
        categories = [{"id": 10 * (c + 1), "name": f"thing {c}"} for c in range(classes)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"annotations/instances_{part}.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return write_coco(tmp_path)


def read(root: Path) -> CocoDataset:
    return load_coco(root, 0)


def test_folds_take_every_fourth_category(coco: Path) -> None:
    data = class_masks_of(read(coco), "polygon-fill")
    assert data.folds == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert data.classes[4] == "thing 4"
    assert data.rule == "coco"
    assert {line.label for line in data.train[1]} == {1, 5}
    assert all(line.image.startswith("train2014/COCO_train2014_") for line in data.train[1])
    assert all(line.image.startswith("val2014/") for line in data.test[1])
    assert [len(lines) for lines in data.test] == [8] * 4  # crowds count nowhere
    assert "drawn from the annotations" in data.note
    data.verify()


def test_polygons_of_a_class_are_filled_together(coco: Path) -> None:
    data = class_masks_of(read(coco), "polygon-fill")
    line = data.test[0][0]
    target, ignored = data.mask(line.image, line.label)
    assert target[4, 4]  # 4.7 is cut to 4
    assert not target[12, 15]  # two polygons cover it
    assert target[15, 10]  # an outline
    assert not ignored.any()
    assert target.shape == data.picture(line.image).shape[:2]


def test_crowds_are_not_filled(coco: Path) -> None:
    path = coco / "annotations/instances_val2014.json"
    content = json.loads(path.read_text())
    expected, _ = class_masks_of(read(coco), "polygon-fill").mask("val2014/COCO_val2014_000000001000.jpg", 0)
    crowd = {**content["annotations"][0], "id": 9999, "iscrowd": 1, "segmentation": [[0, 0, 39, 0, 39, 29, 0, 29]]}
    content["annotations"].append({**crowd, "bbox": [0, 0, 39, 29]})
    path.write_text(json.dumps(content))
    found, _ = class_masks_of(read(coco), "polygon-fill").mask("val2014/COCO_val2014_000000001000.jpg", 0)
    assert np.array_equal(found, expected)


def test_stored_masks_are_pngs_beside_the_annotations(coco: Path) -> None:
    data = class_masks_of(read(coco), "stored")
    line = data.test[0][0]
    with pytest.raises(DataError, match=r"annotations.val2014.*is missing"):
        data.mask(line.image, line.label)
    labels = np.zeros((30, 40), dtype=np.uint8)
    labels[3:9, 2:7] = line.label + 1
    path = (coco / "annotations" / line.image).with_suffix(".png")
    path.parent.mkdir(parents=True)
    Image.fromarray(labels).save(path)
    target, _ = data.mask(line.image, line.label)
    assert target.sum() == 30


def test_a_run_length_code_is_no_polygon(coco: Path) -> None:
    path = coco / "annotations/instances_val2014.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = {"size": [30, 40], "counts": [150, 10, 1040]}
    content["annotations"][0]["bbox"] = [5, 0, 1, 10]
    path.write_text(json.dumps(content))
    data = class_masks_of(read(coco), "polygon-fill")
    with pytest.raises(DataError, match="annotation 1 is a run-length code"):
        data.mask(data.test[0][0].image, 0)


def published(coco: Path, **more: Any) -> dict[int, list[str]]:
    """Write the lists of both parts as the official pickles; return the test list of fold 0."""
    found = class_masks_of(read(coco), "polygon-fill")
    for part, lists in (("trn", found.train), ("val", found.test)):
        (coco / "splits/coco" / part).mkdir(parents=True)
        for fold in range(4):
            of_file = [line for f, lines in enumerate(lists) for line in lines if (f == fold) == (part == "val")]
            content = {c: [line.image for line in of_file if line.label == c][::-1] for c in range(8)}
            (coco / f"splits/coco/{part}/fold{fold}.pkl").write_bytes(pickle.dumps({**content, **more}))
    return {c: [line.image for line in found.test[0] if line.label == c][::-1] for c in (0, 4)}


def test_published_lists_are_used_in_their_order(coco: Path) -> None:
    expected = published(coco)
    data = class_masks_of(read(coco), "polygon-fill")
    assert [line.image for line in data.test[0]] == [*expected[0], *expected[4]]
    assert {line.label for line in data.train[2]} == {2, 6}
    assert data.note == ""


def test_lists_may_be_text(coco: Path) -> None:
    expected = published(coco)
    for fold in range(4):
        path = coco / f"splits/coco/val/fold{fold}.pkl"
        content = read_pickled(path, 80)
        lines = [f"{image}__{label + 1:02d}" for label, images in content.items() for image in images]
        path.with_suffix(".txt").write_text("\n".join(lines))
        if fold:
            path.unlink()
    with pytest.raises(DataError, match=r"as \.pkl and as \.txt"):
        class_masks_of(read(coco), "polygon-fill")
    (coco / "splits/coco/val/fold0.pkl").unlink()
    data = class_masks_of(read(coco), "polygon-fill")
    assert [line.image for line in data.test[0]] == [*expected[0], *expected[4]]


def test_lists_that_do_not_fit_are_told(coco: Path) -> None:
    published(coco)
    path = coco / "splits/coco/val/fold2.pkl"
    whole = path.read_bytes()
    path.write_bytes(pickle.dumps({2: ["val2014/COCO_val2014_000000009999.jpg"]}))
    with pytest.raises(DataError, match="names 1 images without an entry in the annotations"):
        class_masks_of(read(coco), "polygon-fill")
    path.write_bytes(pickle.dumps({0: [read_pickled(coco / "splits/coco/val/fold0.pkl", 80)[0][0]]}))
    with pytest.raises(DataError, match="other images than in another fold's list"):
        class_masks_of(read(coco), "polygon-fill")
    path.unlink()
    with pytest.raises(DataError, match="holds 3 of 4 lists"):
        class_masks_of(read(coco), "polygon-fill")
    path.write_bytes(whole)


def test_too_few_categories_make_no_folds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="3 categories are too few"):
        class_masks_of(read(write_coco(tmp_path, classes=3)), "polygon-fill")


def test_the_protocol_says_which_masks(coco: Path) -> None:
    protocol = FewShotMasksProtocol(masks="polygon-fill")
    assert as_class_masks(read(coco), protocol).masks == "polygon-fill"  # type: ignore[attr-defined]
    assert as_class_masks(read(coco), FewShotMasksProtocol()).masks == "stored"  # type: ignore[attr-defined]


@pytest.mark.real_data
@pytest.mark.parametrize("shots", [1, 5])
def test_real_images_run_end_to_end(real_data: Path, evaluate: Any, shots: int) -> None:
    found = evaluate(
        "fss",
        "panet-frozen",
        {"task.shots": str(shots), "task.episodes": "12"},
        datasets=["coco"],
        data_roots=[str(real_data / "coco_tiny")],
        max_steps=2,
    )
    assert found.outcome.counts["episodes"] == 12
    assert found.outcome.tables["left_out"]
    assert 0 <= found.outcome.scores["miou"] <= 1
    assert (found.artifacts / "episodes.png").is_file()
