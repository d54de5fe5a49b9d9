"""Records in WFDB format: millivolts that agree with their header, annotations by the letter of the format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError
from benchsuite.datasets.files import read_file
from benchsuite.datasets.wfdb_header import WfdbHeader, read_header

# Codes of the MIT annotation format: a long interval of four bytes, fields of the annotation before, a text.
_SKIP, _MODIFIERS, _TEXT = 59, (60, 61, 62), 63
_RATE = re.compile(rb"## time resolution: (\d+\.?\d*)")
_MILLIVOLTS = {"mV": 1.0, "mv": 1.0, "uV": 1e-3, "uv": 1e-3, "V": 1e3, "v": 1e3, "nV": 1e-6}


@dataclass(frozen=True, eq=False)
class Recording:
    """Signals (leads, T) float32 in millivolts at ``fs`` Hz, the leads' names (None where there is none), comments."""

    signals: NDArray[np.float32]
    leads: tuple[str | None, ...]
    fs: float
    comments: tuple[str, ...]


def check_pairs(headers: Sequence[Path], annotator: str) -> None:
    """Raise `DataError` for annotations beside these headers that have no header of their name."""
    stems = {header.stem for header in headers}
    for path in sorted(headers[0].parent.glob(f"*.{annotator}")):
        if path.stem not in stems:
            raise DataError(f"{path.name}: {path.stem}.hea is missing beside it")


def read_recording(header: Path) -> Recording:
    """Read a ``.hea`` with the files of samples that it names.

    Raises
    ------
    DataError
        One line: a damaged file; files that do not agree in name, sampling rate, length, first sample or checksum; a
        record of several segments, without sampling rate, without signal, not calibrated, or in units that are no
        voltage.
    """
    import wfdb

    facts = read_header(header)
    facts.check_files()
    found = read_file(header, lambda: wfdb.rdrecord(str(header.with_suffix("")), physical=False))
    if found.d_signal is None or found.d_signal.shape[1] == 0:
        raise DataError(f"record {header.stem}: has no signal")
    signals = np.ascontiguousarray(_millivolts(found, facts).T.astype(np.float32))
    return Recording(signals, tuple(found.sig_name), float(found.fs), tuple(found.comments))


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


def read_annotations(header: Path, annotator: str) -> tuple[NDArray[np.int64], NDArray[np.str_], float | None]:
    """Return times (n,) in samples and symbols (n,) of annotations, and the sampling rate if they state one.

    Read by the letter of the MIT format (annot(5) of the WFDB Applications Guide): WFDB's own reader takes what was cut
    off for the end, and never ends on some damaged files.

    Raises
    ------
    DataError
        One line: the file beside the header is missing or cut short.
    """
    from wfdb.io.annotation import ann_labels

    path = header.with_suffix(f".{annotator}")
    content = read_file(header, path.read_bytes)
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
    raise DataError(f"{path.name}: cannot be read: it is cut short, its end mark is missing")
