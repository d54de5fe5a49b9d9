"""The settings of Mask R-CNN in few-shot instance segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchsuite.core import ConfigError


@dataclass(frozen=True)
class MaskRCNNConfig:
    """Settings of a fine-tuned Mask R-CNN; the defaults are those of the embedded preset.

    Attributes
    ----------
    network
        ``resnet50`` is torchvision's ``maskrcnn_resnet50_fpn``; ``small`` has the same parts with a ResNet-18, 64
        channels and anchors of 8 to 128 px.
    short_side, long_side
        Images are scaled to this short side, or to this long side if they would exceed it.
    base_steps, tune_steps
        On the base classes and on the shots (0: 100 a shot, at least 500 and at most 3,000).
    batch_size, tune_batch_size
        Images a step.
    optimizer
        ``adamw`` with a one-cycle schedule, or ``sgd`` with momentum .9 and two tenfold drops.
    lr, tune_lr, weight_decay
        Of the two stages, and of both.
    """

    network: Literal["small", "resnet50"] = "small"
    short_side: int = 64
    long_side: int = 64
    base_steps: int = 200
    tune_steps: int = 50
    batch_size: int = 4
    tune_batch_size: int = 4
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 0.001
    tune_lr: float = 0.0004
    weight_decay: float = 0.02

    def __post_init__(self) -> None:
        for name in ("short_side", "long_side", "base_steps", "batch_size", "tune_batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        if self.tune_steps < 0 or self.weight_decay < 0:
            raise ConfigError("tune_steps and weight_decay must not be negative")
        if self.lr <= 0 or self.tune_lr <= 0:
            raise ConfigError("lr and tune_lr must be positive")
