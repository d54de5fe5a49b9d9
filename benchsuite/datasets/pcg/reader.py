"""Phonocardiograms with the state of every 20 ms: CirCor 2022, CinC 2016, Springer's examples, generated records.

States: 0 S1, 1 systole, 2 S2, 3 diastole, -1 not annotated. Sources: CirCor 2022 as published on PhysioNet
(``.tsv`` rows start, end, state), the corrected states of CinC 2016 (``.mat``), and Springer's example recordings with
R peaks and ends of T waves.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError
from benchsuite.datasets.files import find_files, read_file

Part = Literal["train", "test", "any"]

S1, SYSTOLE, S2, DIASTOLE, UNLABELLED = 0, 1, 2, 3, -1
SOUNDS = (S1, S2)
FRAME_S = 0.02
FRAMES_PER_SECOND = 50

_SAMPLING_RATES = (500.0, 50_000.0)
_SPRINGER_HZ = 1000
_SPRINGER_S1_S = 0.122
_SPRINGER_S2_S = 0.092
_CINC2016_HZ = 2000
_CINC2016_STATES = {
    "S1": S1,
    "systole": SYSTOLE,
    "S2": S2,
    "diastole": DIASTOLE,
    "(N": UNLABELLED,
    "N)": UNLABELLED,
}
_CIRCOR_STATES = {0: UNLABELLED, 1: S1, 2: SYSTOLE, 3: S2, 4: DIASTOLE}


@dataclass(frozen=True, eq=False)
class PcgRecord:
    """One recording.

    Attributes
    ----------
    name, patient
        Of the recording, and of the person: recordings of one person never stand on both sides of a split.
    signal
        (T,) float32, arbitrary units.
    fs
        Sampling rate, Hz.
    states
        (F,) int8, the state of every 20 ms from the start; F = ceil(T / fs * 50).
    events
        For S1 and S2: (n,) float64 centres of the sounds in frames, ascending.
    group, part
        Test condition of generated data; which side of a split the data set itself puts the record on.
    """

    name: str
    patient: str
    signal: NDArray[np.float32]
    fs: float
    states: NDArray[np.int8]
    events: dict[int, NDArray[np.float64]]
    group: str = ""
    part: Part = "any"

    def validate(self) -> None:
        """Check everything that the attributes promise.

        Raises
        ------
        DataError
            One line that names the record and the first broken promise.
        """
        low, high = _SAMPLING_RATES
        if not low <= self.fs <= high:
            raise DataError(f"record {self.name}: a sampling rate of {self.fs:g} Hz is outside {low:g} .. {high:g}")
        if self.signal.ndim != 1 or len(self.signal) == 0:
            raise DataError(f"record {self.name}: has no signal")
        missing = int((~np.isfinite(self.signal)).sum())
        if missing:
            raise DataError(f"record {self.name}: {missing} samples are not numbers - repair them or remove the record")
        if len(self.states) != frame_count(len(self.signal), self.fs):
            raise DataError(f"record {self.name}: {len(self.states)} labelled frames for {len(self.signal)} samples")
        if not sum(len(times) for times in self.events.values()):
            raise DataError(f"record {self.name}: its annotations name no heart sound")
        for times in self.events.values():
            if (np.diff(times) <= 0).any():
                raise DataError(f"record {self.name}: heart sounds are unsorted or repeated")
            if len(times) and (times[0] < 0 or times[-1] >= len(self.states)):
                raise DataError(f"record {self.name}: a heart sound lies outside the recording")


@dataclass(frozen=True, eq=False)
class PcgDataset:
    """Recordings in a fixed order."""

    name: str
    records: tuple[PcgRecord, ...]

    def content_hash(self) -> str:
        """Return the sha256 (hex) of all signals and annotations."""
        digest = hashlib.sha256()
        for record in self.records:
            digest.update(f"{record.name}:{record.patient}:{record.fs}:{record.part}".encode())
            digest.update(np.ascontiguousarray(record.signal).tobytes())
            digest.update(np.ascontiguousarray(record.states).tobytes())
        return digest.hexdigest()


def frame_count(samples: int, fs: float) -> int:
    """Return the number of 20 ms frames that cover a signal."""
    return int(np.ceil(samples / fs * FRAMES_PER_SECOND - 1e-9))


def runs_of(states: NDArray[Any], state: int, shortest: int = 1) -> NDArray[np.int64]:
    """Return (n, 2) first and last frame of every maximal run of a state with at least ``shortest`` frames."""
    inside = np.concatenate([[False], np.asarray(states) == state, [False]]).astype(np.int8)
    edges = np.diff(inside)
    first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    keep = last - first + 1 >= shortest
    return np.column_stack([first[keep], last[keep]])


def centres_of(states: NDArray[Any], shortest: int = 1) -> dict[int, NDArray[np.float64]]:
    """Return the centres (first + last) / 2, in frames, of the runs of S1 and of S2."""
    return {state: runs_of(states, state, shortest).mean(axis=1) for state in SOUNDS}


def load_circor2022(root: Path | None, draw: int) -> PcgDataset:
    """Read every recording of CirCor 2022 under a folder: ``<id>.txt``, and ``.hea``, ``.wav``, ``.tsv`` each.

    Raises
    ------
    DatasetNotFound
        If the folder has none.
    DataError
        For a damaged recording, or one whose label file is missing.
    """
    files = find_files(root, "*.tsv", "recordings (.hea, .wav, .tsv) of CirCor 2022")
    return PcgDataset("circor2022", tuple(_circor_record(file) for file in files))


def _circor_record(labels: Path) -> PcgRecord:
    import wfdb
    from scipy.io import wavfile

    wav, header = labels.with_suffix(".wav"), labels.with_suffix(".hea")
    for file in (wav, header):
        if not file.is_file():
            raise DataError(f"{labels.name}: {file.name} is missing beside it")
    fs, samples = read_file(wav, lambda: wavfile.read(wav))
    declared = float(read_file(header, lambda: wfdb.rdheader(str(header.with_suffix("")))).fs)
    if declared != fs:
        raise DataError(f"record {labels.stem}: sound at {fs} Hz, but its header says {declared:g} Hz")
    if samples.ndim != 1:
        raise DataError(f"record {labels.stem}: {samples.shape[1]} channels, needs one")
    rows = read_file(labels, lambda: np.array([line.split() for line in labels.read_text().splitlines()], dtype=float))
    states = _states_from_rows(rows, len(samples), float(fs), labels.name)
    record = PcgRecord(
        name=labels.stem,
        patient=f"circor2022/{labels.stem.split('_')[0]}",
        signal=(samples / 32768.0).astype(np.float32),
        fs=float(fs),
        states=states,
        events=centres_of(states),
    )
    record.validate()
    return record


def _states_from_rows(rows: NDArray[Any], samples: int, fs: float, name: str) -> NDArray[np.int8]:
    """Return the state at the centre of every frame; audio outside the rows is not annotated."""
    if rows.ndim != 2 or rows.shape[1] != 3:
        raise DataError(f"{name}: needs rows of start, end, state")
    start, end, code = rows.T
    if (np.diff(start) < 0).any() or (end < start).any():
        raise DataError(f"{name}: rows are unsorted or end before they start")
    unknown = sorted(set(code.tolist()) - set(_CIRCOR_STATES))
    if unknown:
        raise DataError(f"{name}: unknown state {unknown[0]:g} (known: 0 to 4)")
    middle = (np.arange(frame_count(samples, fs)) + 0.5) * FRAME_S
    row = np.searchsorted(start, middle, side="right") - 1
    inside = (row >= 0) & (middle < end[np.maximum(row, 0)] + FRAME_S / 4)  # rows leave gaps of a few ms
    states = np.full(len(middle), UNLABELLED, dtype=np.int8)
    states[inside] = [_CIRCOR_STATES[int(code[r])] for r in row[inside]]
    return states


def load_cinc2016(root: Path | None, draw: int) -> PcgDataset:
    """Read every recording of the CinC Challenge 2016 under a folder that has corrected states.

    ``NAME_StateAns.mat`` (key state_ans) holds rows of a sample at 2000 Hz, counted from 1, and of the state that
    begins there: S1, systole, S2, diastole, or (N and N) around noise. Noise, and what follows the last row, is not
    annotated. ``NAME.wav`` may lie in any folder but ``validation``, which repeats training recordings. Which
    recordings stem from one person these files do not tell: each counts as a person of its own.

    Raises
    ------
    DatasetNotFound
        If the folder has none.
    DataError
        For a damaged recording, or one whose sound is missing.
    """
    found = find_files(root, "**/*_StateAns.mat", "recordings (*_StateAns.mat, *.wav) of CinC 2016")
    corrected = [file for file in found if "hand_corrected" in file.parts] or found
    sounds: dict[str, list[Path]] = {}
    for wav in sorted(root.glob("**/*.wav") if root else ()):
        if "validation" not in wav.parts:
            sounds.setdefault(wav.stem, []).append(wav)
    return PcgDataset("cinc2016", tuple(_cinc2016_record(file, sounds) for file in corrected))


def _cinc2016_record(labels: Path, sounds: dict[str, list[Path]]) -> PcgRecord:
    from scipy.io import loadmat, wavfile

    name = labels.stem.removesuffix("_StateAns")
    wavs = sounds.get(name, [])
    if len(wavs) != 1:
        raise DataError(f"{labels.name}: there are {len(wavs)} files {name}.wav in the folders beside it, needs one")
    fs, samples = read_file(wavs[0], lambda: wavfile.read(wavs[0]))
    if fs != _CINC2016_HZ:
        raise DataError(f"record {name}: sampling rate {fs} Hz, needs {_CINC2016_HZ}: its states count samples of that")
    if samples.ndim != 1:
        raise DataError(f"record {name}: {samples.shape[1]} channels, needs one")
    rows = read_file(labels, lambda: [(float(_inner(a)), str(_inner(b))) for a, b in loadmat(labels)["state_ans"]])
    states = _states_from_onsets(rows, frame_count(len(samples), float(fs)), labels.name)
    record = PcgRecord(
        name=name,
        patient=f"cinc2016/{name}",
        signal=(samples / 32768.0).astype(np.float32),
        fs=float(fs),
        states=states,
        events=centres_of(states),
    )
    record.validate()
    return record


def _inner(cell: Any) -> Any:
    """Return what stands inside nested cells of one element."""
    while isinstance(cell, np.ndarray):
        cell = cell.ravel()[0]
    return cell


def _states_from_onsets(rows: list[tuple[float, str]], frames: int, name: str) -> NDArray[np.int8]:
    """Return the state at the centre of every frame; a state lasts until the next row, the last one is not known."""
    unknown = sorted({state for _, state in rows} - set(_CINC2016_STATES))
    if unknown:
        raise DataError(f"{name}: unknown state {unknown[0]!r} (known: {', '.join(_CINC2016_STATES)})")
    onset = (np.array([sample for sample, _ in rows]) - 1) / _CINC2016_HZ
    if (np.diff(onset) < 0).any():
        raise DataError(f"{name}: its states are unsorted")
    codes = np.array([_CINC2016_STATES[state] for _, state in rows[:-1]] + [UNLABELLED], dtype=np.int8)
    row = np.searchsorted(onset, (np.arange(frames) + 0.5) * FRAME_S, side="right") - 1
    return np.where(row >= 0, codes[np.maximum(row, 0)], UNLABELLED).astype(np.int8)


def load_springer(root: Path | None, draw: int) -> PcgDataset:
    """Read Springer's examples: ``.npz`` with pcg, fs = 1000, r_peaks_50hz and t_ends_50hz (1-based frames).

    The reference S1 is centred 61 ms after an R peak, the reference S2 on the end of a T wave. Frames before the
    first R peak and after the last sound are not annotated.
    """
    files = find_files(root, "*.npz", "springer_*.npz with pcg, fs, r_peaks_50hz, t_ends_50hz")
    return PcgDataset("springer", tuple(_springer_record(file) for file in files))


def _springer_record(file: Path) -> PcgRecord:
    def read() -> tuple[Any, ...]:
        with np.load(file, allow_pickle=False) as arrays:
            return tuple(arrays[key] for key in ("pcg", "fs", "r_peaks_50hz", "t_ends_50hz"))

    signal, fs, r_peaks, t_ends = read_file(file, read)
    if int(fs) != _SPRINGER_HZ:
        raise DataError(f"record {file.stem}: sampling rate {int(fs)} Hz, needs {_SPRINGER_HZ}")
    frames = frame_count(len(signal), float(fs))
    events = {
        S1: np.asarray(r_peaks, dtype=np.float64).ravel() - 1 + _SPRINGER_S1_S / 2 / FRAME_S,
        S2: np.asarray(t_ends, dtype=np.float64).ravel() - 1,
    }
    events = {sound: times[times < frames] for sound, times in events.items()}
    states = _states_from_events(events, frames)
    record = PcgRecord(
        file.stem, f"springer/{file.stem}", np.asarray(signal, dtype=np.float32).ravel(), float(fs), states, events
    )
    record.validate()
    return record


def _states_from_events(events: dict[int, NDArray[np.float64]], frames: int) -> NDArray[np.int8]:
    """Return frame labels around known sound centres: S1 for 122 ms, S2 for 92 ms, the pauses between them."""
    sounds = sorted((time, sound) for sound, times in events.items() for time in times.tolist())
    states = np.full(frames, UNLABELLED, dtype=np.int8)
    for (time, sound), (following, _) in itertools.pairwise(sounds):
        states[round(time) : round(following)] = SYSTOLE if sound == S1 else DIASTOLE
    for time, sound in sounds:
        half = (_SPRINGER_S1_S if sound == S1 else _SPRINGER_S2_S) / 2 / FRAME_S
        states[max(0, round(time - half)) : round(time + half) + 1] = sound
    return states
