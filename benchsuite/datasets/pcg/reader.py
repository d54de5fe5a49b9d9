"""Phonocardiograms with the state of every 20 ms: CirCor 2022, CinC 2016, Springer's examples, generated records.

States: 0 S1, 1 systole, 2 S2, 3 diastole, -1 not annotated. Sources: CirCor 2022 as published on PhysioNet
(``.tsv`` rows start, end, state), the corrected states of CinC 2016 (``.mat``), and Springer's example recordings with
R peaks and ends of T waves.
"""

from __future__ import annotations

import hashlib
import itertools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.columns import Row
from benchsuite.core.errors import DataError
from benchsuite.datasets.files import find_files, flat_numbers, matlab_value, read_arrays, read_file, whole_numbers
from benchsuite.datasets.wfdb_header import read_header

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
# What rows may overlap, and leave free between them, in seconds: published ones do by less than a millisecond.
_CIRCOR_SLACK_S = FRAME_S / 4
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
        if not np.isin(self.states, (UNLABELLED, S1, SYSTOLE, S2, DIASTOLE)).all():
            raise DataError(f"record {self.name}: states are -1, 0, 1, 2 or 3")
        if not sum(len(times) for times in self.events.values()):
            raise DataError(f"record {self.name}: its annotations name no heart sound")
        for times in self.events.values():
            if not (np.diff(times) > 0).all():
                raise DataError(f"record {self.name}: heart sounds are unsorted or repeated")
            if len(times) and not (times[0] >= 0 and times[-1] < len(self.states)):
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
    """Read every recording of CirCor 2022 under a folder: a ``.hea``, a ``.wav`` and a ``.tsv`` each.

    Audio outside the rows of the ``.tsv`` is not annotated. Where the ``<id>.txt`` of a person is there, the
    recordings that it lists must be too.

    Raises
    ------
    DatasetNotFound
        If the folder has none.
    DataError
        For a damaged recording; one of whose three files one is missing; a sound that is not one channel of 16 bits,
        or not as long or as fast as its header says; rows that are unsorted, overlap by more than 5 ms, lie outside the
        recording or have a state that is none of 0 to 4.
    """
    what = "recordings (.hea, .wav, .tsv) of CirCor 2022"
    files = find_files(root, "*.tsv", what)
    folder = files[0].parent
    for path in sorted([*folder.glob("*.wav"), *folder.glob("*.hea")]):
        if not path.with_suffix(".tsv").is_file():
            raise DataError(f"{path.name}: {path.stem}.tsv is missing beside it")
    for path in sorted(folder.glob("*.txt")):
        _check_listed(path)
    return PcgDataset("circor2022", tuple(_circor_record(file) for file in files))


def _check_listed(person: Path) -> None:
    """Compare the list of recordings of a person (place, header, sound, rows) with what is there."""
    for line in person.read_text(encoding="utf-8", errors="replace").splitlines()[1:]:
        words = line.split()
        if line.startswith("#") or len(words) != 4 or not words[1].endswith(".hea"):
            continue
        missing = next((name for name in words[1:] if not person.with_name(name).is_file()), None)
        if missing is not None:
            raise DataError(f"{person.name}: lists {missing}, which is missing - add it, or remove {person.name}")


def _circor_record(labels: Path) -> PcgRecord:
    wav, header = labels.with_suffix(".wav"), labels.with_suffix(".hea")
    for file in (wav, header):
        if not file.is_file():
            raise DataError(f"{labels.name}: {file.name} is missing beside it")
    fs, samples = _sound(wav, header)
    states = _states_from_rows(_label_rows(labels, len(samples) / fs), len(samples), fs)
    record = PcgRecord(
        name=labels.stem,
        patient=f"circor2022/{labels.stem.split('_')[0]}",
        signal=(samples / 32768.0).astype(np.float32),
        fs=fs,
        states=states,
        events=centres_of(states),
    )
    record.validate()
    return record


def _sound(wav: Path, header: Path | None = None) -> tuple[float, NDArray[np.int16]]:
    """Return the sampling rate, Hz, and the (T,) samples of a whole sound of 16 bits, which is what its header says."""
    from scipy.io import wavfile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of is checked below
        fs, samples = read_file(wav, lambda: wavfile.read(wav))
    facts = read_header(header) if header else None
    if facts and facts.rate != fs:
        raise DataError(f"record {wav.stem}: sound at {fs} Hz, but its header says {facts.rate:g} Hz")
    if samples.ndim != 1:
        raise DataError(f"record {wav.stem}: {samples.shape[1]} channels, needs one")
    if samples.dtype != np.int16:
        raise DataError(f"{wav.name}: its samples are {samples.dtype}, needs 16-bit integers as published")
    if facts and [(line.file, line.format) for line in facts.signals] != [(wav.name, "16")]:
        raise DataError(f"{facts.path.name}: needs one signal, of 16 bits, in {wav.name}")
    if facts and len(samples) != facts.length:
        raise DataError(
            f"{wav.name}: holds {len(samples):,} of {facts.length:,} samples that {facts.path.name} announces"
        )
    if not _is_filled_by_its_chunks(wav.read_bytes()):
        raise DataError(f"{wav.name}: holds more or fewer samples than it announces itself: cut short?")
    return float(fs), samples


def _is_filled_by_its_chunks(content: bytes) -> bool:
    """Tell whether the chunks of a RIFF file, each as long as it says (and even), end where the file does."""
    place = 12
    while place + 8 <= len(content):
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        place += 8 + size + size % 2
    return place in (len(content), len(content) + 1)


def _label_rows(path: Path, duration: float) -> NDArray[np.float64]:
    """Return (n, 3) start and end in seconds and state of the rows of a ``.tsv`` of a recording so long."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path.name}: cannot be read: it is no UTF-8 text") from None
    rows: list[tuple[float, float, int]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        row = Row(Path(path.name), number, dict(zip(("start", "end", "state"), cells, strict=False)))
        if len(cells) != 3:
            raise row.wrong(f"has {len(cells)} cells, needs rows of start, end, state")
        try:
            start, end, state = row.number("start"), row.number("end"), row.whole("state")
        except DataError as error:
            raise DataError(f"{error}: the row cannot be read") from None
        if state not in _CIRCOR_STATES:
            raise row.wrong(f"unknown state {state} (known: 0 to 4)")
        if end < start or (rows and start < rows[-1][0]):
            raise row.wrong("rows are unsorted or end before they start")
        if rows and start < rows[-1][1] - _CIRCOR_SLACK_S:
            raise row.wrong(f"begins at {start:g} s, before the row above ends at {rows[-1][1]:g} s")
        if start < 0 or end > duration + FRAME_S:
            raise row.wrong(f"lies outside the {duration:g} s of the recording")
        rows.append((start, end, state))
    if not rows:
        raise DataError(f"{path.name}: needs rows of start, end, state")
    return np.array(rows, dtype=np.float64)


def _states_from_rows(rows: NDArray[np.float64], samples: int, fs: float) -> NDArray[np.int8]:
    """Return the state at the centre of every frame; audio outside the rows is not annotated."""
    start, end, code = rows.T
    middle = (np.arange(frame_count(samples, fs)) + 0.5) * FRAME_S
    row = np.searchsorted(start, middle, side="right") - 1
    inside = (row >= 0) & (middle < end[np.maximum(row, 0)] + _CIRCOR_SLACK_S)
    states = np.full(len(middle), UNLABELLED, dtype=np.int8)
    states[inside] = [_CIRCOR_STATES[int(code[r])] for r in row[inside]]
    return states


def load_cinc2016(root: Path | None, draw: int) -> PcgDataset:
    """Read every recording of the CinC Challenge 2016 under a folder that has corrected states.

    ``NAME_StateAns.mat`` (key state_ans) holds rows of a sample at 2000 Hz, counted from 1, and of the state that
    begins there: S1, systole, S2, diastole, or (N and N) around noise. Noise, and what follows the last row, is not
    annotated. ``NAME.wav`` may lie in any folder but ``validation``, which repeats training recordings; a ``NAME.hea``
    beside it is compared. Which recordings stem from one person these files do not tell: each counts as a person of
    its own.

    Raises
    ------
    DatasetNotFound
        If the folder has none.
    DataError
        For a damaged recording; one whose sound is missing, or not one channel of 16 bits at 2000 Hz; rows that are
        unsorted, name no whole samples of the recording, or have another state.
    """
    found = find_files(root, "**/*_StateAns.mat", "recordings (*_StateAns.mat, *.wav) of CinC 2016")
    corrected = [file for file in found if "hand_corrected" in file.parts] or found
    sounds: dict[str, list[Path]] = {}
    for wav in sorted(root.glob("**/*.wav") if root else ()):
        if "validation" not in wav.parts:
            sounds.setdefault(wav.stem, []).append(wav)
    return PcgDataset("cinc2016", tuple(_cinc2016_record(file, sounds) for file in corrected))


def _cinc2016_record(labels: Path, sounds: dict[str, list[Path]]) -> PcgRecord:
    name = labels.stem.removesuffix("_StateAns")
    wavs = sounds.get(name, [])
    if len(wavs) != 1:
        raise DataError(f"{labels.name}: there are {len(wavs)} files {name}.wav in the folders beside it, needs one")
    header = wavs[0].with_suffix(".hea")
    fs, samples = _sound(wavs[0], header if header.is_file() else None)
    if fs != _CINC2016_HZ:
        raise DataError(
            f"record {name}: sampling rate {fs:g} Hz, needs {_CINC2016_HZ}: its states count samples of that"
        )
    states = _states_from_onsets(_onsets(labels), len(samples), labels.name)
    record = PcgRecord(
        name=name,
        patient=f"cinc2016/{name}",
        signal=(samples / 32768.0).astype(np.float32),
        fs=fs,
        states=states,
        events=centres_of(states),
    )
    record.validate()
    return record


def _onsets(path: Path) -> list[tuple[Any, str]]:
    """Return the rows of corrected states: a sample, counted from 1, and the state that begins there."""
    table = np.asarray(matlab_value(path, "state_ans"))
    if table.ndim != 2 or table.shape[1] != 2 or not len(table):
        raise DataError(f"{path.name}: state_ans has shape {table.shape}, needs rows of a sample and a state")
    return read_file(path, lambda: [(_inner(sample), str(_inner(state))) for sample, state in table])


def _inner(cell: Any) -> Any:
    """Return what stands inside nested cells of one element."""
    while isinstance(cell, np.ndarray):
        cell = cell.item() if cell.dtype.kind != "O" else cell.ravel()[0]
    return cell


def _states_from_onsets(rows: list[tuple[Any, str]], samples: int, name: str) -> NDArray[np.int8]:
    """Return the state at the centre of every frame; a state lasts until the next row, the last one is not known."""
    unknown = sorted({state for _, state in rows} - set(_CINC2016_STATES))
    if unknown:
        raise DataError(f"{name}: unknown state {unknown[0]!r} (known: {', '.join(_CINC2016_STATES)})")
    first = whole_numbers([sample for sample, _ in rows], f"{name}: state_ans")
    if (np.diff(first) < 0).any():
        raise DataError(f"{name}: its states are unsorted")
    if first[0] < 1 or first[-1] > samples:
        raise DataError(
            f"{name}: states begin at samples {first[0]} to {first[-1]} of {samples}: of another recording?"
        )
    onset = (first - 1) / _CINC2016_HZ
    codes = np.array([_CINC2016_STATES[state] for _, state in rows[:-1]] + [UNLABELLED], dtype=np.int8)
    frames = frame_count(samples, float(_CINC2016_HZ))
    row = np.searchsorted(onset, (np.arange(frames) + 0.5) * FRAME_S, side="right") - 1
    return np.where(row >= 0, codes[np.maximum(row, 0)], UNLABELLED).astype(np.int8)


def load_springer(root: Path | None, draw: int) -> PcgDataset:
    """Read Springer's examples: ``.npz`` with pcg, fs = 1000, r_peaks_50hz and t_ends_50hz (1-based frames).

    The reference S1 is centred 61 ms after an R peak, the reference S2 on the end of a T wave. The published excerpts
    end anywhere in a beat: one mark of a kind may lie behind the end, and a sound centred there does not count. Frames
    before the first R peak and after the last sound are not annotated.

    Raises
    ------
    DatasetNotFound
        If the folder has none.
    DataError
        For a damaged file; one that lacks an array; another sampling rate; a ``pcg`` that is not one list of real
        numbers; R peaks or ends of T waves that are no whole frames, before the first or several behind the last one,
        unsorted or repeated.
    """
    files = find_files(root, "*.npz", "springer_*.npz with pcg, fs, r_peaks_50hz, t_ends_50hz")
    return PcgDataset("springer", tuple(_springer_record(file) for file in files))


def _springer_record(file: Path) -> PcgRecord:
    content = read_file(file, lambda: read_arrays(file))
    for key in ("pcg", "fs", "r_peaks_50hz", "t_ends_50hz"):
        if key not in content:
            raise DataError(f"{file.name}: has no {key!r}, only {', '.join(sorted(content)) or 'nothing'}")
    rate = flat_numbers(content["fs"], f"{file.name}: fs")
    if rate.tolist() != [_SPRINGER_HZ]:
        shown = ", ".join(f"{value:g}" for value in rate[:3]) or "none"
        raise DataError(f"record {file.stem}: sampling rate {shown} Hz, needs {_SPRINGER_HZ}")
    signal = flat_numbers(content["pcg"], f"{file.name}: pcg").astype(np.float32)
    frames = frame_count(len(signal), float(_SPRINGER_HZ))
    times = {}
    for sound, key in ((S1, "r_peaks_50hz"), (S2, "t_ends_50hz")):
        marks = whole_numbers(content[key], f"{file.name}: {key}")
        if (marks < 1).any() or (marks > frames).sum() > 1:
            outside = marks[(marks < 1) | (marks > frames)]
            raise DataError(f"{file.name}: {key} holds {outside[0]}, outside the frames 1 to {frames}: pcg cut short?")
        times[sound] = marks.astype(np.float64) - 1
    times[S1] += _SPRINGER_S1_S / 2 / FRAME_S
    events = {sound: centres[centres < frames] for sound, centres in times.items()}
    record = PcgRecord(
        name=file.stem,
        patient=f"springer/{file.stem}",
        signal=signal,
        fs=float(_SPRINGER_HZ),
        states=_states_from_events(events, frames),
        events=events,
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
