"""Electrocardiograms: preparation, labels, the two interventions, decoding.

The interventions are one reading of the paper's idea [inferred]: its equations were not available.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import butter, resample_poly, sosfiltfilt

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LABEL_S = 0.06
UNIT_S = (0.10, 0.12)

_BAND_HZ = (0.5, 40.0)
_BEFORE_S, _AFTER_S = 0.25, 0.45
_BEFORE_SHARE, _AFTER_SHARE = 0.45, 0.55
_QRS_S = 0.1
_FADE_S = 0.05
_MIN_RR_S = 0.33
_MIN_RUN_S = 0.04
_REFRACTORY_S = 0.2


def prepare(signal: NDArray[np.float32], fs: float, rate: int) -> Floats:
    """Return the signal (T,) at ``rate`` Hz, band-passed 0.5 to 40 Hz without phase shift; not yet normalised."""
    ratio = Fraction(rate / fs).limit_denominator(10_000)
    x = np.asarray(signal, dtype=np.float64)
    if ratio != 1:
        x = resample_poly(x, ratio.numerator, ratio.denominator)
    high = min(_BAND_HZ[1], 0.45 * rate)
    sections = butter(2, (_BAND_HZ[0], high), "bandpass", fs=rate, output="sos")
    return np.asarray(sosfiltfilt(sections, x, padlen=min(len(x) - 1, 3 * rate)))


def normalise(x: Floats) -> Floats:
    """Return the signal less its median, divided by the 98th percentile of its absolute value."""
    centred = x - np.median(x)
    return centred / max(float(np.percentile(np.abs(centred), 98)), 1e-6)


def label_frames(beats: Floats, length: int, rate: int) -> Integers:
    """Return (length,) labels: 1 within 60 ms of a beat, else 0."""
    labels = np.zeros(length, dtype=np.int64)
    half = round(LABEL_S * rate)
    for beat in np.round(beats).astype(np.int64):
        labels[max(beat - half, 0) : max(beat + half + 1, 0)] = 1
    return labels


@dataclass(frozen=True)
class BeatShape:
    """How a donor's beats are changed before they replace others, the same for a whole record.

    ``dilation`` widens the QRS, ``gain`` and ``polarity`` scale the beat, ``t_gain`` what follows the QRS.
    """

    dilation: float = 1.0
    polarity: float = 1.0
    gain: float = 1.0
    t_gain: float = 1.0

    @classmethod
    def draw(cls, rng: Generator) -> BeatShape:
        """Draw a shape from the prior of the intervention."""
        return cls(
            dilation=float(np.exp(rng.uniform(np.log(0.75), np.log(2.6)))),
            polarity=float(rng.choice([-1.0, 1.0])),
            gain=float(np.exp(rng.normal(0, 0.35))),
            t_gain=float(rng.uniform(-1.5, 2.5)),
        )


def intervene_on_morphology(
    x: Floats, beats: Integers, donor: Floats, donor_beats: Integers, rate: int, shape: BeatShape, rng: Generator
) -> Floats:
    """do(A_m): replace the shape of every beat by that of a donor's beats; no beat moves.

    Parameters
    ----------
    x, donor
        (T,), (U,) signals at ``rate`` Hz.
    beats, donor_beats
        R peaks, ascending sample indices.
    shape
        What is done to the donor's beats.
    rng
        Draws a donor beat for every beat.
    """
    result = x.copy()
    if len(donor_beats) == 0:
        return result
    before, after = _windows(beats, len(x), rate)
    reach_before, reach_after = _windows(donor_beats, len(donor), rate, capped=False)
    fade = max(round(_FADE_S * rate), 1)
    chosen = rng.integers(len(donor_beats), size=len(beats))
    for beat, a, b, j in zip(beats, before, after, chosen, strict=True):
        first, last = max(beat - a, 0), min(beat + b + 1, len(x))
        if last - first < 3:
            continue
        offset = np.arange(first, last) - beat
        source = np.clip(_undilated(offset, rate, shape.dilation), -reach_before[j], reach_after[j])
        piece = np.interp(donor_beats[j] + source, np.arange(len(donor)), donor)
        piece = piece - np.median(piece)
        follows = offset > _QRS_S * rate * shape.dilation
        piece = shape.polarity * shape.gain * np.where(follows, shape.t_gain * piece, piece)
        piece += np.median(x[first:last])
        weight = _edges(last - first, fade)
        result[first:last] = weight * piece + (1 - weight) * result[first:last]
    return result


def _windows(beats: Integers, length: int, rate: int, capped: bool = True) -> tuple[Integers, Integers]:
    """Return how many samples before and after every beat belong to it."""
    gaps = np.diff(beats)
    before = _BEFORE_SHARE * np.concatenate([[length], gaps])
    after = _AFTER_SHARE * np.concatenate([gaps, [length]])
    if capped:
        before, after = np.minimum(before, _BEFORE_S * rate), np.minimum(after, _AFTER_S * rate)
    return before.astype(np.int64), after.astype(np.int64)


def _undilated(offset: Integers, rate: int, dilation: float) -> Floats:
    """Return where in the donor's beat an offset comes from: the QRS is stretched, the rest is moved outward."""
    half = _QRS_S * rate
    beyond = np.maximum(np.abs(offset) - half * dilation, 0)
    return np.sign(offset) * (np.minimum(np.abs(offset) / dilation, half) + beyond)


def _edges(length: int, fade: int) -> Floats:
    """Return weights that rise from 0 to 1 and fall again as raised cosines of ``fade`` samples."""
    fade = min(fade, length // 2)
    weight = np.ones(length)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)
    weight[:fade], weight[length - fade :] = ramp, ramp[::-1]
    return weight


def draw_intervals(count: int, rng: Generator) -> Floats:
    """Draw RR intervals (s) from the prior of the rhythm intervention: any tempo and regularity, ectopic beats."""
    tempo = rng.uniform(0.40, 1.30)
    spread = rng.choice([0.02, 0.05, 0.15, 0.30])
    intervals = tempo * np.exp(spread * rng.normal(size=count))
    if rng.random() < 0.3:
        intervals[rng.random(count) < 0.2] *= 0.6
    return np.maximum(intervals, _MIN_RR_S)


@dataclass(frozen=True)
class TimeMap:
    """do(A_r) as a map of time: ``source[u]`` is where output sample u is taken from; ``beats`` are the new R peaks."""

    source: Floats
    beats: Integers


def map_rhythm(
    beats: Integers, length: int, intervals: Floats, rate: int, unit: tuple[float, float] = UNIT_S
) -> TimeMap:
    """Return the piecewise linear map that gives the beats new intervals.

    Around every beat (0.10 s before to 0.12 s after) time runs at unit speed; the pauses are stretched or shrunk. The
    first beat stays where it is. The map ends where the source ends.

    Parameters
    ----------
    beats
        (n,) R peaks of the source, ascending.
    length
        Of the source, in samples.
    intervals
        (n - 1,) or more new RR intervals, seconds.
    """
    if len(beats) < 2:
        return TimeMap(np.arange(length, dtype=np.float64), beats)
    steps = np.maximum(np.round(intervals[: len(beats) - 1] * rate), 3).astype(np.int64)
    moved = beats[0] + np.concatenate([[0], np.cumsum(steps)])
    gaps = np.minimum(np.diff(beats), steps)
    before = np.minimum(round(unit[0] * rate), np.floor(0.45 * np.append(gaps[0], gaps)))
    after = np.minimum(round(unit[1] * rate), np.floor(0.45 * np.append(gaps, gaps[-1])))
    new_knots = np.column_stack([moved - before, moved + after]).ravel()
    old_knots = np.column_stack([beats - before, beats + after]).ravel()
    end = int(moved[-1] + (length - 1 - beats[-1]))
    u = np.arange(end + 1, dtype=np.float64)
    source = np.interp(u, new_knots, old_knots)
    source = np.where(u < new_knots[0], old_knots[0] + (u - new_knots[0]), source)
    source = np.where(u > new_knots[-1], old_knots[-1] + (u - new_knots[-1]), source)
    return TimeMap(source, moved)


def take(x: Floats, source: Floats) -> Floats:
    """Return x at fractional positions, interpolated linearly; whole positions are taken exactly."""
    low = np.clip(np.floor(source).astype(np.int64), 0, len(x) - 1)
    high = np.minimum(low + 1, len(x) - 1)
    share = source - low
    return np.where(share == 0, x[low], (1 - share) * x[low] + share * x[high])


def decode(probability: NDArray[Any], rate: int) -> Floats:
    """Return beat positions from the probability of QRS (T,), in samples of ``rate``, ascending.

    Runs above 0.5 of at least 40 ms become their probability-weighted centre; of two centres closer than 200 ms
    that with the larger mass stays.
    """
    inside = np.concatenate([[False], probability > 0.5, [False]]).astype(np.int8)
    edges = np.diff(inside)
    runs = zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True)
    shortest = round(_MIN_RUN_S * rate)
    kept: list[tuple[float, float]] = []
    for first, stop in runs:
        if stop - first < shortest:
            continue
        weight = probability[first:stop].astype(np.float64)
        centre, mass = float(weight @ np.arange(first, stop) / weight.sum()), float(weight.sum())
        if kept and centre - kept[-1][0] < _REFRACTORY_S * rate:
            if mass > kept[-1][1]:
                kept[-1] = (centre, mass)
        else:
            kept.append((centre, mass))
    return np.array([centre for centre, _ in kept])
