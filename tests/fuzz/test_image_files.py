"""A sound file of images, annotations, shots or results, changed at random: the same content, or one line.

What is changed is how the file says something (types, order, encodings, line ends) or whether it can be meant
(truncation, doubles, NaN, missing fields). With ``--slow`` each property is tried on 2,000 cases.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

pytest.importorskip("hotcoco")
pytest.importorskip("PIL")

from PIL import Image
from support import forall, paths_of

from benchsuite.core.errors import DataError, UserError
from benchsuite.datasets.coco import reader as coco
from benchsuite.datasets.coco.shots import read_shots
from benchsuite.tasks.fewshot_instance_segmentation.contract import FewShotProtocol
from benchsuite.tasks.fewshot_instance_segmentation.shots import read_meta_detr_shots, read_tfa_shots
from benchsuite.tasks.fewshot_instance_segmentation.task import GeneralisedFewShot

CASES = pytest.mark.parametrize("cases", [30, pytest.param(2000, marks=pytest.mark.slow)])
WRONG = (None, True, float("nan"), float("inf"), -float("inf"), 10**400, 1e300, 0.5, [], {}, "", "x", "\ud800", "1\n")
ENCODINGS = ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1")
SQUARES = {1: (12, 6, 8, 6), 8: (24, 3, 9, 5)}


def changes(document: Any) -> Any:
    """Draw changes of a JSON document; each is bytes of a file, and what was done."""

    @st.composite
    def one(draw: Any) -> tuple[bytes, str]:
        changed = json.loads(json.dumps(document))
        done = []
        for _ in range(draw(st.integers(0, 2))):
            done.append(_change(draw, changed))
        text = json.dumps(changed, indent=draw(st.sampled_from([None, 1])))
        ending = draw(st.sampled_from(["\n", "\r\n", "\n\n  "]))
        content = text.replace("\n", ending).encode(draw(st.sampled_from(ENCODINGS)))
        how = draw(st.sampled_from(["whole"] * 6 + ["cut", "doubled key", "bytes"]))
        if how == "cut":
            content = content[: draw(st.integers(0, len(content) - 1))]
        if how == "doubled key":
            key, value = draw(st.sampled_from([("id", 1), ("image_id", 1), ("category_id", 8), ("bbox", [1, 1, 2, 2])]))
            content = content.replace(f'"{key}":'.encode(), f'"{key}": {value}, "{key}":'.encode(), 1)
        if how == "bytes":
            content += draw(st.binary(min_size=1, max_size=4))
        return content, " ".join([*done, how])

    return one()


def _change(draw: Any, changed: Any) -> str:
    *outer, last = draw(st.sampled_from(paths_of(changed)))
    place = changed
    for key in outer:
        place = place[key]
    kinds = ["same", "wrong", "wrong", "negative", "wrapped", "removed", "shuffled", "twice"]
    kind = draw(st.sampled_from(kinds))
    value = place[last]
    plain = type(value) in (int, float) and abs(value) < 1e9
    measure = "bbox" in outer or "segmentation" in outer or last in ("score", "area")
    if kind == "same" and plain:
        place[last] = draw(st.sampled_from([float(value), str(int(value)) if float(value).is_integer() else value]))
    elif kind == "wrong":
        wrong = draw(st.sampled_from(WRONG))
        empty = wrong == [] and last == "annotations"
        if empty or (last == "iscrowd" and wrong is True) or (measure and wrong == 0.5):  # another truth, not a fault
            wrong = None
        place[last] = wrong
        return f"wrong:{last}"
    elif kind == "negative" and plain and (outer[-1:] != ["bbox"] or last > 1):
        place[last] = -value
    elif kind == "wrapped":
        place[last] = [value]
    elif kind == "removed" and isinstance(place, dict):
        del place[last]
    elif kind == "shuffled" and isinstance(value, list) and value and isinstance(value[0], dict):
        place[last] = draw(st.permutations(value))
    elif kind == "twice" and isinstance(place, list) and isinstance(value, dict):
        place.append(json.loads(json.dumps(value)))
        return f"twice:{len(outer)}"
    return kind


def same_or_one_line(read: Callable[[], Any], expected: Any) -> bool:
    """Return whether it was read; what it gave then equals what is expected."""
    try:
        found = read()
    except UserError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 1000
        return False
    assert found == expected
    return True


def shape_of(box: tuple[int, int, int, int]) -> np.ndarray:
    x, y, w, h = box
    mask = np.zeros((20, 40), dtype=bool)
    mask[y : y + h, x : x + w] = True
    return mask


def truth() -> dict[str, Any]:
    """Return three images with objects of two classes, as polygons, run lengths and compressed ones."""
    annotations = []
    for image in (1, 2, 3):
        for category, (x, y, w, h) in SQUARES.items():
            packed = coco.encode_mask(shape_of((x, y, w, h)))
            shapes = [[[x, y, x + w, y, x + w, y + h, x, y + h]], packed]
            shapes.append({"size": [20, 40], "counts": coco.values.run_lengths(packed, 20, 40)})
            number = len(annotations) + 1
            annotations.append(
                {
                    "id": number, "image_id": image, "category_id": category, "bbox": [x, y, w, h], "area": w * h,
                    "iscrowd": 0, "segmentation": shapes[number % 3],
                }
            )  # fmt: skip
    images = [{"id": i, "height": 20, "width": 40, "file_name": f"{i}.png", "license": 3} for i in (1, 2, 3)]
    categories = [{"id": 1, "name": "person"}, {"id": 8, "name": "truck"}]
    return {"info": {"year": 2017}, "images": images, "annotations": annotations, "categories": categories}


def results() -> list[dict[str, Any]]:
    return [
        {
            "image_id": image, "category_id": category, "score": 0.75, "bbox": [float(v) for v in box],
            "segmentation": coco.encode_mask(shape_of(box)),
        }
        for image in (1, 2, 3) for category, box in SQUARES.items()
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "annotations").mkdir()
    for part in ("train2017", "val2017"):
        (tmp_path / part).mkdir()
        for number in (1, 2, 3):
            Image.new("RGB", (40, 20), (number, 0, 0)).save(tmp_path / part / f"{number}.png")
        (tmp_path / "annotations" / f"instances_{part}.json").write_text(json.dumps(truth()))
    return tmp_path


def content_of(dataset: coco.CocoDataset) -> Any:
    """Return what methods and judge see of a data set, whatever the order of its file."""

    def of(record: coco.Record) -> Any:
        objects = [
            (i.annotation_id, i.category_id, i.iscrowd, i.box, i.mask.tobytes(), a["area"])
            for i, a in zip(record.instances(), record.annotations, strict=True)
        ]
        return record.image_id, record.pixels().tobytes(), sorted(objects)

    return dict(dataset.categories), [[of(record) for record in part] for part in (dataset.train, dataset.test)]


@CASES
@pytest.mark.parametrize("part", ["train2017", "val2017"])
def test_annotation_files(cases: int, part: str, folder: Path) -> None:
    expected = content_of(coco.load_coco(folder, 0))
    (folder / "results.json").write_text(json.dumps(results()))
    file = folder / "annotations" / f"instances_{part}.json"
    read = []

    def check(case: tuple[bytes, str]) -> None:
        file.write_bytes(case[0])

        def load() -> Any:
            dataset = coco.load_coco(folder, 0)
            dataset.verify()
            outcome = GeneralisedFewShot().score(
                folder / "results.json", {"train": dataset, "test": dataset}, FewShotProtocol()
            )
            assert outcome.scores["ap"] == pytest.approx(1.0)
            return content_of(dataset)

        read.append(same_or_one_line(load, expected))

    forall(cases, changes(truth()), check)
    assert 0 < sum(read) < len(read)


@CASES
def test_results_files(cases: int, folder: Path) -> None:
    dataset = coco.load_coco(folder, 0)
    file = folder / "results.json"

    def score() -> Any:
        outcome = GeneralisedFewShot().score(file, {"train": dataset, "test": dataset}, FewShotProtocol())
        return {name: None if value is None else round(value, 9) for name, value in outcome.scores.items()}

    file.write_text(json.dumps(results()))
    expected = score()
    assert expected["ap"] == 1.0
    read = []

    def check(case: tuple[bytes, str]) -> None:
        file.write_bytes(case[0])
        if "twice" in case[1]:  # a second detection, which counts as a false one
            read.append(same_or_one_line(lambda: {k: v is None or 0 <= v <= 1 for k, v in score().items()}, every))
            return
        read.append(same_or_one_line(score, expected))

    every = dict.fromkeys(expected, True)
    forall(cases, changes(results()), check)
    assert 0 < sum(read) < len(read)


@CASES
@pytest.mark.parametrize("source", ["tfa", "meta-detr"])
def test_files_of_shots(cases: int, source: str, folder: Path) -> None:
    train = coco.load_coco(folder, 0).train
    entries = [{k: v for k, v in a.items() if k != "segmentation"} for a in truth()["annotations"]]
    if source == "tfa":
        entries = [entry for entry in entries if entry["category_id"] == 1]
        file = folder / "cocosplit" / "seed1" / "full_box_3shot_person_trainval.json"
        expected = {1: [1, 3, 5]}
    else:
        file = folder / "coco_fewshot" / "seed1" / "3shot.json"
        expected = {1: [1, 3, 5], 8: [2, 4, 6]}
    file.parent.mkdir(parents=True)
    read = []

    def check(case: tuple[bytes, str]) -> None:
        file.write_bytes(case[0])

        def load() -> Any:
            reader = read_tfa_shots if source == "tfa" else read_meta_detr_shots
            found = reader(folder, {1: "person"} if source == "tfa" else {1: "person", 8: "truck"}, 3, 1, train)
            assert read_shots(file)
            return {category: sorted(ids) for category, ids in found.items()}

        read.append(same_or_one_line(load, expected))

    forall(cases, changes({"images": [{"id": 1}], "annotations": entries}), check)
    assert 0 < sum(read) < len(read)


@CASES
def test_picture_files(cases: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 18, 3), dtype=np.uint8)
    file = tmp_path / "p"
    modes = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F", "LAB"]

    def encoded(mode: str, kind: str, turn: int | None, second: bool) -> tuple[bytes, str, np.ndarray] | None:
        picture = Image.fromarray(pixels)
        if mode == "I;16":
            picture = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
        else:
            picture = picture.convert("L").convert(mode) if mode in ("I", "F") else picture.convert(mode)
        exif, stream = Image.Exif(), io.BytesIO()
        if turn is not None:
            exif[0x0112] = turn
        more = {"save_all": True, "append_images": [picture]} if second and kind in ("TIFF", "GIF") else {}
        try:
            picture.save(stream, kind, exif=exif, **more)
        except (OSError, KeyError, ValueError):
            return None
        stored = Image.open(io.BytesIO(stream.getvalue()))
        return stream.getvalue(), stored.mode, np.asarray(stored.convert("RGB"))

    def check(case: tuple[str, str, int | None, bool, int]) -> None:
        made = encoded(*case[:4])
        if made is None:
            return
        content, mode, expected = made
        file.write_bytes(content[: case[4]] if case[4] < len(content) // 2 else content)
        try:
            found = coco.Record(1, 12, 18, str(file)).pixels()
        except DataError as error:
            assert str(error).isprintable()
            return
        assert mode in ("1", "L", "LA", "P", "RGB", "RGBA")
        assert case[2] not in (2, 3, 4) or case[1] not in ("PNG", "TIFF", "JPEG")
        assert found.dtype == np.uint8
        assert np.array_equal(found, expected)

    forall(
        cases,
        st.tuples(
            st.sampled_from(modes),
            st.sampled_from(["PNG", "TIFF", "JPEG", "GIF", "BMP"]),
            st.sampled_from([None, None, *range(10)]),
            st.booleans(),
            st.integers(0, 2000),
        ),
        check,
    )


@CASES
def test_idx_files(cases: int, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    from benchsuite.datasets.small_images.reader import load_fashion_mnist

    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    sound: dict[str, bytes] = {}
    for prefix, count in (("train", 20), ("t10k", 10)):
        pictures = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        sound[f"{prefix}-images-idx3-ubyte"] = struct.pack(">4i", 2051, count, 28, 28) + pictures.tobytes()
        sound[f"{prefix}-labels-idx1-ubyte"] = struct.pack(">2i", 2049, count) + bytes(i % 10 for i in range(count))
    for name, content in sound.items():
        (raw / name).write_bytes(content)

    def load() -> Any:
        found = load_fashion_mnist(tmp_path, 0)
        return [a.tobytes() for a in (found.train_images, found.train_labels, found.test_images, found.test_labels)]

    expected = load()
    read: list[bool] = []
    word = st.sampled_from([0, 1, 5, 10, 14, 20, 28, 40, 56, 2049, 2051, 0x0B03, 0x0D03, -1, 2**31 - 1])
    kinds = st.sampled_from(["none", "header", "little endian", "cut", "longer", "label", "other file"])

    def check(case: tuple[str, str, int, int, int]) -> None:
        name, kind, place, value, length = case
        content = bytearray(sound[name])
        header = 16 if "images" in name else 8
        if kind == "header":
            content[4 * place % header : 4 * place % header + 4] = struct.pack(">i", value)
        elif kind == "little endian":
            for start in range(0, header, 4):
                content[start : start + 4] = content[start : start + 4][::-1]
        elif kind == "cut":
            del content[-length:]
        elif kind == "longer":
            content += bytes(length)
        elif kind == "label" and "labels" in name:
            content[-1] = 10 + length % 246
        elif kind == "other file":
            content = bytearray(sound[sorted(sound)[place % 4]])
            if sound[name][:8] == content[:8]:
                return
        (raw / name).write_bytes(content)
        try:
            read.append(same_or_one_line(load, expected))
        finally:
            (raw / name).write_bytes(sound[name])

    lengths = st.integers(1, 900)
    forall(cases, st.tuples(st.sampled_from(sorted(sound)), kinds, st.integers(0, 3), word, lengths), check)
    assert 0 < sum(read) < len(read)
