"""The context inside a run, and the cache below it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchsuite.core.errors import DataError
from benchsuite.core.result import DataRef
from benchsuite.harness.cache import Built, Cache
from benchsuite.harness.context import HarnessContext
from benchsuite.harness.randomness import random_state, seed_everything


def make_context(folder: Path, **changes: Any) -> HarnessContext:
    values: dict[str, Any] = {
        "seeds": {"base": 1, "shots": 2},
        "seed_axes": ("base", "shots"),
        "workdir": folder,
        "artifact_folder": folder / "artifacts",
        "cache_root": folder / "cache",
        "shared_digest": "d",
    }
    return HarnessContext(**(values | changes))


def test_seeds_depend_on_the_axes_outside_and_on_the_purpose(tmp_path: Path) -> None:
    ctx = make_context(tmp_path)
    other_shots = make_context(tmp_path, seeds={"base": 1, "shots": 3})
    other_base = make_context(tmp_path, seeds={"base": 2, "shots": 2})
    assert ctx.seed_for("base", "x") == other_shots.seed_for("base", "x")
    assert ctx.seed_for("shots", "x") != other_shots.seed_for("shots", "x")
    assert ctx.seed_for("shots", "x") != other_base.seed_for("shots", "x")
    assert ctx.seed_for("base", "x") != ctx.seed_for("base", "y")
    assert ctx.seed_for("base", "x") != ctx.for_rank(0).seed_for("base", "x")
    with pytest.raises(KeyError, match="no seed axis 'run'"):
        ctx.seed_for("run", "x")


def test_steps_stop_early_only_when_asked(tmp_path: Path) -> None:
    ctx = make_context(tmp_path)
    assert list(ctx.steps(3)) == [0, 1, 2]
    assert not ctx.truncated
    short = make_context(tmp_path, max_steps=2)
    assert list(short.steps(2)) == [0, 1]
    assert not short.truncated
    assert list(short.steps(3)) == [0, 1]
    assert short.truncated


def test_a_cached_step_that_was_cut_short_marks_every_user(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        list(ctx.steps(5))

    for _ in range(2):
        ctx = make_context(tmp_path, max_steps=2)
        ctx.cached("step", {}, build)
        assert ctx.truncated


def test_a_rank_context_pickles(tmp_path: Path) -> None:
    rank = pickle.loads(pickle.dumps(make_context(tmp_path).for_rank(1)))
    assert rank.rank == 1


def test_artifacts_stay_inside_their_folder(tmp_path: Path) -> None:
    ctx = make_context(tmp_path)
    assert ctx.artifact("plots/a.png").parent.is_dir()
    with pytest.raises(ValueError, match="outside"):
        ctx.artifact("../a.png")


def test_a_hit_and_a_miss_leave_the_same_random_state(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        np.save(folder / "x.npy", np.random.normal(size=3))

    draws, contents = [], []
    for _ in range(2):
        ctx = make_context(tmp_path)
        seed_everything(5)
        contents.append(np.load(ctx.cached("step", {"a": 1}, build) / "x.npy"))
        draws.append(np.random.normal())
    assert draws[0] == draws[1]
    np.testing.assert_array_equal(contents[0], contents[1])
    again = make_context(tmp_path / "elsewhere", shared_digest="another")
    np.testing.assert_array_equal(np.load(again.cached("step", {"a": 1}, build) / "x.npy"), contents[0])
    other = np.load(make_context(tmp_path).cached("step", {"a": 2}, build) / "x.npy")
    assert not np.array_equal(other, contents[0])


def test_build_seconds_are_charged_to_every_user_and_not_to_the_phase(tmp_path: Path) -> None:
    def inner(folder: Path) -> None:
        time.sleep(0.2)

    def build(folder: Path) -> None:
        ctx.cached("inner", {}, inner)
        time.sleep(0.1)

    tables = []
    for _ in range(2):
        ctx = make_context(tmp_path)
        with ctx.phase("fit"):
            ctx.cached("outer", {}, build)
        tables.append(ctx.timing_table())
        assert tables[-1]["fit"].wall_s < 0.1
    assert tables[0]["cached:inner"] == tables[1]["cached:inner"]
    assert tables[0]["cached:outer"] == tables[1]["cached:outer"]
    assert tables[0]["cached:inner"].wall_s == pytest.approx(0.2, abs=0.1)
    assert tables[0]["cached:outer"].wall_s == pytest.approx(0.1, abs=0.08)


def test_random_state_restores_torch_too() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with random_state(3):
        torch.rand(5)
    assert torch.equal(torch.rand(2), expected)


def _slow_build(root: Path, started: Any) -> None:
    def build(folder: Path) -> Built:
        (folder / "half").write_text("half")
        started.set()
        time.sleep(60)
        return Built({})

    Cache(root).get("step", {"a": 1}, build)


def test_an_interrupted_build_leaves_no_entry(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=_slow_build, args=(tmp_path, started))
    process.start()
    assert started.wait(30)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    def build(folder: Path) -> Built:
        assert list(folder.iterdir()) == []
        (folder / "whole").write_text("whole")
        return Built({})

    entry = Cache(tmp_path).get("step", {"a": 1}, build)
    assert not entry.hit
    assert [path.name for path in entry.path.iterdir()] == ["whole"]


def _counting_build(root: Path, log: Path) -> None:
    def build(folder: Path) -> Built:
        with log.open("a") as stream:
            stream.write("built\n")
        time.sleep(0.3)
        return Built({})

    Cache(root).get("step", {"a": 1}, build)


def test_concurrent_processes_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    processes = [context.Process(target=_counting_build, args=(tmp_path / "cache", log)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert log.read_text() == "built\n"


def test_a_damaged_entry_is_built_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    first = cache.get("step", {}, lambda folder: Built({}))
    (first.path.parent / "entry.json").write_text("{")
    assert not cache.get("step", {}, lambda folder: Built({})).hit


def stage(ctx: Any, what: str) -> Any:
    if what == "refuse":
        raise DataError("no such image")
    if what == "fail":
        raise ValueError("broken")
    if what == "die":
        os.kill(os.getpid(), 9)
    with ctx.phase("tune"):
        done = list(ctx.steps(10))
    kept = ctx.cached("step", {"a": 1}, lambda folder: (folder / "x").write_text(what))
    (ctx.workdir / "scratch").write_text("mine")
    return os.getpid(), done, (kept / "x").read_text(), SECRET


SECRET: list[str] = []


class TestApart:
    def test_a_stage_apart_shares_no_memory_and_no_cached_step(self, tmp_path: Path) -> None:
        ctx = make_context(tmp_path, max_steps=3)
        SECRET.append("seen before")
        try:
            ctx.cached("step", {"a": 1}, lambda folder: (folder / "x").write_text("of before"))
            pid, done, kept, secret = ctx.apart("later", stage, "of the stage")
        finally:
            SECRET.clear()
        assert pid != os.getpid()
        assert done == [0, 1, 2]
        assert kept == "of the stage"
        assert secret == []
        assert ctx.truncated
        assert "tune" in ctx.timings
        assert {charge.name for charge in ctx.charges.values()} == {"step"}

    def test_failures_are_told(self, tmp_path: Path) -> None:
        ctx = make_context(tmp_path)
        with pytest.raises(DataError, match="no such image"):
            ctx.apart("a", stage, "refuse")
        with pytest.raises(RuntimeError, match="ValueError: broken"):
            ctx.apart("b", stage, "fail")
        with pytest.raises(RuntimeError, match="killed by SIGKILL"):
            ctx.apart("c", stage, "die")


def test_kept_data_that_another_user_wrote_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref, readings = DataRef(name="a-set", version="1", hash="d" * 64), []

    def read() -> list[int]:
        readings.append(1)
        return [1, 2]

    def once() -> Any:
        return make_context(tmp_path, readers={"a-set": "r"}).read_once(ref, tmp_path, 0, read)

    assert once() == once() == [1, 2]
    assert len(readings) == 1
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert once() == [1, 2]
    assert len(readings) == 2
