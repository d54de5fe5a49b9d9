"""A hidden semi-Markov model of the heart cycle: features, emissions, durations and the search for the best states.

After Schmidt et al. (Physiological Measurement 31, 2010: duration-dependent model, heart rate from the autocorrelation
of the envelope, spike removal) and Springer et al. (IEEE Transactions on Biomedical Engineering 63, 2016: four
envelopes, logistic regression, an extended Viterbi search whose first and last state may be cut by the recording's
ends). Written from the formulas. Frames are 20 ms long; states are 0 S1, 1 systole, 2 S2, 3 diastole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, hilbert, resample_poly, sosfiltfilt, spectrogram

from benchsuite.datasets.pcg.reader import DIASTOLE, FRAMES_PER_SECOND, S1, S2, SYSTOLE, frame_count, runs_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

STATES = (S1, SYSTOLE, S2, DIASTOLE)

_RATE = 1000
_BAND_HZ = (25, 400)
_SMOOTH_HZ = 8
_PSD_HZ = (40, 60)
_PSD_WINDOW_S = 0.05
_DETAIL_HZ = (62.5, 125)  # of the third level of a dyadic wavelet transform at 1000 Hz
_SPIKE_WINDOW_S = 0.5
_SPIKE = 3.0
_EARLIEST_S2_S = 0.2
_SYSTOLE_STD_S = 0.025
_DIASTOLE_STD = (0.07, 0.006)  # share of its mean, and seconds
_RIDGE = 1e-3


# ---- features


def envelopes(signal: NDArray[Any], fs: float) -> Floats:
    """Return (F, 4) features of every 20 ms, each of mean 0 and deviation 1.

    Homomorphic envelope, Hilbert envelope, spectral density of 40 to 60 Hz, envelope of the band of a third-level
    wavelet detail.
    """
    x = np.asarray(signal, dtype=np.float64)
    frames = frame_count(len(x), fs)
    ratio = Fraction(_RATE / fs).limit_denominator(10_000)
    if ratio != 1:
        x = resample_poly(x, ratio.numerator, ratio.denominator)
    x = np.pad(x, (0, max(0, 200 - len(x))))  # filters need some length
    x = without_spikes(sosfiltfilt(butter(2, _BAND_HZ, "bandpass", fs=_RATE, output="sos"), x))
    amplitude = np.abs(hilbert(x))
    detail = sosfiltfilt(butter(2, _DETAIL_HZ, "bandpass", fs=_RATE, output="sos"), x)
    rows = [homomorphic(amplitude), amplitude, _density(x), np.abs(hilbert(detail))]
    return np.stack([_normalised(_framewise(row, frames)) for row in rows], axis=1)


def homomorphic(amplitude: Floats) -> Floats:
    """Return the exponential of the logarithm of an envelope below 8 Hz (first order, both ways)."""
    floor = max(1e-6 * float(amplitude.max()), 1e-12)
    slow = sosfiltfilt(butter(1, _SMOOTH_HZ, "lowpass", fs=_RATE, output="sos"), np.log(amplitude + floor))
    return np.asarray(np.exp(slow))


def _density(x: Floats) -> Floats:
    """Return the mean spectral density of 40 to 60 Hz around every sample."""
    width = int(_PSD_WINDOW_S * _RATE)
    frequencies, times, power = spectrogram(x, _RATE, "hamming", width, width // 2, _RATE)
    inside = (frequencies >= _PSD_HZ[0]) & (frequencies <= _PSD_HZ[1])
    return np.asarray(np.interp(np.arange(len(x)) / _RATE, times, power[inside].mean(axis=0)))


def _framewise(row: Floats, frames: int) -> Floats:
    """Return the mean over every 20 ms; the last one goes on as the row ends."""
    length = _RATE // FRAMES_PER_SECOND
    padded = np.pad(row, (0, max(0, frames * length - len(row))), mode="edge")
    return np.asarray(padded[: frames * length].reshape(frames, length).mean(axis=1))


def _normalised(row: Floats) -> Floats:
    return np.asarray((row - row.mean()) / max(float(row.std()), 1e-12))


def without_spikes(x: Floats) -> Floats:
    """Return the signal without spikes (Schmidt): one after the other is set to 0 between its zero crossings.

    A window of half a second has one while its largest amplitude is over 3 times the median of all windows' largest.
    """
    length = int(_SPIKE_WINDOW_S * _RATE)
    count = len(x) // length
    if count < 3:
        return x
    cleaned = x.copy()
    windows = cleaned[: count * length].reshape(count, length)
    for _ in range(10 * count):
        largest = np.abs(windows).max(axis=1)
        worst = int(largest.argmax())
        if largest[worst] <= _SPIKE * np.median(largest):
            break
        window = windows[worst]
        peak = int(np.abs(window).argmax())
        changes = np.flatnonzero(np.diff(np.sign(window)) != 0)
        before, after = changes[changes < peak], changes[changes >= peak]
        window[(before[-1] + 1 if len(before) else 0) : (after[0] + 1 if len(after) else length)] = 0.0
    return cleaned


# ---- emissions


def fit_one_against_rest(features: Floats, states: Integers, state: int, steps: int) -> Floats:
    """Return the weights (5,), the constant first, of a logistic regression of whether a frame is in the state.

    The state weighs as much as the other three together, and these as much as one another, as by Springer's balanced
    drawing. Newton's method, with a small ridge on all but the constant.
    """
    design = np.column_stack([np.ones(len(features)), features])
    target = (states == state).astype(np.float64)
    weight = np.zeros(len(states))
    for other in STATES:
        inside = states == other
        weight[inside] = (0.5 if other == state else 0.5 / 3) / max(int(inside.sum()), 1)
    ridge = _RIDGE * np.diag([0.0, *np.ones(features.shape[1])])
    beta = np.zeros(design.shape[1])
    for _ in range(steps):  # milliseconds each, and no draw: neither resumed nor different with another seed
        probability = _logistic(design @ beta)
        gradient = design.T @ (weight * (target - probability)) - ridge @ beta
        curvature = (design * (weight * probability * (1 - probability))[:, None]).T @ design + ridge
        beta = beta + np.linalg.solve(curvature + 1e-9 * np.eye(len(beta)), gradient)
    return beta


def log_emissions(features: Floats, weights: Floats) -> Floats:
    """Return (4, F) logarithms of P(state | frame) of the four regressions.

    By Bayes' rule the likelihood of a frame is this times P(frame) / P(state). P(frame) stands once in every path and
    P(state) is the same for all states, so that neither changes which path is likeliest.
    """
    score = np.column_stack([np.ones(len(features)), features]) @ weights.T
    return np.asarray(-np.logaddexp(0.0, -score).T)


def _logistic(score: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0.0, -score)))


# ---- durations


@dataclass(frozen=True)
class SoundLengths:
    """Mean and standard deviation, in frames, of how long S1 and S2 last."""

    s1: tuple[float, float]
    s2: tuple[float, float]

    @classmethod
    def of(cls, records: Iterable[NDArray[Any]]) -> SoundLengths:
        """Measure the runs of the training records; those that touch an end or a frame without label are left out."""
        found: dict[int, list[int]] = {S1: [], S2: []}
        for states in records:
            for sound, lengths in found.items():
                runs = runs_of(states, sound)
                whole = (runs[:, 0] > 0) & (runs[:, 1] < len(states) - 1)
                runs = runs[whole]
                labelled = (states[runs[:, 0] - 1] >= 0) & (states[runs[:, 1] + 1] >= 0)
                lengths += (runs[labelled, 1] - runs[labelled, 0] + 1).tolist()
        mean_std = [(float(np.mean(v or [5])), max(float(np.std(v or [5])), 0.5)) for v in found.values()]
        return cls(*mean_std)


def heart_cycle(envelope: Floats, shortest: float, longest: float) -> tuple[float, float]:
    """Return the heart cycle and the time from S1 to S2, in frames, from the autocorrelation of an envelope.

    The cycle is the highest peak between the bounds (s); S1 to S2 the highest between 0.2 s and half a cycle.
    """
    centred = envelope - envelope.mean()
    spectrum = np.fft.rfft(centred, 2 * len(centred))
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[: len(centred)]
    cycle = _highest(correlation, shortest * FRAMES_PER_SECOND, longest * FRAMES_PER_SECOND)
    return cycle, _highest(correlation, _EARLIEST_S2_S * FRAMES_PER_SECOND, cycle / 2)


def _highest(correlation: Floats, low: float, high: float) -> float:
    first = min(round(low), len(correlation) - 1)
    last = min(max(int(high), first), len(correlation) - 1)
    return float(first + int(correlation[first : last + 1].argmax()))


def duration_table(lengths: SoundLengths, cycle: float, systolic: float) -> Floats:
    """Return (4, D) logarithms of the probability that a state lasts 1 .. D frames; -inf where it cannot.

    Gaussians over whole frames, within 3 standard deviations. S1 and S2 as in training; systole is the time from S1 to
    S2 less S1, with 25 ms; diastole the rest of the cycle less S2, with 7 % of it and 6 ms.
    """
    systole = (max(systolic - lengths.s1[0], 2.0), _SYSTOLE_STD_S * FRAMES_PER_SECOND)
    rest = max(cycle - systolic - lengths.s2[0], 2.0)
    share, more = _DIASTOLE_STD
    diastole = (rest, share * rest + more * FRAMES_PER_SECOND)
    rows = (lengths.s1, systole, lengths.s2, diastole)
    frames = np.arange(1, int(np.ceil(max(mean + 3 * std for mean, std in rows))) + 2)
    table = np.full((4, len(frames)), -np.inf)
    for state, (mean, std) in enumerate(rows):
        reach = max(3 * std, 1.0)
        inside = np.abs(frames - mean) <= reach
        density = -0.5 * ((frames[inside] - mean) / std) ** 2
        table[state, inside] = density - np.logaddexp.reduce(density)
    return table


# ---- the search


def likeliest_states(emissions: Floats, durations: Floats) -> Integers:
    """Return the likeliest path (F,) of whole states that follow one another S1, systole, S2, diastole, S1, ...

    A path is a row of segments. Its score is the sum of its frames' emissions and its segments' durations. The first
    and the last segment may go on outside the recording: they count with the probability of lasting at least as long.
    For every frame at which a segment may end, all its lengths and states are looked at together.

    Parameters
    ----------
    emissions
        (4, F) log-probabilities of the frames, F at least 1.
    durations
        (4, D) log-probabilities of lasting 1 .. D frames.
    """
    frames, longest = emissions.shape[1], durations.shape[1]
    at_least = np.logaddexp.accumulate(durations[:, ::-1], axis=1)[:, ::-1]
    total = np.concatenate([np.zeros((4, 1)), np.cumsum(emissions, axis=1)], axis=1)
    # begun[s, t]: score of the best path whose segment of state s begins at frame t, less the emissions of s before t.
    begun = np.full((4, frames + longest), -np.inf)  # shifted by `longest`: frames before the recording
    previous = np.array([3, 0, 1, 2])
    length_of = np.zeros((4, frames + 1), dtype=np.int64)
    for stop in range(1, frames + 1):
        before = begun[:, stop : stop + longest][:, ::-1]  # begun at stop - 1, stop - 2, ...
        scores = before + (at_least if stop == frames else durations)
        if stop <= longest:
            scores[:, stop - 1] = at_least[:, stop - 1]
        pick = scores.argmax(axis=1)
        length_of[:, stop] = pick + 1
        ended = np.take_along_axis(scores, pick[:, None], axis=1)[:, 0] + total[:, stop]
        if stop < frames:
            begun[:, longest + stop] = ended[previous] - total[:, stop]
    if not np.isfinite(ended).any():  # such durations fill no recording of this length
        return np.asarray(emissions.argmax(axis=0))
    path = np.zeros(frames, dtype=np.int64)
    stop, state = frames, int(ended.argmax())
    while stop > 0:
        start = max(stop - int(length_of[state, stop]), 0)
        path[start:stop] = state
        stop, state = start, int(previous[state])
    return path
