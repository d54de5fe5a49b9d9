"""The losses of RELIANT: the differentiable bias measure, and what CPF and GraphAKD distil by.

Notation as in `benchsuite_reliant.model`; I is the set of nodes on which bias is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchsuite_reliant.config import Objective
from benchsuite_reliant.model import GlobalDiscriminator, LocalDiscriminator, LogitDiscriminator

Bias = Callable[[Tensor], Tensor]
"""Maps the class probabilities of all nodes, (N, C), to the bias measure, a scalar."""

_SOFT_STEP = {1: 1 / 2, 3: -1 / 8, 5: 1 / 16, 7: -5 / 128, 9: 7 / 256}
_PUBLISHED_NODES = 13_214  # non-training nodes of bail, the smallest graph the published lambda was set for


def soft_step(p: Tensor) -> Tensor:
    """Return f(p), a smooth stand-in for the step that turns a probability into a decision.

    With x = 2p - 1 and Legendre polynomials P_n,
    ``f = 1/2 + P_1/2 - P_3/8 + P_5/16 - 5 P_7/128 + 7 P_9/256``. The coefficients are the integrals of P_n
    over [0, 1], without the factor (2n+1)/2 of a true expansion, as in the official code: the step is
    softer, with f(0) = .0742, f(.5) = .5, f(1) = .9258.

    Parameters
    ----------
    p
        Probabilities, any shape.
    """
    x = 2 * p - 1
    previous, current = torch.ones_like(x), x
    total = 0.5 + _SOFT_STEP[1] * x
    # The recurrence keeps |P_n| <= 1: collected powers of x would cancel and lose digits in float32.
    for n in range(1, 9):
        previous, current = current, ((2 * n + 1) * x * current - n * previous) / (n + 1)
        if n + 1 in _SOFT_STEP:
            total = total + _SOFT_STEP[n + 1] * current
    return total


def statistical_parity_loss(probabilities: Tensor, sensitive: Tensor) -> Tensor:
    """Return L_SP, ``sum_c (mean_{s=0} f(p_c) - mean_{s=1} f(p_c))^2``.

    Parameters
    ----------
    probabilities
        (n, C) class probabilities of the nodes in I.
    sensitive
        (n,) their groups, 0 or 1.

    Returns
    -------
    Tensor
        Scalar; 0 if a group is empty, for then there is no gap to reduce.
    """
    groups = torch.stack([sensitive == 0, sensitive == 1]).to(probabilities.dtype)  # (2, n)
    sizes = groups.sum(dim=1, keepdim=True)
    means = groups @ soft_step(probabilities) / sizes.clamp(min=1)  # (2, C)
    return (means[0] - means[1]).square().sum() * (sizes.min() > 0)


def equal_opportunity_loss(probabilities: Tensor, labels: Tensor, sensitive: Tensor) -> Tensor:
    """Return L_EO: L_SP among the nodes of class 1.

    Parameters
    ----------
    probabilities
        (n, C) class probabilities of the nodes in I.
    labels
        (n,) their classes (or what stands for them).
    sensitive
        (n,) their groups, 0 or 1.
    """
    positive = labels == 1
    return statistical_parity_loss(probabilities[positive], sensitive[positive])


def bias_measure(objective: Objective, nodes: Tensor, sensitive: Tensor, labels: Tensor | None = None) -> Bias:
    """Return L_SP or L_EO over I as a function of the class probabilities of all nodes.

    Parameters
    ----------
    objective
        ``sp`` or ``eo``.
    nodes
        (n,) node indices, I.
    sensitive
        (N,) groups of all nodes.
    labels
        (n,) classes of the nodes in I; only ``eo`` needs them.

    Raises
    ------
    ValueError
        If ``eo`` is asked for without labels.
    """
    if objective == "eo":
        if labels is None:
            raise ValueError("equal opportunity compares nodes of class 1: pass labels")
        nodes = nodes[labels == 1]
    groups = sensitive[nodes]
    return lambda probabilities: statistical_parity_loss(probabilities[nodes], groups)


def scaled_lambda(published: float, nodes: int) -> float:
    """Return lambda for a graph with ``nodes`` nodes in I, given the one published for large graphs.

    [inferred] The distillation loss of CPF is a norm that grows like sqrt(|I|), the bias term does not;
    lambda sqrt(|I| / 13,214) keeps their proportion.
    """
    return published * math.sqrt(nodes / _PUBLISHED_NODES)


def cpf_distillation_loss(probabilities: Tensor, teacher_probabilities: Tensor) -> Tensor:
    """Return the Frobenius norm of the difference of two (n, C) arrays (a plain norm, not averaged)."""
    return torch.linalg.norm(probabilities - teacher_probabilities)


@dataclass(frozen=True)
class Discriminators:
    """GraphAKD's judges: of logits (D_l), of edges (D_e) and of nodes against the whole graph (D_g)."""

    logits: LogitDiscriminator
    local: LocalDiscriminator
    whole: GlobalDiscriminator

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters of all three."""
        return [*self.logits.parameters(), *self.local.parameters(), *self.whole.parameters()]


def graph_akd_discriminator_loss(
    discriminators: Discriminators,
    student_logits: Tensor,
    student_embedding: Tensor,
    teacher_log_probabilities: Tensor,
    teacher_embedding: Tensor,
    edge_index: Tensor,
    train: Tensor,
    train_labels: Tensor,
) -> Tensor:
    """Return L_D = 1/2 (adv_l + cls_l) + adv_e + adv_g1 + adv_g2.

    The discriminators are to call the teacher 1 and the student 0, and D_l to classify the training nodes
    from either's logits. adv_g1 summarises the graph by the teacher's embedding, adv_g2 by the student's,
    for which the student's own nodes are the 1. The student enters as data, without gradient. As in the
    official code, the teacher's "logits" are its log-probabilities.

    Parameters
    ----------
    discriminators
        D_l, D_e and D_g.
    student_logits, teacher_log_probabilities
        (N, C).
    student_embedding, teacher_embedding
        (N, D).
    edge_index
        (2, E) int64.
    train, train_labels
        (n,) int64 node indices and their classes.
    """
    d = discriminators
    z, e = student_logits.detach(), student_embedding.detach()
    teacher_classes, teacher_is_real = d.logits(teacher_log_probabilities)
    student_classes, student_is_real = d.logits(z)
    adv_l = _called(1, teacher_is_real) + _called(0, student_is_real)
    cls_l = F.cross_entropy(teacher_classes[train], train_labels) + F.cross_entropy(
        student_classes[train], train_labels
    )
    adv_e = _called(1, d.local(teacher_embedding, edge_index)) + _called(0, d.local(e, edge_index))
    teacher_summary, student_summary = d.whole.summary(teacher_embedding), d.whole.summary(e)
    adv_g1 = _called(1, d.whole(teacher_embedding, teacher_summary)) + _called(0, d.whole(e, teacher_summary))
    adv_g2 = _called(1, d.whole(e, student_summary)) + _called(0, d.whole(teacher_embedding, student_summary))
    return (adv_l + cls_l) / 2 + adv_e + adv_g1 + adv_g2


def graph_akd_generator_loss(
    discriminators: Discriminators,
    student_logits: Tensor,
    student_embedding: Tensor,
    teacher_log_probabilities: Tensor,
    teacher_embedding: Tensor,
    edge_index: Tensor,
    train: Tensor,
    train_labels: Tensor,
) -> Tensor:
    """Return L_G without its bias term.

    ``CE(z) + 1/2 (CE(D_l(z)) + BCE(D_l(z), 1)) + ||z - t||_1 / N + BCE(D_e(e), 1) + BCE(D_g(e | teacher),
    1) + BCE(D_g(e | student), 1) + BCE(D_g(e_t | student), 0)``, cross-entropies on the training nodes.

    Parameters
    ----------
    discriminators
        D_l, D_e and D_g.
    student_logits, teacher_log_probabilities
        (N, C): z and t.
    student_embedding, teacher_embedding
        (N, D): e and e_t.
    edge_index
        (2, E) int64.
    train, train_labels
        (n,) int64 node indices and their classes.
    """
    d = discriminators
    z, e = student_logits, student_embedding
    classes, is_real = d.logits(z)
    judged_by_logits = F.cross_entropy(classes[train], train_labels) + _called(1, is_real)
    teacher_summary, student_summary = d.whole.summary(teacher_embedding), d.whole.summary(e)
    return (
        F.cross_entropy(z[train], train_labels)
        + judged_by_logits / 2
        + (z - teacher_log_probabilities).abs().sum() / len(z)
        + _called(1, d.local(e, edge_index))
        + _called(1, d.whole(e, teacher_summary))
        + _called(1, d.whole(e, student_summary))
        + _called(0, d.whole(teacher_embedding, student_summary))
    )


def _called(verdict: int, logits: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of calling every item ``verdict``."""
    return F.softplus(-logits if verdict else logits).mean()
