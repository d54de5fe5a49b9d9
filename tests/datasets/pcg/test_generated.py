"""Generated phonocardiograms."""

from __future__ import annotations

import numpy as np

from benchsuite.core.dataset import DataSource
from benchsuite.core.registry import get_registry
from benchsuite.datasets.pcg import generated as pcg_generator
from benchsuite.harness.identity import data_hash


def test_generated_records(generated):
    other = pcg_generator.load_generated(None, 1)
    assert generated.content_hash() == pcg_generator.load_generated(None, 0).content_hash() != other.content_hash()
    assert sum(r.part == "train" for r in generated.records) == 60
    for record in generated.records:
        order = record.states[np.flatnonzero(np.diff(record.states)) + 1]
        assert ((np.diff(order) % 4) == 1).all(), record.name  # S1, systole, S2, diastole, S1, ...


def test_the_generator_reads_the_registered_parameters(generated):
    parameters = get_registry().dataset("generated-pcg").parameters
    for part, groups in (("train", 1), ("test", 5)):
        records = [r for r in generated.records if r.part == part]
        assert len(records) == groups * parameters[part]["records"]
        assert {r.fs for r in records} == {parameters["fs"]}
        assert {len(r.signal) for r in records} == {round(parameters[part]["seconds"] * parameters["fs"])}


def test_the_identity_of_the_generated_records_stays():
    source = DataSource(get_registry().dataset("generated-pcg"))
    assert data_hash(source) == "a7ebb6ce91439dda221f8e04e8e30184f9bf40e8fc56330f035ebbdeba1efb74"
