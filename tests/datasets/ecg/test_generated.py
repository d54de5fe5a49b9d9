"""Generated electrocardiograms."""

from __future__ import annotations

import numpy as np
import pytest

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
    assert data_hash(source) == "5cdca08c399d4b05d3155fd656a7102576b5b6655d23746df3815d241a135dc2"


def polarity(record):
    """Return +1 or -1: on which side of the line most beats stand."""
    x = record.signals[0]
    heights = [x[b] - np.median(x[max(b - 60, 0) : b + 60]) for b in record.beats]
    return int(np.sign(np.median(heights)))


def rate(record):
    return 60 * record.fs / np.diff(record.beats).mean()


def irregularity(record):
    intervals = np.diff(record.beats)
    return intervals.std() / intervals.mean()


def test_training_confounds_shape_and_rhythm_and_the_test_takes_them_apart(generated):
    def confounded(records):
        return np.mean([(polarity(r) > 0) == (rate(r) < 85) for r in records])

    groups = {g: [r for r in generated.records if r.group == g] for g in ("", *ecg_generator.GROUPS)}
    assert confounded(groups[""]) > 0.95
    assert confounded(groups["iid"]) > 0.9
    assert confounded(groups["swap"]) < 0.1
    assert np.mean([polarity(r) > 0 for r in groups[""]]) == 0.5
    for group, members in groups.items():
        assert (np.mean([irregularity(r) for r in members]) > 0.15) == (group in ("newrhythm", "both")), group


def test_shapes_of_the_new_morphologies_are_not_those_of_training():
    def widths(shape):
        drawn = (shape(np.random.default_rng(seed)) for seed in range(60))
        return [
            max(w.width for w in one.qrs if abs(w.amplitude) >= max(abs(v.amplitude) for v in one.qrs)) for one in drawn
        ]

    assert max(widths(ecg_generator.upright)) < 0.0141
    assert max(widths(ecg_generator.inverted)) < 0.0181
    assert np.mean([w > 0.025 for w in widths(ecg_generator.unseen)]) > 0.3


def test_noise_is_as_strong_as_asked():
    clean = np.sin(np.arange(20_000) / 20)
    for snr_db in (0.0, 6.0, 20.0):
        noise = ecg_generator.add_noise(clean, snr_db, np.random.default_rng(0)) - clean
        assert 20 * np.log10(clean.std() / noise.std()) == pytest.approx(snr_db, abs=0.01)


def test_rhythms():
    rng = np.random.default_rng(0)
    regular, none = ecg_generator.regular(60, 4000, rng)
    assert not none.any()
    assert 0.02 < regular.std() < 0.04
    irregular, _ = ecg_generator.fibrillating(60, 4000, rng)
    assert 0.22 < np.log(irregular).std() < 0.28
    intervals, early = ecg_generator.ectopic(60, 4000, rng)
    assert 0.1 < early.mean() < 0.16
    assert np.abs(intervals[early].mean() - 0.6) < 0.02
    assert np.abs(intervals[np.flatnonzero(early[:-1]) + 1].mean() - 1.4) < 0.02
    assert ecg_generator.fibrillating(200, 4000, rng)[0].min() == 0.28


def test_there_is_no_p_wave_in_fibrillation_and_ectopic_beats_are_wide():
    shape, still = ecg_generator.upright(np.random.default_rng(0)), np.zeros(9, dtype=bool)
    beats = np.full(9, 1.0)
    with_p, places = ecg_generator.render(shape, beats, still, 8, 250)
    without, _ = ecg_generator.render(shape, beats, still, 8, 250, p_waves=False)
    at_p = places[2] - 40
    assert with_p[at_p] > 0.05
    assert abs(without[at_p]) < 0.01
    premature = ecg_generator.ventricular(shape, np.random.default_rng(0))
    wide, _ = ecg_generator.render(shape, beats, np.arange(9) == 2, 8, 250, premature=premature)
    there = np.abs(wide[places[2] - 15 : places[2] + 16])
    assert (there > there[15] / 2).sum() > 15
    assert (with_p[places[2] - 15 : places[2] + 16] > with_p[places[2]] / 2).sum() < 10
    assert np.array_equal(wide[: places[1] + 50], with_p[: places[1] + 50])


def drawn(shape):
    return [shape(np.random.default_rng(seed)) for seed in range(300)]


def test_ventricular_beats_are_wide_with_a_broad_t_wave_the_other_way():
    normal = ecg_generator.upright(np.random.default_rng(0))
    beats = drawn(lambda rng: ecg_generator.ventricular(normal, rng))
    main = np.array([beat.qrs[0].amplitude for beat in beats])
    t = np.array([beat.t.amplitude for beat in beats])
    assert min(beat.qrs[0].width for beat in beats) >= 0.028 > 2 * max(wave.width for wave in normal.qrs)
    assert (np.sign(t) == -np.sign(main)).all()
    assert 0.25 <= np.abs(t / main).min() < 0.3 < 0.55 < np.abs(t / main).max() <= 0.6
    assert min(beat.t.width for beat in beats) >= 0.055
    assert np.mean(main > 0) == pytest.approx(0.5, abs=0.1)
    assert not any(beat.p.amplitude for beat in beats)


def test_training_is_regular_as_its_confounding_wants(generated):
    """No premature beat: the shortest interval of a person stays near the usual one."""
    training = [r for r in generated.records if r.part == "train"]
    assert all(np.diff(r.beats).min() > 0.85 * np.median(np.diff(r.beats)) for r in training)
