"""Heads for semantic segmentation on any backbone: DeepLabv3, PSPNet, Semantic FPN; and their loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchsuite_emo.backbones import DENSE_STRIDES

__all__ = [
    "ASPP",
    "FPN",
    "MapsOf",
    "PyramidPooling",
    "SegmentationHead",
    "SegmentationNetwork",
    "SemanticFPN",
    "class_weights",
    "pixel_cross_entropy",
]

SegmentationHead = Literal["deeplabv3", "pspnet", "semantic-fpn"]

_DILATIONS = (12, 24, 36)
_POOL_SCALES = (1, 2, 3, 6)
_AUXILIARY_WEIGHT = 0.4
_IGNORED = 255


class MapsOf(Protocol):
    """What heads ask of a backbone."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Return one map a stride."""


def conv_bn(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    """Return a convolution that keeps the size, batch norm, ReLU."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps at another height and width, bilinear, corners not aligned."""
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


class _Pooled(nn.Module):
    """Means over a grid of cells, a 1x1 convolution, and back to the size of the input."""

    def __init__(self, inputs: int, outputs: int, cells: int) -> None:
        super().__init__()
        self.cells, self.conv = cells, conv_bn(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return resized(self.conv(F.adaptive_avg_pool2d(x, self.cells)), x.shape[2:])


class ASPP(nn.Module):
    """DeepLabv3: the last map under several dilations and as a whole."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        inputs = channels[-1]
        self.branches = nn.ModuleList([_Pooled(inputs, width, 1), conv_bn(inputs, width)])
        self.branches.extend(conv_bn(inputs, width, 3, dilation) for dilation in _DILATIONS)
        self.bottleneck = conv_bn(len(self.branches) * width, width, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, width, h, w) of the last map's size."""
        found: Tensor = self.bottleneck(torch.cat([branch(maps[-1]) for branch in self.branches], dim=1))
        return found


class PyramidPooling(nn.Module):
    """PSPNet: the last map beside its means over 1, 4, 9 and 36 cells."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        inputs = channels[-1]
        self.pools = nn.ModuleList(_Pooled(inputs, width, cells) for cells in _POOL_SCALES)
        self.bottleneck = conv_bn(inputs + len(_POOL_SCALES) * width, width, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, width, h, w) of the last map's size."""
        last = maps[-1]
        found: Tensor = self.bottleneck(torch.cat([last, *(pool(last) for pool in self.pools)], dim=1))
        return found


class FPN(nn.Module):
    """A feature pyramid: laterals summed from coarse to fine (nearest neighbours), then a 3x3 convolution a level."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in channels)
        self.outputs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return one map (B, width, h, w) a level, the finest first."""
        summed = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        for place in range(len(summed) - 1, 0, -1):
            finer = summed[place - 1]
            summed[place - 1] = finer + F.interpolate(summed[place], finer.shape[2:], mode="nearest")
        return [output(x) for output, x in zip(self.outputs, summed, strict=True)]


class SemanticFPN(nn.Module):
    """Semantic FPN: every level of a pyramid brought to the finest one's size step by step, then summed.

    The width of the pyramid is twice that of the head.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.pyramid = FPN(channels, 2 * width)
        self.levels = nn.ModuleList()
        for level in range(len(channels)):
            steps = [conv_bn(2 * width if step == 0 else width, width, 3) for step in range(max(1, level))]
            self.levels.append(nn.ModuleList(steps))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, width, h, w) of the finest map's size."""
        found = self.pyramid(maps)
        total: Tensor | None = None
        for level, (x, steps) in enumerate(zip(found, self.levels, strict=True)):
            for place, step in enumerate(steps):
                x = step(x)
                if level:
                    x = resized(x, found[level - 1 - place].shape[2:])
            total = x if total is None else total + x
        assert total is not None
        return total


_HEADS: dict[str, type[nn.Module]] = {"deeplabv3": ASPP, "pspnet": PyramidPooling, "semantic-fpn": SemanticFPN}


class SegmentationNetwork(nn.Module):
    """A backbone with a head, and for the heads on the last map an auxiliary one on the map before it.

    Parameters
    ----------
    backbone
        Maps of strides 4, 8, 16, 32.
    head
        Its kind.
    width
        Channels inside it: 256 as published, 128 of Semantic FPN (whose pyramid has twice as many).
    classes
        Number of classes.
    """

    def __init__(self, backbone: nn.Module, head: SegmentationHead, width: int, classes: int) -> None:
        super().__init__()
        channels: tuple[int, ...] = backbone.channels
        self.backbone = backbone
        self.head = _HEADS[head](channels, width)
        self.classify = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(width, classes, 1))
        self.auxiliary: nn.Sequential | None = None
        if head != "semantic-fpn":
            self.auxiliary = nn.Sequential(
                conv_bn(channels[-2], width, 3), nn.Dropout2d(0.1), nn.Conv2d(width, classes, 1)
            )
        for module in (self.classify, self.auxiliary or ()):
            for part in module:
                if isinstance(part, nn.Conv2d):
                    nn.init.normal_(part.weight, std=0.01)
                    nn.init.zeros_(part.bias)

    STRIDES = DENSE_STRIDES

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes, h, w) of pictures (B, 3, H, W)."""
        found: Tensor = self.classify(self.head(self.backbone(x)))
        return found

    def loss(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the mean cross-entropy of counted pixels, plus .4 of the auxiliary head's.

        Parameters
        ----------
        x
            Pictures (B, 3, H, W).
        labels
            int64 (B, H, W); 255 counts nowhere.
        weights
            float32 (classes,): how much a pixel of each class counts; without them all count alike.
        """
        maps = self.backbone(x)
        loss = pixel_cross_entropy(self.classify(self.head(maps)), labels, weights)
        if self.auxiliary is not None:
            loss = loss + _AUXILIARY_WEIGHT * pixel_cross_entropy(self.auxiliary(maps[-2]), labels, weights)
        return loss


def pixel_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the (weighted) mean over counted pixels, logits brought to the labels' size; 0 where no pixel counts."""
    logits = resized(logits.float(), labels.shape[1:])
    total = F.cross_entropy(logits, labels, weights, ignore_index=_IGNORED, reduction="sum")
    counted = labels != _IGNORED
    if weights is None:
        return total / counted.sum().clamp(min=1)
    mass = (weights[torch.where(counted, labels, 0)] * counted).sum()
    return total / mass.clamp(min=torch.finfo(mass.dtype).tiny)


def class_weights(label_maps: Iterable[NDArray[np.uint8]], classes: int, balance: float) -> Tensor:
    """Return how much a pixel of each class counts: its share of the counted pixels to the power of minus ``balance``.

    Parameters
    ----------
    label_maps
        Any number of (H, W); 255 counts nowhere.
    classes
        Number of classes. One that never occurs has the weight 0.
    balance
        1 is the inverse of the share, .5 its root.

    Returns
    -------
    Tensor
        float32 (classes,).
    """
    pixels = sum((np.bincount(found.reshape(-1), minlength=256) for found in label_maps), np.zeros(256, np.int64))
    seen = pixels[:classes]
    weights = np.zeros(classes)
    weights[seen > 0] = (seen[seen > 0] / seen.sum()) ** -balance
    return torch.from_numpy(weights.astype(np.float32))
