"""How long the site of a large leaderboard takes, and how large its pages are.

Run with ``pytest benchmarks/bench_site.py``: 15 tasks with 15 methods and 10 seeds each, five metrics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchsuite.core.registry import get_registry
from benchsuite.core.result import DataRef, Definition, MetricInfo, Result, RunSpec, Timing
from benchsuite.harness.store import StoredResult
from benchsuite.leaderboard.build import Leaderboard, build_from
from benchsuite.leaderboard.site import build_site

TASKS, METHODS, SEEDS = 15, 15, 10
LARGEST_PAGE = 3_000_000
SECONDS = 20.0


def make_result(task: int, row: int, seed: int) -> Result:
    """Return a result whose scores depend on the row, with a little noise from the seed."""
    names = ("accuracy", "f1", "auroc", "parity", "opportunity")
    metrics = [MetricInfo(name=name, direction="max", unit="fraction", kind="quality", doc="one") for name in names]
    run = RunSpec(
        task=f"task-{task}",
        task_version="1",
        protocol={"shots": 5},
        data={role: DataRef(name="set", version="1", hash="d" * 64) for role in ("train", "test")},
        method=f"m{row}",
        method_version="1",
        preset="embedded",
        config={"lr": 0.1, "steps": 100},
        seeds={"run": seed},
    )
    return Result(
        run=run,
        fingerprint=run.fingerprint,
        source_digest="5" * 64,
        status="ok",
        label=run.method,
        role="method",
        definition=Definition(title="A task", seed_axes=["run"], metrics=metrics, rank_by="f1", reference="m0"),
        scores={name: 0.4 + row / 40 + (seed * 7 + i * 3) % 10 / 200 for i, name in enumerate(names)},
        timings={"fit": Timing(wall_s=1.0, cpu_s=2.0**row + seed)},
        parameters=1000 * (row + 1),
        peak_memory_mb=100.0 + row,
        started="2026-01-01T00:00:00+00:00",
        wall_s=1.0,
        environment={"python": "3.11", "cpu": "x", "libraries": {"numpy": "2"}, "commit": "c" * 40},
    )


@pytest.fixture(scope="module")
def board() -> Leaderboard:
    keys = [(task, row, seed) for task in range(TASKS) for row in range(METHODS) for seed in range(SEEDS)]
    stored = [StoredResult(make_result(*key), Path(f"/x/{i}/attempt-1/result.json")) for i, key in enumerate(keys)]
    return build_from(stored, [], get_registry())


@pytest.mark.benchmark(group="site of 15 tasks, 15 methods, 10 seeds")
def test_build_site(benchmark: Any, board: Leaderboard) -> None:
    files = benchmark.pedantic(build_site, (board, get_registry()), rounds=3)
    sizes = {name: len(content) for name, content in files.items() if name.endswith(".html")}
    print("largest page:", max(sizes.values()), "bytes; all files:", sum(map(len, files.values())))
    assert max(sizes.values()) < LARGEST_PAGE
    assert benchmark.stats["max"] < SECONDS
