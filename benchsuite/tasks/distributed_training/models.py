"""The neural networks that are trained: made from a protocol, and asked for class probabilities."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchsuite.core.errors import ConfigError, InvalidPrediction
from benchsuite.core.registry import require
from benchsuite.datasets.tabular_digits.reader import TabularDataset
from benchsuite.tasks.distributed_training.contract import DistributedTrainingProtocol


class _AsImage(nn.Module):
    """Shows a vector of pixels as a square image of three equal channels."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, features: Tensor) -> Tensor:  # (B, F) -> (B, 3, side, side)
        pixels = int(features.shape[1] ** 0.5)
        image = features.reshape(-1, 1, pixels, pixels)
        return nn.functional.interpolate(image, size=(self.side, self.side)).expand(-1, 3, -1, -1)


def build_model(features: int, classes: int, protocol: DistributedTrainingProtocol) -> nn.Module:
    """Return the protocol's model with weights drawn from torch's global generator.

    Raises
    ------
    ConfigError
        For a model that does not exist or does not fit the data.
    """
    if protocol.model == "mlp":
        width = protocol.hidden
        layers = [nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes)]
        return nn.Sequential(*layers)
    if protocol.model == "vgg16":
        require("model vgg16", ("torchvision",), "pip install torchvision")
        from torchvision.models import vgg16

        if int(features**0.5) ** 2 != features:
            raise ConfigError(f"vgg16 needs square images, but a sample has {features} features: choose task.model=mlp")
        return nn.Sequential(_AsImage(protocol.image_size), vgg16())
    module, colon, name = protocol.model.partition(":")
    if not colon:
        raise ConfigError(f"there is no model {protocol.model!r}: choose mlp, vgg16 or module:factory")
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"model {protocol.model!r} cannot be loaded ({error}): give an importable module:factory"
        ) from None
    model: nn.Module = factory(features, classes)
    return model


def parameter_shapes(dataset: TabularDataset, protocol: DistributedTrainingProtocol) -> list[tuple[int, ...]]:
    """Return the shapes of the model's trainable parameters, in the order in which backward finishes them."""
    with torch.device("meta"):
        model = build_model(dataset.features.shape[1], dataset.num_classes, protocol)
        samples = torch.empty(2, dataset.features.shape[1])
    return [tuple(parameter.shape) for parameter in finishing_order(model, samples)]


def finishing_order(model: nn.Module, samples: Tensor) -> list[nn.Parameter]:
    """Return the trainable parameters in the order in which backward finishes them, the idle ones last.

    A model that cannot be tried out on these samples (on the meta device, say) is taken to finish them in
    reverse order of registration.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    finished: list[Any] = []
    hooks = [parameter.register_post_accumulate_grad_hook(finished.append) for parameter in parameters]
    try:
        model(samples).sum().backward()
    except (NotImplementedError, RuntimeError):
        finished = []
    for hook in hooks:
        hook.remove()
    known = {id(parameter) for parameter in finished}
    return finished + [parameter for parameter in reversed(parameters) if id(parameter) not in known]


def classify(model: nn.Module, features: Tensor) -> NDArray[Any]:
    """Return class probabilities, float64 (B, C), of features (B, F).

    Raises
    ------
    InvalidPrediction
        If the model's outputs are not finite.
    """
    with torch.no_grad():
        parts = [model(batch).double().softmax(dim=1) for batch in features.split(256)]
    probabilities: NDArray[Any] = torch.cat(parts).numpy()
    if not np.isfinite(probabilities).all():
        raise InvalidPrediction("a model's outputs are not finite: training diverged")
    return probabilities
