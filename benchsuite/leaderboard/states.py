"""Two states of results compared row by row: what became better or worse, what is missing, whose code changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from benchsuite.core.result import MetricInfo, content_hash
from benchsuite.core.task import Presentation
from benchsuite.harness.store import StoredResult
from benchsuite.leaderboard.statistics import Comparison, compare, corrected
from benchsuite.leaderboard.tables import Row, Table, build_tables, ranking_values

Change = Literal["better", "worse", "failed", "not told apart", "one seed", "same", "missing", "new"]


@dataclass(frozen=True)
class RowChange:
    """What became of one row.

    ``comparison`` is after minus before on the ranking metric, paired over shared outermost seeds, with Holm's
    correction over all rows. ``other_code`` and ``other_data`` tell whether digest and content of the data changed.
    """

    task: str
    data: str
    label: str
    metric: MetricInfo
    change: Change
    before: float | None
    after: float | None
    comparison: Comparison | None
    other_code: bool = False
    other_data: bool = False

    @property
    def regression(self) -> bool:
        """Whether the row is worse than before, or no longer finishes."""
        return self.change in ("worse", "failed")


def compare_states(
    before: Iterable[StoredResult],
    after: Iterable[StoredResult],
    shown: Mapping[str, Presentation] | None = None,
) -> list[RowChange]:
    """Compare the rows of two folders of results, those of the newest code in each."""
    first, second = _rows(before, shown), _rows(after, shown)
    shared = [key for key in first if key in second]
    found = [_compared(first[key], second[key]) for key in shared]
    changes = {
        key: _change(first[key], second[key], comparison)
        for key, comparison in zip(shared, corrected(found), strict=True)
    }
    changes |= {key: _alone(*first[key], "missing") for key in first if key not in second}
    changes |= {key: _alone(*second[key], "new") for key in second if key not in first}
    return [changes[key] for key in sorted(changes)]


def _rows(
    stored: Iterable[StoredResult], shown: Mapping[str, Presentation] | None
) -> dict[tuple[str, ...], tuple[Table, Row]]:
    """Return the rows by what a reader means by the same row: names, not contents."""
    found: dict[tuple[str, ...], tuple[Table, Row]] = {}
    for table in build_tables(stored, lambda result: None, shown):
        for row in table.rows:
            key = (table.task, table.data_name, content_hash(table.protocol), row.label, row.preset, row.device)
            found[key] = (table, row)
    return found


def _compared(before: tuple[Table, Row], after: tuple[Table, Row]) -> Comparison | None:
    table, row = after
    metric = table.ranked_by.name
    new, old = (ranking_values(found, table.ranked_by) for found in (row, before[1]))
    return compare(new, old, metric in table.shown.exact)


def _change(before: tuple[Table, Row], after: tuple[Table, Row], comparison: Comparison | None) -> RowChange:
    table, row = after
    metric = table.ranked_by
    old, new = before[1].by_seed.get(metric.name, {}), row.by_seed.get(metric.name, {})
    sign = -1.0 if metric.direction == "min" else 1.0
    change: Change
    if row.not_finished and not before[1].not_finished:
        change = "failed"
    elif old and all(new.get(seed) == value for seed, value in old.items()):
        change = "same"
    elif comparison is None:
        change = "one seed"
    elif comparison.clear:
        change = "better" if sign * comparison.difference > 0 else "worse"
    else:
        change = "not told apart"
    codes = [{result.source_digest for result in found.results} for found in (before[1], row)]
    contents = [{role: ref["hash"] for role, ref in t.data.items()} for t in (before[0], table)]
    return RowChange(
        task=table.task,
        data=table.data_name,
        label=row.label,
        metric=metric,
        change=change,
        before=_mean(before[1], metric),
        after=_mean(row, metric),
        comparison=comparison,
        other_code=codes[0] != codes[1],
        other_data=contents[0] != contents[1],
    )


def _alone(table: Table, row: Row, change: Change) -> RowChange:
    mean = _mean(row, table.ranked_by)
    before, after = (mean, None) if change == "missing" else (None, mean)
    return RowChange(table.task, table.data_name, row.label, table.ranked_by, change, before, after, None)


def _mean(row: Row, metric: MetricInfo) -> float | None:
    score = row.scores.get(metric.name)
    return score.mean if score else None
