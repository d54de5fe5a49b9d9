"""What a segmenter of heart sounds may import: its training records, and what it returns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Method, RunContext

States = NDArray[np.int8]
Signal = NDArray[np.float32]


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
