"""What a QRS detector may import: the protocol, its training records, and what it returns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Method, RunContext
from benchsuite.tasks.cardiac_signals.noise_settings import NOISE_FIELDS, check_noise

Integers = NDArray[np.int64]
Signal = NDArray[np.float32]


@dataclass(frozen=True)
class QrsProtocol:
    """What belongs to neither detector nor data: which lead is looked at, and what noise is added to test records.

    Attributes
    ----------
    lead
        ``first`` or its name in the records. Records of one lead that goes by no name but ECG, as the generated ones
        are, are looked at whatever is asked for.
    noise
        Kind of noise added to the test records (never to training records): generated, or recorded if the request
        fills the role ``noise``.
    snr_db
        Signal-to-noise ratio in dB, by ``snr_rule``.
    snr_rule
        ``nst``: height of beats against one-second windows of noise, as WFDB's nst; ``power``: ratio of the variances.
    noise_timing
        ``throughout``, or as ``nst``: five minutes clean, then two noisy and two clean minutes in turn.
    """

    lead: str = "first"
    noise: Literal["none", "baseline-wander", "muscle", "electrode-motion"] = "none"
    snr_db: float = 6.0
    snr_rule: Literal["nst", "power"] = "nst"
    noise_timing: Literal["throughout", "nst"] = "throughout"

    def __post_init__(self) -> None:
        check_noise(self)

    @property
    def dormant(self) -> tuple[str, ...]:
        """Names of the fields that change nothing: all of noise while there is none."""
        return NOISE_FIELDS if self.noise == "none" else ()


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
