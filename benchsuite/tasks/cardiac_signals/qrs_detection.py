"""QRS detection: where the heart beats in one lead of an electrocardiogram are.

Training and test data are two roles: detectors that learn are trained on generated beats by default, also when the
test records are real. Recordings of one person never stand on both sides.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchsuite.core import Method, Metric, Outcome, Ranking, RunContext, Task
from benchsuite.datasets.ecg.reader import UNNAMED_LEAD, EcgDataset, EcgRecord
from benchsuite.tasks.cardiac_signals.qrs_contract import AnnotatedEcg, Integers, QrsDetector, QrsProtocol, Signal
from benchsuite.tasks.cardiac_signals.qrs_judge import checked, judge, read, write
from benchsuite.tasks.cardiac_signals.recordings import divide

_PREDICTIONS = "predictions.csv"
_PICTURE = "detections.png"


class QrsDetection(Task):
    """See the module's description."""

    name = "qrs-detection"
    title = "QRS detection in electrocardiograms"
    version = "1"
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
        Metric("samples_per_second", "max", "1/s", "cost", doc="samples a CPU second of detection gets through"),
    )
    ranking = Ranking("f1_75ms")
    published_seeds: ClassVar[Mapping[str, int]] = {"run": 5}
    reference = "unet1d"
    data_type = "benchsuite.datasets.ecg.reader:EcgDataset"
    method_type = QrsDetector
    default_data = "generated-ecg"
    roles_may_differ = True

    @classmethod
    def data_roles(cls, dataset: str) -> dict[str, str]:
        """Train on generated beats, whatever the test records are."""
        return {"train": cls.default_data, "test": dataset}

    def evaluate(self, method: Method, data: Mapping[str, Any], protocol: Any, ctx: RunContext) -> Outcome:
        """Fit on the training records, detect in the others, and judge."""
        assert isinstance(method, QrsDetector)
        training, held_out = divide(data["train"].records, data["test"].records, ctx.split)
        annotated = [AnnotatedEcg(r.name, _signal(r, protocol), r.fs, r.beats) for r in training]
        with ctx.phase("fit"):
            detector = method.fit_qrs(annotated, ctx)
        detections = []
        with ctx.phase("predict"):
            before = time.process_time()
            for record in held_out:
                signal = _signal(record, protocol)
                detections.append(checked(detector.detect(signal, record.fs), record))
            seconds = time.process_time() - before
        write(ctx.artifact(_PREDICTIONS), held_out, detections)
        outcome = judge(held_out, detections)
        samples = sum(record.signals.shape[1] for record in held_out)
        outcome.scores["samples_per_second"] = samples / max(seconds, 1e-9)
        outcome.parameters = detector.parameters
        _draw(ctx.artifact(_PICTURE), held_out, detections, outcome, protocol)
        return outcome

    def with_other_answers(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the test records with every beat moved."""
        return {**data, "test": _moved(data["test"], keep_training=data["train"] is data["test"])}

    def score(self, predictions: Path, data: Mapping[str, Any], protocol: Any) -> Outcome:
        """Judge a CSV of detections: columns record, sample; one row a detection."""
        _, held_out = divide(data["train"].records, data["test"].records, "test")
        found = read(predictions, held_out)
        outcome = judge(held_out, [checked(found[record.name], record) for record in held_out])
        outcome.scores["samples_per_second"] = None
        outcome.undefined["samples_per_second"] = "detected elsewhere"
        return outcome


def _signal(record: EcgRecord, protocol: QrsProtocol) -> Signal:
    return record.lead("" if protocol.lead == "first" or record.leads == (UNNAMED_LEAD,) else protocol.lead)


def _moved(dataset: EcgDataset, keep_training: bool) -> EcgDataset:
    def other(record: EcgRecord) -> EcgRecord:
        if keep_training and record.part == "train":
            return record
        return replace(record, beats=np.unique((record.beats + 37) % record.signals.shape[1]))

    return replace(dataset, records=tuple(other(record) for record in dataset.records))


def _draw(
    path: Path, records: Sequence[EcgRecord], detections: Sequence[Integers], outcome: Outcome, protocol: QrsProtocol
) -> None:
    """Keep a picture of ten seconds of the worst, a middling and the best record."""
    from benchsuite.tasks.cardiac_signals.pictures import Strip, draw_strips
    from benchsuite.tasks.cardiac_signals.recordings import representative

    strips = []
    for i in representative([row["f1_75ms"] for row in outcome.tables["records"]]):
        record = records[i]
        start = 0 if not record.learning_s else min(int(record.learning_s * record.fs), record.signals.shape[1] // 2)
        stop = min(start + int(10 * record.fs), record.signals.shape[1])
        f1 = outcome.tables["records"][i]["f1_75ms"]
        strips.append(
            Strip(
                title=f"{record.name}: F1 at 75 ms {'undefined' if f1 is None else format(100 * f1, '.1f') + ' %'}",
                time=np.arange(start, stop) / record.fs,
                signal=_signal(record, protocol)[start:stop],
                unit="mV",
                true={"beats": record.beats[(record.beats >= start) & (record.beats < stop)] / record.fs},
                found={"beats": detections[i][(detections[i] >= start) & (detections[i] < stop)] / record.fs},
                unjudged=_unjudged(record, start, stop),
            )
        )
    draw_strips(path, strips)


def _unjudged(record: EcgRecord, start: int, stop: int) -> list[tuple[float, float]]:
    """Return what of a stretch lies outside the scored part of the record, in seconds."""
    first, last = record.scored
    pieces = [(start, min(first, stop)), (max(last, start), stop)]
    return [(begin / record.fs, end / record.fs) for begin, end in pieces if end > begin]
