"""Differentiable bitwidth parameters: stochastic quantisation, its gradient, and decay (sections 5.3 and 5.5).

A parameter beta is the probability of staying at the current bitwidth b_i; else the next lower one, b_(i-1), is used in
that forward pass. What shares a parameter is told by a map from weights to parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchsuite.tasks.mixed_precision_quantization.contract import Layer
from benchsuite_sdq.quantizers import dorefa, squashed

__all__ = ["BitwidthParameters", "StochasticWeight", "choice", "groups_of", "quantization_errors"]

_EDGE = 1e-4

Estimator = Literal["gumbel", "interpolation"]


def groups_of(layers: Sequence[Layer], granularity: str) -> tuple[dict[str, Tensor], int]:
    """Return for each layer the places of its parameters, int64 (1,) or (output channels,), and how many there are.

    A block is what has the same name but for its last part; a layer whose name has one part is a block of its own.
    """
    found: dict[str, Tensor] = {}
    if granularity == "kernel":
        count = 0
        for layer in layers:
            found[layer.name] = torch.arange(count, count + layer.shape[0])
            count += layer.shape[0]
        return found, count
    keys: dict[str, int] = {}
    for layer in layers:
        block = layer.name.rpartition(".")[0] or layer.name
        key = {"layer": layer.name, "block": block, "net": ""}[granularity]
        found[layer.name] = torch.tensor([keys.setdefault(key, len(keys))])
    return found, len(keys)


def choice(beta: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Return 1 where the higher bitwidth is drawn, 0 where the lower, with the gradient of the Gumbel-softmax.

    Parameters
    ----------
    beta
        (K,) in [0, 1]: probability of the higher one.
    noise
        (K, 2) standard Gumbel: of the higher, of the lower.
    temperature
        tau.

    Notes
    -----
    y = softmax((log beta, log(1 - beta) + G) / tau), forward the larger of both, backward through y, so that
    dy1/dbeta = y1 y2 / tau (1 / beta + 1 / (1 - beta)). The logarithm sees beta within [1e-4, 1 - 1e-4]; the
    gradient does not end there.
    """
    inside = beta + (beta.clamp(_EDGE, 1 - _EDGE) - beta).detach()
    logits = torch.stack([inside.log(), (1 - inside).log()], dim=1) + noise  # (K, 2)
    soft = torch.softmax(logits / temperature, dim=1)[:, 0]  # (K,)
    hard = (logits[:, 0] > logits[:, 1]).to(soft.dtype)
    return hard + (soft - soft.detach())


class BitwidthParameters(nn.Module):
    """All bitwidth parameters of a network, with their present bitwidths.

    Parameters
    ----------
    count
        K, their number.
    candidates
        Bitwidths, ascending.
    threshold
        A parameter below it decays.
    estimator, temperature
        How a forward pass chooses.
    """

    index: Tensor
    chosen: Tensor | None

    def __init__(
        self, count: int, candidates: Sequence[int], threshold: float, estimator: Estimator, temperature: float
    ) -> None:
        super().__init__()
        self.candidates, self.threshold = tuple(candidates), threshold
        self.estimator, self.temperature = estimator, temperature
        self.beta = nn.Parameter(torch.ones(count))
        self.register_buffer("index", torch.full((count,), len(self.candidates) - 1))
        self.chosen = None

    @property
    def active(self) -> Tensor:
        """(K,) bool: those that have a lower bitwidth left."""
        return self.index > 0

    def draw(self, generator: torch.Generator) -> None:
        """Choose for one forward pass: all layers at once, one draw a parameter."""
        if self.estimator == "interpolation":
            self.chosen = torch.where(self.active, self.beta, 1.0)
            return
        uniform = torch.rand((len(self.beta), 2), generator=generator).clamp(1e-20, 1 - 1e-7).to(self.beta.device)
        noise = -torch.log(-torch.log(uniform))
        self.chosen = torch.where(self.active, choice(self.beta, noise, self.temperature), 1.0)

    @torch.no_grad()
    def decay(self, optimizer: torch.optim.Optimizer) -> list[int]:
        """Clamp after a step, let what fell below the threshold go down one bitwidth, and return its places.

        What goes down starts anew: at 1, without the optimiser's memory of the old parameter.
        """
        self.beta.clamp_(0, 1)
        falling = (self.beta < self.threshold) & self.active
        self.index -= falling.to(self.index.dtype)
        self.beta[falling] = 1.0
        for value in optimizer.state.get(self.beta, {}).values():
            if isinstance(value, Tensor) and value.shape == self.beta.shape:
                value[falling] = 0
        return [int(place) for place in falling.nonzero().flatten()]

    def bits(self) -> Tensor:
        """(K,) int64, present bitwidths."""
        return torch.tensor(self.candidates, device=self.index.device)[self.index]

    def settled(self) -> Tensor:
        """(K,) int64, bitwidths when time is over: what is more likely to fall than to stay has fallen."""
        falling = (self.beta > 0) & (self.beta < 0.5) & self.active
        return torch.tensor(self.candidates, device=self.index.device)[self.index - falling.to(self.index.dtype)]


class StochasticWeight(nn.Module):
    """A weight quantised with one of two adjacent bitwidths, drawn anew for each forward pass of a training.

    In evaluation mode it has its present bitwidth.
    """

    def __init__(self, parameters: BitwidthParameters, places: Tensor, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("places", places, persistent=False)
        self._shared = (parameters,)  # in a tuple: they belong to no layer

    def forward(self, weight: Tensor) -> Tensor:
        """Return the quantised weight."""
        shared, places = self._shared[0], self.places
        index = shared.index[places]  # (1,) or (output channels,)
        if not self.training or shared.chosen is None:
            return self._each(weight, index)
        taken = shared.chosen[places].reshape(-1, *(1,) * (weight.ndim - 1))
        return taken * self._each(weight, index) + (1 - taken) * self._each(weight, (index - 1).clamp_min(0))

    def _each(self, weight: Tensor, index: Tensor) -> Tensor:
        """Return the weight with the bitwidth of each of its parameters."""
        candidates = self._shared[0].candidates
        used = index.unique().tolist()
        if len(used) == 1:
            return dorefa(weight, candidates[used[0]], self.scale)
        rows = index.reshape(-1, *(1,) * (weight.ndim - 1))
        found = torch.zeros_like(weight)
        for place in used:
            found = torch.where(rows == place, dorefa(weight, candidates[place], self.scale), found)
        return found


@torch.no_grad()
def _squared_errors(weight: Tensor, bits: int) -> Tensor:
    """Return ``(Q_b(w) - (2 w~ - 1))^2`` summed for each output channel."""
    aim = 2 * squashed(weight) - 1
    return (dorefa(weight, bits) - aim).square().flatten(1).sum(dim=1)


def quantization_errors(
    shared: BitwidthParameters, weights: Mapping[str, Tensor], groups: Mapping[str, Tensor], normalised: bool
) -> Tensor:
    """Return L_QER, the sum of (2^b - 1)^2 beta Omega (5.4); no gradient reaches the weights.

    Parameters
    ----------
    shared
        The parameters.
    weights, groups
        Weight of each layer, and the places of its parameters.
    normalised
        Divide a layer's error by its number of weights.
    """
    pressure = torch.zeros_like(shared.beta)
    candidates: Any = shared.candidates
    for name, weight in weights.items():
        places = groups[name].to(pressure.device)
        share = 1 / weight.numel() if normalised else 1.0
        index = shared.index[places]
        for at in index.unique().tolist():
            bits = candidates[at]
            errors = (2**bits - 1) ** 2 * share * _squared_errors(weight.detach(), bits)  # (output channels,)
            if len(places) == 1:
                pressure[places] += errors.sum()
            else:
                pressure[places[index == at]] += errors[index == at]
    return (torch.where(shared.active, shared.beta, 0.0) * pressure.detach()).sum()
