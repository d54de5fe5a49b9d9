"""Both embedded tables."""

from __future__ import annotations

import numpy as np
import pytest

from benchsuite.core.dataset import DataSource
from benchsuite.datasets import tabular_digits as package
from benchsuite.datasets.tabular_digits import reader as tabular_digits
from benchsuite.harness.identity import data_hash

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


def test_parts_are_of_the_size_that_the_specs_say_and_not_in_order() -> None:
    for data in (tabular_digits.load_digits(None, 0), tabular_digits.load_linear_teacher(None, 0)):
        size = len(data.labels)
        assert len(data.train) == int(0.6 * size)
        assert len(data.train) + len(data.validation) == int(0.75 * size)
        assert data.train[-1] > 0.95 * size  # drawn from all, not the first ones
        assert data.test[0] < 0.05 * size


def test_the_generator_reads_what_the_spec_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def teacher(**changes: float) -> tabular_digits.TabularDataset:
        with monkeypatch.context() as patch:
            for name, value in changes.items():
                patch.setitem(package.LINEAR_TEACHER, name, value)
            return tabular_digits.load_linear_teacher(None, 0)

    assert teacher(samples=100).features.shape == (100, 64)
    assert teacher(features=5).features.shape == (6000, 5)
    assert set(teacher(classes=3).labels) == {0, 1, 2}
    assert len(teacher(train=0.5, validation=0.1).test) == 2400
    monkeypatch.setitem(package.DIGITS, "split_seed", 1)
    digits = tabular_digits.load_digits(None, 0)
    monkeypatch.undo()
    assert not np.array_equal(digits.train, tabular_digits.load_digits(None, 0).train)


def test_the_teacher_is_linear_and_its_noise_is_that_of_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    def teacher(noise: float) -> tabular_digits.TabularDataset:
        monkeypatch.setitem(package.LINEAR_TEACHER, "noise", noise)
        return tabular_digits.load_linear_teacher(None, 0)

    usual, exact, loud = tabular_digits.load_linear_teacher(None, 0), teacher(0.0), teacher(8.0)
    changed = [float((data.labels != exact.labels).mean()) for data in (usual, loud)]
    assert 0.05 < changed[0] < 0.2  # noise of 1 beside scores of standard deviation 8
    assert changed[1] > 0.4
    # Least squares on half of the samples predicts the rest: what is not noise is linear.
    half, targets = exact.features[:3000], np.eye(10)[exact.labels[:3000]]
    fit, *_ = np.linalg.lstsq(half, targets, rcond=None)
    assert ((exact.features[3000:] @ fit).argmax(axis=1) == exact.labels[3000:]).mean() > 0.7


def test_the_hash_of_the_data_is_the_published_one() -> None:
    digits, teacher = (data_hash(DataSource(spec)) for spec in package.DATASETS)
    assert digits == "82c96ee2bd0c6070f1547bf48fcc4f41d22c71a20539aae1d3364167a7d660f8"
    assert teacher == "53ca797aebb47e28102e2ba9d8aeae11e0a21f8dd2c76a4965ac34ca6c65254b"
