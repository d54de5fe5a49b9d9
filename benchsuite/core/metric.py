"""What a number on a leaderboard means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["max", "min", "target"]
Kind = Literal["quality", "cost"]


@dataclass(frozen=True)
class Metric:
    """One measured quantity.

    Parameters
    ----------
    name
        The field's standard term in snake case, e.g. ``statistical_parity_difference``.
    direction
        ``"max"`` if larger is better, ``"min"`` if smaller is better, ``"target"`` if nearer to ``target`` is.
    unit
        ``"fraction"`` for ratios (stored in [0, 1], shown as percent), else the unit shown ("s", "MB").
    kind
        ``"quality"``: a function of the seeds, repeated bit for bit by deterministic methods on the CPU.
        ``"cost"``: time, memory or throughput, compared only inside one environment.
    doc
        One line: the definition and its source.
    target
        The value to be reached, for the direction ``"target"`` (coverage of 90 %); None for the others.
    """

    name: str
    direction: Direction
    unit: str = "fraction"
    kind: Kind = "quality"
    doc: str = ""
    target: float | None = None

    def __post_init__(self) -> None:
        if (self.direction == "target") != (self.target is not None):
            raise ValueError(f"metric {self.name!r}: a target belongs to the direction 'target', and only to it")
