"""The generated graph: the bias that it is described by, and its draws."""

from __future__ import annotations

import numpy as np
import pytest

from benchsuite.datasets.fairness_graphs.generated import load_synthetic


def test_synthetic_graph_has_the_described_bias():
    drawn = [load_synthetic(None, draw) for draw in range(5)]
    for graph in drawn:
        graph.validate()
        assert graph.features.shape == (1000, 15)
        assert np.array_equal(graph.features[:, 0], graph.sensitive)
        assert 9_500 < graph.edge_index.shape[1] < 12_500
        assert abs(len(graph.train) - 300) <= 2
        assert abs(len(graph.test) - 500) <= 2
    sensitive = np.concatenate([graph.sensitive for graph in drawn])
    labels = np.concatenate([graph.labels for graph in drawn])
    features = np.concatenate([graph.features for graph in drawn])
    assert sensitive.mean() == pytest.approx(0.5, abs=0.03)
    assert labels[sensitive == 0].mean() == pytest.approx(0.35, abs=0.04)
    assert labels[sensitive == 1].mean() == pytest.approx(0.65, abs=0.04)
    assert features[labels == 1, 1:7].mean() == pytest.approx(0.55, abs=0.05)
    assert features[sensitive == 1, 7:10].mean() == pytest.approx(1, abs=0.05)
    assert features[:, 10:].mean() == pytest.approx(0, abs=0.03)
    same = [g.labels[g.edge_index[0]] == g.labels[g.edge_index[1]] for g in drawn]
    assert np.concatenate(same).mean() > 0.75
    assert np.mean([_share_of_edges_within_groups(g) for g in drawn]) > 0.7


def _share_of_edges_within_groups(graph):
    """Among edges between nodes of one label, so that the homophily of labels does not count."""
    source, target = graph.edge_index[:, graph.edge_index[0] != graph.edge_index[1]]
    one_label = graph.labels[source] == graph.labels[target]
    return (graph.sensitive[source] == graph.sensitive[target])[one_label].mean()


def test_draws_differ_and_repeat():
    first, again, other = (load_synthetic(None, draw) for draw in (3, 3, 4))
    assert first.content_hash() == again.content_hash() != other.content_hash()
