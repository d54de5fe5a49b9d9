"""Generated electrocardiograms."""

from __future__ import annotations

import numpy as np

from benchsuite.core.dataset import DataSource
from benchsuite.core.registry import get_registry
from benchsuite.datasets.ecg import generated as ecg_generator
from benchsuite.harness.identity import data_hash


def test_generated_records(generated):
    again, other = ecg_generator.load_generated(None, 0), ecg_generator.load_generated(None, 1)
    assert generated.content_hash() == again.content_hash() != other.content_hash()
    train = [r for r in generated.records if r.part == "train"]
    assert (len(train), len(generated.records)) == (60, 140)
    rates = {i: 60 * r.fs / np.diff(r.beats).mean() for i, r in enumerate(train)}
    assert all(50 < rates[i] < 80 for i in rates if i % 2 == 0)
    assert all(90 < rates[i] < 125 for i in rates if i % 2 == 1)
    assert {r.group for r in generated.records if r.part == "test"} == set(ecg_generator.GROUPS)


def test_r_peaks_lie_on_the_peak_of_noiseless_beats():
    rng = np.random.default_rng(0)
    for shape in (ecg_generator.upright, ecg_generator.inverted):
        intervals, early = ecg_generator.regular(70, 30, rng)
        signal, beats = ecg_generator.render(shape(rng), intervals, early, 10, 250)
        for beat in beats[1:-1]:
            window = np.abs(signal[beat - 15 : beat + 16])
            assert abs(int(window.argmax()) - 15) <= 1


def test_the_generator_reads_the_registered_parameters(generated):
    parameters = get_registry().dataset("generated-ecg").parameters
    for part, groups in (("train", 1), ("test", 5)):
        records = [r for r in generated.records if r.part == part]
        assert len(records) == groups * parameters[part]["records"]
        assert {r.fs for r in records} == {parameters["fs"]}
        assert {r.signals.shape[1] for r in records} == {round(parameters[part]["seconds"] * parameters["fs"])}


def test_the_identity_of_the_generated_records_stays():
    source = DataSource(get_registry().dataset("generated-ecg"))
    assert data_hash(source) == "642b10e895cd45a1d8212b527806273d33633f895188735f64b81cceab56f9bd"
