from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from benchsuite.core.claim import Claim, parse_claims, parse_reported
from benchsuite.core.errors import ConfigError
from benchsuite.core.result import DataRef
from benchsuite.core.task import Presentation
from benchsuite.harness.store import StoredResult
from benchsuite.leaderboard.claims import judge, usable
from benchsuite.leaderboard.statistics import estimate, holm
from benchsuite.leaderboard.tables import build_tables

NOISE = (0.000, 0.001, -0.001)


def tables(make_result: Any, **methods: dict[str, float]) -> Any:
    results = [
        make_result(method=name, label=name, seeds={"run": s}, scores={k: v + NOISE[s] * (name == "new") for k, v in
                    scores.items()})
        for name, scores in methods.items()
        for s in range(3)
    ]  # fmt: skip
    stored = [StoredResult(r, Path(f"/{i}/attempt-1/result.json")) for i, r in enumerate(results)]
    return build_tables(stored, lambda result: "s" * 64)


def claim(form: Any = "superiority", **changes: Any) -> Claim:
    values: dict[str, Any] = {"metric": "accuracy", "method": "new", "against": "base"}
    return Claim("c", "a claim", form, "a-task", **(values | changes))


@pytest.mark.parametrize(
    ("changes", "new", "base", "verdict"),
    [
        ({}, 0.8, 0.7, "holds on a-set"),
        ({}, 0.7, 0.8, "does not hold on a-set"),
        ({}, 0.7, 0.7, "inconclusive on a-set"),
        ({"margin": 0.2}, 0.8, 0.7, "does not hold on a-set"),
        ({"higher": False}, 0.7, 0.8, "holds on a-set"),
        ({"form": "non-inferiority", "margin": 0.05}, 0.68, 0.7, "holds on a-set"),
        ({"form": "non-inferiority", "margin": 0.05}, 0.6, 0.7, "does not hold on a-set"),
        ({"form": "equivalence", "margin": 0.05}, 0.71, 0.7, "holds on a-set"),
        ({"form": "equivalence", "margin": 0.05}, 0.8, 0.7, "does not hold on a-set"),
        ({"form": "equivalence", "margin": 0.001}, 0.7, 0.7, "inconclusive on a-set"),
        ({"form": "bound", "against": "", "margin": 0.75}, 0.8, 0.7, "holds on a-set"),
        ({"form": "bound", "against": "", "margin": 0.75, "higher": False}, 0.7, 0.7, "holds on a-set"),
        ({"form": "bound", "against": "", "margin": 0.75, "higher": False}, 0.8, 0.7, "does not hold on a-set"),
    ],
)
def test_verdicts(make_result: Any, changes: Any, new: float, base: float, verdict: str) -> None:
    found = tables(make_result, new={"accuracy": new, "error": 1.0}, base={"accuracy": base, "error": 1.0})
    (judged,) = judge([claim(**changes)], found)
    assert judged.verdict == verdict


@pytest.mark.parametrize(
    ("accuracy", "error", "verdict"),
    [(0.70, 0.5, "holds"), (0.60, 0.5, "does not hold"), (0.70, 1.5, "does not hold")],
)
def test_a_gain_at_a_cost(make_result: Any, accuracy: float, error: float, verdict: str) -> None:
    found = tables(make_result, new={"accuracy": accuracy, "error": error}, base={"accuracy": 0.75, "error": 1.0})
    cost = claim("cost", metric="error", higher=False, cost_metric="accuracy", cost_at_most=0.08)
    (judged,) = judge([cost], found)
    assert judged.verdict == f"{verdict} on a-set"


def test_the_papers_own_data_and_preset_give_the_strong_words(make_result: Any) -> None:
    results = [
        make_result(
            method=m,
            label=m,
            preset="paper",
            seeds={"run": s},
            scores={"accuracy": a + NOISE[s] * (m == "new"), "error": 1.0},
        )
        for m, a in (("new", 0.8), ("base", 0.7))
        for s in range(3)
    ]
    stored = [StoredResult(r, Path(f"/{i}/attempt-1/result.json")) for i, r in enumerate(results)]
    found = build_tables(stored, lambda result: None)
    (judged,) = judge([claim(paper_data=("a-set",))], found)
    assert judged.verdict == "reproduced"
    assert judged.command == (
        "benchsuite run --task a-task --dataset a-set --method new --method base --preset paper --seeds 3"
    )


def test_the_command_repeats_the_protocol_and_the_seeds(make_result: Any) -> None:
    results = [
        make_result(method=m, label=m, seeds={"run": s}, protocol_changes={"shots": [1, 5]})
        for m in ("new", "base")
        for s in (3, 7)
    ]
    stored = [StoredResult(r, Path(f"/{i}/attempt-1/result.json")) for i, r in enumerate(results)]
    (judged,) = judge([claim()], build_tables(stored, lambda result: None))
    assert judged.command.endswith("--method new --method base --set task.shots=1,5 --seeds 3,7")


def test_data_of_a_further_role_are_in_the_command_and_in_the_name_of_the_table(make_result: Any) -> None:
    data = {role: DataRef(name=role[0], version="1", hash="d" * 64) for role in ("train", "test", "noise")}
    results = [make_result(method=m, label=m, seeds={"run": s}, data=data) for m in ("new", "base") for s in (0, 1)]
    stored = [StoredResult(r, Path(f"/{i}/attempt-1/result.json")) for i, r in enumerate(results)]
    (table,) = build_tables(stored, lambda result: None)
    assert table.data_name == "t + n"
    (judged,) = judge([claim()], [table])
    assert "--dataset train=t,test=t,noise=n --method" in judged.command


def test_one_seed_decides_nothing_and_no_result_is_not_run(make_result: Any) -> None:
    results = [make_result(method=m, label=m) for m in ("new", "base")]
    stored = [StoredResult(r, Path(f"/{i}/attempt-1/result.json")) for i, r in enumerate(results)]
    (judged,) = judge([claim()], build_tables(stored, lambda result: None))
    assert judged.verdict == "inconclusive on a-set"
    (judged,) = judge([claim(method="absent")], build_tables(stored, lambda result: None))
    assert judged.verdict == "not run"
    (judged,) = judge([claim(protocol={"shots": 5})], build_tables(stored, lambda result: None))
    assert (judged.verdict, judged.command) == (
        "not run",
        "benchsuite run --task a-task --method new --set task.shots=5",
    )


def test_a_claim_is_judged_on_its_data_only(make_result: Any) -> None:
    found = tables(make_result, new={"accuracy": 0.8, "error": 1.0}, base={"accuracy": 0.7, "error": 1.0})
    (named,) = judge([claim(data=("another", "a-set"))], found)
    assert named.verdict == "holds on a-set"
    (judged,) = judge([claim(data=("another",))], found)
    assert (judged.verdict, judged.command) == (
        "not run",
        "benchsuite run --task a-task --dataset another --method new",
    )


def judged_with(make_result: Any, claims: list[Claim], exact: tuple[str, ...] = (), **rows: list[float]) -> Any:
    """Judge claims on rows of a method's accuracy by seed."""
    results = [
        make_result(method=name, label=name, seeds={"run": s}, scores={"accuracy": v, "error": 1.0})
        for name, values in rows.items()
        for s, v in enumerate(values)
    ]
    stored = [StoredResult(r, Path(f"/{i}/attempt-1/result.json")) for i, r in enumerate(results)]
    return judge(claims, build_tables(stored, lambda result: None, {"a-task": Presentation(exact=exact)}))


def test_a_verdict_needs_the_correction_over_all_claims_of_its_paper(make_result: Any) -> None:
    """p = .02 decides one claim alone, and not beside three that decide nothing."""
    rows = {"new": [0.80, 0.82, 0.85, 0.81], "base": [0.78, 0.81, 0.82, 0.80], "twin": [0.83, 0.79, 0.84, 0.82]}
    one = claim(family="paper")
    expected = scipy.stats.ttest_rel(rows["new"], rows["base"]).pvalue
    (alone,) = judged_with(make_result, [one], **rows)
    assert 0.0125 < expected < 0.05
    assert (alone.verdict, alone.p_value, alone.holm) == ("holds on a-set", pytest.approx(expected), alone.p_value)
    others = [replace(one, id=str(i), against="twin") for i in range(3)]
    (first, *_) = judged_with(make_result, [one, *others], **rows)
    assert (first.verdict, first.holm) == ("inconclusive on a-set", pytest.approx(4 * expected))
    strangers = [replace(other, family="another paper") for other in others]
    (first, *_) = judged_with(make_result, [one, *strangers], **rows)
    assert first.verdict == "holds on a-set"


@pytest.mark.parametrize(
    ("form", "settings_", "bars"),
    [
        ("superiority", {"margin": 0.01}, ("greater", 0.01)),
        ("superiority", {"margin": 0.2}, ("less", 0.2)),
        ("non-inferiority", {"margin": 0.02}, ("greater", -0.02)),
        ("superiority", {"margin": 0.01, "higher": False}, ("less", 0.01)),
    ],
)
def test_the_p_value_is_scipys_at_two_sides(make_result: Any, form: Any, settings_: Any, bars: Any) -> None:
    rows = {"new": [0.80, 0.84, 0.85, 0.81], "base": [0.78, 0.80, 0.82, 0.77]}
    sign = 1 if settings_.get("higher", True) else -1
    differences = [sign * (a - b) for a, b in zip(rows["new"], rows["base"], strict=True)]
    side, bar = bars
    expected = 2 * scipy.stats.ttest_1samp(differences, bar, alternative=side).pvalue
    (found,) = judged_with(make_result, [claim(form, **settings_)], **rows)
    assert found.p_value == pytest.approx(expected)


def test_an_equivalence_is_two_tests(make_result: Any) -> None:
    rows = {"new": [0.80, 0.81, 0.80, 0.82], "base": [0.80, 0.80, 0.81, 0.81]}
    differences = [a - b for a, b in zip(rows["new"], rows["base"], strict=True)]
    sides = [scipy.stats.ttest_1samp(differences, s * 0.05, alternative=a).pvalue
             for s, a in ((-1, "greater"), (1, "less"))]  # fmt: skip
    (found,) = judged_with(make_result, [claim("equivalence", margin=0.05)], **rows)
    assert (found.verdict, found.p_value) == ("holds on a-set", pytest.approx(2 * max(sides)))


def test_seeds_that_agree_decide_nothing_unless_the_metric_is_counted(make_result: Any) -> None:
    rows = {"new": [0.8, 0.8], "base": [0.7, 0.7]}
    (found,) = judged_with(make_result, [claim()], **rows)
    assert (found.verdict, found.p_value) == ("inconclusive on a-set", None)
    assert found.why == "all seeds agree, which is no evidence about others"
    (found,) = judged_with(make_result, [claim()], exact=("accuracy",), **rows)
    assert (found.verdict, found.p_value, found.why) == ("holds on a-set", None, "exact")
    (found,) = judged_with(make_result, [claim(margin=0.2)], exact=("accuracy",), **rows)
    assert found.verdict == "does not hold on a-set"


def test_a_row_of_given_weights_takes_over_no_claim(make_result: Any) -> None:
    rows = {"new": [0.70, 0.71, 0.72], "base": [0.80, 0.82, 0.81]}
    results = [
        make_result(method=name, label=name, seeds={"run": s}, scores={"accuracy": v, "error": 1.0})
        for name, values in rows.items()
        for s, v in enumerate(values)
    ]
    given = [
        make_result(
            method="new", label="new", weights="ab" * 32, seeds={"run": s}, scores={"accuracy": 0.99, "error": 1.0}
        )
        for s in range(3)
    ]
    stored = [StoredResult(r, Path(f"/{i}/attempt-1/result.json")) for i, r in enumerate([*given, *results])]
    found = build_tables(stored, lambda result: None)
    assert "new (weights abababab)" in [row.label for row in found[0].rows]
    (judged,) = judge([claim()], found)
    assert judged.verdict == "does not hold on a-set"


def test_both_sides_of_a_claim_are_of_one_preset(make_result: Any) -> None:
    values = {("new", "paper"): 0.9, ("new", "embedded"): 0.5, ("base", "embedded"): 0.6}
    results = [
        make_result(method=m, label=m, preset=p, seeds={"run": s}, scores={"accuracy": v + s * v / 100, "error": 1.0})
        for (m, p), v in values.items()
        for s in range(3)
    ]
    stored = [StoredResult(r, Path(f"/{i}/attempt-1/result.json")) for i, r in enumerate(results)]
    (judged,) = judge([claim()], build_tables(stored, lambda result: None))
    assert judged.verdict == "does not hold on a-set"
    assert "--preset" not in judged.command


def test_a_claim_on_a_metric_that_its_task_lacks_is_a_problem_and_no_verdict(make_result: Any) -> None:
    found = tables(make_result, new={"accuracy": 0.8, "error": 1.0}, base={"accuracy": 0.7, "error": 1.0})
    kept, problems = usable([claim(metric="acuracy", family="paper:claims.toml"), claim()], found)
    assert [c.metric for c in kept] == ["accuracy"]
    assert problems == [
        "paper:claims.toml: claim 'c': task 'a-task' has no metric 'acuracy' - did you mean 'accuracy'?"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("claims", "seeds"), [(1, 3), (4, 5), (7, 10)])
def test_no_effect_gives_a_false_verdict_in_at_most_five_percent_of_papers(claims: int, seeds: int) -> None:
    """4,000 papers whose claims all lie exactly on their bar; and how often 95 % intervals hold the truth."""
    rng = np.random.default_rng(0)
    wrong = covered = total = 0
    for _ in range(4000):
        found = [estimate(list(rng.normal(0.3, 1.0, seeds))) for _ in range(claims)]
        p_values = [e.p_beyond(0.3) for e in found if e is not None]
        wrong += min(holm([p for p in p_values if p is not None])) < 0.05
        covered += sum(e.low < 0.3 < e.high for e in found if e is not None)
        total += claims
    print(f"{claims} claims, {seeds} seeds: {wrong / 40:.2f} % wrong, coverage {100 * covered / total:.2f} %")
    assert wrong / 4000 <= 0.05 + 2.5 * (0.05 * 0.95 / 4000) ** 0.5
    assert abs(covered / total - 0.95) <= 0.01


GOOD = b"""
[[claim]]
id = "x"
statement = "s"
form = "cost"
task = "t"
metric = "m"
method = "a"
against = "b"
margin = 1
paper_data = ["bail"]
protocol = {shots = 1}
"""


def test_a_claims_file() -> None:
    (found,) = parse_claims(GOOD, "claims.toml")
    assert (found.margin, found.paper_data, found.protocol) == (1.0, ("bail",), {"shots": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[[claim", "claims.toml: not valid TOML"),
        (b"\xff", "claims.toml: not valid TOML"),
        (b"claim = 3", "claims.toml: claims are written as [[claim]] tables"),
        (GOOD.replace(b'"cost"', b'"costs"'), "form cannot be 'costs' - did you mean 'cost'?"),
        (GOOD.replace(b"metric =", b"metrik ="), "has no setting 'metrik' - did you mean"),
        (GOOD.replace(b"margin = 1", b"margin = nan"), "margin needs a finite number"),
        (GOOD.replace(b"{shots = 1}", b"3"), "protocol is a table of fields"),
        (GOOD + GOOD, "claim 'x' is there twice"),
        (b"[[claim]]\nid = 'x'", "missing 5 required"),
    ],
)
def test_a_wrong_claims_file_is_told_in_one_line(text: bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_claims(text, "claims.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


HEADER = b"task,data,row,metric,value,unit,source\n"


def test_reported_numbers() -> None:
    (number,) = parse_reported(HEADER + b"t,d,r,m,0.5,fraction,table 1\n", "A paper", "reported.csv")
    assert (number.value, number.paper, number.source) == (0.5, "A paper", "table 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + b"t,d,r,m,high,fraction,x\n", "line 2: 'high' is not a number"),
        (HEADER + b"t,d,r,m,inf,fraction,x\n", "line 2: 'inf' is not a number"),
        (HEADER + b"t,d,r\n", "line 2: columns must be task, data, row"),
        (b"a,b\n1,2\n", "line 2: columns must be"),
        (b"\xff\xfe", "not a CSV file in UTF-8"),
    ],
)
def test_wrong_reported_numbers_are_told_in_one_line(text: bytes, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_reported(text, "A paper", "reported.csv")
    assert message in str(caught.value)
