"""The COCO reader on the real sample and on broken files."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("hotcoco")
pytest.importorskip("PIL")

from PIL import Image

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets.coco import reader as coco


def write(root, annotations=None, images=None, categories=None, name="instances_train2017.json", folder="train2017"):
    """Write a folder with three images of 8 x 6 pixels."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / folder).mkdir(exist_ok=True)
    images = images or [{"id": i, "height": 6, "width": 8, "file_name": f"{i}.png"} for i in (1, 2, 3)]
    for image in images:
        Image.new("RGB", (8, 6), (10, 20, 30)).save(root / folder / image["file_name"])
    data = {
        "images": images,
        "annotations": [annotation()] if annotations is None else annotations,
        "categories": categories or [{"id": 1, "name": "person"}, {"id": 8, "name": "truck"}],
    }
    (root / "annotations" / name).write_text(json.dumps(data))
    return root


def annotation(**changes):
    square = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 2], "area": 6, "iscrowd": 0}
    return square | {"segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]} | changes


@pytest.mark.real_data
def test_the_real_sample_splits_itself(real_data):
    dataset = coco.load_coco(real_data / "coco_tiny", 0)
    assert (len(dataset.train), len(dataset.test)) == (70, 30)
    assert "30 of its 100 images became the test part" in dataset.note
    assert not {r.image_id for r in dataset.train} & {r.image_id for r in dataset.test}
    found = [i for part in (dataset.train, dataset.test) for r in part for i in r.instances()]
    assert len(found) == 745
    assert len({i.category_id for i in found}) == 69
    assert dataset.train[0].pixels().shape == (dataset.train[0].height, dataset.train[0].width, 3)
    again = coco.load_coco(real_data / "coco_tiny", 1)
    assert again.train.digest == dataset.train.digest != dataset.test.digest


@pytest.mark.parametrize("year", ["2014", "2017"])
def test_layouts_of_2014_and_2017(tmp_path, year):
    for part in ("train", "val"):
        write(tmp_path, name=f"instances_{part}{year}.json", folder=f"{part}{year}")
    dataset = coco.load_coco(tmp_path, 0)
    assert (len(dataset.train), len(dataset.test), dataset.note) == (3, 3, "")


def test_split_files_of_tfa(tmp_path):
    write(tmp_path, name="instances_train2014.json", folder="trainval2014")
    (tmp_path / "cocosplit/datasplit").mkdir(parents=True)
    for name in ("trainvalno5k.json", "5k.json"):
        shutil.copy(tmp_path / "annotations/instances_train2014.json", tmp_path / "cocosplit/datasplit" / name)
    assert len(coco.load_coco(tmp_path, 0).test) == 3


def test_masks_of_polygons_and_all_run_lengths(tmp_path):
    expected = np.zeros((6, 8), dtype=bool)
    expected[1:3, 1:4] = True
    flat = expected.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, flat.size]).tolist()
    for segmentation in (annotation()["segmentation"], {"size": [6, 8], "counts": counts}, coco.encode_mask(expected)):
        assert np.array_equal(coco.decode_mask(segmentation, 6, 8), expected)


def test_crowds_and_empty_images_are_kept(tmp_path):
    crowd = annotation(id=2, image_id=2, iscrowd=1)
    dataset = coco.load_coco(write(tmp_path, [annotation(), crowd]), 0)
    records = {r.image_id: r for part in (dataset.train, dataset.test) for r in part}
    assert records[3].instances() == ()
    assert records[2].instances()[0].iscrowd
    everything = coco.ImageSet(records.values(), "x")
    assert [r.image_id for r in everything.with_classes([1])] == [1]
    assert len(everything.ground_truth([1])["annotations"]) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": 0}, "annotation id 0 is not positive and unique"),
        ({"category_id": 5}, "unknown category 5"),
        ({"image_id": 9}, "unknown image 9"),
        ({"segmentation": [[1, 1, 2, 2]]}, "polygons of at least three points"),
        ({"segmentation": {"counts": "x"}}, "without size or counts"),
        ({"bbox": [1, 2, 3]}, "bbox of four numbers"),
    ],
)
def test_broken_annotations(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        coco.load_coco(write(tmp_path, [annotation(**changes)]), 0)


def test_broken_files(tmp_path):
    with pytest.raises(DatasetNotFound, match="holds no annotation file"):
        coco.load_coco(tmp_path, 0)
    write(tmp_path, [annotation(), annotation()])
    with pytest.raises(DataError, match="id 1 is not positive and unique"):
        coco.load_coco(tmp_path, 0)
    file = tmp_path / "annotations/instances_train2017.json"
    for text, message in (
        ("{", "not a readable json"),
        ("[]", "not a COCO file"),
        ('{"images": 3}', "not a COCO file"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            coco.load_coco(tmp_path, 0)
    lacking = {"images": [{"id": 1}], "annotations": [], "categories": []}
    file.write_text(json.dumps(lacking))
    with pytest.raises(DataError, match="lacks or garbles a field"):
        coco.load_coco(tmp_path, 0)


def test_missing_and_wrong_images(tmp_path):
    write(tmp_path)
    (tmp_path / "train2017/2.png").unlink()
    with pytest.raises(DataError, match=r"1 images are missing, e\.g\. 2\.png"):
        coco.load_coco(tmp_path, 0)
    Image.new("RGB", (3, 3)).save(tmp_path / "train2017/2.png")
    dataset = coco.load_coco(tmp_path, 0)
    record = next(r for part in (dataset.train, dataset.test) for r in part if r.image_id == 2)
    with pytest.raises(DataError, match="3 x 3 pixels, annotated as 8 x 6"):
        record.pixels()
    (tmp_path / "train2017/2.png").write_text("no image")
    with pytest.raises(DataError, match="not a readable image"):
        record.pixels()


def test_image_names_cannot_leave_the_folder(tmp_path):
    outside = tmp_path / "outside.png"
    Image.new("RGB", (8, 6)).save(outside)
    root = tmp_path / "data"
    root.mkdir()
    write(root)
    file = root / "annotations/instances_train2017.json"
    file.write_text(file.read_text().replace('"1.png"', '"../outside.png"'))
    with pytest.raises(DataError, match="images are missing"):
        coco.load_coco(root, 0)


def test_of_one_file_three_tenths_are_for_testing(tmp_path):
    images = [{"id": i, "height": 6, "width": 8, "file_name": f"{i}.png"} for i in range(1, 21)]
    dataset = coco.load_coco(write(tmp_path, images=images), 0)
    assert (len(dataset.train), len(dataset.test)) == (14, 6)


def test_split_files_of_tfa_come_before_those_of_coco(tmp_path):
    for part in ("train", "val"):
        write(tmp_path, name=f"instances_{part}2014.json", folder=f"{part}2014")
    (tmp_path / "datasplit").mkdir()
    for name, kept in (("trainvalno5k.json", (1, 2)), ("5k.json", (3,))):
        data = json.loads((tmp_path / "annotations/instances_train2014.json").read_text())
        data["images"] = [image for image in data["images"] if image["id"] in kept]
        data["annotations"] = [a for a in data["annotations"] if a["image_id"] in kept]
        (tmp_path / "datasplit" / name).write_text(json.dumps(data))
    dataset = coco.load_coco(tmp_path, 0)
    assert [r.image_id for r in dataset.train] == [1, 2]
    assert [r.image_id for r in dataset.test] == [3]


def test_the_digest_tells_annotations_and_images_apart():
    def digest(image=1, **changes):
        return coco.ImageSet([coco.Record(image, 6, 8, "1.png", (annotation(**changes),))], "x").digest

    assert digest() == digest()
    assert len({digest(), digest(id=2), digest(category_id=8), digest(image=2)}) == 4


def test_annotations_keep_the_order_of_the_file(tmp_path):
    """Neither images nor ids are in order there."""
    given = [(7, 3), (2, 1), (9, 2), (4, 1), (1, 3), (3, 1)]
    annotations = [annotation(id=number, image_id=image, category_id=1 + 7 * (number == 4)) for number, image in given]
    file = write(tmp_path, annotations) / "annotations/instances_train2017.json"
    _, images, _ = coco.read_annotations(file, tmp_path)
    assert [a["id"] for a in images.annotations()] == [number for number, _ in given]
    assert [a["id"] for a in images.with_classes([1]).annotations()] == [7, 2, 9, 1, 3]
    assert [a["id"] for a in images.part(images[:1]).annotations()] == [2, 4, 3]
    dataset = coco.load_coco(tmp_path, 0)
    for part in (dataset.train, dataset.test):
        shown = {record.image_id for record in part}
        assert [a["id"] for a in part.annotations()] == [number for number, image in given if image in shown]


def test_images_of_some_classes_lose_the_others_and_images_of_crowds_alone_go():
    records = [
        coco.Record(1, 6, 8, "1.png", (annotation(), annotation(id=2, category_id=8))),
        coco.Record(2, 6, 8, "2.png", (annotation(id=3, iscrowd=1),)),
        coco.Record(3, 6, 8, "3.png", (annotation(id=4, category_id=8),)),
    ]
    images = coco.ImageSet(records, "x")
    kept = images.with_classes([1])
    assert [[a["id"] for a in record.annotations] for record in kept] == [[1]]
    truth = images.ground_truth([1])
    assert [image["id"] for image in truth["images"]] == [1, 2, 3]
    assert [a["id"] for a in truth["annotations"]] == [1, 3]
