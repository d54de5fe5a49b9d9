"""Settings of the quantisation baselines. No torch here: a run is planned before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchsuite.core import ConfigError

__all__ = ["BrevitasConfig", "FullPrecisionConfig", "TorchaoConfig", "TrainingConfig"]


@dataclass(frozen=True)
class FullPrecisionConfig:
    """Nothing to set."""


@dataclass(frozen=True)
class TrainingConfig:
    """Quantisation-aware training.

    Attributes
    ----------
    steps, epochs
        Length: steps, or if 0 passes over the pictures.
    batch_size, optimizer, lr, weight_decay
        The rate falls along half a cosine.
    distillation
        Whether it learns from the full-precision network instead of the labels.
    """

    steps: int = 0
    epochs: int = 20
    batch_size: int = 64
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = 0.005
    weight_decay: float = 0.0
    distillation: bool = True

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ConfigError(f"batch_size is {self.batch_size}: batch norms need at least 2 pictures")
        if self.lr <= 0 or min(self.weight_decay, self.steps, self.epochs) < 0 or not (self.steps or self.epochs):
            raise ConfigError("lr must be positive, weight_decay not negative; give steps, or epochs with steps=0")


@dataclass(frozen=True)
class BrevitasConfig(TrainingConfig):
    """Brevitas: the same bits everywhere, the most that the budget allows.

    Attributes
    ----------
    scale_from
        Where the learned scale of a weight starts: its largest magnitude, or its mean one.
    granularity
        One scale a tensor, or an output channel.
    collect_steps
        So many batches, before the training, give the percentile that the scales of inputs start from.
    """

    scale_from: Literal["max", "ave"] = "ave"
    granularity: Literal["tensor", "channel"] = "tensor"
    collect_steps: int = 20


@dataclass(frozen=True)
class TorchaoConfig(TrainingConfig):
    """torchao: weights only, a scale an output channel.

    Attributes
    ----------
    bits
        Of every weight of a linear layer.
    training
        Quantisation-aware training instead of rounding what was trained.
    """

    bits: Literal[2, 3, 4, 8] = 8
    training: bool = False
