"""Phonocardiograms: band energies, the two interventions, decoding.

The interventions are one reading of the paper's idea [inferred]: its equations were not available. They act on 50 Hz
log band energies (4, L), since stretching audio would change its pitch.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import butter, hilbert, resample_poly, sosfiltfilt

from benchsuite.datasets.pcg.reader import DIASTOLE, FRAMES_PER_SECOND, S1, S2, SYSTOLE, frame_count, runs_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RATE = 1000
BANDS_HZ = ((25, 60), (60, 120), (120, 240), (240, 400))

_SAMPLES = RATE // FRAMES_PER_SECOND
_LOWPASS_HZ = 20
_FLOOR = 1e-4
_MURMUR_WEIGHTS = np.array([0.3, 0.6, 1.0, 1.0])
_SHORTEST_PAUSE = 2


def band_energies(signal: NDArray[np.float32], fs: float) -> Floats:
    """Return (4, F) logarithms of the envelopes of four bands, mean over every 20 ms; not yet normalised."""
    ratio = Fraction(RATE / fs).limit_denominator(10_000)
    x = np.asarray(signal, dtype=np.float64)
    if ratio != 1:
        x = resample_poly(x, ratio.numerator, ratio.denominator)
    x = (x - x.mean()) / max(float(x.std()), 1e-9)
    frames = frame_count(len(signal), fs)
    smooth = butter(2, _LOWPASS_HZ, "lowpass", fs=RATE, output="sos")
    rows = []
    for band in BANDS_HZ:
        filtered = sosfiltfilt(butter(2, band, "bandpass", fs=RATE, output="sos"), x)
        envelope = np.maximum(sosfiltfilt(smooth, np.abs(hilbert(filtered))), 0)
        padded = np.pad(envelope, (0, max(0, frames * _SAMPLES - len(envelope))), mode="edge")
        rows.append(padded[: frames * _SAMPLES].reshape(frames, _SAMPLES).mean(axis=1))
    return np.log(np.stack(rows) + _FLOOR)


def normalise(energies: Floats) -> Floats:
    """Return energies less the median of each band, divided by its standard deviation."""
    centred = energies - np.median(energies, axis=1, keepdims=True)
    return centred / np.maximum(energies.std(axis=1, keepdims=True), 1e-6)


@dataclass(frozen=True)
class SoundBank:
    """The S1 and S2 of one donor: for each state the pieces (4, n) of its runs."""

    pieces: dict[int, list[Floats]]

    @classmethod
    def of(cls, energies: Floats, states: Integers) -> SoundBank:
        """Collect the sounds of a record."""
        return cls(
            {s: [energies[:, first : last + 1] for first, last in runs_of(states, s, 2).tolist()] for s in (S1, S2)}
        )


def intervene_on_morphology(energies: Floats, states: Integers, donor: SoundBank, rng: Generator) -> Floats:
    """do(A_m): replace every S1 and S2 by a donor's, change their colour, perhaps add a murmur; no state moves.

    Parameters
    ----------
    energies
        (4, L) log band energies.
    states
        (L,) int64.
    """
    result = energies.copy()
    floor = np.percentile(energies, 5, axis=1)
    exchanged = rng.random() < 0.3  # loudness order must not be a cue
    for state in (S1, S2):
        pieces = donor.pieces[(S2 if state == S1 else S1) if exchanged else state]
        offset = rng.normal(0, 0.5) + rng.normal(0, 0.5, size=len(energies))
        for first, last in runs_of(states, state).tolist():
            length = last - first + 1
            if pieces:
                result[:, first : last + 1] = _resampled(pieces[rng.integers(len(pieces))], length)
            result[:, first : last + 1] += offset[:, None] * np.hanning(length + 2)[1:-1]
    if rng.random() < 0.5:
        level = floor + _MURMUR_WEIGHTS * rng.uniform(0, 2.5)
        systole = states == SYSTOLE
        result[:, systole] = np.logaddexp(result[:, systole], level[:, None])
    return np.maximum(result, np.minimum(floor[:, None], energies))


def _resampled(piece: Floats, length: int) -> Floats:
    places = np.linspace(0, piece.shape[1] - 1, length)
    return np.stack([np.interp(places, np.arange(piece.shape[1]), row) for row in piece])


def map_rhythm(states: Integers, rng: Generator) -> Floats:
    """do(A_r): return where every output frame is taken from, with systoles and diastoles of new length.

    S1, S2 and frames without label run at unit speed. One factor a record for systole and for diastole, and jitter.
    """
    factors = {SYSTOLE: rng.uniform(0.55, 1.7), DIASTOLE: rng.uniform(0.4, 2.2)}
    spread = rng.choice([0.02, 0.1, 0.25])
    edges = np.concatenate([[0], np.flatnonzero(np.diff(states)) + 1, [len(states)]])
    pieces = []
    for first, stop in itertools.pairwise(edges):
        length = int(stop - first)
        factor = factors.get(int(states[first]))
        if factor is None:
            pieces.append(np.arange(first, stop, dtype=np.float64))
        else:
            new = max(round(length * factor * np.exp(spread * rng.normal())), _SHORTEST_PAUSE)
            pieces.append(first + (np.arange(new) + 0.5) * length / new - 0.5)
    return np.clip(np.concatenate(pieces), 0, len(states) - 1)


def take(energies: Floats, source: Floats) -> Floats:
    """Return (4, L) energies at fractional frames, interpolated linearly."""
    return np.stack([np.interp(source, np.arange(energies.shape[1]), row) for row in energies])


@dataclass(frozen=True)
class Durations:
    """How long states last: mean and standard deviation in frames, indexed by state."""

    mean: Floats
    std: Floats

    @classmethod
    def of(cls, records: list[Integers]) -> Durations:
        """Measure whole runs of the training records (those cut by the record's ends are left out)."""
        lengths: dict[int, list[int]] = {state: [] for state in range(4)}
        for states in records:
            for state in range(4):
                for first, last in runs_of(states, state).tolist():
                    if first > 0 and last < len(states) - 1:
                        lengths[state].append(last - first + 1)
        values = [np.array(lengths[state] or [1], dtype=np.float64) for state in range(4)]
        return cls(np.array([v.mean() for v in values]), np.array([max(v.std(), 1.0) for v in values]))


def decode_with_durations(log_probability: NDArray[Any], durations: Durations) -> Integers:
    """Return the likeliest path S1, systole, S2, diastole, S1, ... given how long states last.

    A Viterbi search over segments: a segment of state s and length d scores the sum of its frames' log-probabilities
    and the log of a Gaussian density of d. The first and the last segment may be cut short at no cost.

    Parameters
    ----------
    log_probability
        (4, F) log-probabilities of the states.
    """
    frames = log_probability.shape[1]
    total = np.concatenate([np.zeros((4, 1)), np.cumsum(log_probability, axis=1)], axis=1)
    longest = int(min(frames, np.ceil((durations.mean + 4 * durations.std).max())))
    lengths = np.arange(1, longest + 1)
    scores = -0.5 * ((lengths[None] - durations.mean[:, None]) / durations.std[:, None]) ** 2
    scores -= np.log(durations.std[:, None])
    # best[s, t]: best score of frames before t whose last segment is of state s and ends at t.
    best = np.full((4, frames + 1), -np.inf)
    length_of = np.zeros((4, frames + 1), dtype=np.int64)
    for stop in range(1, frames + 1):
        d = lengths[: min(stop, longest)]
        for state in range(4):
            before = np.where(d == stop, 0.0, best[(state - 1) % 4, stop - d])
            free = (d == stop) | (stop == frames)
            value = before + total[state, stop] - total[state, stop - d] + np.where(free, 0.0, scores[state, : len(d)])
            pick = int(value.argmax())
            best[state, stop], length_of[state, stop] = value[pick], d[pick]
    path = np.zeros(frames, dtype=np.int64)
    stop, state = frames, int(best[:, frames].argmax())
    while stop > 0:
        start = stop - length_of[state, stop]
        path[start:stop] = state
        stop, state = start, (state - 1) % 4
    return path
