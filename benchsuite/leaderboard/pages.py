"""What the pages of the site show, as plain data for the templates: texts, links, and sort keys."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchsuite.core.claim import Reported
from benchsuite.core.config import Preset
from benchsuite.core.dataset import DatasetSpec
from benchsuite.core.method import MethodSpec
from benchsuite.core.registry import Registry
from benchsuite.core.result import MetricInfo, Result, content_hash
from benchsuite.leaderboard.cells import (
    cells,
    direction_text,
    effect_text,
    footnotes,
    header,
    metric_title,
    ranking_text,
)
from benchsuite.leaderboard.cells import settings_text as table_settings
from benchsuite.leaderboard.charts import Record, cost_chart, costs_of, difference_chart, interval_chart
from benchsuite.leaderboard.claims import Verdict
from benchsuite.leaderboard.render import p_text
from benchsuite.leaderboard.statistics import Estimate
from benchsuite.leaderboard.tables import COSTS, Row, Table

_LONGEST_SLUG = 60
_TEXT_COLUMNS = ("method", "preset", "role")
_PREFIX = 16  # digits of a fingerprint that name a run, here and in 'benchsuite rerun'


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, what it holds, and the metric it shows ("" for others)."""

    title: str
    numeric: bool
    metric: str


@dataclass(frozen=True)
class Cell:
    """A cell: its text, and what it is sorted by (None: its text)."""

    text: str
    order: float | str | None  # "" for a missing number


@dataclass(frozen=True)
class RunView:
    """One run behind a row."""

    seeds: str
    status: str
    problem: str
    fingerprint: str
    digest: str
    started: str
    commit: str
    command: str


@dataclass(frozen=True)
class RowView:
    """A row: its cells, its marks, and where its numbers come from."""

    anchor: str
    label: str
    method_page: str
    marks: tuple[str, ...]
    ranked: bool
    cells: tuple[Cell, ...]
    digest: str
    config: str
    environments: tuple[str, ...]
    runs: tuple[RunView, ...]


@dataclass(frozen=True)
class MetricView:
    """A metric that the reader can choose."""

    name: str
    title: str
    hint: str
    doc: str


@dataclass(frozen=True)
class TableView:
    """A table with its charts."""

    anchor: str
    title: str
    settings: str
    reference: str
    version: str
    id: str
    ranking: str
    columns: tuple[Column, ...]
    rows: tuple[RowView, ...]
    notes: tuple[str, ...]
    metrics: tuple[MetricView, ...]
    chosen: str
    costs: tuple[tuple[str, str], ...]
    charts: Record
    best: tuple[str, ...]


@dataclass(frozen=True)
class ClaimView:
    """A verdict on a claim; ``tone`` is yes, no, open or none."""

    statement: str
    task: str
    task_page: str
    method: str
    method_page: str
    data: str
    verdict: str
    tone: str
    effect: str
    p: str
    cost: str
    reported: str
    command: str


@dataclass(frozen=True)
class DataView:
    """A data set."""

    name: str
    title: str
    embedded: bool
    licence: str
    citation: str
    homepage: str


@dataclass(frozen=True)
class PresetView:
    """A preset of a method: its settings and its special cases."""

    name: str
    settings: str
    cases: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ReportedRow:
    """A row of a paper's own table: its values in the order of the metrics ("" where it prints none)."""

    paper: str
    row: str
    data: str
    values: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class ReportedTable:
    """The numbers that papers print."""

    metrics: tuple[str, ...]
    rows: tuple[ReportedRow, ...]


@dataclass(frozen=True)
class Standing:
    """Where a method stands in one table."""

    task: str
    task_page: str
    data: str
    settings: str
    label: str
    rank: str
    metric: str
    score: str


def slug(name: str) -> str:
    """Return a file name for a name: itself if that is harmless, else made so and told apart by a hash."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LONGEST_SLUG]
    return name if name and plain == name else f"{plain or 'x'}-{content_hash(name)[:8]}"


def task_page(task: str) -> str:
    """Return the file name of a task's page."""
    return f"task-{slug(task)}.html"


def method_page(method: str) -> str:
    """Return the file name of a method's page."""
    return f"method-{slug(method)}.html"


def web_link(address: str) -> str:
    """Return an address if it is one of the web, else nothing: a link must not run a script."""
    return address if address.startswith(("https://", "http://")) else ""


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings as they are typed: ``shots=5, teacher=gcn``."""
    return ", ".join(f"{key}={_value_text(value)}" for key, value in settings.items())


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def table_view(table: Table, anchor: str) -> TableView:
    """Return what the page shows of a table."""
    metrics = [metric.name for metric in table.definition.metrics]
    names = ["", "", "", "", *metrics]
    titles = header(table)
    columns = [
        Column(title, title not in _TEXT_COLUMNS, names[i] if i < len(names) else "") for i, title in enumerate(titles)
    ]
    costs = costs_of(table)
    differences = difference_chart(table)
    charts = {
        "interval": interval_chart(table),
        "differences": differences,
        "costs": {cost.name: cost_chart(table, cost) for cost in costs},
    }
    return TableView(
        anchor=anchor,
        title=table.heading,
        settings=table_settings(table),
        reference=table.definition.reference if differences else "",
        version=table.task_version,
        id=table.id,
        ranking=_typeset(ranking_text(table)),
        columns=tuple(columns),
        rows=tuple(_row_view(table, row, f"{anchor}-row-{i}") for i, row in enumerate(table.rows, start=1)),
        notes=tuple(note.removeprefix("- ") for note in footnotes(table)),
        metrics=tuple(_metric_view(table, metric) for metric in table.definition.metrics),
        chosen=table.ranked_by.name,
        costs=tuple((cost.name, cost.title) for cost in costs),
        charts=charts,
        best=tuple(row.label for row in table.rows if row.rank == 1),
    )


def _typeset(text: str) -> str:
    return text.replace("+-", "±")


def _metric_view(table: Table, metric: MetricInfo) -> MetricView:
    return MetricView(metric.name, metric_title(table, metric), direction_text(metric), metric.doc)


def _row_view(table: Table, row: Row, anchor: str) -> RowView:
    runs = [*row.results, *row.not_finished, *row.conflicting]
    texts, orders = cells(table, row), _orders(table, row)
    marks = ["stale"] if row.stale else []
    marks += [] if row.installed else ["not installed"]
    marks += [row.device] if row.device != "cpu" else []
    marks += [row.unranked] if row.unranked and row.unranked != "stale" else []
    return RowView(
        anchor=anchor,
        label=row.label,
        method_page=method_page(row.method),
        marks=tuple(marks),
        ranked=row.rank is not None,
        cells=tuple(Cell(_typeset(text), order) for text, order in zip(texts, orders, strict=True)),
        digest=", ".join(sorted({run.source_digest for run in runs})),
        config=settings_text(runs[0].run.config),
        environments=tuple(sorted({_environment_text(run.environment) for run in runs})),
        runs=tuple(_run_view(run) for run in sorted(runs, key=_seed_order)),
    )


def _orders(table: Table, row: Row) -> list[float | str | None]:
    """Return what the cells of a row are sorted by, in the order of `render.header`."""
    scores = [_mean(row.scores.get(metric.name)) for metric in table.definition.metrics]
    costs = [_mean(row.costs.get(name)) for name, _ in COSTS]
    difference = row.comparison.difference if row.comparison else ""
    rank = row.rank if row.rank is not None else ""
    parameters = row.parameters if row.parameters is not None else ""
    return [rank, None, None, None, *scores, row.n, difference, *costs, parameters]


def _mean(found: Estimate | None) -> float | str:
    return found.mean if found else ""


def _seed_order(result: Result) -> tuple[Any, ...]:
    return (*(result.run.seeds[axis] for axis in result.definition.seed_axes), result.fingerprint)


def _run_view(result: Result) -> RunView:
    return RunView(
        seeds=", ".join(f"{axis} {seed}" for axis, seed in result.run.seeds.items()),
        status=result.status,
        problem=result.error.message if result.error else "",
        fingerprint=result.fingerprint,
        digest=result.source_digest,
        started=result.started,
        commit=_commit_text(result.environment),
        command=f"benchsuite rerun {result.fingerprint[:_PREFIX]}",
    )


def _commit_text(environment: Mapping[str, Any]) -> str:
    commit = environment.get("commit")
    if not commit:
        return "not recorded"
    return f"{commit} (with local changes)" if environment.get("dirty") else str(commit)


def _environment_text(environment: Mapping[str, Any]) -> str:
    facts = {k: v for k, v in environment.items() if k not in ("commit", "dirty", "libraries") and v is not None}
    libraries = environment.get("libraries")
    parts = [f"{key.replace('_', ' ')} {_value_text(value)}" for key, value in sorted(facts.items())]
    if isinstance(libraries, dict):
        parts += [f"{name} {_value_text(version)}" for name, version in sorted(libraries.items())]
    return ", ".join(parts) or "not recorded"


def claim_view(verdict: Verdict) -> ClaimView:
    """Return what the pages show of a verdict."""
    claim = verdict.claim
    return ClaimView(
        statement=claim.statement,
        task=claim.task,
        task_page=task_page(claim.task),
        method=claim.method,
        method_page=method_page(claim.method),
        data=verdict.data,
        verdict=verdict.verdict,
        tone=_tone(verdict.verdict),
        effect=_typeset(effect_text(verdict.effect, verdict.metric)),
        p=p_text(verdict),
        cost=_typeset(effect_text(verdict.cost, verdict.cost_metric)) if claim.form == "cost" else "",
        reported=claim.reported or "not obtained",
        command=verdict.command,
    )


def _tone(verdict: str) -> str:
    if verdict.startswith(("reproduced", "holds")):
        return "yes"
    if verdict.startswith(("not reproduced", "does not hold")):
        return "no"
    return "open" if verdict.startswith("inconclusive") else "none"


def tally(claims: Sequence[ClaimView]) -> list[tuple[str, str]]:
    """Return how many claims hold, do not, are open and were not run: tone and text of those that occur."""
    counts = Counter(claim.tone for claim in claims)
    words = {"yes": ("holds", "hold"), "no": ("does not hold", "do not hold"), "open": ("inconclusive",) * 2}
    words["none"] = ("not run",) * 2
    return [(tone, f"{counts[tone]} {words[tone][counts[tone] > 1]}") for tone in words if counts[tone]]


def data_view(name: str, registry: Registry) -> DataView:
    """Return what the pages show of a data set, registered or not."""
    spec = registry.datasets.get(name) or DatasetSpec(name, "", "", "", title="not registered here")
    return DataView(name, spec.title, spec.embedded, spec.licence, spec.citation, web_link(spec.homepage))


def preset_views(method: MethodSpec) -> list[PresetView]:
    """Return a method's presets, the default one first."""
    names = sorted(method.presets, key=lambda name: (name != "embedded", name))
    return [_preset_view(name, method.presets[name]) for name in names]


def _preset_view(name: str, preset: Preset) -> PresetView:
    cases = [(settings_text(case.where), settings_text(case.settings)) for case in preset.cases]
    return PresetView(name, settings_text(preset.settings), tuple(cases))


def reported_table(numbers: Iterable[Reported]) -> ReportedTable:
    """Return the numbers that papers print, one row for each of theirs, in their order."""
    metrics: dict[str, None] = {}
    rows: dict[tuple[str, str, str, str], dict[str, str]] = {}
    for number in numbers:
        metrics[number.metric] = None
        values = rows.setdefault((number.paper, number.row, number.data, number.source), {})
        values[number.metric] = _reported_value(number)
    return ReportedTable(
        metrics=tuple(name.replace("_", " ") for name in metrics),
        rows=tuple(
            ReportedRow(paper, row, data, tuple(values.get(name, "") for name in metrics), source)
            for (paper, row, data, source), values in rows.items()
        ),
    )


def _reported_value(number: Reported) -> str:
    if number.unit == "fraction":
        return f"{number.value * 100:.2f} %"
    return f"{number.value:g} {number.unit}".strip()


def standings(method: str, tables: Sequence[Table]) -> list[Standing]:
    """Return where a method stands in every table that has it."""
    return [_standing(table, row) for table in tables for row in table.rows if row.method == method]


def _standing(table: Table, row: Row) -> Standing:
    titles, texts = header(table), cells(table, row)
    ranked_by = [metric.name for metric in table.definition.metrics].index(table.ranked_by.name)
    column = titles.index("role") + 1 + ranked_by
    return Standing(
        task=table.task,
        task_page=task_page(table.task),
        data=table.data_name,
        settings=settings_text(table.protocol),
        label=row.label,
        rank=row.rank_text if row.rank is not None else f"not ranked: {row.unranked}",
        metric=titles[column],
        score=_typeset(texts[column]),
    )
