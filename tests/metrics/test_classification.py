"""Classification metrics: hand cases, refusals, and parity with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as official

from benchsuite.core.errors import DataError
from benchsuite.metrics.classification import accuracy, auroc, f1


@st.composite
def _paired_classes(draw, max_classes=5):
    classes = draw(st.integers(2, max_classes))
    items = draw(st.integers(1, 60))
    column = hnp.arrays(np.int64, items, elements=st.integers(0, classes - 1))
    return draw(column), draw(column), classes


@st.composite
def _scored(draw, max_classes=4):
    classes = draw(st.integers(2, max_classes))
    items = draw(st.integers(classes, 60))
    labels = draw(hnp.arrays(np.int64, items, elements=st.integers(0, classes - 1)))
    labels[:classes] = np.arange(classes)
    # A coarse grid, so that ties occur.
    scores = draw(hnp.arrays(np.float64, (items, classes), elements=st.integers(1, 8).map(float)))
    return scores / scores.sum(axis=1, keepdims=True), labels, classes


def test_hand_case():
    predictions, labels = [1, 1, 0, 0, 1], [1, 0, 0, 1, 1]
    assert accuracy(predictions, labels) == pytest.approx(3 / 5)
    assert f1(predictions, labels) == pytest.approx(4 / 6)
    assert auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == pytest.approx(0.75)


def test_tied_scores_count_one_half():
    assert auroc([0.5, 0.5], [0, 1]) == 0.5


@settings(deadline=None)
@given(_paired_classes())
def test_accuracy_equals_scikit_learn(case):
    predictions, labels, _ = case
    assert accuracy(predictions, labels) == pytest.approx(official.accuracy_score(labels, predictions), abs=1e-9)


@settings(deadline=None)
@given(_paired_classes())
def test_f1_equals_scikit_learn(case):
    predictions, labels, classes = case
    ours = f1(predictions, labels, num_classes=classes)
    if classes > 2:
        assert ours == pytest.approx(official.f1_score(labels, predictions, average="macro"), abs=1e-9)
    elif not (predictions.any() or labels.any()):
        assert ours is None
    else:
        assert ours == pytest.approx(official.f1_score(labels, predictions), abs=1e-9)


@settings(deadline=None)
@given(_scored())
def test_auroc_equals_scikit_learn(case):
    scores, labels, classes = case
    if classes == 2:
        expected = official.roc_auc_score(labels, scores[:, 1])
        assert auroc(scores[:, 1], labels) == pytest.approx(expected, abs=1e-9)
    else:
        expected = official.roc_auc_score(labels, scores, multi_class="ovr")
    assert auroc(scores, labels) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(_scored(max_classes=2))
def test_auroc_only_sees_the_order(case):
    scores, labels, _ = case
    assert auroc(np.exp(3 * scores[:, 1]), labels) == pytest.approx(auroc(scores[:, 1], labels), abs=1e-12)


def test_undefined_values_are_none():
    assert f1([0, 0], [0, 0]) is None
    assert auroc([0.2, 0.3], [1, 1]) is None
    assert auroc(np.eye(3), [0, 1, 1]) is None


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([], [], "empty"),
        ([0, 1], [0], "2 predictions but 1 labels"),
        ([[0.1, 0.9]], [1], "scores instead of classes"),
        ([0.3, 0.7], [0, 1], "probabilities instead of classes"),
        ([0, np.nan], [0, 1], "NaN"),
        ([0, -1], [0, 1], "numbered from 0"),
        (["a", "b"], [0, 1], "class indices"),
    ],
)
def test_bad_classes_are_refused_in_one_line(predictions, labels, message):
    for metric in (accuracy, f1):
        with pytest.raises(DataError, match=message) as caught:
            metric(predictions, labels)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.5, np.inf], [0, 1], "NaN or infinite"),
        ([0.5], [0, 1], "1 rows of scores but 2 labels"),
        (np.zeros((2, 1)), [0, 1], "at least two classes"),
        ([0.5, 0.6], [0, 2], "label 2 has no score"),
        (["x", "y"], [0, 1], "real numbers"),
        ([], [], "empty"),
    ],
)
def test_bad_scores_are_refused_in_one_line(scores, labels, message):
    with pytest.raises(DataError, match=message) as caught:
        auroc(scores, labels)
    assert "\n" not in str(caught.value)


def test_a_class_beyond_the_stated_number_is_refused():
    with pytest.raises(DataError, match="class 2 does not exist"):
        f1([0, 2], [0, 1], num_classes=2)
