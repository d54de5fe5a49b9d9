"""The published rules for edges and splits, against word-by-word versions of them."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchsuite.core.errors import DataError
from benchsuite.datasets.fairness_graphs.rules import (
    class_balanced_split,
    largest_component,
    similarity_edges,
    symmetric_with_self_loops,
)


def _dense_similarity_edges(x, threshold):
    """The rule word by word, N x N at once."""
    distance = np.sqrt(((x[:, None] - x[None]) ** 2).sum(axis=2))
    similarity = 1 / (1 + distance)
    edges = []
    for i, row in enumerate(similarity):
        second = np.sort(row)[-2]
        edges += [(i, j) for j in np.flatnonzero(row > threshold * second) if j != i]
    return np.array(edges, dtype=np.int64).reshape(-1, 2)


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(2, 30), st.integers(1, 4)), elements=st.integers(-5, 5)),
    st.sampled_from([0.3, 0.6, 0.7, 0.8]),
    st.integers(1, 7),
)
@example(np.array([[0.0], [1.0], [3.0]]), 0.5, 7)  # 1/4 is just half of 1/2
def test_similarity_edges_follow_the_rule_with_ties(x, threshold, chunk):
    # Small whole numbers: duplicates and exact ties at the threshold abound.
    assert np.array_equal(similarity_edges(x, threshold, chunk=chunk), _dense_similarity_edges(x, threshold))


def test_similarity_edges_on_real_valued_rows():
    x = np.random.default_rng(0).standard_normal((300, 6))
    assert np.array_equal(similarity_edges(x, 0.6), _dense_similarity_edges(x, 0.6))


@pytest.mark.parametrize(
    ("features", "threshold", "message"),
    [
        (np.zeros((1, 2)), 0.5, "at least two rows"),
        (np.array([[0.0], [np.nan]]), 0.5, "finite"),
        (np.zeros((3, 2)), 1.5, "between 0 and 1"),
    ],
)
def test_similarity_edges_refuse_bad_input(features, threshold, message):
    with pytest.raises(DataError, match=message):
        similarity_edges(features, threshold)


def test_symmetric_with_self_loops():
    edges = np.array([[2, 0], [0, 2], [1, 0], [1, 1]])
    assert symmetric_with_self_loops(edges, 3).T.tolist() == [
        [0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [2, 0], [2, 2],
    ]  # fmt: skip


def test_split_is_pythons_global_random_per_class():
    labels = np.random.default_rng(1).integers(0, 3, 50)
    random.seed(7)
    expected = [[], [], []]
    for c in range(3):
        members = list(np.flatnonzero(labels == c))
        random.shuffle(members)
        n = len(members)
        for part, chosen in zip(
            expected,
            (members[: int(0.3 * n)], members[int(0.3 * n) : int(0.5 * n)], members[int(0.5 * n) :]),
            strict=True,
        ):
            part.extend(chosen)
    for ours, theirs in zip(class_balanced_split(labels, (0.3, 0.5), seed=7), expected, strict=True):
        assert ours.tolist() == theirs


def test_split_can_bound_the_training_nodes_of_a_class():
    labels = np.repeat([0, 1], [100, 20])
    train, validation, test = class_balanced_split(labels, (0.5, 0.75), seed=0, train_at_most=30)
    assert np.bincount(labels[train]).tolist() == [30, 10]
    assert np.bincount(labels[validation]).tolist() == [25, 5]
    assert np.bincount(labels[test]).tolist() == [25, 5]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=14))
def test_the_largest_component_against_a_walk(pairs):
    edges = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    reached = [{node} for node in range(12)]
    for _ in range(12):
        for i, j in pairs:
            both = reached[i] | reached[j]
            for node in both:
                reached[node] = both
    largest = max(reached, key=len)
    members, inside = largest_component(edges, 12)
    assert members.tolist() == sorted(largest)
    assert [tuple(row) for row in members[inside]] == [pair for pair in pairs if pair[0] in largest]
