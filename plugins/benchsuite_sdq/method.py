"""The rows of this plugin: a strategy from one of several sources, then the same phase 2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from benchsuite.core import RunContext
from benchsuite.tasks.mixed_precision_quantization.contract import (
    Budget,
    FullPrecision,
    QuantizationData,
    QuantizedModel,
    Quantizer,
)
from benchsuite.tasks.mixed_precision_quantization.networks import build_network, layers_of
from benchsuite_sdq import strategies
from benchsuite_sdq.config import SDQConfig
from benchsuite_sdq.quantizers import InputQuantizer, QuantizedLayer, WeightQuantizer, exported
from benchsuite_sdq.search import searched
from benchsuite_sdq.training import Problem, train

__all__ = ["SDQ"]


class SDQ(Quantizer):
    """Bits by a search, or from elsewhere; then quantisation-aware training with these bits."""

    Config: ClassVar[type] = SDQConfig
    config: SDQConfig

    def quantize(self, model: FullPrecision, data: QuantizationData, budget: Budget, ctx: RunContext) -> QuantizedModel:
        """See `Quantizer.quantize`."""
        problem = Problem(model, data, budget, ctx)
        with ctx.phase("strategy"):
            strategy, tables = self._strategy(problem)
        with ctx.phase("phase 2"):
            network, curve = train(problem, strategy, self.config)
        return exported(network, model, training=curve, **tables)

    def _strategy(self, problem: Problem) -> tuple[Mapping[str, int], dict[str, list[dict[str, Any]]]]:
        """Return the bits of every layer, and tables about how they were found."""
        c, layers, budget = self.config, problem.model.layers, problem.budget
        if c.allocation == "search":
            found = searched(problem, c)
            return found.strategy, {"search": found.trace, "search_length": [{"steps": found.steps}]}
        if c.allocation == "reversed":
            found = searched(problem, c)
            return strategies.reversed_ranks(layers, found.strategy, budget), {}
        if c.allocation == "sensitivity":
            strategy, rows = strategies.sensitivity(problem, c)
            return strategy, {"sensitivity": rows}
        if c.allocation == "oracle":
            strategy, rows = strategies.oracle(problem, c)
            return strategy, {"oracle": rows}
        if c.allocation == "random":
            rng = np.random.default_rng([problem.ctx.seed_for("run", "strategy"), c.draw])
            return strategies.random(layers, budget, rng), {}
        if c.allocation == "given":
            return strategies.given(layers, c.given_bits(), budget), {}
        return strategies.uniform(layers, budget), {}

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield a small network with quantisers on two pictures."""
        network = build_network("cnn", 1, 10, 8)
        for name, layer in layers_of(network).items():
            seen = InputQuantizer(2, name == "0", 1.0, learned=True)
            setattr(network, name, QuantizedLayer(layer, WeightQuantizer(2, 1.0), seen))
        yield network.eval(), (torch.randn(2, 1, 8, 8),)
