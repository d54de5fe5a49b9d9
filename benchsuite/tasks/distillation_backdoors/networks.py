"""The classifiers of the backdoor tasks: upstream networks of a distillation and victims of an attack.

ConvNet and AlexNet have the layer order, the parameter names and the sizes of the official distillation
code; VGG11 and ResNet18 (instance norm) serve as victims of another architecture.
"""

from __future__ import annotations

import itertools
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from benchsuite.core.errors import ConfigError

Upstream = Literal["convnet", "alexnet", "convnet-small"]
Architecture = Literal["convnet", "alexnet", "convnet-small", "vgg11", "resnet18"]

_VGG11 = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")


class BackdoorNetwork(nn.Module):
    """A classifier made of ``features`` (convolutions) and ``classifier`` (linear layers, most with a ReLU between)."""

    features: nn.Module
    classifier: nn.Sequential

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of normalised images (N, C, H, W)."""
        return self.classifier(self.features(images).flatten(1))

    def features_of(self, images: Tensor) -> Tensor:
        """Return the penultimate features: what the last linear layer reads, (N, D), after the ReLU if there is one.

        ReLUs are not in place here. The official hook on the second-last layer nevertheless sees values after
        the ReLU, because the ReLU that follows overwrites them; these are returned.
        """
        return self.classifier[:-1](self.features(images).flatten(1))

    def second_last_weight(self) -> Tensor:
        """Return the second weight matrix from the end, (D, D_in)."""
        return [module for module in self.classifier if isinstance(module, nn.Linear)][-2].weight

    def num_parameters(self) -> int:
        """Return the number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


class ConvNet(BackdoorNetwork):
    """Blocks of convolution, ReLU and average pooling, then two linear layers.

    With one channel the first convolution pads by 3 (``official_padding``): written for images of 28 x 28, it
    leaves the number of features at 32 x 32 unchanged but not their values.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        size: int,
        width: int = 128,
        depth: int = 3,
        hidden: int = 192,
        instance_norm: bool = False,
        official_padding: bool = True,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block in range(depth):
            padding = 3 if official_padding and block == 0 and channels == 1 else 1
            layers.append(nn.Conv2d(channels if block == 0 else width, width, 3, padding=padding))
            if instance_norm:
                layers.append(nn.GroupNorm(width, width))
            layers += [nn.ReLU(), nn.AvgPool2d(2, 2)]
            size = (size + 2 * padding - 2) // 2
        if size < 1:
            raise ConfigError(f"images are too small for a network with {depth} pooling layers: choose convnet-small")
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(width * size * size, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
        )


class AlexNet(BackdoorNetwork):
    """Two convolutions and three linear layers; block 1 pools before it normalises, block 2 after."""

    def __init__(self, channels: int, num_classes: int, size: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
            _response_norm(),
            nn.Conv2d(64, 64, 5, padding=2),
            nn.ReLU(),
            _response_norm(),
            nn.MaxPool2d(3, 2, padding=1),
        )
        side = ((size + 1) // 2 + 1) // 2
        self.classifier = nn.Sequential(
            nn.Linear(64 * side * side, 384),
            nn.ReLU(),
            nn.Linear(384, 192),
            nn.ReLU(),
            nn.Linear(192, num_classes),
        )


class VGG11(BackdoorNetwork):
    """VGG11 with instance norm after every convolution and one linear layer."""

    def __init__(self, channels: int, num_classes: int, size: int) -> None:
        super().__init__()
        _require_size("vgg11", size, 32)
        layers: list[nn.Module] = []
        before, first = channels, True
        for entry in _VGG11:
            if isinstance(entry, str):
                layers.append(nn.MaxPool2d(2, 2))
                continue
            padding = 3 if first and channels == 1 else 1
            layers += [nn.Conv2d(before, entry, 3, padding=padding), nn.GroupNorm(entry, entry), nn.ReLU()]
            before, first = entry, False
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(512, num_classes))


class ResNet18(BackdoorNetwork):
    """ResNet18 for small images with instance norm, and a linear layer of 512 before the head.

    As in the official code nothing stands between the two linear layers: the head is linear in the features.
    """

    def __init__(self, channels: int, num_classes: int, size: int) -> None:
        super().__init__()
        _require_size("resnet18", size, 8)
        layers: list[nn.Module] = [nn.Conv2d(channels, 64, 3, padding=1, bias=False), nn.GroupNorm(64, 64), nn.ReLU()]
        for (before, after), stride in zip(itertools.pairwise((64, 64, 128, 256, 512)), (1, 2, 2, 2), strict=True):
            layers += [_ResidualBlock(before, after, stride), _ResidualBlock(after, after, 1)]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Sequential(nn.Linear(512, 512), nn.Linear(512, num_classes))


class _ResidualBlock(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.GroupNorm(after, after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.GroupNorm(after, after),
        )
        same = stride == 1 and before == after
        self.shortcut = (
            nn.Sequential()
            if same
            else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.GroupNorm(after, after))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def build_network(architecture: Architecture, channels: int, num_classes: int, size: int) -> BackdoorNetwork:
    """Return an untrained network with torch's default initialisation.

    Parameters
    ----------
    architecture
        ``convnet-small`` is a ConvNet with two blocks of width 8 and 32 hidden units that pads by 1 throughout.
    channels, num_classes, size
        Of the images: 1 or 3 channels, height = width = ``size`` pixels.

    Raises
    ------
    ConfigError
        If there is no such architecture, or the images are too small for it.
    """
    if architecture == "convnet":
        return ConvNet(channels, num_classes, size)
    if architecture == "convnet-small":
        return ConvNet(channels, num_classes, size, width=8, depth=2, hidden=32, official_padding=False)
    if architecture == "alexnet":
        return AlexNet(channels, num_classes, size)
    if architecture == "vgg11":
        return VGG11(channels, num_classes, size)
    if architecture == "resnet18":
        return ResNet18(channels, num_classes, size)
    raise ConfigError(f"there is no network {architecture!r}: choose one of {', '.join(get_args(Architecture))}")


def seeded_network(
    architecture: Architecture, channels: int, num_classes: int, size: int, seed: int
) -> BackdoorNetwork:
    """Return an untrained network whose initial weights depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(architecture, channels, num_classes, size)


def channels_fastest(network: BackdoorNetwork) -> BackdoorNetwork:
    """Return the network with convolutions laid out channels last: the same function, faster to train on a CPU."""
    laid_out: BackdoorNetwork = network.to(memory_format=torch.channels_last)
    return laid_out


def _response_norm() -> nn.LocalResponseNorm:
    return nn.LocalResponseNorm(4, alpha=0.001 / 9.0, beta=0.75, k=1.0)


def _require_size(name: str, size: int, least: int) -> None:
    if size < least:
        raise ConfigError(f"images of {size} x {size} are too small for {name}, which needs {least} x {least}")
