"""Claims of papers: read them, and judge them by results."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from benchsuite.core.claim import Claim
from benchsuite.core.config import build_config
from benchsuite.core.errors import ConfigError, UserError
from benchsuite.core.method import MethodSpec
from benchsuite.leaderboard.statistics import Estimate, estimate
from benchsuite.leaderboard.tables import Row, Table

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib


@dataclass(frozen=True)
class Verdict:
    """What the results say about one claim in one table."""

    claim: Claim
    data: str
    table_id: str
    verdict: str
    effect: Estimate | None
    cost: Estimate | None
    command: str


def read_resource(reference: str) -> bytes:
    """Return the content of ``"package:file"``; raises `UserError` if it is not there."""
    package, _, name = reference.partition(":")
    try:
        return resources.files(package).joinpath(name).read_bytes()
    except (OSError, ModuleNotFoundError, TypeError) as error:
        raise UserError(f"cannot read {reference}: {error}") from None


def claims_of(methods: Iterable[MethodSpec]) -> tuple[list[Claim], list[str]]:
    """Return the claims of the given methods, each file once, and a line for every file that cannot be used."""
    claims: list[Claim] = []
    problems = []
    for reference in sorted({method.claims for method in methods if method.claims}):
        try:
            claims += parse_claims(read_resource(reference), reference)
        except UserError as error:
            problems.append(str(error))
    return claims, problems


def parse_claims(text: bytes, where: str | Path) -> list[Claim]:
    """Parse a claims file (TOML, ``[[claim]]`` tables with the fields of `Claim`).

    Raises
    ------
    ConfigError
        One line that names the file and the problem.
    """
    try:
        document = tomllib.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid TOML ({' '.join(str(error).split())})") from None
    entries = document.get("claim", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{where}: claims are written as [[claim]] tables")
    claims = [_build_claim(entry, where) for entry in entries]
    ids = [claim.id for claim in claims]
    for name in ids:
        if ids.count(name) > 1:
            raise ConfigError(f"{where}: claim {name!r} is there twice")
    return claims


def _build_claim(entry: dict[str, Any], where: str | Path) -> Claim:
    protocol = entry.get("protocol", {})
    if not isinstance(protocol, dict):
        raise ConfigError(f"{where}: protocol is a table of fields")
    settings = {key: value for key, value in entry.items() if key != "protocol"}
    claim: Any = build_config(_ClaimFields, settings, f"{where}: claim {entry.get('id', '?')!r}")
    return Claim(**vars(claim), protocol=protocol)


def _claim_fields() -> type:
    """Return a settings class with the fields of `Claim` but its free-form protocol."""
    import dataclasses
    import typing

    hints = typing.get_type_hints(Claim)
    fields: list[Any] = []
    for item in dataclasses.fields(Claim):
        if item.name == "protocol":
            continue
        if item.default is dataclasses.MISSING:
            fields.append((item.name, hints[item.name]))
        else:
            fields.append((item.name, hints[item.name], item.default))
    return dataclasses.make_dataclass("ClaimFields", fields, frozen=True)


_ClaimFields = _claim_fields()


def judge(claims: Sequence[Claim], tables: Sequence[Table]) -> list[Verdict]:
    """Judge every claim in every table that can; a claim without one is ``not run``."""
    verdicts: list[Verdict] = []
    for claim in claims:
        judged = [v for table in tables if (v := _judge_in(claim, table)) is not None]
        if not judged:
            settings = [f" --set task.{key}={_typed(value)}" for key, value in sorted(claim.protocol.items())]
            command = f"benchsuite run --task {claim.task} --method {claim.method}{''.join(settings)}"
            judged = [Verdict(claim, "", "", "not run", None, None, command)]
        verdicts += judged
    return verdicts


def _judge_in(claim: Claim, table: Table) -> Verdict | None:
    if table.task != claim.task or any(table.protocol.get(k) != v for k, v in claim.protocol.items()):
        return None
    row = _default_row(table, claim.method)
    other = _default_row(table, claim.against) if claim.against else None
    if row is None or (claim.against and other is None):
        return None
    effect = _effect(row, other, claim.metric, 1 if claim.higher else -1)
    cost = _cost_of_claim(claim, row, other, table)
    holds = _holds(claim, effect, cost)
    on_paper_data = table.data["test"]["name"] in claim.paper_data and row.preset == "paper"
    words = {True: "reproduced", False: "not reproduced", None: "inconclusive"}
    if not on_paper_data:
        words = {True: "holds", False: "does not hold", None: "inconclusive"}
    verdict = words[holds] if on_paper_data else f"{words[holds]} on {table.data_name}"
    return Verdict(claim, table.data_name, table.id, verdict, effect, cost, _command(claim, row, table))


def _default_row(table: Table, method: str) -> Row | None:
    """Return the row of a method as its preset has it, made by the present code and complete."""
    for row in table.rows:
        if row.method == method and row.label == method and not row.stale and not row.not_finished:
            return row
    return None


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
    direction = {m.name: m.direction for m in table.definition.metrics}.get(claim.cost_metric, "min")
    return _effect(row, other, claim.cost_metric, 1 if direction == "min" else -1)


def _holds(claim: Claim, effect: Estimate | None, cost: Estimate | None) -> bool | None:
    """Return whether the claim holds by the 95 % intervals; None if they do not decide it."""
    if effect is None or effect.half_width is None:
        return None
    if claim.form == "equivalence":
        if -claim.margin < effect.low and effect.high < claim.margin:
            return True
        return False if effect.low >= claim.margin or effect.high <= -claim.margin else None
    bar = -claim.margin if claim.form == "non-inferiority" else claim.margin
    if claim.form == "bound" and not claim.higher:
        bar = -claim.margin
    better = True if effect.low > bar else False if effect.high <= bar else None
    if claim.form != "cost":
        return better
    if cost is None or cost.half_width is None:
        return None
    cheap = True if cost.high <= claim.cost_at_most else False if cost.low > claim.cost_at_most else None
    if better is False or cheap is False:
        return False
    return True if better and cheap else None


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
