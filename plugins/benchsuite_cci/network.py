"""The 1-D U-Net that labels frames, and the projector that exists in training only."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_KERNEL = 7
_EMBEDDING = 32


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(inputs, outputs, _KERNEL, padding=_KERNEL // 2), nn.BatchNorm1d(outputs), nn.ReLU())


class UNet1d(nn.Module):
    """Encoder and decoder over time with skips at every level.

    Parameters
    ----------
    channels, classes
        Of the input and of the labels.
    widths
        Channels of each level, top first.
    """

    def __init__(self, channels: int, classes: int, widths: Sequence[int] = (8, 16, 24, 32)) -> None:
        super().__init__()
        ins = (channels, *widths[:-1])
        self.down = nn.ModuleList(nn.Sequential(_layer(i, o), _layer(o, o)) for i, o in zip(ins, widths, strict=True))
        self.up = nn.ModuleList(_layer(deep + skip, skip) for skip, deep in itertools.pairwise(widths))
        self.head = nn.Conv1d(widths[0], classes, 1)

    def forward(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Label every frame.

        Parameters
        ----------
        signal
            (B, channels, L) float32; L a multiple of 2 to the power of the number of levels less one.

        Returns
        -------
        logits
            (B, classes, L).
        features
            (B, widths[0], L).
        """
        skips = []
        x = signal
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool1d(x, 2))
            skips.append(x)
        for block, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            x = block(torch.cat([x.repeat_interleave(2, dim=2), skip], dim=1))
        return self.head(x), x


class Projector(nn.Sequential):
    """Maps features (B, D, L) to embeddings (B, 32, L) that the contrast compares."""

    def __init__(self, features: int) -> None:
        super().__init__(nn.Conv1d(features, _EMBEDDING, 1), nn.ReLU(), nn.Conv1d(_EMBEDDING, _EMBEDDING, 1))
