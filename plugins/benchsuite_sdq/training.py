"""Phase 2: a network with given bits learns from the full-precision one (5.6); also what both phases share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchsuite.core import RunContext
from benchsuite.tasks.mixed_precision_quantization.contract import Budget, FullPrecision, QuantizationData
from benchsuite_sdq.config import SDQConfig
from benchsuite_sdq.losses import distillation, network_regularisation
from benchsuite_sdq.quantizers import (
    InputQuantizer,
    WeightQuantizer,
    layer_scale,
    quantized_layers,
    with_quantizers,
)

__all__ = ["Order", "Problem", "calibrating", "make_optimizer", "scales_of", "train"]

_CALIBRATING = 256
_MOMENTUM = 0.9
_CURVE_POINTS = 40


@dataclass(frozen=True, eq=False)
class Problem:
    """What is quantised, from what it learns, within which budget, under whose context."""

    model: FullPrecision
    data: QuantizationData
    budget: Budget
    ctx: RunContext


class Order:
    """Which pictures a step sees: every pass takes each once, but for an incomplete last batch.

    Parameters
    ----------
    places
        Of the pictures.
    batch
        Pictures of a step.
    seed
        Step and seed alone tell the pictures, so that a killed training goes on anywhere.
    """

    def __init__(self, places: Sequence[int], batch: int, seed: int) -> None:
        self._places = torch.tensor(list(places))
        self.batch = min(batch, len(self._places))
        self.a_pass = len(self._places) // self.batch
        self._seed, self._pass, self._shuffled = seed, -1, self._places

    def of(self, step: int) -> Tensor:
        """Return the places (batch,) of a step."""
        number = step // self.a_pass
        if number != self._pass:
            generator = torch.Generator().manual_seed(self._seed + number)
            self._shuffled = self._places[torch.randperm(len(self._places), generator=generator)]
            self._pass = number
        return self._shuffled[step % self.a_pass * self.batch :][: self.batch]


def make_optimizer(name: str, parameters: Any, lr: float, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """Return Adam, or SGD with momentum .9."""
    if name == "adam":
        return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay)
    return torch.optim.SGD(parameters, lr=lr, momentum=_MOMENTUM, weight_decay=weight_decay)


def calibrating(problem: Problem) -> Tensor:
    """Return the training pictures that first clips are chosen on, on the device of the run."""
    count = min(_CALIBRATING if problem.data.size < 64 else _CALIBRATING // 8, len(problem.data))
    return problem.data.prepared(range(count)).to(problem.ctx.device)


def scales_of(model: FullPrecision) -> dict[str, float]:
    """Return what the levels of each layer are multiplied by."""
    network = model.build()
    return {layer.name: layer_scale(network.get_submodule(layer.name)) for layer in model.layers}


def train(
    problem: Problem,
    strategy: Mapping[str, int],
    c: SDQConfig,
    name: str = "phase 2",
    places: Sequence[int] | None = None,
    epochs: int = 0,
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Return a trained network with these bits, and the curve of its loss.

    Parameters
    ----------
    problem, strategy, c
        What is trained, bits of every layer, settings.
    name
        Of the training, within the run.
    places
        Of the pictures it learns from; all without.
    epochs
        Passes, instead of those of the settings.
    """
    data, ctx = problem.data, problem.ctx
    scales = scales_of(problem.model)
    network = with_quantizers(
        problem.model,
        problem.budget.input_bits,
        c.activation == "pact",
        calibrating(problem),
        {name: WeightQuantizer(bits, scales[name]) for name, bits in strategy.items()},
    )
    teacher = problem.model.build()
    order = Order(range(len(data)) if places is None else places, c.batch_size, ctx.seed_for("run", "order"))
    total = epochs * order.a_pass if epochs else c.steps or c.epochs * order.a_pass
    optimizer = make_optimizer(c.optimizer, network.parameters(), c.lr, c.weight_decay)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    augmenting = torch.Generator().manual_seed(ctx.seed_for("run", "augmenting"))
    labels = torch.from_numpy(data.labels)
    layers = [(module, strategy[layer]) for layer, module in quantized_layers(network)]
    clips = [module for module in network.modules() if isinstance(module, InputQuantizer)]
    curve: list[dict[str, Any]] = []
    parts = {"network": network, "optimizer": optimizer, "rates": rates, "augmenting": augmenting, "curve": curve}
    network.train()
    for step in ctx.resumable(name, total, parts):
        seen = order.of(step)
        pictures = data.augmented(seen.tolist(), augmenting).to(ctx.device)
        logits = network(pictures)
        if c.distillation:
            with torch.no_grad():
                answers = teacher(pictures)
            loss = distillation(logits, answers)
        else:
            loss = F.cross_entropy(logits, labels[seen].to(ctx.device))
        task_loss = float(loss.detach()) if step % max(1, total // _CURVE_POINTS) == 0 else None
        if c.lambda_e:
            weights = ((module.layer.weight, bits) for module, bits in layers)
            loss = loss + c.lambda_e * network_regularisation(weights, c.entropy_norm)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        for clip in clips:
            clip.bound()
        if task_loss is not None:
            curve.append({"step": step, "task_loss": task_loss, "loss": float(loss.detach())})
    return network.eval(), curve
