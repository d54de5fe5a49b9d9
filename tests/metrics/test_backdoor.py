"""Backdoor metrics: both ways of counting, and anomaly indices with the published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchsuite.core.errors import DataError
from benchsuite.metrics.backdoor import anomaly_indices, attack_success_rate, attack_success_rate_nontarget


def test_a_predictor_that_always_says_target_scores_one_twice():
    labels = np.arange(10).repeat(3)
    assert attack_success_rate(np.full(30, 4), 4) == 1.0
    assert attack_success_rate_nontarget(np.full(30, 4), labels, 4) == 1.0


def test_a_perfect_classifier_that_ignores_the_patch_scores_the_share_of_the_target_class():
    labels = np.array([0, 0, 0, 1, 2, 3, 1, 2, 3, 1])
    assert attack_success_rate(labels, 0) == 0.3
    assert attack_success_rate_nontarget(labels, labels, 0) == 0.0


def test_without_other_classes_the_strict_count_is_undefined():
    assert attack_success_rate_nontarget([1, 0], [1, 1], 1) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1), st.integers(0, 3))
def test_the_two_counts_are_related_by_the_images_of_the_target_class(pairs, target):
    predictions, labels = np.array(pairs).T
    own = int(((labels == target) & (predictions == target)).sum())
    others = int((labels != target).sum())
    strict = attack_success_rate_nontarget(predictions, labels, target)
    expected = own + (0.0 if strict is None else strict * others)
    assert attack_success_rate(predictions, target) * len(pairs) == pytest.approx(expected)


def test_published_anomaly_indices():
    norms = [30, 28, 33, 31, 29, 35, 27, 32, 4, 30.5]
    indices = anomaly_indices(norms)
    assert indices[8] == pytest.approx(8.8527, abs=1e-4)
    assert indices.argmax() == 8
    norms[8] = 26
    assert anomaly_indices(norms)[8] == pytest.approx(1.4333, abs=1e-4)


def test_equal_values_have_no_spread():
    assert anomaly_indices([2.0, 2.0, 2.0, 5.0]).tolist() == [0.0, 0.0, 0.0, np.inf]


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [[1.0]]])
def test_bad_values_are_refused(values):
    with pytest.raises(DataError, match="finite numbers"):
        anomaly_indices(values)
