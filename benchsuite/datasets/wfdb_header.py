"""Headers of WFDB records read by the letter, before any library fills in what is not there.

The format has defaults (250 Hz, 200 steps a unit) that readers of records apply without a word; a measured record
states what it is. Source: header(5) of the WFDB Applications Guide.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchsuite.core.errors import DataError

_BYTES_A_SAMPLE = {"8": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "61": 2.0, "80": 1.0, "160": 2.0, "212": 1.5}
_PACKED = ("310", "311", "508", "516", "524")
_FORMAT = re.compile(r"(?P<format>\d+)(x(?P<per_frame>\d+))?(:(?P<skew>\d+))?(\+(?P<offset>\d+))?")
_GAIN = re.compile(r"(?P<gain>[-+]?[\d.]+([eE][-+]?\d+)?)(\(-?\d+\))?(/(?P<unit>\S+))?")


@dataclass(frozen=True)
class SignalLine:
    """One signal of a header.

    Attributes
    ----------
    file, format, offset
        The file that holds its samples, its WFDB number of their format, bytes before the first one.
    gain
        Steps of the converter a unit; None where the header has none or 0, which means "not calibrated".
    unit
        Physical unit; ``mV`` where the header names none, as the format says.
    first, checksum
        The first sample, and the sum of all samples modulo 65536; None where the header has none, or 0 as for
        "not computed".
    """

    file: str
    format: str
    offset: int
    gain: float | None
    unit: str
    first: int | None
    checksum: int | None


@dataclass(frozen=True)
class WfdbHeader:
    """The parts of a header that a reader may not guess: sampling rate in Hz, samples of each signal."""

    path: Path
    name: str
    rate: float
    length: int
    signals: tuple[SignalLine, ...]

    def check_files(self) -> None:
        """Compare the length of every file of samples, where its format has samples of one size, with the header's.

        Raises
        ------
        DataError
            One line that names the file: it is missing, or holds fewer or more samples than the header says.
        """
        for file in dict.fromkeys(line.file for line in self.signals):
            lines = [line for line in self.signals if line.file == file]
            path = self.path.with_name(file)
            if not path.is_file():
                raise DataError(f"{self.path.name}: {file} is missing beside it")
            size = _BYTES_A_SAMPLE.get(lines[0].format)
            if size is None or file.endswith(".wav"):
                continue
            held = int((path.stat().st_size - lines[0].offset) / size / len(lines) + 1e-9)
            if held != self.length:
                why = "cut short?" if held < self.length else "of another record?"
                raise DataError(
                    f"{self.path.name}: cannot be read: {file} holds {held:,} of {self.length:,} samples: {why}"
                )


def read_header(path: Path) -> WfdbHeader:
    """Read a ``.hea`` file.

    Raises
    ------
    DataError
        One line that names the file: no header, one of several segments, of another record (its name is not that of
        the file), without sampling rate or number of samples, with more or fewer signals than it announces, with
        signals of an unknown format or several samples a frame, or with characters that are not ASCII (as in the sign
        for micro) outside its comments.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"{path.name}: cannot be read ({error.strerror})") from None
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    odd = next((line for line in lines if not line.isascii()), None)
    if odd is not None:
        raise DataError(f"{path.name}: {odd!a} is not ASCII (write uV for microvolts)")
    words = lines[0].split() if lines else []
    if len(words) < 2:
        raise DataError(f"{path.name}: cannot be read: its first line names no record and number of signals")
    if "/" in words[0]:
        raise DataError(
            f"{path.name}: is a record of several segments - join them into one record, such are not read here"
        )
    if words[0] != path.stem:
        raise DataError(f"{path.name}: is the header of record {words[0]!r} - name both alike")
    if len(words) < 4:
        lacking = "sampling rate" if len(words) < 3 else "sampling rate or no number of samples"
        raise DataError(f"{path.name}: states no {lacking} - add it to its first line")
    try:
        count, rate = int(words[1]), float(re.split(r"[/(]", words[2])[0])
        length = int(words[3])
    except ValueError:
        raise DataError(f"{path.name}: cannot be read: its first line is {lines[0][:60]!r}") from None
    if count != len(lines) - 1:
        raise DataError(f"{path.name}: cannot be read: announces {count} signals and describes {len(lines) - 1}")
    return WfdbHeader(path, words[0], rate, length, tuple(_signal(path, line.split()) for line in lines[1:]))


def _signal(path: Path, words: Sequence[str]) -> SignalLine:
    form = _FORMAT.fullmatch(words[1]) if len(words) > 1 else None
    gain = _GAIN.fullmatch(words[2]) if len(words) > 2 else None
    try:
        if form is None or (len(words) > 2 and gain is None):
            raise ValueError
        steps = float(gain["gain"]) if gain else 0.0
        first = int(words[5]) if len(words) > 5 else 0
        checksum = int(words[6]) % 65536 if len(words) > 6 else 0
    except ValueError:
        raise DataError(f"{path.name}: cannot be read: a signal is described by {' '.join(words)[:60]!r}") from None
    if form["format"] not in (*_BYTES_A_SAMPLE, *_PACKED):
        raise DataError(f"{path.name}: a signal is stored in the format {form['format']}, which is not read here")
    if form["per_frame"] not in (None, "1"):
        raise DataError(f"{path.name}: has signals of several samples a frame - convert it to one sampling rate")
    unit = (gain["unit"] if gain else None) or "mV"
    return SignalLine(
        words[0], form["format"], int(form["offset"] or 0), steps or None, unit, first or None, checksum or None
    )
