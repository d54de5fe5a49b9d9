"""Splits in which nobody stands on both sides, and picking examples."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchsuite.core.errors import DataError
from benchsuite.tasks.cardiac_signals.recordings import divide, representative


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

    def test_shares_are_of_persons_and_validation_does_not_look_at_the_test(self):
        records = [_recording(f"{i}-{j}", f"person {i}") for i in range(10) for j in range(1 + i % 3)]
        train, test = divide(records, records, "test")
        assert (len({r.patient for r in train}), len({r.patient for r in test})) == (7, 3)
        smaller, held_out = divide(records, records, "val")
        assert {r.name for r in smaller} | {r.name for r in held_out} == {r.name for r in train}
        assert (len({r.patient for r in smaller}), len({r.patient for r in held_out})) == (6, 1)
        again = divide(records, records, "test")
        assert [r.name for r in again[1]] == [r.name for r in test]

    def test_marks_of_the_data_set_hold_in_either_role(self):
        one = [_recording("a", "p", "train"), _recording("b", "q", "test")]
        train, test = divide(one, [*one, _recording("c", "r")], "test")
        assert [r.name for r in train] == ["a"]
        assert [r.name for r in test] == ["b", "c"]

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
