"""What phase 2 learns from: the teacher's answers, and weights that lie near the middle of their bins (5.6, 5.7)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchsuite.tasks.mixed_precision_quantization.contract import FULL_BITS
from benchsuite_sdq.quantizers import squashed

__all__ = ["bin_regularisation", "bin_values", "distillation", "network_regularisation"]


def distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean over pictures of ``- sum_c p_T log p_S`` of logits (B, C), temperature 1."""
    return -(torch.softmax(teacher, dim=1) * F.log_softmax(student, dim=1)).sum(dim=1).mean()


def bin_values(weight: Tensor, bits: int, entropy_norm: bool) -> Tensor:
    """Return a weight's values in [0, 1], which bins part.

    With ``entropy_norm`` those of ``2^(b-1) / (2^b - 1) |w| / ||w||_1 w``, moved from [-1, 1] and cut off there, so
    that bins fill more evenly. [inferred]
    """
    if not entropy_norm:
        return squashed(weight)
    spread = 2 ** (bits - 1) / (2**bits - 1) / weight.abs().mean().clamp_min(1e-12)
    return ((spread * weight + 1) / 2).clamp(0, 1)


def bin_regularisation(values: Tensor, bits: int) -> Tensor:
    """Return the sum over all 2^b bins of ``(mean - level)^2`` and, from two values on, of the unbiased variance.

    Parameters
    ----------
    values
        In [0, 1], any shape; value j lies in bin k = round(value (2^b - 1)), whose level is k / (2^b - 1). Empty bins
        contribute nothing; no gradient goes through the assignment.
    bits
        b.
    """
    values = values.flatten()
    top = 2**bits - 1
    bins = torch.round(values.detach() * top).long()
    counts = torch.zeros(top + 1, dtype=values.dtype, device=values.device)
    counts = counts.index_add(0, bins, torch.ones_like(values))
    means = torch.zeros_like(counts).index_add(0, bins, values) / counts.clamp_min(1)
    levels = torch.arange(top + 1, dtype=values.dtype, device=values.device) / top
    distances = torch.where(counts > 0, (means - levels).square(), 0.0)
    squares = torch.zeros_like(counts).index_add(0, bins, (values - means[bins]).square())
    return distances.sum() + (squares / (counts - 1).clamp_min(1)).sum()


def network_regularisation(weights: Iterable[tuple[Tensor, int]], entropy_norm: bool) -> Tensor:
    """Return L_EBR: the sum over layers, each a weight and its bits; layers in full precision have no bins."""
    found = [
        bin_regularisation(bin_values(weight, bits, entropy_norm), bits) for weight, bits in weights if bits < FULL_BITS
    ]
    return torch.stack(found).sum() if found else torch.zeros(())
