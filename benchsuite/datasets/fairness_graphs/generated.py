"""The generated graph with a strong group bias."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchsuite.datasets.fairness_graphs import SYNTHETIC_PARAMETERS
from benchsuite.datasets.fairness_graphs.graph import FairnessGraph, Floats, Integers
from benchsuite.datasets.fairness_graphs.rules import class_balanced_split, symmetric_with_self_loops


def load_synthetic(root: Path | None, draw: int) -> FairnessGraph:
    """Generate a graph with a strong group bias: groups differ in base rate, features and neighbours.

    Group s is a fair coin, label y is 1 with probability .35 + .3 s. Of the 15 features column 0 is s, six
    follow the label, three follow the group, five are noise. Edges prefer equal labels and equal groups.
    All numbers are in `SYNTHETIC_PARAMETERS`.

    Parameters
    ----------
    root
        Ignored: nothing is read.
    draw
        Which sample is taken; seeds a NumPy generator (and the split). Whole number >= 0.
    """
    p = SYNTHETIC_PARAMETERS
    rng = np.random.default_rng(draw)
    nodes = p["nodes"]
    sensitive = rng.integers(0, 2, nodes)
    base, slope = p["label_rate"]
    labels = (rng.random(nodes) < base + slope * sensitive).astype(np.int64)
    features = _synthetic_features(rng, labels, sensitive)
    split = class_balanced_split(labels, tuple(p["split"]), seed=draw)
    graph = FairnessGraph(
        name="biased-graph",
        features=features.astype(np.float32),
        edge_index=symmetric_with_self_loops(_synthetic_edges(rng, labels, sensitive), nodes),
        labels=labels,
        sensitive=sensitive,
        train=split[0],
        validation=split[1],
        test=split[2],
        feature_names=(
            "group",
            *(f"informative_{i}" for i in range(p["informative"][0])),
            *(f"group_proxy_{i}" for i in range(p["proxies"][0])),
            *(f"noise_{i}" for i in range(p["noise"])),
        ),
    )
    graph.validate()
    return graph


def _synthetic_features(rng: np.random.Generator, labels: Integers, sensitive: Integers) -> Floats:
    p = SYNTHETIC_PARAMETERS
    informative, label_shift = p["informative"]
    proxies, group_shift = p["proxies"]
    noise = rng.standard_normal((len(labels), informative + proxies + p["noise"]))
    noise[:, :informative] += label_shift * (2 * labels - 1)[:, None]
    noise[:, informative : informative + proxies] += group_shift * (2 * sensitive - 1)[:, None]
    return np.column_stack([sensitive, noise])


def _synthetic_edges(rng: np.random.Generator, labels: Integers, sensitive: Integers) -> Integers:
    p = SYNTHETIC_PARAMETERS
    same, other = p["homophily"]
    source, target = np.triu_indices(len(labels), k=1)
    weight = np.where(labels[source] == labels[target], same, other)
    weight *= np.where(sensitive[source] == sensitive[target], same, other)
    edges = len(labels) * p["mean_degree"] / 2
    chosen = rng.random(len(weight)) < weight * (edges / weight.sum())
    return np.stack([source[chosen], target[chosen]], axis=1)
