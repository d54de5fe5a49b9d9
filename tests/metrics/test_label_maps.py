"""Areas and ratios of label maps: the hand case of the official function, plain loops, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from benchsuite.core.errors import DataError
from benchsuite.metrics.label_maps import areas, overlap

TRUTH = np.array([[0, 0, 1, 1], [2, 2, 255, 255], [0, 1, 2, 2]], dtype=np.uint8)
FOUND = np.array([[0, 1, 1, 1], [2, 3, 3, 0], [0, 1, 2, 0]], dtype=np.uint8)


def test_the_hand_case_of_the_official_function() -> None:
    found = overlap([areas(FOUND, TRUTH, 5)])
    assert found.iou == (0.5, 0.75, 0.5, 0.0, None)
    assert found.accuracy == (pytest.approx(2 / 3), 1.0, 0.5, None, None)
    assert found.miou == pytest.approx(0.4375)
    assert found.macc == pytest.approx(0.722222, abs=1e-6)
    assert found.aacc == pytest.approx(0.7)


def test_areas_are_summed_over_the_set_before_any_ratio() -> None:
    one = areas(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 0]), 2)
    other = areas(np.array([1, 1]), np.array([0, 1]), 2)
    assert overlap([one, other]).iou == (pytest.approx(4 / 5), 0.5)


def test_a_class_in_neither_map_is_left_out_and_one_that_is_only_predicted_counts_as_0() -> None:
    found = overlap([areas(np.array([0, 1]), np.array([0, 0]), 3)])
    assert found.iou == (0.5, 0.0, None)
    assert found.miou == 0.25
    assert found.macc == 0.5


def test_a_set_that_is_ignored_everywhere_has_no_ratio() -> None:
    found = overlap([areas(np.array([0, 1]), np.array([255, 255]), 2)])
    assert (found.miou, found.macc, found.aacc) == (None, None, None)


def _by_loops(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int) -> tuple[float | None, ...]:
    """Return mIoU, mAcc and aAcc, pixel by pixel."""
    both, found, true = [0] * classes, [0] * classes, [0] * classes
    for predicted, truth in pairs:
        for p, t in zip(predicted.ravel().tolist(), truth.ravel().tolist(), strict=True):
            if t == 255:
                continue
            found[p] += 1
            true[t] += 1
            both[t] += p == t
    ious = [b / (p + t - b) for b, p, t in zip(both, found, true, strict=True) if p + t]
    accuracies = [b / t for b, t in zip(both, true, strict=True) if t]
    return (
        sum(ious) / len(ious) if ious else None,
        sum(accuracies) / len(accuracies) if accuracies else None,
        sum(both) / sum(true) if sum(true) else None,
    )


@given(st.data(), st.integers(1, 6))
def test_equals_a_count_pixel_by_pixel(data: st.DataObject, classes: int) -> None:
    shape = st.tuples(st.integers(1, 4), st.integers(1, 5))
    labels = st.integers(0, classes - 1)
    pairs = []
    for _ in range(data.draw(st.integers(1, 3))):
        size = data.draw(shape)
        predicted = data.draw(npst.arrays(np.uint8, size, elements=labels))
        truth = data.draw(npst.arrays(np.uint8, size, elements=labels | st.just(255)))
        pairs.append((predicted, truth))
    found = overlap([areas(predicted, truth, classes) for predicted, truth in pairs])
    for got, expected in zip((found.miou, found.macc, found.aacc), _by_loops(pairs, classes), strict=True):
        assert (got is None) == (expected is None)
        assert got is None or got == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("predicted", "truth", "said"),
    [
        (np.zeros(3), np.zeros(3, int), "did you pass scores"),
        (np.zeros((2, 2), int), np.zeros((2, 3), int), "resize the prediction"),
        (np.array([2]), np.array([0]), "a predicted label is 2"),
        (np.array([-1]), np.array([0]), "a predicted label is -1"),
        (np.array([255]), np.array([0]), "a predicted label is 255"),
        (np.array([0]), np.array([7]), "neither one of 2 classes nor 255"),
    ],
)
def test_what_is_no_pair_of_label_maps_is_refused(predicted: np.ndarray, truth: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        areas(predicted, truth, 2)
    assert "\n" not in str(caught.value)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(DataError, match="no label map"):
        overlap([])
