"""The LiDAR branch: hard voxels, the sparse encoder, SECOND and its pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchsuite_cmt.sparse import (
    Rulebook,
    SparseConv,
    VoxelNorm,
    densify,
    strided_rulebook,
    submanifold_rulebook,
)

__all__ = ["SECOND", "SECONDFPN", "SparseEncoder", "SparsePlan", "Voxels", "voxelise"]

Triple = tuple[int, int, int]
MOST_POINTS = 10


@dataclass(frozen=True)
class Voxels:
    """Occupied voxels: features (n, 5), the means of their points; coordinates int64 (n, 4) sample, z, y, x."""

    features: Tensor
    coordinates: Tensor


def voxelise(
    points: Sequence[Tensor], point_range: Sequence[float], size: Sequence[float], grid: Triple, most: int
) -> Voxels:
    """Return the means of the first ten points of each voxel, for at most so many voxels a sample (section 5.2).

    Parameters
    ----------
    points
        float32 (n, 5) a sample: x, y, z in metres, intensity, time lag in seconds.
    point_range, size
        x, y, z low then high; of a voxel, x, y, z; both in metres.
    grid
        z, y, x of the sparse tensor. Voxels of the range that lie beyond it are dropped.
    most
        Voxels in the order in which points first meet them; later ones are dropped.
    """
    found = [_voxels_of(cloud, point_range, size, grid, most) for cloud in points]
    coordinates = [F.pad(cells, (1, 0), value=sample) for sample, (_, cells) in enumerate(found)]
    return Voxels(torch.cat([features for features, _ in found]), torch.cat(coordinates))


def _voxels_of(
    cloud: Tensor, point_range: Sequence[float], size: Sequence[float], grid: Triple, most: int
) -> tuple[Tensor, Tensor]:
    low, high = cloud.new_tensor(point_range[:3]), cloud.new_tensor(point_range[3:])
    step = cloud.new_tensor(size)
    cells = ((cloud[:, :3] - low) / step).floor().long()  # (n, 3) x, y, z
    counts = ((high - low) / step).round().long()
    inside = ((cells >= 0) & (cells < counts)).all(1)
    cloud, cells = cloud[inside], cells[inside]
    nx, ny, _ = counts.tolist()
    keys, voxel = ((cells[:, 2] * ny + cells[:, 1]) * nx + cells[:, 0]).unique(return_inverse=True)
    order = voxel.argsort(stable=True)
    sizes = voxel.bincount(minlength=len(keys))
    starts = sizes.cumsum(0) - sizes
    rank = torch.arange(len(order), device=cloud.device) - starts.repeat_interleave(sizes)
    kept = order[rank < MOST_POINTS]
    sums = cloud.new_zeros(len(keys), cloud.shape[1]).index_add(0, voxel[kept], cloud[kept])
    features = sums / sizes.clamp(max=MOST_POINTS)[:, None]
    if len(keys) > most:
        first = order[starts].argsort()[:most].sort().values  # those met first
        keys, features = keys[first], features[first]
    found = torch.stack([keys // (nx * ny), keys // nx % ny, keys % nx], dim=1)  # z, y, x
    fits = (found < found.new_tensor(grid)).all(1)
    return features[fits], found[fits]


@dataclass(frozen=True)
class SparsePlan:
    """The rulebooks of a `SparseEncoder` for one batch of coordinates, in the order in which it uses them."""

    submanifold: tuple[Rulebook, ...]
    strided: tuple[Rulebook, ...]

    @classmethod
    def of(cls, coordinates: Tensor, grid: Triple) -> SparsePlan:
        """Return the plan of voxels at ``coordinates`` in a grid of z, y, x."""
        submanifold, strided = [submanifold_rulebook(coordinates, grid)], []
        for padding in SparseEncoder.PADDINGS:
            last = submanifold[-1]
            strided.append(strided_rulebook(last.coordinates, last.shape, (3, 3, 3), (2, 2, 2), padding))
            submanifold.append(submanifold_rulebook(strided[-1].coordinates, strided[-1].shape))
        last = submanifold[-1]
        strided.append(strided_rulebook(last.coordinates, last.shape, (3, 1, 1), (2, 1, 1), (0, 0, 0)))
        return cls(tuple(submanifold), tuple(strided))


class SparseBlock(nn.Module):
    """Two submanifold convolutions around a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = SparseConv(channels, channels), VoxelNorm(channels)
        self.conv2, self.bn2 = SparseConv(channels, channels), VoxelNorm(channels)

    def forward(self, x: Tensor, rulebook: Rulebook) -> Tensor:
        """Return features (n, channels)."""
        inner = F.relu(self.bn1(self.conv1(x, rulebook)), inplace=True)
        return F.relu(self.bn2(self.conv2(inner, rulebook)) + x)


class SparseLayer(nn.Module):
    """A convolution, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple = (3, 3, 3)) -> None:
        super().__init__()
        self.conv, self.norm = SparseConv(inputs, outputs, kernel), VoxelNorm(outputs)

    def forward(self, x: Tensor, rulebook: Rulebook) -> Tensor:
        """Return features (outputs of the rulebook, outputs)."""
        return F.relu(self.norm(self.conv(x, rulebook)), inplace=True)


class SparseEncoder(nn.Module):
    """Four stages of residual submanifold blocks; z is halved four times and becomes channels: 2,694,352 parameters."""

    WIDTHS = (16, 32, 64, 128)
    PADDINGS: tuple[Triple, ...] = ((1, 1, 1), (1, 1, 1), (0, 1, 1))

    def __init__(self, inputs: int = 5) -> None:
        super().__init__()
        widths = self.WIDTHS
        self.entry = SparseLayer(inputs, widths[0])
        self.blocks = nn.ModuleList(nn.ModuleList(SparseBlock(width) for _ in range(2)) for width in widths)
        self.downs = nn.ModuleList(SparseLayer(a, b) for a, b in pairwise(widths))
        self.out = SparseLayer(widths[-1], 128, (3, 1, 1))

    def plan(self, coordinates: Tensor, grid: Triple) -> SparsePlan:
        """Return what `forward` needs to know of voxels at ``coordinates`` (n, 4) in a grid of z, y, x."""
        return SparsePlan.of(coordinates, grid)

    def forward(self, features: Tensor, plan: SparsePlan, samples: int) -> Tensor:
        """Return the map (samples, 256, y / 8, x / 8) of voxel features (n, inputs)."""
        x = self.entry(features, plan.submanifold[0])
        for place, stage in enumerate(self.blocks):
            for block in stage:
                x = block(x, plan.submanifold[place])
            if place < len(self.downs):
                x = self.downs[place](x, plan.strided[place])
        last = plan.strided[-1]
        return densify(self.out(x, last), last.coordinates, samples, last.shape).flatten(1, 2)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class SECOND(nn.Module):
    """Two stages of 1 + 5 convolutions, the second one with stride 2: 4,280,832 parameters."""

    WIDTHS, LAYERS = (128, 256), 5

    def __init__(self, inputs: int = 256) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for place, width in enumerate(self.WIDTHS):
            layers: list[nn.Module] = []
            for i in range(1 + self.LAYERS):
                conv = nn.Conv2d(inputs, width, 3, 2 if place and i == 0 else 1, 1, bias=False)
                layers += [conv, _norm(width), nn.ReLU(inplace=True)]
                inputs = width
            self.blocks.append(nn.Sequential(*layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return maps (B, 128, Y, X) and (B, 256, Y/2, X/2) of (B, inputs, Y, X)."""
        found = []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return found


class SECONDFPN(nn.Module):
    """Both maps of `SECOND` at the size of the first, joined: 295,936 parameters."""

    WIDTH = 256

    def __init__(self) -> None:
        super().__init__()
        same: nn.Module = nn.Conv2d(SECOND.WIDTHS[0], self.WIDTH, 1, bias=False)
        up: nn.Module = nn.ConvTranspose2d(SECOND.WIDTHS[1], self.WIDTH, 2, 2, bias=False)
        self.deblocks = nn.ModuleList(
            nn.Sequential(conv, _norm(self.WIDTH), nn.ReLU(inplace=True)) for conv in (same, up)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (B, 512, Y, X)."""
        return torch.cat([block(m) for block, m in zip(self.deblocks, maps, strict=True)], dim=1)
