"""Generated electrocardiograms whose beats are known exactly: the embedded twin of the QRS data sets.

The training part confounds shape and rhythm on purpose: upright narrow beats are always slow, inverted ones
always fast, and all are regular. The test parts take shape and tempo apart (``swap``), and bring shapes and rhythms
that training lacks: fibrillation, and ventricular beats of many shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchsuite.datasets.ecg import GENERATED
from benchsuite.datasets.ecg.reader import UNNAMED_LEAD, EcgDataset, EcgRecord, Part

Floats = NDArray[np.float64]

GROUPS = ("iid", "swap", "newmorph", "newrhythm", "both")

_MIN_RR_S = 0.28


@dataclass(frozen=True)
class Wave:
    """A Gaussian of a beat: amplitude (mV), offset from R and standard deviation (s)."""

    amplitude: float
    offset: float
    width: float


@dataclass(frozen=True)
class Morphology:
    """The waves of one person's beats. ``r_width`` is that of the QRS, ``t`` of the T wave, ``p`` of the P wave."""

    qrs: tuple[Wave, ...]
    t: Wave
    p: Wave

    def without_p(self) -> Morphology:
        """Return the same beat without P wave (atrial fibrillation)."""
        return Morphology(self.qrs, self.t, Wave(0.0, self.p.offset, self.p.width))


def load_generated(root: Path | None, draw: int) -> EcgDataset:
    """Return 60 training and 5 x 16 test records at 250 Hz; another draw, other records."""
    rng = np.random.default_rng([1909, draw])
    seconds = GENERATED["train"]["seconds"]
    records = [_training_record(i, seconds, rng) for i in range(GENERATED["train"]["records"])]
    for group in GROUPS:
        records += [_test_record(group, i, rng) for i in range(GENERATED["test"]["records"])]
    for record in records:
        record.validate()
    return EcgDataset("generated-ecg", tuple(records))


def upright(rng: Generator) -> Morphology:
    """Return morphology A: upright and narrow."""
    r, width = rng.uniform(0.8, 1.3), rng.uniform(0.010, 0.014)
    qrs = (
        Wave(-rng.uniform(0.05, 0.15) * r, -0.025, 0.008),
        Wave(r, 0.0, width),
        Wave(-rng.uniform(0.1, 0.25) * r, 0.028, 0.010),
    )
    return Morphology(qrs, Wave(rng.uniform(0.2, 0.35) * r, 0.28, 0.045), _p_wave(rng))


def inverted(rng: Generator) -> Morphology:
    """Return morphology B: inverted."""
    r, width = -rng.uniform(0.6, 1.1), rng.uniform(0.013, 0.018)
    qrs = (Wave(-0.15 * r, -0.03, 0.010), Wave(r, 0.0, width), Wave(-0.2 * r, 0.035, 0.012))
    return Morphology(qrs, Wave(rng.uniform(0.15, 0.3) * r, 0.27, 0.05), _p_wave(rng))


def unseen(rng: Generator) -> Morphology:
    """Return one of four morphologies that training lacks."""
    kind = rng.integers(4)
    if kind == 0:  # bundle branch block: wide, T against the QRS
        r = rng.uniform(0.5, 0.9)
        return Morphology((Wave(r, 0.0, rng.uniform(0.028, 0.045)),), Wave(-0.4 * r, 0.3, 0.055), _p_wave(rng))
    if kind == 1:  # T taller than R
        r = rng.uniform(0.5, 0.8)
        small = (Wave(r, 0.0, 0.012), Wave(-0.2 * r, 0.03, 0.010))
        return Morphology(small, Wave(rng.uniform(1.05, 1.3) * r, 0.29, 0.05), _p_wave(rng))
    if kind == 2:  # rSR'
        r = rng.uniform(0.6, 0.9)
        qrs = (Wave(0.4 * r, -0.035, 0.010), Wave(-0.5 * r, -0.012, 0.009), Wave(r, 0.015, 0.013))
        return Morphology(qrs, Wave(-0.2 * r, 0.28, 0.05), _p_wave(rng))
    r = -rng.uniform(0.7, 1.0)  # QS with a large T
    return Morphology((Wave(r, 0.0, 0.030),), Wave(-0.5 * r, 0.3, 0.06), _p_wave(rng))


def ventricular(normal: Morphology, rng: Generator) -> Morphology:
    """Return the ventricular premature beat of a person: wide, of either polarity, T broad and against the QRS, no P.

    The ventricles are excited through muscle instead of the conduction system, so that the QRS lasts .12 to .18 s,
    often with a second deflection the other way, and repolarisation follows the order of excitation: the T wave
    is broad, as high as .25 to .6 of the QRS, and points the other way.
    """
    main = max(abs(wave.amplitude) for wave in normal.qrs) * rng.uniform(0.8, 1.6) * rng.choice([-1.0, 1.0])
    width = rng.uniform(0.028, 0.045)
    second = Wave(-rng.uniform(0.0, 0.5) * main, rng.uniform(2.0, 2.6) * width, rng.uniform(0.02, 0.035))
    t = Wave(-rng.uniform(0.25, 0.6) * main, rng.uniform(0.30, 0.38), rng.uniform(0.055, 0.085))
    return Morphology((Wave(main, 0.0, width), second), t, Wave(0.0, normal.p.offset, normal.p.width))


def _p_wave(rng: Generator) -> Wave:
    return Wave(rng.uniform(0.08, 0.16), -0.16, 0.022)


def regular(bpm: float, count: int, rng: Generator) -> tuple[Floats, NDArray[np.bool_]]:
    """Return RR intervals (s) of sinus rhythm with respiratory arrhythmia; none is ectopic."""
    mean = 60.0 / bpm
    times = np.arange(count) * mean
    intervals = mean * (1 + 0.02 * rng.normal(size=count) + 0.03 * np.sin(2 * np.pi * 0.25 * times))
    return np.maximum(intervals, _MIN_RR_S), np.zeros(count, dtype=bool)


def fibrillating(bpm: float, count: int, rng: Generator) -> tuple[Floats, NDArray[np.bool_]]:
    """Return RR intervals (s) as irregular as in atrial fibrillation."""
    intervals = 60.0 / bpm * np.exp(0.25 * rng.normal(size=count))
    return np.maximum(intervals, _MIN_RR_S), np.zeros(count, dtype=bool)


def ectopic(bpm: float, count: int, rng: Generator) -> tuple[Floats, NDArray[np.bool_]]:
    """Return RR intervals (s) with 15 % premature beats, each followed by a pause, and which beats these are."""
    intervals, _ = regular(bpm, count, rng)
    early = rng.random(count) < 0.15
    early[1:] &= ~early[:-1]
    intervals[early] *= 0.6
    after = np.concatenate([[False], early[:-1]])
    intervals[after] *= 1.4
    return np.maximum(intervals, _MIN_RR_S), early


def render(
    morphology: Morphology,
    intervals: Floats,
    early: NDArray[np.bool_],
    seconds: float,
    fs: int,
    *,
    premature: Morphology | None = None,
    p_waves: bool = True,
) -> tuple[Floats, NDArray[np.int64]]:
    """Draw noiseless beats. ``intervals[k]`` (s) precedes beat k; those marked ``early`` are shaped ``premature``.

    Returns
    -------
    signal
        (T,) mV.
    beats
        (n,) sample indices of R inside the signal: beats lie on whole samples.
    """
    length = round(seconds * fs)
    positions = np.round(np.cumsum(intervals) * fs).astype(np.int64)
    clock = np.arange(length)
    signal = np.zeros(length)
    normal = morphology if p_waves else morphology.without_p()
    for position, interval, is_early in zip(positions, intervals, early, strict=True):
        if position > length + fs:
            break
        beat = premature if is_early and premature is not None else normal
        stretch = float(np.sqrt(np.clip(interval, 0.3, 1.5)))
        first, last = max(position - fs, 0), min(position + fs, length)
        time = (clock[first:last] - position) / fs
        for wave in beat.qrs:
            signal[first:last] += _gaussian(time, wave.amplitude, wave.offset, wave.width)
        signal[first:last] += _gaussian(time, beat.t.amplitude, beat.t.offset * stretch, beat.t.width * stretch)
        signal[first:last] += _gaussian(time, beat.p.amplitude, beat.p.offset * stretch, beat.p.width)
    return signal, positions[(positions >= 0) & (positions < length)]


def _gaussian(time: Floats, amplitude: float, offset: float, width: float) -> Floats:
    return amplitude * np.exp(-0.5 * ((time - offset) / width) ** 2)


def add_noise(signal: Floats, snr_db: float, rng: Generator) -> Floats:
    """Add white noise (weight .6) and a drifting random walk (.8) at a signal-to-noise ratio of standard deviations."""
    white = rng.normal(size=len(signal))
    walk = np.cumsum(rng.normal(size=len(signal)))
    noise = 0.6 * white + 0.8 * (walk - walk.mean()) / walk.std()
    return signal + noise / noise.std() * signal.std() * 10 ** (-snr_db / 20)


_Rhythm = Callable[[float, int, Generator], tuple[Floats, NDArray[np.bool_]]]


def _training_record(index: int, seconds: float, rng: Generator) -> EcgRecord:
    shape, tempo = ((upright, "slow_bpm"), (inverted, "fast_bpm"))[index % 2]
    train = GENERATED["train"]
    return _record(f"train-{index:02d}", "train", "", shape(rng), regular, train[tempo], train["snr_db"], seconds, rng)


def _test_record(group: str, index: int, rng: Generator) -> EcgRecord:
    test, train = GENERATED["test"], GENERATED["train"]
    odd = index % 2
    tempo = train[("slow_bpm", "fast_bpm")[odd if group != "swap" else 1 - odd]]
    rhythm: _Rhythm = regular
    shape = (upright, inverted)[odd](rng)
    if group in ("newmorph", "both"):
        shape = unseen(rng)
    if group in ("newrhythm", "both"):
        rhythm, tempo = (fibrillating, ectopic)[index // 2 % 2], test["irregular_bpm"]
    return _record(f"{group}-{index:02d}", "test", group, shape, rhythm, tempo, test["snr_db"], test["seconds"], rng)


def _record(
    name: str,
    part: Part,
    group: str,
    shape: Morphology,
    rhythm: _Rhythm,
    tempo: Sequence[float],
    snr_db: Sequence[float],
    seconds: float,
    rng: Generator,
) -> EcgRecord:
    fs = GENERATED["fs"]
    bpm = rng.uniform(tempo[0], tempo[1])
    intervals, early = rhythm(bpm, int(seconds / _MIN_RR_S) + 2, rng)
    intervals[0] *= rng.uniform(0.2, 1.0)
    premature, p_waves = ventricular(shape, rng), rhythm is not fibrillating
    signal, beats = render(shape, intervals, early, seconds, fs, premature=premature, p_waves=p_waves)
    noisy = add_noise(signal, rng.uniform(snr_db[0], snr_db[1]), rng)
    return EcgRecord(
        name=name,
        patient=name,
        signals=noisy[None].astype(np.float32),
        leads=(UNNAMED_LEAD,),
        fs=float(fs),
        beats=beats,
        group=group,
        part=part,
    )
