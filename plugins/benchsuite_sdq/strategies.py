"""Other ways to share a budget out: evenly, by chance, by sensitivity, turned round, by trying all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from torch import nn

from benchsuite.core import ConfigError
from benchsuite.tasks.mixed_precision_quantization.contract import Budget, Layer, average_bits
from benchsuite_sdq.config import SDQConfig
from benchsuite_sdq.quantizers import dorefa, squashed
from benchsuite_sdq.training import Order, Problem, train

__all__ = [
    "given",
    "maximal",
    "oracle",
    "random",
    "reversed_ranks",
    "sensitivity",
    "traces",
    "tried_strategies",
    "uniform",
]

Strategy = dict[str, int]

_LISTED = 50_000  # so many combinations of bits are gone through


def uniform(layers: Sequence[Layer], budget: Budget) -> Strategy:
    """Return the same bits for all free layers, the most that fit."""
    for bits in reversed(budget.candidates):
        strategy = {layer.name: budget.pinned.get(layer.name, bits) for layer in layers}
        if _fits(layers, strategy, budget):
            return strategy
    raise ConfigError(f"a budget of {budget.weight_bits:g} bits is below {budget.candidates[0]} everywhere")


def given(layers: Sequence[Layer], bits: Sequence[int], budget: Budget) -> Strategy:
    """Return bits told by the user, in the order of the layers."""
    if len(bits) != len(layers):
        raise ConfigError(f"given has {len(bits)} numbers: the network has {len(layers)} layers")
    strategy = {layer.name: number for layer, number in zip(layers, bits, strict=True)}
    for name, number in strategy.items():
        allowed = [budget.pinned[name]] if name in budget.pinned else budget.candidates
        if number not in allowed:
            told = f"{allowed[0]}, as it is pinned" if name in budget.pinned else f"{allowed[0]} to {allowed[-1]}"
            raise ConfigError(f"given has {number} bits for layer {name!r}: needs {told}")
    return strategy


def random(layers: Sequence[Layer], budget: Budget, rng: Generator) -> Strategy:
    """Return a random strategy of the budget's size.

    All free layers have random bits at first; random ones go down until the budget is met, then layers in a random
    order go up as far as it allows, so that none could have another bit.
    """
    free = [layer.name for layer in layers if layer.name not in budget.pinned]
    strategy = dict(budget.pinned) | {name: int(rng.choice(budget.candidates)) for name in free}
    while not _fits(layers, strategy, budget):
        lower = [name for name in free if strategy[name] > budget.candidates[0]]
        if not lower:
            raise ConfigError(f"a budget of {budget.weight_bits:g} bits is below {budget.candidates[0]} everywhere")
        strategy[str(rng.choice(lower))] -= 1
    return _filled(layers, strategy, budget, [free[place] for place in rng.permutation(len(free))])


def reversed_ranks(layers: Sequence[Layer], found: Mapping[str, int], budget: Budget) -> Strategy:
    """Return a strategy with its ranks turned round: what had the most bits has the fewest.

    Brought to the budget's size: the layer with the most bits, the larger of equals, goes down until it is met; then
    layers go up as far as it allows, those first that had the fewest.
    """
    free = [layer for layer in layers if layer.name not in budget.pinned]
    span = max(found[la.name] for la in free) + min(found[la.name] for la in free)
    strategy = dict(budget.pinned) | {layer.name: span - found[layer.name] for layer in free}
    sizes = {layer.name: layer.weights for layer in free}
    while not _fits(layers, strategy, budget):
        strategy[max(sizes, key=lambda name: (strategy[name], sizes[name]))] -= 1
    return _filled(layers, strategy, budget, sorted(sizes, key=lambda name: found[name]))


def maximal(layers: Sequence[Layer], budget: Budget) -> Iterator[Strategy]:
    """Yield every strategy within the budget in which no layer could have another bit."""
    free = [layer for layer in layers if layer.name not in budget.pinned]
    most = budget.candidates[-1]
    for bits in itertools.product(budget.candidates, repeat=len(free)):
        strategy = dict(budget.pinned) | {layer.name: number for layer, number in zip(free, bits, strict=True)}
        if _fits(layers, strategy, budget) and not any(
            strategy[la.name] < most and _fits(layers, {**strategy, la.name: strategy[la.name] + 1}, budget)
            for la in free
        ):
            yield strategy


def sensitivity(problem: Problem, c: SDQConfig) -> tuple[Strategy, list[dict[str, Any]]]:
    """Return the bits by Hessian traces (in the manner of HAWQ-V2), and the trace of each layer.

    Omega_l(b) = mean trace of the Hessian of the loss times the squared error of the weight at b bits. From the most
    bits on, the layer goes down whose Omega rises least for each bit that is saved; then layers go up again, as far as
    the budget allows.
    """
    layers, budget = problem.model.layers, problem.budget
    network = problem.model.build()
    found = traces(network, problem, c)
    free = [layer for layer in layers if layer.name not in budget.pinned]
    omega = {
        layer.name: {
            bits: max(found[layer.name], 0.0) / layer.weights * _error(network, layer.name, bits)
            for bits in budget.candidates
        }
        for layer in free
    }
    strategy = dict(budget.pinned) | {layer.name: budget.candidates[-1] for layer in free}
    while not _fits(layers, strategy, budget):
        lower = [layer for layer in free if strategy[layer.name] > budget.candidates[0]]
        least = min(
            lower,
            key=lambda la: (omega[la.name][strategy[la.name] - 1] - omega[la.name][strategy[la.name]]) / la.weights,
        )
        strategy[least.name] -= 1
    names = [layer.name for layer in free]
    strategy = _filled(layers, strategy, budget, sorted(names, key=lambda name: -omega[name][strategy[name]]))
    rows = [{"layer": la.name, "trace": found[la.name], "bits": strategy[la.name]} for la in free]
    return strategy, rows


def traces(network: nn.Module, problem: Problem, c: SDQConfig) -> dict[str, float]:
    """Return the trace of the Hessian of the cross-entropy to each layer's weight, by Hutchinson's random signs."""
    data, ctx = problem.data, problem.ctx
    seed = ctx.seed_for("run", "probes")
    order, signs = Order(range(len(data)), c.batch_size, seed), torch.Generator().manual_seed(seed)
    names = [layer.name for layer in problem.model.layers if layer.name not in problem.budget.pinned]
    weights: list[Any] = [network.get_submodule(name).weight for name in names]
    labels = torch.from_numpy(data.labels)
    sums = torch.zeros(len(names), dtype=torch.float64)
    progress = {"taken": 0}
    for probe in ctx.resumable("probes", c.probes, {"signs": signs, "sums": sums, "progress": progress}):
        seen = order.of(probe)
        loss = F.cross_entropy(network(data.prepared(seen.tolist()).to(ctx.device)), labels[seen].to(ctx.device))
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        for place, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            sign = (torch.randint(2, weight.shape, generator=signs) * 2 - 1).to(weight)
            (product,) = torch.autograd.grad(gradient, weight, sign, retain_graph=True)
            sums[place] += float((product * sign).sum())
        progress["taken"] = probe + 1
    return {name: float(value) / max(progress["taken"], 1) for name, value in zip(names, sums, strict=True)}


@torch.no_grad()
def _error(network: nn.Module, name: str, bits: int) -> float:
    """Return the squared error of a weight at some bits, on the scale of the weight."""
    weight: Any = network.get_submodule(name).weight
    aim = 2 * squashed(weight) - 1
    size = float(weight.abs().mean() / aim.abs().mean())
    return size**2 * float((dorefa(weight, bits) - aim).square().sum())


def oracle(problem: Problem, c: SDQConfig) -> tuple[Strategy, list[dict[str, Any]]]:
    """Return the best strategy on a fifth of the training pictures that the others learn from, and all scores.

    Tried are all maximal strategies, or random ones where the network has too many layers to go through all. A first
    round trains each for a few passes, a second the best ones in full. Test pictures are not seen.
    """
    every = tried_strategies(problem, c)
    chosen = _held_out(problem.data.labels)
    rest = np.setdiff1d(np.arange(len(problem.data)), chosen)
    rows: list[dict[str, Any]] = []

    def tried(number: int, epochs: int, what: str) -> float:
        network, _ = train(problem, every[number], c, f"oracle {what} {number}", rest.tolist(), epochs)
        score = _accuracy(network, problem, chosen)
        rows.append({"round": what, "strategy": "/".join(map(str, every[number].values())), "held_out_top1": score})
        return score

    first = [tried(number, c.oracle_epochs, "first") for number in range(len(every))]
    best = sorted(range(len(every)), key=lambda number: -first[number])[: c.oracle_finalists]
    second = {number: tried(number, 0, "second") for number in best}
    return every[max(second, key=lambda number: second[number])], rows


def tried_strategies(problem: Problem, c: SDQConfig) -> list[Strategy]:
    """Return all maximal strategies, or ``oracle_most`` different random ones where there are too many to list."""
    layers, budget = problem.model.layers, problem.budget
    if len(budget.candidates) ** (len(layers) - len(budget.pinned)) <= _LISTED:
        return list(maximal(layers, budget))
    rng = np.random.default_rng(problem.ctx.seed_for("run", "oracle"))
    drawn = [random(layers, budget, rng) for _ in range(c.oracle_most)]
    return list({tuple(strategy.items()): strategy for strategy in drawn}.values())


def _held_out(labels: Any) -> Any:
    """Return a fifth of the places of each class, every fifth in order."""
    order = np.argsort(labels, kind="stable")
    return np.sort(order[::5])


@torch.no_grad()
def _accuracy(network: nn.Module, problem: Problem, places: Any) -> float:
    logits = network(problem.data.prepared(places.tolist()).to(problem.ctx.device)).cpu()
    return float((logits.argmax(dim=1).numpy() == problem.data.labels[places]).mean())


def _fits(layers: Sequence[Layer], strategy: Mapping[str, int], budget: Budget) -> bool:
    return average_bits(layers, strategy) <= budget.weight_bits


def _filled(layers: Sequence[Layer], strategy: Strategy, budget: Budget, order: Sequence[str]) -> Strategy:
    """Raise layers in this order, each as far as the budget allows."""
    strategy = dict(strategy)
    for name in order:
        while strategy[name] < budget.candidates[-1] and _fits(layers, {**strategy, name: strategy[name] + 1}, budget):
            strategy[name] += 1
    return strategy
