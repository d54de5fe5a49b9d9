"""QRS detection: where the heart beats in one lead of an electrocardiogram are.

Training and test data are two roles: detectors that learn are trained on generated beats by default, also when the
test records are real. Recordings of one person never stand on both sides.
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
from benchsuite.datasets.ecg import UNNAMED_LEAD, EcgDataset, EcgRecord
from benchsuite.metrics.events import (
    CPSC2019_TOLERANCE_S,
    EC57_TOLERANCE_S,
    EventCounts,
    count_events,
    ec57_counts,
    macro_f1,
    tolerance_in_samples,
)
from benchsuite.tasks._recordings import divide

Integers = NDArray[np.int64]
Signal = NDArray[np.float32]

_PREDICTIONS = "predictions.csv"
_PICTURE = "detections.png"


@dataclass(frozen=True)
class QrsProtocol:
    """What belongs to neither detector nor data: which lead is looked at, ``first`` or its name in the records.

    Records of one lead that goes by no name but ECG, as the generated ones are, are looked at whatever is asked for.
    """

    lead: str = "first"


@dataclass(frozen=True)
class AnnotatedEcg:
    """A training record: (T,) float32 millivolts of one lead at ``fs`` Hz, and its beats as sample indices (int64)."""

    name: str
    signal: Signal
    fs: float
    beats: Integers


@dataclass(frozen=True)
class Detector:
    """A detector ready for use.

    Attributes
    ----------
    detect
        Called with (T,) float32 millivolts and the sampling rate in Hz; returns the sample indices of R peaks,
        whole numbers in strictly ascending order.
    parameters
        Number of trainable parameters used in detection, or None.
    """

    detect: Callable[[Signal, float], Any]
    parameters: int | None = None


class QrsDetector(Method):
    """A way to find beats."""

    @abstractmethod
    def fit_qrs(self, records: Sequence[AnnotatedEcg], ctx: RunContext) -> Detector:
        """Return a detector, trained on the records if it learns.

        Parameters
        ----------
        records
            Training records with their beats.
        ctx
            Take seeds from ``ctx.seed_for("run", ...)`` and draw steps from ``ctx.steps``.
        """


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
    data_type = "benchsuite.datasets.ecg:EcgDataset"
    method_type = QrsDetector
    default_data = "generated-ecg"

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
                detections.append(_checked(detector.detect(signal, record.fs), record))
            seconds = time.process_time() - before
        _write(ctx.artifact(_PREDICTIONS), held_out, detections)
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
        found = _read(predictions, held_out)
        outcome = judge(held_out, [_checked(found[record.name], record) for record in held_out])
        outcome.scores["samples_per_second"] = None
        outcome.undefined["samples_per_second"] = "detected elsewhere"
        return outcome


def _signal(record: EcgRecord, protocol: QrsProtocol) -> Signal:
    return record.lead("" if protocol.lead == "first" or record.leads == (UNNAMED_LEAD,) else protocol.lead)


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
    pooled = sum(strict, EventCounts())
    counts_75 = {"true_positives_75ms": pooled.tp, "false_positives_75ms": pooled.fp, "false_negatives_75ms": pooled.fn}
    tables = {
        "records": [_row(r.name, s, e) | {"group": r.group} for r, s, e in zip(records, strict, ec57, strict=True)]
    }
    groups = list(dict.fromkeys(r.group for r in records if r.group))
    if groups:
        tables["groups"] = [_group_row(group, records, strict, ec57) for group in groups]
    return Outcome(scores, undefined, {"records": len(records), **counts_75}, tables)


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


def _checked(detections: Any, record: EcgRecord) -> Integers:
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


def _moved(dataset: EcgDataset, keep_training: bool) -> EcgDataset:
    def other(record: EcgRecord) -> EcgRecord:
        if keep_training and record.part == "train":
            return record
        return replace(record, beats=np.unique((record.beats + 37) % record.signals.shape[1]))

    return replace(dataset, records=tuple(other(record) for record in dataset.records))


def _write(path: Path, records: Sequence[EcgRecord], detections: Sequence[Integers]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["record", "sample"])
        for record, found in zip(records, detections, strict=True):
            writer.writerows([record.name, sample] for sample in found)


def _read(path: Path, records: Sequence[EcgRecord]) -> dict[str, Integers]:
    names = {record.name for record in records}
    found: dict[str, list[int]] = {name: [] for name in names}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                found[row["record"]].append(int(row["sample"]))
    except KeyError as error:
        raise DataError(f"{path}: {error} is neither a column nor a test record (columns: record, sample)") from None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: not a table of record,sample ({error})") from None
    return {name: np.array(samples, dtype=np.int64) for name, samples in found.items()}


def _draw(
    path: Path, records: Sequence[EcgRecord], detections: Sequence[Integers], outcome: Outcome, protocol: QrsProtocol
) -> None:
    """Keep a picture of ten seconds of the worst, a middling and the best record."""
    from benchsuite.tasks._recordings import representative
    from benchsuite.tasks._signal_pictures import Strip, draw_strips

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
