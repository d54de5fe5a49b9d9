"""Heart-sound segmentation: the state of the heart in every 20 ms of a phonocardiogram.

Training and test data are two roles, as in QRS detection: methods that learn are trained on generated sounds by
default. Recordings of one person never stand on both sides.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchsuite.core import Metric, Outcome, Ranking, RunContext, Task
from benchsuite.datasets.pcg.reader import S1, S2, UNLABELLED, PcgDataset, PcgRecord
from benchsuite.tasks.cardiac_signals.heart_sound_contract import AnnotatedPcg, HeartSoundProtocol, HeartSoundSegmenter
from benchsuite.tasks.cardiac_signals.heart_sound_judge import checked, judge, read, write
from benchsuite.tasks.cardiac_signals.noise import noisy_pcg
from benchsuite.tasks.cardiac_signals.pictures import draw_segmentation
from benchsuite.tasks.cardiac_signals.recordings import divide

_PREDICTIONS = "predictions.csv"
_PICTURE = "segments.png"


class HeartSoundSegmentation(Task[HeartSoundSegmenter, PcgDataset, HeartSoundProtocol]):
    """See the module's description."""

    name = "heart-sound-segmentation"
    version = "1"
    Protocol = HeartSoundProtocol
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
    reference = "unet1d"
    data_type = "benchsuite.datasets.pcg.reader:PcgDataset"
    method_type = HeartSoundSegmenter
    default_data = "generated-pcg"
    roles_may_differ = True

    @classmethod
    def data_roles(cls, dataset: str) -> dict[str, str]:
        """Train on generated sounds, whatever the test records are."""
        return {"train": cls.default_data, "test": dataset}

    def evaluate(
        self, method: HeartSoundSegmenter, data: Mapping[str, PcgDataset], protocol: HeartSoundProtocol, ctx: RunContext
    ) -> Outcome:
        """Fit on the training records, segment the others (with the protocol's noise), and judge."""
        training, held_out = divide(data["train"].records, data["test"].records, ctx.split)
        held_out = [noisy_pcg(record, protocol) for record in held_out]
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
        draw_segmentation(ctx.artifact(_PICTURE), held_out, found, outcome)
        return outcome

    def with_other_answers(self, data: Mapping[str, PcgDataset]) -> Mapping[str, PcgDataset]:
        """Return the test records with every state changed."""
        return {**data, "test": _turned(data["test"], keep_training=data["train"] is data["test"])}

    def score(self, predictions: Path, data: Mapping[str, PcgDataset], protocol: HeartSoundProtocol) -> Outcome:
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
