"""Generated phonocardiograms."""

from __future__ import annotations

import numpy as np

from benchsuite.datasets.pcg import generated as pcg_generator


def test_generated_records(generated):
    other = pcg_generator.load_generated(None, 1)
    assert generated.content_hash() == pcg_generator.load_generated(None, 0).content_hash() != other.content_hash()
    assert sum(r.part == "train" for r in generated.records) == 60
    for record in generated.records:
        order = record.states[np.flatnonzero(np.diff(record.states)) + 1]
        assert ((np.diff(order) % 4) == 1).all(), record.name  # S1, systole, S2, diastole, S1, ...
