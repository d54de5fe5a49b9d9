"""The two references of RefT: class centres that re-weight feature maps, and linked object queries.

The paper's equations could not be read. All of this module is one precise reading of its abstract and teaser, fixed
in the method card [inferred].

Symbols: d width, S support images, C support classes, B query images, N object queries, L feature levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-6


@dataclass(frozen=True)
class References:
    """What a query image is referred to.

    Attributes
    ----------
    centres
        One tensor (C, d) a feature level, coarse to fine.
    tokens
        (T, d) object queries of the support images.
    token_labels
        (T,) int64, the label of each token.
    """

    centres: tuple[Tensor, ...]
    tokens: Tensor
    token_labels: Tensor

    def __add__(self, other: References) -> References:
        """Return the references of both sets of classes."""
        return References(
            tuple(torch.cat(pair) for pair in zip(self.centres, other.centres, strict=True)),
            torch.cat([self.tokens, other.tokens]),
            torch.cat([self.token_labels, other.token_labels]),
        )


@dataclass(frozen=True)
class Shots:
    """What the support branch makes of S support instances.

    ``centres`` are tensors (S, d), one a level; ``tokens`` is (S, k, d): the k queries nearest to each instance.
    """

    centres: tuple[Tensor, ...]
    tokens: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Shots]) -> Shots:
        """Return the instances of all parts, in order."""
        centres = tuple(torch.cat(level) for level in zip(*(part.centres for part in parts), strict=True))
        return cls(centres, torch.cat([part.tokens for part in parts]))

    def by_class(self, labels: Tensor, classes: Sequence[int], tokens: Literal["all", "mean"] = "all") -> References:
        """Return the references of ``classes``: centres are means over a class's shots.

        Parameters
        ----------
        labels
            (S,) int64, the class of each support instance.
        classes
            The classes wanted; each needs a shot.
        tokens
            Keep ``all`` tokens, or the ``mean`` of each class.
        """
        of_class = torch.stack([labels == label for label in classes]).to(self.tokens.dtype)  # (C, S)
        mean = of_class / of_class.sum(dim=1, keepdim=True)
        centres = tuple(mean @ level for level in self.centres)
        if tokens == "mean":
            return References(centres, mean @ self.tokens.mean(dim=1), torch.as_tensor(classes, device=labels.device))
        kept = of_class.any(dim=0)
        labels = labels[kept].repeat_interleave(self.tokens.shape[1])
        return References(centres, self.tokens[kept].flatten(0, 1), labels)


def shot_centres(features: Tensor, masks: Tensor, temperature: float) -> Tensor:
    """Return the centre of each support instance, (S, d).

    A masked average gives a first prototype; cells are then weighted by how much they resemble it, so that
    background inside coarse cells counts less.

    Parameters
    ----------
    features
        (S, d, h, w).
    masks
        (S, h, w) in [0, 1], the share of each cell that the instance covers.
    temperature
        tau > 0; the larger, the nearer to the masked average.
    """
    cells, cover = features.flatten(2), masks.flatten(1)  # (S, d, hw), (S, hw)
    prototype = _weighted_mean(cells, cover)
    likeness = F.cosine_similarity(cells, prototype[:, :, None], dim=1)  # (S, hw)
    return _weighted_mean(cells, cover * torch.exp((likeness - 1) / temperature))


def pool_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the share of each of ``size`` cells that masks (..., H, W) cover, float32 in [0, 1]."""
    return F.adaptive_avg_pool2d(masks.float(), size)


def _weighted_mean(cells: Tensor, weights: Tensor) -> Tensor:
    return (cells @ weights[:, :, None])[:, :, 0] / (weights.sum(dim=1, keepdim=True) + _EPS)


def soft_dice(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Return the soft Dice (S, N) between predicted masks (S, N, h, w) and one instance's mask (S, h, w) each."""
    predicted, true = mask_logits.sigmoid().flatten(2), masks.flatten(1)[:, None]
    return 2 * (predicted * true).sum(dim=2) / (predicted.sum(dim=2) + true.sum(dim=2) + _EPS)


def nearest_queries(states: Tensor, mask_logits: Tensor, masks: Tensor, count: int) -> Tensor:
    """Return the ``count`` queries of each support image whose masks fit its instance best, (S, count, d).

    Parameters
    ----------
    states
        (S, N, d) normalised decoder outputs.
    mask_logits
        (S, N, h, w).
    masks
        (S, H, W) bool.
    """
    fit = soft_dice(mask_logits.detach(), pool_masks(masks, (mask_logits.shape[-2], mask_logits.shape[-1])))
    best = fit.topk(count, dim=1).indices
    return states.gather(1, best[:, :, None].expand(-1, -1, states.shape[2]))


class _Attention(nn.Module):
    """Multi-head cross-attention from a batch to one shared set of keys, without output projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Return (B, Q, d) of queries (B, Q, d) and memory (B or 1, M, d)."""
        q, k, v = self.query(queries), self.key(memory), self.value(memory)
        split = [x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v)]  # (B, H, *, d / H)
        scores = split[0] @ split[1].transpose(2, 3) * split[0].shape[-1] ** -0.5
        return (scores.softmax(dim=-1) @ split[2]).transpose(1, 2).flatten(2)


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class DynamicWeighting(nn.Module):
    """First reference, one feature level: every cell attends to the class centres and is gated by what it finds.

    The projection of the gate starts at zero, so a new block changes nothing. ``mode="add"`` adds instead of gating.
    """

    def __init__(self, width: int, heads: int = 8, mode: Literal["gate", "add"] = "gate") -> None:
        super().__init__()
        self.mode = mode
        self.attention = _Attention(width, heads)
        self.output = _zeroed(nn.Linear(width, width))

    def forward(self, features: Tensor, centres: Tensor) -> Tensor:
        """Return re-weighted features (B, d, h, w).

        Parameters
        ----------
        features
            (B, d, h, w).
        centres
            (C, d), shared by the batch, or (B, C, d).
        """
        memory = centres if centres.dim() == 3 else centres[None]
        cells = features.flatten(2).transpose(1, 2)  # (B, hw, d)
        change = self.output(self.attention(cells, memory)).transpose(1, 2).unflatten(2, features.shape[2:])
        return features * (1 + change) if self.mode == "gate" else features + change


class QueryLink(nn.Module):
    """Second reference: the queries of an image attend to the support tokens, just before the class head.

    A pre-norm residual block whose two output layers start at zero, so a new block changes nothing.
    """

    def __init__(self, width: int, heads: int = 8) -> None:
        super().__init__()
        self.norm_queries, self.norm_tokens, self.norm_hidden = (nn.LayerNorm(width) for _ in range(3))
        self.attention = _Attention(width, heads)
        self.output = _zeroed(nn.Linear(width, width))
        self.hidden = nn.Linear(width, 4 * width)
        self.hidden_output = _zeroed(nn.Linear(4 * width, width))

    def forward(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Return linked queries (B, N, d) of normalised queries (B, N, d) and support tokens (T, d)."""
        found = self.attention(self.norm_queries(states), self.norm_tokens(tokens)[None])
        linked = states + self.output(found)
        return linked + self.hidden_output(F.relu(self.hidden(self.norm_hidden(linked))))


class LinkLogits(nn.Module):
    """Extension beyond the readable paper: class logits from the likeness of queries to each class's tokens."""

    def __init__(self, width: int, scale: float = 5.0) -> None:
        super().__init__()
        self.projection = nn.Linear(width, width)
        nn.init.eye_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, states: Tensor, references: References, num_classes: int) -> Tensor:
        """Return what to add to the class logits, (B, N, num_classes); 0 for classes without a token."""
        queries = F.normalize(self.projection(states), dim=-1)
        tokens = F.normalize(self.projection(references.tokens), dim=-1)
        of_class = F.one_hot(references.token_labels, num_classes).to(tokens.dtype)  # (T, num_classes)
        mean = of_class / of_class.sum(dim=0).clamp(min=1)
        return self.scale * (queries @ tokens.T @ mean)
