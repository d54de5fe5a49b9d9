"""The two similarities of a query to the foreground of its supports, for all samples and shots at once.

Notation: B episodes, K shots, C channels, n = h w positions of a map; m soft mask, P the foreground positions of a
support, N their number. P differs from support to support: positions are gathered and padded to the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Foreground", "chained_masks", "cosine_map", "foreground", "gps_map", "prototype"]

EPSILON = 1e-5
"""Added to every norm."""


@dataclass(frozen=True)
class Foreground:
    """The foreground positions of B x K supports at one size of maps, padded to the longest.

    Attributes
    ----------
    positions
        int64 (B, K, M): places in a flattened map.
    soft
        (B, K, M): the mask there; 0 at padding.
    weights
        (B, K, M): 1 / N, 0 at padding. All 0 for a support without any foreground.
    """

    positions: Tensor
    soft: Tensor
    weights: Tensor

    def of(self, support: Tensor) -> Tensor:
        """Return s_j = m_j F_j, (B, K, C, M), of maps (B, K, C, h, w)."""
        places = self.positions[:, :, None].expand(-1, -1, support.shape[2], -1)
        return support.flatten(3).gather(3, places) * self.soft[:, :, None]


def chained_masks(masks: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Return masks (N, H, W) at the sizes of maps, low to high, each resized from the one before.

    The first step goes to twice the width of the first map; every step is bilinear with aligned corners.
    """
    width = sizes[0][1]
    found = [_resized(masks, (2 * width, 2 * width))]
    for size in sizes:
        found.append(found[-1] if found[-1].shape[1:] == size else _resized(found[-1], size))
    return found[1:]


def _resized(masks: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(masks[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]


def foreground(masks: Tensor) -> Foreground:
    """Return P = {j : m_j >= mu}, mu the mean of the positive values, of soft masks (B, K, h, w)."""
    soft = masks.flatten(2)
    positive = soft > 0
    mean = soft.sum(dim=2) / positive.sum(dim=2).clamp(min=1)
    mean = torch.minimum(mean, soft.amax(dim=2))  # a mean of equal values may exceed them by rounding
    chosen = positive & (soft >= mean[..., None])
    count = chosen.sum(dim=2)
    longest = soft.shape[2]
    if masks.device.type == "cpu":  # elsewhere waiting for the number costs more than the padding
        longest = max(int(count.max()), 1)
    positions = chosen.to(torch.uint8).argsort(dim=2, descending=True, stable=True)[..., :longest]
    real = torch.arange(longest, device=masks.device) < count[..., None]
    return Foreground(
        positions,
        soft.gather(2, positions) * real,
        real.to(soft) / count.clamp(min=1)[..., None],
    )


def cosine_map(query: Tensor, supports: Tensor, found: Foreground) -> Tensor:
    """Return c_i = (1/N) sum_{j in P} max(0, cos(q_i, s_j)), (B, K, h, w).

    Parameters
    ----------
    query
        (B, C, h, w).
    supports
        s (B, K, C, M), see `Foreground.of`.
    found
        Of the supports.
    """
    q = query.flatten(2)
    q = q / (q.norm(dim=1, keepdim=True) + EPSILON)
    s = supports / (supports.norm(dim=2, keepdim=True) + EPSILON)
    cosines = (q.transpose(1, 2)[:, None] @ s).relu()  # (B, K, n, M)
    return (cosines @ found.weights[..., None]).squeeze(3).unflatten(2, query.shape[2:])


def prototype(supports: Tensor, found: Foreground) -> Tensor:
    """Return p = (1/N) sum_{j in P} s_j, (B, K, C): a sum of softly masked features over N, not over the sum of m."""
    return (supports @ found.weights[..., None]).squeeze(3)


def gps_map(query: Tensor, prototypes: Tensor, weight: Tensor) -> Tensor:
    """Return g_i = sigmoid(w . [q_i ; p]), (B, K, h, w): raw features, no bias.

    Where the sum of a prototype is exactly 0, the query's half is 0 as well.

    Parameters
    ----------
    query
        (B, C, h, w).
    prototypes
        (B, K, C).
    weight
        w (2 C): the query's half first.
    """
    of_query, of_prototype = weight.chunk(2)
    shown = (prototypes.sum(dim=2) != 0).to(query)  # (B, K)
    from_query = torch.einsum("c,bchw->bhw", of_query, query)[:, None] * shown[..., None, None]
    return (from_query + (prototypes @ of_prototype)[..., None, None]).sigmoid()
