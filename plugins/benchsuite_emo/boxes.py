"""Boxes of detectors: anchors, coding, matching with objects, suppression of repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["decode", "encode", "intersection_over_union", "match", "retina_anchors", "ssd_anchors", "suppressed"]

_SSD_SIDE = 320
_SSD_SIZES = (48, 100, 150, 202, 253, 304, 320)
_LARGEST_GROWTH = math.log(1000 / 16)


def ssd_anchors(maps: Sequence[Sequence[int]], side: int) -> list[Tensor]:
    """Return the anchors of SSDLite, one (cells * 6, 4) x1, y1, x2, y2 a level, row by row, the six of a cell together.

    Parameters
    ----------
    maps
        Height and width of each level, at most six.
    side
        Of the square input; sizes are the published ones times ``side / 320``, a cell is ``round(side / cells)`` wide.
    """
    found = []
    for level, (height, width) in enumerate(maps):
        least, most = (size * side / _SSD_SIDE for size in _SSD_SIZES[level : level + 2])
        sizes = [(least, 1.0), (math.sqrt(least * most), 1.0), *((least, ratio) for ratio in (1 / 2, 2, 1 / 3, 3))]
        down, across = round(side / height), round(side / width)
        found.append(_grid(_around_zero(sizes), height, width, down, across, offset=0.5))
    return found


def retina_anchors(maps: Sequence[Sequence[int]], strides: Sequence[int]) -> list[Tensor]:
    """Return the anchors of RetinaNet, one (cells * 9, 4) a level: three ratios, three sizes each from 4 strides on.

    Centres lie on multiples of the stride.
    """
    found = []
    for (height, width), stride in zip(maps, strides, strict=True):
        sizes = [(4 * stride * 2 ** (octave / 3), ratio) for ratio in (0.5, 1.0, 2.0) for octave in range(3)]
        found.append(_grid(_around_zero(sizes), height, width, stride, stride, offset=0.0))
    return found


def _around_zero(sizes: Sequence[tuple[float, float]]) -> Tensor:
    """Return boxes around the origin from sizes and ratios of height to width."""
    half = [(size / math.sqrt(ratio) / 2, size * math.sqrt(ratio) / 2) for size, ratio in sizes]
    return torch.tensor([[-w, -h, w, h] for w, h in half])


def _grid(base: Tensor, height: int, width: int, down: int, across: int, offset: float) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centres = torch.stack([(columns + offset) * across, (rows + offset) * down], dim=-1).float()  # (H, W, 2)
    return (centres.repeat(1, 1, 2)[:, :, None] + base).flatten(0, 2)


def encode(anchors: Tensor, boxes: Tensor, stds: Sequence[float]) -> Tensor:
    """Return what leads from anchors to boxes (n, 4): shifts in anchor sides and logarithms of growth."""
    sides, wanted = anchors[:, 2:] - anchors[:, :2], boxes[:, 2:] - boxes[:, :2]
    shifts = ((boxes[:, :2] + boxes[:, 2:]) - (anchors[:, :2] + anchors[:, 2:])) / 2 / sides
    return torch.cat([shifts, torch.log(wanted / sides)], dim=1) / anchors.new_tensor(stds)


def decode(anchors: Tensor, codes: Tensor, stds: Sequence[float]) -> Tensor:
    """Undo `encode`; no side grows or shrinks by more than 62.5."""
    codes = codes * codes.new_tensor(stds)
    sides = anchors[..., 2:] - anchors[..., :2]
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2 + codes[..., :2] * sides
    half = sides * codes[..., 2:].clamp(-_LARGEST_GROWTH, _LARGEST_GROWTH).exp() / 2
    return torch.cat([centres - half, centres + half], dim=-1)


def intersection_over_union(first: Tensor, second: Tensor) -> Tensor:
    """Return (n, m) of boxes (n, 4) and (m, 4)."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    common = (high - low).clamp(min=0).prod(dim=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (first, second)]
    return common / (areas[0][:, None] + areas[1][None] - common).clamp(min=1e-6)


def match(anchors: Tensor, boxes: Tensor, positive: float, negative: float, all_best: bool) -> Tensor:
    """Return for each anchor the place of its object, -1 for background, -2 for neither.

    Parameters
    ----------
    anchors, boxes
        (n, 4) and (m, 4).
    positive, negative
        An anchor belongs to the object that it overlaps most if that is at least ``positive``, to the background if it
        is below ``negative``.
    all_best
        Every object takes its best anchor, however small the overlap (above 0); with ``all_best`` all that are equally
        good, else the first. A later object takes an anchor from an earlier one.
    """
    found = torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
    if not len(boxes):
        return found
    overlaps = intersection_over_union(anchors, boxes)
    best, owner = overlaps.max(dim=1)
    found[best >= negative] = -2
    found[best >= positive] = owner[best >= positive]
    most, first = overlaps.max(dim=0)
    for place in range(len(boxes)):
        if most[place] > 0:
            chosen = overlaps[:, place] == most[place] if all_best else first[place]
            found[chosen] = place
    return found


def suppressed(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float, most: int) -> np.ndarray:
    """Return places of detections, the best first, without those that overlap a better one of their class by more."""
    from torchvision.ops import batched_nms

    kept: np.ndarray = batched_nms(boxes, scores, labels, overlap)[:most].cpu().numpy()
    return kept
