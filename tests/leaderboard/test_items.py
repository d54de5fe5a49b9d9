"""Intervals over items: the fast bootstrap against a slow plain one, and when there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchsuite.core.result import Definition, MetricInfo
from benchsuite.core.task import Presentation, Ratio
from benchsuite.harness.store import StoredResult
from benchsuite.leaderboard import items
from benchsuite.leaderboard.cells import footnotes
from benchsuite.leaderboard.items import item_interval
from benchsuite.leaderboard.tables import build_tables

F1 = Ratio("records", "patient", {"tp": 2}, {"tp": 2, "fp": 1, "fn": 1})


def records(rng: np.random.Generator, clusters: int, quality: float, each: int = 2) -> list[dict[str, Any]]:
    found = []
    for i in range(clusters):
        for _ in range(each):
            tp = int(rng.binomial(30, quality))
            found.append({"patient": f"p{i:02d}", "tp": tp, "fn": 30 - tp, "fp": int(rng.poisson(2))})
    return found


@pytest.fixture
def rows(make_result: Any) -> Any:
    def build(clusters: int, seeds: int = 2, **qualities: float) -> dict[str, dict[int, list[Any]]]:
        rng = np.random.default_rng(clusters)
        return {
            name: {
                s: [make_result(method=name, seeds={"run": s}, tables={"records": records(rng, clusters, quality)})]
                for s in range(seeds)
            }
            for name, quality in qualities.items()
        }

    return build


def plain_f1(table: list[dict[str, Any]], drawn: list[str]) -> float:
    chosen = [row for patient in drawn for row in table if row["patient"] == patient]
    tp, fp, fn = (sum(row[name] for row in chosen) for name in ("tp", "fp", "fn"))
    return 2 * tp / (2 * tp + fp + fn)


def test_the_interval_is_that_of_a_plain_bootstrap(rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "DRAWS", 200)
    monkeypatch.setattr(items, "_BLOCK", 25 * 64)  # several blocks
    both = rows(25, new=0.9, base=0.85)
    found = item_interval(both["new"], both["base"], F1)
    assert found is not None
    patients = sorted({row["patient"] for row in both["new"][0][0].tables["records"]})
    counts = np.concatenate(items._draws(25))
    assert counts.shape == (200, 25)
    differences = []
    for weights in counts:
        drawn = [patient for patient, times in zip(patients, weights, strict=True) for _ in range(times)]
        seeds = [[plain_f1(both[name][s][0].tables["records"], drawn) for name in ("new", "base")] for s in (0, 1)]
        differences.append(np.mean([a - b for a, b in seeds]))
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(differences, [2.5, 97.5])))
    whole = [[plain_f1(both[name][s][0].tables["records"], patients) for name in ("new", "base")] for s in (0, 1)]
    assert found.difference == pytest.approx(np.mean([a - b for a, b in whole]))
    below = min(sum(d <= 0 for d in differences), sum(d >= 0 for d in differences))
    assert found.p_value == pytest.approx(min(1.0, 2 * (below + 1) / 201))
    assert (found.clusters, found.decides) == (25, True)


def test_the_same_results_give_the_same_interval(rows: Any) -> None:
    both = rows(30, new=0.9, base=0.9)
    assert item_interval(both["new"], both["base"], F1) == item_interval(both["new"], both["base"], F1)


def test_there_is_none_where_items_or_columns_differ(rows: Any, make_result: Any) -> None:
    both, other = rows(25, new=0.9, base=0.8), rows(24, base=0.8)
    assert item_interval(both["new"], other["base"], F1) is None
    assert item_interval(both["new"], {7: both["base"][0]}, F1) is None
    assert item_interval(both["new"], both["base"], Ratio("images", "patient", {"tp": 1}, {"tp": 1})) is None
    assert item_interval(both["new"], both["base"], Ratio("records", "patient", {"hits": 1}, {"tp": 1})) is None
    assert item_interval(rows(1, new=0.9)["new"], rows(1, new=0.8)["new"], F1) is None


@pytest.mark.parametrize(("clusters", "ranks"), [(25, ["1", "2"]), (19, ["1-2", "1-2"])])
def test_where_seeds_agree_items_decide_if_there_are_enough(make_result: Any, clusters: int, ranks: list[str]) -> None:
    rng = np.random.default_rng(0)
    metric = MetricInfo(name="f1", direction="max", unit="fraction", kind="quality")
    definition = Definition(title="T", seed_axes=["run"], metrics=[metric], rank_by="f1", reference="base")
    results = []
    for name, quality in (("new", 0.95), ("base", 0.7)):
        table = records(rng, clusters, quality)
        results += [
            make_result(method=name, label=name, seeds={"run": s}, definition=definition, scores={"f1": quality},
                        tables={"records": table})
            for s in range(3)
        ]  # fmt: skip
    stored = [StoredResult(r, Path(f"/{i}/attempt-1/result.json")) for i, r in enumerate(results)]
    shown = {"a-task": Presentation(items={"f1": F1})}
    (table,) = build_tables(stored, lambda result: None, shown, fixed={"a-set"})
    assert [row.rank_text for row in table.rows] == ranks
    (note,) = [note for note in footnotes(table) if " x patient" in note]
    assert f"new vs base over {clusters} x patient: +" in note
    assert ("fewer than 20: shown, and decides nothing" in note) == (clusters < 20)
    (drawn,) = build_tables(stored, lambda result: None, shown)  # items that each seed draws anew
    assert [row.rank_text for row in drawn.rows] == ["1-2", "1-2"]
    assert not any(" x patient" in note for note in footnotes(drawn))
