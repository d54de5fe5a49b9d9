"""What a segmenter of heart sounds may import: its training records, and what it returns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Method, RunContext
from benchsuite.tasks.cardiac_signals.noise_settings import NOISE_FIELDS, check_noise

States = NDArray[np.int8]
Signal = NDArray[np.float32]


@dataclass(frozen=True)
class HeartSoundProtocol:
    """What belongs to neither segmenter nor data: what noise is added to test records (never to training records).

    Attributes
    ----------
    noise
        Kind of generated noise: breathing, a room, or a stethoscope that moves.
    snr_db
        Signal-to-noise ratio in dB, by ``snr_rule``.
    snr_rule
        ``power``: ratio of the variances of sound and noise over the whole record.
    """

    noise: Literal["none", "breath", "ambient", "movement"] = "none"
    snr_db: float = 6.0
    snr_rule: Literal["power"] = "power"

    def __post_init__(self) -> None:
        check_noise(self)

    @property
    def dormant(self) -> tuple[str, ...]:
        """Names of the fields that change nothing: all of noise while there is none."""
        return NOISE_FIELDS if self.noise == "none" else ()


@dataclass(frozen=True)
class AnnotatedPcg:
    """A training record: (T,) float32 at ``fs`` Hz, and the state (int8) of every 20 ms; -1: not annotated."""

    name: str
    signal: Signal
    fs: float
    states: States


@dataclass(frozen=True)
class Segmentation:
    """A segmenter ready for use.

    Attributes
    ----------
    segment
        Called with (T,) float32 and the sampling rate in Hz; returns the state of every 20 ms: integers 0 S1,
        1 systole, 2 S2, 3 diastole of shape (ceil(50 T / fs),).
    parameters
        Number of trainable parameters used in segmentation, or None.
    """

    segment: Callable[[Signal, float], Any]
    parameters: int | None = None


class HeartSoundSegmenter(Method):
    """A way to segment heart sounds."""

    @abstractmethod
    def fit_heart_sounds(self, records: Sequence[AnnotatedPcg], ctx: RunContext) -> Segmentation:
        """Return a segmenter, trained on the records if it learns.

        Parameters
        ----------
        records
            Training records with their states.
        ctx
            Take seeds from ``ctx.seed_for("run", ...)`` and draw steps from ``ctx.resumable``.
        """
