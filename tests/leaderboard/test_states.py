"""Two states of results: better, worse, failed, missing, new, and what changed behind them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchsuite.harness.store import StoredResult, write_atomic
from benchsuite.leaderboard.states import compare_states


@pytest.fixture
def state(make_result: Any) -> Any:
    def build(**rows: list[float]) -> list[StoredResult]:
        results = [
            make_result(method=name, label=name, seeds={"run": s}, scores={"accuracy": v, "error": v})
            for name, values in rows.items()
            for s, v in enumerate(values)
        ]
        return [StoredResult(r, Path(f"/{i}/attempt-1/result.json")) for i, r in enumerate(results)]

    return build


SPREAD = [0.50, 0.61, 0.55, 0.58]


def shifted(by: float) -> list[float]:
    return [v + by * (1 + 0.1 * s) for s, v in enumerate(SPREAD)]


def test_rows_are_told_apart_in_pairs(state: Any) -> None:
    before = state(same=SPREAD, better=SPREAD, worse=SPREAD, wild=SPREAD, single=[0.5], gone=SPREAD)
    after = state(
        same=SPREAD, better=shifted(0.1), worse=shifted(-0.1), wild=[0.6, 0.5, 0.6, 0.5], single=[0.4], fresh=SPREAD
    )
    found = {change.label: change for change in compare_states(before, after)}
    assert {label: change.change for label, change in found.items()} == {
        "same": "same",
        "better": "better",
        "worse": "worse",
        "wild": "not told apart",
        "single": "one seed",
        "gone": "missing",
        "fresh": "new",
    }
    assert [label for label, change in found.items() if change.regression] == ["worse"]
    assert found["worse"].comparison is not None
    assert found["worse"].comparison.difference == pytest.approx(-0.115)
    assert (found["gone"].before, found["gone"].after) == (pytest.approx(0.56), None)


def test_many_rows_are_corrected_together(state: Any) -> None:
    slightly = [v + d for v, d in zip(SPREAD, (-0.02, -0.05, -0.04, -0.06), strict=True)]
    alone = compare_states(state(a=SPREAD), state(a=slightly))
    assert alone[0].change == "worse"
    others = {f"r{i}": SPREAD for i in range(9)}
    wild = {f"r{i}": [0.6, 0.5, 0.6, 0.5] for i in range(9)}
    assert compare_states(state(a=SPREAD, **others), state(a=slightly, **wild))[0].change == "not told apart"


def test_code_data_and_failures(state: Any) -> None:
    before = state(a=SPREAD, b=SPREAD)
    after = [
        StoredResult(
            item.result.model_copy(
                update={"source_digest": "t" * 64}
                | ({"status": "failed", "scores": {}} if item.result.label == "b" else {})
            ),
            item.path,
        )
        for item in state(a=SPREAD, b=SPREAD)
    ]
    changes = compare_states(before, after)
    assert [(c.label, c.change, c.other_code) for c in changes] == [("a", "same", True), ("b", "failed", True)]
    assert changes[1].regression


def test_the_command_says_by_its_exit_code_whether_a_row_became_worse(state: Any, tmp_path: Path, cli: Any) -> None:
    for name, values in (("before", SPREAD), ("after", shifted(-0.1))):
        for item in state(a=values):
            folder = tmp_path / name / str(item.result.run.seeds["run"]) / "attempt-1"
            folder.mkdir(parents=True)
            write_atomic(folder / "result.json", item.result.model_dump_json().encode())
    worse = cli("results", "compare", "before", "after", "--json")
    assert worse.code == 1
    assert [(row["label"], row["change"]) for row in json.loads(worse.out)] == [("a", "worse")]
    assert cli("results", "compare", "after", "before").code == 0
    wrong = cli("results", "compare", "before", "nowhere")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
