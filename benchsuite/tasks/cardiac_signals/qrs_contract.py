"""What a QRS detector may import: the protocol, its training records, and what it returns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Method, RunContext

Integers = NDArray[np.int64]
Signal = NDArray[np.float32]


@dataclass(frozen=True)
class QrsProtocol:
    """What belongs to neither detector nor data: which lead is looked at, ``first`` or its name in the records.

    Records of one lead that goes by no name but ECG, as the generated ones are, are looked at whatever is asked for.
    """

    lead: str = "first"


@dataclass(frozen=True)
class AnnotatedEcg:
    """A training record: (T,) float32 millivolts of one lead at ``fs`` Hz, and its beats as sample indices (int64)."""

    name: str
    signal: Signal
    fs: float
    beats: Integers


@dataclass(frozen=True)
class Detector:
    """A detector ready for use.

    Attributes
    ----------
    detect
        Called with (T,) float32 millivolts and the sampling rate in Hz; returns the sample indices of R peaks,
        whole numbers in strictly ascending order.
    parameters
        Number of trainable parameters used in detection, or None.
    """

    detect: Callable[[Signal, float], Any]
    parameters: int | None = None


class QrsDetector(Method):
    """A way to find beats."""

    @abstractmethod
    def fit_qrs(self, records: Sequence[AnnotatedEcg], ctx: RunContext) -> Detector:
        """Return a detector, trained on the records if it learns.

        Parameters
        ----------
        records
            Training records with their beats.
        ctx
            Take seeds from ``ctx.seed_for("run", ...)`` and draw steps from ``ctx.resumable``.
        """
