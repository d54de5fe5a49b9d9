"""From result files to tables: which results count, which belong to one row, who ranks where.

A pure function of the results, of the digest of the present code, and of nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchsuite.core.result import FINISHED, Definition, MetricInfo, Result, content_hash
from benchsuite.core.task import Presentation
from benchsuite.harness.environment import comparable_groups
from benchsuite.harness.store import StoredResult
from benchsuite.leaderboard.items import ItemInterval, item_interval
from benchsuite.leaderboard.statistics import (
    Comparison,
    Estimate,
    compare,
    corrected,
    estimate,
    outer_means,
    rank_ranges,
)

CurrentDigest = Callable[[Result], "str | None"]

# Costs that the harness measures for every run, in table order: name and column title.
COSTS = (("fit_seconds", "fit (CPU s)"), ("cached_seconds", "shared stages (CPU s)"), ("peak_memory", "peak (MB)"))


@dataclass
class Row:
    """One line of a table: a method with one preset and configuration."""

    label: str
    method: str
    preset: str
    role: str
    config_hash: str
    device: str
    weights: str | None
    results: list[Result]
    not_finished: list[Result]
    conflicting: list[Result]
    stale: bool
    installed: bool = True
    rank: int | None = None
    rank_to: int | None = None
    unranked: str = ""
    scores: dict[str, Estimate | None] = field(default_factory=dict)
    by_seed: dict[str, dict[int, float]] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    comparison: Comparison | None = None
    items: ItemInterval | None = None
    costs: dict[str, Estimate | None] = field(default_factory=dict)
    parameters: int | None = None

    @property
    def n(self) -> int:
        """Number of outermost seeds with a result."""
        axis = self.results[0].definition.seed_axes[0] if self.results else ""
        return len({result.run.seeds[axis] for result in self.results})

    @property
    def rank_text(self) -> str:
        """The ranks that the results leave open: ``2``, ``1-3``, ``-`` without any."""
        if self.rank is None:
            return "-"
        return str(self.rank) if self.rank == self.rank_to else f"{self.rank}-{self.rank_to}"

    @property
    def fingerprints(self) -> list[str]:
        """Fingerprints of the results behind the row."""
        return sorted(result.fingerprint for result in self.results)

    @property
    def environments(self) -> int:
        """Number of different environments the results come from."""
        distinct = {id(result.environment): result.environment for result in self.results}
        return len(comparable_groups(list(distinct.values())))


@dataclass
class Table:
    """Rows that may be compared: one task version, one protocol, one content of the data."""

    id: str
    task: str
    task_version: str
    definition: Definition
    protocol: dict[str, Any]
    data: dict[str, dict[str, str]]
    rows: list[Row]
    shown: Presentation = field(default_factory=Presentation)
    fixed_items: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    mark: str = ""

    @property
    def heading(self) -> str:
        """The data's name, and what tells it from other data of that name: a label given, else the content's hash."""
        return f"{self.data_name} [{self.mark}]" if self.mark else self.data_name

    @property
    def ranked_by(self) -> MetricInfo:
        """The metric that ranks: the task's second choice where no row has a value of the first."""
        first, second = self.definition.rank_by, self.definition.rank_otherwise
        if second and all(row.scores.get(first) is None for row in self.rows):
            return self.metric(second)
        return self.metric(first)

    def metric(self, name: str) -> MetricInfo:
        """Return a metric's definition; raises KeyError for another name."""
        return {metric.name: metric for metric in self.definition.metrics}[name]

    def display(self, name: str) -> str:
        """Return a metric's name as the field writes it."""
        return self.shown.names.get(name, name.replace("_", " "))

    @property
    def headline(self) -> list[MetricInfo]:
        """The metrics of the short table: those that the task names and the results have, else the ranking's."""
        known = {metric.name: metric for metric in self.definition.metrics}
        named = [known[name] for name in self.shown.headline if name in known]
        constraint = self.definition.constraint
        return named or [self.ranked_by, *([known[constraint.metric]] if constraint else [])]

    @property
    def data_name(self) -> str:
        """Name of the data: one, or ``train -> test``, then those of other roles: ``train -> test + noise``."""
        names = {role: self._labelled(ref["name"]) for role, ref in self.data.items()}
        train, test = names["train"], names["test"]
        others = [names[role] for role, ref in sorted(self.data.items()) if role not in ("train", "test")]
        return " + ".join([train if train == test else f"{train} -> {test}", *others])

    def _labelled(self, name: str) -> str:
        return f"{name}={self.labels[name]}" if name in self.labels else name


def build_tables(
    stored: Iterable[StoredResult],
    current_digest: CurrentDigest,
    shown: Mapping[str, Presentation] | None = None,
    fixed: Collection[str] = (),
    split: str = "test",
) -> list[Table]:
    """Build all tables.

    Parameters
    ----------
    stored
        Results in any order. Truncated runs and runs on the other split are left out.
    current_digest
        Source digest that the present code would give a result; None if it cannot be known (the plugin
        is not installed).
    shown
        Task to how its metrics are shown; the results say what they are.
    fixed
        Names of data sets whose items are the same for every seed (generated ones are drawn anew).
    split
        ``val`` for tables of pilots, which are shown nowhere.
    """
    shown = shown or {}
    groups: dict[str, list[StoredResult]] = {}
    keys: dict[tuple[Any, ...], str] = {}
    for item in stored:
        run = item.result.run
        if run.split != split or run.max_steps is not None:
            continue
        parts = (run.task, run.task_version, id(run.protocol), id(run.data))  # results share equal ones
        if parts not in keys:
            data = {role: ref.model_dump() for role, ref in run.data.items()}
            keys[parts] = content_hash([run.task, run.task_version, run.protocol, data])
        groups.setdefault(keys[parts], []).append(item)
    tables = []
    for key, items in groups.items():
        run = items[0].result.run
        how = shown.get(run.task, Presentation())
        table = _build_table(key, items, current_digest, how, run.data["test"].name in fixed)
        if any(row.results or row.conflicting for row in table.rows):  # failed attempts alone make no table
            tables.append(table)
    _tell_apart(tables)
    return sorted(tables, key=lambda t: (t.task, t.task_version, t.data_name, t.id))


def _tell_apart(tables: Sequence[Table]) -> None:
    """Mark tables that would have one heading though their data differ in content."""
    alike: dict[tuple[str, str, str], list[Table]] = {}
    for table in tables:
        alike.setdefault((table.task, table.data_name, content_hash(table.protocol)), []).append(table)
    for members in alike.values():
        if len({content_hash(table.data) for table in members}) > 1:
            for table in members:
                table.mark = f"data {content_hash(table.data)[:6]}"


def _build_table(
    key: str, items: list[StoredResult], current_digest: CurrentDigest, shown: Presentation, fixed_items: bool
) -> Table:
    by_row: dict[tuple[str, str, str, str], list[StoredResult]] = {}
    configs: dict[tuple[Any, ...], str] = {}
    for item in items:
        run = item.result.run
        parts = (id(run.config), run.device, run.threads, run.weights)
        if parts not in configs:
            configs[parts] = run.row_config
        by_row.setdefault((run.method, run.preset, configs[parts], run.device), []).append(item)
    rows = [_build_row(row_key, found, current_digest) for row_key, found in by_row.items()]
    newest = max(items, key=lambda item: (item.result.started, item.result.fingerprint)).result
    table = Table(
        id=key[:10],
        task=newest.run.task,
        task_version=newest.run.task_version,
        definition=newest.definition,
        protocol=newest.run.protocol,
        data={role: ref.model_dump() for role, ref in newest.run.data.items()},
        rows=rows,
        shown=shown,
        fixed_items=fixed_items,
        labels=newest.data_labels,
    )
    _rank(table)
    _compare_with_reference(table)
    order = {row_id: i for i, row_id in enumerate(sorted(map(_row_order(table), rows)))}
    table.rows = sorted(table.rows, key=lambda row: order[_row_order(table)(row)])
    return table


def _build_row(key: tuple[str, str, str, str], items: list[StoredResult], current_digest: CurrentDigest) -> Row:
    """Take the results of the present code; if there are none, those of the newest code, marked stale."""
    present = current_digest(items[0].result)
    by_digest: dict[str, list[StoredResult]] = {}
    for item in items:
        by_digest.setdefault(item.result.source_digest, []).append(item)
    if present in by_digest:
        chosen = by_digest[present]
    else:
        finished = [i for i in items if i.result.status in FINISHED] or items
        chosen = by_digest[max(finished, key=_recency).result.source_digest]
    by_fingerprint: dict[str, list[StoredResult]] = {}
    for item in chosen:
        by_fingerprint.setdefault(item.result.fingerprint, []).append(item)
    conflicting = sorted(name for name, attempts in by_fingerprint.items() if _disagree(attempts))
    latest = [_counting_attempt(attempts) for _, attempts in sorted(by_fingerprint.items())]
    results = [r for r in latest if r.status in FINISHED and r.fingerprint not in conflicting]
    example = (results or latest)[0]
    newest = max(results or latest, key=lambda result: (result.started, result.fingerprint))
    row = Row(
        label=_label(newest),  # what was a change once may be the preset's own now
        method=key[0],
        preset=key[1],
        role=example.role,
        config_hash=key[2],
        device=key[3],
        weights=example.run.weights,
        results=results,
        not_finished=[r for r in latest if r.status not in FINISHED],
        conflicting=[r for r in latest if r.fingerprint in conflicting],
        stale=present is not None and example.source_digest != present,
        installed=present is not None,
        parameters=_common([r.parameters for r in results]),
    )
    _fill_statistics(row, example.definition)
    return row


def _label(result: Result) -> str:
    """Return a result's label; a model that was not trained here but given says so."""
    return f"{result.label} (weights {result.run.weights[:8]})" if result.run.weights else result.label


def _recency(item: StoredResult) -> tuple[str, int, str]:
    return (item.result.started, item.attempt, item.result.source_digest)


def _disagree(attempts: list[StoredResult]) -> bool:
    """Return whether finished attempts of one run and one code have different quality scores.

    On the CPU that must not happen; on a GPU the last bits may differ and the newest attempt counts.
    """
    finished = [item.result for item in attempts if item.result.status in FINISHED]
    quality = {m.name for r in finished for m in r.definition.metrics if m.kind == "quality"}
    scores = {tuple(sorted((n, v) for n, v in r.scores.items() if n in quality)) for r in finished}
    return len(scores) > 1 and finished[0].run.device == "cpu" and finished[0].deterministic


def _counting_attempt(attempts: list[StoredResult]) -> Result:
    """Return the newest finished attempt; if none finished, the newest."""
    finished = [item for item in attempts if item.result.status in FINISHED]
    return max(finished or attempts, key=_recency).result


def _common(values: Sequence[int | None]) -> int | None:
    return values[0] if values and len(set(values)) == 1 else None


def _fill_statistics(row: Row, definition: Definition) -> None:
    axes = definition.seed_axes
    for metric in definition.metrics:
        values = [(r.run.seeds, r.scores.get(metric.name)) for r in row.results]
        missing = [r for r in row.results if r.scores.get(metric.name) is None]
        if missing:
            row.scores[metric.name] = None
            reason = missing[0].undefined.get(metric.name, "not measured")
            row.undefined[metric.name] = f"{reason} ({len(missing)} of {len(values)} runs)"
            continue
        means = outer_means([(seeds, value) for seeds, value in values if value is not None], axes)
        row.by_seed[metric.name] = means
        row.scores[metric.name] = estimate(list(means.values()))
    for name, _ in COSTS:
        costs = [(r.run.seeds, cost) for r in row.results if (cost := _cost(r, name)) is not None]
        complete = len(costs) == len(row.results) and row.environments == 1
        row.costs[name] = estimate(list(outer_means(costs, axes).values())) if complete else None


def _cost(result: Result, name: str) -> float | None:
    if name == "fit_seconds":
        return result.timings["fit"].cpu_s if "fit" in result.timings else None
    if name == "cached_seconds":
        return sum(timing.cpu_s for timing in result.timings.values() if timing.shared)
    return result.peak_memory_mb


def rows_by_environment(table: Table) -> list[list[int]]:
    """Return the indices of the rows whose costs may be compared, the largest group first."""
    rows = [index for index, row in enumerate(table.rows) if row.environments == 1]
    groups = comparable_groups([table.rows[index].results[0].environment for index in rows])
    found = [[rows[member] for member in members] for members in groups]
    return sorted(found, key=lambda members: (-len(members), members[0]))


def _rank(table: Table) -> None:
    """Give ranks to complete, current rows that meet the ranking's constraint."""
    ranking = table.ranked_by
    within, problem = _constraint(table)
    candidates: list[Row] = []
    for row in table.rows:
        if row.stale:
            row.unranked = "stale"
        elif row.conflicting:
            row.unranked = "conflicting results"
        elif row.not_finished:
            row.unranked = "incomplete"
        elif row.scores.get(ranking.name) is None:
            row.unranked = "no score"
        elif not within(row):
            row.unranked = problem
        else:
            candidates.append(row)
    ranges = rank_ranges(
        len(candidates), ranking.direction, lambda i, j: _compared(table, candidates[i], candidates[j])
    )
    for row, (best, worst) in zip(candidates, ranges, strict=True):
        row.rank, row.rank_to = best, worst


def ranking_values(row: Row, metric: MetricInfo) -> dict[int, float]:
    """Return what a row is ranked by, outermost seed to value: for a target minus the distance to it."""
    values = row.by_seed.get(metric.name, {})
    if metric.direction != "target":
        return values
    target = metric.target or 0.0
    return {seed: -abs(value - target) for seed, value in values.items()}


def _compared(table: Table, row: Row, other: Row) -> Comparison | None:
    """Compare two rows on the ranking metric, by items where the seeds do not vary and there are enough of them."""
    metric = table.ranked_by
    found = compare(ranking_values(row, metric), ranking_values(other, metric), metric.name in table.shown.exact)
    if found is not None and found.p_value is None and not found.exact:
        items = over_items(table, row, other)
        if items is not None and items.decides:
            return replace(found, p_value=items.p_value)
    return found


def over_items(table: Table, row: Row, other: Row) -> ItemInterval | None:
    """Return the interval of a difference on the ranking metric over items; None where each seed has its own."""
    ratio = table.shown.items.get(table.ranked_by.name)
    if ratio is None or not table.fixed_items:
        return None
    return item_interval(_results_by_seed(row), _results_by_seed(other), ratio)


def _results_by_seed(row: Row) -> dict[int, list[Result]]:
    found: dict[int, list[Result]] = {}
    for result in row.results:
        found.setdefault(result.run.seeds[result.definition.seed_axes[0]], []).append(result)
    return found


def _compare_with_reference(table: Table) -> None:
    """Compare every row with the reference of its preset and device on the ranking metric."""
    compared = [(row, reference) for row in table.rows if (reference := reference_of(table, row)) is not None]
    found = [_compared(table, row, reference) for row, reference in compared]
    for (row, reference), comparison in zip(compared, corrected(found), strict=True):
        row.comparison = comparison
        row.items = over_items(table, row, reference)


def reference_of(table: Table, row: Row) -> Row | None:
    """Return the reference that a row is compared with: of its preset and device, both made by the present code."""
    for other in table.rows:
        alike = (other.preset, other.device) == (row.preset, row.device) and not (other.stale or row.stale)
        if alike and other is not row and _is_reference(other, table):
            return other
    return None


def _is_reference(row: Row, table: Table) -> bool:
    return row.method == table.definition.reference == row.label


def _constraint(table: Table) -> tuple[Callable[[Row], bool], str]:
    """Return whether a row meets the ranking's constraint, and what rows that do not are told."""
    rule = table.definition.constraint
    if rule is None:
        return lambda row: True, ""
    least, most = rule.at_least, rule.at_most
    if rule.relative_to:
        held = [row for row in table.rows if row.method == rule.relative_to and not (row.stale or row.weights)]
        score = next((row.scores[rule.metric] for row in held if row.scores.get(rule.metric)), None)
        if score is None:
            return lambda row: False, f"no row of {rule.relative_to} to hold its {rule.metric} against: run it too"
        if table.metric(rule.metric).direction == "min":
            most = score.mean + rule.margin
            problem = f"{rule.metric} above {rule.relative_to} + {rule.margin:g}"
        else:
            least = score.mean - rule.margin
            problem = f"{rule.metric} below {rule.relative_to} - {rule.margin:g}"
    else:
        problem = f"{rule.metric} is not " + " and ".join(
            f"{side} {bound:g}" for side, bound in (("at least", least), ("at most", most)) if bound is not None
        )

    def within(row: Row) -> bool:
        score = row.scores.get(rule.metric)
        return score is not None and (least is None or score.mean >= least) and (most is None or score.mean <= most)

    return within, problem


def _row_order(table: Table) -> Callable[[Row], tuple[Any, ...]]:
    metric = table.ranked_by

    def key(row: Row) -> tuple[Any, ...]:
        score = row.scores.get(metric.name)
        if score is None:
            value = math.inf
        elif metric.direction == "target":
            value = abs(score.mean - (metric.target or 0.0))
        else:
            value = -score.mean if metric.direction == "max" else score.mean
        ranks = (row.rank or 10**9, row.rank_to or 0)
        return (*ranks, value, row.label, row.preset, row.device, row.config_hash)

    return key
