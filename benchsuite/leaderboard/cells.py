"""What stands in the cells of tables: numbers in the units that people read, titles, and what cells cannot say."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from benchsuite.core.result import MetricInfo
from benchsuite.leaderboard.items import FEWEST_CLUSTERS, ItemInterval
from benchsuite.leaderboard.states import RowChange
from benchsuite.leaderboard.statistics import Comparison, Estimate
from benchsuite.leaderboard.tables import COSTS, Row, Table, rows_by_environment

_SHORT_COSTS = {"fit_seconds": "fit (CPU s)", "cached_seconds": "shared (CPU s)", "peak_memory": "peak (MB)"}
_COUNTS = {"B": (1e-6, "MB")}


def scale_of(metric: MetricInfo) -> tuple[float, str]:
    """Return the factor to the unit that tables show, and that unit: percent for fractions, MB for bytes."""
    if metric.unit == "fraction":
        return 100.0, "%"
    return _COUNTS.get(metric.unit, (1.0, metric.unit))


def direction_text(metric: MetricInfo) -> str:
    """Return what is better, in words."""
    if metric.direction == "target":
        factor, unit = scale_of(metric)
        return f"nearer to {(metric.target or 0.0) * factor:g} {unit} is better".replace(" %", " %")
    return "higher is better" if metric.direction == "max" else "lower is better"


def metric_title(table: Table, metric: MetricInfo) -> str:
    """Return a column's title: the metric as the field writes it, with its unit."""
    unit = scale_of(metric)[1]
    return f"{table.display(metric.name)} ({unit})" if unit else table.display(metric.name)


def settings_text(table: Table) -> str:
    """Return the preset, if it is not the embedded one, and what differs from it: ``paper, shots=10``."""
    results = [result for row in table.rows for result in (*row.results, *row.not_finished, *row.conflicting)]
    preset, changes = min(
        ((result.run.preset, result.protocol_changes) for result in results),
        key=lambda found: (found[0] != "embedded", len(found[1]), found[0]),
    )
    parts = [preset] if preset != "embedded" else []
    return ", ".join([*parts, *(f"{key}={value}" for key, value in changes.items())])


# ---- the short table


def short_header(table: Table) -> list[str]:
    """Return the titles of the short table: rank, method, role, headline metrics, difference, n, one cost."""
    metrics = [metric_title(table, metric) for metric in table.headline]
    return ["rank", "method", "role", *metrics, "vs ref.", "n", _short_cost_title(table)]


def dispensable_columns(table: Table) -> list[int]:
    """Return which columns of the short table a narrow terminal leaves out, the least missed first.

    Cost, role, n, then metrics from the last; never rank, method, the ranking metric and the difference.
    """
    metrics = [3 + place for place, metric in enumerate(table.headline) if metric.name != table.ranked_by.name]
    n = 3 + len(table.headline) + 1
    return [n + 1, 2, n, *reversed(metrics)]


def short_cells(table: Table, row: Row) -> list[str]:
    """Return a row of the short table."""
    scores = [_short(row.scores.get(metric.name), metric) for metric in table.headline]
    role = f"{row.role} (ref.)" if row.method == table.definition.reference else row.role
    return [row.rank_text, label(table, row), role, *scores, difference_text(table, row), count(row), _cost(table, row)]


def _short_cost_title(table: Table) -> str:
    name = table.shown.cost
    metric = next((m for m in table.definition.metrics if m.name == name), None)
    return metric_title(table, metric) if metric else _SHORT_COSTS.get(name, "parameters")


def _cost(table: Table, row: Row) -> str:
    name = table.shown.cost
    metric = next((m for m in table.definition.metrics if m.name == name), None)
    if metric is not None:
        score = row.scores.get(name)
        return _short(score and Estimate(score.mean, None, 1), metric)
    if name in _SHORT_COSTS:
        return number_cell(row.costs.get(name))
    return f"{row.parameters:,}" if row.parameters is not None else "-"


def _short(score: Estimate | None, metric: MetricInfo) -> str:
    if score is None:
        return "-"
    return _with_interval(score.mean, score.half_width, metric)


def _with_interval(mean: float, half_width: float | None, metric: MetricInfo, sign: str = "") -> str:
    """Return a number of three figures (one decimal for percent), and its interval if it has one that is not zero.

    No decimal is shown behind the second figure of the interval: it would say nothing.
    """
    factor, _ = scale_of(metric)
    size = abs(mean * factor)
    digits = 1 if metric.unit == "fraction" else min(3, max(0, 2 - math.floor(math.log10(size)))) if size else 0
    if not half_width:
        return f"{mean * factor:{sign},.{digits}f}"
    half = half_width * factor
    decimals = min(digits, max(0, 1 - math.floor(math.log10(half))))
    if metric.unit != "fraction":
        digits = decimals
    return f"{mean * factor:{sign},.{digits}f} ±{half:,.{decimals}f}"


def difference_text(table: Table, row: Row) -> str:
    """Return the difference to the reference on the ranking metric with its interval; ``*`` where it is clear."""
    found = row.comparison
    if found is None:
        return "-"
    text = _with_interval(found.difference, found.half_width, table.ranked_by, "+")
    return f"{text} *" if found.clear else text


def broken(name: str, width: int) -> str:
    """Return a name over lines of at most ``width``, where hyphens, slashes, commas and blanks allow it."""
    lines = [""]
    for part in _parts(name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def _parts(name: str) -> list[str]:
    ends = [i + 1 for i, character in enumerate(name) if character in "-/,[ "]
    return [name[a:b] for a, b in itertools.pairwise([0, *ends, len(name)]) if b > a]


# ---- the whole table


def header(table: Table) -> list[str]:
    """Return the column titles of the whole table."""
    metrics = [metric_title(table, metric) for metric in table.definition.metrics]
    costs = [title for _, title in COSTS]
    against = f"vs {table.definition.reference} (p, Holm)"
    return ["rank", "method", "preset", "role", *metrics, "n", against, *costs, "parameters"]


def cells(table: Table, row: Row) -> list[str]:
    """Return one row of the whole table as text."""
    scores = [score_cell(row.scores.get(m.name), m) for m in table.definition.metrics]
    costs = [number_cell(row.costs.get(name)) for name, _ in COSTS]
    parameters = f"{row.parameters:,}" if row.parameters is not None else "-"
    first = [row.rank_text, label(table, row), row.preset, row.role]
    return [*first, *scores, count(row), _comparison_cell(table, row), *costs, parameters]


def label(table: Table, row: Row) -> str:
    """Return a row's name with what sets it apart: a preset, a device, that it is stale."""
    names = [other.label for other in table.rows]
    name = row.label
    if row.preset != "embedded" and names.count(row.label) > 1:
        name += f" ({row.preset})"
    if row.stale:
        name += " (stale)"
    return name if row.device == "cpu" else f"{name} ({row.device})"


def count(row: Row) -> str:
    """Return the number of outermost seeds, and what is missing."""
    missing = {"not finished": len(row.not_finished), "in conflict": len(row.conflicting)}
    remarks = ", ".join(f"{number} {what}" for what, number in missing.items() if number)
    return f"{row.n} ({remarks})" if remarks else str(row.n)


def score_cell(score: Estimate | None, metric: MetricInfo) -> str:
    """Return a mean and its interval in the unit that tables show."""
    if score is None:
        return "-"
    factor, _ = scale_of(metric)
    mean = score.mean * factor
    digits = 2 if metric.unit == "fraction" else _digits(mean)
    text = f"{mean:,.{digits}f}"
    if score.half_width is not None:
        text += f" +- {score.half_width * factor:,.{digits}f}"
    return text


def _digits(value: float) -> int:
    """Return how many decimals a number in a unit of its own is shown with: five figures, at most four decimals."""
    size = abs(value)
    return next((digits for limit, digits in ((10.0, 4), (100.0, 3), (1000.0, 2)) if size < limit), 0)


def _comparison_cell(table: Table, row: Row) -> str:
    found = row.comparison
    if found is None:
        return "-"
    metric = table.ranked_by
    factor, _ = scale_of(metric)
    digits = 2 if metric.unit == "fraction" else _digits(found.difference * factor)
    return f"{found.difference * factor:+,.{digits}f} ({_p_text(found)})"


def _p_text(found: Comparison) -> str:
    if found.holm is not None:
        return f"{found.holm:.3f}"
    return "exact" if found.exact else "no variance"


def number_cell(value: Estimate | None) -> str:
    """Return a cost without its interval."""
    if value is None:
        return "-"
    return f"{value.mean:.1f}" if value.mean < 100 else f"{value.mean:.0f}"


def effect_text(effect: Estimate | None, metric: MetricInfo | None) -> str:
    """Return an effect and its interval in the unit that tables show: points for fractions."""
    if effect is None:
        return "-"
    factor, unit = scale_of(metric) if metric else (1.0, "")
    unit = "points" if unit == "%" else unit
    mean = effect.mean * factor
    digits = 2 if unit == "points" else _digits(mean)
    interval = "" if effect.half_width is None else f" +- {effect.half_width * factor:,.{digits}f}"
    return " ".join(part for part in (f"{mean:+,.{digits}f}{interval}", unit, f"(n = {effect.n})") if part)


def change_cells(change: RowChange) -> list[str]:
    """Return what became of a row between two states, as text."""
    scores = [
        score_cell(Estimate(v, None, 1) if v is not None else None, change.metric)
        for v in (change.before, change.after)
    ]
    difference = "-"
    if change.comparison is not None:
        factor, _ = scale_of(change.metric)
        difference = f"{change.comparison.difference * factor:+,.2f} ({_p_text(change.comparison)})"
    remarks = [text for text, there in (("code", change.other_code), ("data", change.other_data)) if there]
    word = f"{change.change} ({', '.join(remarks)} changed)" if remarks else change.change
    return [change.task, change.data, change.label, change.metric.name.replace("_", " "), *scores, difference, word]


# ---- words below a table


def constraint_text(table: Table) -> str:
    """Return what the ranking's constraint asks for, in words."""
    rule = table.definition.constraint
    assert rule is not None
    if rule.relative_to:
        lower = table.metric(rule.metric).direction == "min"
        side, sign = ("at most", "+") if lower else ("at least", "-")
        return f"{side} that of {rule.relative_to} {sign} {rule.margin:g}"
    bounds = (("at least", rule.at_least), ("at most", rule.at_most))
    return " and ".join(f"{side} {bound:g}" for side, bound in bounds if bound is not None)


def ranking_text(table: Table) -> str:
    """Return how the rows are ranked, in words."""
    text = f"ranked by {table.display(table.ranked_by.name)}"
    constraint = table.definition.constraint
    if constraint is not None:
        text += f" among rows whose {table.display(constraint.metric)} is {constraint_text(table)}"
    return text


HOW_TO_READ = (
    "Mean ± half width of the 95 % Student-t interval over the outermost seeds.",
    "A row ranks below another only where their paired difference over shared seeds excludes zero after Holm's"
    " correction over all pairs of the table (Welch's test where no seeds are shared). 1-3: the seeds leave ranks 1 to"
    " 3 open.",
    "vs ref.: difference to the reference (ref.) on the ranking metric; * excludes zero after the correction.",
)


def footnotes(table: Table) -> list[str]:
    """Return what the cells cannot say: why a row has no rank, which seeds are missing."""
    notes = []
    for reason in dict.fromkeys(row.unranked for row in table.rows if row.unranked):
        notes.append(f"- Not ranked ({reason}): {_those(table, [r for r in table.rows if r.unranked == reason])}.")
    away = [row for row in table.rows if not row.installed]
    if away and len(away) < len(table.rows):
        notes.append(f"- Not installed here, so that changes of their code go unseen: {_those(table, away)}.")
    notes += [f"- {_over_items(table, row, row.items)}" for row in table.rows if row.items is not None]
    notes += [
        f"- {_those(table, rows)}: {', '.join(names)} undefined: {why}." for names, why, rows in _undefined(table)
    ]
    for row in table.rows:
        for result in row.not_finished:
            seeds = ", ".join(f"{axis} {seed}" for axis, seed in result.run.seeds.items())
            why = result.error.message if result.error else "no result"
            notes.append(f"- {row.label}: {seeds} {result.status}: {why}")
        for result in row.conflicting:
            seeds = ", ".join(f"{axis} {seed}" for axis, seed in result.run.seeds.items())
            notes.append(
                f"- {row.label}: {seeds}: result files with fingerprint {result.fingerprint[:16]} and the same code"
                " disagree; none of them counts (see 'benchsuite results list')."
            )
        if row.environments > 1:
            notes.append(f"- {row.label}: costs not shown, measured in {row.environments} environments.")
    for members in rows_by_environment(table)[1:]:
        labels = ", ".join(table.rows[index].label for index in members)
        notes.append(f"- Costs of {labels}: from another environment than those of most rows, not comparable.")
    if any(row.n == 1 for row in table.rows):
        notes.append("- Rows with n = 1 have no interval, and no rank of their own: run more seeds (--seeds 3).")
    return notes


def _undefined(table: Table) -> list[tuple[list[str], str, list[Row]]]:
    """Return metrics that are undefined for the same rows and reason, the reason, and these rows."""
    rows: dict[tuple[str, str], list[Row]] = {}
    for row in table.rows:
        for name, why in sorted(row.undefined.items()):
            rows.setdefault((name, why), []).append(row)
    found: list[tuple[list[str], str, list[Row]]] = []
    for (name, why), those in rows.items():
        alike = next((names for names, reason, others in found if reason == why and others == those), None)
        if alike is None:
            found.append(([table.display(name)], why, those))
        else:
            alike.append(table.display(name))
    return found


def _over_items(table: Table, row: Row, found: ItemInterval) -> str:
    metric = table.ranked_by
    factor, unit = scale_of(metric)
    unit = "points" if unit == "%" else unit
    numbers = " ".join(f"{value * factor:+,.2f}" for value in (found.difference, found.low, found.high))
    mean, low, high = numbers.split()
    cluster = table.shown.items[metric.name].cluster
    remark = "" if found.decides else f"; fewer than {FEWEST_CLUSTERS}: shown, and decides nothing"
    reference = table.definition.reference
    return f"{row.label} vs {reference} over {found.clusters} x {cluster}: {mean} {unit} ({low} to {high}){remark}."


def _those(table: Table, rows: Sequence[Row]) -> str:
    """Return the names of rows, or that it is all of them."""
    everybody = len(rows) == len(table.rows) > 1
    return "all rows" if everybody else ", ".join(row.label for row in rows)
