"""The settings of the algorithms. No torch here: a run is planned before anything heavy is imported.

The defaults are those of the official code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PeerSelection = Literal["all", "shift_one"]
CompressorName = Literal["minmax-uint8", "one-bit"]


def require_at_least(minimum: float, **settings: float) -> None:
    """Raise ValueError for the first setting below ``minimum``."""
    for name, value in settings.items():
        if value < minimum:
            raise ValueError(f"{name} must be at least {minimum:g}, not {value:g}")


@dataclass(frozen=True)
class GradientAllReduceConfig:
    """``bucket_mib``: a bucket of gradients is closed when it holds so many MiB (official: 10)."""

    hierarchical: bool = False
    bucket_mib: float = 10.0

    def __post_init__(self) -> None:
        if self.bucket_mib <= 0:
            raise ValueError(f"bucket_mib must be above 0, not {self.bucket_mib:g}")


@dataclass(frozen=True)
class ByteGradConfig(GradientAllReduceConfig):
    """``error_feedback`` keeps what the compressor lost and adds it to the next step (not in the official code)."""

    hierarchical: bool = True
    compressor: CompressorName = "minmax-uint8"
    error_feedback: bool = False


@dataclass(frozen=True)
class DecentralizedConfig:
    """``peers``: average with ``all`` ranks, or with one that changes (``shift_one``), every ``interval`` steps."""

    peers: PeerSelection = "all"
    interval: int = 1
    hierarchical: bool = True

    def __post_init__(self) -> None:
        require_at_least(1, interval=self.interval)


@dataclass(frozen=True)
class LowPrecisionDecentralizedConfig:
    """The ring, every ``interval`` steps."""

    interval: int = 1
    hierarchical: bool = True

    def __post_init__(self) -> None:
        require_at_least(1, interval=self.interval)


@dataclass(frozen=True)
class AsyncConfig:
    """Pause between two averages in the background, and steps of gradient averaging before the first.

    ``emulated_interval`` and ``emulated_delay`` say the same in steps for the simulated task: an average
    starts so many steps after the last one has arrived, and takes so many steps to arrive.
    """

    sync_interval_ms: float = 500.0
    warmup_steps: int = 0
    emulated_interval: int = 4
    emulated_delay: int = 2

    def __post_init__(self) -> None:
        require_at_least(0, sync_interval_ms=self.sync_interval_ms, warmup_steps=self.warmup_steps)
        require_at_least(1, emulated_interval=self.emulated_interval, emulated_delay=self.emulated_delay)


@dataclass(frozen=True)
class QAdamConfig:
    """Adam with a warm-up in full precision, then compressed momenta.

    ``mode``: ``official`` does as the public code: the gradient of step ``warmup_steps`` is dropped, the bias
    correction of the frozen second moment goes on growing, weight decay acts in the warm-up only. ``fixed``
    mends all three.
    """

    lr: float = 1e-3
    warmup_steps: int = 100
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    mode: Literal["official", "fixed"] = "official"
    compressor: CompressorName = "minmax-uint8"
    error_feedback: bool = False
    hierarchical: bool = True
    bucket_mib: float = 10.0

    def __post_init__(self) -> None:
        require_at_least(0, lr=self.lr, eps=self.eps, weight_decay=self.weight_decay)
        smallest = 2 if self.mode == "official" else 1
        if self.warmup_steps < smallest:
            raise ValueError(
                f"warmup_steps must be at least {smallest} (mode {self.mode}), not {self.warmup_steps}:"
                " without a warm-up there is no second moment to divide by"
            )
        for name, beta in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0 <= beta < 1:
                raise ValueError(f"{name} must be in [0, 1), not {beta:g}")
        if self.bucket_mib <= 0:
            raise ValueError(f"bucket_mib must be above 0, not {self.bucket_mib:g}")
