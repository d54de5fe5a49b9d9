"""Electrocardiograms with the position of every beat: WFDB records, CPSC 2019 segments, generated records.

Sources: WFDB annotation codes as in WFDB's ``isqrs``; CPSC 2019 training data as published by the challenge
(icbeb.org/CPSC2019).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets.files import find_files, flat_numbers, read_file, whole_numbers
from benchsuite.datasets.wfdb_header import WfdbHeader, read_header

Integers = NDArray[np.int64]
Part = Literal["train", "test", "any"]

BEAT_CODES = frozenset("NLRBAaJSVrFejnE/fQ?!")
MARGIN_S = 0.5
LEARNING_S = 300.0
CPSC2019_HZ = 500.0
UNNAMED_LEAD = "ECG"

CPSC2019_SAMPLES = 5000

_SAMPLING_RATES = (50.0, 10_000.0)
# Codes of the MIT annotation format: a long interval of four bytes, fields of the annotation before, a text.
_SKIP, _MODIFIERS, _TEXT = 59, (60, 61, 62), 63
_RATE = re.compile(rb"## time resolution: (\d+\.?\d*)")
_MILLIVOLTS = {"mV": 1.0, "mv": 1.0, "uV": 1e-3, "uv": 1e-3, "V": 1e3, "v": 1e3, "nV": 1e-6}
# Records of the MIT-BIH Arrhythmia Database that stem from one person.
_SAME_PERSON = {"mitdb/202": "mitdb/201"}
# The paced records that the AAMI practice leaves out.
_PACED = frozenset({"102", "104", "107", "217"})


@dataclass(frozen=True, eq=False)
class EcgRecord:
    """One recording.

    Attributes
    ----------
    name, patient
        Of the recording, and of the person: recordings of one person never stand on both sides of a split.
    signals
        (leads, T) float32, millivolts.
    leads
        Names of the leads.
    fs
        Sampling rate, Hz.
    beats
        (n,) int64 sample indices of the R peaks, strictly ascending.
    fibrillation
        (start, end) samples of ventricular flutter or fibrillation.
    scored
        First and last sample that count.
    learning_s
        Seconds from the start that EC57 counting leaves out.
    group
        Test condition of generated data, else empty.
    part
        Which side of a split the data set itself puts the record on; ``any`` leaves that to the task.
    challenge
        The challenge whose own scorer judges the record too, or empty.
    """

    name: str
    patient: str
    signals: NDArray[np.float32]
    leads: tuple[str, ...]
    fs: float
    beats: Integers
    fibrillation: tuple[tuple[int, int], ...] = ()
    scored: tuple[int, int] = (0, 2**62)
    learning_s: float = 0.0
    group: str = ""
    part: Part = "any"
    challenge: Literal["", "cpsc2019"] = ""

    def lead(self, name: str = "") -> NDArray[np.float32]:
        """Return (T,) float32 millivolts of a lead, the first one by default.

        Raises
        ------
        DataError
            If the record has no such lead or several of that name, or samples that are not numbers.
        """
        if name and name not in self.leads:
            raise DataError(f"record {self.name}: has no lead {name!r}, only {', '.join(self.leads)}")
        if name and self.leads.count(name) > 1:
            raise DataError(f"record {self.name}: has {self.leads.count(name)} leads {name!r} - ask for the first one")
        signal = self.signals[self.leads.index(name) if name else 0]
        self._check_finite(signal)
        return signal

    def _check_finite(self, signals: NDArray[np.float32]) -> None:
        missing = int((~np.isfinite(signals)).sum())
        if missing:
            raise DataError(f"record {self.name}: {missing} samples are not numbers - repair them or remove the record")

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
        if self.signals.ndim != 2 or len(self.signals) != len(self.leads) or not self.leads:
            raise DataError(f"record {self.name}: has no signal")
        self._check_finite(self.signals)
        if len(self.beats) == 0:
            raise DataError(f"record {self.name}: its annotations name no beat")
        if (np.diff(self.beats) <= 0).any():
            raise DataError(f"record {self.name}: beats are unsorted or repeated")
        length = self.signals.shape[1]
        outside = [int(t) for t in (self.beats[0], self.beats[-1]) if not 0 <= t < length]
        if outside:
            raise DataError(
                f"record {self.name}: a beat lies at sample {outside[0]} of {length}:"
                " annotations of another record or sampling rate?"
            )
        if any(not 0 <= start <= end <= length for start, end in self.fibrillation):
            raise DataError(f"record {self.name}: fibrillation is annotated outside its {length} samples")


@dataclass(frozen=True, eq=False)
class EcgDataset:
    """Recordings in a fixed order."""

    name: str
    records: tuple[EcgRecord, ...]

    def content_hash(self) -> str:
        """Return the sha256 (hex) of all signals and annotations."""
        digest = hashlib.sha256()
        for record in self.records:
            digest.update(f"{record.name}:{record.patient}:{record.fs}:{record.leads}:{record.part}".encode())
            digest.update(np.ascontiguousarray(record.signals).tobytes())
            digest.update(record.beats.tobytes())
        return digest.hexdigest()


def load_mitdb(root: Path | None, draw: int) -> EcgDataset:
    """Return the MIT-BIH Arrhythmia records under ``root``, without the four paced ones (AAMI practice)."""
    return load_wfdb(root, "mitdb", skip=_PACED)


def load_svdb(root: Path | None, draw: int) -> EcgDataset:
    """Return the MIT-BIH Supraventricular records under ``root``."""
    return load_wfdb(root, "svdb")


def load_wfdb(root: Path | None, source: str, skip: frozenset[str] = frozenset()) -> EcgDataset:
    """Read every ``.hea`` with its ``.dat`` and ``.atr`` under a folder; annotations that are no beats are dropped.

    Amplitudes become millivolts by the units of the header; nothing that a header leaves out is assumed.

    Raises
    ------
    DatasetNotFound
        If the folder has no such record, or only ones to skip.
    DataError
        For a damaged record; one whose files do not agree in name, sampling rate, length or checksum; one of several
        segments, without sampling rate, not calibrated, or in units that are no voltage; annotations without header.
    """
    headers = find_files(root, "*.hea", f"records (.hea, .dat, .atr) of {source}")
    stems = {header.stem for header in headers}
    orphan = next((path for path in sorted(headers[0].parent.glob("*.atr")) if path.stem not in stems), None)
    if orphan is not None:
        raise DataError(f"{orphan.name}: {orphan.stem}.hea is missing beside it")
    chosen = [read_header(header) for header in headers if header.stem not in skip]
    if not chosen:
        raise DatasetNotFound(f"{root}: holds no records of {source} but those that are left out ({min(stems)}, ...)")
    return EcgDataset(source, tuple(_wfdb_record(header, source) for header in chosen))


def _wfdb_record(facts: WfdbHeader, source: str) -> EcgRecord:
    import wfdb

    header = facts.path
    path = str(header.with_suffix(""))
    facts.check_files()
    recording = read_file(header, lambda: wfdb.rdrecord(path, physical=False))
    answers = header.with_suffix(".atr")
    times, codes, annotated = _annotations(answers.name, read_file(header, answers.read_bytes))
    if recording.d_signal is None or recording.d_signal.shape[1] == 0:
        raise DataError(f"record {header.stem}: has no signal")
    signals = _millivolts(recording, facts)
    rate = float(recording.fs)
    if annotated is not None and annotated != rate:
        raise DataError(f"record {header.stem}: signal at {rate:g} Hz, annotations at {annotated:g} Hz")
    name = f"{source}/{header.stem}"
    record = EcgRecord(
        name=header.stem,
        patient=_SAME_PERSON.get(name, name),
        signals=signals.T.astype(np.float32),
        leads=tuple(name or UNNAMED_LEAD for name in recording.sig_name),
        fs=rate,
        beats=times[[code in BEAT_CODES for code in codes]],
        fibrillation=_episodes(times[codes == "["], times[codes == "]"], signals.shape[0]),
        learning_s=LEARNING_S,
    )
    record.validate()
    return record


def _millivolts(recording: Any, facts: WfdbHeader) -> NDArray[np.float64]:
    """Return (T, leads) float64 millivolts of the digital signals of a record, once they agree with its header."""
    sums = recording.d_signal.astype(np.int64).sum(axis=0) % 65536
    factors = []
    for i, (line, total) in enumerate(zip(facts.signals, sums.tolist(), strict=True)):
        first = int(recording.d_signal[0, i])
        if line.first is not None and line.first != first:
            raise DataError(f"{line.file}: signal {i} begins with {first}, its header says {line.first}")
        if line.checksum is not None and line.checksum != total:
            raise DataError(f"{line.file}: the checksum of signal {i} is {total}, its header says {line.checksum}")
        if line.gain is None:
            raise DataError(f"{facts.path.name}: signal {i} is not calibrated (no gain), needs millivolts")
        if line.unit not in _MILLIVOLTS:
            raise DataError(f"{facts.path.name}: signal {i} is in {line.unit!r}, needs mV, uV, nV or V")
        factors.append(_MILLIVOLTS[line.unit])
    physical: NDArray[np.float64] = read_file(facts.path, recording.dac)
    return physical * factors


def _annotations(name: str, content: bytes) -> tuple[Integers, NDArray[np.str_], float | None]:
    """Return times in samples and symbols of annotations in the MIT format, and the sampling rate if they state it.

    Read by the letter of the format (annot(5) of the WFDB Applications Guide): WFDB's own reader takes what was cut
    off for the end, and never ends on some damaged files.
    """
    from wfdb.io.annotation import ann_labels

    symbols = {label.label_store: label.symbol for label in ann_labels}
    time, place, rate = 0, 0, None
    found: list[tuple[int, str]] = []
    while place + 2 <= len(content):
        word = int.from_bytes(content[place : place + 2], "little")
        code, value = word >> 10, word & 0x3FF
        place += 2
        if word == 0:
            times = np.array([time for time, _ in found], dtype=np.int64)
            return times, np.array([symbol for _, symbol in found], dtype=np.str_), rate
        if code == _SKIP:
            high, low = content[place : place + 2], content[place + 2 : place + 4]
            time += int.from_bytes(low + high, "little", signed=True)
            place += 4
        elif code == _TEXT:
            stated = _RATE.match(content[place : place + value])
            rate = float(stated[1]) if stated else rate
            place += value + value % 2
        elif code not in _MODIFIERS:
            time += value
            found.append((time, symbols.get(code, "")))
    raise DataError(f"{name}: cannot be read: it is cut short, its end mark is missing")


def _episodes(starts: Integers, ends: Integers, length: int) -> tuple[tuple[int, int], ...]:
    """Pair each start with the next end; an episode without one lasts until the record ends."""
    closing = [next((int(end) for end in ends if end >= start), length) for start in starts]
    return tuple(zip(map(int, starts), closing, strict=True))


def load_cpsc2019(root: Path | None, draw: int) -> EcgDataset:
    """Read ``data/data_NNNNN.mat`` (key ecg, mV, 500 Hz) with ``ref/R_NNNNN.mat`` (key R_peak).

    Only beats and detections from 0.5 s after the start to 0.5 s before the end count. Which segments stem from
    one person is not published: each counts as a person of its own.

    Raises
    ------
    DatasetNotFound
        If the folder has no segment.
    DataError
        For a damaged file; a segment without answer or an answer without segment; an ``ecg`` that is not one lead of
        5,000 real numbers; an ``R_peak`` that is not one list of whole numbers inside the segment.
    """
    files = find_files(root, "data/data_*.mat", "data/data_*.mat and ref/R_*.mat of CPSC 2019")
    numbers = {file.stem.removeprefix("data_") for file in files}
    for answer in sorted(files[0].parent.parent.glob("ref/R_*.mat")):
        if answer.stem.removeprefix("R_") not in numbers:
            raise DataError(f"ref/{answer.name}: there is no data/data_{answer.stem.removeprefix('R_')}.mat for it")
    return EcgDataset("cpsc2019", tuple(_cpsc2019_record(file) for file in files))


def _cpsc2019_record(file: Path) -> EcgRecord:
    number = file.stem.removeprefix("data_")
    answer = file.parent.parent / "ref" / f"R_{number}.mat"
    if not answer.is_file():
        raise DataError(f"{file.name}: there is no {answer.parent.name}/{answer.name} beside it")
    signal = flat_numbers(_matlab_value(file, "ecg"), f"{file.name}: ecg").astype(np.float32)
    beats = whole_numbers(_matlab_value(answer, "R_peak"), f"{answer.name}: R_peak")
    if len(signal) != CPSC2019_SAMPLES:
        raise DataError(
            f"{file.name}: ecg has {len(signal):,} of {CPSC2019_SAMPLES:,} samples: cut short or resampled?"
        )
    margin = int(MARGIN_S * CPSC2019_HZ)
    record = EcgRecord(
        name=number,
        patient=f"cpsc2019/{number}",
        signals=signal[None],
        leads=(UNNAMED_LEAD,),
        fs=CPSC2019_HZ,
        beats=beats,
        scored=(margin, len(signal) - margin),
        challenge="cpsc2019",
    )
    record.validate()
    return record


def _matlab_value(path: Path, key: str) -> Any:
    """Return what a MATLAB file keeps under a name."""
    from scipy.io import loadmat

    try:
        content = read_file(path, lambda: loadmat(path))
    except DataError:
        if path.read_bytes()[:10] == b"MATLAB 7.3":
            raise DataError(f"{path.name}: is in the format of MATLAB 7.3 - save it again with -v7") from None
        raise
    if key not in content:
        names = ", ".join(sorted(name for name in content if not name.startswith("__")))
        raise DataError(f"{path.name}: has no {key!r}, only {names or 'nothing'}")
    return content[key]
