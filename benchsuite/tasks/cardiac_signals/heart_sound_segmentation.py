"""Heart-sound segmentation: the state of the heart in every 20 ms of a phonocardiogram.

Training and test data are two roles, as in QRS detection: methods that learn are trained on generated sounds by
default. Recordings of one person never stand on both sides.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Method, Metric, Outcome, Ranking, RunContext, Task
from benchsuite.datasets.pcg.reader import (
    FRAMES_PER_SECOND,
    S1,
    S2,
    UNLABELLED,
    PcgDataset,
    PcgRecord,
    centres_of,
    runs_of,
)
from benchsuite.tasks.cardiac_signals.heart_sound_contract import AnnotatedPcg, HeartSoundSegmenter, States
from benchsuite.tasks.cardiac_signals.heart_sound_judge import NAMES, SHORTEST_SOUND, checked, judge, read, write
from benchsuite.tasks.cardiac_signals.recordings import divide

_PREDICTIONS = "predictions.csv"
_PICTURE = "segments.png"


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
    data_type = "benchsuite.datasets.pcg.reader:PcgDataset"
    method_type = HeartSoundSegmenter
    default_data = "generated-pcg"
    roles_may_differ = True

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
                found.append(checked(segmentation.segment(record.signal, record.fs), record))
            seconds = time.process_time() - before
        write(ctx.artifact(_PREDICTIONS), held_out, found)
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
        found = read(predictions, held_out)
        outcome = judge(held_out, [checked(found[record.name], record) for record in held_out])
        outcome.scores["samples_per_second"] = None
        outcome.undefined["samples_per_second"] = "segmented elsewhere"
        return outcome


def _turned(dataset: PcgDataset, keep_training: bool) -> PcgDataset:
    def other(record: PcgRecord) -> PcgRecord:
        if keep_training and record.part == "train":
            return record
        states = np.where(record.states == UNLABELLED, UNLABELLED, (record.states + 2) % 4).astype(np.int8)
        return replace(record, states=states, events={S1: record.events[S2], S2: record.events[S1]})

    return replace(dataset, records=tuple(other(record) for record in dataset.records))


def _draw(path: Path, records: Sequence[PcgRecord], found: Sequence[States], outcome: Outcome) -> None:
    """Keep a picture of eight annotated seconds of the worst, a middling and the best record."""
    from benchsuite.tasks.cardiac_signals.pictures import Strip, draw_strips
    from benchsuite.tasks.cardiac_signals.recordings import representative

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
        NAMES[sound].upper(): (times[(times >= first) & (times < last)] + 0.5) / FRAMES_PER_SECOND
        for sound, times in events.items()
    }
