from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchsuite.core.claim import Claim
from benchsuite.core.errors import ConfigError
from benchsuite.core.result import DataRef
from benchsuite.harness.store import StoredResult
from benchsuite.leaderboard.build import parse_reported
from benchsuite.leaderboard.claims import judge, parse_claims
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
            method=m, label=m, preset="paper", seeds={"run": s}, scores={"accuracy": a + NOISE[s], "error": 1.0}
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
