"""How many seeds a claim needs: planned from a pilot on the validation split, before anything is published.

The pilot's seeds are 100 and up and stand in no table. Of it only the spread of the paired differences is taken, never
their mean: what is to be detected is what the claim names (its margin, or its smallest effect). The level is that of
Holm's first step, 5 % by the number of claims on the paper; the power 80 %.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchsuite.core.claim import Claim
from benchsuite.core.result import MetricInfo, Result
from benchsuite.harness.publish import is_pilot
from benchsuite.harness.store import StoredResult
from benchsuite.leaderboard.claims import default_rows
from benchsuite.leaderboard.statistics import SIGNIFICANCE
from benchsuite.leaderboard.tables import Row, Table, build_tables

POWER = 0.8
LONGEST_MINUTES = 60.0
CORES = 2
_MOST_SEEDS = 10_000


@dataclass(frozen=True)
class SeedPlan:
    """What one claim needs on one table's data.

    Attributes
    ----------
    metric
        Of the part of the claim that needs more seeds.
    pilot
        Number of outermost seeds of the pilot.
    spread, distance
        Standard deviation of the paired differences, and the distance from the bar that is to be seen, in the unit of
        the metric; of the part of the claim that needs more seeds.
    level
        Two-sided significance level of the single test.
    seeds, minutes
        Outermost seeds for 80 % power, and what they take on two cores by the pilot's CPU times; None: no pilot, or
        nothing to detect is named (``why``).
    """

    claim: Claim
    data: str
    metric: MetricInfo | None
    pilot: int
    spread: float | None
    distance: float
    level: float
    seeds: int | None
    minutes: float | None
    why: str = ""

    @property
    def decidable(self) -> bool:
        """Whether the seeds needed are known and fit into an hour."""
        return self.seeds is not None and self.minutes is not None and self.minutes <= LONGEST_MINUTES


def plan_seeds(claims: Sequence[Claim], stored: Iterable[StoredResult]) -> list[SeedPlan]:
    """Plan every claim on all data that a pilot has both its sides on.

    Parameters
    ----------
    claims
        All claims; those of one family share the level.
    stored
        Results, of which the pilot's are taken, also those of earlier code: only spreads and times are used. A planned
        seed has as many inner seeds as one of the pilot.
    """
    pilots = build_tables([item for item in stored if is_pilot(item.result)], lambda result: None, split="val")
    sizes: dict[str, int] = {}
    for claim in claims:
        sizes[claim.family] = sizes.get(claim.family, 0) + 1
    plans = []
    for claim in claims:
        level = SIGNIFICANCE / sizes[claim.family]
        found = [plan for table in pilots for plan in _plans(claim, table, level)]
        none = SeedPlan(claim, "", None, 0, None, _distance(claim), level, None, None, "no pilot")
        plans += found or [none]
    return plans


def _plans(claim: Claim, table: Table, level: float) -> Iterable[SeedPlan]:
    if not claim.is_about(table.task, table.data["test"]["name"], table.protocol):
        return
    for row in default_rows(table, claim.method):
        rows = [row]
        if claim.against:
            opponents = default_rows(table, claim.against)
            rows += [r for r in opponents if (r.preset, r.device) == (row.preset, row.device)][:1]
        if len(rows) == (2 if claim.against else 1):
            yield _plan(claim, table, rows, level)


def _plan(claim: Claim, table: Table, rows: Sequence[Row], level: float) -> SeedPlan:
    parts = [(claim.metric, _distance(claim))]
    if claim.form == "cost":
        parts.append((claim.cost_metric, claim.cost_at_most))
    needs: list[tuple[int, float, float, str]] = []
    n = 0
    for metric, distance in parts:
        values = _differences(rows, metric)
        n = len(values)
        if n < 2:
            return SeedPlan(
                claim,
                table.data_name,
                table.metric(metric),
                n,
                None,
                distance,
                level,
                None,
                None,
                "a pilot of one seed",
            )
        spread = statistics.stdev(values)
        if distance <= 0:
            return SeedPlan(
                claim,
                table.data_name,
                table.metric(metric),
                n,
                spread,
                0.0,
                level,
                None,
                None,
                "names no smallest effect",
            )
        needs.append((seeds_needed(spread, distance, level, claim.form == "equivalence"), spread, distance, metric))
    seeds, spread, distance, metric = max(needs)
    minutes = seeds * _seconds_a_seed(rows) / 60 / CORES
    return SeedPlan(claim, table.data_name, table.metric(metric), n, spread, distance, level, seeds, minutes)


def _distance(claim: Claim) -> float:
    return claim.margin if claim.form in ("non-inferiority", "equivalence") else claim.smallest_effect


def _differences(rows: Sequence[Row], metric: str) -> list[float]:
    """Return the values of outermost seeds, of two rows their differences where both have the same inner seeds."""
    first = rows[0].by_seed.get(metric, {})
    if len(rows) == 1:
        return list(first.values())
    second = rows[1].by_seed.get(metric, {})
    alike = [_inner_seeds(row) for row in rows]
    paired = [seed for seed in sorted(first.keys() & second.keys()) if alike[0][seed] == alike[1][seed]]
    return [first[seed] - second[seed] for seed in paired]


def _inner_seeds(row: Row) -> dict[int, set[tuple[int, ...]]]:
    """Return for each outermost seed the seeds of the other axes that a row was run with."""
    found: dict[int, set[tuple[int, ...]]] = {}
    for result in row.results:
        outermost, *others = result.definition.seed_axes
        found.setdefault(result.run.seeds[outermost], set()).add(tuple(result.run.seeds[axis] for axis in others))
    return found


def _seconds_a_seed(rows: Sequence[Row]) -> float:
    """Return the CPU seconds of one outermost seed: its runs, and every stage that they share once."""
    own = math.fsum(math.fsum(map(_own_seconds, row.results)) / row.n for row in rows)
    shared = {
        (result.run.seeds[result.definition.seed_axes[0]], name, timing.cpu_s)
        for row in rows
        for result in row.results
        for name, timing in result.timings.items()
        if timing.shared
    }
    return own + math.fsum(seconds for *_, seconds in shared) / max(row.n for row in rows)


def _own_seconds(result: Result) -> float:
    """Return the CPU seconds of a run's phases without shared stages: on a busy machine wall seconds plan too much."""
    phases = [timing.cpu_s for timing in result.timings.values() if not timing.shared]
    return math.fsum(phases) if phases else result.wall_s


def seeds_needed(spread: float, distance: float, level: float, both_sides: bool = False) -> int:
    """Return the least n whose two-sided t-test at ``level`` sees a mean this far from its bar in 80 % of cases.

    By the noncentral t-distribution. ``both_sides``: two bars, one each way, must both be excluded (equivalence).
    """
    if spread == 0.0:
        return 2
    low, high = 1, 2
    while high < _MOST_SEEDS and _power(high, spread, distance, level, both_sides) < POWER:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = _power(middle, spread, distance, level, both_sides) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def _power(n: int, spread: float, distance: float, level: float, both_sides: bool) -> float:
    from scipy.special import nctdtr, stdtrit

    shift = distance / spread * math.sqrt(n)
    bar = float(stdtrit(n - 1, 1 - level / 2))
    one = 1.0 - float(nctdtr(n - 1, shift, bar))
    return max(0.0, 2 * one - 1) if both_sides else one
