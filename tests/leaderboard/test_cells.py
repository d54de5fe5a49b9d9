"""Tables for people: narrow, in the units of the field, and true of every bundled task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchsuite.core import Presentation
from benchsuite.core.registry import get_registry, load_object
from benchsuite.core.result import Definition, MetricInfo
from benchsuite.harness.store import StoredResult
from benchsuite.leaderboard.cells import (
    broken,
    effect_text,
    footnotes,
    settings_text,
    short_cells,
    short_header,
)
from benchsuite.leaderboard.render import render
from benchsuite.leaderboard.statistics import Estimate
from benchsuite.leaderboard.tables import Table, build_tables

METRICS = [
    MetricInfo(name="nap", direction="max", unit="fraction", kind="quality", doc="d"),
    MetricInfo(name="bytes_sent", direction="min", unit="B", kind="quality"),
    MetricInfo(name="seconds", direction="min", unit="s", kind="cost"),
]
DEFINITION = Definition(title="T", seed_axes=["run"], metrics=METRICS, rank_by="nap", reference="base")
SHOWN = Presentation(headline=("nap", "bytes_sent"), names={"nap": "nAP"}, exact=("bytes_sent",), cost="seconds")


@pytest.fixture
def table(make_result: Any) -> Any:
    def build(**changes: Any) -> Table:
        results = [
            make_result(
                method=name,
                label=name,
                seeds={"run": s},
                definition=DEFINITION,
                scores={"nap": nap + s * step, "bytes_sent": 903_080.0, "seconds": 12.0},
                **changes,
            )
            for name, nap, step in (("reft", 0.5, 0.031), ("base", 0.3, 0.012))
            for s in range(4)
        ]
        stored = [StoredResult(r, Path(f"/{i}/attempt-1/result.json")) for i, r in enumerate(results)]
        return build_tables(stored, lambda result: None, {"a-task": SHOWN})[0]

    return build


def test_the_short_table(table: Any) -> None:
    found = table()
    assert short_header(found) == [
        *("rank", "method", "role", "nAP (%)", "bytes sent (MB)", "vs ref.", "n", "seconds (s)")
    ]
    assert short_cells(found, found.rows[0])[:2] == ["1", "reft"]
    assert short_cells(found, found.rows[0])[3:] == ["54.6 ±6.4", "0.903", "+22.9 ±3.9 *", "4", "12.0"]
    assert short_cells(found, found.rows[1])[2].endswith("(ref.)")


def test_effects_are_in_the_unit_of_tables() -> None:
    assert effect_text(Estimate(0.0212, 0.0301, 3), METRICS[0]) == "+2.12 +- 3.01 points (n = 3)"
    assert effect_text(Estimate(903_080.0, 0.0, 3), METRICS[1]) == "+0.9031 +- 0.0000 MB (n = 3)"
    assert effect_text(Estimate(-1.5, None, 1), METRICS[2]) == "-1.5000 s (n = 1)"
    assert effect_text(None, None) == "-"


def test_a_heading_says_what_differs_from_the_preset(table: Any) -> None:
    assert settings_text(table()) == ""
    assert settings_text(table(preset="paper")) == "paper"
    assert settings_text(table(preset="paper", protocol_changes={"shots": 10})) == "paper, shots=10"


def test_names_are_broken_where_words_end() -> None:
    assert broken("low-precision-decentralized (stale)", 24) == "low-precision-\ndecentralized (stale)"
    assert broken("reft", 24) == "reft"


def test_what_holds_for_all_rows_is_said_once(make_result: Any) -> None:
    results = [
        make_result(
            method=name, label=name, seeds={"run": s}, definition=DEFINITION,
            scores={"nap": 0.1 * s, "bytes_sent": None, "seconds": None},
            undefined={"bytes_sent": "not counted", "seconds": "not counted"},
        )
        for name in ("a", "b") for s in range(2)
    ]  # fmt: skip
    stored = [StoredResult(r, Path(f"/{i}/attempt-1/result.json")) for i, r in enumerate(results)]
    (found,) = build_tables(stored, lambda result: None, {"a-task": SHOWN})
    assert footnotes(found) == ["- all rows: bytes sent, seconds undefined: not counted (2 of 2 runs)."]


def test_markdown_has_a_short_table_with_links_and_the_whole_one_folded(table: Any) -> None:
    text = render([table()], [], [], {"reft": "../plugins/x/README.md"})["a-task.md"].decode()
    short, whole = text.split("<details>")
    assert "| 1 | [reft](../plugins/x/README.md) | method | 54.6 ±6.4 |" in short
    assert "| base |" in short.replace(" (ref.)", "")
    assert "seconds (s)" in short
    assert "fit (CPU s)" in whole
    assert "- nAP (`nap`, higher is better): d" in whole
    widest = max(len(line) for line in short.splitlines() if line.startswith("| 1") or line.startswith("| 2"))
    assert widest < 140  # of which the link is 24


def test_tables_fit_a_hundred_columns(table: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from benchsuite.cli.console import print_how_to_read, print_leaderboard

    found = table()
    found.rows[0].label = "a-method-whose-name-is-longer-than-anybody-would-like[alpha=1, beta=2, gamma=3]"
    print_leaderboard(found)
    print_how_to_read()
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    assert "fit (CPU s)" not in shown
    print_leaderboard(found, wide=True)
    assert "fit (CPU s)" in capsys.readouterr().out


@pytest.mark.parametrize("width", [24, 44, 80, 100, 160])
def test_a_narrow_terminal_leaves_out_columns_and_says_so_but_cuts_no_number(
    width: int, table: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchsuite.cli import console

    found = table()
    monkeypatch.setattr(console, "_SHORT_TABLE_WIDTH", width)
    console.print_leaderboard(found)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    lines = " ".join(shown.split())
    for title, *column in zip(short_header(found), *(short_cells(found, row) for row in found.rows), strict=True):
        left_out = f" {title}" in lines.partition("shown by --wide:")[2]
        if title in ("rank", "method", "nAP (%)", "vs ref."):
            assert not left_out, title
        if title not in ("method", "role") and not left_out and width > 24:
            assert all(cell in lines for cell in column), title
    assert ("--wide" in shown) == (width < 80)
    if width == 24:  # no room for a number: it goes on in the next line
        assert "54.6" in shown
        assert "±6.4" in shown


def test_an_interval_is_told_to_two_figures(table: Any) -> None:
    from benchsuite.leaderboard.cells import _with_interval

    metric = table().metric("seconds")
    assert _with_interval(3.3412, 1.8471, metric) == "3.3 ±1.8"
    assert _with_interval(0.81749, 0.10312, metric) == "0.82 ±0.10"
    assert _with_interval(0.48312, 0.00942, metric) == "0.483 ±0.009"
    assert _with_interval(812.4, 130.2, metric) == "812 ±130"


@pytest.mark.parametrize("name", sorted(get_registry().tasks))
def test_every_task_names_metrics_that_it_has(name: str) -> None:
    spec = get_registry().tasks[name]
    for library in spec.requires:
        pytest.importorskip(library)
    task = load_object(spec.load)
    metrics = {metric.name for metric in task.metrics}
    assert set(spec.shown.headline) <= metrics
    assert task.ranking.metric in (spec.shown.headline or metrics)
    assert set(spec.shown.names) <= metrics
    assert set(spec.shown.exact) <= metrics
    assert set(spec.shown.items) <= metrics
    assert spec.shown.cost in {*metrics, "fit_seconds", "cached_seconds", "peak_memory", "parameters"}
    assert len(spec.shown.headline) >= 1
