"""Seeds planned from pilots: equal to statsmodels, and taken from nothing but the pilot's spread."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchsuite.core.claim import Claim
from benchsuite.core.result import Definition, MetricInfo, Timing
from benchsuite.harness.publish import is_pilot, publish_pilots
from benchsuite.harness.store import StoredResult, find_result_files, read_results
from benchsuite.leaderboard.render import plan_cells
from benchsuite.leaderboard.seed_plan import plan_seeds, seeds_needed

METRICS = [
    MetricInfo(name="accuracy", direction="max", unit="fraction", kind="quality"),
    MetricInfo(name="error", direction="min", unit="m", kind="quality"),
]
DEFINITION = Definition(title="T", seed_axes=["run"], metrics=METRICS, rank_by="accuracy", reference="base")


def claim(form: Any = "superiority", **changes: Any) -> Claim:
    values = {"metric": "accuracy", "method": "new", "against": "base", "smallest_effect": 0.02, "family": "paper"}
    return Claim("c", "a claim", form, "a-task", **(values | changes))


@pytest.fixture
def pilot(make_result: Any) -> Any:
    def build(
        new: list[float], base: list[float], error: float = 1.0, inner: dict[str, int] | None = None, **changes: Any
    ) -> list[StoredResult]:
        values: dict[str, Any] = {"split": "val", "definition": DEFINITION, "wall_s": 30.0}
        results = [
            make_result(
                method=name,
                label=name,
                seeds={"run": 100 + s} | (inner or {}),
                scores={"accuracy": v, "error": error + s * 0.1 * (name == "new")},
                **(values | changes),
            )
            for name, scores in (("new", new), ("base", base))
            for s, v in enumerate(scores)
        ]
        return [StoredResult(r, Path(f"/{i}/attempt-1/result.json")) for i, r in enumerate(results)]

    return build


@settings(max_examples=15, deadline=None)
@given(st.floats(0.3, 1.5), st.sampled_from([0.05, 0.0125, 0.005]))
def test_seeds_are_those_of_statsmodels(effect: float, level: float) -> None:
    power = pytest.importorskip("statsmodels.stats.power").TTestPower()
    needed = seeds_needed(1.0, effect, level)
    assert power.power(effect, needed, level) >= 0.8 - 1e-6
    assert needed == 2 or power.power(effect, needed - 1, level) < 0.8 + 1e-6


def test_no_spread_needs_two_seeds_and_much_of_it_many() -> None:
    assert seeds_needed(0.0, 0.1, 0.05) == 2
    assert seeds_needed(100.0, 0.01, 0.05) >= 10_000
    assert seeds_needed(1.0, 1.0, 0.05, both_sides=True) > seeds_needed(1.0, 1.0, 0.05)


def test_a_plan_takes_spread_and_time_and_never_the_mean(pilot: Any) -> None:
    new, base = [0.80, 0.84, 0.83, 0.79], [0.78, 0.80, 0.82, 0.77]
    (plan,) = plan_seeds([claim()], pilot(new, base))
    spread = statistics.stdev(a - b for a, b in zip(new, base, strict=True))
    assert (plan.pilot, plan.spread, plan.level) == (4, pytest.approx(spread), 0.05)
    assert plan.seeds == seeds_needed(spread, 0.02, 0.05)
    assert plan.minutes == pytest.approx(plan.seeds * 60 / 60 / 2)
    assert plan.decidable
    (worse,) = plan_seeds([claim()], pilot([v - 0.5 for v in new], base))
    assert worse.seeds == plan.seeds
    (wider,) = plan_seeds([claim(smallest_effect=0.01)], pilot(new, base))
    assert wider.seeds is not None
    assert wider.seeds > plan.seeds
    both = plan_seeds([claim(), claim(family="another")], pilot(new, base))
    assert [p.level for p in both] == [0.05, 0.05]
    both = plan_seeds([claim(), claim()], pilot(new, base))
    assert [p.level for p in both] == [0.025, 0.025]


def test_minutes_count_a_shared_stage_once_a_seed(pilot: Any) -> None:
    new, base = [0.80, 0.84, 0.83, 0.79], [0.78, 0.80, 0.82, 0.77]
    timings = {"fit": Timing(wall_s=30.0, cpu_s=10.0), "cached:base": Timing(wall_s=300.0, cpu_s=100.0, shared=True)}
    (plan,) = plan_seeds([claim()], pilot(new, base, timings=timings))
    assert plan.seeds is not None
    assert plan.minutes == pytest.approx(plan.seeds * (10 + 10 + 100) / 60 / 2)


def test_a_pilot_pairs_only_what_has_the_same_inner_seeds(pilot: Any) -> None:
    nested = Definition(title="T", seed_axes=["run", "fold"], metrics=METRICS, rank_by="accuracy", reference="base")

    def runs(fold: int, new: list[float], base: list[float]) -> list[StoredResult]:
        return list(pilot(new, base, inner={"fold": fold}, definition=nested))

    whole = [*runs(0, [0.8, 0.84, 0.83], [0.78, 0.8, 0.82]), *runs(1, [0.5, 0.52, 0.53], [0.48, 0.52, 0.5])]
    (plan,) = plan_seeds([claim()], whole)
    assert plan.pilot == 3
    (partly,) = plan_seeds([claim()], [item for i, item in enumerate(whole) if i != len(whole) - 1])
    assert partly.pilot == 2


def test_what_a_form_is_planned_for(pilot: Any) -> None:
    results = pilot([0.80, 0.84, 0.83, 0.79], [0.78, 0.80, 0.82, 0.77])
    plans = [plan_seeds([c], results)[0] for c in (
        claim("non-inferiority", margin=0.05, smallest_effect=0.0),
        claim("equivalence", margin=0.05, smallest_effect=0.0),
        claim("bound", against="", margin=0.7),
        claim("cost", cost_metric="error", cost_at_most=0.05),
        claim(smallest_effect=0.0),
    )]  # fmt: skip
    assert [p.distance for p in plans] == [0.05, 0.05, 0.02, 0.05, 0.0]
    assert plans[2].spread == pytest.approx(statistics.stdev([0.80, 0.84, 0.83, 0.79]))
    assert plans[3].metric is not None
    assert plans[3].metric.name == "error"  # the side that needs more seeds
    assert plans[4].why == "names no smallest effect"
    assert not plans[4].decidable


def test_a_claim_that_an_hour_does_not_decide_says_so(pilot: Any) -> None:
    results = pilot([0.80, 0.84, 0.83, 0.79], [0.78, 0.80, 0.82, 0.77], wall_s=3000.0)
    (plan,) = plan_seeds([claim()], results)
    assert not plan.decidable
    assert plan_cells(plan)[-1] == "not to be decided within 60 minutes"
    assert plan_cells(plan)[2:4] == ["2 points", f"{100 * (plan.spread or 0):.3g} (4)"]


def test_only_validation_runs_with_seeds_from_100_are_a_pilot(pilot: Any, make_result: Any) -> None:
    assert all(is_pilot(item.result) for item in pilot([0.8, 0.9], [0.7, 0.7]))
    assert not any(is_pilot(item.result) for item in pilot([0.8, 0.9], [0.7, 0.7], split="test"))
    assert not any(is_pilot(item.result) for item in pilot([0.8, 0.9], [0.7, 0.7], max_steps=3))
    low = make_result(split="val", seeds={"run": 99}, definition=DEFINITION)
    assert not is_pilot(low)
    for few in (pilot([0.8], [0.7]), pilot([0.8, 0.9], [0.7, 0.7], split="test")):
        (plan,) = plan_seeds([claim()], few)
        assert (plan.seeds, plan.why) in ((None, "a pilot of one seed"), (None, "no pilot"))


def test_published_pilots_give_the_same_plan(pilot: Any, tmp_path: Path) -> None:
    results = pilot([0.80, 0.84, 0.83, 0.79], [0.78, 0.80, 0.82, 0.77])
    shown = pilot([0.1], [0.2], split="test")
    assert len(publish_pilots([*results, *shown], tmp_path)) == 8
    published, problems = read_results(find_result_files([tmp_path]))
    assert problems == []
    assert plan_seeds([claim()], published) == plan_seeds([claim()], results)
