"""The frozen networks behind all methods of a table: torchvision's, and a tiny one.

A backbone gives the maps that MSHNet and HSNet compare: the outputs of the residual blocks of its last three stages
before their last ReLU (VGG-16: of the convolutions of its last two stages, and the last pooling). Notation: B images,
C channels, h x w.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.vgg import VGG, cfgs, make_layers

from benchsuite.core import ConfigError

__all__ = [
    "Backbone",
    "FrozenResNet",
    "FrozenVGG",
    "TinyResNet",
    "build_backbone",
    "load_strictly",
    "normalised",
    "read_state",
]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_POOL_CLASSES = 40


class Backbone(nn.Module):
    """A network that is never trained by a method: always in evaluation mode, without gradients.

    Attributes
    ----------
    blocks
        Numbers of maps of the levels l2, l3, l4, in the order in which they come.
    channels
        Of the maps of each level.
    """

    blocks: tuple[int, int, int]
    channels: tuple[int, int, int]

    def freeze(self) -> Backbone:
        """Stop all learning and return the network."""
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode, whatever a model around it does."""
        return super().train(False)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the maps, low to high, of normalised images (B, 3, H, W); see the module."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps (B, C, h, w), low to high, of pictures uint8 (B, H, W, 3)."""
        return self.maps(normalised(images))


def normalised(images: Tensor) -> Tensor:
    """Return pictures uint8 (B, H, W, 3) as float (B, 3, H, W), normalised as for ImageNet."""
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


class FrozenResNet(Backbone, ResNet):
    """ResNet-50 or -101 of torchvision, with its names of parameters."""

    def __init__(self, layers: tuple[int, int, int, int]) -> None:
        ResNet.__init__(self, Bottleneck, list(layers))
        self.blocks, self.channels = (layers[1], layers[2], layers[3]), (512, 1024, 2048)
        self.freeze()

    def maps(self, images: Tensor) -> list[Tensor]:
        """See `Backbone.maps`; the first stage gives none."""
        x = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))
        found = []
        for stage in (self.layer2, self.layer3, self.layer4):
            for block in stage:
                found.append(_before_last_relu(block, x))
                x = found[-1].relu()
        return found


class FrozenVGG(Backbone, VGG):
    """The convolutions of torchvision's VGG-16; its classifier is left out."""

    _TAPS: ClassVar[tuple[int, ...]] = (17, 19, 21, 24, 26, 28, 30)

    def __init__(self) -> None:
        VGG.__init__(self, make_layers(cfgs["D"]))
        del self.avgpool, self.classifier
        # three maps of conv4, three of conv5, the last pooling
        self.blocks, self.channels = (3, 3, 1), (512, 512, 512)
        self.freeze()

    def maps(self, images: Tensor) -> list[Tensor]:
        """See `Backbone.maps`."""
        found, x = [], images
        for place, layer in enumerate(self.features):
            # not in place: a tapped output must stay as it was before its ReLU
            x = x.relu() if isinstance(layer, nn.ReLU) else layer(x)
            if place in self._TAPS:
                found.append(x)
        return found


class TinyResNet(Backbone):
    """A bottleneck network for 64-px images: 16 x 16, 8 x 8 and 4 x 4 maps, two of each.

    Of the 32 filters of its first convolution 24 start as Gabor filters (8 orientations, 3 frequencies) of grey values.
    Each map is divided by its ``scale``: what reads raw features is made for the magnitudes of trained large networks.
    """

    _WIDTHS: ClassVar[tuple[int, ...]] = (32, 64, 96, 128)
    _BLOCKS: ClassVar[tuple[int, ...]] = (1, 2, 2, 2)

    def __init__(self, classes: int = _POOL_CLASSES) -> None:
        super().__init__()
        self.blocks, self.channels = (2, 2, 2), (64, 96, 128)
        self.conv1 = nn.Conv2d(3, self._WIDTHS[0], 9, stride=2, padding=4, bias=False)
        self.bn1 = nn.BatchNorm2d(self._WIDTHS[0])
        stages, before = [], self._WIDTHS[0]
        for stage, (width, count) in enumerate(zip(self._WIDTHS, self._BLOCKS, strict=True)):
            blocks = []
            for block in range(count):
                stride = 2 if stage and block == 0 else 1
                blocks.append(_TinyBottleneck(before, width, stride))
                before = width
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(before, classes)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(sum(self.blocks)))
        with torch.no_grad():
            self.conv1.weight[:24] = _gabor_filters()

    def maps(self, images: Tensor) -> list[Tensor]:
        """See `Backbone.maps`."""
        return [found / scale for found, scale in zip(self._raw_maps(images), self.scale, strict=True)]

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Set the scales to the root mean squares of the maps of normalised images."""
        self.scale.copy_(torch.stack([found.pow(2).mean().sqrt() for found in self._raw_maps(images)]))

    def _raw_maps(self, images: Tensor) -> list[Tensor]:
        x = self.layer1[0](self.bn1(self.conv1(images)).relu()).relu()
        found = []
        for stage in (self.layer2, self.layer3, self.layer4):
            for block in stage:
                found.append(block(x))
                x = found[-1].relu()
        return found

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (B, classes) of normalised images, for pre-training."""
        found: Tensor = self.fc(self._raw_maps(images)[-1].relu().mean(dim=(2, 3)))
        return found


class _TinyBottleneck(nn.Module):
    """1 x 1 to half the width, 3 x 3, 1 x 1, a shortcut; without its last ReLU."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        middle = width // 2
        self.conv1, self.bn1 = nn.Conv2d(inputs, middle, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3, self.bn3 = nn.Conv2d(middle, width, 1, bias=False), nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output before its last ReLU."""
        return _before_last_relu(self, x)


def _before_last_relu(block: Any, x: Tensor) -> Tensor:
    """Return the output of a bottleneck block after the residual addition, before the ReLU that follows it."""
    out = block.bn1(block.conv1(x)).relu()
    out = block.bn2(block.conv2(out)).relu()
    shortcut = x if block.downsample is None else block.downsample(x)
    added: Tensor = block.bn3(block.conv3(out)) + shortcut
    return added


def _gabor_filters() -> Tensor:
    """Return 24 filters (24, 3, 9, 9) of unit norm."""
    rows, columns = torch.meshgrid(torch.arange(9.0) - 4, torch.arange(9.0) - 4, indexing="ij")
    window = torch.exp(-(rows**2 + columns**2) / (2 * 2.2**2))
    filters = []
    for turn in range(8):
        angle = math.pi * turn / 8
        along = math.cos(angle) * columns + math.sin(angle) * rows
        for frequency in (0.55, 0.95, 1.5):
            wave = window * torch.cos(frequency * along)
            wave = wave - wave.mean()
            filters.append((wave / (wave.norm() * math.sqrt(3))).expand(3, 9, 9))
    return torch.stack(filters)


def build_backbone(name: str) -> Backbone:
    """Return a frozen backbone with random weights: resnet50, resnet101, vgg16 or tiny."""
    if name == "resnet50":
        return FrozenResNet((3, 4, 6, 3))
    if name == "resnet101":
        return FrozenResNet((3, 4, 23, 3))
    if name == "vgg16":
        return FrozenVGG()
    return TinyResNet().freeze()


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a torch file; raises `ConfigError` for anything else, nothing of which is executed."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"cannot read the weights {path.name}: {error.strerror or error}") from None
    except Exception as error:  # torch raises many kinds for a file that is not what it should be
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"{path.name} is no plain state dict: {reason}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"{path.name} holds no plain state dict: give a mapping of names to tensors")
    return dict(state)


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state whose names and shapes must be exactly the module's; raises `ConfigError` in one line."""
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    missing = [key for key in wanted if key not in state]
    unknown = [key for key in state if key not in wanted]
    if missing or unknown:
        what = (
            f"lacks {len(missing)} tensors, e.g. {missing[0]}"
            if missing
            else f"has {len(unknown)}, e.g. {unknown[0]}, that it lacks"
        )
        raise ConfigError(f"{path.name} is not of this network: it {what}: choose the network it was saved from")
    for key, shape in wanted.items():
        if tuple(state[key].shape) != shape:
            found = "x".join(map(str, state[key].shape)) or "a number"
            raise ConfigError(f"{path.name}: {key} is {found}, needs {'x'.join(map(str, shape)) or 'a number'}")
        if not torch.isfinite(state[key]).all():
            raise ConfigError(f"{path.name}: {key} is not finite: the training that saved it went wrong")
    module.load_state_dict(dict(state))
