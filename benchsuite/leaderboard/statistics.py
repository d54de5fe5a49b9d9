"""Means and intervals over seeds.

Inner seed axes are averaged inside the outermost one first: eight few-shot draws on each of three base
trainings are three independent values, not twenty-four.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.special import betainc, betaincinv

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
    quantile = _student_quantile(n - 1)
    return Estimate(mean, quantile * statistics.stdev(values) / math.sqrt(n), n)


def _student_quantile(freedom: int) -> float:
    """Return the two-sided quantile of Student's t.

    By the inverse of the incomplete beta function, which old and new SciPy compute to the last digits; their own
    inverses of Student's distribution differ from the tenth digit on.
    """
    x = float(betaincinv(freedom / 2, 0.5, 1.0 - CONFIDENCE))
    return math.sqrt(freedom * (1.0 - x) / x)


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


@dataclass(frozen=True)
class Comparison:
    """A row against the reference on one metric.

    Attributes
    ----------
    difference
        Mean of row minus reference.
    p_value
        Two-sided; of a paired t-test over shared seeds, else of Welch's test. ``holm`` is it after Holm's
        correction inside the table.
    effect_size
        Cohen's d: mean difference over the standard deviation of the differences (paired) or over the root
        mean variance (Welch). None if that is zero.
    paired, n
        Which test, and how many pairs (of the smaller group for Welch).
    """

    difference: float
    p_value: float
    effect_size: float | None
    paired: bool
    n: int
    holm: float | None = None


def compare(values: Mapping[int, float], reference: Mapping[int, float]) -> Comparison | None:
    """Compare two rows by their values per outermost seed.

    Paired over the shared seeds if there are at least two, else Welch's t-test. Returns None if a group
    has fewer than two values. Without any variance p is 1 for equal means and 0 for different ones.
    """
    shared = sorted(values.keys() & reference.keys())
    if len(shared) >= 2:
        return _paired([values[seed] - reference[seed] for seed in shared])
    if len(values) < 2 or len(reference) < 2:
        return None
    return _welch(list(values.values()), list(reference.values()))


def _paired(differences: Sequence[float]) -> Comparison:
    n, mean = len(differences), math.fsum(differences) / len(differences)
    deviation = statistics.stdev(differences)
    if deviation == 0.0:
        return Comparison(mean, 1.0 if mean == 0.0 else 0.0, None, True, n)
    t = mean / (deviation / math.sqrt(n))
    return Comparison(mean, _two_sided(t, n - 1), mean / deviation, True, n)


def _welch(one: Sequence[float], two: Sequence[float]) -> Comparison:
    mean = math.fsum(one) / len(one) - math.fsum(two) / len(two)
    variances = statistics.variance(one), statistics.variance(two)
    errors = variances[0] / len(one), variances[1] / len(two)
    n = min(len(one), len(two))
    if sum(errors) == 0.0:
        return Comparison(mean, 1.0 if mean == 0.0 else 0.0, None, False, n)
    freedom = sum(errors) ** 2 / (errors[0] ** 2 / (len(one) - 1) + errors[1] ** 2 / (len(two) - 1))
    t = mean / math.sqrt(sum(errors))
    return Comparison(mean, _two_sided(t, freedom), mean / math.sqrt(sum(variances) / 2), False, n)


def _two_sided(t: float, freedom: float) -> float:
    return float(betainc(freedom / 2, 0.5, freedom / (freedom + t * t)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values after Holm's step-down correction, in the given order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for position, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - position) * p_values[index]))
        adjusted[index] = running
    return adjusted


def clearly_better(one: Estimate, two: Estimate, direction: str) -> bool:
    """Return whether ``one`` beats ``two``: by intervals that do not overlap, by means if one has none."""
    sign = 1.0 if direction == "max" else -1.0
    if one.half_width is None or two.half_width is None:
        return sign * one.mean > sign * two.mean
    gap = sign * (one.mean - two.mean)
    return gap > one.half_width + two.half_width
