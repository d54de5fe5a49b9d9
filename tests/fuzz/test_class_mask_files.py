"""Lists, label maps and predicted masks, changed at random: the same content, or one line that tells.

With ``--slow`` each property is tried on 2,000 cases.
"""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
pytest.importorskip("hotcoco")

from PIL import Image

from benchsuite.core.errors import UserError
from benchsuite.datasets.class_masks.images import class_mask, read_labels
from benchsuite.datasets.class_masks.lists import read_pairs, read_pickled
from benchsuite.metrics.segmentation_overlap import areas
from benchsuite.tasks.fewshot_semantic_segmentation.episodes import Draw
from benchsuite.tasks.fewshot_semantic_segmentation.judge import read_predictions, write_predictions

CASES = pytest.mark.parametrize("cases", [30, pytest.param(2000, marks=pytest.mark.slow)])
DRAWS = [Draw(f"q{n}", ("s",), n % 2) for n in range(3)]
MASKS = [np.random.default_rng(n).random((9, 7)) > 0.5 for n in range(3)]
WRONG = (None, True, 0.5, -1, 10**30, float("nan"), "", "x", [], {}, [[1]], "\n", "\ud800")


def forall(cases: int, strategy: Any, check: Any) -> None:
    """Run ``check`` on that many drawn cases."""
    limits = settings(max_examples=cases, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    limits(given(strategy)(check))()


def one_line(error: UserError) -> None:
    assert str(error).isprintable()
    assert len(str(error)) < 1000


@CASES
def test_lists_of_pairs_are_read_as_they_stand_or_refused(tmp_path: Path, cases: int) -> None:
    path = tmp_path / "fold0.txt"
    name = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)
    pairs = st.lists(st.tuples(name, st.integers(0, 7)), max_size=5)
    noise = st.sampled_from(["", "\n", "\r\n", "x__1", "__01", "\x00", "a__01\n", "﻿"])

    def check(case: tuple[list[tuple[str, int]], str, str]) -> None:
        lines, end, more = case
        text = end.join(f"{image}__{label + 1:02d}" for image, label in lines) + more
        path.write_bytes(text.encode())
        try:
            found = read_pairs(path, range(5))
        except UserError as error:
            one_line(error)
            return
        kept = [tuple(line) for line in found]
        assert all(label < 5 for _, label in kept)
        if more in ("", "\n", "\r\n"):
            assert kept == lines

    forall(cases, st.tuples(pairs, st.sampled_from(["\n", "\r\n"]), noise), check)


@CASES
def test_pickles_are_read_as_they_stand_or_refused(tmp_path: Path, cases: int) -> None:
    path = tmp_path / "fold0.pkl"
    plain = st.dictionaries(st.integers(0, 79), st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=4))
    other = st.recursive(
        st.none() | st.integers() | st.text(max_size=3) | st.floats() | st.binary(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers(0, 3), inner, max_size=3),
        max_leaves=6,
    )

    def check(case: tuple[Any, int, bytes, int]) -> None:
        content, protocol, more, cut = case
        data = pickle.dumps(content, protocol=protocol)
        path.write_bytes(data[: len(data) - cut] + more)
        try:
            found = read_pickled(path, 80)
        except UserError as error:
            one_line(error)
            return
        if not cut and not more:
            assert found == {label: tuple(images) for label, images in content.items()}

    forall(cases, st.tuples(plain | other, st.integers(0, 5), st.binary(max_size=3), st.integers(0, 2)), check)


@CASES
def test_label_maps_are_read_exactly_or_refused(tmp_path: Path, cases: int) -> None:
    path = tmp_path / "x.png"
    values = st.lists(st.sampled_from([0, 1, 2, 20, 255]), min_size=12, max_size=12)

    def check(case: tuple[list[int], str, int]) -> None:
        drawn, mode, cut = case
        labels = np.array(drawn, dtype=np.uint8).reshape(3, 4)
        image = Image.fromarray(labels)
        if mode == "P":
            image = image.convert("P")
        elif mode != "L":
            image = image.convert(mode)
        stream = io.BytesIO()
        image.save(stream, "PNG")
        content = stream.getvalue()
        path.write_bytes(content[: len(content) - cut])
        try:
            found = read_labels(path)
            target, ignored = class_mask(found, 1, str(path))
        except UserError as error:
            one_line(error)
            return
        assert mode in ("L", "P")
        if mode == "L":
            assert np.array_equal(found, labels)
            assert np.array_equal(target, labels == 1)
            assert np.array_equal(ignored, labels == 255)

    forall(cases, st.tuples(values, st.sampled_from(["L", "P", "RGB", "1", "I;16"]), st.integers(0, 40)), check)


@CASES
def test_predictions_are_scored_as_they_stand_or_refused(tmp_path: Path, cases: int) -> None:
    path = tmp_path / "predictions.json"
    write_predictions(path, 1, DRAWS, MASKS)
    whole = json.loads(path.read_text())
    sizes = [(9, 7)] * 3
    key = st.sampled_from(["fold", "episode", "query", "segmentation"])
    change = st.tuples(st.integers(0, 2), key, st.sampled_from(WRONG), st.sampled_from(["set", "drop", "keep"]))

    def check(case: tuple[list[Any], list[Any], int]) -> None:
        changes, order, cut = case
        entries = json.loads(json.dumps([whole[i] for i in order]))
        harmed = False
        for place, name, value, how in changes:
            if place < len(entries) and how == "set":
                entries[place][name], harmed = value, True
            elif place < len(entries) and how == "drop":
                harmed |= entries[place].pop(name, None) is not None
        text = json.dumps(entries)
        path.write_text(text[: len(text) - cut])
        try:
            found = read_predictions(path, range(2), lambda fold: (DRAWS, sizes))
        except UserError as error:
            one_line(error)
            assert harmed or cut or sorted(order) != [0, 1, 2]
            return
        assert not harmed
        assert list(found) == [1]
        for mask, expected in zip(found[1], MASKS, strict=True):
            assert np.array_equal(mask, expected)
            assert areas(mask, expected, np.zeros_like(mask))[0].sum() == 63

    orders = st.lists(st.integers(0, 2), max_size=4) | st.permutations([0, 1, 2])
    forall(cases, st.tuples(st.lists(change, max_size=2), orders, st.integers(0, 2)), check)
