"""Names of the networks that are quantised. No torch here: a run is planned before anything heavy is imported."""

from __future__ import annotations

__all__ = ["MODELS", "TIMM"]

MODELS = ("mlp", "mlp-narrow", "cnn", "resnet20", "resnet56", "resnet18", "mobilenetv2")
"""The networks of the task's own and of torchvision."""

TIMM = "timm:"
"""What the name of a network of timm begins with."""
