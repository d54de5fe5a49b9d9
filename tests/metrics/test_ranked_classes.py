"""Top-k accuracy against scikit-learn, ties, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from benchsuite.core.errors import DataError
from benchsuite.metrics.ranked_classes import ranked, top_k_accuracy


@given(st.integers(1, 30), st.integers(3, 12), st.data())
def test_equals_scikit_learn(items: int, classes: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, classes))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    scores, labels = rng.normal(size=(items, classes)), rng.integers(classes, size=items)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k = C
        expected = top_k_accuracy_score(labels, scores, k=k, labels=np.arange(classes))
    assert top_k_accuracy(ranked(scores, k), labels, k) == pytest.approx(expected, abs=1e-12)


def test_equal_scores_are_ranked_by_class_index() -> None:
    assert ranked(np.array([[1.0, 2.0, 2.0, 1.0]]), 4).tolist() == [[1, 2, 0, 3]]


def test_numbers_that_single_precision_cannot_negate_apart_stay_in_order() -> None:
    assert ranked(np.array([[-0.0, 0.0, -1.0]], dtype=np.float32), 3).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("scores", "k", "said"),
    [
        (np.zeros(3), 1, "give real numbers"),
        (np.array([[np.nan, 1.0]]), 1, "NaN or infinite"),
        (np.zeros((2, 3)), 4, "no 4 best of 3"),
        (np.zeros((2, 3)), 0, "no 0 best"),
        (np.array([["a"]]), 1, "give real numbers"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores: np.ndarray, k: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        ranked(scores, k)


@pytest.mark.parametrize("best", [np.zeros((2, 2), int), np.zeros((3, 1), int), np.zeros(3, int)])
def test_ranks_that_do_not_fit_the_labels_are_refused(best: np.ndarray) -> None:
    with pytest.raises(DataError, match="ranked classes of shape"):
        top_k_accuracy(best, np.zeros(3, int), 2)
