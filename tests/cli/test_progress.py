"""The estimate of how long a sweep still takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from benchsuite.cli.console import TimeLeft, duration


def planned(task: str, label: str) -> Any:
    run = SimpleNamespace(task=task, data={"test": SimpleNamespace(name="data")}, preset="embedded")
    return SimpleNamespace(run=run, label=label)


def took(seconds: float) -> Any:
    return SimpleNamespace(wall_s=seconds)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_is_said_before_anything_was_measured(clock: Clock) -> None:
    runs = [planned("t", "a"), planned("t", "a")]
    left = TimeLeft(runs, clock)
    assert left.seconds() is None
    left.done(runs[0], took(50.0), stored_before=True)
    assert left.seconds() is None


def test_a_run_is_expected_to_take_what_its_like_took(clock: Clock) -> None:
    runs = [planned("slow", "a"), planned("slow", "a"), planned("quick", "b"), planned("quick", "c")]
    left = TimeLeft(runs, clock)
    left.started(runs[0])
    clock.now = 100.0
    left.done(runs[0], took(100.0), stored_before=False)
    left.started(runs[2])
    clock.now = 101.0
    left.done(runs[2], took(1.0), stored_before=False)
    assert left.seconds() == pytest.approx(100.0 + 1.0)  # c goes by its task
    clock.now = 131.0
    assert left.seconds() == pytest.approx(71.0)
    clock.now = 500.0
    assert left.seconds() == 0.0


def test_an_unknown_task_counts_as_the_mean(clock: Clock) -> None:
    runs = [planned("t", "a"), planned("t", "b"), planned("new", "c")]
    left = TimeLeft(runs, clock)
    left.started(runs[0])
    clock.now = 10.0
    left.done(runs[0], took(10.0), stored_before=False)
    left.started(runs[1])
    clock.now = 40.0
    left.done(runs[1], took(30.0), stored_before=False)
    assert left.seconds() == pytest.approx(20.0)


def test_runs_side_by_side_count_as_such(clock: Clock) -> None:
    runs = [planned("t", "a") for _ in range(6)]
    left = TimeLeft(runs, clock)
    left.started(runs[0])
    left.started(runs[1])
    clock.now = 10.0
    left.done(runs[0], took(10.0), stored_before=False)
    left.done(runs[1], took(10.0), stored_before=False)
    assert left.seconds() == pytest.approx(20.0)  # four left, two at a time


def test_what_is_under_way_counts_as_work_done(clock: Clock) -> None:
    runs = [planned("long", "a"), planned("long", "a"), planned("short", "b"), planned("short", "b")]
    left = TimeLeft(runs, clock)
    left.done(runs[0], took(100.0), stored_before=True)
    clock.now = 50.0  # the start-up is no work
    left.started(runs[1])
    left.started(runs[2])
    clock.now = 60.0
    left.done(runs[2], took(10.0), stored_before=False)
    assert left.seconds() == pytest.approx((90.0 + 10.0) / 2)


def test_an_earlier_sweep_is_known_and_a_run_without_result_is_gone(clock: Clock) -> None:
    runs = [planned("t", "a"), planned("t", "a"), planned("u", "b"), planned("u", "b")]
    left = TimeLeft(runs, clock)
    left.done(runs[0], took(60.0), stored_before=True)
    left.started(runs[2])
    clock.now = 2.0
    left.done(runs[2], took(2.0), stored_before=False)
    assert left.seconds() == pytest.approx(60.0 + 2.0)
    left.started(runs[3])
    left.done(runs[3], None, stored_before=False)
    assert left.seconds() == pytest.approx(60.0)


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (75, "1 min 15 s"), (3900, "1 h 5 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
