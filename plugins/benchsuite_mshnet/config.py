"""The settings of MSHNet's rows. No torch here: a run is planned before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchsuite.core import ConfigError

Similarities = Literal["both", "cosine", "gps"]


@dataclass(frozen=True)
class MSHNetConfig:
    """Settings of MSHNet; the defaults are those of the embedded preset, an eighth of the published widths.

    Attributes
    ----------
    similarities
        ``both``, or one of them alone.
    gps_width, cosine_width, merge_width, head_width
        Channels behind the two similarities, of the fusion of levels, and inside a head: 128, 256, 512, 128 as
        published.
    dropout
        Of whole channels: .2 as published. With an eighth of the channels it did harm.
    auxiliary
        Weight of each of the three auxiliary losses.
    training_shots
        Supports of a training episode (0: as many as the protocol's). The published code can train with one only.
    steps, epochs
        Length of the training: ``steps``, or if these are 0 so many passes over the episodes of an epoch.
    batch_size, lr, momentum, weight_decay
        SGD.
    schedule
        ``one-cycle`` warms up over 15 %; ``exponential`` multiplies the rate by .9 at every fifth epoch.
    """

    similarities: Similarities = "both"
    gps_width: int = 16
    cosine_width: int = 32
    merge_width: int = 64
    head_width: int = 16
    dropout: float = 0.0
    auxiliary: float = 0.3
    training_shots: int = 1
    steps: int = 900
    epochs: int = 0
    batch_size: int = 4
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.00005
    schedule: Literal["one-cycle", "exponential"] = "one-cycle"

    def __post_init__(self) -> None:
        for name in ("gps_width", "cosine_width", "merge_width", "head_width", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        if self.cosine_width % 4:
            raise ConfigError(f"cosine_width is {self.cosine_width}: the channel gate needs a multiple of 4")
        if min(self.steps, self.epochs, self.training_shots) < 0 or not (self.steps or self.epochs):
            raise ConfigError("give steps, or epochs with steps=0; training_shots must not be negative")
        if not 0 <= self.dropout < 1 or not 0 <= self.momentum < 1:
            raise ConfigError("dropout and momentum must be in [0, 1)")
        if self.lr <= 0 or self.weight_decay < 0 or self.auxiliary < 0:
            raise ConfigError("lr must be positive, weight_decay and auxiliary must not be negative")
