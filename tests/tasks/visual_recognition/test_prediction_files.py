"""Files of predictions: what a run writes is read back, what is wrong is told in one line."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("PIL")
pytest.importorskip("hotcoco")

from PIL import Image

from benchsuite.core.errors import DataError
from benchsuite.tasks.visual_recognition.prediction_files import (
    LabelMapFile,
    read_boxes,
    read_classes,
    write_boxes,
    write_classes,
    write_maps,
)

NAMES = ("val/a b,c.JPEG", "val/b.JPEG", "0")
BEST = np.array([[0, 2, 1], [1, 0, 2], [2, 1, 0]])


def _said(caught: Any) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_ranked_classes_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_classes(path, NAMES, BEST)
    assert path.read_text().splitlines()[0] == "picture,first,second,third"
    assert np.array_equal(read_classes(path, NAMES, 3, 3), BEST)


def test_rows_may_come_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_classes(path, NAMES[::-1], BEST[::-1])
    assert np.array_equal(read_classes(path, NAMES, 3, 3), BEST)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("0,0,1\nval/b.JPEG,1,0\nother,0,1", "line 4: there is no test picture 'other'"),
        ("0,0,1\n0,1,0", "line 3: the picture '0' stands there twice"),
        ("0,0,1", "lacks 2 of 3 pictures"),
        ("0,3,1", "line 2: first is 3: there are 3 classes"),
        ("0,-1,1", "line 2: first is -1"),
        ("0,1,1", "line 2: ranks one class twice"),
        ("0,1.5,1", "line 2: first is '1.5', needs a whole number"),
        ("0,1", "has 2 cells"),
        ("", "has 0 rows"),
    ],
)
def test_wrong_rows_are_told(tmp_path: Path, rows: str, said: str) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(f"picture,first,second\n{rows}\n")
    with pytest.raises(DataError, match=said) as caught:
        read_classes(path, NAMES, 3, 2)
    _said(caught)


def test_a_table_without_ranks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text("picture,class\n0,1\n")
    with pytest.raises(DataError, match="lacks the columns first, second"):
        read_classes(path, NAMES, 3, 2)


MAPS = {"training/x": np.array([[0, 1, 2]], dtype=np.uint8), "y": np.array([[2], [0]], dtype=np.uint8)}


def test_label_maps_are_read_back_and_equal_maps_give_equal_bytes(tmp_path: Path) -> None:
    path, again = tmp_path / "predictions.zip", tmp_path / "again.zip"
    write_maps(path, MAPS.items())
    write_maps(again, MAPS.items())
    assert path.read_bytes() == again.read_bytes()
    file = LabelMapFile(path, tuple(MAPS), 3)
    for name, labels in MAPS.items():
        assert np.array_equal(file.read(name, labels.shape), labels)


def _png(labels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(labels).save(content, format="PNG")
    return content.getvalue()


def _zip(path: Path, members: list[tuple[str, bytes]]) -> Path:
    import warnings

    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of doubled names
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("y.png", _png(MAPS["y"]))], "lacks 1 of 2 pictures, e.g. 'training/x.png'"),
        ([("training/x.png", b""), ("y.png", b""), ("z.png", b"")], "'z.png' is no test picture"),
        (
            [("training/x.png", b""), ("y.png", b""), ("y.png", b"")],
            "'y.png' is no test picture, or stands there twice",
        ),
    ],
)
def test_wrong_members_are_told(tmp_path: Path, members: list[tuple[str, bytes]], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        LabelMapFile(_zip(tmp_path / "p.zip", members), tuple(MAPS), 3)
    _said(caught)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a readable picture"),
        (_png(np.array([[0], [3]], dtype=np.uint8)), "holds 3: there are 3 classes"),
        (_png(np.array([[0, 1]], dtype=np.uint8)), r"is \(1, 2\), the true label map \(2, 1\)"),
        (_png(np.zeros((2, 1, 3), dtype=np.uint8)), "stores its pixels as RGB"),
        (_png(np.zeros((2, 1), dtype=np.uint16)), "with 8 bits"),
    ],
)
def test_wrong_maps_are_told(tmp_path: Path, content: bytes, said: str) -> None:
    path = _zip(tmp_path / "p.zip", [("y.png", content)])
    with pytest.raises(DataError, match=said) as caught:
        LabelMapFile(path, ("y",), 3).read("y", (2, 1))
    assert "y.png" in _said(caught)


def test_no_zip_at_all(tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    for content in (b"", b"PK\x03\x04", _png(MAPS["y"])):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a ZIP of label maps") as caught:
            LabelMapFile(path, ("y",), 3)
        _said(caught)


def test_a_member_whose_bytes_were_changed_is_told(tmp_path: Path) -> None:
    path = _zip(tmp_path / "p.zip", [("y.png", _png(MAPS["y"]))])
    content = bytearray(path.read_bytes())
    content[60] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"y.png: cannot be unpacked"):
        LabelMapFile(path, ("y",), 3).read("y", (2, 1))


SIZES = {1: (50, 60), 7: (40, 30)}
TRUTH = {1: np.array([[1.0, 2, 30, 20]]), 7: np.zeros((0, 4))}
ONE: dict[str, Any] = {"image_id": 1, "category_id": 3, "score": 0.5, "bbox": [1.5, 2, 30, 20.25]}


def _read(path: Path, content: Any) -> list[dict[str, Any]]:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_boxes(path, SIZES, TRUTH, (3, 9))


def test_boxes_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    given = [ONE, {**ONE, "image_id": 7, "category_id": 9, "bbox": [0.0, 0.0, 0.0, 3.0]}, ONE]
    write_boxes(path, given)
    assert _read(path, path.read_text()) == given
    assert _read(path, []) == []
    assert _read(path, [{**ONE, "segmentation": None, "image_id": "1"}]) == [ONE]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_id": 2}, "image 2 is no test picture"),
        ({"category_id": 1}, "category 1 is none of the data"),
        ({"score": 2}, "score is 2: scores lie in"),
        ({"score": None}, "score is None"),
        ({"bbox": [1, 2, 3]}, "needs a bbox of four numbers"),
        ({"bbox": [1, 2, -3, 3]}, "must not be negative"),
        ({"bbox": [1, 2, 300, 3]}, "beyond its image"),
        ({"bbox": [1, float("nan"), 3, 3]}, "bbox"),
        ({"image_id": True}, "image_id is True"),
    ],
)
def test_wrong_detections_are_told_with_their_place(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        _read(tmp_path / "p.json", [ONE, {**ONE, **change}])
    assert "detection 2" in _said(caught)


@pytest.mark.parametrize("missing", sorted(ONE))
def test_missing_fields_are_told(tmp_path: Path, missing: str) -> None:
    with pytest.raises(DataError, match=f"it has no {missing}"):
        _read(tmp_path / "p.json", [{key: value for key, value in ONE.items() if key != missing}])


@pytest.mark.parametrize("content", ["{}", "[", "[1]", '{"annotations": []}', ""])
def test_no_list_of_detections(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match="COCO results file") as caught:
        _read(tmp_path / "p.json", content)
    _said(caught)


def test_boxes_in_fractions_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not in fractions"):
        _read(tmp_path / "p.json", [{**ONE, "bbox": [0.1, 0.2, 0.3, 0.4]}])


@given(st.lists(st.permutations(range(6)), min_size=1, max_size=6))
def test_any_ranks_are_read_back(tmp_path_factory: Callable[..., Any], ranks: list[list[int]]) -> None:
    path = tmp_path_factory.mktemp("ranks") / "predictions.csv"  # type: ignore[attr-defined]
    names = [f"n{number}" for number in range(len(ranks))]
    best = np.array(ranks)[:, :5]
    write_classes(path, names, best)
    assert np.array_equal(read_classes(path, names, 6, 5), best)
