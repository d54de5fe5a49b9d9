"""Generated phonocardiograms."""

from __future__ import annotations

import numpy as np
import pytest

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
    assert data_hash(source) == "5a718d472276c67295627cdfeb128a60b1c91e43001d4a96e8b33acc3be2bc92"


def loudness(record, sound):
    """Return the median over all sounds of a kind of their root mean square."""
    middle = (np.arange(len(record.signal)) / record.fs * 50).astype(int)
    per_sample = record.states[np.minimum(middle, len(record.states) - 1)]
    return np.sqrt((record.signal[per_sample == sound] ** 2).mean())


def test_states_stand_where_the_sounds_are(generated):
    """Loudest where a sound is said to be: a shift by two frames either way is quieter."""
    for record in [r for r in generated.records if r.group == "iid"][:6]:
        energy = np.array([piece.std() for piece in np.array_split(record.signal, len(record.states))])
        inside = [energy[np.roll(np.isin(record.states, (0, 2)), shift)].mean() for shift in (-2, 0, 2)]
        assert inside[1] > inside[0]
        assert inside[1] > inside[2]


def test_training_confounds_sound_and_rhythm_and_the_test_takes_them_apart(generated):
    def confounded(records):
        rates = [60 * 50 / np.diff(r.events[0]).mean() for r in records]
        return np.mean(
            [(loudness(r, 0) > loudness(r, 2)) == (rate < 85) for r, rate in zip(records, rates, strict=True)]
        )

    groups = {g: [r for r in generated.records if r.group == g] for g in ("", *pcg_generator.GROUPS)}
    assert confounded(groups[""]) > 0.95
    assert confounded(groups["iid"]) > 0.9
    assert confounded(groups["swap"]) < 0.1
    for group, members in groups.items():
        spread = np.mean([np.diff(r.events[0]).std() / np.diff(r.events[0]).mean() for r in members])
        assert (spread > 0.1) == (group in ("newrhythm", "both")), group


def test_noise_is_as_strong_as_asked():
    clean = np.sin(np.arange(20_000) / 20)
    noise = pcg_generator.add_noise(clean, 6.0, 1000, np.random.default_rng(0)) - clean
    assert 20 * np.log10(clean.std() / noise.std()) == pytest.approx(6.0, abs=0.01)


def test_noise_is_a_random_walk_below_150_hz_and_white():
    """The power of a walk falls by 100 a decade; beyond 150 Hz nothing of it is left, and white noise is."""

    def power(noise, low, high):
        spectrum = np.abs(np.fft.rfft(noise)) ** 2
        hz = np.fft.rfftfreq(len(noise), 1 / 1000)
        return spectrum[(hz >= low) & (hz < high)].mean()

    walk = pcg_generator.low_passed_walk(200_000, 1000, np.random.default_rng(0))
    assert (walk.mean(), walk.std()) == (pytest.approx(0.0, abs=1e-9), pytest.approx(1.0))
    assert power(walk, 3, 4) / power(walk, 30, 40) == pytest.approx(100, rel=0.3)
    assert power(walk, 100, 110) / power(walk, 400, 410) > 1000
    clean = np.sin(np.arange(200_000) / 20)
    noise = pcg_generator.add_noise(clean, 6.0, 1000, np.random.default_rng(0)) - clean
    assert power(noise, 0.05, 1) / power(noise, 100, 200) > 20
    assert power(noise, 100, 200) / power(noise, 400, 500) == pytest.approx(1, rel=0.2)


def test_a_murmur_that_the_record_cuts_is_that_part_of_a_whole_one():
    """In the middle of systole, where the record starts, it is loudest."""
    cut, whole = np.zeros(200), np.zeros(600)
    for seed in range(400):
        for signal, start in ((cut, -0.2), (whole, 0.2)):
            one = np.zeros(len(signal))
            pcg_generator._add_murmur(one, start, start + 0.4, 1.0, 1000, np.random.default_rng(seed))
            signal += one**2
    assert cut[:40].mean() > 3 * cut[-60:-20].mean()
    assert cut[:40].mean() == pytest.approx(whole[400:440].mean(), rel=0.1)


def test_unseen_sounds_have_murmurs_and_split_seconds():
    drawn = [pcg_generator.unseen(np.random.default_rng(seed)) for seed in range(300)]
    assert np.mean([one.murmur > 0 for one in drawn]) == pytest.approx(0.7, abs=0.08)
    assert np.mean([one.split for one in drawn]) == pytest.approx(0.4, abs=0.08)
    known = [f(np.random.default_rng(0)) for f in (pcg_generator.loud_first, pcg_generator.loud_second)]
    assert not any(one.murmur or one.split for one in known)


def test_a_murmur_fills_the_systole():
    def energy(murmur):
        sounds = pcg_generator.Sounds((1.0, 1.0), (50, 60), murmur=murmur)
        rng = np.random.default_rng(0)
        x, states = pcg_generator.render(sounds, np.full(20, 0.9), 10, 1000, rng, irregular=False)
        blocks = x.reshape(len(states), 20).std(axis=1)
        return blocks[states == 1].mean(), blocks[states == 3].mean()

    (quiet, still), (loud, same) = energy(0.0), energy(0.3)
    assert loud > 3 * quiet
    assert same == pytest.approx(still, rel=0.5, abs=0.02)
