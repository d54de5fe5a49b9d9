"""What a packed network is worth: accuracy of what was read from the file, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Metric, Outcome
from benchsuite.core.errors import InvalidPrediction
from benchsuite.metrics.ranked_classes import ranked, top_k_accuracy
from benchsuite.tasks.mixed_precision_quantization.contract import (
    FULL_BITS,
    Budget,
    Layer,
    QuantizedModel,
    QuantizedWeight,
)
from benchsuite.tasks.mixed_precision_quantization.costs import counted, over_budget
from benchsuite.tasks.mixed_precision_quantization.packed import scalars_in_full

if TYPE_CHECKING:
    import torch

__all__ = ["QUALITY", "code_entropy", "compare_logits", "judge", "top1_of"]

_TOLERANCE = 1e-5

QUALITY = (
    Metric("top1", "max", doc="share of test pictures whose class has the largest logit; no sampling"),
    Metric("gap", "min", doc="top1 of the full-precision network minus top1"),
)


def top1_of(logits: torch.Tensor, labels: NDArray[np.int64]) -> float:
    """Return the share of pictures whose label has the largest logit, the first of equals.

    Raises
    ------
    InvalidPrediction
        If logits (N, C) are not finite.
    """
    values = logits.numpy()
    if not np.isfinite(values).all():
        raise InvalidPrediction("logits of the packed network are not finite: did the training diverge?")
    return top_k_accuracy(ranked(values, 1), labels, 1)


def compare_logits(own: torch.Tensor, read: torch.Tensor) -> float:
    """Return how far the logits of the packed file are from the method's own; raises `InvalidPrediction` above 1e-5.

    Logits larger than 1 are compared relative to the largest.
    """
    if own.shape != read.shape:
        raise InvalidPrediction(f"the method's network gives logits {tuple(own.shape)}, the file's {tuple(read.shape)}")
    apart = float((own.double() - read.double()).abs().max())
    scale = max(1.0, float(own.abs().max()))
    if not apart <= _TOLERANCE * scale:
        raise InvalidPrediction(
            f"the packed file gives logits {apart:.2g} off the method's own, above {_TOLERANCE:g} x {scale:.3g}:"
            " do codes, scales and offsets say what the network computes?"
        )
    return apart


def code_entropy(weight: QuantizedWeight) -> float | None:
    """Return the entropy of a layer's codes in bits, - sum of p_n log2 p_n; None in full precision."""
    if weight.bits == FULL_BITS:
        return None
    share = np.bincount(weight.codes.ravel().astype(np.int64), minlength=2**weight.bits) / weight.codes.size
    used = share[share > 0]
    return float(-(used * np.log2(used)).sum()) + 0.0


def judge(
    layers: Sequence[Layer], model: QuantizedModel, packed_bytes: int, budget: Budget, top1: float, pictures: int
) -> Outcome:
    """Return the scores of a network that was read from a file; ``gap`` is the caller's."""
    weights = {name: weight.bits for name, weight in model.weights.items()}
    inputs = {name: seen.bits for name, seen in model.inputs.items()}
    scalars = scalars_in_full(model)
    scores, undefined = counted(layers, weights, inputs, scalars)
    scores |= {
        "top1": top1,
        "packed_bytes": packed_bytes,
        "over_budget": over_budget(layers, weights, inputs, budget),
    }
    rows: list[dict[str, Any]] = [
        {
            "layer": layer.name,
            "weights": layer.weights,
            "macs": layer.macs,
            "weight_bits": weights[layer.name],
            "input_bits": inputs[layer.name],
            "code_entropy": code_entropy(model.weights[layer.name]),
        }
        for layer in layers
    ]
    counts = {
        "test_pictures": pictures,
        "layers": len(layers),
        "weights": sum(layer.weights for layer in layers),
        "macs": sum(layer.macs for layer in layers),
        "scalars": scalars,
    }
    return Outcome(scores, undefined, counts, {"layers": rows})
