"""The protocols of QRS detection and heart-sound segmentation."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.datasets import ecg_generator, pcg_generator
from benchsuite.datasets.pcg import S1, S2, UNLABELLED
from benchsuite.tasks import _signal_pictures as pictures
from benchsuite.tasks import heart_sound_segmentation as sounds
from benchsuite.tasks import qrs_detection as qrs
from benchsuite.tasks._recordings import divide, representative


@pytest.fixture(scope="module")
def ecg():
    return ecg_generator.load_generated(None, 0)


@pytest.fixture(scope="module")
def pcg():
    return pcg_generator.load_generated(None, 0)


def _recording(name, patient, part="any"):
    return SimpleNamespace(name=name, patient=patient, part=part)


class TestDivide:
    def test_marked_records_stay_on_their_side(self, ecg):
        train, test = divide(ecg.records, ecg.records, "test")
        assert (len(train), len(test)) == (60, 80)

    def test_validation_comes_from_the_training_part(self, ecg):
        train, held_out = divide(ecg.records, ecg.records, "val")
        assert len(train) + len(held_out) == 60
        assert all(record.part == "train" for record in held_out)

    def test_persons_of_one_data_set_are_split(self):
        records = [_recording(str(i), f"person {i // 2}") for i in range(20)]
        train, test = divide(records, records, "test")
        assert len(train) + len(test) == 20
        assert not {r.patient for r in train} & {r.patient for r in test}

    def test_a_person_on_both_sides_is_refused(self):
        one = [_recording("a", "p"), _recording("b", "q")]
        with pytest.raises(DataError, match="p is in the training and in the test data"):
            divide(one, [_recording("c", "p")], "test")

    def test_too_few_persons(self):
        one = [_recording("a", "p")]
        with pytest.raises(DataError, match="too few persons"):
            divide(one, one, "test")

    def test_examples_are_worst_middling_and_best(self):
        assert representative([0.5, None, 0.9, 0.7]) == [1, 3, 2]
        assert representative([0.5]) == [0]


class TestQrs:
    def test_perfect_and_empty(self, ecg):
        records = [r for r in ecg.records if r.part == "test"]
        perfect = qrs.judge(records, [r.beats for r in records])
        assert set(perfect.scores.values()) == {1.0}
        nothing = qrs.judge(records, [np.empty(0, dtype=np.int64)] * len(records))
        assert nothing.scores["f1_75ms"] == 0.0
        assert nothing.scores["positive_predictivity_75ms"] is None
        assert "positive_predictivity_75ms" in nothing.undefined
        assert [row["group"] for row in perfect.tables["groups"]] == list(ecg_generator.GROUPS)

    def test_only_the_scored_part_counts(self, ecg):
        record = replace(ecg.records[0], scored=(1000, 2000))
        inside = ((record.beats >= 1000) & (record.beats <= 2000)).sum()
        counts = qrs.strict_counts(record, record.beats)
        assert (counts.tp, counts.fp, counts.fn) == (inside, 0, 0)

    def test_a_named_lead_is_looked_at_and_generated_training_data_has_it(self, ecg):
        protocol = qrs.QrsProtocol(lead="V5")
        signals = np.stack([ecg.records[0].signals[0], -ecg.records[0].signals[0]])
        real = replace(ecg.records[0], signals=signals, leads=("MLII", "V5"))
        assert np.array_equal(qrs._signal(real, protocol), signals[1])
        assert np.array_equal(qrs._signal(real, qrs.QrsProtocol()), signals[0])
        assert np.array_equal(qrs._signal(ecg.records[0], protocol), ecg.records[0].signals[0])
        with pytest.raises(DataError, match="has no lead 'V1', only MLII, V5"):
            qrs._signal(real, qrs.QrsProtocol(lead="V1"))

    @pytest.mark.parametrize(
        ("detections", "message"),
        [([3, 2], "strictly ascending"), ([2, 2], "strictly ascending"), ([1.5], "whole"), ([-1], "outside")],
    )
    def test_bad_detections(self, ecg, detections, message):
        with pytest.raises(InvalidPrediction, match=message):
            qrs._checked(detections, ecg.records[0])

    def test_scores_a_file(self, ecg, tmp_path):
        task, data = qrs.QrsDetection(), {"train": ecg, "test": ecg}
        _, test = divide(ecg.records, ecg.records, "test")
        path = tmp_path / "found.csv"
        qrs._write(path, test, [r.beats for r in test])
        assert task.score(path, data, None).scores["f1_75ms"] == 1.0
        for text in ("record,sample\nnobody,3\n", "a,b\n1,2\n", "record,sample\niid-00,x\n"):
            path.write_text(text)
            with pytest.raises(DataError):
                task.score(path, data, None)

    def test_other_answers_leave_training_alone(self, ecg):
        other = qrs.QrsDetection().with_other_answers({"train": ecg, "test": ecg})["test"]
        for before, after in zip(ecg.records, other.records, strict=True):
            assert np.array_equal(before.beats, after.beats) == (before.part == "train")


class TestHeartSounds:
    def test_perfect_and_wrong(self, pcg):
        records = [r for r in pcg.records if r.part == "test"]
        perfect = sounds.judge(records, [r.states for r in records])
        assert perfect.scores["frame_accuracy"] == 1.0
        assert perfect.scores["f1_60ms"] > 0.99  # sounds cut down to one frame by the end of a record are not found
        wrong = sounds.judge(records, [np.full(len(r.states), 3, dtype=np.int8) for r in records])
        assert wrong.scores["f1_60ms"] == 0.0

    def test_tolerance_is_inclusive(self, pcg):
        record = pcg.records[0]
        states = np.full(len(record.states), 3, dtype=np.int8)
        record = replace(record, events={S1: np.array([100.0]), S2: np.array([])})
        for shift, expected in ((3, 1), (4, 0)):
            found = states.copy()
            found[99 + shift : 102 + shift] = S1
            assert sounds.sound_counts(record, found, 3.0)[S1].tp == expected

    def test_single_frames_and_unlabelled_centres_are_dropped(self, pcg):
        record = pcg.records[0]
        truth = record.states.copy()
        truth[:50] = UNLABELLED
        record = replace(record, states=truth, events={S1: np.array([100.0]), S2: np.array([])})
        found = np.full(len(truth), 3, dtype=np.int8)
        found[10:14] = S1
        found[99:102] = S1
        found[200] = S1
        counts = sounds.sound_counts(record, found, 3.0)[S1]
        assert (counts.tp, counts.fp, counts.fn) == (1, 0, 0)

    @pytest.mark.parametrize("bad", [np.zeros(3, dtype=int), np.zeros(800), np.full(800, 4)])
    def test_bad_states(self, pcg, bad):
        with pytest.raises(InvalidPrediction, match="states"):
            sounds._checked(bad, pcg.records[0])

    def test_scores_a_file(self, pcg, tmp_path):
        task, data = sounds.HeartSoundSegmentation(), {"train": pcg, "test": pcg}
        _, test = divide(pcg.records, pcg.records, "test")
        path = tmp_path / "found.csv"
        sounds._write(path, test, [r.states for r in test])
        assert task.score(path, data, None).scores["frame_accuracy"] == 1.0
        path.write_text("\n".join(path.read_text().splitlines()[:-1]))
        with pytest.raises(DataError, match="incomplete"):
            task.score(path, data, None)


def test_pictures_cut_spikes_off_and_shade_what_is_not_judged(tmp_path):
    time = np.arange(1000) / 100
    signal = np.sin(time)
    signal[500] = 400.0
    low, high = pictures._visible_range(signal)
    assert -3.1 < low < -0.99
    assert 0.99 < high < 3.1
    assert pictures._visible_range(np.sin(time)) == (np.sin(time).min(), np.sin(time).max())
    events = {"beats": np.array([1.0, 2.0])}
    strip = pictures.Strip("one", time, signal, "mV", events, events, unjudged=[(0.0, 0.5)])
    pictures.draw_strips(tmp_path / "picture.png", [strip, replace(strip, unjudged=())])
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_not_scored_is_not_judged_in_the_picture(ecg):
    record = replace(ecg.records[0], scored=(100, 400))
    assert qrs._unjudged(record, 0, 500) == [(0.0, 0.4), (1.6, 2.0)]
    assert qrs._unjudged(ecg.records[0], 0, 500) == []
