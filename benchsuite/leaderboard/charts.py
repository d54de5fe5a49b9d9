"""The charts of a table's page, as Vega-Lite specifications made by altair.

A specification holds the values of every metric; the page shows one of them by setting the parameter
``metric``. Colours are left to the page (styles ``interval``, ``seed``, ``point``, ``front`` and ``row-label``),
which knows whether the reader wants it dark.
"""

from __future__ import annotations

import copy
import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchsuite.core.metric import Direction
from benchsuite.leaderboard.cells import cells, scale_of
from benchsuite.leaderboard.statistics import Estimate, compare
from benchsuite.leaderboard.tables import COSTS, Row, Table, reference_of, rows_by_environment

if TYPE_CHECKING:
    import altair as alt

Record = dict[str, Any]

PARAMETERS = "parameters"
_METRIC = "metric"  # the parameter of a chart that the page sets
_FIRST_METRIC_CELL = 4  # rank, method, preset and role come before
_ROW_HEIGHT = 26
_FADED = 0.4
_LOGARITHMIC_FROM = 20.0  # ratio of the dearest to the cheapest row


@dataclass(frozen=True)
class Cost:
    """Something that quality is bought with: its key, its title, and the rows' values (by row index)."""

    name: str
    title: str
    values: Mapping[int, float]


def row_names(table: Table) -> list[str]:
    """Return one name a row: the label, and what tells rows of one label apart."""
    names = [row.label for row in table.rows]
    for extra in ("method", "preset", "device", "config_hash"):
        counts = Counter(names)
        pairs = zip(names, table.rows, strict=True)
        names = [f"{name}, {getattr(row, extra)}" if counts[name] > 1 else name for name, row in pairs]
    return names


def costs_of(table: Table) -> list[Cost]:
    """Return the costs that at least two rows have, measured ones only from the environment that most rows share."""
    measured = next(iter(rows_by_environment(table)), [])
    found = [_cost(name, title, {i: table.rows[i].costs.get(name) for i in measured}) for name, title in COSTS]
    fit, shared, *_ = found
    if any(shared.values.values()):
        both = {i: seconds + shared.values[i] for i, seconds in fit.values.items() if i in shared.values}
        found.insert(0, Cost("all_seconds", "fit and shared stages (CPU s)", both))
    for metric in table.definition.metrics:
        if metric.kind == "cost":
            title = f"{table.display(metric.name)} ({metric.unit})"
            found.append(_cost(metric.name, title, {i: table.rows[i].scores.get(metric.name) for i in measured}))
    sizes = {i: float(row.parameters) for i, row in enumerate(table.rows) if row.parameters is not None}
    found.append(Cost(PARAMETERS, "parameters", sizes))
    return [cost for cost in found if len(cost.values) > 1 and any(cost.values.values())]


def _cost(name: str, title: str, estimates: Mapping[int, Estimate | None]) -> Cost:
    return Cost(name, title, {i: found.mean for i, found in estimates.items() if found is not None})


def pareto_front(points: Mapping[int, tuple[float, float]], direction: Direction) -> list[int]:
    """Return the keys of the ``(cost, quality)`` points that no other point dominates, cheapest first."""
    sign = -1.0 if direction == "min" else 1.0
    front: list[int] = []
    best = -float("inf")
    for key in sorted(points, key=lambda k: (points[k][0], -sign * points[k][1])):
        quality = sign * points[key][1]
        ties = bool(front) and points[front[-1]] == points[key]
        if quality > best or ties:
            front.append(key)
            best = quality
    return front


def interval_chart(table: Table) -> Record:
    """Return the specification of all rows' means, intervals and seeds."""
    import altair as alt

    names = row_names(table)
    rows = alt.Y("row:N", sort=None, scale=alt.Scale(domain=names), title=None)
    value = alt.X("value:Q", scale=alt.Scale(zero=False, nice=True), title=None, axis=alt.Axis(tickCount=5))
    text = [alt.Tooltip(f"{name}:N") for name in ("row", "mean", "n")]
    faded = alt.condition("datum.ranked", alt.value(1.0), alt.value(_FADED))
    hovered = alt.selection_point(name="hovered", on="pointerover", clear="pointerout", fields=["row"], empty=False)

    target = _layer("target", "means", alt.MarkDef(type="bar", opacity=0, height=_ROW_HEIGHT))
    target = target.encode(y=rows, x=alt.value(0), x2=alt.value("width"), tooltip=text).add_params(hovered)
    interval = _layer("interval", "means", alt.MarkDef(type="rule", style="interval"))
    interval = interval.encode(y=rows, x=alt.X("low:Q", title=None), x2="high:Q", opacity=faded, tooltip=text)
    seed = _layer("seeds", "seeds", alt.MarkDef(type="point", style="seed", filled=True))
    seed = seed.encode(
        y=rows,
        x=value,
        opacity=alt.condition(hovered, alt.value(1.0), alt.value(0.35)),
        tooltip=[alt.Tooltip(f"{name}:N") for name in ("row", "seed", "score")],
    )
    mean = _layer("means", "means", alt.MarkDef(type="point", style="point", filled=True))
    mean = mean.encode(y=rows, x=value, opacity=faded, tooltip=text)
    chart = alt.layer(target, interval, mean, seed)
    chart = chart.add_params(alt.param(name=_METRIC)).properties(
        width="container",
        height=_ROW_HEIGHT * len(names),
        description="Mean, 95 % interval and seeds of every row; the table below has the same numbers.",
    )
    records = {"means": _mean_records(table, names), "seeds": _seed_records(table, names)}
    return _filled(_specification(chart), table, records)


def difference_chart(table: Table) -> Record | None:
    """Return the specification of the differences to the reference, in pairs where seeds are shared, with intervals.

    None where no row has both its reference and enough seeds.
    """
    import altair as alt

    names = row_names(table)
    records = _difference_records(table, names)
    if not records:
        return None
    rows = alt.Y("row:N", sort=None, scale=alt.Scale(domain=names), title=None)
    value = alt.X("value:Q", scale=alt.Scale(zero=True, nice=True), title=None, axis=alt.Axis(tickCount=5))
    text = [alt.Tooltip(f"{name}:N") for name in ("row", "difference", "test")]
    zero = _layer("zero", "differences", alt.MarkDef(type="rule", style="front")).encode(x=alt.datum(0.0))
    interval = _layer("interval", "differences", alt.MarkDef(type="rule", style="interval"))
    interval = interval.encode(y=rows, x=alt.X("low:Q", title=None), x2="high:Q", tooltip=text)
    mean = _layer("differences", "differences", alt.MarkDef(type="point", style="point", filled=True))
    chart = alt.layer(zero, interval, mean.encode(y=rows, x=value, tooltip=text))
    chart = chart.add_params(alt.param(name=_METRIC)).properties(
        width="container",
        height=_ROW_HEIGHT * len(names),
        description="Difference to the reference and its 95 % interval, of every row.",
    )
    return _filled(_specification(chart), table, {"differences": records})


def cost_chart(table: Table, cost: Cost) -> Record:
    """Return the specification of all rows' quality against one cost, with the Pareto front."""
    structure = copy.deepcopy(_cost_structure(cost.title, _spans_decades(cost)))
    return _filled(structure, table, {"points": _cost_records(table, cost)})


@functools.cache
def _cost_structure(title: str, logarithmic: bool) -> Record:
    """Return the specification of a chart of costs without its data: most tables have the same ones."""
    import altair as alt

    scale = alt.Scale(type="log") if logarithmic else alt.Scale(zero=False, nice=True)
    x = alt.X("cost:Q", scale=scale, axis=alt.Axis(title=None, tickCount=5, format="~g"))
    y = alt.Y("value:Q", scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(title=None, tickCount=5))
    text = [alt.Tooltip("row:N"), alt.Tooltip("mean:N"), alt.Tooltip("price:N", title=title)]
    faded = alt.condition("datum.ranked", alt.value(1.0), alt.value(_FADED))

    front = _layer("front", "points", alt.MarkDef(type="line", style="front", interpolate="step-after"))
    front = front.transform_filter("datum.front").encode(x=x, y=y, order="cost:Q")
    point = _layer("points", "points", alt.MarkDef(type="point", style="point", filled=True))
    point = point.encode(x=x, y=y, opacity=faded, tooltip=text)
    labels = []
    for name, offset, side in (("cheap", 9, "!datum.dear"), ("dear", -9, "datum.dear")):
        mark = alt.MarkDef(
            type="text", style="row-label", align="left" if offset > 0 else "right", dx=offset, dy=-8, limit=140
        )
        label = _layer(f"{name}-labels", "points", mark).transform_filter(f"datum.front && {side}")
        labels.append(label.encode(x=x, y=y, text="row:N"))
    chart = alt.layer(front, point, *labels)
    chart = chart.add_params(alt.param(name=_METRIC)).properties(
        width="container",
        height=300,
        description=f"Quality against {title} of every row, with the Pareto front; the table has the numbers.",
    )
    return _specification(chart)


def _layer(name: str, data: str, mark: alt.MarkDef) -> alt.Chart:
    import altair as alt

    # Named, because altair counts the names that it gives itself: the same results must give the same bytes.
    return alt.Chart(alt.NamedData(data), mark=mark, name=name).transform_filter(f"datum.metric === {_METRIC}")


def _filled(specification: Record, table: Table, records: Mapping[str, list[Record]]) -> Record:
    """Add the data, by name (altair would copy each value again and again), and the metric shown first."""
    specification["datasets"] = dict(records)
    next(p for p in specification["params"] if p["name"] == _METRIC)["value"] = table.ranked_by.name
    return specification


def _specification(chart: alt.LayerChart | alt.FacetChart) -> Record:
    specification: Record = chart.to_dict(validate=False)
    del specification["config"]  # the page has its own
    return specification


def _spans_decades(cost: Cost) -> bool:
    lowest, highest = min(cost.values.values()), max(cost.values.values())
    return lowest > 0 and highest / lowest >= _LOGARITHMIC_FROM


def _is_dear(price: float, cost: Cost) -> bool:
    """Return whether a point lies in the right half of the chart, where its label goes to its left."""
    lowest, highest = min(cost.values.values()), max(cost.values.values())
    middle = math.sqrt(lowest * highest) if _spans_decades(cost) else (lowest + highest) / 2
    return price > middle


def _mean_records(table: Table, names: Sequence[str]) -> list[Record]:
    records = []
    for name, row in zip(names, table.rows, strict=True):
        texts = _score_texts(table, row)
        for metric in table.definition.metrics:
            score = row.scores.get(metric.name)
            if score is None:
                continue
            half, scale = score.half_width or 0.0, scale_of(metric)[0]
            low, high = (score.mean - half) * scale, (score.mean + half) * scale
            record = {"row": name, "metric": metric.name, "value": score.mean * scale, "low": low, "high": high}
            records.append(record | {"mean": texts[metric.name], "n": str(row.n), "ranked": row.rank is not None})
    return records


def _seed_records(table: Table, names: Sequence[str]) -> list[Record]:
    axis = table.definition.seed_axes[0]
    records = []
    for name, row in zip(names, table.rows, strict=True):
        for metric in table.definition.metrics:
            scale = scale_of(metric)[0]
            for seed, value in sorted(row.by_seed.get(metric.name, {}).items()):
                record = {"row": name, "metric": metric.name, "value": value * scale}
                records.append(record | {"seed": f"{axis} {seed}", "score": f"{value * scale:.4g}"})
    return records


def _difference_records(table: Table, names: Sequence[str]) -> list[Record]:
    records = []
    for name, row in zip(names, table.rows, strict=True):
        reference = reference_of(table, row)
        if reference is None:
            continue
        for metric in table.definition.metrics:
            found = compare(row.by_seed.get(metric.name, {}), reference.by_seed.get(metric.name, {}))
            if found is None:
                continue
            scale = scale_of(metric)[0]
            mean, half = found.difference * scale, found.half_width * scale
            record = {"row": name, "metric": metric.name, "value": mean, "low": mean - half, "high": mean + half}
            test = f"{found.n} pairs" if found.paired else "unpaired"
            records.append(record | {"difference": f"{mean:+.4g} ± {half:.3g}", "test": test})
    return records


def _cost_records(table: Table, cost: Cost) -> list[Record]:
    names = row_names(table)
    texts = {i: _score_texts(table, table.rows[i]) for i in cost.values}
    records = []
    for metric in table.definition.metrics:
        points = _points(table, cost, metric.name)
        ranked = {i: point for i, point in points.items() if table.rows[i].rank is not None}
        front = set(pareto_front(ranked, metric.direction))
        for i, (price, value) in points.items():
            record: Record = {"row": names[i], "metric": metric.name, "cost": price, "price": f"{price:,.4g}"}
            record |= {"value": value * scale_of(metric)[0], "mean": texts[i][metric.name]}
            records.append(record | {"front": i in front, "ranked": i in ranked, "dear": _is_dear(price, cost)})
    return records


def _points(table: Table, cost: Cost, metric: str) -> dict[int, tuple[float, float]]:
    scores = {i: table.rows[i].scores.get(metric) for i in cost.values}
    return {i: (cost.values[i], score.mean) for i, score in scores.items() if score is not None}


def _score_texts(table: Table, row: Row) -> dict[str, str]:
    texts = cells(table, row)[_FIRST_METRIC_CELL:]
    return {metric.name: text.replace("+-", "±") for metric, text in zip(table.definition.metrics, texts, strict=False)}
