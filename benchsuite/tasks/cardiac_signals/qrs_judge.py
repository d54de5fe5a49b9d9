"""Detections against beats: scores, counts and tables; checks of detections and files of them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchsuite.core import Outcome
from benchsuite.core.columns import read_rows
from benchsuite.core.errors import DataError, InvalidPrediction, did_you_mean
from benchsuite.datasets.ecg.reader import EcgRecord
from benchsuite.metrics.events import (
    CPSC2019_TOLERANCE_S,
    EC57_TOLERANCE_S,
    CPSC2019Score,
    EventCounts,
    count_events,
    cpsc2019_segment_score,
    ec57_counts,
    macro_f1,
    mean_cpsc2019_score,
    tolerance_in_samples,
)
from benchsuite.tasks.cardiac_signals.qrs_contract import Integers

CPSC2019_METRICS = ("cpsc2019_qrs_accuracy", "cpsc2019_heart_rate_score")


def judge(records: Sequence[EcgRecord], detections: Sequence[Integers]) -> Outcome:
    """Return all quality metrics, the table of records and the table of groups."""
    strict = [strict_counts(record, found) for record, found in zip(records, detections, strict=True)]
    ec57 = [_ec57(record, found) for record, found in zip(records, detections, strict=True)]
    scores: dict[str, float | None] = {}
    for name, counts in (("75ms", strict), ("150ms", ec57)):
        pooled = sum(counts, EventCounts())
        scores[f"f1_{name}"] = pooled.f1
        scores[f"sensitivity_{name}"] = pooled.sensitivity
        scores[f"positive_predictivity_{name}"] = pooled.positive_predictivity
        scores[f"macro_f1_{name}"] = macro_f1(counts)
    undefined = {name: "no beat or no detection to count" for name, value in scores.items() if value is None}
    challenge = cpsc2019(records, detections)
    values = (challenge.qrs_accuracy, challenge.heart_rate_score) if challenge else (None, None)
    scores |= dict(zip(CPSC2019_METRICS, values, strict=True))
    if challenge is None:
        undefined |= dict.fromkeys(CPSC2019_METRICS, "the test records are no segments of CPSC 2019")
    pooled = sum(strict, EventCounts())
    counts_75 = {"true_positives_75ms": pooled.tp, "false_positives_75ms": pooled.fp, "false_negatives_75ms": pooled.fn}
    tables = {
        "records": [
            _row(r.name, s, e) | {"patient": r.patient, "group": r.group}
            for r, s, e in zip(records, strict, ec57, strict=True)
        ]
    }
    groups = list(dict.fromkeys(r.group for r in records if r.group))
    if groups:
        tables["groups"] = [_group_row(group, records, strict, ec57) for group in groups]
    official = cpsc2019(records, detections, official=True)
    if challenge is not None and official is not None:
        tables["cpsc2019"] = [
            {"program": name, "qrs_accuracy": score.qrs_accuracy, "heart_rate_score": score.heart_rate_score}
            for name, score in (("corrected", challenge), ("official", official))
        ]
    return Outcome(scores, undefined, {"records": len(records), **counts_75}, tables)


def cpsc2019(
    records: Sequence[EcgRecord], detections: Sequence[Integers], *, official: bool = False
) -> CPSC2019Score | None:
    """Return the scores of the challenge, or None if not every record is a segment of it."""
    if not records or any(record.challenge != "cpsc2019" for record in records):
        return None
    return mean_cpsc2019_score(
        [
            cpsc2019_segment_score(r.beats, found, fs=r.fs, samples=r.signals.shape[1], official=official)
            for r, found in zip(records, detections, strict=True)
        ]
    )


def strict_counts(record: EcgRecord, detections: Integers) -> EventCounts:
    """Count within 75 ms, in the scored part of the record, without learning period."""
    reference, found = _scored(record.beats, record), _scored(detections, record)
    return count_events(reference, found, tolerance_in_samples(CPSC2019_TOLERANCE_S, record.fs))


def _ec57(record: EcgRecord, detections: Integers) -> EventCounts:
    reference, found = _scored(record.beats, record), _scored(detections, record)
    return ec57_counts(
        reference,
        found,
        record.fs,
        tolerance_s=EC57_TOLERANCE_S,
        learning_s=record.learning_s,
        fibrillation=record.fibrillation,
    )


def _scored(times: Integers, record: EcgRecord) -> Integers:
    first, last = record.scored
    return times[(times >= first) & (times <= last)]


def _row(name: str, strict: EventCounts, ec57: EventCounts) -> dict[str, Any]:
    return {
        "record": name,
        "beats": strict.tp + strict.fn,
        "tp_75ms": strict.tp,
        "fp_75ms": strict.fp,
        "fn_75ms": strict.fn,
        "f1_75ms": strict.f1,
        "tp_150ms": ec57.tp,
        "fp_150ms": ec57.fp,
        "fn_150ms": ec57.fn,
        "f1_150ms": ec57.f1,
    }


def _group_row(
    group: str, records: Sequence[EcgRecord], strict: Sequence[EventCounts], ec57: Sequence[EventCounts]
) -> dict[str, Any]:
    inside = [i for i, record in enumerate(records) if record.group == group]
    row = _row("", sum((strict[i] for i in inside), EventCounts()), sum((ec57[i] for i in inside), EventCounts()))
    return {"group": group, "records": len(inside)} | {k: v for k, v in row.items() if k != "record"}


def checked(detections: Any, record: EcgRecord) -> Integers:
    """Return the detections as int64, if they are valid ones of that record."""
    found = np.asarray(detections)
    if found.size == 0:
        return np.empty(0, dtype=np.int64)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise InvalidPrediction(f"record {record.name}: detections must be a flat list of whole sample indices")
    found = found.astype(np.int64)
    if (np.diff(found) <= 0).any():
        raise InvalidPrediction(f"record {record.name}: detections must be strictly ascending")
    if found[0] < 0 or found[-1] >= record.signals.shape[1]:
        raise InvalidPrediction(f"record {record.name}: a detection lies outside its {record.signals.shape[1]} samples")
    return found


def write(path: Path, records: Sequence[EcgRecord], detections: Sequence[Integers]) -> None:
    """Write a CSV of detections: columns record, sample; a record without any has one row with an empty sample."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["record", "sample"])
        for record, found in zip(records, detections, strict=True):
            writer.writerows([record.name, sample] for sample in (found if len(found) else [""]))


def read(path: Path, records: Sequence[EcgRecord]) -> dict[str, Integers]:
    """Return for each record its (n,) int64 detections from a CSV as `write` makes it, columns in any order.

    Raises
    ------
    DataError
        One line that names the file and the line: other columns, an unknown record, a sample that is no whole number,
        outside the record or not after the one before it, a record without a row (one without detections has a row
        with an empty sample).
    """
    length = {record.name: record.signals.shape[1] for record in records}
    found: dict[str, list[int]] = {}
    empty: set[str] = set()
    for row in read_rows(path, ["record", "sample"]):
        name = row.cells["record"]
        if name not in length:
            raise row.wrong(f"{name!r} is no test record{did_you_mean(name, length)}")
        if name in empty or (name in found and not row.cells["sample"]):
            raise row.wrong(f"record {name} has an empty sample, for no detection, besides other rows")
        samples = found.setdefault(name, [])
        if not row.cells["sample"]:
            empty.add(name)
            continue
        sample = row.whole("sample")
        if not 0 <= sample < length[name]:
            raise row.wrong(f"sample {sample} lies outside the {length[name]} samples of record {name}")
        if samples and sample <= samples[-1]:
            raise row.wrong(
                f"sample {sample} of record {name} follows {samples[-1]}: detections must be strictly ascending"
            )
        samples.append(sample)
    missing = next((name for name in length if name not in found), None)
    if missing is not None:
        raise DataError(
            f"{path}: has no row of test record {missing}: if nothing was found in it, add one with an empty sample"
        )
    return {name: np.array(samples, dtype=np.int64) for name, samples in found.items()}
