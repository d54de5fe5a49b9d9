"""The suite from Python: what the command line can, as data frames."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import benchsuite
from benchsuite.core.result import Definition, MetricInfo
from benchsuite.harness.store import write_atomic

DEFINITION = Definition(
    title="T",
    seed_axes=["run"],
    metrics=[MetricInfo(name="accuracy", direction="max", unit="fraction", kind="quality")],
    rank_by="accuracy",
    reference="base",
)


@pytest.fixture
def folder(make_result: Any, tmp_path: Path) -> Path:
    """A folder of two rows, an older attempt, a failure, a validation run, a truncated one and given weights."""
    results = [
        make_result(method=m, label=m, seeds={"run": s}, scores={"accuracy": v + s * v / 50}, definition=DEFINITION)
        for m, v in (("new", 0.8), ("base", 0.5))
        for s in range(3)
    ]
    older = results[0].model_copy(update={"started": "2020-01-01T00:00:00+00:00"})
    odd = [
        make_result(method="new", label="new", seeds={"run": 7}, definition=DEFINITION, **changes)
        for changes in (
            {"split": "val"},
            {"max_steps": 3, "status": "truncated"},
            {"status": "failed", "scores": {}},
            {"weights": "a" * 64},
        )
    ]
    for i, result in enumerate([older, *results, *odd]):
        attempt = tmp_path / str(i) / ("attempt-1" if i else "attempt-0")
        attempt.mkdir(parents=True)
        write_atomic(attempt / "result.json", result.model_dump_json().encode())
    return tmp_path


def test_results_that_a_leaderboard_counts_and_all_of_them(folder: Path) -> None:
    counted = benchsuite.load_results(folder)
    assert sorted(zip(counted["label"], counted["seed_run"], counted["weights"].fillna(""), strict=True)) == [
        *(("base", s, "") for s in range(3)),
        *(("new", s, "") for s in range(3)),
        ("new", 7, "a" * 64),
    ]
    everything = benchsuite.load_results(folder, everything=True)
    assert len(everything) == 11
    assert set(everything["split"]) == {"test", "val"}
    assert set(everything["status"]) == {"ok", "failed", "truncated"}
    assert {"data_hash", "protocol", "settings", "attempt", "stale", "device"} <= set(everything)


def test_tables_and_claims_are_those_of_the_command_line(folder: Path) -> None:
    frame = benchsuite.leaderboard(folder)
    rows = frame.set_index("label")
    assert (rows.loc["base", "rank"], rows.loc["base", "rank_to"], rows.loc["base", "n"]) == (1, 2, 3)
    assert (rows.loc["new", "unranked"], rows.loc["new", "n"]) == ("incomplete", 3)
    assert rows.loc["base", "accuracy"] == pytest.approx(0.51)
    assert benchsuite.leaderboard(folder, task="another").empty
    assert set(benchsuite.claims(folder)["verdict"]) <= {"not run"}


@pytest.mark.parametrize("first", ["import benchsuite", "import benchsuite.leaderboard.build, benchsuite"])
def test_the_function_and_the_package_share_a_name(first: str, folder: Path) -> None:
    code = f"{first}; print(len(benchsuite.leaderboard({str(folder)!r}))); import benchsuite.leaderboard.tables"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 2
