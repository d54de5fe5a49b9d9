"""The image branch: VoVNet-99 with effective squeeze-and-excitation, ResNet-50, and the neck that keeps one level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CPFPN", "ImageBackbone", "ResNet50", "VoVNet99", "grid_mask"]


class ImageBackbone(nn.Module):
    """Maps of strides 16 and 32; ``channels`` says how wide they are. Batch norms keep their statistics in training."""

    channels: tuple[int, int]

    def train(self, mode: bool = True) -> ImageBackbone:
        """Switch to training, except for the batch norms, which use and keep the statistics that they have."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class OneShotAggregation(nn.Module):
    """Five convolutions in a chain whose outputs are joined once, and a gate over channels (section 5.1)."""

    LAYERS = 5

    def __init__(self, inputs: int, middle: int, outputs: int, residual: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvNorm(inputs if i == 0 else middle, middle, 3) for i in range(self.LAYERS))
        self.concat = ConvNorm(inputs + self.LAYERS * middle, outputs, 1)
        self.gate = nn.Conv2d(outputs, outputs, 1)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H, W) of (B, inputs, H, W)."""
        found = [x]
        for layer in self.layers:
            found.append(layer(found[-1]))
        joined = self.concat(torch.cat(found, dim=1))
        gate = F.relu6(self.gate(joined.mean((2, 3), keepdim=True)) + 3) / 6  # hard sigmoid, (B, outputs, 1, 1)
        return joined * gate + x if self.residual else joined * gate


class VoVNet99(ImageBackbone):
    """V-99-eSE: 69,523,520 parameters."""

    channels = (768, 1024)
    MIDDLE, WIDTHS, BLOCKS = (128, 160, 192, 224), (256, 512, 768, 1024), (1, 3, 9, 3)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, 64, 3, 2), ConvNorm(64, 64, 3), ConvNorm(64, 128, 3, 2))
        self.stages = nn.ModuleList()
        inputs = 128
        for middle, width, blocks in zip(self.MIDDLE, self.WIDTHS, self.BLOCKS, strict=True):
            self.stages.append(
                nn.ModuleList(
                    OneShotAggregation(inputs if i == 0 else width, middle, width, residual=i > 0)
                    for i in range(blocks)
                )
            )
            inputs = width
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps (B, 768, H/16, W/16) and (B, 1024, H/32, W/32) of images (B, 3, H, W)."""
        x = self.stem(images)
        maps = []
        for place, stage in enumerate(self.stages):
            x = self.pool(x) if place else x
            for block in stage:
                x = block(x)
            maps.append(x)
        return maps[2], maps[3]


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolution around a skip."""

    def __init__(self, inputs: int, middle: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * middle
        self.conv1, self.bn1 = nn.Conv2d(inputs, middle, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv2, self.bn2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv3, self.bn3 = nn.Conv2d(middle, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 4 * middle, H / stride, W / stride)."""
        skip = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return F.relu(self.bn3(self.conv3(x)) + skip, inplace=True)


class ResNet50(ImageBackbone):
    """ResNet-50 without its classifier: 23,508,032 parameters."""

    channels = (1024, 2048)
    BLOCKS = (3, 4, 6, 3)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for place, blocks in enumerate(self.BLOCKS):
            middle = 64 * 2**place
            stage = []
            for i in range(blocks):
                stage.append(Bottleneck(inputs, middle, 2 if place and i == 0 else 1))
                inputs = 4 * middle
            setattr(self, f"layer{place + 1}", nn.Sequential(*stage))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps (B, 1024, H/16, W/16) and (B, 2048, H/32, W/32) of images (B, 3, H, W)."""
        x = self.pool(F.relu(self.bn1(self.conv1(images)), inplace=True))
        middle = self.layer3(self.layer2(self.layer1(x)))
        return middle, self.layer4(middle)


class CPFPN(nn.Module):
    """A pyramid of which the stride-16 level alone is smoothed and used; no norms, no activations."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in channels)
        self.smooth = nn.Conv2d(width, width, 3, padding=1)
        for conv in (*self.laterals, self.smooth):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, width, H/16, W/16)."""
        fine, coarse = (lateral(m) for lateral, m in zip(self.laterals, maps, strict=True))
        return self.smooth(fine + F.interpolate(coarse, size=fine.shape[-2:], mode="nearest"))


def grid_mask(images: Tensor, generator: torch.Generator, probability: float = 0.7) -> Tensor:
    """Keep a grid of bands of a batch of images (N, 3, H, W), the same for all of them, and blacken the rest.

    With ``probability`` a period d is drawn from [2, H); bands of int(d / 2 + .5) rows and columns, shifted at random,
    form the grid. The draw is the released one up to its rotation, which has an angle of 0 there. [inferred]
    """
    if torch.rand((), generator=generator) > probability:
        return images
    height, width = images.shape[-2:]
    period = int(torch.randint(2, height, (), generator=generator))
    band = min(max(int(period / 2 + 0.5), 1), period - 1)
    kept = []
    for size in (height, width):
        shift = int(torch.randint(0, period, (), generator=generator))
        kept.append((torch.arange(size, device=images.device) - shift) % period < band)
    return images * (kept[0][:, None] | kept[1][None, :])
