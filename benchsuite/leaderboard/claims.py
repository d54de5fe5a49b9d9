"""Claims of papers: read them, and judge them by results."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchsuite.core.claim import Claim, parse_claims, read_resource
from benchsuite.core.errors import UserError, did_you_mean
from benchsuite.core.method import MethodSpec
from benchsuite.core.result import MetricInfo
from benchsuite.leaderboard.statistics import SIGNIFICANCE, Estimate, estimate, holm
from benchsuite.leaderboard.tables import Row, Table


@dataclass(frozen=True)
class Verdict:
    """What the results say about one claim in one table.

    ``p_value`` is that of the test whose rejection would decide the claim, ``holm`` it after Holm's correction over all
    verdicts on one paper; None: nothing was tested, and ``why`` says for what reason, or that it is exact.
    """

    claim: Claim
    data: str
    table_id: str
    verdict: str
    effect: Estimate | None
    cost: Estimate | None
    command: str
    p_value: float | None = None
    holm: float | None = None
    why: str = ""
    metric: MetricInfo | None = None
    cost_metric: MetricInfo | None = None


def claims_of(methods: Iterable[MethodSpec]) -> tuple[list[Claim], list[str]]:
    """Return the claims of the given methods, each file once, and a line for every file that cannot be used."""
    claims: list[Claim] = []
    problems = []
    for reference in sorted({method.claims for method in methods if method.claims}):
        try:
            claims += [replace(c, family=reference) for c in parse_claims(read_resource(reference), reference)]
        except UserError as error:
            problems.append(str(error))
    return claims, problems


def usable(claims: Iterable[Claim], tables: Sequence[Table]) -> tuple[list[Claim], list[str]]:
    """Return the claims whose metrics the results of their task have, and a line for every other."""
    kept, problems = [], []
    for claim in claims:
        wanted = [claim.metric, *([claim.cost_metric] if claim.form == "cost" else [])]
        known = [{metric.name for metric in table.definition.metrics} for table in tables if table.task == claim.task]
        missing = next((name for name in wanted for names in known if name not in names), None)
        if missing is None:
            kept.append(claim)
        else:
            hint = did_you_mean(missing, sorted(known[0]))
            problems.append(f"{claim.family}: claim {claim.id!r}: task {claim.task!r} has no metric {missing!r}{hint}")
    return kept, problems


def judge(claims: Sequence[Claim], tables: Sequence[Table]) -> list[Verdict]:
    """Judge every claim in every table that can; a claim without one is ``not run``.

    A verdict needs p < 0.05 after Holm's correction over all verdicts of its family.
    """
    found: list[Verdict | _Evidence] = []
    for claim in claims:
        judged = [evidence for table in tables for evidence in _evidence(claim, table)]
        found += judged or [_not_run(claim)]
    evidence = [item for item in found if isinstance(item, _Evidence)]
    adjusted: dict[int, float] = {}
    for family in dict.fromkeys(item.claim.family for item in evidence):
        tested = [item for item in evidence if item.claim.family == family and item.p_value is not None]
        corrected = holm([item.p_value for item in tested if item.p_value is not None])
        adjusted |= {id(item): p for item, p in zip(tested, corrected, strict=True)}
    return [_decided(item, adjusted.get(id(item))) if isinstance(item, _Evidence) else item for item in found]


def _not_run(claim: Claim) -> Verdict:
    data = f" --dataset {claim.data[0]}" if claim.data else ""
    settings = [f" --set task.{key}={_typed(value)}" for key, value in sorted(claim.protocol.items())]
    command = f"benchsuite run --task {claim.task}{data} --method {claim.method}{''.join(settings)}"
    return Verdict(claim, "", "", "not run", None, None, command)


@dataclass(frozen=True)
class _Evidence:
    """What one table says about a claim, before the correction; ``holds`` is the side that the numbers lie on."""

    claim: Claim
    table: Table
    row: Row
    effect: Estimate | None
    cost: Estimate | None
    holds: bool | None
    p_value: float | None
    why: str


def _evidence(claim: Claim, table: Table) -> list[_Evidence]:
    """Return what a table says, once for every preset and device at which both sides have a row."""
    if not claim.is_about(table.task, table.data["test"]["name"], table.protocol):
        return []
    found = []
    for row in default_rows(table, claim.method):
        other = None
        if claim.against:
            opponents = default_rows(table, claim.against)
            other = next((r for r in opponents if (r.preset, r.device) == (row.preset, row.device)), None)
            if other is None:
                continue
        effect = _effect(row, other, claim.metric, 1 if claim.higher else -1)
        cost = _cost_of_claim(claim, row, other, table)
        holds, p_value, why = _tested(claim, effect, cost, table.shown.exact)
        found.append(_Evidence(claim, table, row, effect, cost, holds, p_value, why))
    return found


def default_rows(table: Table, method: str) -> list[Row]:
    """Return the rows of a method as its presets have it, trained (their label is its name) and complete, not stale."""
    return [
        row
        for row in table.rows
        if row.method == method and row.label == method and not (row.stale or row.not_finished)
    ]


def _decided(item: _Evidence, adjusted: float | None) -> Verdict:
    decided = item.why == _EXACT or (adjusted is not None and adjusted < SIGNIFICANCE)
    holds = item.holds if decided else None
    table = item.table
    on_paper_data = table.data["test"]["name"] in item.claim.paper_data and item.row.preset == "paper"
    words = {True: "reproduced", False: "not reproduced", None: "inconclusive"}
    if not on_paper_data:
        words = {True: "holds", False: "does not hold", None: "inconclusive"}
    verdict = words[holds] if on_paper_data else f"{words[holds]} on {table.data_name}"
    return Verdict(
        claim=item.claim,
        data=table.data_name,
        table_id=table.id,
        verdict=verdict,
        effect=item.effect,
        cost=item.cost,
        command=_command(item.claim, item.row, table),
        p_value=item.p_value,
        holm=adjusted,
        why=item.why,
        metric=table.metric(item.claim.metric),
        cost_metric=table.metric(item.claim.cost_metric) if item.claim.form == "cost" else None,
    )


def _effect(row: Row, other: Row | None, metric: str, sign: int) -> Estimate | None:
    """Return metric(row) - metric(other), paired over the outermost seeds that both have."""
    mine = row.by_seed.get(metric, {})
    if other is None:
        return estimate([sign * value for value in mine.values()])
    theirs = other.by_seed.get(metric, {})
    return estimate([sign * (mine[seed] - theirs[seed]) for seed in sorted(mine.keys() & theirs.keys())])


def _cost_of_claim(claim: Claim, row: Row, other: Row | None, table: Table) -> Estimate | None:
    """Return by how much the cost metric is worse than the opponent's."""
    if claim.form != "cost":
        return None
    direction = table.metric(claim.cost_metric).direction
    return _effect(row, other, claim.cost_metric, 1 if direction == "min" else -1)


_EXACT = "exact"
_ONE_SEED = "one seed"
_NO_VARIANCE = "all seeds agree, which is no evidence about others"


def _tested(
    claim: Claim, effect: Estimate | None, cost: Estimate | None, exact: Collection[str]
) -> tuple[bool | None, float | None, str]:
    """Return which side of its bar the claim lies on, the p-value of that, and why there is none.

    Every bar is tried by Student's test at two sides: p < 0.05 says the same as a 95 % interval that excludes it.
    """
    sides = [(effect, claim.metric)] + ([(cost, claim.cost_metric)] if claim.form == "cost" else [])
    for estimate_, metric in sides:
        if estimate_ is None or estimate_.half_width is None:
            return None, None, _ONE_SEED
        if estimate_.half_width == 0.0 and metric not in exact:
            return None, None, _NO_VARIANCE
    assert effect is not None
    bar = -claim.margin if claim.form == "non-inferiority" or not _is_lower_bound(claim) else claim.margin
    above, below = _beyond(effect, bar)
    if claim.form == "equivalence":
        over, under = _beyond(effect, -claim.margin), _beyond(effect, claim.margin)
        holds, fails = max(over[0], under[1]), min(over[1], under[0])
    elif claim.form == "cost":
        assert cost is not None
        dear, cheap = _beyond(cost, claim.cost_at_most)
        holds, fails = max(above, cheap), min(1.0, 2 * min(below, dear))
    else:
        holds, fails = above, below
    certain = all(e is not None and e.half_width == 0.0 for e, _ in sides)
    return holds < fails, None if certain else min(holds, fails), _EXACT if certain else ""


def _is_lower_bound(claim: Claim) -> bool:
    return claim.form != "bound" or claim.higher


def _beyond(effect: Estimate, bar: float) -> tuple[float, float]:
    """Return p-values for "above the bar" and "not above it": 1 on the side that the mean does not lie on."""
    p_value = effect.p_beyond(bar)
    p_value = 0.0 if p_value is None else p_value  # counted: no doubt on which side
    return (p_value, 1.0) if effect.mean > bar else (1.0, p_value)


def _command(claim: Claim, row: Row, table: Table) -> str:
    parts = ["benchsuite run", f"--task {claim.task}"]
    if table.data_name:
        names = {role: ref["name"] for role, ref in table.data.items()}
        one = len(names) == 2 and names["train"] == names["test"]
        parts.append(f"--dataset {names['test'] if one else ','.join(f'{r}={n}' for r, n in names.items())}")
    parts += [f"--method {name}" for name in (claim.method, claim.against) if name]
    if row.preset != "embedded":
        parts.append(f"--preset {row.preset}")
    changes = row.results[0].protocol_changes
    parts += [f"--set task.{key}={_typed(value)}" for key, value in sorted(changes.items())]
    axes = table.definition.seed_axes
    for axis in axes:
        seeds = sorted({result.run.seeds[axis] for result in row.results})
        listed = ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")
        text = str(len(seeds)) if seeds == list(range(len(seeds))) else listed
        parts.append(f"--seeds {axis}={text}" if len(axes) > 1 else f"--seeds {text}")
    return " ".join(parts)


def _typed(value: Any) -> str:
    """Return a protocol value as it is typed after ``--set``."""
    return shlex.quote(",".join(map(str, value)) if isinstance(value, list) else str(value))
