"""Focal loss of classes, weighted L1 of codes, one-to-one matching: on every layer, for learned and noisy queries."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchsuite_cmt.boxes import CODE_WEIGHTS, encode
from benchsuite_cmt.denoising import Denoising
from benchsuite_cmt.model import Outputs

__all__ = ["denoising_loss", "focal_cost", "focal_loss", "match", "matched_loss", "matching_costs"]

ALPHA, GAMMA = 0.25, 2
CLASS_WEIGHT, BOX_WEIGHT = 2.0, 0.25
OF_UNMATCHED = 0.1
MATCHED_NUMBERS = 8
_PI = 3.14159
_NOISE_SHARE = _PI / 6 * 0.75**3  # of the noise's cube that lies inside the positive ball, by the released formula


def focal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sigmoid focal loss, summed over the last two axes (queries, classes).

    Parameters
    ----------
    logits
        (..., queries, classes).
    labels
        int64 (..., queries): a class, the number of classes for background, or -1 for a query that does not count.
    """
    classes = logits.shape[-1]
    wanted = F.one_hot(labels.clamp(min=0), classes + 1)[..., :classes].to(logits)
    p = logits.sigmoid()
    miss = (1 - p) * wanted + p * (1 - wanted)
    weight = (ALPHA * wanted + (1 - ALPHA) * (1 - wanted)) * miss**GAMMA
    loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * weight
    return (loss.sum(-1) * (labels >= 0)).sum(-1)


def focal_cost(logits: Tensor) -> Tensor:
    """Return what naming a class would cost, less what not naming it costs; same shape as logits."""
    p = logits.sigmoid()
    named = ALPHA * (1 - p) ** GAMMA * -(p + 1e-12).log()
    return named - (1 - ALPHA) * p**GAMMA * -(1 - p + 1e-12).log()


def matching_costs(logits: Tensor, codes: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the costs (layers, queries, boxes) of one sample.

    Parameters
    ----------
    logits, codes
        (layers, queries, classes), (layers, queries, 10).
    labels, targets
        int64 (boxes,), codes (boxes, 10): the velocity does not count.
    """
    weights = codes.new_tensor(CODE_WEIGHTS)[:MATCHED_NUMBERS]
    found, wanted = codes[..., :MATCHED_NUMBERS] * weights, targets[:, :MATCHED_NUMBERS] * weights
    distance = torch.cdist(found, wanted.expand(len(found), -1, -1), p=1)
    return CLASS_WEIGHT * focal_cost(logits)[..., labels] + BOX_WEIGHT * distance


def match(costs: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return queries and boxes of the cheapest one-to-one matching of each layer, on the CPU."""
    table = torch.nan_to_num(costs.detach(), nan=100.0, posinf=100.0, neginf=-100.0).cpu().numpy()
    pairs = [linear_sum_assignment(layer) for layer in table.astype(np.float64)]
    return [(torch.from_numpy(rows), torch.from_numpy(columns)) for rows, columns in pairs]


def matched_loss(outputs: Outputs, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the losses of classes and of boxes, summed over layers.

    Parameters
    ----------
    outputs
        Of the learned queries.
    boxes, labels
        (n, 9) and int64 (n,) a sample.
    """
    logits, codes = outputs.logits.float(), outputs.codes.float()
    layers, samples, queries, classes = logits.shape
    names = torch.full((layers, samples, queries), classes, device=logits.device)
    targets = codes.new_full((layers, samples, queries, codes.shape[-1]), math.nan)
    for sample, (some, their) in enumerate(zip(boxes, labels, strict=True)):
        if not len(some):
            continue
        wanted = encode(some)
        costs = matching_costs(logits[:, sample], codes[:, sample], their, wanted)
        for layer, (rows, columns) in enumerate(match(costs)):
            here, there = rows.to(logits.device), columns.to(logits.device)
            names[layer, sample, here] = their[there]
            targets[layer, sample, here] = wanted[there]
    positive = sum(len(some) for some in boxes)  # each box has its query, on every layer
    positive = min(positive, samples * queries)
    negative = samples * queries - positive
    of_classes = focal_loss(logits, names).sum() / max(1.0, positive + OF_UNMATCHED * negative)
    return CLASS_WEIGHT * of_classes, BOX_WEIGHT * _code_distance(codes, targets) / max(positive, 1)


def denoising_loss(outputs: Outputs, noisy: Denoising) -> tuple[Tensor, Tensor]:
    """Return the losses of the noisy queries, summed over layers: noisy labels, but always the clean box."""
    logits, codes = outputs.logits.float(), outputs.codes.float()
    count = int(noisy.used.sum())
    labels = torch.where(noisy.used, noisy.labels, -1).expand(len(logits), -1, -1)
    targets = torch.where(noisy.used[..., None], encode(noisy.boxes), math.nan)
    of_classes = focal_loss(logits, labels).sum() / max(1.0, count * _NOISE_SHARE)
    return CLASS_WEIGHT * of_classes, BOX_WEIGHT * _code_distance(codes, targets) / max(count, 1)


def _code_distance(codes: Tensor, targets: Tensor) -> Tensor:
    """Return the weighted L1 distance over all codes whose targets are finite throughout."""
    finite = targets.isfinite().all(-1, keepdim=True)
    apart = torch.where(finite, codes - targets.nan_to_num(), 0.0).abs()
    return (apart * codes.new_tensor(CODE_WEIGHTS)).sum()
