"""The protocol of QRS detection."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.datasets.ecg import generated as ecg_generator
from benchsuite.tasks.cardiac_signals import qrs_detection as qrs
from benchsuite.tasks.cardiac_signals.qrs_contract import Detector, QrsDetector, QrsProtocol
from benchsuite.tasks.cardiac_signals.qrs_judge import checked, judge, strict_counts, write
from benchsuite.tasks.cardiac_signals.recordings import divide, lead_signal


class TestQrs:
    def test_perfect_and_empty(self, ecg):
        records = [r for r in ecg.records if r.part == "test"]
        perfect = judge(records, [r.beats for r in records])
        challenge = {"cpsc2019_qrs_accuracy", "cpsc2019_heart_rate_score"}
        assert {value for name, value in perfect.scores.items() if name not in challenge} == {1.0}
        assert {name for name, value in perfect.scores.items() if value is None} == challenge
        assert set(perfect.undefined.values()) == {"the test records are no segments of CPSC 2019"}
        nothing = judge(records, [np.empty(0, dtype=np.int64)] * len(records))
        assert nothing.scores["f1_75ms"] == 0.0
        assert nothing.scores["positive_predictivity_75ms"] is None
        assert "positive_predictivity_75ms" in nothing.undefined
        assert [row["group"] for row in perfect.tables["groups"]] == list(ecg_generator.GROUPS)

    def test_only_the_scored_part_counts(self, ecg):
        record = replace(ecg.records[0], scored=(1000, 2000))
        inside = ((record.beats >= 1000) & (record.beats <= 2000)).sum()
        counts = strict_counts(record, record.beats)
        assert (counts.tp, counts.fp, counts.fn) == (inside, 0, 0)

    def test_a_named_lead_is_looked_at_and_generated_training_data_has_it(self, ecg):
        protocol = QrsProtocol(lead="V5")
        signals = np.stack([ecg.records[0].signals[0], -ecg.records[0].signals[0]])
        real = replace(ecg.records[0], signals=signals, leads=("MLII", "V5"))
        assert np.array_equal(lead_signal(real, protocol), signals[1])
        assert np.array_equal(lead_signal(real, QrsProtocol()), signals[0])
        assert np.array_equal(lead_signal(ecg.records[0], protocol), ecg.records[0].signals[0])
        with pytest.raises(DataError, match="has no lead 'V1', only MLII, V5"):
            lead_signal(real, QrsProtocol(lead="V1"))

    @pytest.mark.parametrize(
        ("detections", "message"),
        [([3, 2], "strictly ascending"), ([2, 2], "strictly ascending"), ([1.5], "whole"), ([-1], "outside")],
    )
    def test_bad_detections(self, ecg, detections, message):
        with pytest.raises(InvalidPrediction, match=message):
            checked(detections, ecg.records[0])

    def test_scores_a_file(self, ecg, tmp_path):
        task, data = qrs.QrsDetection(), {"train": ecg, "test": ecg}
        _, test = divide(ecg.records, ecg.records, "test")
        path = tmp_path / "found.csv"
        write(path, test, [r.beats for r in test])
        assert task.score(path, data, QrsProtocol()).scores["f1_75ms"] == 1.0
        for text in ("record,sample\nnobody,3\n", "a,b\n1,2\n", "record,sample\niid-00,x\n"):
            path.write_text(text)
            with pytest.raises(DataError):
                task.score(path, data, QrsProtocol())

    def test_other_answers_leave_training_alone(self, ecg):
        other = qrs.QrsDetection().with_other_answers({"train": ecg, "test": ecg})["test"]
        for before, after in zip(ecg.records, other.records, strict=True):
            assert np.array_equal(before.beats, after.beats) == (before.part == "train")

    @pytest.mark.parametrize(("late", "strict", "ec57"), [(37, 1, 1), (38, 0, 1), (75, 0, 1), (76, 0, 0)])
    def test_windows_are_75_and_150_ms_inclusive(self, ecg, late, strict, ec57):
        record = replace(ecg.records[0], fs=500.0, beats=np.array([1000]))
        outcome = judge([record], [np.array([1000 + late])])
        assert outcome.scores["f1_75ms"] == outcome.scores["macro_f1_75ms"] == strict
        assert outcome.scores["f1_150ms"] == outcome.scores["macro_f1_150ms"] == ec57

    def test_ec57_leaves_out_what_the_record_says(self, ecg):
        """The learning period of 4 s on both sides, and detections in fibrillation; 75 ms counts all of it."""
        record = replace(
            ecg.records[0], fs=250.0, beats=np.array([400, 1500, 2100]), learning_s=4.0, fibrillation=((1700, 1900),)
        )
        outcome = judge([record], [np.array([500, 700, 1500, 1800, 2000])])
        (row,) = outcome.tables["records"]
        assert (row["tp_75ms"], row["fp_75ms"], row["fn_75ms"]) == (1, 4, 2)
        assert (row["tp_150ms"], row["fp_150ms"], row["fn_150ms"]) == (1, 1, 1)

    def test_segments_of_cpsc_2019_are_scored_as_in_the_challenge(self, ecg):
        """An extra detection between the first two beats: seen by the corrected scorer, unseen by the official one."""
        beats = np.arange(400, 4700, 400)
        segment = replace(
            ecg.records[0],
            signals=np.zeros((1, 5000), dtype=np.float32),
            fs=500.0,
            beats=beats,
            scored=(250, 4750),
            challenge="cpsc2019",
        )
        outcome = judge([segment, segment], [np.sort(np.append(beats, 600)), beats[beats < 4300]])
        assert outcome.scores["cpsc2019_qrs_accuracy"] == pytest.approx((0.7 + 0.3) / 2)
        assert outcome.scores["cpsc2019_heart_rate_score"] == 1.0
        assert outcome.tables["cpsc2019"] == [
            {"program": "corrected", "qrs_accuracy": pytest.approx(0.5), "heart_rate_score": 1.0},
            {"program": "official", "qrs_accuracy": pytest.approx(0.65), "heart_rate_score": 1.0},
        ]
        mixed = judge([segment, ecg.records[0]], [beats, ecg.records[0].beats])
        assert mixed.scores["cpsc2019_qrs_accuracy"] is None
        assert "cpsc2019" not in mixed.tables

    def test_pooled_and_mean_over_records(self, ecg):
        long = replace(ecg.records[0], beats=np.arange(100, 1000, 100))
        short = replace(ecg.records[1], beats=np.array([500]))
        scores = judge([long, short], [long.beats, np.array([], dtype=np.int64)]).scores
        assert scores["f1_75ms"] == pytest.approx(18 / 19)
        assert scores["macro_f1_75ms"] == pytest.approx(0.5)

    def test_a_method_is_given_training_beats_and_test_signals_only(self, ecg, make_context):
        records = [*ecg.records[:3], *ecg.records[60:64]]
        data = replace(ecg, records=tuple(replace(r, patient=f"p{i}") for i, r in enumerate(records)))
        method, ctx = Oracle(data.records), make_context()
        outcome = qrs.QrsDetection().evaluate(method, {"train": data, "test": data}, QrsProtocol(), ctx)
        assert [r.name for r in method.trained_on] == [r.name for r in records[:3]]
        for given, record in zip(method.trained_on, records, strict=False):
            assert np.array_equal(given.signal, record.signals[0])
            assert np.array_equal(given.beats, record.beats)
        assert outcome.scores["f1_75ms"] == 1.0
        assert outcome.counts["records"] == 4
        assert outcome.parameters == 7
        assert ctx.artifact("detections.png").is_file()

    def test_detectors_are_trained_on_generated_beats_whatever_the_test(self):
        assert qrs.QrsDetection.data_roles("mitdb") == {"train": "generated-ecg", "test": "mitdb"}


class Oracle(QrsDetector):
    """Knows every record by its samples; keeps what it was given."""

    def __init__(self, records):
        self._beats = {r.signals[0].tobytes(): r.beats for r in records}
        self.trained_on = []

    def fit_qrs(self, records, ctx):
        self.trained_on = list(records)
        return Detector(lambda signal, fs: self._beats[signal.tobytes()], parameters=7)
