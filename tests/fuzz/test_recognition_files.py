"""Sound pictures, label maps and files of predictions, changed at random: the same content, or one line.

With ``--slow`` each property is tried on 2,000 cases.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

pytest.importorskip("hotcoco")
pytest.importorskip("PIL")

from PIL import Image
from support import forall, paths_of

from benchsuite.core.errors import DataError
from benchsuite.datasets.picture_files import read_label_map, read_rgb
from benchsuite.tasks.visual_recognition.prediction_files import LabelMapFile, read_boxes, read_classes

CASES = pytest.mark.parametrize("cases", [30, pytest.param(2000, marks=pytest.mark.slow)])
LABELS = np.arange(12, dtype=np.uint8).reshape(3, 4)
PIXELS = np.random.default_rng(0).integers(0, 256, size=(9, 7, 3), dtype=np.uint8)
WRONG = (None, True, float("nan"), float("inf"), 10**400, 1e300, -1, 0.5, [], {}, "", "x")


def _stored(array: np.ndarray, kind: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(array).save(content, format=kind)
    return content.getvalue()


def damaged(content: bytes) -> Any:
    """Draw bytes that are cut, changed or lengthened somewhere."""

    @st.composite
    def one(draw: Any) -> bytes:
        place = draw(st.integers(0, len(content) - 1))
        how = draw(st.sampled_from(["cut", "changed", "doubled", "whole"]))
        if how == "cut":
            return content[:place]
        if how == "changed":
            return content[:place] + draw(st.binary(min_size=1, max_size=3)) + content[place + 1 :]
        return content + content[place:] if how == "doubled" else content

    return one()


def _one_line(error: DataError) -> None:
    assert "\n" not in str(error)


@CASES
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pictures(tmp_path: Path, cases: int, kind: str) -> None:
    path = tmp_path / "p.jpg"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            found = read_rgb(path)
        except DataError as error:
            _one_line(error)
            assert "p.jpg" in str(error)
            return
        assert found.dtype == np.uint8
        assert found.ndim == 3

    forall(cases, damaged(_stored(PIXELS, kind)), check)


@CASES
def test_label_maps(tmp_path: Path, cases: int) -> None:
    path = tmp_path / "p.png"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            found = read_label_map(path)
        except DataError as error:
            _one_line(error)
            return
        assert found.ndim == 2

    forall(cases, damaged(_stored(LABELS, "PNG")), check)


@CASES
def test_files_of_label_maps(tmp_path: Path, cases: int) -> None:
    path = tmp_path / "p.zip"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in ("a", "b"):
            archive.writestr(f"{name}.png", _stored(LABELS, "PNG"))

    def check(changed: bytes) -> None:
        path.write_bytes(changed)
        try:
            file = LabelMapFile(path, ("a", "b"), 12)
            found = [file.read(name, LABELS.shape) for name in ("a", "b")]
        except DataError as error:
            _one_line(error)
            return
        for labels in found:
            assert np.array_equal(labels, LABELS), "what is damaged is told by its check sum"

    forall(cases, damaged(content.getvalue()), check)


@CASES
def test_ranked_classes(tmp_path: Path, cases: int) -> None:
    path = tmp_path / "p.csv"
    text = "picture,first,second\na,0,1\nb,2,0\n"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            found = read_classes(path, ("a", "b"), 3, 2)
        except DataError as error:
            _one_line(error)
            return
        assert found.shape == (2, 2)
        assert ((found >= 0) & (found < 3)).all()

    forall(cases, damaged(text.encode()), check)


@CASES
def test_detections(tmp_path: Path, cases: int) -> None:
    path = tmp_path / "p.json"
    document = [
        {"image_id": 1, "category_id": 3, "score": 0.5, "bbox": [1, 2.5, 3, 4]},
        {"image_id": 2, "category_id": 9, "score": 1, "bbox": [0, 0, 20, 9]},
    ]

    @st.composite
    def changed(draw: Any) -> list[Any]:
        found = json.loads(json.dumps(document))
        *outer, last = draw(st.sampled_from(paths_of(found)))
        place: Any = found
        for key in outer:
            place = place[key]
        place[last] = draw(st.sampled_from(WRONG))
        return found  # type: ignore[no-any-return]

    def check(given: list[Any]) -> None:
        path.write_text(json.dumps(given))
        try:
            found = read_boxes(path, {1: (20, 30), 2: (20, 30)}, {1: np.zeros((0, 4)), 2: np.zeros((0, 4))}, (3, 9))
        except DataError as error:
            _one_line(error)
            return
        for one in found:
            assert one["image_id"] in (1, 2)
            assert one["category_id"] in (3, 9)
            assert 0 <= one["score"] <= 1
            assert np.isfinite(one["bbox"]).all()
            assert min(one["bbox"][2:]) >= 0

    forall(cases, changed(), check)
