"""The frame-level contrast between a signal and its intervened copy."""

from __future__ import annotations

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss(anchors: Tensor, partners: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the mean over both directions of the label-aware InfoNCE loss [inferred: the sheet's section 5.4].

    An anchor is drawn to its partner and pushed from the partners of frames with another label; frames of its own
    label are never negatives.

    Parameters
    ----------
    anchors, partners
        (K, D); row k of both shows the same moment. They are normalised here.
    labels
        (K,) int64.
    """
    a, b = F.normalize(anchors, dim=1), F.normalize(partners, dim=1)
    similarity = a @ b.T / temperature
    same = labels[:, None] == labels[None]
    own = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    allowed = similarity.masked_fill(same & ~own, -torch.inf)
    positive = similarity.diagonal()
    forth = torch.logsumexp(allowed, dim=1) - positive
    back = torch.logsumexp(allowed, dim=0) - positive
    return (forth.mean() + back.mean()) / 2


def balanced_pairs(
    labels: NDArray[np.int64],
    partner_labels: NDArray[np.int64],
    partner_frames: NDArray[np.int64],
    count: int,
    rng: Generator,
) -> NDArray[np.int64]:
    """Draw pairs of corresponding frames, as many of every class as its rarest allows and ``count`` in all at most.

    Parameters
    ----------
    labels
        (B, L) labels of the first view; -1 is never drawn.
    partner_labels
        (B, L) labels of the second view.
    partner_frames
        (B, L) frame of the second view that shows the same moment as frame l of the first; -1: none.

    Returns
    -------
    pairs
        (K, 3) int64: batch index, frame of the first view, frame of the second.
    """
    there = np.take_along_axis(partner_labels, np.maximum(partner_frames, 0), axis=1)
    usable = (partner_frames >= 0) & (labels >= 0) & (labels == there)
    batch, frame = np.nonzero(usable)
    found = labels[batch, frame]
    classes = np.unique(found)
    if len(classes) < 2:
        return np.empty((0, 3), dtype=np.int64)
    each = min(count // len(classes), *((found == c).sum() for c in classes))
    chosen = np.concatenate([rng.choice(np.flatnonzero(found == c), each, replace=False) for c in classes])
    b, f = batch[chosen], frame[chosen]
    return np.column_stack([b, f, partner_frames[b, f]])


def pair_loss(
    first: Tensor,
    second: Tensor,
    labels: NDArray[np.int64],
    pairs: NDArray[np.int64],
    temperature: float,
) -> Tensor:
    """Return the contrastive loss of drawn pairs of frames of two embedded views (B, D, L); 0 without pairs."""
    if len(pairs) == 0:
        return first.new_zeros(())
    batch, one, other = torch.from_numpy(pairs).to(first.device).T
    drawn = torch.from_numpy(labels[pairs[:, 0], pairs[:, 1]]).to(first.device)
    return contrastive_loss(first[batch, :, one], second[batch, :, other], drawn, temperature)
