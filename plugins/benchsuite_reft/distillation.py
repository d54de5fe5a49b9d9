"""Class-enhanced base knowledge distillation of incremental tuning.

A reading built on Incremental-DETR [inferred]: the paper's equations could not be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_CLASS_WEIGHT, _FEATURE_WEIGHT = 2.0, 0.1
_TEMPERATURE = 1.0


@dataclass(frozen=True)
class Belief:
    """What a teacher makes of B images.

    Attributes
    ----------
    class_logits
        (B, N, C + 1) of the last prediction.
    base
        (B, h, w) in [0, 1], the union of the masks that it takes for base objects.
    projected
        Outputs of the input projections (B, d, h, w), one a level.
    cells
        (B, N) query cells for the student to take, or None.
    """

    class_logits: Tensor
    base: Tensor
    projected: tuple[Tensor, ...]
    cells: Tensor | None = None


@dataclass(frozen=True)
class DistillationNormaliser:
    """What sums over a whole batch are divided by, so that parts of a batch add up to it.

    ``queries`` is the number of queries that count; ``cells`` are the weights of all cells, one sum a level. Each is at
    least one.
    """

    queries: float
    cells: tuple[float, ...]


def class_distillation(
    teacher_logits: Tensor, student_logits: Tensor, keep: Tensor, queries: float, enhancement: float = 1.0
) -> Tensor:
    """Return the divergence of the student's base beliefs from its teacher's, a share of the mean over a batch.

    The student's novel logits and its no-object logit together stand for the teacher's no-object. Queries that the
    teacher takes for a base object weigh up to ``1 + enhancement``.

    Parameters
    ----------
    teacher_logits
        (Q, B + 1); no gradient reaches it.
    student_logits
        (Q, B + n + 1), base classes first.
    keep
        (Q,) bool; False for queries matched to a novel object.
    queries
        How many queries of the batch count; see `DistillationNormaliser`.
    enhancement
        beta.
    """
    base = teacher_logits.shape[-1] - 1
    teacher = teacher_logits.detach() / _TEMPERATURE
    rest = student_logits[:, base:].logsumexp(dim=1, keepdim=True)
    student = torch.cat([student_logits[:, :base], rest], dim=1) / _TEMPERATURE
    divergence = F.kl_div(student.log_softmax(dim=1), teacher.log_softmax(dim=1), log_target=True, reduction="none")
    weight = keep * (1 + enhancement * (1 - teacher.softmax(dim=1)[:, -1]))
    return _TEMPERATURE**2 * (weight * divergence.sum(dim=1)).sum() / queries


def feature_distillation(
    teacher: Sequence[Tensor], student: Sequence[Tensor], weights: Sequence[Tensor], cells: Sequence[float]
) -> Tensor:
    """Return the squared change of the projected features, a share of the weighted mean over a batch and over levels.

    Parameters
    ----------
    teacher, student
        (B, d, h, w), one a level.
    weights
        (B, h, w), one a level; see `cell_weights`.
    cells
        Their sums over the batch; see `DistillationNormaliser`.
    """
    losses = [
        (weight * (after - before.detach()).square().mean(dim=1)).sum() / total
        for before, after, weight, total in zip(teacher, student, weights, cells, strict=True)
    ]
    return torch.stack(losses).mean()


def cell_weights(
    novel: Tensor, base: Tensor, projected: Sequence[Tensor], enhancement: float = 1.0
) -> tuple[Tensor, ...]:
    """Return how much each cell of each level (B, h, w) counts: nothing under novel objects, more under base ones.

    Parameters
    ----------
    novel, base
        (B, H, W) in [0, 1]: true masks of novel objects; the teacher's masks of base objects.
    projected
        The levels (B, d, h, w).
    enhancement
        beta.
    """
    weights = []
    for level in projected:
        inside, known = (
            F.adaptive_max_pool2d(masks[:, None], (level.shape[2], level.shape[3]))[:, 0] for masks in (novel, base)
        )
        weights.append((1 - inside) * (1 + enhancement * known))
    return tuple(weights)


def base_masks(teacher_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Return the union (B, h, w) of the masks that a teacher is more sure than not to be base objects.

    Parameters
    ----------
    teacher_logits, mask_logits
        (B, N, C + 1) and (B, N, h, w) of the last prediction.
    """
    sure = teacher_logits.softmax(dim=2)[:, :, :-1].amax(dim=2) > 0.5
    return ((mask_logits > 0) & sure[:, :, None, None]).any(dim=1).float()


def distillation_loss(of_classes: Tensor, of_features: Tensor) -> Tensor:
    """Return the weighted sum of the two terms."""
    return _CLASS_WEIGHT * of_classes + _FEATURE_WEIGHT * of_features
