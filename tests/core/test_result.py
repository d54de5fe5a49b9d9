from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchsuite.core.errors import StoreError
from benchsuite.core.result import Artifact, content_hash, parse_result


def test_a_result_survives_the_round_trip(make_result: Any) -> None:
    result = make_result(scores={"accuracy": 0.1 + 0.2, "error": 1e-300})
    assert parse_result(result.model_dump_json(), "here") == result


def test_the_fingerprint_covers_what_is_measured_and_nothing_else(make_result: Any) -> None:
    base = make_result()
    assert make_result(peak_memory_mb=9.0, started="2030-01-01T00:00:00").fingerprint == base.fingerprint
    changes: list[dict[str, Any]] = [
        {"seeds": {"run": 1}},
        {"config": {"lr": 0.2}},
        {"protocol": {"shots": 2}},
        {"threads": 2},
        {"device": "cuda"},
        {"split": "val"},
        {"method_version": "2"},
        {"max_steps": 2},
    ]
    prints = {make_result(**change).fingerprint for change in changes}
    assert len(prints | {base.fingerprint}) == len(changes) + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "newer than this benchsuite reads (1): upgrade benchsuite"),
        ({"status": "splendid"}, "status:"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"undefined": {"a\nb": None}}, "undefined.a b: Input should be a valid string"),
        ({"scores": {"accuracy": "high"}}, "scores.accuracy:"),
        ({"fingerprint": "0" * 64}, "the fingerprint does not match"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_in_one_line(make_result: Any, change: Any, message: str) -> None:
    content = json.loads(make_result().model_dump_json()) | change
    with pytest.raises(StoreError) as caught:
        parse_result(json.dumps(content), "file.json")
    assert str(caught.value).startswith("file.json: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../up", "a/b", "/root", "..", ".hidden", "a\\b", "nul\0", ""])
@pytest.mark.parametrize("part", ["task", "method", "data"])
def test_a_name_that_leads_out_of_the_folder_is_refused(make_result: Any, part: str, name: str) -> None:
    data = {role: {"name": name, "version": "1", "hash": "d" * 64} for role in ("train", "test")}
    result = make_result(**({"data": data} if part == "data" else {part: name}))
    with pytest.raises(StoreError, match=r"^f: .* cannot name a task, a method or a data set$"):
        parse_result(result.model_dump_json(), "f")


@pytest.mark.parametrize("path", ["../x.png", "/etc/x.png", "a/../../x.png", "..\\x.png", "x\0.png"])
def test_an_artifact_outside_the_folder_is_refused(make_result: Any, path: str) -> None:
    result = make_result(artifacts={"x.png": Artifact(path=path, sha256="0" * 64)})
    with pytest.raises(StoreError, match=r"artifact 'x\.png' lies outside the result's folder"):
        parse_result(result.model_dump_json(), "f")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 100_000, '{"schema_version": 1e999}'])
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match=r"^f: "):
        parse_result(text, "f")


def test_nan_is_refused(make_result: Any) -> None:
    text = make_result().model_dump_json().replace('"accuracy":0.5', '"accuracy":NaN')
    with pytest.raises(StoreError, match=r"scores\.accuracy"):
        parse_result(text, "f")


@given(
    st.dictionaries(st.text(max_size=5), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text())
)
def test_the_hash_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    assert content_hash(value) == content_hash(dict(reversed(list(value.items()))))
