"""The hidden semi-Markov model: its search against plain ones, its features, emissions and durations by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchsuite.core.registry import get_registry, load_object
from benchsuite.datasets.pcg import generated as pcg_generator
from benchsuite.datasets.pcg.reader import DIASTOLE, S1, S2, SYSTOLE
from benchsuite.tasks.cardiac_signals.heart_sound_contract import AnnotatedPcg
from benchsuite.tasks.cardiac_signals.heart_sound_judge import judge
from benchsuite_baselines.cardio import hsmm


def random_case(seed, frames, longest):
    """Return emissions (4, F) and durations (4, D), some of them impossible."""
    rng = np.random.default_rng(seed)
    durations = np.log(rng.dirichlet(np.ones(longest), size=4))
    durations[rng.random((4, longest)) < 0.3] = -np.inf
    durations[:, rng.integers(longest)] = -0.1
    return np.log(rng.dirichlet(np.ones(4), size=frames)).T, durations


def survival(durations, state, length):
    if length > durations.shape[1]:
        return -np.inf
    return float(np.logaddexp.reduce(durations[state, length - 1 :]))


def score_of(path, emissions, durations):
    """Return the score of a path, segment by segment; -inf if it leaves the order of the states."""
    segments = [(state, len(list(group))) for state, group in itertools.groupby(path)]
    if any(b != (a + 1) % 4 for (a, _), (b, _) in itertools.pairwise(segments)):
        return -np.inf
    score = sum(emissions[state, frame] for frame, state in enumerate(path))
    for place, (state, length) in enumerate(segments):
        cut = place in (0, len(segments) - 1)
        if not cut and length > durations.shape[1]:
            return -np.inf
        score += survival(durations, state, length) if cut else durations[state, length - 1]
    return score


@pytest.mark.parametrize("seed", range(12))
def test_the_search_finds_the_best_of_all_paths(seed):
    frames, longest = 5 + seed % 3, 2 + seed % 4
    emissions, durations = random_case(seed, frames, longest)
    paths = itertools.product(range(4), repeat=frames)
    best = max(paths, key=lambda path: score_of(path, emissions, durations))
    assert hsmm.likeliest_states(emissions, durations).tolist() == list(best)


def plain_search(emissions, durations):
    """Return the best score by the textbook's loops over ends, states and lengths."""
    frames, longest = emissions.shape[1], durations.shape[1]
    best = {}
    for stop in range(1, frames + 1):
        for state in range(4):
            found = -np.inf
            for length in range(1, min(longest, stop) + 1):
                cut = length == stop or stop == frames
                own = survival(durations, state, length) if cut else durations[state, length - 1]
                before = 0.0 if length == stop else best[stop - length, (state - 1) % 4]
                found = max(found, before + own + emissions[state, stop - length : stop].sum())
            best[stop, state] = found
    return max(best[frames, state] for state in range(4))


@pytest.mark.parametrize("seed", range(6))
def test_the_search_is_that_of_plain_loops(seed):
    emissions, durations = random_case(100 + seed, 90, 12)
    path = hsmm.likeliest_states(emissions, durations)
    assert score_of(path.tolist(), emissions, durations) == pytest.approx(plain_search(emissions, durations))


def test_the_first_and_the_last_state_may_be_cut_and_others_not():
    """States last 4 frames each; the recording begins in the middle of one and ends in another."""
    durations = np.full((4, 4), -np.inf)
    durations[:, 3] = 0.0
    true = np.array([2] * 2 + [3] * 4 + [0] * 4 + [1] * 3)
    emissions = np.log(np.where(np.arange(4)[:, None] == true, 0.7, 0.1))
    assert hsmm.likeliest_states(emissions, durations).tolist() == true.tolist()
    emissions[:, 7] = np.log([0.01, 0.97, 0.01, 0.01])  # one wrong frame cannot make a state of one frame
    assert hsmm.likeliest_states(emissions, durations).tolist() == true.tolist()


def test_a_recording_that_no_durations_fill_keeps_its_frames():
    durations = np.full((4, 2), -np.inf)
    emissions, _ = random_case(0, 30, 2)
    assert hsmm.likeliest_states(emissions, durations).tolist() == emissions.argmax(axis=0).tolist()


def test_emissions_are_logistic_regressions_of_balanced_classes():
    """Two Gaussians one apart on either side of 0: the true weights are known, however rare the state is."""
    rng = np.random.default_rng(0)
    states = np.concatenate([np.full(2000, S1), np.repeat([SYSTOLE, S2, DIASTOLE], 20_000)])
    features = rng.normal(size=(len(states), 4))
    features[:, 0] += np.where(states == S1, 1.0, -1.0)
    weights = hsmm.fit_one_against_rest(features, states, S1, 12)
    assert weights == pytest.approx([0, 2, 0, 0, 0], abs=0.15)
    table = hsmm.log_emissions(np.array([[0.5, 0, 0, 0]]), np.tile(weights, (4, 1)))
    assert table.shape == (4, 1)
    assert np.exp(table[0, 0]) == pytest.approx(1 / (1 + np.exp(-1.0)), abs=0.05)


def test_durations_follow_the_heart_rate():
    """A cycle of 40 frames, S2 16 after S1: systole 16 less S1, diastole the rest less S2."""
    table = hsmm.duration_table(hsmm.SoundLengths((6.0, 1.0), (5.0, 1.0)), 40.0, 16.0)
    assert np.exp(table).sum(axis=1) == pytest.approx(np.ones(4))
    lengths = np.arange(1, table.shape[1] + 1)
    means = (np.exp(table) * lengths).sum(axis=1)
    assert means == pytest.approx([6, 10, 5, 19], abs=0.05)
    spread = np.sqrt((np.exp(table) * (lengths - means[:, None]) ** 2).sum(axis=1))
    assert spread == pytest.approx([1, 1.25, 1, 0.07 * 19 + 0.3], abs=0.1)
    assert np.isneginf(table[S1, 9:]).all()  # over 3 standard deviations


def test_sounds_of_training_are_measured_whole():
    states = np.array([0, 0, 1, 1, 2, 2, 2, 3, 3, 0, 0, 0, 0, 1, 2, -1, -1, 0, 1, 2, 2, 2, 2, 2, 3, 0])
    found = hsmm.SoundLengths.of([states])
    assert found.s1[0] == 4.0  # cut by the start, next to a frame without label, cut by the end
    assert found.s2 == (4.0, 1.0)


def test_the_heart_cycle_is_that_of_the_autocorrelation():
    envelope = np.zeros(1000)
    envelope[::40], envelope[14::40] = 1.0, 0.8
    envelope = np.convolve(envelope, np.hanning(7), mode="same")
    assert hsmm.heart_cycle(envelope, 0.4, 2.0) == (40.0, 14.0)
    assert hsmm.heart_cycle(envelope, 1.0, 2.0)[0] == 80.0
    assert all(np.isfinite(hsmm.heart_cycle(np.ones(5), 0.4, 2.0)))


def test_spikes_go_and_sounds_stay():
    rng = np.random.default_rng(0)
    x = np.sin(np.arange(10_000) / 5) * (0.5 + 0.5 * np.sin(np.arange(10_000) / 150)) + 0.01 * rng.normal(size=10_000)
    assert np.array_equal(hsmm.without_spikes(x), x)
    spoilt = x.copy()
    spoilt[4200:4210] += 50 * np.hanning(10)
    cleaned = hsmm.without_spikes(spoilt)
    assert np.abs(cleaned).max() < 1.2
    changed = np.flatnonzero(cleaned != spoilt)
    assert 4170 < changed.min() < changed.max() < 4240
    assert np.array_equal(hsmm.without_spikes(np.zeros(100)), np.zeros(100))


def test_features_are_four_a_frame_and_rise_with_the_sounds():
    fs, frames = 2000.0, 250
    time = np.arange(int(fs * 5)) / fs
    loud = (time % 0.5) < 0.1
    signal = (np.sin(2 * np.pi * 50 * time) * loud + 0.01 * np.random.default_rng(0).normal(size=len(time))).astype(
        "f4"
    )
    found = hsmm.envelopes(signal, fs)
    assert found.shape == (frames, 4)
    assert found.mean(axis=0) == pytest.approx(np.zeros(4), abs=1e-9)
    assert found.std(axis=0) == pytest.approx(np.ones(4))
    inside = loud.reshape(frames, 40).mean(axis=1) > 0.5
    assert (found[inside].mean(axis=0) - found[~inside].mean(axis=0) > 0.8).all()
    # 50 Hz are in the spectral density of 40 to 60 Hz; 100 Hz are not
    higher = hsmm._density(np.sin(2 * np.pi * 100 * np.arange(5000) / 1000)).mean()
    assert hsmm._density(np.sin(2 * np.pi * 50 * np.arange(5000) / 1000)).mean() > 20 * higher
    assert hsmm.envelopes(np.zeros(30, dtype=np.float32), 1000.0).shape == (2, 4)


def test_the_row_learns_and_segments_generated_sounds():
    spec = get_registry().method("hsmm")
    assert spec.role == "baseline"
    cls, config = load_object(spec.load), load_object(spec.config)
    records = pcg_generator.load_generated(None, 0).records
    training = [AnnotatedPcg(r.name, r.signal, r.fs, r.states) for r in records if r.part == "train"][:16]
    held_out = [r for r in records if r.group == "iid"][:4]
    found = cls(config(**spec.presets["embedded"].settings)).fit_heart_sounds(training, None)
    outcome = judge(held_out, [found.segment(r.signal, r.fs).astype(np.int8) for r in held_out])
    assert outcome.scores["f1_60ms"] > 0.8
    assert found.parameters == 24
    for noise in (np.zeros(900), np.random.default_rng(0).normal(size=900)):
        assert found.segment(noise.astype(np.float32), 1000.0).shape == (45,)
