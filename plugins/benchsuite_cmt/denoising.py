"""Point-based denoising: queries that start beside true boxes, and may not be seen by the others (section 5.8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Denoising", "NoiseRule", "denoising_mask", "noisy_queries"]


@dataclass(frozen=True)
class NoiseRule:
    """How true boxes become noisy queries.

    Attributes
    ----------
    groups
        At most so many copies of every box.
    spread
        Half-width of the noise in x, y, z: in halves of the box's sides (``relative``), or in metres.
    relative
        See ``spread``.
    negative
        Beyond this length of the noise (u in [-1, 1]^3) a query is background; infinite: every query is positive.
    """

    groups: int = 10
    spread: tuple[float, float, float] = (1.0, 1.0, 1.0)
    relative: bool = True
    negative: float = 0.75


@dataclass(frozen=True)
class Denoising:
    """Noisy queries of a batch, group by group, each group with a slot for every box of the fullest sample.

    Attributes
    ----------
    references
        (B, groups * slots, 3) in [0, 1]; 0 in empty slots.
    labels
        int64 (B, groups * slots): the class, or the number of classes for background.
    boxes
        (B, groups * slots, 9): the clean box.
    used
        bool (B, groups * slots): False in empty slots.
    blocked
        bool (queries, queries) of all queries, noisy ones first: see `denoising_mask`.
    """

    references: Tensor
    labels: Tensor
    boxes: Tensor
    used: Tensor
    blocked: Tensor


def denoising_mask(groups: int, slots: int, queries: int, device: torch.device | None = None) -> Tensor:
    """Return bool (n, n), n = groups * slots + queries: True where a row must not see a column.

    Matching queries see no noisy ones; groups do not see each other; noisy queries see the matching ones.
    """
    noisy = groups * slots
    group = torch.arange(noisy, device=device) // slots
    blocked = torch.zeros(noisy + queries, noisy + queries, dtype=torch.bool, device=device)
    blocked[:noisy, :noisy] = group[:, None] != group[None, :]
    blocked[noisy:, :noisy] = True
    return blocked


def noisy_queries(
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    rule: NoiseRule,
    point_range: Sequence[float],
    classes: int,
    queries: int,
    generator: torch.Generator,
) -> Denoising | None:
    """Return the noisy queries of a batch, or None if there is no box in it.

    Parameters
    ----------
    boxes, labels
        (n, 9) and int64 (n,) a sample.
    rule, point_range, classes, queries
        How noisy; x, y, z in metres low then high; number of classes and of learned queries.
    generator
        Of the CPU.
    """
    slots = max(len(found) for found in boxes)
    groups = min(rule.groups, queries // slots) if slots else 0
    if not groups:
        return None
    like = boxes[0]
    low, high = like.new_tensor(point_range[:3]), like.new_tensor(point_range[3:])
    clean = torch.ones(len(boxes), slots, 9, dtype=like.dtype, device=like.device)
    names = torch.zeros(len(boxes), slots, dtype=torch.int64, device=like.device)
    used = torch.zeros(len(boxes), slots, dtype=torch.bool, device=like.device)
    for sample, (some, their) in enumerate(zip(boxes, labels, strict=True)):
        clean[sample, : len(some)], names[sample, : len(some)], used[sample, : len(some)] = some, their, True
    clean, names, used = (x.repeat(1, groups, *[1] * (x.ndim - 2)) for x in (clean, names, used))
    noise = (torch.rand((*clean.shape[:2], 3), generator=generator) * 2 - 1).to(like)  # u ~ U(-1, 1)^3
    reach = clean.new_tensor(rule.spread) * (clean[..., 3:6] / 2 if rule.relative else 1.0)
    moved = clean[..., :3] + noise * reach
    references = ((moved - low) / (high - low)).clamp(0, 1) * used[..., None]
    far = noise.norm(dim=-1) > rule.negative
    return Denoising(
        references,
        torch.where(far, torch.full_like(names, classes), names),
        clean,
        used,
        denoising_mask(groups, slots, queries, like.device),
    )
