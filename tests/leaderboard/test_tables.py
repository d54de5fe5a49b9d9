from __future__ import annotations

import math
import random
import statistics
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from benchsuite.core import Constraint, Metric
from benchsuite.core.result import ConstraintInfo, Definition, Failure, MetricInfo, Timing
from benchsuite.harness.store import StoredResult
from benchsuite.leaderboard.cells import direction_text, footnotes, ranking_text
from benchsuite.leaderboard.render import render
from benchsuite.leaderboard.statistics import compare, estimate, holm, outer_means, rank_ranges
from benchsuite.leaderboard.tables import Table, build_tables, rows_by_environment

METRICS = [
    MetricInfo(name="accuracy", direction="max", unit="fraction", kind="quality"),
    MetricInfo(name="error", direction="min", unit="m", kind="quality"),
]


def definition(axes: list[str], rank_by: str = "error", constraint: ConstraintInfo | None = None) -> Definition:
    return Definition(
        title="A task", seed_axes=axes, metrics=METRICS, rank_by=rank_by, constraint=constraint, reference="base"
    )


def stored(*results: Any) -> list[StoredResult]:
    return [StoredResult(r, Path(f"/x/{i}/attempt-{i + 1}/result.json")) for i, r in enumerate(results)]


def tables(*results: Any, digest: str | None = "s" * 64) -> list[Table]:
    return build_tables(stored(*results), lambda result: digest)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_the_interval_is_students(values: list[float]) -> None:
    found = estimate(values)
    assert found is not None
    assert found.half_width is not None
    deviation = scipy.stats.sem(values)
    if deviation < 1e-12:
        assert found.half_width == pytest.approx(0.0, abs=1e-9)
        return
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, loc=sum(values) / len(values), scale=deviation)
    assert found.mean == pytest.approx((low + high) / 2, abs=1e-9)
    assert found.half_width == pytest.approx((high - low) / 2, rel=1e-9, abs=1e-9)


def test_one_value_has_no_interval_and_none_no_estimate() -> None:
    single = estimate([3.0])
    assert single is not None
    assert (single.mean, single.half_width, single.n) == (3.0, None, 1)
    assert estimate([]) is None


def test_a_row_has_the_label_of_its_newest_run(make_result: Any) -> None:
    labels = {"a-method[lr=0.1]": "2026-01-01T00:00:00+00:00", "a-method": "2026-01-02T00:00:00+00:00"}
    for order in (list(labels), list(labels)[::-1]):  # seeds give the order of fingerprints
        runs = [make_result(seeds={"run": i}, label=name, started=labels[name]) for i, name in enumerate(order)]
        ((row,),) = (table.rows for table in tables(*runs))
        assert (row.label, row.n) == ("a-method", 2)


def test_inner_axes_are_averaged_level_by_level() -> None:
    values = [
        ({"base": 0, "shots": 0}, 1.0),
        ({"base": 0, "shots": 1}, 3.0),
        ({"base": 1, "shots": 0}, 10.0),
    ]
    assert outer_means(values, ["base", "shots"]) == {0: 2.0, 1: 10.0}


def test_eight_shots_on_three_bases_have_n_three(make_result: Any) -> None:
    axes = definition(["base", "shots"])
    results = [
        make_result(seeds={"base": b, "shots": s}, definition=axes, scores={"accuracy": 0.1 * b, "error": float(s)})
        for b in range(3)
        for s in range(8)
    ]
    (table,) = tables(*results)
    (row,) = table.rows
    assert row.n == 3
    assert row.scores["error"].mean == pytest.approx(3.5)
    assert row.scores["error"].half_width == pytest.approx(0.0)


def noisy(make_result: Any, name: str, width: float = 0.01, n: int = 4, **scores: float) -> list[Any]:
    """Return results of n seeds around the given scores, every second one above, each row in its own way."""
    wave = random.Random(name)
    return [
        make_result(
            method=name,
            label=name,
            seeds={"run": s},
            scores={k: v + width * ((-1) ** s + 0.2 * wave.random()) for k, v in scores.items()},
        )
        for s in range(n)
    ]


def test_rows_are_ranked_under_the_constraint(make_result: Any) -> None:
    rule = definition(["run"], constraint=ConstraintInfo(metric="accuracy", relative_to="teacher", margin=0.08))
    rows = {"teacher": (0.90, 5.0), "fair": (0.83, 1.0), "constant": (0.50, 0.0), "plain": (0.88, 4.0)}
    results = [r for name, (a, e) in rows.items() for r in noisy(make_result, name, accuracy=a, error=e)]
    results = [r.model_copy(update={"definition": rule}) for r in results]
    (table,) = tables(*results)
    assert [(row.label, row.rank_text) for row in table.rows] == [
        ("fair", "1"),
        ("plain", "2"),
        ("teacher", "3"),
        ("constant", "-"),
    ]
    assert table.rows[-1].unranked == "accuracy below teacher - 0.08"


def test_without_the_row_that_the_constraint_names_nobody_is_ranked(make_result: Any) -> None:
    rule = definition(["run"], constraint=ConstraintInfo(metric="accuracy", relative_to="teacher", margin=0.08))
    results = [r for name in ("fair", "plain") for r in noisy(make_result, name, accuracy=0.9, error=1.0)]
    (table,) = tables(*(r.model_copy(update={"definition": rule}) for r in results))
    assert [row.rank_text for row in table.rows] == ["-", "-"]
    assert "- Not ranked (no row of teacher to hold its accuracy against: run it too): all rows." in footnotes(table)


@pytest.mark.parametrize(
    ("rule", "ranked", "problem"),
    [
        ({"at_least": 0.85}, ["plain", "teacher"], "accuracy is not at least 0.85"),
        ({"at_most": 0.85}, ["constant", "fair"], "accuracy is not at most 0.85"),
        ({"at_least": 0.8, "at_most": 0.89}, ["fair", "plain"], "accuracy is not at least 0.8 and at most 0.89"),
    ],
)
def test_a_constraint_may_be_absolute(make_result: Any, rule: Any, ranked: list[str], problem: str) -> None:
    limits = definition(["run"], constraint=ConstraintInfo(metric="accuracy", **rule))
    rows = {"teacher": 0.90, "fair": 0.83, "constant": 0.50, "plain": 0.88}
    results = [r for name, a in rows.items() for r in noisy(make_result, name, width=0.001, accuracy=a, error=1.0)]
    (table,) = tables(*(r.model_copy(update={"definition": limits}) for r in results))
    assert sorted(row.label for row in table.rows if row.rank) == ranked
    assert {row.unranked for row in table.rows} == {"", problem}
    for wrong in ({}, {"relative_to": "teacher", "at_least": 0.5}):
        with pytest.raises(ValueError, match="name relative_to, or at_least and at_most"):
            Constraint("accuracy", **wrong)


def test_a_constraint_on_a_metric_that_is_better_lower_is_an_upper_bound(make_result: Any) -> None:
    rule = ConstraintInfo(metric="error", relative_to="teacher", margin=0.5)
    limits = definition(["run"], rank_by="accuracy", constraint=rule)
    rows = {"teacher": 2.0, "near": 2.3, "far": 2.8}
    results = [r for name, e in rows.items() for r in noisy(make_result, name, accuracy=0.5, error=e)]
    (table,) = tables(*(r.model_copy(update={"definition": limits}) for r in results))
    assert {row.label: row.unranked for row in table.rows} == {
        "teacher": "", "near": "", "far": "error above teacher + 0.5",
    }  # fmt: skip
    assert "error is at most that of teacher + 0.5" in ranking_text(table)


def test_a_metric_may_have_a_target(make_result: Any) -> None:
    metric = MetricInfo(name="coverage", direction="target", target=0.9, unit="fraction", kind="quality")
    rule = Definition(title="T", seed_axes=["run"], metrics=[metric], rank_by="coverage", reference="base")
    rows = {"base": 0.80, "over": 0.97, "near": 0.91}
    results = [r for name, c in rows.items() for r in noisy(make_result, name, width=0.002, coverage=c)]
    (table,) = tables(*(r.model_copy(update={"definition": rule}) for r in results))
    assert [(row.label, row.rank_text) for row in table.rows] == [("near", "1"), ("over", "2"), ("base", "3")]
    assert direction_text(metric) == "nearer to 90 % is better"
    for wrong in ({"direction": "target"}, {"direction": "max", "target": 0.9}):
        with pytest.raises(ValueError, match="a target belongs to the direction 'target'"):
            Metric("coverage", **wrong)  # type: ignore[arg-type]


def test_where_the_first_metric_is_undefined_the_second_ranks(make_result: Any) -> None:
    rule = definition(["run"], rank_by="error").model_copy(update={"rank_otherwise": "accuracy"})
    rows = {"base": 0.5, "better": 0.7}
    known = [r for name, a in rows.items() for r in noisy(make_result, name, width=0.002, accuracy=a, error=a)]
    unknown = [r.model_copy(update={"scores": {**r.scores, "error": None}}) for r in known]
    for results, order, words in (
        (known, ["base", "better"], "ranked by error"),
        (unknown, ["better", "base"], "ranked by accuracy"),
        ([*known[: len(known) // 2], *unknown[len(known) // 2 :]], ["base", "better"], "ranked by error"),
    ):
        (table,) = tables(*(r.model_copy(update={"definition": rule}) for r in results))
        assert [row.label for row in table.rows] == order
        assert ranking_text(table).startswith(words)


def spread(make_result: Any, name: str, centre: float, width: float = 0.01, seeds: range = range(3)) -> list[Any]:
    return [
        make_result(
            method=name, label=name, seeds={"run": s}, scores={"accuracy": centre + (s % 3 - 1) * width, "error": 0.0}
        )
        for s in seeds
    ]


def ranks(*rows: dict[int, float], direction: str = "max", exact: bool = False) -> list[tuple[int, int]]:
    return rank_ranges(len(rows), direction, lambda i, j: compare(rows[i], rows[j], exact))


def seeded(*values: float, first: int = 0) -> dict[int, float]:
    return dict(enumerate(values, start=first))


def test_rows_far_apart_are_ranked_by_their_pairs_though_their_intervals_overlap() -> None:
    """What all seeds share is no doubt about an order."""
    common = [0.10, 0.50, 0.90, 0.30, 0.70]
    a, b, c = (seeded(*(v + shift + 0.001 * i for i, v in enumerate(common, start=k))) for k, shift in
               enumerate((0.06, 0.03, 0.0)))  # fmt: skip
    overlap = estimate(list(a.values())), estimate(list(c.values()))
    assert overlap[0] is not None
    assert overlap[1] is not None
    assert overlap[0].low < overlap[1].high
    jitter = {1: 0.002, 3: -0.001}
    b = {s: v + jitter.get(s, 0.0) for s, v in b.items()}
    c = {s: v - jitter.get(s, 0.001) for s, v in c.items()}
    assert ranks(a, b, c) == [(1, 1), (2, 2), (3, 3)]
    assert ranks(a, b, c, direction="min") == [(3, 3), (2, 2), (1, 1)]


def test_a_chain_of_which_only_the_ends_are_apart() -> None:
    a, b, c = seeded(3.0, 3.1, 2.9, 3.0), seeded(2.0, 3.1, 1.9, 2.6), seeded(1.0, 1.2, 0.9, 1.1)
    found = [compare(one, two) for one, two in ((a, b), (b, c), (a, c))]
    adjusted = holm([c.p_value for c in found if c is not None and c.p_value is not None])
    assert [p < 0.05 for p in adjusted] == [False, True, True]
    assert ranks(a, b, c) == [(1, 2), (1, 2), (3, 3)]
    b = seeded(1.0, 3.2, 1.1, 3.0)
    assert ranks(a, b, c) == [(1, 2), (1, 3), (2, 3)]


def test_ties_one_seed_and_seeds_that_agree_leave_every_rank_open() -> None:
    assert ranks(seeded(1.0, 2.0), seeded(1.0, 2.0)) == [(1, 2), (1, 2)]
    assert ranks(seeded(1.0), seeded(2.0)) == [(1, 2), (1, 2)]
    assert ranks(seeded(1.0, 1.0), seeded(2.0, 2.0)) == [(1, 2), (1, 2)]
    assert ranks(seeded(1.0, 1.0), seeded(2.0, 2.0), exact=True) == [(2, 2), (1, 1)]
    assert ranks(seeded(2.0, 2.0), seeded(2.0, 2.0), exact=True) == [(1, 2), (1, 2)]
    assert ranks(seeded(1.0)) == [(1, 1)]
    assert ranks() == []


def test_seeds_that_are_not_shared_are_compared_by_welchs_test() -> None:
    a, b = seeded(1.0, 1.1, 0.9, 1.05), seeded(2.0, 2.2, 2.1, first=10)
    assert ranks(a, b) == [(2, 2), (1, 1)]
    found = compare(a, b)
    assert found is not None
    interval = scipy.stats.ttest_ind(list(a.values()), list(b.values()), equal_var=False).confidence_interval(0.95)
    assert (found.difference - found.half_width, found.difference + found.half_width) == pytest.approx(tuple(interval))
    unequal = seeded(2.0, 2.1, 2.2, 1.9, 2.0, 2.05)  # of which four are shared
    paired = compare(a, unequal)
    assert paired is not None
    assert (paired.paired, paired.n) == (True, 4)


def test_a_difference_without_variance_has_no_p_value() -> None:
    found = compare(seeded(1.0, 1.0), seeded(2.0, 2.0))
    assert found is not None
    assert (found.p_value, found.holm, found.clear) == (None, None, False)
    exact = compare(seeded(1.0, 1.0), seeded(2.0, 2.0), exact=True)
    assert exact is not None
    assert (exact.p_value, exact.clear) == (None, True)


def test_more_pairs_need_clearer_differences() -> None:
    """A difference that excludes zero alone no longer does among ten rows that differ in nothing."""
    a, b = seeded(1.0, 1.3, 0.9, 1.1, 1.2), seeded(0.7, 1.2, 0.8, 0.7, 1.0)
    alone = compare(a, b)
    assert alone is not None
    assert alone.p_value is not None
    assert 0.01 < alone.p_value < 0.05
    assert ranks(a, b) == [(1, 1), (2, 2)]
    others = [seeded(*(0.95 + 0.3 * math.sin(7 * k + 3 * s) for s in range(5))) for k in range(8)]
    assert ranks(a, b, *others)[:2] == [(1, 10), (1, 10)]


def test_equal_scores_share_a_rank(make_result: Any) -> None:
    results = [make_result(method=m, label=m, scores={"accuracy": a, "error": 0.0}) for m, a in
               [("a", 0.5), ("b", 0.5), ("c", 0.4)]]  # fmt: skip
    (table,) = tables(*results)
    assert [(row.label, row.rank_text) for row in table.rows] == [("a", "1-3"), ("b", "1-3"), ("c", "1-3")]


def test_rows_are_compared_with_the_reference(make_result: Any) -> None:
    results = [*spread(make_result, "base", 0.5), *spread(make_result, "a", 0.6, 0.02), *spread(make_result, "b", 0.5)]
    (table,) = tables(*results)
    rows = {row.label: row for row in table.rows}
    assert rows["base"].comparison is None
    paired = scipy.stats.ttest_rel([0.58, 0.60, 0.62], [0.49, 0.50, 0.51])
    assert rows["a"].comparison.p_value == pytest.approx(paired.pvalue)
    assert rows["a"].comparison.holm == pytest.approx(2 * paired.pvalue)
    assert (rows["b"].comparison.p_value, rows["b"].comparison.effect_size) == (1.0, None)
    (table,) = tables(*spread(make_result, "base", 0.5), *spread(make_result, "a", 0.6, seeds=range(3, 7)))
    comparison = next(row for row in table.rows if row.label == "a").comparison
    assert comparison.paired is False
    (table,) = tables(make_result(method="base", label="base"), make_result(method="a", label="a"))
    assert all(row.comparison is None for row in table.rows)


VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=12)


@given(VALUES, st.integers(0, 2**31))
def test_the_paired_test_is_scipys(values: list[float], seed: int) -> None:
    rng = random.Random(seed)
    other = [value + rng.gauss(0.1, 1.0) for value in values]
    found = compare(dict(enumerate(values)), dict(enumerate(other)))
    expected = scipy.stats.ttest_rel(values, other)
    assert found is not None
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)


@given(VALUES, st.integers(0, 2**31), st.integers(2, 9))
def test_the_unpaired_test_is_welchs(values: list[float], seed: int, size: int) -> None:
    rng = random.Random(seed)
    other = [rng.gauss(0.0, 5.0) for _ in range(size)]
    found = compare(dict(enumerate(values)), {100 + i: value for i, value in enumerate(other)})
    expected = scipy.stats.ttest_ind(values, other, equal_var=False)
    assert found is not None
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert found.effect_size == pytest.approx(
        (sum(values) / len(values) - sum(other) / size)
        / math.sqrt((statistics.variance(values) + statistics.variance(other)) / 2)
    )


@settings(max_examples=20)  # of statsmodels: a tenth of a second each
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holms_correction_is_statsmodels(p_values: list[float]) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    assert holm(p_values) == pytest.approx(list(multitest.multipletests(p_values, method="holm")[1]))


def test_a_row_with_a_failed_seed_says_so_and_is_not_ranked(make_result: Any) -> None:
    failed = make_result(seeds={"run": 1}, status="failed", scores={}, error=Failure(message="Boom: <b>"))
    (table,) = tables(make_result(), failed)
    (row,) = table.rows
    assert (row.n, len(row.not_finished), row.rank) == (1, 1, None)
    text = render([table], [], [])["a-task.md"].decode()
    assert "1 (1 not finished)" in text
    assert "run 1 failed: Boom: &lt;b&gt;" in text


def test_a_later_failure_does_not_hide_an_earlier_success(make_result: Any) -> None:
    failed = make_result(status="failed", scores={}, started="2027-01-01", error=Failure(message="Boom"))
    (table,) = tables(make_result(), failed)
    assert table.rows[0].not_finished == []


def test_the_newest_attempt_of_a_method_that_varies_counts(make_result: Any) -> None:
    old = make_result(deterministic=False, scores={"accuracy": 0.1, "error": 1.0})
    new = make_result(deterministic=False, scores={"accuracy": 0.2, "error": 1.0}, started="2027-01-01T00:00:00+00:00")
    for order in ((old, new), (new, old)):
        (table,) = tables(*order)
        assert table.rows[0].scores["accuracy"].mean == 0.2


def test_code_that_changed_makes_a_row_stale_and_is_never_averaged_with_the_present(make_result: Any) -> None:
    old = [make_result(seeds={"run": s}, source_digest="o" * 64) for s in range(3)]
    (table,) = tables(*old)
    assert (table.rows[0].stale, table.rows[0].rank, table.rows[0].n) == (True, None, 3)
    (table,) = tables(*old, make_result(seeds={"run": 0}))
    assert (table.rows[0].stale, table.rows[0].n) == (False, 1)
    (table,) = tables(*old, digest=None)
    assert table.rows[0].stale is False


def test_results_that_disagree_are_reported_and_none_counts(make_result: Any) -> None:
    one, two = (make_result(scores={"accuracy": a, "error": 1.0}) for a in (0.5, 0.6))
    (table,) = tables(one, two, make_result(seeds={"run": 1}))
    (row,) = table.rows
    assert (row.n, row.unranked, len(row.conflicting)) == (1, "conflicting results", 1)
    text = render([table], [], [])["a-task.md"].decode()
    assert "1 (1 in conflict)" in text
    assert f"fingerprint {one.fingerprint[:16]} and the same code disagree" in text
    noisy = [make_result(deterministic=False, scores={"accuracy": a, "error": 1.0}) for a in (0.5, 0.6)]
    (table,) = tables(*noisy)
    assert table.rows[0].conflicting == []


def test_undefined_scores_keep_their_reason_and_are_not_averaged(make_result: Any) -> None:
    results = [
        make_result(seeds={"run": 0}),
        make_result(seeds={"run": 1}, scores={"accuracy": None, "error": 1.0}, undefined={"accuracy": "no node"}),
    ]
    (table,) = tables(*results)
    assert table.rows[0].scores["accuracy"] is None
    assert "accuracy undefined: no node (1 of 2 runs)" in render([table], [], [])["a-task.md"].decode()


def test_costs_are_compared_only_inside_one_environment(make_result: Any) -> None:
    timing = {"fit": Timing(wall_s=1.0, cpu_s=2.0)}
    same = [make_result(seeds={"run": s}, timings=timing, environment={"cpu": "x"}) for s in range(2)]
    (table,) = tables(*same)
    assert table.rows[0].costs["fit_seconds"].mean == 2.0
    other = make_result(seeds={"run": 1}, timings=timing, environment={"cpu": "y"})
    (table,) = tables(same[0], other)
    assert table.rows[0].costs["fit_seconds"] is None


def test_rows_from_another_environment_are_told_and_rows_that_need_other_libraries_are_not(make_result: Any) -> None:
    def row(name: str, cpu: str, **libraries: str) -> Any:
        timing = {"fit": Timing(wall_s=1.0, cpu_s=2.0)}
        return make_result(method=name, timings=timing, environment={"cpu": cpu, "libraries": libraries})

    rows = [row("a", "x", torch="2"), row("b", "x", wfdb="4"), row("c", "y", torch="2"), row("d", "x", torch="1")]
    (table,) = tables(*rows, make_result(method="e", environment={"cpu": "x", "libraries": "hostile"}))
    groups = [{table.rows[i].label for i in members} for members in rows_by_environment(table)]
    assert groups[0] == {"a", "b", "e"}
    assert sorted(map(sorted, groups[1:])) == [["c"], ["d"]]
    notes = footnotes(table)
    assert "- Costs of c: from another environment than those of most rows, not comparable." in notes


def test_devices_protocols_and_data_are_never_mixed(make_result: Any) -> None:
    assert len(tables(make_result(), make_result(protocol={"shots": 5}))) == 2
    (table,) = tables(make_result(), make_result(device="cuda"))
    assert len(table.rows) == 2


def test_the_files_do_not_depend_on_the_order_of_results(make_result: Any) -> None:
    results = [
        make_result(
            method=m, label=m, seeds={"run": s}, scores={"accuracy": random.Random(m + str(s)).random(), "error": 1.0}
        )
        for m in ("a", "b", "c")
        for s in range(4)
    ]
    first = render(tables(*results), [], [])
    shuffled = results[:]
    random.Random(1).shuffle(shuffled)
    assert render(tables(*shuffled), [], []) == first
    assert set(first) == {
        "README.md",
        "a-task.md",
        "a-task.csv",
        "a-task.json",
        "claims.md",
        "seeds.json",
        "claims.json",
    }


def test_a_hostile_label_is_text(make_result: Any) -> None:
    label = "<script>alert(1)</script>|=cmd()"
    files = render(tables(make_result(label=label), make_result(label="=1+1", method="m")), [], [])
    assert b"<script>" not in files["a-task.md"]
    assert b"'=1+1" in files["a-task.csv"]


def test_an_interval_of_two_is_wide_and_finite() -> None:
    found = estimate([0.0, 1.0])
    assert found is not None
    assert found.half_width is not None
    assert math.isclose(found.half_width, 12.706204736432095 * math.sqrt(0.5) / math.sqrt(2))
