"""Convolutions on the occupied voxels of a grid, in plain torch: a rulebook of pairs, then gather, multiply, scatter.

A rulebook depends on coordinates only. Layers that share coordinates share it, and it can be made beforehand (`plan`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Rulebook", "SparseConv", "VoxelNorm", "densify", "strided_rulebook", "submanifold_rulebook"]

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Rulebook:
    """Which input voxel reaches which output voxel through which place of the kernel.

    Attributes
    ----------
    inputs, outputs
        int64 (pairs,), sorted by the place in the kernel.
    counts
        Number of pairs of each of the kernel's places (row-major z, y, x).
    coordinates
        int64 (outputs, 4): sample, z, y, x of the output voxels.
    shape
        z, y, x of the output grid.
    centre
        Place of the kernel at which every voxel meets itself (submanifold), or -1.
    """

    inputs: Tensor
    outputs: Tensor
    counts: tuple[int, ...]
    coordinates: Tensor
    shape: Triple
    centre: int = -1


def _keys(coordinates: Tensor, shape: Triple) -> Tensor:
    """Return one number a voxel, in a grid with a border of one cell, so that no neighbour wraps around."""
    z, y, x = (size + 2 for size in shape)
    sample, cz, cy, cx = coordinates.unbind(1)
    return ((sample * z + cz + 1) * y + cy + 1) * x + cx + 1


def submanifold_rulebook(coordinates: Tensor, shape: Triple) -> Rulebook:
    """Return the pairs of a 3x3x3 convolution whose outputs are its inputs.

    Parameters
    ----------
    coordinates
        int64 (n, 4): sample, z, y, x; each voxel once.
    shape
        z, y, x of the grid.
    """
    keys, order = _keys(coordinates, shape).sort()
    rows, columns = shape[1] + 2, shape[2] + 2
    count, end = len(keys), max(len(keys) - 1, 0)
    pairs: list[tuple[Tensor, Tensor]] = [(order[:0], order[:0])] * 27
    # A row of three neighbours along x lies side by side among the sorted keys: one search serves three places. Places
    # mirrored at the centre have the same pairs with the two sides exchanged.
    for dz, dy in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0)):
        step = (dz * rows + dy) * columns
        first = torch.searchsorted(keys, keys + step - 1)
        for dx in (-1, 0, 1) if step else (-1,):
            wanted = keys + step + dx
            found = first.clamp(max=end)
            for _ in range(dx + 1):
                found = torch.where(keys[found] < wanted, (found + 1).clamp(max=end), found)
            hits = (keys[found] == wanted).nonzero()[:, 0] if count else order[:0]
            here, there = order[hits], order[found[hits]]
            place = (dz + 1) * 9 + (dy + 1) * 3 + dx + 1
            pairs[place], pairs[26 - place] = (there, here), (here, there)
    everything = torch.arange(count, device=coordinates.device)
    pairs[13] = (everything, everything)
    inputs, outputs = (torch.cat(side) for side in zip(*pairs, strict=True))
    counts = tuple(len(there) for there, _ in pairs)
    return Rulebook(inputs, outputs, counts, coordinates, shape, centre=13)


def strided_rulebook(coordinates: Tensor, shape: Triple, kernel: Triple, stride: Triple, padding: Triple) -> Rulebook:
    """Return the pairs of a convolution whose outputs are all cells that an input reaches."""
    sizes = zip(shape, kernel, stride, padding, strict=True)
    out = tuple((size + 2 * pad - width) // step + 1 for size, width, step, pad in sizes)
    new_shape: Triple = (out[0], out[1], out[2])
    reached = [
        _reached(coordinates[:, axis + 1], new_shape[axis], kernel[axis], stride[axis], padding[axis])
        for axis in range(3)
    ]
    rows, columns = new_shape[1] + 2, new_shape[2] + 2
    sample = coordinates[:, 0] * (new_shape[0] + 2)
    inputs, keys, counts = [], [], []
    for (z, fits_z), (y, fits_y) in itertools.product(*reached[:2]):
        in_row = (fits_z & fits_y).nonzero()[:, 0]
        row = ((sample + z)[in_row] * rows + y[in_row]) * columns
        for x, fits_x in reached[2]:
            chosen = fits_x[in_row].nonzero()[:, 0]
            inside = in_row[chosen]
            inputs.append(inside)
            keys.append(row[chosen] + x[inside])
            counts.append(len(inside))
    unique, outputs = torch.cat(keys).unique(return_inverse=True)
    cells = []
    for size in (new_shape[2] + 2, new_shape[1] + 2, new_shape[0] + 2):
        cells.append(unique % size - 1)
        unique = torch.div(unique, size, rounding_mode="floor")
    found = torch.stack([unique, *reversed(cells)], dim=1)
    return Rulebook(torch.cat(inputs), outputs, tuple(counts), found, new_shape)


def _reached(cells: Tensor, size: int, kernel: int, stride: int, padding: int) -> list[tuple[Tensor, Tensor]]:
    """Return for each place of a kernel along one axis the cells reached, from 1, and which lie in the grid."""
    found = []
    for place in range(kernel):
        at = cells + (padding - place)
        cell = torch.div(at, stride, rounding_mode="floor")
        found.append((cell + 1, (cell * stride == at) & (cell >= 0) & (cell < size)))
    return found


class _Convolve(torch.autograd.Function):
    """Sum over the kernel's places; keeps the inputs only, and gathers them again for the gradients."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.rulebook = rulebook
        if rulebook.centre >= 0:
            found = features @ weight[rulebook.centre]
        else:
            found = features.new_zeros(len(rulebook.coordinates), weight.shape[2])
        for place, sources, targets in _places(rulebook):
            found.index_add_(0, targets, features.index_select(0, sources) @ weight[place])
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        (gradient,), (features, weight), book = gradients, ctx.saved_tensors, ctx.rulebook
        wanted, turned = ctx.needs_input_grad[0], weight.transpose(1, 2)
        to_features, to_weight = torch.zeros_like(features) if wanted else None, torch.zeros_like(weight)
        if book.centre >= 0:
            to_weight[book.centre] = features.t() @ gradient
            to_features = gradient @ turned[book.centre] if wanted else None
        for place, sources, targets in _places(book):
            here = gradient.index_select(0, targets)
            to_weight[place] = features.index_select(0, sources).t() @ here
            if to_features is not None:
                to_features.index_add_(0, sources, here @ turned[place])
        return to_features, to_weight, None


def _places(book: Rulebook) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield each place of a kernel but the centre, with its pairs: input and output voxels."""
    start = 0
    for place, count in enumerate(book.counts):
        if place != book.centre and count:
            yield place, book.inputs[start : start + count], book.outputs[start : start + count]
        start += count


class SparseConv(nn.Module):
    """A convolution without bias whose weight (out, kz, ky, kx, in) is laid out as spconv's since 2.2."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple = (3, 3, 3)) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, *kernel, inputs))
        bound = (inputs * kernel[0] * kernel[1] * kernel[2]) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, features: Tensor, rulebook: Rulebook) -> Tensor:
        """Return features (outputs of the rulebook, out) of features (n, in)."""
        return _Convolve.apply(features, self.weight.flatten(1, 3).permute(1, 2, 0).contiguous(), rulebook)


class VoxelNorm(nn.BatchNorm1d):
    """Batch norm over voxels; a lone voxel (all points of a removed LiDAR) has no variance and takes the kept one."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, channels)."""
        if self.training and len(x) < 2:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


def densify(features: Tensor, coordinates: Tensor, samples: int, shape: Sequence[int]) -> Tensor:
    """Return (samples, channels, z, y, x), zero where there is no voxel."""
    z, y, x = shape
    sample, cz, cy, cx = coordinates.unbind(1)
    dense = features.new_zeros(samples * z * y * x, features.shape[1])
    dense = dense.index_copy(0, ((sample * z + cz) * y + cy) * x + cx, features)
    return dense.view(samples, z, y, x, -1).permute(0, 4, 1, 2, 3)
