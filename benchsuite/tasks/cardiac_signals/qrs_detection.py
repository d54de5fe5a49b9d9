"""QRS detection: where the heart beats in one lead of an electrocardiogram are.

Training and test data are two roles: detectors that learn are trained on generated beats by default, also when the
test records are real. Recordings of one person never stand on both sides.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchsuite.core import Metric, Outcome, Ranking, RunContext, Task
from benchsuite.datasets.ecg.reader import EcgDataset, EcgRecord
from benchsuite.tasks.cardiac_signals.noise import noisy_ecg
from benchsuite.tasks.cardiac_signals.pictures import draw_detections
from benchsuite.tasks.cardiac_signals.qrs_contract import AnnotatedEcg, QrsDetector, QrsProtocol
from benchsuite.tasks.cardiac_signals.qrs_judge import checked, judge, read, write
from benchsuite.tasks.cardiac_signals.recordings import divide, lead_signal

_PREDICTIONS = "predictions.csv"
_PICTURE = "detections.png"


class QrsDetection(Task[QrsDetector, EcgDataset, QrsProtocol]):
    """See the module's description."""

    name = "qrs-detection"
    version = "2"
    Protocol = QrsProtocol
    metrics = (
        Metric("f1_75ms", "max", doc="F1 of beats found within 75 ms (inclusive), pooled over records"),
        Metric("sensitivity_75ms", "max", doc="share of beats found within 75 ms"),
        Metric("positive_predictivity_75ms", "max", doc="share of detections within 75 ms of a beat"),
        Metric("macro_f1_75ms", "max", doc="mean over records of their F1 at 75 ms"),
        Metric("f1_150ms", "max", doc="F1 by EC57: within 150 ms, without learning period and fibrillation, pooled"),
        Metric("sensitivity_150ms", "max", doc="sensitivity by EC57, pooled"),
        Metric("positive_predictivity_150ms", "max", doc="positive predictivity by EC57, pooled"),
        Metric("macro_f1_150ms", "max", doc="mean over records of their F1 by EC57"),
        Metric(
            "cpsc2019_qrs_accuracy",
            "max",
            doc="QRS accuracy of the CPSC 2019 challenge, its scorer corrected; on its segments only",
        ),
        Metric(
            "cpsc2019_heart_rate_score",
            "max",
            doc="heart-rate score of the CPSC 2019 challenge, rates not rounded; on its segments only",
        ),
        Metric("samples_per_second", "max", "1/s", "cost", doc="samples a CPU second of detection gets through"),
    )
    ranking = Ranking("f1_75ms")
    reference = "unet1d"
    data_type = "benchsuite.datasets.ecg.reader:EcgDataset"
    method_type = QrsDetector
    default_data = "generated-ecg"
    roles_may_differ = True
    optional_roles: ClassVar[Mapping[str, str]] = {"noise": "benchsuite.datasets.ecg.noise:NoiseDataset"}

    @classmethod
    def data_roles(cls, dataset: str) -> dict[str, str]:
        """Train on generated beats, whatever the test records are."""
        return {"train": cls.default_data, "test": dataset}

    def evaluate(self, method: QrsDetector, data: Mapping[str, Any], protocol: QrsProtocol, ctx: RunContext) -> Outcome:
        """Fit on the training records, detect in the others (with the protocol's noise), and judge."""
        training, held_out = divide(data["train"].records, data["test"].records, ctx.split)
        held_out = [noisy_ecg(record, protocol, data.get("noise")) for record in held_out]
        annotated = [AnnotatedEcg(r.name, lead_signal(r, protocol), r.fs, r.beats) for r in training]
        with ctx.phase("fit"):
            detector = method.fit_qrs(annotated, ctx)
        detections = []
        with ctx.phase("predict"):
            before = time.process_time()
            for record in held_out:
                signal = lead_signal(record, protocol)
                detections.append(checked(detector.detect(signal, record.fs), record))
            seconds = time.process_time() - before
        write(ctx.artifact(_PREDICTIONS), held_out, detections)
        outcome = judge(held_out, detections)
        samples = sum(record.signals.shape[1] for record in held_out)
        outcome.scores["samples_per_second"] = samples / max(seconds, 1e-9)
        outcome.parameters = detector.parameters
        draw_detections(ctx.artifact(_PICTURE), held_out, detections, outcome, protocol)
        return outcome

    def with_other_answers(self, data: Mapping[str, EcgDataset]) -> Mapping[str, EcgDataset]:
        """Return the test records with every beat moved."""
        return {**data, "test": _moved(data["test"], keep_training=data["train"] is data["test"])}

    def score(self, predictions: Path, data: Mapping[str, EcgDataset], protocol: QrsProtocol) -> Outcome:
        """Judge a CSV of detections: columns record, sample; one row a detection, ascending; see `qrs_judge.read`."""
        _, held_out = divide(data["train"].records, data["test"].records, "test")
        found = read(predictions, held_out)
        outcome = judge(held_out, [checked(found[record.name], record) for record in held_out])
        outcome.scores["samples_per_second"] = None
        outcome.undefined["samples_per_second"] = "detected elsewhere"
        return outcome


def _moved(dataset: EcgDataset, keep_training: bool) -> EcgDataset:
    def other(record: EcgRecord) -> EcgRecord:
        if keep_training and record.part == "train":
            return record
        # The beats that the strength of added noise is measured at stay: what a method sees must not change.
        normal = record.beats if record.normal is None else record.normal
        return replace(record, beats=np.unique((record.beats + 37) % record.signals.shape[1]), normal=normal)

    return replace(dataset, records=tuple(other(record) for record in dataset.records))
