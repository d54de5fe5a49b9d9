"""The protocol of QRS detection."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.datasets.ecg import generated as ecg_generator
from benchsuite.tasks.cardiac_signals import qrs_detection as qrs
from benchsuite.tasks.cardiac_signals.qrs_contract import QrsProtocol
from benchsuite.tasks.cardiac_signals.qrs_judge import checked, judge, strict_counts, write
from benchsuite.tasks.cardiac_signals.recordings import divide, lead_signal


class TestQrs:
    def test_perfect_and_empty(self, ecg):
        records = [r for r in ecg.records if r.part == "test"]
        perfect = judge(records, [r.beats for r in records])
        assert set(perfect.scores.values()) == {1.0}
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
