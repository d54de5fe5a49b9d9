"""Many workers' training in one process: one tensor holds all models, one batched pass computes all gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from benchsuite.core import RunContext
from benchsuite.datasets.tabular_digits.reader import TabularDataset
from benchsuite.tasks.distributed_training.contract import DistributedTrainingProtocol
from benchsuite.tasks.distributed_training.cost_model import Waiting
from benchsuite.tasks.distributed_training.models import build_model, classify
from benchsuite.tasks.distributed_training.simulated_contract import EmulatedAlgorithm, SimulatedTrainingProtocol


@dataclass(frozen=True)
class Trained:
    """The workers after training.

    Attributes
    ----------
    model
        The architecture.
    weights
        (workers, parameters) float32.
    losses
        Mean training loss of all workers at each step.
    partners
        Whose messages a worker waited for at each step.
    """

    model: nn.Module
    weights: Tensor
    losses: list[float]
    partners: list[NDArray[np.int64] | Waiting]


def train(
    method: EmulatedAlgorithm, dataset: TabularDataset, protocol: SimulatedTrainingProtocol, ctx: RunContext
) -> Trained:
    """Train all workers from the same initial weights, each on batches of its own."""
    torch.manual_seed(ctx.seed_for("run", "weights"))
    model = build_model(dataset.features.shape[1], dataset.num_classes, model_protocol(protocol))
    start = nn.utils.parameters_to_vector(model.parameters()).detach()
    weights = start.repeat(protocol.workers, 1).to(ctx.device)
    emulation = method.emulate(weights, protocol.lr, protocol.momentum)
    features = torch.from_numpy(dataset.features[dataset.train]).to(ctx.device)
    labels = torch.from_numpy(dataset.labels[dataset.train]).to(ctx.device)
    order = torch.Generator().manual_seed(ctx.seed_for("run", "order"))
    losses: list[float] = []
    partners: list[NDArray[np.int64] | Waiting] = []
    for step in ctx.steps(protocol.steps):
        draws = torch.randint(len(labels), (protocol.workers, protocol.local_batch), generator=order).to(ctx.device)
        emulation.before_forward()
        gradients, loss = all_gradients(model, weights, features[draws], labels[draws])
        gradients = emulation.combine_gradients(gradients)
        emulation.after_backward()
        emulation.update(gradients)
        emulation.after_step()
        losses.append(loss.mean().item())
        partners.append(emulation.partners(step))
    return Trained(model, weights, losses, partners)


def model_protocol(protocol: SimulatedTrainingProtocol) -> DistributedTrainingProtocol:
    """Return the protocol of the emulated model."""
    return DistributedTrainingProtocol(hidden=protocol.hidden)


def all_gradients(model: nn.Module, weights: Tensor, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return every worker's gradient (n, N) and loss (n,) for weights (n, N), features (n, B, F), labels (n, B)."""
    names = [name for name, _ in model.named_parameters()]
    shapes = [parameter.shape for parameter in model.parameters()]

    def loss(flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
        parts = flat.split([shape.numel() for shape in shapes])
        values = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return nn.functional.cross_entropy(functional_call(model, values, (x,)), y)

    gradients, losses = vmap(grad_and_value(loss))(weights, features, labels)
    return gradients, losses


def mean_model_probabilities(trained: Trained, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the class probabilities (samples, classes) of the mean of all models."""
    mean = trained.weights.double().mean(dim=0).float().cpu()
    nn.utils.vector_to_parameters(mean, trained.model.parameters())
    return classify(trained.model, torch.from_numpy(features))
