"""Recorded noise without beats: bw, ma and em of the MIT-BIH Noise Stress Test Database."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError
from benchsuite.datasets.ecg.wfdb_records import read_recording
from benchsuite.datasets.files import find_files

# What each noise record of the database holds, by its file name.
NSTDB_KINDS = {"bw": "baseline-wander", "ma": "muscle", "em": "electrode-motion"}


@dataclass(frozen=True, eq=False)
class NoiseRecord:
    """Noise of one kind: (channels, T) float32 millivolts at ``fs`` Hz."""

    name: str
    signals: NDArray[np.float32]
    fs: float

    def validate(self) -> None:
        """Raise `DataError` for a record that is empty, flat, shorter than a second or not all numbers."""
        if self.signals.ndim != 2 or self.signals.shape[1] < self.fs:
            raise DataError(f"record {self.name}: noise needs at least one second of signal")
        missing = int((~np.isfinite(self.signals)).sum())
        if missing:
            raise DataError(f"record {self.name}: {missing} samples are not numbers - repair them or remove the record")
        if (np.ptp(self.signals, axis=1) == 0).any():
            raise DataError(f"record {self.name}: a channel is flat, there is no noise to add")


@dataclass(frozen=True, eq=False)
class NoiseDataset:
    """Noise records by kind: ``baseline-wander``, ``muscle``, ``electrode-motion``."""

    name: str
    records: Mapping[str, NoiseRecord]

    def content_hash(self) -> str:
        """Return the sha256 (hex) of all signals."""
        digest = hashlib.sha256()
        for kind, record in self.records.items():
            digest.update(f"{kind}:{record.name}:{record.fs}".encode())
            digest.update(np.ascontiguousarray(record.signals).tobytes())
        return digest.hexdigest()


def load_nstdb_noise(root: Path | None, draw: int) -> NoiseDataset:
    """Read the noise records ``bw``, ``ma`` and ``em`` (.hea, .dat) under a folder; the ECG records are not looked at.

    Raises
    ------
    DatasetNotFound
        If the folder has none of them.
    DataError
        If one is missing or damaged.
    """
    headers = {
        header.stem: header for header in find_files(root, "[bem][wma].hea", "noise records (bw, ma, em) of nstdb")
    }
    missing = sorted(NSTDB_KINDS.keys() - headers.keys())
    if missing:
        raise DataError(f"{root}: {missing[0]}.hea is missing: the noise records are bw, ma and em")
    return NoiseDataset("nstdb-noise", {kind: _noise_record(headers[name]) for name, kind in NSTDB_KINDS.items()})


def _noise_record(header: Path) -> NoiseRecord:
    recording = read_recording(header)
    record = NoiseRecord(header.stem, recording.signals, recording.fs)
    record.validate()
    return record
