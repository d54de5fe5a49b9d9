"""Generated phonocardiograms whose states are known exactly: the embedded twin of the heart-sound data sets.

As with the generated electrocardiograms, training confounds sound and rhythm: persons with a loud S1 always have a
slow heart, persons with a loud S2 a fast one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from benchsuite.datasets.pcg import GENERATED
from benchsuite.datasets.pcg.reader import DIASTOLE, FRAME_S, S1, S2, SYSTOLE, Part, PcgDataset, PcgRecord, centres_of

Floats = NDArray[np.float64]

GROUPS = ("iid", "swap", "newmorph", "newrhythm", "both")

_MIN_RR_S = 0.36
_WALK_HZ = 150


@dataclass(frozen=True)
class Sounds:
    """How one person's heart sounds: loudness, pitch (Hz), split S2, and the strength of a systolic murmur."""

    loudness: tuple[float, float]
    pitch: tuple[float, float]
    split: bool = False
    murmur: float = 0.0


def load_generated(root: Path | None, draw: int) -> PcgDataset:
    """Return 60 training and 5 x 12 test records at 1000 Hz; another draw, other records."""
    rng = np.random.default_rng([2203, draw])
    records = [_training_record(i, rng) for i in range(GENERATED["train"]["records"])]
    for group in GROUPS:
        records += [_test_record(group, i, rng) for i in range(GENERATED["test"]["records"])]
    for record in records:
        record.validate()
    return PcgDataset("generated-pcg", tuple(records))


def loud_first(rng: Generator) -> Sounds:
    """Return sounds A: S1 the louder, both low."""
    return Sounds((1.0, rng.uniform(0.35, 0.6)), (rng.uniform(35, 50), rng.uniform(55, 75)))


def loud_second(rng: Generator) -> Sounds:
    """Return sounds B: S2 the louder, both higher."""
    return Sounds((rng.uniform(0.35, 0.6), 1.0), (rng.uniform(50, 65), rng.uniform(75, 95)))


def unseen(rng: Generator) -> Sounds:
    """Return sounds that training lacks: any loudness and pitch, often a split S2 or a systolic murmur."""
    return Sounds(
        (rng.uniform(0.5, 1.0), rng.uniform(0.5, 1.0)),
        (rng.uniform(35, 80), rng.uniform(45, 120)),
        split=bool(rng.random() < 0.4),
        murmur=float(rng.uniform(0.05, 0.35)) if rng.random() < 0.7 else 0.0,
    )


def _training_record(index: int, rng: Generator) -> PcgRecord:
    train = GENERATED["train"]
    sounds, tempo = ((loud_first, "slow_bpm"), (loud_second, "fast_bpm"))[index % 2]
    return _record(f"train-{index:02d}", "train", "", sounds(rng), train[tempo], False, train, rng)


def _test_record(group: str, index: int, rng: Generator) -> PcgRecord:
    train, test = GENERATED["train"], GENERATED["test"]
    odd = index % 2
    tempo = train[("slow_bpm", "fast_bpm")[odd if group != "swap" else 1 - odd]]
    sounds = (loud_first, loud_second)[odd](rng)
    if group in ("newmorph", "both"):
        sounds = unseen(rng)
    irregular = group in ("newrhythm", "both")
    if irregular:
        tempo = test["irregular_bpm"]
    return _record(f"{group}-{index:02d}", "test", group, sounds, tempo, irregular, test, rng)


def _record(
    name: str,
    part: Part,
    group: str,
    sounds: Sounds,
    tempo: Sequence[float],
    irregular: bool,
    settings: dict[str, Any],
    rng: Generator,
) -> PcgRecord:
    fs, seconds = GENERATED["fs"], settings["seconds"]
    mean = 60.0 / rng.uniform(tempo[0], tempo[1])
    count = int(seconds / _MIN_RR_S) + 2
    spread = rng.normal(size=count)
    intervals = np.maximum(mean * np.exp(0.2 * spread) if irregular else mean * (1 + 0.03 * spread), _MIN_RR_S)
    clean, states = render(sounds, intervals, seconds, fs, rng, irregular=irregular)
    signal = add_noise(clean, rng.uniform(settings["snr_db"][0], settings["snr_db"][1]), fs, rng)
    return PcgRecord(name, name, signal.astype(np.float32), float(fs), states, centres_of(states), group, part)


def render(
    sounds: Sounds, intervals: Floats, seconds: float, fs: int, rng: Generator, *, irregular: bool
) -> tuple[Floats, NDArray[np.int8]]:
    """Draw noiseless heart sounds, one cycle an interval (s), the first S1 starting at a random time.

    Returns
    -------
    signal
        (T,) float64.
    states
        (F,) int8, the state at the centre of every 20 ms frame.
    """
    length = round(seconds * fs)
    signal = np.zeros(length)
    middle = (np.arange(int(np.ceil(seconds / FRAME_S))) + 0.5) * FRAME_S
    states = np.full(len(middle), DIASTOLE, dtype=np.int8)
    durations = {S1: rng.uniform(0.09, 0.16), S2: rng.uniform(0.07, 0.13)}
    base, slope, jitter = (0.12, 0.2, 0.1) if irregular else (0.18, 0.13, 0.03)
    onset = -rng.uniform(0, intervals[0])
    for interval in intervals:
        gap = min((base + slope * interval) * (1 + jitter * rng.normal()), 0.62 * interval)
        gap = max(gap, durations[S1] + 0.04)
        first_end, second, second_end = onset + durations[S1], onset + gap, onset + gap + durations[S2]
        _add_burst(signal, onset, durations[S1], sounds.pitch[0], sounds.loudness[0], fs, rng)
        _add_burst(signal, second, durations[S2], sounds.pitch[1], sounds.loudness[1], fs, rng)
        if sounds.split:
            _add_burst(signal, second + 0.03, durations[S2], sounds.pitch[1], 0.6 * sounds.loudness[1], fs, rng)
        if sounds.murmur:
            _add_murmur(signal, first_end, second, sounds.murmur, fs, rng)
        states[(middle >= onset) & (middle < first_end)] = S1
        states[(middle >= first_end) & (middle < second)] = SYSTOLE
        states[(middle >= second) & (middle < second_end)] = S2
        onset += interval
    return signal, states


def _add_burst(
    signal: Floats, onset: float, duration: float, pitch: float, loudness: float, fs: int, rng: Generator
) -> None:
    """Add a Gaussian-windowed tone with a weaker partial 1.8 times as high."""
    phases = rng.uniform(0, 2 * np.pi, size=2)
    first, last = max(round(onset * fs), 0), min(round((onset + duration) * fs), len(signal))
    if last <= first:
        return
    time = np.arange(first, last) / fs - (onset + duration / 2)
    window = np.exp(-0.5 * (time / (duration / 5)) ** 2)
    tone = np.sin(2 * np.pi * pitch * time + phases[0]) + 0.5 * np.sin(2 * np.pi * 1.8 * pitch * time + phases[1])
    signal[first:last] += loudness * window * tone


def _add_murmur(signal: Floats, start: float, end: float, strength: float, fs: int, rng: Generator) -> None:
    """Add differentiated white noise that swells and fades over systole."""
    first, last = max(round(start * fs), 0), min(round(end * fs), len(signal))
    if last - first < 2:
        return
    passed = (np.arange(first, last) / fs - start) / (end - start)  # of systole, also of one that the record cuts
    swell = np.sin(np.pi * np.clip(passed, 0.0, 1.0))
    signal[first:last] += strength * swell * np.diff(rng.normal(size=last - first + 1))


def add_noise(signal: Floats, snr_db: float, fs: int, rng: Generator) -> Floats:
    """Add white noise and a low-passed random walk (weights .7) at a signal-to-noise ratio of standard deviations."""
    white = rng.normal(size=len(signal))
    noise = 0.7 * white + 0.7 * low_passed_walk(len(signal), fs, rng)
    return signal + noise / noise.std() * signal.std() * 10 ** (-snr_db / 20)


def low_passed_walk(length: int, fs: int, rng: Generator) -> Floats:
    """Return (length,) of a random walk below 150 Hz, of mean 0 and standard deviation 1: friction and breathing."""
    sections = butter(2, _WALK_HZ, "lowpass", fs=fs, output="sos")
    walk = sosfiltfilt(sections, np.cumsum(rng.normal(size=length)))
    return np.asarray((walk - walk.mean()) / walk.std())
