"""Whatever is in a result file, a reported.csv, a claims file or a ``--set`` value: a clear line, no traceback.

With ``--slow`` each property is tried on 1,000 cases.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from support import forall, paths_of

from benchsuite.core.claim import parse_claims, parse_reported
from benchsuite.core.config import build_config
from benchsuite.core.errors import ConfigError, StoreError, UserError
from benchsuite.core.registry import get_registry, load_object
from benchsuite.core.result import parse_result
from benchsuite.harness.settings import expand_seeds, parse_assignments, parse_seeds, route
from benchsuite.harness.store import StoredResult
from benchsuite.harness.validate import problems_of
from benchsuite.leaderboard.render import render
from benchsuite.leaderboard.tables import build_tables

CASES = pytest.mark.parametrize("cases", [50, pytest.param(1000, marks=pytest.mark.slow)])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def one_line(error: Exception) -> bool:
    return bool(str(error)) and "\n" not in str(error)


@CASES
def test_result_files(cases: int, make_result: Any) -> None:
    original = json.loads(make_result(counts={"n": 1}, tables={"t": [{"a": 1}]}).model_dump_json())
    paths = paths_of(original)

    def check(change: tuple[int, Any, bool, int]) -> None:
        index, value, remove, cut = change
        content = json.loads(json.dumps(original))
        *outer, last = paths[index % len(paths)]
        place = content
        for key in outer:
            place = place[key]
        if remove:
            del place[last]
        else:
            place[last] = value
        text = json.dumps(content)
        text = text[:cut] if cut < 200 else text
        try:
            result = parse_result(text, "f")
        except StoreError as error:
            assert one_line(error)
            return
        assert all("\n" not in problem for problem in problems_of(result, get_registry()))
        try:
            render(build_tables([StoredResult(result, Path(__file__))], lambda r: None), [], [])
        except UserError as error:
            assert one_line(error)

    forall(cases, st.tuples(st.integers(0, 10_000), JSON, st.booleans(), st.integers(0, 2000)), check)


@CASES
def test_bytes_as_result_files(cases: int) -> None:
    def check(content: bytes) -> None:
        with pytest.raises(StoreError) as caught:
            parse_result(content, "f")
        assert one_line(caught.value)

    forall(cases, st.binary(max_size=200) | JSON.map(lambda v: json.dumps(v).encode()), check)


@CASES
def test_reported_numbers(cases: int) -> None:
    header = b"task,data,row,metric,value,unit,source\n"

    def check(content: tuple[bool, bytes]) -> None:
        with_header, body = content
        try:
            parse_reported(header + body if with_header else body, "paper", "reported.csv")
        except ConfigError as error:
            assert one_line(error)

    csv_like = st.text(alphabet="ab,1.\"\n\r'", max_size=60).map(str.encode)
    forall(cases, st.tuples(st.booleans(), st.binary(max_size=80) | csv_like), check)


@CASES
def test_claims_files(cases: int) -> None:
    keys = ["id", "statement", "form", "task", "metric", "method", "against", "margin", "paper_data", "protocol", "x"]
    value = st.one_of(
        st.text(max_size=5).map(json.dumps), st.floats().map(str), st.integers().map(str),
        st.sampled_from(['"cost"', "{a = 1}", "[1, 'a']", "true", "1979-05-27", "[]"]),
    )  # fmt: skip
    table = st.dictionaries(st.sampled_from(keys), value, max_size=9)
    document = st.lists(table, max_size=3).map(
        lambda tables: "".join("[[claim]]\n" + "".join(f"{k} = {v}\n" for k, v in t.items()) for t in tables).encode()
    )

    def check(content: bytes) -> None:
        try:
            parse_claims(content, "claims.toml")
        except ConfigError as error:
            assert one_line(error)

    forall(cases, document | st.binary(max_size=80), check)


@CASES
def test_settings(cases: int, task_and_methods: Any) -> None:
    task, methods = task_and_methods
    fields = [*methods["m"].__dataclass_fields__, *task.__dataclass_fields__, "x"]
    word = st.text(max_size=12) | st.sampled_from(["1", "nan", "-1e400", "none", "gcn", "1,2", "true", "9" * 5000])
    assignment = st.tuples(st.sampled_from(["", "task.", "method.", "m.", "?."]), st.sampled_from(fields), word)

    def check(parts: list[tuple[str, str, str]]) -> None:
        texts = [f"{scope}{key}={value}" for scope, key, value in parts]
        try:
            task_values, method_values = route(parse_assignments(texts), task, methods)
            build_config(task, task_values, "task")
            build_config(methods["m"], method_values["m"], "method 'm'")
        except ConfigError as error:
            assert one_line(error)

    forall(cases, st.lists(assignment, max_size=3), check)


@CASES
def test_seeds_and_raw_settings(cases: int) -> None:
    def check(texts: tuple[list[str], list[str]]) -> None:
        try:
            parse_assignments(texts[0])
            expand_seeds(
                parse_seeds(text for text in texts[1] if len(text) < 4), ["base", "shots"], {"base": 1, "shots": 1}
            )
        except ConfigError as error:
            assert one_line(error)

    text = st.text(max_size=10) | st.text(alphabet="0123456789,=-", max_size=5)
    forall(cases, st.tuples(st.lists(text, max_size=3), st.lists(text, max_size=2)), check)


@pytest.fixture
def task_and_methods() -> tuple[type, dict[str, type]]:
    pytest.importorskip("torch")
    registry = get_registry()
    task = load_object(registry.task("fair-distillation").load).Protocol
    return task, {"m": load_object(registry.method("reliant").load).Config}
