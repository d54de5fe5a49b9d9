"""States against annotated ones: scores, counts and tables; checks of states and files of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Outcome
from benchsuite.core.columns import read_rows
from benchsuite.core.errors import DataError, InvalidPrediction, did_you_mean
from benchsuite.datasets.pcg.reader import DIASTOLE, S1, S2, SOUNDS, SYSTOLE, UNLABELLED, PcgRecord, centres_of
from benchsuite.metrics.events import EventCounts, count_events, macro_f1
from benchsuite.tasks.cardiac_signals.heart_sound_contract import States

SHORTEST_SOUND = 2
TOLERANCES = {"60ms": 3.0, "100ms": 5.0}
NAMES = {S1: "s1", S2: "s2"}
_STATES = (S1, SYSTOLE, S2, DIASTOLE)


def judge(records: Sequence[PcgRecord], found: Sequence[States]) -> Outcome:
    """Return all quality metrics, the table of records and the table of groups."""
    counts = {
        name: [sound_counts(record, states, frames) for record, states in zip(records, found, strict=True)]
        for name, frames in TOLERANCES.items()
    }
    scores: dict[str, float | None] = {}
    for name, rows in counts.items():
        scores[f"f1_{name}"] = _pooled(rows, SOUNDS).f1
        for sound, label in NAMES.items():
            scores[f"f1_{label}_{name}"] = _pooled(rows, (sound,)).f1
    each = [_pooled([row], SOUNDS) for row in counts["60ms"]]
    scores["macro_f1_60ms"] = macro_f1(each)
    right, labelled = _frames(records, found)
    scores["frame_accuracy"] = right / labelled if labelled else None
    undefined = {name: "no heart sound to count" for name, value in scores.items() if value is None}
    tables = {"records": [_row(r, s, c) for r, s, c in zip(records, found, counts["60ms"], strict=True)]}
    groups = list(dict.fromkeys(r.group for r in records if r.group))
    if groups:
        tables["groups"] = [_group_row(group, records, found, counts["60ms"]) for group in groups]
    pooled = _pooled(counts["60ms"], SOUNDS)
    numbers = {
        "records": len(records),
        "labelled_frames": labelled,
        "true_positives_60ms": pooled.tp,
        "false_positives_60ms": pooled.fp,
        "false_negatives_60ms": pooled.fn,
    }
    return Outcome(scores, undefined, numbers, tables)


def sound_counts(record: PcgRecord, states: States, tolerance: float) -> dict[int, EventCounts]:
    """Count S1 and S2: centres of runs of at least 40 ms against the reference centres, tolerance in frames.

    Runs whose centre falls on a frame that is not annotated are dropped.
    """
    counts = {}
    for sound, centres in centres_of(states, SHORTEST_SOUND).items():
        on_labelled = record.states[centres.astype(np.int64)] != UNLABELLED
        counts[sound] = count_events(record.events[sound], centres[on_labelled], tolerance)
    return counts


def _pooled(rows: Sequence[Mapping[int, EventCounts]], sounds: Sequence[int]) -> EventCounts:
    return sum((row[sound] for row in rows for sound in sounds), EventCounts())


def _frames(records: Sequence[PcgRecord], found: Sequence[States]) -> tuple[int, int]:
    """Return the number of right and of annotated frames."""
    labelled = [record.states != UNLABELLED for record in records]
    right = sum(
        int((states[mask] == r.states[mask]).sum()) for r, states, mask in zip(records, found, labelled, strict=True)
    )
    return right, sum(int(mask.sum()) for mask in labelled)


def _row(record: PcgRecord, states: States, counts: Mapping[int, EventCounts]) -> dict[str, Any]:
    both = _pooled([counts], SOUNDS)
    right, labelled = _frames([record], [states])
    return {
        "record": record.name,
        "patient": record.patient,
        "group": record.group,
        "s1": len(record.events[S1]),
        "s2": len(record.events[S2]),
        "tp_60ms": both.tp,
        "fp_60ms": both.fp,
        "fn_60ms": both.fn,
        "f1_60ms": both.f1,
        "frame_accuracy": right / labelled if labelled else None,
    }


def _group_row(
    group: str, records: Sequence[PcgRecord], found: Sequence[States], counts: Sequence[Mapping[int, EventCounts]]
) -> dict[str, Any]:
    inside = [i for i, record in enumerate(records) if record.group == group]
    right, labelled = _frames([records[i] for i in inside], [found[i] for i in inside])
    f1 = _pooled([counts[i] for i in inside], SOUNDS).f1
    return {"group": group, "records": len(inside), "f1_60ms": f1, "frame_accuracy": right / labelled}


def checked(states: Any, record: PcgRecord) -> States:
    """Return the states as int8, if they are valid ones of that record."""
    found = np.asarray(states)
    if found.shape != record.states.shape or found.dtype.kind not in "iu":
        raise InvalidPrediction(
            f"record {record.name}: needs integer states of shape {record.states.shape},"
            f" got {found.dtype} of shape {found.shape}"
        )
    if found.size and (found.min() < 0 or found.max() > 3):
        raise InvalidPrediction(f"record {record.name}: states are 0 S1, 1 systole, 2 S2, 3 diastole")
    return found.astype(np.int8)


def write(path: Path, records: Sequence[PcgRecord], found: Sequence[States]) -> None:
    """Write a CSV of states: columns record, frame, state."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["record", "frame", "state"])
        for record, states in zip(records, found, strict=True):
            writer.writerows([record.name, frame, state] for frame, state in enumerate(states.tolist()))


def read(path: Path, records: Sequence[PcgRecord]) -> dict[str, NDArray[np.int64]]:
    """Return for each record its (F,) int64 states from a CSV as `write` makes it, rows and columns in any order.

    Raises
    ------
    DataError
        One line that names the file and the line: other columns, an unknown record, a frame that the record does not
        have or that stands there twice, a state that is none, a frame without a state.
    """
    found = {record.name: np.full(len(record.states), -1, dtype=np.int64) for record in records}
    for row in read_rows(path, ["record", "frame", "state"]):
        name = row.cells["record"]
        if name not in found:
            raise row.wrong(f"{name!r} is no test record{did_you_mean(name, found)}")
        frame, state = row.whole("frame"), row.whole("state")
        frames = len(found[name])
        if not 0 <= frame < frames:
            raise row.wrong(f"frame {frame} of record {name} is outside 0 .. {frames - 1}")
        if found[name][frame] >= 0:
            raise row.wrong(f"frame {frame} of record {name} stands there twice")
        if state not in _STATES:
            raise row.wrong(f"state {state} is none of 0 S1, 1 systole, 2 S2, 3 diastole")
        found[name][frame] = state
    for name, states in found.items():
        if (states < 0).any():
            gap = int((states < 0).argmax())
            raise DataError(
                f"{path}: needs a state for every frame of every test record; {name} is incomplete:"
                f" frame {gap} is missing"
            )
    return found
