"""Generated electrocardiograms."""

from __future__ import annotations

import numpy as np

from benchsuite.core.registry import get_registry
from benchsuite.datasets.ecg import generated as ecg_generator


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


def test_the_registered_parameters_are_those_of_the_generators():
    from benchsuite.datasets.pcg import generated as pcg_generator

    registry = get_registry()
    assert registry.dataset("generated-ecg").parameters == ecg_generator.PARAMETERS
    assert registry.dataset("generated-pcg").parameters == pcg_generator.PARAMETERS
