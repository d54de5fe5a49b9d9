"""The protocol of heart-sound segmentation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.datasets.pcg.reader import S1, S2, UNLABELLED
from benchsuite.tasks.cardiac_signals import heart_sound_segmentation as sounds
from benchsuite.tasks.cardiac_signals.heart_sound_contract import HeartSoundProtocol, HeartSoundSegmenter, Segmentation
from benchsuite.tasks.cardiac_signals.heart_sound_judge import checked, judge, sound_counts, write
from benchsuite.tasks.cardiac_signals.recordings import divide


class TestHeartSounds:
    def test_perfect_and_wrong(self, pcg):
        records = [r for r in pcg.records if r.part == "test"]
        perfect = judge(records, [r.states for r in records])
        assert perfect.scores["frame_accuracy"] == 1.0
        assert perfect.scores["f1_60ms"] > 0.99  # sounds cut down to one frame by the end of a record are not found
        wrong = judge(records, [np.full(len(r.states), 3, dtype=np.int8) for r in records])
        assert wrong.scores["f1_60ms"] == 0.0

    def test_tolerance_is_inclusive(self, pcg):
        record = pcg.records[0]
        states = np.full(len(record.states), 3, dtype=np.int8)
        record = replace(record, events={S1: np.array([100.0]), S2: np.array([])})
        for shift, expected in ((3, 1), (4, 0)):
            found = states.copy()
            found[99 + shift : 102 + shift] = S1
            assert sound_counts(record, found, 3.0)[S1].tp == expected

    def test_single_frames_and_unlabelled_centres_are_dropped(self, pcg):
        record = pcg.records[0]
        truth = record.states.copy()
        truth[:50] = UNLABELLED
        record = replace(record, states=truth, events={S1: np.array([100.0]), S2: np.array([])})
        found = np.full(len(truth), 3, dtype=np.int8)
        found[10:14] = S1
        found[99:102] = S1
        found[200] = S1
        counts = sound_counts(record, found, 3.0)[S1]
        assert (counts.tp, counts.fp, counts.fn) == (1, 0, 0)

    @pytest.mark.parametrize("bad", [np.zeros(3, dtype=int), np.zeros(800), np.full(800, 4)])
    def test_bad_states(self, pcg, bad):
        with pytest.raises(InvalidPrediction, match="states"):
            checked(bad, pcg.records[0])

    def test_scores_a_file(self, pcg, tmp_path):
        task, data = sounds.HeartSoundSegmentation(), {"train": pcg, "test": pcg}
        _, test = divide(pcg.records, pcg.records, "test")
        path = tmp_path / "found.csv"
        write(path, test, [r.states for r in test])
        assert task.score(path, data, HeartSoundProtocol()).scores["frame_accuracy"] == 1.0
        path.write_text("\n".join(path.read_text().splitlines()[:-1]))
        with pytest.raises(DataError, match="incomplete"):
            task.score(path, data, HeartSoundProtocol())

    def test_pooled_and_mean_over_records_at_both_tolerances(self, pcg):
        """One record with both sounds found 80 ms late, one with S1 found and S2 missed."""
        late, missed = (replace(r, events={S1: np.array([100.0]), S2: np.array([120.0])}) for r in pcg.records[:2])
        found = [np.full(len(r.states), 3, dtype=np.int8) for r in (late, missed)]
        found[0][103:106], found[0][123:126], found[1][99:102] = S1, S2, S1
        outcome = judge([late, missed], found)
        assert outcome.scores["f1_60ms"] == pytest.approx(2 * 1 / (2 * 1 + 2 + 3))
        assert outcome.scores["f1_100ms"] == pytest.approx(2 * 3 / (2 * 3 + 0 + 1))
        assert outcome.scores["f1_s1_60ms"] == pytest.approx(0.5)
        assert outcome.scores["f1_s2_60ms"] == 0.0
        assert outcome.scores["macro_f1_60ms"] == pytest.approx((0 + 2 / 3) / 2)

    def test_accuracy_is_of_annotated_frames(self, pcg):
        record = pcg.records[0]
        truth = record.states.copy()
        truth[:400] = UNLABELLED
        found = record.states.copy()
        found[:400] = 3
        found[400:500] = (found[400:500] + 1) % 4
        outcome = judge([replace(record, states=truth)], [found])
        assert outcome.scores["frame_accuracy"] == pytest.approx(0.75)
        assert outcome.counts["labelled_frames"] == 400

    def test_other_answers_change_every_state_and_leave_training_alone(self, pcg):
        other = sounds.HeartSoundSegmentation().with_other_answers({"train": pcg, "test": pcg})["test"]
        for before, after in zip(pcg.records, other.records, strict=True):
            if before.part == "train":
                assert after is before
            else:
                assert (before.states != after.states).all()
                assert np.array_equal(after.events[S1], before.events[S2])

    def test_a_method_is_given_training_states_and_test_signals_only(self, pcg, make_context):
        records = [*pcg.records[:3], *pcg.records[60:64]]
        data = replace(pcg, records=tuple(records))
        method, ctx = Oracle(data.records), make_context()
        task = sounds.HeartSoundSegmentation()
        outcome = task.evaluate(method, {"train": data, "test": data}, HeartSoundProtocol(), ctx)
        assert [r.name for r in method.trained_on] == [r.name for r in records[:3]]
        for given, record in zip(method.trained_on, records, strict=False):
            assert np.array_equal(given.signal, record.signal)
            assert np.array_equal(given.states, record.states)
        assert outcome.scores["frame_accuracy"] == 1.0
        assert outcome.counts["records"] == 4
        assert ctx.artifact("segments.png").is_file()


class Oracle(HeartSoundSegmenter):
    """Knows every record by its samples; keeps what it was given."""

    def __init__(self, records):
        self._states = {r.signal.tobytes(): r.states for r in records}
        self.trained_on = []

    def fit_heart_sounds(self, records, ctx):
        self.trained_on = list(records)
        return Segmentation(lambda signal, fs: self._states[signal.tobytes()])
