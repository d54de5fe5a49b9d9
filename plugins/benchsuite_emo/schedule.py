"""Rates of learning: pure functions of the number of the step, so that a training goes on anywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchsuite_emo.config import Schedule

__all__ = ["Rates"]

_POWER = 0.9


@dataclass(frozen=True)
class Rates:
    """The rate of every step.

    Attributes
    ----------
    kind
        See `benchsuite_emo.config.EMOConfig.schedule`.
    base, total
        Highest rate, number of steps.
    floor
        Lowest rate of the cosine.
    warm_up, start
        Steps of the warm-up; the rate (``cosine``) or the factor (``cosine-scaled``) that it starts from.
    """

    kind: Schedule
    base: float
    total: int
    floor: float = 0.0
    warm_up: int = 0
    start: float = 0.0

    def __call__(self, step: int) -> float:
        """Return the rate of step ``step``, counted from 0."""
        if self.kind == "poly":
            return self.base * float((1 - step / self.total) ** _POWER)
        if self.kind == "cosine-scaled":
            factor = 1 - (1 - step / self.warm_up) * (1 - self.start) if step < self.warm_up else 1.0
            return self._cosine(step, 0.0) * factor
        if step < self.warm_up:
            return self.start + (self.base - self.start) * step / self.warm_up
        return self._cosine(step, self.floor)

    def _cosine(self, step: int, floor: float) -> float:
        return floor + (self.base - floor) * (1 + math.cos(math.pi * step / self.total)) / 2
