"""Files in the COCO format in which something is off: the control's content, or one line that names file and id."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hotcoco")
pytest.importorskip("PIL")

from PIL import Image, ImageOps, TiffImagePlugin

from benchsuite.core.dataset import DataSource
from benchsuite.core.errors import DataError, UserError
from benchsuite.core.registry import get_registry
from benchsuite.datasets.coco import reader as coco
from benchsuite.datasets.coco import values
from benchsuite.harness.identity import data_hash

SQUARE = [2, 2, 10, 2, 10, 8, 2, 8]
LENGTHS = [42, *[6, 14] * 7, 6, 612]  # the same square, columns of an image of 40 x 20


def annotation(number: int, **changes: Any) -> dict[str, Any]:
    same = {"id": number, "image_id": 1 + number % 3, "category_id": 1, "bbox": [2, 2, 8, 6], "area": 48, "iscrowd": 0}
    return same | {"segmentation": [SQUARE]} | changes


def content(**changes: Any) -> dict[str, Any]:
    images = [{"id": i, "height": 20, "width": 40, "file_name": f"{i}.png"} for i in (1, 2, 3)]
    categories = [{"id": 1, "name": "person"}, {"id": 8, "name": "truck"}]
    return {"images": images, "annotations": [annotation(n) for n in (1, 2, 3)], "categories": categories} | changes


def write(root: Path, part: str = "train2017", data: Any = None, grey: int = 0) -> Path:
    """Write an annotation file and its folder of grey pictures."""
    data = content() if data is None else data
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / part).mkdir(exist_ok=True)
    for number in (1, 2, 3):
        Image.new("RGB", (40, 20), (grey, grey, grey)).save(root / part / f"{number}.png")
    file = root / "annotations" / f"instances_{part}.json"
    file.write_text(data if isinstance(data, str) else json.dumps(data))
    return file


def read(root: Path, data: Any) -> coco.ImageSet:
    return coco.read_annotations(write(root, data=data), root)[1]


def seen(images: coco.ImageSet) -> Any:
    return [
        (r.image_id, r.height, r.width, [(i.category_id, i.box, i.iscrowd, i.mask.sum()) for i in r.instances()])
        for r in images
    ]


def refused(root: Path, data: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(root, data)
    text = str(caught.value)
    assert text.isprintable()
    assert "instances_train2017.json" in text
    return text


# --- the files of odd_inputs --------------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["category-ids-text", "iscrowd-text", "names-subfolder"])
def test_odd_folders_that_are_sound(real_data, name):
    odd, control = (coco.load_coco(real_data / "odd_inputs" / f"coco-{n}", 0) for n in (name, "control"))
    odd.verify()
    for part in ("train", "test"):
        assert seen(getattr(odd, part)) == seen(getattr(control, part))
        for record in getattr(odd, part):
            assert all(type(a[k]) is int for a in record.annotations for k in ("category_id", "iscrowd", "image_id"))


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "reason"), [("polygon-nan", "finite number"), ("rle-long", "1400 pixels, its image")])
def test_odd_folders_that_are_not(real_data, name, reason):
    with pytest.raises(DataError, match=f"annotation 1: segmentation .*{reason}"):
        coco.load_coco(real_data / "odd_inputs" / f"coco-{name}", 0)


@pytest.mark.real_data
def test_each_annotation_file_reads_its_own_folder(real_data):
    dataset = coco.load_coco(real_data / "odd_inputs" / "coco-same-names", 0)
    for part, colour in ((dataset.train, (200, 0, 0)), (dataset.test, (0, 0, 200))):
        assert {tuple(r.pixels()[0, 0].tolist()) for r in part} == {colour}


@pytest.mark.real_data
def test_a_grey_picture_of_16_bits_is_not_clipped(real_data):
    folder = real_data / "odd_inputs" / "images-odd"
    assert coco.Record(1, 30, 40, str(folder / "control.png")).pixels()[0, :3, 0].tolist() == [0, 6, 13]
    with pytest.raises(DataError, match="more than 8 bits a colour: save it as RGB or grey with 8 bits"):
        coco.Record(1, 30, 40, str(folder / "gray16.png")).pixels()


@pytest.mark.real_data
def test_the_command_line_on_odd_folders(real_data, shared_cli):
    folder = real_data / "odd_inputs"
    sound = shared_cli("data", "verify", "coco", "--data-root", folder / "coco-names-subfolder")
    assert (sound.code, "test images: 6" in sound.out) == (0, True)
    broken = shared_cli("data", "verify", "coco", "--data-root", folder / "coco-rle-long")
    assert broken.code == 2
    assert len(broken.err.splitlines()) == 1


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alike", [float, str])
@pytest.mark.parametrize(("where", "key"), [
    ("images", "id"), ("images", "height"), ("categories", "id"), ("annotations", "id"),
    ("annotations", "image_id"), ("annotations", "category_id"), ("annotations", "iscrowd"),
])  # fmt: skip
def test_ids_written_as_floats_or_text_are_ids(tmp_path, where, key, alike):
    data = content()
    for entry in data[where]:
        entry[key] = str(entry[key]) if alike is str else float(entry[key])
    if key == "iscrowd" and alike is float:
        assert seen(read(tmp_path, data)) == seen(read(tmp_path, content()))
        return
    images = read(tmp_path, data)
    assert seen(images) == seen(read(tmp_path, content()))
    assert all(type(a[k]) is int for r in images for a in r.annotations for k in ("id", "image_id", "category_id"))


@pytest.mark.parametrize("value", [
    True, None, "", "x", "01", "+1", "1.0", "\u0661", " 1", 1.5, -1, 2**53 + 1, 10**400, 1e300, float("nan"),
    float("inf"), [1], {}, "\ud800", "1\n2",
])  # fmt: skip
@pytest.mark.parametrize(("where", "key"), [
    ("images", "id"), ("images", "width"), ("categories", "id"), ("annotations", "id"), ("annotations", "category_id"),
])  # fmt: skip
def test_what_is_no_whole_number_is_no_id(tmp_path, where, key, value):
    data = content()
    data[where][0][key] = value
    assert f"{key} is" in refused(tmp_path, data)


@pytest.mark.parametrize(("value", "crowd"), [(0, 0), (1, 1), ("0", 0), ("1", 1), (False, 0), (True, 1), (1.0, 1)])
def test_crowds(tmp_path, value, crowd):
    images = read(tmp_path, content(annotations=[annotation(3, iscrowd=value)]))
    assert images.annotations()[0]["iscrowd"] == crowd
    assert images[0].instances()[0].iscrowd == bool(crowd)


@pytest.mark.parametrize("value", [2, -1, 0.5, "false", "", None, [], float("nan"), [0]])
def test_what_is_no_crowd_flag(tmp_path, value):
    assert "annotation 3: iscrowd is" in refused(tmp_path, content(annotations=[annotation(3, iscrowd=value)]))


@pytest.mark.parametrize(("changes", "reason"), [
    ({"bbox": [2, 2, -8, 6]}, "must not be negative"),
    ({"bbox": [2, 2, float("inf"), 6]}, "finite number"),
    ({"bbox": [2, 2, 8, float("nan")]}, "finite number"),
    ({"bbox": [2, 2, 8, "6"]}, "finite number"),
    ({"bbox": [2, 2, 8, True]}, "finite number"),
    ({"bbox": [2, 2, 8, 10**400]}, "an enormous number"),
    ({"bbox": [2, 2, 8, 1e308]}, "finite number"),
    ({"bbox": "2286"}, "list of numbers"),
    ({"bbox": [2, 2, 8]}, "four numbers"),
    ({"bbox": [30, 2, 20, 6]}, "beyond its image of 40 x 20"),
    ({"bbox": [22, 12, 8, 6]}, "does not touch the mask"),
    ({"area": -48}, "area is -48"),
    ({"area": "48"}, "finite number"),
    ({"area": float("nan")}, "finite number"),
    ({"area": 4e6}, "give the pixels of the object"),
    ({"segmentation": []}, "at least three points"),
    ({"segmentation": None}, "at least three points"),
    ({"segmentation": [[2, 2, 10, 2]]}, "at least three points"),
    ({"segmentation": [SQUARE[:-1]]}, "at least three points"),
    ({"segmentation": [SQUARE, []]}, "at least three points"),
    ({"segmentation": SQUARE}, "list of numbers"),
    ({"segmentation": [[*SQUARE[:-1], float("inf")]]}, "finite number"),
    ({"segmentation": [[*SQUARE[:-1], "8"]]}, "finite number"),
    ({"segmentation": [[*SQUARE, 300, 8]]}, "points beyond its image"),
    ({"segmentation": {"size": [20, 40], "counts": LENGTHS[:-1]}}, "run lengths of 188 pixels, its image 800"),
    ({"segmentation": {"size": [20, 40], "counts": [*LENGTHS, 1]}}, "run lengths of 801 pixels"),
    ({"segmentation": {"size": [20, 40], "counts": [-42, *LENGTHS[1:]]}}, "whole number"),
    ({"segmentation": {"size": [20, 40], "counts": [True, *LENGTHS[1:]]}}, "whole number"),
    ({"segmentation": {"size": [20, 40], "counts": ["42", *LENGTHS[1:]]}}, "whole number"),
    ({"segmentation": {"size": [40, 20], "counts": LENGTHS}}, r"size \[40, 20\], its image \[20, 40\]"),
    ({"segmentation": {"size": [20, 40], "counts": 800}}, "list of run lengths or their compressed text"),
    ({"segmentation": {"size": [20, 40], "counts": ""}}, "run lengths of 0 pixels"),
    ({"segmentation": {"size": [20, 40], "counts": "Z1"}}, "run lengths of 42 pixels"),
    ({"segmentation": {"size": [20, 40], "counts": "Z"}}, "cut short"),
    ({"segmentation": {"size": [20, 40], "counts": "a b"}}, "no run-length code"),
    ({"segmentation": {"size": [20, 40], "counts": "\u00f1"}}, "compressed text"),
    ({"segmentation": {"counts": LENGTHS}}, "without size or counts"),
])  # fmt: skip
def test_geometry_that_cannot_be(tmp_path, changes, reason):
    assert re.search(f"annotation 3: .*{reason}", refused(tmp_path, content(annotations=[annotation(3, **changes)])))


@pytest.mark.parametrize("counts", [LENGTHS, [float(n) for n in LENGTHS]])
def test_run_lengths_are_the_mask_that_they_say(tmp_path, counts):
    shape = {"size": [20, 40], "counts": counts}
    images = read(tmp_path, content(annotations=[annotation(n, segmentation=shape) for n in (1, 2, 3)]))
    assert seen(images) == seen(read(tmp_path, content()))
    packed = coco.encode_mask(images[0].instances()[0].mask)
    assert values.run_lengths(packed, 20, 40) == LENGTHS


def test_compressed_text_is_unpacked_as_the_library_does():
    rng = np.random.default_rng(0)
    for share in (0, 0.02, 0.5, 1):
        mask = rng.random((33, 57)) < share
        lengths = values.run_lengths(coco.encode_mask(mask), 33, 57)
        flat = np.repeat(np.arange(len(lengths)) % 2, lengths).astype(bool)
        assert np.array_equal(flat.reshape(57, 33).T, mask)


def test_a_mask_that_cannot_be_decoded_to_its_size_is_refused_there_too():
    for shape in (
        [[1, 1, float("nan"), 2, 3, 3]],
        {"size": [6, 8], "counts": [3, 3]},
        {"size": [8, 6], "counts": [48]},
    ):
        with pytest.raises(DataError, match="a mask cannot be decoded"):
            coco.decode_mask(shape, 6, 8)


@pytest.mark.parametrize(("where", "reading"), [
    ([12, 6, 20, 12], "two corners"), ([16, 9, 8, 6], "centre, width and height"),
    ([6, 12, 6, 8], "y, x, height and width"),
])  # fmt: skip
def test_boxes_in_another_convention_are_told(tmp_path, where, reading):
    shape = [[12, 6, 20, 6, 20, 12, 12, 12]]
    data = content(annotations=[annotation(n, segmentation=shape, bbox=where) for n in (1, 2, 3)])
    assert f"most boxes (e.g. of annotation 1) are {reading}" in refused(tmp_path, data)
    one = content(annotations=[annotation(n, segmentation=shape, bbox=[12, 6, 8, 6]) for n in (1, 2, 3)])
    assert len(read(tmp_path, one).annotations()) == 3


def test_zero_boxes_and_slivers_of_the_published_file_are_legal(tmp_path):
    line = [[29.65, 8.33, 29.65, 8.33, 30.68, 8.33, 30.68, 8.33]]
    data = content(annotations=[annotation(3, segmentation=line, bbox=[29.65, 8.33, 1.03, 0.0], area=0.0)])
    assert read(tmp_path, data).annotations()[0]["bbox"] == [29.65, 8.33, 1.03, 0.0]


# --- names and ids that occur twice or are not there -----------------------------------------------------------------


@pytest.mark.parametrize(("data", "reason"), [
    (content(annotations=[annotation(1), annotation(1)]), "annotation id 1 is not positive and unique"),
    (content(annotations=[annotation(1), annotation(1, id="1")]), "annotation id 1 is not positive and unique"),
    (content(annotations=[annotation(0)]), "annotation id 0 is not positive"),
    (content(annotations=[annotation(1, image_id=9)]), "unknown image 9"),
    (content(annotations=[annotation(1, category_id=5)]), "unknown category 5"),
    (content(annotations=[3]), "annotation number 1 in the file lacks or garbles a field: 3 is no object"),
    (content(images=[*content()["images"], content()["images"][0]]), "an image id occurs twice"),
    (content(images=[content()["images"][0], content()["images"][1] | {"file_name": "./1.png"}]), "are both"),
    (content(images=[{"id": 1, "height": 20, "width": 40}]), "image 1 lacks or garbles a field: it has no file_name"),
    (content(images=[]), "it lists none"),
    (content(images=[content()["images"][0] | {"height": 0}]), "write its size in pixels"),
    (content(images=[content()["images"][0] | {"height": 2**40}]), "write its size in pixels"),
    (content(images=[content()["images"][0] | {"file_name": 1}]), "file_name is 1"),
    (content(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "category id 1 occurs twice"),
    (content(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a "}]), "two categories have the name 'a'"),
    (content(categories=[{"id": 1, "name": None}]), "name is None"),
    (content(categories=[{"id": 1, "name": "a\nb"}]), "text of one line"),
    (content(categories=[{"id": 1}]), "it has no name"),
    (content(images={}), "needs lists of images"),
    ({}, "not a COCO file"),
])  # fmt: skip
def test_ids_and_names(tmp_path, data, reason):
    assert reason in refused(tmp_path, data)


@pytest.mark.parametrize("key", ["id", "image_id", "category_id", "bbox", "area", "segmentation"])
def test_a_missing_field_is_named(tmp_path, key):
    broken = annotation(3)
    del broken[key]
    assert f"it has no {key}" in refused(tmp_path, content(annotations=[broken]))


@pytest.mark.parametrize(("change", "reason"), [
    (lambda t: t.replace('"area": 48', '"area": 48, "area": 7', 1), "an object of id 1 gives 'area' twice"),
    (lambda t: t[: len(t) // 2], "cut short or damaged"),
    (lambda t: "", "cut short or damaged"),
    (lambda t: "[" * 100_000, "cut short or damaged"),
    (lambda t: t.replace("48", "9" * 5000, 1), "cut short or damaged"),
])  # fmt: skip
def test_damaged_json(tmp_path, change, reason):
    assert reason in refused(tmp_path, change(json.dumps(content())))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings_and_line_ends(tmp_path, encoding, end):
    file = write(tmp_path)
    expected = seen(coco.read_annotations(file, tmp_path)[1])
    file.write_bytes(json.dumps(content(), indent=1).replace("\n", end).encode(encoding))
    assert seen(coco.read_annotations(file, tmp_path)[1]) == expected


def test_training_and_test_files_are_compared(tmp_path):
    write(tmp_path)
    for categories, reason in (
        (
            [{"id": 1, "name": "truck"}, {"id": 8, "name": "person"}],
            "category 1 is 'truck', in annotations/instances_tr",
        ),
        ([*content()["categories"], {"id": 9, "name": "boat"}], "it does not exist"),
    ):
        write(tmp_path, "val2017", content(categories=categories))
        with pytest.raises(DataError, match=reason):
            coco.load_coco(tmp_path, 0)


@pytest.mark.parametrize("novel", [[1, 1], [5], ["x"], 8, [True]])
def test_novel_classes_that_the_file_names_are_checked(tmp_path, novel):
    write(tmp_path, data=content(info={"novel_category_ids": novel}))
    with pytest.raises(DataError, match="novel_category_ids of info"):
        coco.load_coco(tmp_path, 0)
    write(tmp_path, data=content(info={"novel_category_ids": ["8"]}))
    assert coco.load_coco(tmp_path, 0).novel == (8,)


# --- pictures -------------------------------------------------------------------------------------------------------


def named(name: str) -> dict[str, Any]:
    return content(images=[content()["images"][0] | {"file_name": name}, *content()["images"][1:]])


@pytest.mark.parametrize("name", ["../1.png", "/etc/1.png", "a/../1.png", "train2017/../1.png"])
def test_names_that_leave_the_folder(tmp_path, name):
    (tmp_path / "a").mkdir()
    assert "leaves the folder of images" in refused(tmp_path, named(name))


@pytest.mark.parametrize(("name", "hint"), [("1.PNG", "there is '1.png'"), ("A\\b.png", "there is 'a/b.png'")])
def test_names_are_taken_to_the_letter(tmp_path, name, hint):
    (tmp_path / "train2017" / "a").mkdir(parents=True)
    (tmp_path / "train2017" / "a" / "b.png").touch()
    assert hint in refused(tmp_path, named(name))


def test_a_split_never_reads_the_folder_of_another(tmp_path):
    write(tmp_path)
    write(tmp_path, "val2017", grey=9)
    (tmp_path / "val2017" / "2.png").unlink()
    with pytest.raises(
        DataError, match=r"instances_val2017.json: 1 images are missing, e.g. 2.png \(looked in val2017"
    ):
        coco.load_coco(tmp_path, 0)
    shutil.rmtree(tmp_path / "val2017")
    with pytest.raises(DataError, match="3 images are missing"):
        coco.load_coco(tmp_path, 0)


def test_a_name_in_two_folders_is_refused_unless_they_hold_copies(tmp_path):
    file = write(tmp_path, "images")
    file = file.rename(file.with_name("instances_all.json"))
    write(tmp_path, "val2014").unlink()
    assert len(coco.read_annotations(file, tmp_path)[1]) == 3
    Image.new("RGB", (40, 20), (9, 9, 9)).save(tmp_path / "val2014" / "2.png")
    with pytest.raises(DataError, match=r"'2.png' lies in images and in val2014, so its image cannot be told"):
        coco.read_annotations(file, tmp_path)


def test_names_may_hold_the_folder(tmp_path):
    data = content()
    for image in data["images"]:
        image["file_name"] = f"train2017/{image['file_name']}"
    assert read(tmp_path, data)[0].pixels().shape == (20, 40, 3)


def test_other_pictures_are_other_images(tmp_path):
    """What is cached of one folder must not be taken for what another one with the same annotations gives."""
    file = write(tmp_path)
    before = coco.read_annotations(file, tmp_path)[1].digest
    assert coco.read_annotations(file, tmp_path)[1].digest == before
    Image.fromarray(PIXELS).save(tmp_path / "train2017" / "2.png")
    assert coco.read_annotations(file, tmp_path)[1].digest != before
    (tmp_path / "train2017" / "2.png").unlink()
    (tmp_path / "train2017" / "2.png").symlink_to(tmp_path / "nothing.png")
    with pytest.raises(DataError, match="is it a link to nothing"):
        coco.read_annotations(file, tmp_path)


def test_pictures_in_sub_folders_are_part_of_the_hash(tmp_path):
    write(tmp_path)
    (tmp_path / "train2017" / "camera").mkdir()
    file = tmp_path / "train2017" / "camera" / "4.png"
    hashes = []
    for size in (1, 2):
        file.write_bytes(b"x" * size)
        hashes.append(data_hash(DataSource(get_registry().dataset("coco"), tmp_path)))
    assert hashes[0] != hashes[1]


PIXELS = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)


def record(file: Path) -> coco.Record:
    return coco.Record(1, 20, 40, str(file))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_pictures_that_8_bits_of_rgb_hold_are_read_exactly(tmp_path, mode):
    picture = Image.fromarray(PIXELS).convert(mode)
    picture.save(tmp_path / "p.png")
    assert np.array_equal(record(tmp_path / "p.png").pixels(), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize(("name", "make", "reason"), [
    ("p.png", lambda: Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257), "more than 8 bits"),
    ("p.tif", lambda: Image.fromarray(PIXELS[:, :, 0].astype(np.int32) * 257), "more than 8 bits"),
    ("p.tif", lambda: Image.fromarray(PIXELS[:, :, 0].astype(np.float32) / 255), "more than 8 bits"),
    ("p.jpg", lambda: Image.fromarray(PIXELS).convert("CMYK"), "the colours CMYK"),
    ("p.tif", lambda: Image.fromarray(PIXELS).convert("LAB"), "the colours LAB"),
    ("p.png", lambda: Image.fromarray(np.dstack([PIXELS, PIXELS[:, :, 0]])), "transparent pixels"),
    ("p.png", lambda: Image.fromarray(PIXELS[:, :, :2].copy(), "LA"), "transparent pixels"),
])  # fmt: skip
def test_pictures_that_they_do_not_hold_are_refused(tmp_path, name, make, reason):
    make().save(tmp_path / name)
    with pytest.raises(DataError, match=reason):
        record(tmp_path / name).pixels()


def test_transparent_palettes_animations_and_cut_pictures(tmp_path):
    picture = Image.fromarray(PIXELS[:, :, 0])
    picture.convert("P").save(tmp_path / "p.png", transparency=int(PIXELS[0, 0, 0]))
    with pytest.raises(DataError, match="transparent pixels"):
        record(tmp_path / "p.png").pixels()
    picture.save(tmp_path / "p.gif", save_all=True, append_images=[Image.new("L", (40, 20))])
    with pytest.raises(DataError, match="holds 2 pictures"):
        record(tmp_path / "p.gif").pixels()
    picture.save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    for length in (0, 5, 20, 45, len(whole) // 2):
        (tmp_path / "cut.png").write_bytes(whole[:length])
        with pytest.raises(DataError, match="not a readable image") as caught:
            record(tmp_path / "cut.png").pixels()
        assert str(caught.value).isprintable()


def sixteen_bits_of_rgb(file: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    Image.fromarray(PIXELS).save(file, tiffinfo=tags)
    data = bytearray(file.read_bytes())
    place = data.find(b"\x08\x00\x08\x00\x08\x00")
    data[place : place + 6] = b"\x10\x00\x10\x00\x10\x00"
    file.write_bytes(bytes(data) + bytes(PIXELS.size))


def test_colours_of_16_bits_are_refused(tmp_path):
    sixteen_bits_of_rgb(tmp_path / "p.tif")
    with pytest.raises(DataError, match="more than 8 bits a colour"):
        record(tmp_path / "p.tif").pixels()


@pytest.mark.parametrize("turn", range(1, 9))
def test_pictures_that_the_camera_turned(tmp_path, turn):
    picture, exif = Image.fromarray(PIXELS), Image.Exif()
    exif[0x0112] = turn
    picture.save(tmp_path / "p.png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "p.png")))
    if turn in (2, 3, 4):
        with pytest.raises(DataError, match="save the picture upright"):
            record(tmp_path / "p.png").pixels()
        return
    assert np.array_equal(record(tmp_path / "p.png").pixels(), PIXELS)  # annotated as it is stored
    height, width = upright.shape[:2]
    assert np.array_equal(coco.Record(1, height, width, str(tmp_path / "p.png")).pixels(), upright)
    with pytest.raises(DataError, match="40 x 20 pixels, annotated as 30 x 20"):
        coco.Record(1, 20, 30, str(tmp_path / "p.png")).pixels()


# --- verify ---------------------------------------------------------------------------------------------------------


def test_verify_reads_every_picture_and_file_of_shots(tmp_path):
    write(tmp_path)
    write(tmp_path, "val2017")
    coco.load_coco(tmp_path, 0).verify()
    shots = tmp_path / "coco_fewshot/seed1/1shot.json"
    shots.parent.mkdir(parents=True)
    for entries, reason in (
        ([{"id": 1, "category_id": 1}], None),
        ([{"id": 1, "category_id": 8}], "has the category_id 8 as a shot, 1 among the training images"),
        ([{"id": 1, "category_id": 1, "image_id": 1}], "has the image_id 1 as a shot, 2 among"),
        ([{"id": 9, "category_id": 1}], "annotation 9 of the shots is not among the training images"),
        ([{"id": 1, "category_id": 1}, {"id": 1, "category_id": 1}], "is in it twice"),
        ([{"id": 1, "category_id": 1}, {"id": 2, "category_id": 1}], "shows 2 objects of category 1, its name says 1"),
        ([{"id": True, "category_id": 1}], "id is True"),
        ([{"id": 1}], "it has no category_id"),
        (3, "needs a list of annotations"),
    ):
        shots.write_text(json.dumps({"annotations": entries}))
        if reason is None:
            coco.load_coco(tmp_path, 0).verify()
            continue
        with pytest.raises(DataError, match=reason):
            coco.load_coco(tmp_path, 0).verify()
    shots.unlink()
    (tmp_path / "val2017" / "3.png").write_bytes(b"x")
    with pytest.raises(DataError, match="not a readable image"):
        coco.load_coco(tmp_path, 0).verify()
