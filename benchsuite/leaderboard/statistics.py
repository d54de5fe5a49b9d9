"""Means, intervals, tests and ranks over seeds.

Inner seed axes are averaged inside the outermost one first: eight few-shot draws on each of three base
trainings are three independent values, not twenty-four.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from scipy.special import betainc, betaincinv

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05


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

    def p_beyond(self, bar: float) -> float | None:
        """Return the two-sided p-value of Student's test of the mean against ``bar``; None without any variance."""
        if not self.half_width:
            return None
        error = self.half_width / _student_quantile(self.n - 1)
        return _two_sided((self.mean - bar) / error, self.n - 1)


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return mean and Student-t interval of independent values; None for no values."""
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, 1)
    quantile = _student_quantile(n - 1)
    return Estimate(mean, quantile * _deviation(values, mean) / math.sqrt(n), n)


def _student_quantile(freedom: float) -> float:
    """Return the two-sided quantile of Student's t.

    By the inverse of the incomplete beta function, which old and new SciPy compute to the last digits; their own
    inverses of Student's distribution differ from the tenth digit on.
    """
    x = float(betaincinv(freedom / 2, 0.5, SIGNIFICANCE))
    return math.sqrt(freedom * (1.0 - x) / x)


def _deviation(values: Sequence[float], mean: float) -> float:
    """Return the sample standard deviation; exactly 0 for equal values."""
    if min(values) == max(values):
        return 0.0
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


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
    """A row against another on one metric.

    Attributes
    ----------
    difference, half_width
        Mean of row minus other, and the half width of its 95 % interval (of Student's t, in pairs where there are).
    p_value
        Two-sided; of a paired t-test over shared seeds, else of Welch's test. None where the seeds do not vary: a
        difference that is the same for every seed is no evidence about other data. ``holm`` is it after Holm's
        correction inside the table.
    effect_size
        Cohen's d: mean difference over the standard deviation of the differences (paired) or over the root
        mean variance (Welch). None if that is zero.
    paired, n
        Which test, and how many pairs (of the smaller group for Welch).
    exact
        The metric is counted, not estimated: a difference without variance is a difference.
    """

    difference: float
    half_width: float
    p_value: float | None
    effect_size: float | None
    paired: bool
    n: int
    exact: bool = False
    holm: float | None = None

    @property
    def clear(self) -> bool:
        """Whether the difference excludes zero after the correction."""
        if self.p_value is None:
            return self.exact and self.difference != 0.0
        return self.holm is not None and self.holm < SIGNIFICANCE


def compare(values: Mapping[int, float], other: Mapping[int, float], exact: bool = False) -> Comparison | None:
    """Compare two rows by their values per outermost seed.

    Paired over the shared seeds if there are at least two, else Welch's t-test. Returns None if a group has fewer than
    two values.
    """
    shared = sorted(values.keys() & other.keys())
    if len(shared) >= 2:
        return _paired([values[seed] - other[seed] for seed in shared], exact)
    if len(values) < 2 or len(other) < 2:
        return None
    return _welch(list(values.values()), list(other.values()), exact)


def _paired(differences: Sequence[float], exact: bool) -> Comparison:
    n, mean = len(differences), math.fsum(differences) / len(differences)
    deviation = _deviation(differences, mean)
    if deviation == 0.0:
        return Comparison(mean, 0.0, 1.0 if mean == 0.0 else None, None, True, n, exact)
    error = deviation / math.sqrt(n)
    half_width = _student_quantile(n - 1) * error
    return Comparison(mean, half_width, _two_sided(mean / error, n - 1), mean / deviation, True, n, exact)


def _welch(one: Sequence[float], two: Sequence[float], exact: bool) -> Comparison:
    means = math.fsum(one) / len(one), math.fsum(two) / len(two)
    mean = means[0] - means[1]
    variances = _deviation(one, means[0]) ** 2, _deviation(two, means[1]) ** 2
    errors = variances[0] / len(one), variances[1] / len(two)
    n = min(len(one), len(two))
    if sum(errors) == 0.0:
        return Comparison(mean, 0.0, 1.0 if mean == 0.0 else None, None, False, n, exact)
    freedom = sum(errors) ** 2 / (errors[0] ** 2 / (len(one) - 1) + errors[1] ** 2 / (len(two) - 1))
    error = math.sqrt(sum(errors))
    half_width = _student_quantile(freedom) * error
    d = mean / math.sqrt(sum(variances) / 2)
    return Comparison(mean, half_width, _two_sided(mean / error, freedom), d, False, n, exact)


def corrected(comparisons: Sequence[Comparison | None]) -> list[Comparison | None]:
    """Return the comparisons with Holm's correction over those that have a p-value, in the given order."""
    tested = [(i, c.p_value) for i, c in enumerate(comparisons) if c is not None and c.p_value is not None]
    found = list(comparisons)
    for (i, _), adjusted in zip(tested, holm([p for _, p in tested]), strict=True):
        found[i] = replace(cast(Comparison, found[i]), holm=adjusted)
    return found


def rank_ranges(size: int, direction: str, compared: Callable[[int, int], Comparison | None]) -> list[tuple[int, int]]:
    """Return for each of so many rows the best and the worst rank that the comparisons leave open, from 1.

    A row stands below another only if their difference excludes zero after Holm's correction over all pairs.
    ``compared(i, j)`` compares row i with row j.
    """
    sign = -1.0 if direction == "min" else 1.0
    pairs = list(itertools.combinations(range(size), 2))
    better, worse = [0] * size, [0] * size
    for (i, j), found in zip(pairs, corrected([compared(i, j) for i, j in pairs]), strict=True):
        if found is not None and found.clear:
            first, second = (i, j) if sign * found.difference > 0 else (j, i)
            better[second] += 1
            worse[first] += 1
    return [(1 + above, size - below) for above, below in zip(better, worse, strict=True)]


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
