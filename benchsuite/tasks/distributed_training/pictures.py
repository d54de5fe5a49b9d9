"""The picture of a simulated run: how long an epoch takes at every bandwidth, beside the published systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchsuite.tasks.distributed_training.cost_model import Exchange, Network, Workload, published_systems

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
