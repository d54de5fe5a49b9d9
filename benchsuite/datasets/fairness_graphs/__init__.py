"""Graphs whose nodes carry a label and a sensitive attribute: bail, german, credit, and a generated one."""

from __future__ import annotations

from typing import Any

from benchsuite.core import DatasetSpec

_GRAPH: dict[str, Any] = {
    "data_type": "benchsuite.datasets.fairness_graphs.graph:FairnessGraph",
    "requires": ("numpy", "pandas"),
}
_NIFTY = (
    "C. Agarwal, H. Lakkaraju, M. Zitnik: Towards a unified framework for fair and stable graph"
    " representation learning, UAI 2021"
)

SYNTHETIC_PARAMETERS: dict[str, Any] = {
    "nodes": 1000,
    "label_rate": [0.35, 0.3],
    "informative": [6, 0.55],
    "proxies": [3, 1.0],
    "noise": 5,
    "homophily": [1.6, 0.4],
    "mean_degree": 10,
    "split": [0.3, 0.5],
}
"""What determines the generated graph besides the draw.

``label_rate``: P(y = 1 | s) = first + second * s. ``informative``, ``proxies``: number of columns that
follow the label or the group, and how far the two means lie from zero. ``noise``: number of columns that
follow nothing. ``homophily``: relative chance of an edge between nodes of the same and of another label,
likewise for groups. ``split``: where each class is cut into train, validation and test.
"""

DATASETS = (
    DatasetSpec(
        name="biased-graph",
        version="1",
        title="Generated graph with a strong group bias (1,000 nodes)",
        load="benchsuite.datasets.fairness_graphs.generated:load_synthetic",
        embedded=True,
        licence="Apache-2.0",
        parameters=SYNTHETIC_PARAMETERS,
        **_GRAPH,
    ),
    DatasetSpec(
        name="bail",
        version="1",
        title="Recidivism: 18,876 released defendants, sensitive attribute WHITE",
        load="benchsuite.datasets.fairness_graphs.reader:load_bail",
        homepage="https://github.com/chirag126/nifty",
        licence="MIT",
        citation=_NIFTY,
        files=("bail.csv",),
        optional_files=("bail_edges.*", "split/*.npy"),
        layout="bail.csv, bail_edges.txt or .npz (else regenerated), split/*_split.npy (else by rule)",
        **_GRAPH,
    ),
    DatasetSpec(
        name="german",
        version="1",
        title="German credit: 1,000 clients, sensitive attribute Gender",
        load="benchsuite.datasets.fairness_graphs.reader:load_german",
        homepage="https://github.com/chirag126/nifty",
        licence="MIT",
        citation=_NIFTY,
        files=("german.csv",),
        optional_files=("german_edges.*", "split/*.npy"),
        layout="german.csv, german_edges.txt or .npz (else regenerated), split/*_split.npy (else by rule)",
        **_GRAPH,
    ),
    DatasetSpec(
        name="credit",
        version="2",
        title="Credit default: 29,460 of 30,000 card holders, sensitive attribute Age",
        load="benchsuite.datasets.fairness_graphs.reader:load_credit",
        homepage="https://github.com/chirag126/nifty",
        licence="MIT",
        citation=_NIFTY,
        files=("credit.csv",),
        optional_files=("credit_edges*.*",),
        layout="credit.csv, credit_edges.txt or .npz (else regenerated)",
        **_GRAPH,
    ),
)
