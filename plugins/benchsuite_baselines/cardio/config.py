"""The settings of the classical detectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class NeuroKitConfig:
    """Which of NeuroKit2's algorithms cleans the signal and finds the peaks."""

    algorithm: Literal[
        "neurokit", "pantompkins1985", "rodrigues2021", "hamilton2002", "elgendi2010", "christov2004", "engzeemod2012"
    ] = "neurokit"


@dataclass(frozen=True)
class EcgDetectorsConfig:
    """Which detector of py-ecg-detectors runs, and at what sampling rate (Hz); None: at that of the record.

    The library scales its windows to the rate, but not the order of its differences, so that the rate matters.
    """

    algorithm: Literal["hamilton", "christov", "two_average", "swt", "pan_tompkins"] = "hamilton"
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and not 100 <= self.rate <= 2000:
            raise ValueError(f"rate {self.rate:g} is outside 100 .. 2000 Hz (none: the record's own)")


@dataclass(frozen=True)
class EnvelopeConfig:
    """Settings of the envelope detector: band (Hz), shortest heart cycle and longest (s), least height of a peak.

    ``threshold`` is in standard deviations above the mean of the normalised envelope.
    """

    low: float = 25.0
    high: float = 150.0
    shortest_cycle: float = 0.4
    longest_cycle: float = 1.5
    threshold: float = 0.0


@dataclass(frozen=True)
class HsmmConfig:
    """Settings of the hidden semi-Markov model: bounds of the heart cycle (s), and Newton steps of each regression.

    Springer's bounds are .5 and 2 s (30 to 120 beats a minute); children's hearts are faster.
    """

    shortest_cycle: float = 0.4
    longest_cycle: float = 2.0
    newton_steps: int = 12

    def __post_init__(self) -> None:
        if not 0.2 <= self.shortest_cycle < self.longest_cycle:
            raise ValueError("shortest_cycle must be at least .2 s and less than longest_cycle")
