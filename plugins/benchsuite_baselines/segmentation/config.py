"""The settings of the opponents in few-shot semantic segmentation. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchsuite.core import ConfigError

Level = Literal["l2", "l3", "l4", "all"]
"""The last map of one level of the backbone, or of all three, brought to the size of l2."""


@dataclass(frozen=True)
class FrozenPANetConfig:
    """Settings of prototypes on frozen features.

    Attributes
    ----------
    level
        The features.
    rectified
        Take them after their ReLU.
    scale
        alpha: cosines are multiplied by it before the softmax.
    """

    level: Level = "l2"
    rectified: bool = True
    scale: float = 20.0

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ConfigError("scale must be positive")


@dataclass(frozen=True)
class PANetConfig(FrozenPANetConfig):
    """Settings of prototypes in a learned embedding.

    Attributes
    ----------
    width
        Channels of the embedding.
    alignment
        Weight of the second loss, in which prototypes of the predicted query segment the supports.
    steps, batch_size, lr, weight_decay
        AdamW with one cycle.
    """

    level: Level = "all"
    width: int = 64
    alignment: float = 1.0
    steps: int = 600
    batch_size: int = 8
    lr: float = 0.002
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.width, self.steps, self.batch_size) < 1:
            raise ConfigError("width, steps and batch_size must be at least 1")
        if self.lr <= 0 or self.weight_decay < 0 or self.alignment < 0:
            raise ConfigError("lr must be positive, weight_decay and alignment must not be negative")


@dataclass(frozen=True)
class PixelLogisticConfig:
    """Settings of a logistic regression on the positions of the supports.

    Attributes
    ----------
    level
        The features, each position's of unit length.
    rectified
        Take them after their ReLU.
    strength
        C of scikit-learn: the inverse of the regularisation.
    balanced
        Weigh foreground and background alike.
    """

    level: Level = "all"
    rectified: bool = True
    strength: float = 1.0
    balanced: bool = True

    def __post_init__(self) -> None:
        if self.strength <= 0:
            raise ConfigError("strength must be positive")


@dataclass(frozen=True)
class HSNetConfig:
    """Settings of a small HSNet.

    Attributes
    ----------
    widths
        Channels of the 4-D convolutions of a level, fine to coarse within it.
    support_side
        Support maps are pooled to this side before they are correlated.
    steps, batch_size, lr
        Adam.
    """

    widths: tuple[int, int] = (8, 16)
    support_side: int = 8
    steps: int = 450
    batch_size: int = 8
    lr: float = 0.001

    def __post_init__(self) -> None:
        if min(*self.widths, self.support_side, self.steps, self.batch_size) < 1:
            raise ConfigError("widths, support_side, steps and batch_size must be at least 1")
        if self.lr <= 0:
            raise ConfigError("lr must be positive")
