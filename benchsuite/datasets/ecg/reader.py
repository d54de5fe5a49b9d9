"""Electrocardiograms with the position of every beat: WFDB records, CPSC 2019 segments, generated records.

Sources: WFDB annotation codes as in WFDB's ``isqrs``; CPSC 2019 training data as published by the challenge
(icbeb.org/CPSC2019).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets.ecg.wfdb_records import check_pairs, read_annotations, read_recording
from benchsuite.datasets.files import find_files, flat_numbers, matlab_value, whole_numbers

Integers = NDArray[np.int64]
Part = Literal["train", "test", "any"]

BEAT_CODES = frozenset("NLRBAaJSVrFejnE/fQ?!")
MARGIN_S = 0.5
LEARNING_S = 300.0
CPSC2019_HZ = 500.0
UNNAMED_LEAD = "ECG"

CPSC2019_SAMPLES = 5000

_SAMPLING_RATES = (50.0, 10_000.0)
# Records of the MIT-BIH Arrhythmia Database that stem from one person.
_SAME_PERSON = {"mitdb/202": "mitdb/201"}
# The paced records that the AAMI practice leaves out.
_PACED = frozenset({"102", "104", "107", "217"})
# Records of the Noise Stress Test Database that hold noise alone.
_NOISE = frozenset({"bw", "em", "ma"})
_LUDB_REACH_S = 0.15

# From a record's name and the comments of its header to whose recording it is.
Person = Callable[[str, Sequence[str]], str]


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
    normal
        (n,) int64 samples of the normal beats (code N), by which the height of beats is measured; None: of all.
    group
        Test condition of generated data, ratio of signal to noise of noise stress records, else empty.
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
    normal: Integers | None = None
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


def load_incartdb(root: Path | None, draw: int) -> EcgDataset:
    """Return the St Petersburg INCART records under ``root``: twelve leads, 257 Hz.

    The 75 records stem from 32 persons, whom the comments of the headers number (``patient 7``). Records whose header
    names nobody count as of one and the same person, so that none can stand on both sides of a split.
    """
    return load_wfdb(root, "incartdb", person=_incart_person)


def _incart_person(name: str, comments: Sequence[str]) -> str:
    numbers = [found.group(1) for found in (re.search(r"\bpatient\s+(\d+)", text) for text in comments) if found]
    return f"incartdb/{numbers[0]}" if numbers else "incartdb/nobody named"


def load_qtdb(root: Path | None, draw: int) -> EcgDataset:
    """Return the records of the QT Database under ``root`` whose beats are annotated throughout (``.atr``).

    The others, of sudden deaths, have measured waves of a few beats only. Excerpts of MIT-BIH records count as
    recordings of the same persons as these; paced ones are among them.
    """
    return load_wfdb(root, "qtdb", person=_qtdb_person, annotated_only=True)


def _qtdb_person(name: str, comments: Sequence[str]) -> str:
    number = name.removeprefix("sel")
    if re.fullmatch(r"[12]\d\d", number):
        return _SAME_PERSON.get(f"mitdb/{number}", f"mitdb/{number}")
    return f"svdb/{number}" if re.fullmatch(r"8\d\d", number) else f"qtdb/{name}"


def load_nstdb(root: Path | None, draw: int) -> EcgDataset:
    """Return the noisy records of the MIT-BIH Noise Stress Test Database under ``root``, grouped by their ratio.

    ``118e24`` is MIT-BIH record 118 with electrode motion at 24 dB, ``118e_6`` at -6 dB, from the sixth minute on every
    other two minutes. The records of noise alone are left out (`load_nstdb_noise` reads them).
    """
    records = load_wfdb(root, "nstdb", skip=_NOISE, person=_nstdb_person).records
    return EcgDataset("nstdb", tuple(replace(record, group=_nstdb_ratio(record.name)) for record in records))


def _nstdb_person(name: str, comments: Sequence[str]) -> str:
    found = re.match(r"(\d{3})e", name)
    return f"mitdb/{found.group(1)}" if found else f"nstdb/{name}"


def _nstdb_ratio(name: str) -> str:
    found = re.fullmatch(r"\d{3}e(_?\d+)", name)
    return f"{int(found.group(1).replace('_', '-'))} dB" if found else ""


def load_wfdb(
    root: Path | None,
    source: str,
    skip: frozenset[str] = frozenset(),
    person: Person | None = None,
    annotated_only: bool = False,
) -> EcgDataset:
    """Read every ``.hea`` with its ``.dat`` and ``.atr`` under a folder; annotations that are no beats are dropped.

    Amplitudes become millivolts by the units of the header; nothing that a header leaves out is assumed.

    Parameters
    ----------
    skip
        Names of records to leave out.
    person
        Tells whose recording it is; None: each of its own person (but for those known to be of one).
    annotated_only
        Leave records without ``.atr`` out instead of refusing them.

    Raises
    ------
    DatasetNotFound
        If the folder has no such record, or only ones to skip.
    DataError
        For a damaged record; one whose files do not agree in name, sampling rate, length or checksum; one of several
        segments, without sampling rate, not calibrated, or in units that are no voltage; annotations without header.
    """
    headers = find_files(root, "*.hea", f"records (.hea, .dat, .atr) of {source}")
    check_pairs(headers, "atr")
    chosen = [h for h in headers if h.stem not in skip and (h.with_suffix(".atr").is_file() or not annotated_only)]
    if not chosen:
        raise DatasetNotFound(f"{root}: holds no records (.hea, .dat, .atr) of {source}, only others")
    return EcgDataset(source, tuple(_wfdb_record(header, source, person) for header in chosen))


def _wfdb_record(header: Path, source: str, person: Person | None = None, annotator: str = "atr") -> EcgRecord:
    recording = read_recording(header)
    times, codes, rate = read_annotations(header, annotator)
    if rate is not None and rate != recording.fs:
        raise DataError(f"record {header.stem}: signal at {recording.fs:g} Hz, annotations at {rate:g} Hz")
    name = f"{source}/{header.stem}"
    record = EcgRecord(
        name=header.stem,
        patient=person(header.stem, recording.comments) if person else _SAME_PERSON.get(name, name),
        signals=recording.signals,
        leads=tuple(lead or UNNAMED_LEAD for lead in recording.leads),
        fs=recording.fs,
        beats=times[[code in BEAT_CODES for code in codes]],
        fibrillation=_episodes(times[codes == "["], times[codes == "]"], recording.signals.shape[1]),
        learning_s=LEARNING_S,
        normal=times[codes == "N"],
    )
    record.validate()
    return record


def _episodes(starts: Integers, ends: Integers, length: int) -> tuple[tuple[int, int], ...]:
    """Pair each start with the next end; an episode without one lasts until the record ends."""
    closing = [next((int(end) for end in ends if end >= start), length) for start in starts]
    return tuple(zip(map(int, starts), closing, strict=True))


def load_ludb(root: Path | None, draw: int) -> EcgDataset:
    """Return the records of the Lobachevsky University Database under ``root`` (its folder ``data``): ten seconds each.

    Every lead has annotations of its own; the peaks of QRS complexes on lead I are the beats, whichever lead is looked
    at. Beats near the ends may lack annotation: only what lies between the first and the last annotated beat, and
    150 ms beside them, counts.
    """
    headers = find_files(root, "*.hea", "records (.hea, .dat, .i) of ludb")
    check_pairs(headers, "i")
    return EcgDataset("ludb", tuple(_ludb_record(header) for header in headers))


def _ludb_record(header: Path) -> EcgRecord:
    record = _wfdb_record(header, "ludb", annotator="i")
    reach = int(_LUDB_REACH_S * record.fs)
    scored = (int(record.beats[0]) - reach, int(record.beats[-1]) + reach)
    return replace(record, scored=scored, learning_s=0.0)


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
    signal = flat_numbers(matlab_value(file, "ecg"), f"{file.name}: ecg").astype(np.float32)
    beats = whole_numbers(matlab_value(answer, "R_peak"), f"{answer.name}: R_peak")
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
