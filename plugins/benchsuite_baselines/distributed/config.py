"""The settings of torch's own ways to train data-parallel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DDPConfig:
    """In which type gradients are sent; ``bucket_mib``: a bucket is closed when it holds so many MiB."""

    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    bucket_mib: float = 25.0

    def __post_init__(self) -> None:
        if self.bucket_mib <= 0:
            raise ValueError(f"bucket_mib must be above 0, not {self.bucket_mib:g}")


@dataclass(frozen=True)
class PowerSGDConfig:
    """Rank of the approximation, and plain steps before it starts.

    ``bucket_mib``: size of a bucket of gradients in MiB; None: one bucket for the whole model, which gloo needs.
    ``minimum_rate``: a matrix that does not shrink by this factor is sent as it is.
    """

    rank: int = 1
    plain_steps: int = 10
    minimum_rate: float = 2.0
    bucket_mib: float | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, not {self.rank}")
        if self.plain_steps < 2:
            raise ValueError(f"plain_steps must be at least 2 (DDP makes its buckets then), not {self.plain_steps}")
        if self.bucket_mib is not None and self.bucket_mib <= 0:
            raise ValueError(f"bucket_mib must be above 0, not {self.bucket_mib:g}")


@dataclass(frozen=True)
class PostLocalSGDConfig:
    """Steps of gradient averaging, then an average of the weights every ``period`` steps."""

    plain_steps: int = 10
    period: int = 4

    def __post_init__(self) -> None:
        if self.plain_steps < 0:
            raise ValueError(f"plain_steps must not be negative, not {self.plain_steps}")
        if self.period < 1:
            raise ValueError(f"period must be at least 1, not {self.period}")
