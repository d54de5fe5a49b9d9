"""Centres as bumps in a map: targets, losses and decoding, as CenterPoint has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["CODE", "Grid", "Targets", "bump_radius", "decode", "heatmap_loss", "targets_of"]

CODE = 10
"""Offset of the centre in its cell (x, y), z, ln of length, width and height, sine and cosine of yaw, velocity."""

_OVERLAP = 0.1
_CODE_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)


@dataclass(frozen=True)
class Grid:
    """Where cells lie: ``low`` corner (x, y) and ``cell`` (x, y) in metres; ``size`` is rows (y) and columns (x)."""

    low: tuple[float, float]
    cell: tuple[float, float]
    size: tuple[int, int]


@dataclass(frozen=True)
class Targets:
    """Of a batch: heat (B, classes, rows, columns); of each box in it, place (sample, row, column) and code."""

    heat: Tensor
    places: Tensor
    codes: Tensor


def bump_radius(rows: float, columns: float, overlap: float = _OVERLAP) -> float:
    """Return by how many cells a corner may be off while the box still overlaps by ``overlap``.

    The least of three cases, each the root of a quadratic as CornerNet's code solves it (its second and third root are
    divided by 2, not by twice the leading coefficient).
    """
    total = rows + columns
    area = rows * columns
    first = (total + math.sqrt(total**2 - 4 * area * (1 - overlap) / (1 + overlap))) / 2
    second = (2 * total + math.sqrt(4 * total**2 - 16 * (1 - overlap) * area)) / 2
    third = (-2 * overlap * total + math.sqrt(4 * overlap**2 * total**2 - 16 * overlap * (overlap - 1) * area)) / 2
    return min(first, second, third)


def targets_of(
    boxes: Sequence[Tensor], labels: Sequence[Tensor], classes: int, grid: Grid, least_radius: int
) -> Targets:
    """Return what the network should answer.

    Parameters
    ----------
    boxes, labels
        (n, 9) x, y, z, length, width, height, yaw, velocity, and int64 (n,), one a sample.
    """
    rows, columns = grid.size
    heat = boxes[0].new_zeros(len(boxes), classes, rows, columns)
    at_row, at_column = torch.arange(rows), torch.arange(columns)
    places, codes = [], []
    for sample, (some, their) in enumerate(zip(boxes, labels, strict=True)):
        for box, label in zip(some.tolist(), their.tolist(), strict=True):
            x, y = (box[0] - grid.low[0]) / grid.cell[0], (box[1] - grid.low[1]) / grid.cell[1]
            column, row = math.floor(x), math.floor(y)
            if not (0 <= row < rows and 0 <= column < columns):
                continue
            radius = max(least_radius, int(bump_radius(box[4] / grid.cell[1], box[3] / grid.cell[0])))
            sigma = (2 * radius + 1) / 6
            away = ((at_row - row) ** 2)[:, None] + ((at_column - column) ** 2)[None, :]
            near = ((at_row - row).abs() <= radius)[:, None] & ((at_column - column).abs() <= radius)[None, :]
            bump = torch.where(near, torch.exp(-away / (2 * sigma**2)), 0.0)
            heat[sample, label] = torch.maximum(heat[sample, label], bump)
            places.append((sample, row, column))
            sizes = [math.log(side) for side in box[3:6]]
            codes.append([x - column, y - row, box[2], *sizes, math.sin(box[6]), math.cos(box[6]), *box[7:9]])
    return Targets(heat, torch.tensor(places).reshape(-1, 3), heat.new_tensor(codes).reshape(-1, CODE))


def heatmap_loss(logits: Tensor, codes: Tensor, targets: Targets) -> Tensor:
    """Return the penalty-reduced focal loss of the heat plus a quarter of the L1 distance of codes.

    Parameters
    ----------
    logits, codes
        (B, classes, rows, columns), (B, 10, rows, columns).
    """
    heat = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    hit = targets.heat == 1
    positive = -heat.log() * (1 - heat) ** 2 * hit
    negative = -(1 - heat).log() * heat**2 * (1 - targets.heat) ** 4
    count = max(len(targets.places), 1)
    sample, row, column = targets.places.unbind(1)
    apart = (codes[sample, :, row, column] - targets.codes).abs() * codes.new_tensor(_CODE_WEIGHTS)
    return (positive + negative).sum() / count + 0.25 * apart.sum() / count


def decode(logits: Tensor, codes: Tensor, grid: Grid, most: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return boxes (n, 9), scores (n,) and labels (n,) of each sample: the highest peaks among 3x3 neighbours."""
    heat = logits.sigmoid()
    peaks = heat * (F.max_pool2d(heat, 3, 1, 1) == heat)
    rows, columns = heat.shape[2:]
    found = []
    for sample, peak in enumerate(peaks):
        scores, order = peak.flatten().topk(min(most, peak.numel()))
        label, row, column = order // (rows * columns), order // columns % rows, order % columns
        code = codes[sample, :, row, column].t()  # (n, 10)
        x = (column + code[:, 0]) * grid.cell[0] + grid.low[0]
        y = (row + code[:, 1]) * grid.cell[1] + grid.low[1]
        yaw = torch.atan2(code[:, 6], code[:, 7])
        boxes = torch.cat([x[:, None], y[:, None], code[:, 2:3], code[:, 3:6].exp(), yaw[:, None], code[:, 8:]], dim=1)
        found.append((boxes, scores, label))
    return found
