"""Uncertainty over items: how much a difference between two rows owes to the records, images or nodes of the test part.

A paired cluster bootstrap. On fixed data a deterministic method gives every seed the same score; that says nothing
about other persons. Clusters (persons, scenes) are drawn with replacement, the same for both rows and for all seeds,
and the metric is computed anew from the sums over the items drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.result import Result
from benchsuite.core.task import Ratio

Floats = NDArray[np.float64]

DRAWS = 10_000
FEWEST_CLUSTERS = 20
_SEED = 0
_BLOCK = 2_000_000  # weights in memory at a time


@dataclass(frozen=True)
class ItemInterval:
    """A difference of two rows with its 95 % percentile interval over clusters of items.

    ``p_value`` is two-sided: twice the smaller share of draws on one side of zero. Below 20 clusters it ``decides``
    nothing.
    """

    difference: float
    low: float
    high: float
    p_value: float
    clusters: int

    @property
    def decides(self) -> bool:
        """Whether there are enough clusters to conclude from."""
        return self.clusters >= FEWEST_CLUSTERS


def item_interval(
    one: Mapping[int, Sequence[Result]], other: Mapping[int, Sequence[Result]], ratio: Ratio
) -> ItemInterval | None:
    """Compare two rows over the clusters of their items.

    Parameters
    ----------
    one, other
        Outermost seed to results; those of shared seeds are compared, in pairs.
    ratio
        What the metric is made of.

    Returns
    -------
    interval
        None if no seeds are shared, a table or column is missing, the rows or seeds were judged on different clusters,
        or there is only one.
    """
    seeds = sorted(one.keys() & other.keys())
    sums = [[_sums(result, ratio) for result in row[seed]] for seed in seeds for row in (one, other)]
    flat = [found for row in sums for found in row]
    if not flat or any(found is None or found.keys() != (flat[0] or {}).keys() for found in flat):
        return None
    clusters = sorted(flat[0] or {})
    if len(clusters) < 2:
        return None
    stacked = [np.array([[found[c] for c in clusters] for found in row if found is not None]) for row in sums]
    draws = _draws(len(clusters))
    found = np.concatenate([_difference(stacked, weights) for weights in draws])
    actual = float(_difference(stacked, np.ones((1, len(clusters))))[0])
    low, high = (float(v) for v in np.percentile(found, [2.5, 97.5]))
    beyond = min(int((found <= 0).sum()), int((found >= 0).sum()))
    return ItemInterval(actual, low, high, min(1.0, 2 * (beyond + 1) / (len(found) + 1)), len(clusters))


def _sums(result: Result, ratio: Ratio) -> dict[str, tuple[float, float]] | None:
    """Return for each cluster the weighted sums of numerator and denominator."""
    found: dict[str, tuple[float, float]] = {}
    for item in result.tables.get(ratio.table, []):
        if not {ratio.cluster, *ratio.numerator, *ratio.denominator} <= item.keys():
            return None
        key = str(item[ratio.cluster])
        above, below = found.get(key, (0.0, 0.0))
        found[key] = (above + _weighted(item, ratio.numerator), below + _weighted(item, ratio.denominator))
    return found or None


def _weighted(item: Mapping[str, Any], weights: Mapping[str, float]) -> float:
    return sum(weight * float(item[column]) for column, weight in weights.items())


def _draws(clusters: int) -> list[NDArray[np.int64]]:
    """Return how often each cluster is drawn, (draws, clusters), in blocks; always the same."""
    rng = np.random.default_rng(_SEED)
    block = max(1, _BLOCK // clusters)
    sizes = [min(block, DRAWS - start) for start in range(0, DRAWS, block)]
    return [rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=size) for size in sizes]


def _difference(stacked: Sequence[Floats], weights: NDArray[Any]) -> Floats:
    """Return the difference of the metric for every row of weights, averaged over seeds.

    ``stacked`` has (results, clusters, 2) sums of the first row, of the second, of the first at the next seed, ...
    """
    metric = []
    for sums in stacked:
        above, below = weights @ sums[:, :, 0].T, weights @ sums[:, :, 1].T
        metric.append(np.divide(above, below, out=np.zeros_like(above, dtype=float), where=below > 0).mean(axis=1))
    return np.asarray(np.mean([metric[i] - metric[i + 1] for i in range(0, len(metric), 2)], axis=0))
