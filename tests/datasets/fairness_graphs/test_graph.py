"""What a graph promises, broken in every way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchsuite.core.errors import DataError
from benchsuite.datasets.fairness_graphs.generated import load_synthetic


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: {"features": g.features.astype(np.float64)}, "features are float64"),
        (lambda g: {"features": np.full_like(g.features, np.nan)}, "NaN"),
        (lambda g: {"edge_index": g.edge_index[:, ::-1]}, "sorted"),
        (lambda g: {"edge_index": g.edge_index[:, 1:]}, "self-loop"),
        (lambda g: {"edge_index": g.edge_index + 1}, "outside"),
        (lambda g: {"edge_index": np.delete(g.edge_index, 1, axis=1)}, "symmetric"),
        (lambda g: {"edge_index": g.edge_index.T}, "not \\(2, E\\)"),
        (lambda g: {"sensitive": g.sensitive[1:]}, "sensitive has shape"),
        (lambda g: {"labels": g.labels - 1}, "numbered from 0"),
        (lambda g: {"labels": g.labels.astype(np.int32)}, "labels is int32"),
        (lambda g: {"train": g.test}, "share nodes"),
        (lambda g: {"train": g.train[:0]}, "at least one"),
        (lambda g: {"test": g.test + 1000}, "outside"),
    ],
)
def test_validate_names_the_broken_promise(change, message):
    graph = load_synthetic(None, 0)
    # The first stored entry is the self-loop of node 0, the second its first neighbour.
    with pytest.raises(DataError, match=message) as caught:
        replace(graph, **change(graph)).validate()
    assert "\n" not in str(caught.value)
