"""A small Mask2Former for small images: the same parts as the full one, sized for two CPU cores.

The full network learns its object queries; this one selects them, which trains within a few hundred steps: cells of the
stride-8 map that look like the centre of an object become queries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchsuite_reft.network import Decoded, Network, Reweight, linear_head

_GROUPS = 8
_SUPPRESSED = 0.1  # what is left of the objectness of a cell with a better neighbour


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.GroupNorm(_GROUPS, outputs)
    )


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = _conv(inputs, outputs, 3, 2), _conv(outputs, outputs, 3)
        self.shortcut = _conv(inputs, outputs, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class MiniBackbone(nn.Module):
    """Maps of strides 2, 4, 8 and 16 of images (B, 3, H, W)."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, channels[0], 3, 2), nn.ReLU())
        self.stages = nn.ModuleList(_Residual(a, b) for a, b in pairwise(channels))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps, fine to coarse."""
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor | None = None) -> Tensor:
        q, k, v = self.query(queries), self.key(keys), self.value(values)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, H, *, d / H)
        scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
        if allowed is not None:
            scores = scores.masked_fill(~allowed[:, None], -torch.inf)
        return self.output((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))


class _DecoderLayer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward; normalised after each."""

    def __init__(self, width: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.cross, self.own = _Attention(width, heads), _Attention(width, heads)
        self.feed_forward = nn.Sequential(nn.Linear(width, feed_forward), nn.ReLU(), nn.Linear(feed_forward, width))
        self.norm_cross, self.norm_own, self.norm_feed_forward = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, position: Tensor, memory: Tensor, keys: Tensor, allowed: Tensor) -> Tensor:
        x = self.norm_cross(x + self.cross(x + position, keys, memory, allowed))
        x = self.norm_own(x + self.own(x + position, x + position, x))
        return self.norm_feed_forward(x + self.feed_forward(x))


class MiniMask2Former(Network):
    """Residual backbone, feature pyramid, selected queries and a masked-attention decoder.

    Parameters
    ----------
    classes
        C of the class head.
    width, heads, queries, layers, feed_forward, mask_width
        Sizes of the decoder.
    channels
        Of the backbone's maps at strides 2, 4, 8 and 16.
    """

    def __init__(
        self,
        classes: int,
        width: int = 64,
        heads: int = 4,
        queries: int = 12,
        layers: int = 3,
        feed_forward: int = 128,
        mask_width: int = 32,
        channels: tuple[int, int, int, int] = (24, 48, 64, 96),
    ) -> None:
        super().__init__()
        self.width, self.heads, self.levels, self.queries = width, heads, 3, queries
        self._backbone = MiniBackbone(channels)
        self.projections = nn.ModuleList(_conv(c, width, 1) for c in reversed(channels[1:]))
        self.smooth = nn.ModuleList(_conv(width, width, 3) for _ in range(2))
        self.mask_lateral = _conv(channels[0], mask_width, 1)
        self.mask_pyramid = nn.Conv2d(width, mask_width, 1)
        self.mask_smooth = nn.Sequential(
            _conv(mask_width, mask_width, 3), nn.ReLU(), nn.Conv2d(mask_width, mask_width, 1)
        )
        self.objectness = nn.Conv2d(width, 1, 1)
        nn.init.constant_(self.objectness.bias, -2.0)
        self.query_projection = nn.Linear(width, width)
        self.level_embedding = nn.Parameter(torch.zeros(self.levels, width))
        self.layers = nn.ModuleList(_DecoderLayer(width, heads, feed_forward) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.mask_head = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, mask_width)
        )
        self.class_head: nn.Module = linear_head(width, classes)

    @property
    def head(self) -> nn.Module:
        """See `Network.head`."""
        return self.class_head

    def replace_head(self, head: nn.Module) -> None:
        """See `Network.replace_head`."""
        self.class_head = head

    @property
    def backbone(self) -> nn.Module:
        """See `Network.backbone`."""
        return self._backbone

    @property
    def input_projections(self) -> nn.Module:
        """See `Network.input_projections`."""
        return self.projections

    def forward(self, images: Tensor, reweight: Reweight | None = None, cells: Tensor | None = None) -> Decoded:
        """See `Network.forward`."""
        maps = self._backbone(images)
        projected = [project(x) for project, x in zip(self.projections, reversed(maps[1:]), strict=True)]
        pyramid = [projected[0]]
        for smooth, lateral in zip(self.smooth, projected[1:], strict=True):
            pyramid.append(smooth(lateral + _twice(pyramid[-1])))
        if reweight is not None:
            pyramid = reweight(pyramid)
        mask_features = self.mask_smooth(self.mask_lateral(maps[0]) + _twice(self.mask_pyramid(pyramid[-1])))
        return self._decode(pyramid, mask_features, projected, cells)

    def _decode(
        self, pyramid: list[Tensor], mask_features: Tensor, projected: list[Tensor], cells: Tensor | None
    ) -> Decoded:
        objectness = self.objectness(pyramid[1])[:, 0]  # (B, h, w)
        if cells is None:
            cells = select_cells(objectness, self.queries)
        positions = [_sine_positions(x.shape[2], x.shape[3], self.width, x) for x in pyramid]  # (hw, d)
        memories = [x.flatten(2).transpose(1, 2) + e for x, e in zip(pyramid, self.level_embedding, strict=True)]
        chosen = cells[:, :, None].expand(-1, -1, self.width)
        x = self.norm(self.query_projection(pyramid[1].flatten(2).transpose(1, 2).gather(1, chosen)))  # (B, N, d)
        position = positions[1][cells]
        states, mask_logits = [self.norm(x)], [self._masks(self.norm(x), mask_features)]
        for number, layer in enumerate(self.layers):
            level = number % self.levels
            allowed = _attendable(mask_logits[-1], pyramid[level].shape[2:])
            x = layer(x, position, memories[level], memories[level] + positions[level], allowed)
            states.append(self.norm(x))
            mask_logits.append(self._masks(states[-1], mask_features))
        return Decoded(torch.stack(states), tuple(mask_logits), tuple(projected), objectness, cells)

    def _masks(self, states: Tensor, mask_features: Tensor) -> Tensor:
        flat = self.mask_head(states) @ mask_features.flatten(2)
        return flat.unflatten(2, mask_features.shape[2:])


def select_cells(objectness: Tensor, count: int) -> Tensor:
    """Return the flat indices (B, count) of the likeliest object centres of logits (B, h, w)."""
    likely = objectness.detach().sigmoid()
    peak = likely == F.max_pool2d(likely[:, None], 3, 1, 1)[:, 0]
    return torch.where(peak, likely, _SUPPRESSED * likely).flatten(1).topk(count, dim=1).indices


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _attendable(mask_logits: Tensor, size: Sequence[int]) -> Tensor:
    """Return the cells (B, N, hw) inside each query's mask; a query whose mask is empty may attend to all."""
    inside = F.interpolate(mask_logits.detach(), size=tuple(size), mode="bilinear", align_corners=False).flatten(2) >= 0
    return inside | ~inside.any(dim=2, keepdim=True)


def _sine_positions(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Return sine position embeddings (height * width, channels), half for rows and half for columns."""
    frequencies = 10000 ** (-torch.arange(channels // 4, device=like.device, dtype=like.dtype) / (channels // 4))

    def of(length: int) -> Tensor:
        place = 2 * math.pi * (torch.arange(length, device=like.device, dtype=like.dtype) + 0.5) / length
        angle = place[:, None] * frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=1)  # (length, channels / 2)

    rows = of(height)[:, None].expand(-1, width, -1)
    columns = of(width)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)
