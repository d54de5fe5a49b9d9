"""Boxes, their code, and how outputs become detections (sections 5.7 and 7).

A box has nine numbers: x, y, z of its centre, length, width, height in metres, yaw in radians, and the velocity along x
and y in metres a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CODE_WEIGHTS", "Detections", "decode", "detections", "encode"]

# Of the ten numbers of a code, in the order of its channels.
CODE_WEIGHTS = (2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)
MOST_DETECTIONS = 300
KEPT_RANGE = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)


@dataclass(frozen=True)
class Detections:
    """Of one sample, best first: boxes (n, 9), scores (n,) in [0, 1], labels int64 (n,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def encode(boxes: Tensor) -> Tensor:
    """Return codes (..., 10) of boxes (..., 9): x, y, ln length, ln width, z, ln height, sine, cosine, velocity.

    The branch named height hence learns the length's logarithm, and z is the second number of the branch named dim, as
    in the released checkpoints.
    """
    x, y, z, length, width, height, yaw, vx, vy = boxes.unbind(-1)
    return torch.stack([x, y, length.log(), width.log(), z, height.log(), yaw.sin(), yaw.cos(), vx, vy], dim=-1)


def decode(codes: Tensor) -> Tensor:
    """Return boxes (..., 9) of codes (..., 10)."""
    x, y, length, width, z, height, sine, cosine, vx, vy = codes.unbind(-1)
    return torch.stack([x, y, z, length.exp(), width.exp(), height.exp(), torch.atan2(sine, cosine), vx, vy], dim=-1)


def detections(
    logits: Tensor, codes: Tensor, most: int = MOST_DETECTIONS, kept: Sequence[float] = KEPT_RANGE
) -> list[Detections]:
    """Return the best pairs of query and class of each sample, without suppression or a threshold.

    Parameters
    ----------
    logits, codes
        (B, queries, classes) and (B, queries, 10) of the last layer.
    most
        How many pairs are looked at.
    kept
        x, y, z low then high, between which a centre must lie.
    """
    found = []
    low, high = codes.new_tensor(kept[:3]), codes.new_tensor(kept[3:])
    for sample_logits, sample_codes in zip(logits, codes, strict=True):
        scores, pairs = sample_logits.sigmoid().flatten().topk(min(most, sample_logits.numel()))
        boxes = decode(sample_codes[pairs // logits.shape[-1]])
        inside = ((boxes[:, :3] >= low) & (boxes[:, :3] <= high)).all(1)
        found.append(Detections(boxes[inside], scores[inside], (pairs % logits.shape[-1])[inside]))
    return found
