"""Both embedded tables."""

from __future__ import annotations

import numpy as np
import pytest

from benchsuite.datasets.tabular_digits import reader as tabular_digits

pytest.importorskip("sklearn")


def test_both_embedded_tables() -> None:
    digits, teacher = tabular_digits.load_digits(None, 0), tabular_digits.load_linear_teacher(None, 0)
    for data, size in ((digits, 1797), (teacher, 6000)):
        parts = np.concatenate([data.train, data.validation, data.test])
        assert sorted(parts) == list(range(size))
        assert data.features.shape == (size, 64)
        assert data.features.dtype == np.float32
        assert set(data.labels) == set(range(10))
    assert 0 <= digits.features.min() < digits.features.max() <= 1
    assert not np.array_equal(tabular_digits.load_linear_teacher(None, 1).features, teacher.features)
    assert np.array_equal(tabular_digits.load_linear_teacher(None, 0).features, teacher.features)
