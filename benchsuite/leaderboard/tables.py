"""From result files to tables: which results count, which belong to one row, who ranks where.

A pure function of the results, of the digest of the present code, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchsuite.core.result import FINISHED, Definition, Result, content_hash
from benchsuite.harness.environment import comparable_groups
from benchsuite.harness.store import StoredResult
from benchsuite.leaderboard.statistics import (
    Comparison,
    Estimate,
    clearly_better,
    compare,
    estimate,
    holm,
    outer_means,
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
    results: list[Result]
    not_finished: list[Result]
    conflicting: list[Result]
    stale: bool
    rank: int | None = None
    unranked: str = ""
    scores: dict[str, Estimate | None] = field(default_factory=dict)
    by_seed: dict[str, dict[int, float]] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    comparison: Comparison | None = None
    costs: dict[str, Estimate | None] = field(default_factory=dict)
    parameters: int | None = None

    @property
    def n(self) -> int:
        """Number of outermost seeds with a result."""
        axis = self.results[0].definition.seed_axes[0] if self.results else ""
        return len({result.run.seeds[axis] for result in self.results})

    @property
    def fingerprints(self) -> list[str]:
        """Fingerprints of the results behind the row."""
        return sorted(result.fingerprint for result in self.results)

    @property
    def environments(self) -> int:
        """Number of different environments the results come from."""
        return len(comparable_groups([result.environment for result in self.results]))


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

    @property
    def data_name(self) -> str:
        """Name of the data: one, or ``train -> test``, then those of other roles: ``train -> test + noise``."""
        train, test = self.data["train"]["name"], self.data["test"]["name"]
        others = [ref["name"] for role, ref in sorted(self.data.items()) if role not in ("train", "test")]
        return " + ".join([train if train == test else f"{train} -> {test}", *others])


def build_tables(stored: Iterable[StoredResult], current_digest: CurrentDigest) -> list[Table]:
    """Build all tables.

    Parameters
    ----------
    stored
        Results in any order. Truncated runs and runs on the validation split are left out.
    current_digest
        Source digest that the present code would give a result; None if it cannot be known (the plugin
        is not installed).
    """
    groups: dict[str, list[StoredResult]] = {}
    for item in stored:
        run = item.result.run
        if run.split != "test" or run.max_steps is not None:
            continue
        data = {role: ref.model_dump() for role, ref in run.data.items()}
        key = content_hash([run.task, run.task_version, run.protocol, data])
        groups.setdefault(key, []).append(item)
    tables = [_build_table(key, items, current_digest) for key, items in groups.items()]
    return sorted(tables, key=lambda t: (t.task, t.task_version, t.data_name, t.id))


def _build_table(key: str, items: list[StoredResult], current_digest: CurrentDigest) -> Table:
    by_row: dict[tuple[str, str, str, str], list[StoredResult]] = {}
    for item in items:
        run = item.result.run
        by_row.setdefault((run.method, run.preset, run.row_config, run.device), []).append(item)
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
    )
    _rank(table)
    _compare_with_reference(table)
    order = {row_id: i for i, row_id in enumerate(sorted(map(_row_order(table), rows)))}
    table.rows.sort(key=lambda row: order[_row_order(table)(row)])
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
    row = Row(
        label=example.label,
        method=key[0],
        preset=key[1],
        role=example.role,
        config_hash=key[2],
        device=key[3],
        results=results,
        not_finished=[r for r in latest if r.status not in FINISHED],
        conflicting=[r for r in latest if r.fingerprint in conflicting],
        stale=present is not None and example.source_digest != present,
        parameters=_common([r.parameters for r in results]),
    )
    _fill_statistics(row, example.definition)
    return row


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
    """Give ranks to complete, current rows that meet the ranking's constraint.

    A rank is one more than the number of rows that are clearly better: rows whose intervals overlap tie.
    """
    ranking = table.definition.rank_by
    direction = next(m.direction for m in table.definition.metrics if m.name == ranking)
    limit, limit_text = _constraint_limit(table)
    candidates: list[tuple[Row, Estimate]] = []
    for row in table.rows:
        score = row.scores.get(ranking)
        guarded = row.scores.get(table.definition.constraint.metric) if table.definition.constraint else None
        if row.stale:
            row.unranked = "stale"
        elif row.conflicting:
            row.unranked = "conflicting results"
        elif row.not_finished:
            row.unranked = "incomplete"
        elif score is None:
            row.unranked = "no score"
        elif limit is not None and (guarded is None or guarded.mean < limit):
            row.unranked = limit_text
        else:
            candidates.append((row, score))
    for row, score in candidates:
        row.rank = 1 + sum(clearly_better(other, score, direction) for _, other in candidates)


def _compare_with_reference(table: Table) -> None:
    """Compare every row with the reference of its preset and device on the ranking metric."""
    metric = table.definition.rank_by
    references = {(r.preset, r.device): r for r in table.rows if _is_reference(r, table) and not r.stale}
    compared: list[tuple[Row, Comparison]] = []
    for row in table.rows:
        reference = references.get((row.preset, row.device))
        if reference is None or reference is row or row.stale:
            continue
        found = compare(row.by_seed.get(metric, {}), reference.by_seed.get(metric, {}))
        if found is not None:
            compared.append((row, found))
    for (row, found), adjusted in zip(compared, holm([c.p_value for _, c in compared]), strict=True):
        row.comparison = replace(found, holm=adjusted)


def _is_reference(row: Row, table: Table) -> bool:
    return row.method == table.definition.reference == row.label


def _constraint_limit(table: Table) -> tuple[float | None, str]:
    constraint = table.definition.constraint
    if constraint is None:
        return None, ""
    for row in table.rows:
        score = row.scores.get(constraint.metric)
        if row.method == constraint.relative_to and score is not None and not row.stale:
            limit = score.mean - constraint.margin
            return limit, f"{constraint.metric} below {constraint.relative_to} - {constraint.margin:g}"
    return None, ""


def _row_order(table: Table) -> Callable[[Row], tuple[Any, ...]]:
    metric = table.definition.rank_by
    sign = -1 if next(m.direction for m in table.definition.metrics if m.name == metric) == "max" else 1

    def key(row: Row) -> tuple[Any, ...]:
        score = row.scores.get(metric)
        value = sign * score.mean if score else float("inf")
        return (row.rank or 10**9, value, row.label, row.preset, row.device, row.config_hash)

    return key
