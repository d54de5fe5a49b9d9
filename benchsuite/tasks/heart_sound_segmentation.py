"""Heart-sound segmentation: the state of the heart in every 20 ms of a phonocardiogram.

Training and test data are two roles, as in QRS detection: methods that learn are trained on generated sounds by
default. Recordings of one person never stand on both sides.
"""

from __future__ import annotations

import csv
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Method, Metric, Outcome, Ranking, RunContext, Task
from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.datasets.pcg import (
    FRAMES_PER_SECOND,
    S1,
    S2,
    SOUNDS,
    UNLABELLED,
    PcgDataset,
    PcgRecord,
    centres_of,
    runs_of,
)
from benchsuite.metrics.events import EventCounts, count_events, macro_f1
from benchsuite.tasks._recordings import divide

States = NDArray[np.int8]
Signal = NDArray[np.float32]

SHORTEST_SOUND = 2
TOLERANCES = {"60ms": 3.0, "100ms": 5.0}

_PREDICTIONS = "predictions.csv"
_PICTURE = "segments.png"
_NAMES = {S1: "s1", S2: "s2"}


@dataclass(frozen=True)
class AnnotatedPcg:
    """A training record: (T,) float32 at ``fs`` Hz, and the state (int8) of every 20 ms; -1: not annotated."""

    name: str
    signal: Signal
    fs: float
    states: States


@dataclass(frozen=True)
class Segmentation:
    """A segmenter ready for use.

    Attributes
    ----------
    segment
        Called with (T,) float32 and the sampling rate in Hz; returns the state of every 20 ms: integers 0 S1,
        1 systole, 2 S2, 3 diastole of shape (ceil(50 T / fs),).
    parameters
        Number of trainable parameters used in segmentation, or None.
    """

    segment: Callable[[Signal, float], Any]
    parameters: int | None = None


class HeartSoundSegmenter(Method):
    """A way to segment heart sounds."""

    @abstractmethod
    def fit_heart_sounds(self, records: Sequence[AnnotatedPcg], ctx: RunContext) -> Segmentation:
        """Return a segmenter, trained on the records if it learns.

        Parameters
        ----------
        records
            Training records with their states.
        ctx
            Take seeds from ``ctx.seed_for("run", ...)`` and draw steps from ``ctx.steps``.
        """


class HeartSoundSegmentation(Task):
    """See the module's description."""

    name = "heart-sound-segmentation"
    title = "Segmentation of heart sounds in phonocardiograms"
    version = "1"
    metrics = (
        Metric("f1_60ms", "max", doc="F1 of S1 and S2 whose centres are found within 60 ms, pooled"),
        Metric("f1_s1_60ms", "max", doc="the same for S1 alone"),
        Metric("f1_s2_60ms", "max", doc="the same for S2 alone"),
        Metric("macro_f1_60ms", "max", doc="mean over records of their F1 at 60 ms"),
        Metric("f1_100ms", "max", doc="F1 of S1 and S2 within 100 ms, pooled"),
        Metric("f1_s1_100ms", "max", doc="the same for S1 alone"),
        Metric("f1_s2_100ms", "max", doc="the same for S2 alone"),
        Metric("frame_accuracy", "max", doc="share of annotated 20 ms frames with the right state"),
        Metric("samples_per_second", "max", "1/s", "cost", doc="samples a CPU second of segmentation gets through"),
    )
    ranking = Ranking("f1_60ms")
    published_seeds: ClassVar[Mapping[str, int]] = {"run": 5}
    reference = "unet1d"
    data_type = "benchsuite.datasets.pcg:PcgDataset"
    method_type = HeartSoundSegmenter
    default_data = "generated-pcg"

    @classmethod
    def data_roles(cls, dataset: str) -> dict[str, str]:
        """Train on generated sounds, whatever the test records are."""
        return {"train": cls.default_data, "test": dataset}

    def evaluate(self, method: Method, data: Mapping[str, Any], protocol: Any, ctx: RunContext) -> Outcome:
        """Fit on the training records, segment the others, and judge."""
        assert isinstance(method, HeartSoundSegmenter)
        training, held_out = divide(data["train"].records, data["test"].records, ctx.split)
        annotated = [AnnotatedPcg(r.name, r.signal, r.fs, r.states) for r in training]
        with ctx.phase("fit"):
            segmentation = method.fit_heart_sounds(annotated, ctx)
        found = []
        with ctx.phase("predict"):
            before = time.process_time()
            for record in held_out:
                found.append(_checked(segmentation.segment(record.signal, record.fs), record))
            seconds = time.process_time() - before
        _write(ctx.artifact(_PREDICTIONS), held_out, found)
        outcome = judge(held_out, found)
        outcome.scores["samples_per_second"] = sum(len(r.signal) for r in held_out) / max(seconds, 1e-9)
        outcome.parameters = segmentation.parameters
        _draw(ctx.artifact(_PICTURE), held_out, found, outcome)
        return outcome

    def with_other_answers(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the test records with every state changed."""
        return {**data, "test": _turned(data["test"], keep_training=data["train"] is data["test"])}

    def score(self, predictions: Path, data: Mapping[str, Any], protocol: Any) -> Outcome:
        """Judge a CSV of states: columns record, frame, state; every 20 ms frame of every test record once."""
        _, held_out = divide(data["train"].records, data["test"].records, "test")
        found = _read(predictions, held_out)
        outcome = judge(held_out, [_checked(found[record.name], record) for record in held_out])
        outcome.scores["samples_per_second"] = None
        outcome.undefined["samples_per_second"] = "segmented elsewhere"
        return outcome


def judge(records: Sequence[PcgRecord], found: Sequence[States]) -> Outcome:
    """Return all quality metrics, the table of records and the table of groups."""
    counts = {
        name: [sound_counts(record, states, frames) for record, states in zip(records, found, strict=True)]
        for name, frames in TOLERANCES.items()
    }
    scores: dict[str, float | None] = {}
    for name, rows in counts.items():
        scores[f"f1_{name}"] = _pooled(rows, SOUNDS).f1
        for sound, label in _NAMES.items():
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


def _checked(states: Any, record: PcgRecord) -> States:
    found = np.asarray(states)
    if found.shape != record.states.shape or found.dtype.kind not in "iu":
        raise InvalidPrediction(
            f"record {record.name}: needs integer states of shape {record.states.shape},"
            f" got {found.dtype} of shape {found.shape}"
        )
    if found.size and (found.min() < 0 or found.max() > 3):
        raise InvalidPrediction(f"record {record.name}: states are 0 S1, 1 systole, 2 S2, 3 diastole")
    return found.astype(np.int8)


def _turned(dataset: PcgDataset, keep_training: bool) -> PcgDataset:
    def other(record: PcgRecord) -> PcgRecord:
        if keep_training and record.part == "train":
            return record
        states = np.where(record.states == UNLABELLED, UNLABELLED, (record.states + 2) % 4).astype(np.int8)
        return replace(record, states=states, events={S1: record.events[S2], S2: record.events[S1]})

    return replace(dataset, records=tuple(other(record) for record in dataset.records))


def _write(path: Path, records: Sequence[PcgRecord], found: Sequence[States]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["record", "frame", "state"])
        for record, states in zip(records, found, strict=True):
            writer.writerows([record.name, frame, state] for frame, state in enumerate(states.tolist()))


def _read(path: Path, records: Sequence[PcgRecord]) -> dict[str, NDArray[np.int64]]:
    found = {record.name: np.full(len(record.states), -1, dtype=np.int64) for record in records}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                found[row["record"]][int(row["frame"])] = int(row["state"])
    except (KeyError, IndexError) as error:
        raise DataError(f"{path}: {error} (columns: record, frame, state; one row a frame of a test record)") from None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: not a table of record,frame,state ({error})") from None
    missing = next((name for name, states in found.items() if (states < 0).any()), None)
    if missing is not None:
        raise DataError(f"{path}: needs a state for every frame of every test record; {missing} is incomplete")
    return found


def _draw(path: Path, records: Sequence[PcgRecord], found: Sequence[States], outcome: Outcome) -> None:
    """Keep a picture of eight annotated seconds of the worst, a middling and the best record."""
    from benchsuite.tasks._recordings import representative
    from benchsuite.tasks._signal_pictures import Strip, draw_strips

    strips = []
    for i in representative([row["f1_60ms"] for row in outcome.tables["records"]]):
        record = records[i]
        first = int(np.flatnonzero(record.states != UNLABELLED)[0])
        last = min(first + 8 * FRAMES_PER_SECOND, len(record.states))
        start, stop = int(first / FRAMES_PER_SECOND * record.fs), int(last / FRAMES_PER_SECOND * record.fs)
        f1 = outcome.tables["records"][i]["f1_60ms"]
        strips.append(
            Strip(
                title=f"{record.name}: F1 at 60 ms {'undefined' if f1 is None else format(100 * f1, '.1f') + ' %'}",
                time=np.arange(start, min(stop, len(record.signal))) / record.fs,
                signal=record.signal[start:stop],
                unit="a.u.",
                true=_seconds(record.events, first, last),
                found=_seconds(centres_of(found[i], SHORTEST_SOUND), first, last),
                unjudged=[
                    ((first + begin) / FRAMES_PER_SECOND, (first + end + 1) / FRAMES_PER_SECOND)
                    for begin, end in runs_of(record.states[first:last], UNLABELLED).tolist()
                ],
            )
        )
    draw_strips(path, strips)


def _seconds(events: Mapping[int, NDArray[np.float64]], first: int, last: int) -> dict[str, NDArray[np.float64]]:
    return {
        _NAMES[sound].upper(): (times[(times >= first) & (times < last)] + 0.5) / FRAMES_PER_SECOND
        for sound, times in events.items()
    }
