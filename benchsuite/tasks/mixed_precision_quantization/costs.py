"""What a quantised network costs, counted: bits, multiply-adds times bits, compression, bytes.

Every number is counted over all quantised layers, and without the first and the last, since papers differ in which of
the two they report. Biases and norms are no quantised weights; their scalars count in bytes only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchsuite.core import Metric
from benchsuite.tasks.mixed_precision_quantization.contract import FULL_BITS, Budget, Layer

__all__ = ["COUNTED", "Costs", "costs_of", "over_budget"]

_ALL = (
    ("weight_bits", "min", "bits", "bits of an average weight: sum of n_l b_l over sum of n_l"),
    ("activation_bits", "min", "bits", "bits of an average input value of a layer: sum of s_l a_l over sum of s_l"),
    ("bitops", "min", "M", "million multiply-adds of one picture times the bits of both factors, sum of m_l b_l a_l"),
    ("compression", "max", "x", "32 bits a weight over those stored: 32 sum of n_l over sum of n_l b_l"),
)

COUNTED = (
    *(Metric(name, direction, unit=unit, doc=doc) for name, direction, unit, doc in _ALL),  # type: ignore[arg-type]
    *(
        Metric(f"{name}_inner", direction, unit=unit, doc=f"{name} without the first and the last layer")  # type: ignore[arg-type]
        for name, direction, unit, _ in _ALL
    ),
    Metric("model_bytes", "min", unit="B", doc="sum of ceil(n_l b_l / 8), and 4 for every scalar in full precision"),
    Metric("model_bytes_inner", "min", unit="B", doc="sum of ceil(n_l b_l / 8) without the first and the last layer"),
    Metric("packed_bytes", "min", unit="B", doc="length of the packed file, header and checksum included"),
    Metric(
        "over_budget",
        "min",
        unit="bits",
        doc="how far weights, or the inputs of any layer, lie above the budget",
    ),
)
"""The metrics of this module, in table order."""


@dataclass(frozen=True)
class Costs:
    """Counts over some layers; see the module."""

    weight_bits: float
    activation_bits: float
    bitops: int
    compression: float
    code_bytes: int


def costs_of(layers: Sequence[Layer], weights: Mapping[str, int], inputs: Mapping[str, int]) -> Costs:
    """Return what layers cost.

    Parameters
    ----------
    layers
        At least one.
    weights, inputs
        Name of each layer to the bits of its weight, and of its input.
    """
    stored = sum(layer.weights * weights[layer.name] for layer in layers)
    count = sum(layer.weights for layer in layers)
    return Costs(
        weight_bits=stored / count,
        activation_bits=sum(layer.inputs * inputs[layer.name] for layer in layers) / sum(la.inputs for la in layers),
        bitops=sum(layer.macs * weights[layer.name] * inputs[layer.name] for layer in layers),
        compression=FULL_BITS * count / stored,
        code_bytes=sum(-(-layer.weights * weights[layer.name] // 8) for layer in layers),
    )


def over_budget(
    layers: Sequence[Layer], weights: Mapping[str, int], inputs: Mapping[str, int], budget: Budget
) -> float:
    """Return the bits of an average weight above the budget, plus those of the layer input that is furthest above.

    Plus those of the layer that is furthest off its pinned bits, or off the candidates; what is left in full precision
    counts in the average alone.
    """
    weight_excess = max(0.0, costs_of(layers, weights, inputs).weight_bits - budget.weight_bits)
    input_excess = max(max(0, inputs[layer.name] - budget.input_bits[layer.name]) for layer in layers)
    return weight_excess + input_excess + max(_off(layer.name, weights[layer.name], budget) for layer in layers)


def _off(name: str, bits: int, budget: Budget) -> int:
    if name in budget.pinned:
        return abs(bits - budget.pinned[name])
    if bits == FULL_BITS:
        return 0
    return max(0, bits - budget.candidates[-1], budget.candidates[0] - bits)


def counted(
    layers: Sequence[Layer], weights: Mapping[str, int], inputs: Mapping[str, int], scalars: int
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Return the counted metrics but packed length and budget, and why those that are None are undefined."""
    everything = costs_of(layers, weights, inputs)
    scores: dict[str, float | None] = {
        **_scores(everything, ""),
        "model_bytes": everything.code_bytes + 4 * scalars,
    }
    inner = layers[1:-1]
    if inner:
        without = costs_of(inner, weights, inputs)
        return {**scores, **_scores(without, "_inner"), "model_bytes_inner": without.code_bytes}, {}
    names = [f"{name}_inner" for name in ("weight_bits", "activation_bits", "bitops", "compression", "model_bytes")]
    return scores | dict.fromkeys(names), dict.fromkeys(names, "there is no layer between the first and the last")


def _scores(costs: Costs, ending: str) -> dict[str, Any]:
    return {
        f"weight_bits{ending}": costs.weight_bits,
        f"activation_bits{ending}": costs.activation_bits,
        f"bitops{ending}": costs.bitops / 1e6,
        f"compression{ending}": costs.compression,
    }
