"""A training that is killed goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from support import Killed, context  # noqa: E402

from benchsuite.harness.checkpoint import EVERY_STEPS, Checkpoint, Interrupted, Position  # noqa: E402
from benchsuite.harness.context import HarnessContext  # noqa: E402
from benchsuite.harness.randomness import seed_everything  # noqa: E402

STEPS = 12


def train(ctx: HarnessContext, kill_at: int | None = None, name: str = "training") -> tuple[list[float], list[int]]:
    """Train with everything that has a state; returns the losses and the steps done by this process."""
    seed_everything(5)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=STEPS)
    average = torch.optim.swa_utils.AveragedModel(model)
    images = torch.zeros(3, 4, requires_grad=True)
    order, rows = torch.Generator().manual_seed(1), np.random.default_rng(2)
    losses: list[float] = []
    best: dict[str, Any] = {"loss": 9.0}
    parts = {
        "model": model, "optimizer": optimizer, "schedule": schedule, "average": average, "images": images,
        "order": order, "rows": rows, "losses": losses, "best": best,
    }  # fmt: skip
    done = []
    for step in ctx.resumable(name, STEPS, parts):
        if step == kill_at:
            raise Killed
        done.append(step)
        x = torch.randn(6, 4, generator=order) + float(rows.normal()) + torch.randn(6, 4) + random.random()
        loss = (model(x + images.sum()) ** 2).mean() + float(np.random.normal())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        with torch.no_grad():
            images -= 0.1 * images.grad
        images.grad = None  # what is left in it would be a state of its own
        losses.append(loss.item())
        best["loss"] = min(best["loss"], loss.item())
    final = [*losses, best["loss"], *(p.sum().item() for p in average.parameters()), float(torch.rand(1))]
    return final, done


@pytest.mark.parametrize("kill_at", [1, 4, 9, STEPS - 1])
def test_going_on_gives_the_same_bit_for_bit(tmp_path: Path, monkeypatch: Any, caplog: Any, kill_at: int) -> None:
    monkeypatch.setenv(EVERY_STEPS, "2")
    expected, _ = train(context(tmp_path / "whole"))
    with pytest.raises(Killed):
        train(context(tmp_path), kill_at)
    with caplog.at_level("INFO"):
        found, done = train(context(tmp_path))
    assert found == expected
    first = kill_at - kill_at % 2
    assert done == list(range(first, STEPS))
    assert (f"training goes on at step {first} of {STEPS}" in caplog.text) == (first > 0)


def test_a_finished_training_is_not_repeated_when_a_later_one_is_killed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv(EVERY_STEPS, "5")

    def both(folder: Path, kill_at: int | None = None) -> Any:
        ctx = context(folder)
        return train(ctx), train(ctx, kill_at)

    (one, _), (two, _) = both(tmp_path / "whole")
    with pytest.raises(Killed):
        both(tmp_path, 7)
    (first, done_first), (second, done_second) = both(tmp_path)
    assert (first, second) == (one, two)
    assert done_first == []
    assert done_second == list(range(5, STEPS))


def test_the_state_of_a_cached_step_goes_when_the_step_is_built(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv(EVERY_STEPS, "3")
    results = []

    def build(ctx: HarnessContext, kill_at: int | None) -> Any:
        def inside(folder: Path) -> None:
            results.append(train(ctx, kill_at))
            (folder / "done").touch()

        return ctx.cached("step", {}, inside)

    with pytest.raises(Killed):
        build(context(tmp_path), 7)
    assert len(list(tmp_path.rglob("*.pt"))) == 1
    ctx = context(tmp_path)
    build(ctx, None)
    assert results[0][1] == list(range(6, STEPS))
    assert list(tmp_path.rglob("*.pt")) == []
    assert ctx.checkpoint_folder == tmp_path / "checkpoints"


def test_seconds_of_killed_processes_are_charged(tmp_path: Path, monkeypatch: Any) -> None:
    ctx = context(tmp_path)
    Checkpoint(tmp_path / "checkpoints" / "training-1.pt", {"a": []}).save(Position(2, 100.0, 50.0))
    with ctx.phase("fit"):
        assert list(ctx.resumable("training", 3, {"a": []})) == [2]
    assert 100 <= ctx.timings["fit"].wall_s < 110
    assert 50 <= ctx.timings["fit"].cpu_s < 60


def test_a_run_told_to_end_keeps_its_state_first(tmp_path: Path) -> None:
    """At SIGTERM, without a save being due."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            for step in context(tmp_path).resumable("training", 10_000, {"a": []}):
                if step == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.01)
        except Interrupted:
            os._exit(9)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    assert next(iter(context(tmp_path).resumable("training", 10_000, {"a": []}))) == 4


def test_a_signal_is_not_lost_when_the_loop_stops_early(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for _ in context(tmp_path).resumable("training", 10, {"a": []}):
            os.kill(os.getpid(), signal.SIGTERM)
            break
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


def test_without_a_place_to_keep_it_a_training_runs_through(tmp_path: Path) -> None:
    ctx = context(tmp_path, checkpoint_folder=None, max_steps=2)
    assert list(ctx.resumable("training", 5, {"what": object()})) == [0, 1]
    assert ctx.truncated


@pytest.mark.parametrize(
    ("parts", "error"), [({"what": object()}, "no state can be kept"), ({"other": []}, "is of other parts: a")]
)
def test_parts_that_do_not_fit_are_told(tmp_path: Path, parts: dict[str, Any], error: str) -> None:
    if "other" in parts:
        Checkpoint(tmp_path / "checkpoints" / "training-1.pt", {"a": []}).save(Position(1))
    with pytest.raises((TypeError, ValueError), match=error):
        list(context(tmp_path).resumable("training", 3, parts))
