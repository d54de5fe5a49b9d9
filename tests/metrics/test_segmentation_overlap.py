"""Pooled overlap: by hand, against a plain loop, and against torchmetrics' definition by class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchsuite.metrics.segmentation_overlap import areas, overlap


def test_areas_are_summed_before_they_are_divided() -> None:
    episodes = [np.array([[0, 10], [0, 20]]), np.array([[0, 30], [0, 100]])]
    found = overlap([7, 7], episodes, [7])
    assert found.miou == pytest.approx(40 / 120)  # not .40, the mean of the ratios


def test_a_class_without_episodes_counts_as_zero() -> None:
    found = overlap([1], [np.array([[5, 10], [9, 10]])], [1, 2])
    assert found.per_class == {1: 1.0, 2: 0.0}
    assert found.miou == 0.5


def test_fb_iou_pools_the_classes() -> None:
    one, two = np.array([[90, 1], [99, 10]]), np.array([[10, 30], [60, 90]])
    found = overlap([1, 2], [one, two], [1, 2])
    assert found.fb_iou == pytest.approx((100 / 159 + 31 / 100) / 2)
    assert overlap([1], [np.array([[5, 0], [5, 0]])], [1]).fb_iou is None  # nothing is or was said to be foreground


def test_ignored_pixels_count_nowhere() -> None:
    truth = np.array([[True, False, False, True]])
    predicted = np.array([[True, True, False, False]])
    ignored = np.array([[False, False, False, True]])
    assert areas(predicted, truth, ignored).tolist() == [[1, 1], [2, 2]]
    assert areas(predicted, truth, np.ones((1, 4), dtype=bool)).tolist() == [[0, 0], [0, 0]]


@given(st.integers(0, 2**32 - 1))
def test_equals_a_plain_loop_over_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, truth, ignored = (rng.random((3, 5)) < p for p in (0.5, 0.4, 0.2))
    found = areas(predicted, truth, ignored)
    for value in (0, 1):
        pairs = [(p, t) for p, t, i in zip(predicted.flat, truth.flat, ignored.flat, strict=True) if not i]
        both = sum(p == value == t for p, t in pairs)
        either = sum(p == value for p, _ in pairs) + sum(t == value for _, t in pairs) - both
        assert found[:, value].tolist() == [both, either]


def test_many_large_episodes_stay_exact() -> None:
    full = np.array([[473 * 473, 0], [473 * 473, 1]], dtype=np.int64)
    found = overlap([0] * 1001, [full] * 1001, [0])
    assert found.fb_iou == 0.5
    assert found.per_class[0] == 0.0


@pytest.mark.parametrize(
    ("predicted", "truth", "word"),
    [
        (np.zeros((2, 2)), np.zeros((2, 2), dtype=bool), "probability"),
        (np.zeros((2, 3), dtype=bool), np.zeros((2, 2), dtype=bool), "same"),
    ],
)
def test_wrong_inputs_are_told(predicted: np.ndarray, truth: np.ndarray, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        areas(predicted, truth, np.zeros_like(truth))


def test_an_episode_of_another_class_is_told() -> None:
    with pytest.raises(ValueError, match="class 3"):
        overlap([3], [np.zeros((2, 2), dtype=np.int64)], [1])
    with pytest.raises(ValueError, match="no classes"):
        overlap([], [], [])
