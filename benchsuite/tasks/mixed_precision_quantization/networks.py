"""The networks that are quantised: small ones of our own, CIFAR-10's ResNets, torchvision's and timm's.

Every convolution and linear layer is quantised, whatever the network; products of two activations (attention) are not.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchsuite.core.errors import ConfigError, MissingDependency
from benchsuite.tasks.mixed_precision_quantization.network_names import MODELS, TIMM

__all__ = ["ConvolutionalNetwork", "Perceptron", "ResidualNetwork", "build_network", "layers_of"]

_WIDTHS = {"mlp": (16, 96, 96), "mlp-narrow": (8, 48, 48)}
_CNN_WIDTHS, _CNN_STRIDES = (16, 16, 32, 32, 64, 64), (1, 1, 2, 1, 2, 1)


class Perceptron(nn.Sequential):
    """Linear layers with batch norm and ReLU, then a linear layer: the narrow first layer is what makes bits matter.

    Parameters
    ----------
    inputs, widths, classes
        Number of input values, of units of the hidden layers, of classes.
    """

    def __init__(self, inputs: int, widths: tuple[int, ...], classes: int) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for before, width in pairwise((inputs, *widths)):
            layers += [nn.Linear(before, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        super().__init__(*layers, nn.Linear(widths[-1], classes))


class ConvolutionalNetwork(nn.Sequential):
    """Six 3 x 3 convolutions with batch norm and ReLU, the mean over places, a linear layer."""

    def __init__(self, channels: int, classes: int) -> None:
        layers: list[nn.Module] = []
        for (before, width), stride in zip(pairwise((channels, *_CNN_WIDTHS)), _CNN_STRIDES, strict=True):
            layers += [nn.Conv2d(before, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_CNN_WIDTHS[-1], classes))


class _Block(nn.Module):
    """Two 3 x 3 convolutions; where the shape changes the shortcut drops places and adds zero channels (option A)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.added = stride, width - before

    def forward(self, x: Tensor) -> Tensor:
        found = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        ahead = self.added // 2
        return F.relu(found + F.pad(shortcut, (0, 0, 0, 0, ahead, self.added - ahead)))


class ResidualNetwork(nn.Module):
    """ResNet for CIFAR-10 (He et al. 2016): 6n + 2 layers, widths 16, 32 and 64.

    Parameters
    ----------
    blocks
        n: 3 for ResNet-20, 9 for ResNet-56.
    channels, classes
        Of the pictures.
    """

    def __init__(self, blocks: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        stages = []
        for before, width in pairwise((16, 16, 32, 64)):
            first = _Block(before, width, 1 if before == width else 2)
            stages.append(nn.Sequential(first, *(_Block(width, width, 1) for _ in range(blocks - 1))))
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of pictures (B, channels, H, W)."""
        x = self.stages(F.relu(self.bn1(self.conv1(x))))
        return self.fc(x.mean(dim=(2, 3)))


def build_network(model: str, channels: int, classes: int, size: int) -> nn.Module:
    """Return a network with random weights, from (B, channels, size, size) to logits (B, classes).

    Raises
    ------
    ConfigError
        If there is no such network, or it does not take such pictures.
    MissingDependency
        If timm is needed and missing.
    """
    if model in _WIDTHS:
        return Perceptron(channels * size * size, _WIDTHS[model], classes)
    if model == "cnn":
        return ConvolutionalNetwork(channels, classes)
    if model in ("resnet20", "resnet56"):
        return ResidualNetwork(3 if model == "resnet20" else 9, channels, classes)
    if model in ("resnet18", "mobilenetv2"):
        return _of_torchvision(model, channels, classes)
    if model.startswith(TIMM):
        return _of_timm(model.removeprefix(TIMM), channels, classes, size)
    raise ConfigError(f"there is no network {model!r}: choose {', '.join(MODELS)}, or {TIMM}NAME")


def _of_torchvision(model: str, channels: int, classes: int) -> nn.Module:
    from torchvision.models import mobilenet_v2, resnet18

    if channels != 3:
        raise ConfigError(f"{model} sees colours: these pictures have {channels} channel")
    network: nn.Module = {"resnet18": resnet18, "mobilenetv2": mobilenet_v2}[model](num_classes=classes)
    return network


def _of_timm(name: str, channels: int, classes: int, size: int) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise MissingDependency(
            f"the network {TIMM}{name} needs timm: pip install 'benchsuite[quantization]'"
        ) from None
    if not timm.is_model(name):
        raise ConfigError(f"timm has no model {name!r}: see timm.list_models()")
    network: nn.Module = timm.create_model(name, num_classes=classes, in_chans=channels)
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, channels, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:150]
        raise ConfigError(f"{TIMM}{name} does not take pictures of {size} px ({reason}): set task.size") from None
    return network.train()


def layers_of(network: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the convolutions and linear layers of a network by their names, in the order of the modules."""
    return {name: module for name, module in network.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
