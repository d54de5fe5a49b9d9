"""How long a leaderboard of many results takes, and how its memory grows.

Run with ``pytest benchmarks/bench_leaderboard.py``. The peer in the same run is a plain ``json.loads`` of the
same files: what any reader of these results has to pay at least.
"""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from benchsuite.core.registry import get_registry
from benchsuite.core.result import DataRef, Definition, MetricInfo, Result, RunSpec, Timing
from benchsuite.leaderboard.build import build


def write_results(root: Path, count: int) -> None:
    """Write ``count`` results: 10 tasks, 100 seeds a row."""
    metrics = [
        MetricInfo(name=name, direction="max", unit="fraction", kind="quality", doc="a metric of this task")
        for name in ("accuracy", "f1", "auroc", "parity", "opportunity")
    ]
    for index in range(count):
        seed, row, task = index % 100, index // 100 % 10, index // 1000
        definition = Definition(title="A task", seed_axes=["run"], metrics=metrics, rank_by="f1", reference="m0")
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
        result = Result(
            run=run,
            fingerprint=run.fingerprint,
            source_digest="s" * 64,
            status="ok",
            label=run.method,
            role="method",
            definition=definition,
            scores={metric.name: (seed + row) / 200 for metric in metrics},
            timings={"fit": Timing(wall_s=1.0, cpu_s=1.0)},
            peak_memory_mb=100.0,
            started="2026-01-01T00:00:00+00:00",
            wall_s=1.0,
            environment={"python": "3.11", "cpu": "x", "libraries": {"numpy": "2"}},
        )
        folder = root / run.task / run.method / run.fingerprint[:16] / "attempt-1"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(result.model_dump_json(indent=1))


@pytest.fixture(scope="module")
def ten_thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    write_results(root, 10_000)
    return root


@pytest.mark.benchmark(group="10,000 results")
def test_build(benchmark: Any, ten_thousand: Path) -> None:
    board = benchmark.pedantic(build, ([ten_thousand], get_registry()), rounds=3)
    assert len(board.tables) == 10


@pytest.mark.benchmark(group="10,000 results")
def test_peer_plain_json(benchmark: Any, ten_thousand: Path) -> None:
    def read() -> int:
        return len([json.loads(path.read_bytes()) for path in ten_thousand.rglob("result.json")])

    assert benchmark.pedantic(read, rounds=3) == 10_000


def test_memory_grows_linearly(tmp_path: Path) -> None:
    peaks = []
    for count in (1000, 2000, 4000):
        root = tmp_path / str(count)
        write_results(root, count)
        tracemalloc.start()
        build([root], get_registry())
        peaks.append(tracemalloc.get_traced_memory()[1] / count)
        tracemalloc.stop()
    print("peak bytes a result:", [round(peak) for peak in peaks])
    assert max(peaks) < 1.5 * min(peaks)
