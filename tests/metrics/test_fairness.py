"""Fairness metrics: hand cases, refusals, and parity with fairlearn."""

from __future__ import annotations

import itertools

import fairlearn.metrics as official
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchsuite.core.errors import DataError
from benchsuite.metrics.fairness import equal_opportunity_difference, statistical_parity_difference


@st.composite
def _population(draw, min_classes=2, max_classes=2, max_groups=2):
    num_classes = draw(st.integers(min_classes, max_classes))
    num_groups = draw(st.integers(2, max_groups))
    items = draw(st.integers(1, 60))

    def column(values):
        return draw(hnp.arrays(np.int64, items, elements=st.integers(0, values - 1)))

    return column(num_classes), column(num_classes), column(num_groups), num_classes


def test_hand_case():
    predictions = [1, 1, 0, 1, 0, 0, 1, 0]
    labels = [1, 1, 1, 0, 1, 1, 1, 1]
    sensitive = [0, 0, 0, 0, 1, 1, 1, 1]
    assert statistical_parity_difference(predictions, sensitive) == pytest.approx(3 / 4 - 1 / 4)
    assert equal_opportunity_difference(predictions, labels, sensitive) == pytest.approx(2 / 3 - 1 / 4)


def test_several_classes_and_groups_by_hand():
    predictions = [0, 1, 2, 2, 0, 0]
    sensitive = [0, 0, 1, 1, 2, 2]
    # Rates of classes 0, 1, 2: (1/2, 1/2, 0), (0, 0, 1), (1, 0, 0).
    assert statistical_parity_difference(predictions, sensitive) == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert statistical_parity_difference(predictions, sensitive, reduce="max") == pytest.approx(1)


@settings(deadline=None)
@given(_population(max_groups=4))
def test_two_classes_equal_fairlearn(population):
    predictions, labels, sensitive, _ = population
    ours = statistical_parity_difference(predictions, sensitive)
    if len(np.unique(sensitive)) < max(sensitive.max() + 1, 2):
        assert ours is None
        return
    parity = official.demographic_parity_difference(labels, predictions, sensitive_features=sensitive)
    assert ours == pytest.approx(parity, abs=1e-12)

    positives = [((sensitive == s) & (labels == 1)).sum() for s in range(sensitive.max() + 1)]
    ours = equal_opportunity_difference(predictions, labels, sensitive)
    if min(positives) == 0:
        assert ours is None
        return
    rates = official.MetricFrame(
        metrics=official.true_positive_rate, y_true=labels, y_pred=predictions, sensitive_features=sensitive
    )
    assert ours == pytest.approx(rates.difference(), abs=1e-12)
    peer = official.equal_opportunity_difference(labels, predictions, sensitive_features=sensitive)
    assert ours == pytest.approx(peer, abs=1e-12)


@settings(deadline=None)
@given(_population(min_classes=3, max_classes=4, max_groups=3), st.sampled_from(["mean", "max"]))
def test_many_classes_follow_the_definition(population, reduce):
    predictions, labels, sensitive, num_classes = population
    groups = range(max(sensitive.max() + 1, 2))

    def largest_gaps(mask_of):
        gaps = []
        for c in range(num_classes):
            masks = [mask_of(s, c) for s in groups]
            if not all(mask.any() for mask in masks):
                return None
            rates = [(predictions[mask] == c).mean() for mask in masks]
            gaps.append(max(abs(a - b) for a, b in itertools.combinations(rates, 2)))
        return getattr(np, reduce)(gaps)

    parity = largest_gaps(lambda s, c: sensitive == s)
    opportunity = largest_gaps(lambda s, c: (sensitive == s) & (labels == c))
    ours = statistical_parity_difference(predictions, sensitive, reduce, num_classes)
    assert ours == (None if parity is None else pytest.approx(parity, abs=1e-12))
    ours = equal_opportunity_difference(predictions, labels, sensitive, reduce, num_classes)
    assert ours == (None if opportunity is None else pytest.approx(opportunity, abs=1e-12))


@settings(deadline=None)
@given(_population())
def test_exchanging_the_groups_changes_nothing(population):
    predictions, labels, sensitive, _ = population
    other = 1 - sensitive
    assert statistical_parity_difference(predictions, sensitive) == statistical_parity_difference(predictions, other)
    assert equal_opportunity_difference(predictions, labels, sensitive) == equal_opportunity_difference(
        predictions, labels, other
    )


def test_a_perfect_classifier_has_the_gap_of_the_base_rates():
    labels, sensitive = np.array([1, 1, 0, 1, 0, 0]), np.array([0, 0, 0, 1, 1, 1])
    assert statistical_parity_difference(labels, sensitive) == pytest.approx(1 / 3)
    assert equal_opportunity_difference(labels, labels, sensitive) == 0


def test_an_empty_group_gives_none():
    assert statistical_parity_difference([0, 1], [0, 0]) is None
    assert statistical_parity_difference([0, 1], [1, 1]) is None
    assert equal_opportunity_difference([0, 1, 1], [1, 1, 0], [0, 0, 1]) is None


@pytest.mark.parametrize(
    ("predictions", "labels", "sensitive", "message"),
    [
        ([], [], [], "sensitive are empty"),
        ([1, 0], [1, 0], [0], "2 predictions but 1 sensitive"),
        ([1, 0], [1], [0, 1], "1 labels but 2 sensitive"),
        ([[0.1, 0.9], [0.8, 0.2]], [1, 0], [0, 1], "scores instead of classes"),
        ([1, 0], [1, 0], [0, np.nan], "NaN"),
        ([1, 0], [1, 0], [0, -1], "numbered from 0"),
    ],
)
def test_bad_input_is_refused_in_one_line(predictions, labels, sensitive, message):
    with pytest.raises(DataError, match=message) as caught:
        equal_opportunity_difference(predictions, labels, sensitive)
    assert "\n" not in str(caught.value)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(DataError, match="'mean' or 'max'"):
        statistical_parity_difference([0, 1], [0, 1], reduce="median")
