"""Phase 1: the search of a strategy in one training (5.3 to 5.5)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchsuite.tasks.mixed_precision_quantization.contract import Layer, average_bits
from benchsuite_sdq.bitwidths import BitwidthParameters, StochasticWeight, groups_of, quantization_errors
from benchsuite_sdq.config import SDQConfig
from benchsuite_sdq.quantizers import InputQuantizer, WeightQuantizer, quantized_layers, with_quantizers
from benchsuite_sdq.training import Order, Problem, calibrating, make_optimizer, scales_of

__all__ = ["FEWEST_STEPS", "Found", "search", "searched"]

FEWEST_STEPS = 300
"""A shorter search hardly listens to the task's gradient: it only counts weights."""

_SETTINGS = (
    *("estimator", "granularity", "temperature", "lambda_q", "normalised_qer", "beta_threshold", "beta_lr"),
    *("search_steps", "search_optimizer", "search_lr", "batch_size", "activation"),
)


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes
    ----------
    strategy
        Bits of every layer.
    steps
        Steps that were taken.
    trace
        A record for the bits of every layer at the start and after each decay: ``step``, ``layer``, ``bits``,
        ``weight_bits`` (the average of all layers).
    """

    strategy: dict[str, int]
    steps: int
    trace: list[dict[str, Any]]


def searched(problem: Problem, c: SDQConfig) -> Found:
    """Return the strategy of this seed: searched once for all rows with the same settings of phase 1."""
    ctx, budget = problem.ctx, problem.budget
    inputs = {
        "model": problem.model.digest,
        "data": problem.data.digest,
        "budget": [budget.weight_bits, list(budget.candidates), dict(budget.pinned), dict(budget.input_bits)],
        "seed": ctx.seed_for("run", "search"),
        "max_steps": ctx.max_steps,
        **{name: getattr(c, name) for name in _SETTINGS},
    }

    def build(folder: Path) -> None:
        found = search(problem, c)
        (folder / "search.json").write_text(json.dumps([found.strategy, found.steps, found.trace]))

    found = Found(*json.loads((ctx.cached("search", inputs, build) / "search.json").read_text()))
    if ctx.max_steps is None:
        _warn(found, problem)
    return found


def _warn(found: Found, problem: Problem) -> None:
    """Say what is doubtful of a search, whether it was made for this row or for another."""
    log, budget = problem.ctx.log, problem.budget.weight_bits
    if found.steps < FEWEST_STEPS:
        log.warning(f"the search ended after {found.steps} steps, fewer than {FEWEST_STEPS}: lower lambda_q or beta_lr")
    average = average_bits(problem.model.layers, found.strategy)
    if average > budget:
        log.warning(f"the search ended at {average:.3g} bits, above the budget of {budget:g}: raise lambda_q")


def search(problem: Problem, c: SDQConfig) -> Found:
    """Train weights and bitwidth parameters together until the budget is met, or time is over.

    Weights start from the full-precision network. After every step parameters below the threshold decay.
    """
    data, ctx, budget = problem.data, problem.ctx, problem.budget
    seed = ctx.seed_for("run", "search")
    free = [layer for layer in problem.model.layers if layer.name not in budget.pinned]
    groups, count = groups_of(free, c.granularity)
    shared = BitwidthParameters(count, budget.candidates, c.beta_threshold, c.estimator, c.temperature).to(ctx.device)
    scales = scales_of(problem.model)
    network = with_quantizers(
        problem.model,
        budget.input_bits,
        c.activation == "pact",
        calibrating(problem),
        {name: WeightQuantizer(bits, scales[name]) for name, bits in budget.pinned.items()}
        | {layer.name: StochasticWeight(shared, groups[layer.name], scales[layer.name]) for layer in free},
    )
    order = Order(range(len(data)), c.batch_size, seed)
    weight_optimizer = make_optimizer(c.search_optimizer, network.parameters(), c.search_lr)
    beta_optimizer = torch.optim.SGD(shared.parameters(), lr=c.beta_lr)  # no momentum, no weight decay
    draws = torch.Generator().manual_seed(seed)
    augmenting = torch.Generator().manual_seed(ctx.seed_for("run", "augmenting"))
    labels = torch.from_numpy(data.labels)
    layers = {name: module.layer for name, module in quantized_layers(network) if name in groups}
    clips = [module for module in network.modules() if isinstance(module, InputQuantizer)]
    present = _strategy(problem, groups, shared.bits())
    trace = [_record(0, layer, present, problem) for layer in problem.model.layers]
    progress: dict[str, Any] = {"steps": 0, "trace": json.dumps(trace)}
    parts = {
        **{"network": network, "bitwidths": shared, "weights": weight_optimizer, "betas": beta_optimizer},
        **{"draws": draws, "augmenting": augmenting, "progress": progress},
    }
    network.train()
    for step in ctx.resumable("search", c.search_steps, parts):
        seen = order.of(step)
        shared.draw(draws)
        logits = network(data.augmented(seen.tolist(), augmenting).to(ctx.device))
        loss = F.cross_entropy(logits, labels[seen].to(ctx.device))
        errors = quantization_errors(
            shared, {name: layer.weight for name, layer in layers.items()}, groups, c.normalised_qer
        )
        loss = loss + c.lambda_q * errors
        weight_optimizer.zero_grad()
        beta_optimizer.zero_grad()
        loss.backward()
        weight_optimizer.step()
        beta_optimizer.step()
        for clip in clips:
            clip.bound()
        progress["steps"] = step + 1
        before = _strategy(problem, groups, shared.bits())
        if shared.decay(beta_optimizer):
            present = _strategy(problem, groups, shared.bits())
            progress["trace"] = _with_falls(progress, before, present, problem)
        else:
            present = before
        if average_bits(problem.model.layers, present) <= budget.weight_bits:
            break
    else:
        before, present = _strategy(problem, groups, shared.bits()), _strategy(problem, groups, shared.settled())
        progress["trace"] = _with_falls(progress, before, present, problem)
    return Found(present, progress["steps"], json.loads(progress["trace"]))


def _with_falls(progress: dict[str, Any], before: dict[str, int], after: dict[str, int], problem: Problem) -> str:
    """Return the trace with a record for every layer whose bits are others now."""
    fallen = [layer for layer in problem.model.layers if after[layer.name] != before[layer.name]]
    trace = json.loads(progress["trace"])
    return json.dumps(trace + [_record(progress["steps"], layer, after, problem) for layer in fallen])


def _strategy(problem: Problem, groups: dict[str, torch.Tensor], bits: torch.Tensor) -> dict[str, int]:
    """Return the bits of every layer; where channels differ, the whole part of their mean ([inferred])."""
    bits = bits.cpu()
    return {
        layer.name: problem.budget.pinned.get(layer.name)
        or int(bits[groups[layer.name]].sum()) // len(groups[layer.name])
        for layer in problem.model.layers
    }


def _record(step: int, layer: Layer, strategy: dict[str, int], problem: Problem) -> dict[str, Any]:
    return {
        "step": step,
        "layer": layer.name,
        "bits": strategy[layer.name],
        "weight_bits": average_bits(problem.model.layers, strategy),
    }
