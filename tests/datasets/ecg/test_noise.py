"""The reader of noise records, on small written trees and broken ones."""

from __future__ import annotations

import numpy as np
import pytest

from benchsuite.core.errors import DataError, DatasetNotFound

pytest.importorskip("wfdb")

import wfdb

from benchsuite.datasets.ecg import noise


def write(folder, name, signals):
    units, leads = ["mV"] * signals.shape[1], [f"noise{i}" for i in range(signals.shape[1])]
    wfdb.wrsamp(name, 100, units, leads, p_signal=signals, fmt=["16"] * signals.shape[1], write_dir=str(folder))


@pytest.fixture
def tree(tmp_path):
    rng = np.random.default_rng(0)
    for name, height in (("bw", 1.0), ("ma", 2.0), ("em", 3.0), ("118e06", 9.0)):
        write(tmp_path, name, height * rng.normal(size=(500, 2)))
    return tmp_path


def test_the_three_records_by_kind(tree):
    data = noise.load_nstdb_noise(tree, 0)
    assert list(data.records) == ["baseline-wander", "muscle", "electrode-motion"]
    assert [round(float(r.signals.std())) for r in data.records.values()] == [1, 2, 3]
    muscle = data.records["muscle"]
    assert (muscle.name, muscle.fs, muscle.signals.shape, muscle.signals.dtype) == ("ma", 100.0, (2, 500), np.float32)
    assert data.content_hash() == noise.load_nstdb_noise(tree, 0).content_hash()


def test_missing_and_broken_noise_is_told_in_one_line(tree, tmp_path_factory):
    with pytest.raises(DatasetNotFound, match="holds no noise records"):
        noise.load_nstdb_noise(tmp_path_factory.mktemp("empty"), 0)
    with pytest.raises(DatasetNotFound, match="--data-root"):
        noise.load_nstdb_noise(None, 0)
    write(tree, "ma", np.zeros((500, 2)))
    with pytest.raises(DataError, match="record ma: a channel is flat"):
        noise.load_nstdb_noise(tree, 0)
    write(tree, "ma", np.random.default_rng(0).normal(size=(50, 2)))
    with pytest.raises(DataError, match="record ma: noise needs at least one second"):
        noise.load_nstdb_noise(tree, 0)
    holes = np.random.default_rng(0).normal(size=(500, 2))
    holes[3, 1] = np.nan
    write(tree, "ma", holes)
    with pytest.raises(DataError, match="record ma: 1 samples are not numbers"):
        noise.load_nstdb_noise(tree, 0)
    (tree / "em.dat").unlink()
    write(tree, "ma", np.nan_to_num(holes))
    with pytest.raises(DataError, match=r"em\.dat is missing"):
        noise.load_nstdb_noise(tree, 0)
    (tree / "em.hea").unlink()
    with pytest.raises(DataError, match=r"em\.hea is missing: the noise records are bw, ma and em") as caught:
        noise.load_nstdb_noise(tree, 0)
    assert "\n" not in str(caught.value)
