"""Pictures of simulated networks: epoch times against bandwidth, beside the published systems; who is fastest where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchsuite.tasks.distributed_training.cost_model import Exchange, Network, Workload, fastest, published_systems

BANDWIDTHS_GBPS = tuple(float(value) for value in np.geomspace(0.5, 200, 53).round(4))


def mean_epoch_seconds(workload: Workload, exchanges: Sequence[Exchange], network: Network) -> float:
    """Return the seconds of an epoch whose steps take these exchanges in turn."""
    return float(np.mean([workload.epoch_seconds(exchange, network) for exchange in exchanges]))


def draw_epoch_times(
    path: Path,
    workload: Workload,
    methods: Mapping[str, Sequence[Exchange]],
    latency_ms: float,
    beside_published: bool = True,
) -> None:
    """Draw the epoch time of methods against bandwidth.

    Parameters
    ----------
    path
        Of the picture, ``.svg`` or ``.png``.
    methods
        Name to the exchanges of its steps.
    latency_ms
        Of the network.
    beside_published
        Draw the model of the published runs too, if the workload is theirs (BERT-Large, on 16 machines).
    """
    import altair as alt

    curves = {name: (exchanges, "method") for name, exchanges in methods.items()}
    if beside_published and workload.name == "bert-large":
        curves |= {
            f"{name} (published runs)": ([exchange], "published") for name, exchange in published_systems().items()
        }
    records = [
        {
            "algorithm": name,
            "kind": kind,
            "bandwidth": bandwidth,
            "seconds": mean_epoch_seconds(workload, exchanges, Network(bandwidth, latency_ms)),
        }
        for name, (exchanges, kind) in curves.items()
        for bandwidth in BANDWIDTHS_GBPS
    ]
    chart = (
        alt.Chart(alt.InlineData(values=records), mark=alt.MarkDef(type="line"))
        .encode(
            x=alt.X("bandwidth:Q", scale=alt.Scale(type="log", nice=False), title="bandwidth (Gbit/s)"),
            y=alt.Y("seconds:Q", scale=alt.Scale(type="log", nice=False), title=f"epoch of {workload.name} (s)"),
            color=alt.Color(
                "algorithm:N",
                title=None,
                sort=None,
                legend=alt.Legend(labelLimit=260),
                scale=alt.Scale(scheme="category10"),
            ),
            strokeWidth=alt.condition("datum.kind === 'method'", alt.value(4), alt.value(1.5)),
            strokeDash=alt.condition("datum.kind === 'method'", alt.value([1, 0]), alt.value([4, 3])),
        )
        .properties(width=460, height=320, title=f"Epoch time against bandwidth, latency {latency_ms:g} ms")
    )
    chart.save(str(path))


def draw_crossovers(
    path: Path, workload: Workload, methods: Mapping[int, Mapping[str, Sequence[Exchange]]], within: float = 0.01
) -> None:
    """Draw which method is fastest at every bandwidth (0.1 to 400 Gbit/s) and latency (0.01 to 50 ms).

    Parameters
    ----------
    path
        Of the picture, ``.svg`` or ``.png``.
    methods
        For each number of workers (a panel), name to the exchanges of its steps; see `fastest` for their order.
    within
        Share of the shortest epoch within which the first one named counts as the fastest.
    """
    import altair as alt

    bandwidths, latencies = np.geomspace(0.1, 400, 121), np.geomspace(0.01, 50, 61)  # edges of the cells
    records = [
        {
            "workers": f"{workers} workers",
            "algorithm": name,
            "from": bandwidths[start],
            "to": bandwidths[stop],
            "above": latencies[row],
            "below": latencies[row + 1],
        }
        for workers, exchanges in methods.items()
        for row, names in enumerate(fastest(exchanges, workload, _middles(bandwidths), _middles(latencies), within))
        for name, start, stop in runs_of_equals(names)
    ]
    present = {record["algorithm"] for record in records}
    order = [name for name in next(iter(methods.values())) if name in present]
    colours = alt.Scale(scheme="tableau10", domain=order)
    chart = (
        alt.Chart(alt.InlineData(values=records), mark=alt.MarkDef(type="rect", strokeWidth=0.5))
        .encode(
            x=alt.X(
                "from:Q",
                scale=alt.Scale(type="log", nice=False, domain=[0.1, 400]),
                axis=alt.Axis(values=[0.1, 1, 10, 100]),
                title="bandwidth (Gbit/s)",
            ),
            x2="to:Q",
            y=alt.Y(
                "above:Q",
                scale=alt.Scale(type="log", nice=False, domain=[0.01, 50]),
                axis=alt.Axis(values=[0.01, 0.1, 1, 10]),
                title="latency (ms)",
            ),
            y2="below:Q",
            color=alt.Color("algorithm:N", title=None, legend=alt.Legend(labelLimit=260), scale=colours),
            stroke=alt.Stroke("algorithm:N", legend=None, scale=colours),  # else hairlines stay between the cells
        )
        .properties(width=250, height=250)
        .facet(column=alt.Column("workers:N", title=None, sort=[f"{workers} workers" for workers in methods]))
        .properties(
            title=f"Fastest on {workload.name}: the first in the list within {within:.0%} of the shortest epoch"
        )
    )
    chart.save(str(path))


def _middles(edges: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in np.sqrt(edges[:-1] * edges[1:])]


def runs_of_equals(names: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return the runs of equal names in a row of cells: name, first cell, one past the last cell."""
    starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    return [(names[start], start, stop) for start, stop in zip(starts, [*starts[1:], len(names)], strict=True)]
