"""Class-enhanced base knowledge distillation of incremental tuning.

A reading built on Incremental-DETR [inferred]: the paper's equations could not be read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_CLASS_WEIGHT, _FEATURE_WEIGHT = 2.0, 0.1
_TEMPERATURE = 1.0


def class_distillation(
    teacher_logits: Tensor, student_logits: Tensor, keep: Tensor, enhancement: float = 1.0
) -> Tensor:
    """Return the mean divergence of the student's base beliefs from its teacher's.

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
    """
    base = teacher_logits.shape[-1] - 1
    teacher = teacher_logits.detach() / _TEMPERATURE
    rest = student_logits[:, base:].logsumexp(dim=1, keepdim=True)
    student = torch.cat([student_logits[:, :base], rest], dim=1) / _TEMPERATURE
    divergence = F.kl_div(student.log_softmax(dim=1), teacher.log_softmax(dim=1), log_target=True, reduction="none")
    weight = keep * (1 + enhancement * (1 - teacher.softmax(dim=1)[:, -1]))
    return _TEMPERATURE**2 * (weight * divergence.sum(dim=1)).sum() / keep.sum().clamp(min=1)


def feature_distillation(
    teacher: Sequence[Tensor], student: Sequence[Tensor], novel: Tensor, base: Tensor, enhancement: float = 1.0
) -> Tensor:
    """Return the squared change of the projected features, averaged over cells outside novel objects and over levels.

    Parameters
    ----------
    teacher, student
        (B, d, h, w), one a level.
    novel, base
        (B, H, W) in [0, 1]: true masks of novel objects; the teacher's masks of base objects.
    """
    losses = []
    for before, after in zip(teacher, student, strict=True):
        size = (after.shape[2], after.shape[3])
        outside = 1 - F.adaptive_max_pool2d(novel[:, None], size)[:, 0]
        value = outside * (1 + enhancement * F.adaptive_max_pool2d(base[:, None], size)[:, 0])
        change = (after - before.detach()).square().mean(dim=1)
        losses.append((value * change).sum() / value.sum().clamp(min=1))
    return torch.stack(losses).mean()


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
