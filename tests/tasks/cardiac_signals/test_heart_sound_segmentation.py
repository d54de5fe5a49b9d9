"""The protocol of heart-sound segmentation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.core.task import NoProtocol
from benchsuite.datasets.pcg.reader import S1, S2, UNLABELLED
from benchsuite.tasks.cardiac_signals import heart_sound_segmentation as sounds
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
        assert task.score(path, data, NoProtocol()).scores["frame_accuracy"] == 1.0
        path.write_text("\n".join(path.read_text().splitlines()[:-1]))
        with pytest.raises(DataError, match="incomplete"):
            task.score(path, data, NoProtocol())
