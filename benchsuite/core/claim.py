"""Claims of papers, and the numbers that they print, as data: a leaderboard can say which of them hold."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from benchsuite.core.config import build_config
from benchsuite.core.errors import ConfigError, UserError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

Form = Literal["superiority", "non-inferiority", "equivalence", "bound", "cost"]


@dataclass(frozen=True)
class Claim:
    """One checkable sentence about results.

    The effect is ``metric(method) - metric(against)``, signed so that positive means "as claimed"
    (``higher`` says which sign that is), averaged over the shared outermost seeds.

    Parameters
    ----------
    id, statement
        A short name, and the claim in one sentence.
    form
        ``superiority``: effect > margin. ``non-inferiority``: effect > -margin.
        ``equivalence``: abs(effect) < margin. ``bound``: metric(method) itself against ``margin``.
        ``cost``: superiority by ``margin`` while ``cost_metric`` worsens by at most ``cost_at_most``.
    task, metric, method, against
        What is compared; ``against`` is empty for ``bound``.
    higher
        True if the claim says that the method's metric is higher.
    margin, cost_metric, cost_at_most
        In the unit of the metric (fractions for ratios).
    smallest_effect
        How far beyond its bar the effect must lie to be worth a claim, in the unit of the metric; the number of seeds
        is planned for it. Forms with a margin that is no bar to beat (non-inferiority, equivalence) need none.
    reported
        The paper's own effect, only where it has a source; else empty.
    paper_data
        Data sets on which the verdict is about the paper itself. Elsewhere the claim "holds" or
        "does not hold" on that data set.
    protocol
        Protocol fields that must match; empty: every protocol.
    data
        Data sets that the claim is about; empty: every one.
    family
        Whose claims are corrected together: the file that they stand in.
    """

    id: str
    statement: str
    form: Form
    task: str
    metric: str
    method: str
    against: str = ""
    higher: bool = True
    margin: float = 0.0
    cost_metric: str = ""
    cost_at_most: float = 0.0
    smallest_effect: float = 0.0
    reported: str = ""
    paper_data: tuple[str, ...] = ()
    protocol: Mapping[str, Any] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    family: str = ""

    def is_about(self, task: str, data: str, protocol: Mapping[str, Any]) -> bool:
        """Return whether results of this task, on these test data and at this protocol, speak about the claim."""
        at_protocol = all(protocol.get(name) == value for name, value in self.protocol.items())
        return task == self.task and at_protocol and (not self.data or data in self.data)


@dataclass(frozen=True)
class Reported:
    """A number printed by a paper."""

    paper: str
    task: str
    data: str
    row: str
    metric: str
    value: float
    unit: str
    source: str


_REPORTED_COLUMNS = ("task", "data", "row", "metric", "value", "unit", "source")


def read_resource(reference: str) -> bytes:
    """Return the content of ``"package:file"``; raises `UserError` if it is not there."""
    package, _, name = reference.partition(":")
    try:
        return resources.files(package).joinpath(name).read_bytes()
    except (OSError, ModuleNotFoundError, TypeError) as error:
        raise UserError(f"cannot read {reference}: {error}") from None


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
    """Return a settings class with the fields of `Claim` that a file may set, but its free-form protocol."""
    hints = typing.get_type_hints(Claim)
    fields: list[Any] = []
    for item in dataclasses.fields(Claim):
        if item.name in ("protocol", "family"):
            continue
        if item.default is dataclasses.MISSING:
            fields.append((item.name, hints[item.name]))
        else:
            fields.append((item.name, hints[item.name], item.default))
    return dataclasses.make_dataclass("ClaimFields", fields, frozen=True)


_ClaimFields = _claim_fields()


def parse_reported(text: bytes, paper: str, where: str) -> list[Reported]:
    """Parse a ``reported.csv`` (columns task, data, row, metric, value, unit, source).

    Raises
    ------
    ConfigError
        One line that names the file and the problem.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(text.decode("utf-8")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{where}: not a CSV file in UTF-8 ({error})") from None
    numbers = []
    for index, row in enumerate(rows, start=2):
        if set(row) != set(_REPORTED_COLUMNS) or None in row.values():
            raise ConfigError(f"{where}: line {index}: columns must be {', '.join(_REPORTED_COLUMNS)}")
        try:
            value = float(row["value"])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ConfigError(f"{where}: line {index}: {row['value']!r} is not a number")
        texts = {name: row[name] for name in _REPORTED_COLUMNS if name != "value"}
        numbers.append(Reported(paper=paper, value=value, **texts))
    return numbers
