"""Means and intervals over seeds.

Inner seed axes are averaged inside the outermost one first: eight few-shot draws on each of three base
trainings are three independent values, not twenty-four.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean, the half width of its 95 % Student-t interval (None for one value), and n."""

    mean: float
    half_width: float | None
    n: int

    @property
    def low(self) -> float:
        """Lower end of the interval; minus infinity without one."""
        return self.mean - self.half_width if self.half_width is not None else -math.inf

    @property
    def high(self) -> float:
        """Upper end of the interval; infinity without one."""
        return self.mean + self.half_width if self.half_width is not None else math.inf


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return mean and Student-t interval of independent values; None for no values."""
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, 1)
    quantile = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2))
    return Estimate(mean, quantile * statistics.stdev(values) / math.sqrt(n), n)


def outer_means(values: Iterable[tuple[Mapping[str, int], float]], axes: Sequence[str]) -> dict[int, float]:
    """Average the inner axes: outermost seed to mean value.

    Parameters
    ----------
    values
        Pairs of seeds (axis to value) and score.
    axes
        Seed axes, outermost first. With nested inner axes the average is taken level by level.
    """
    tree: dict[tuple[int, ...], list[float]] = {}
    for seeds, value in values:
        tree.setdefault(tuple(seeds[axis] for axis in axes), []).append(value)
    means = {path: math.fsum(found) / len(found) for path, found in tree.items()}
    while means and len(next(iter(means))) > 1:
        level: dict[tuple[int, ...], list[float]] = {}
        for path, value in means.items():
            level.setdefault(path[:-1], []).append(value)
        means = {path: math.fsum(found) / len(found) for path, found in level.items()}
    return {path[0]: value for path, value in sorted(means.items())}
