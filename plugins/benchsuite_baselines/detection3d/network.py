"""The network: a raster of points and picture features sampled at the cells' columns, joined seen from above."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchsuite_baselines.detection3d.heatmap import CODE

__all__ = ["FusedHeatmap", "column_points", "raster_of", "sampling_places"]

FEATURES = 4
HEIGHTS = (0.2, 0.5, 0.8)  # shares of the range of z at which a cell looks into the pictures
_HEAT_BIAS = -math.log((1 - 0.1) / 0.1)


def raster_of(clouds: Sequence[Tensor], extent: Sequence[float], cells: int, levels: int) -> Tensor:
    """Return (B, 4 * levels, cells, cells): mean offset of the points in each voxel, and ln(1 + count)."""
    shape = torch.tensor([cells, cells, levels])
    low = torch.tensor(extent[:3])
    size = (torch.tensor(extent[3:]) - low) / shape
    found = []
    for cloud in clouds:
        places = (cloud[:, :3] - low.to(cloud)) / size.to(cloud)
        inside = ((places >= 0) & (places < shape.to(cloud))).all(1)
        whole = places[inside].floor()
        x, y, z = whole.long().unbind(1)
        rows = F.pad(places[inside] - whole - 0.5, (0, 1), value=1.0)
        sums = cloud.new_zeros(levels * cells * cells, FEATURES).index_add(0, (z * cells + y) * cells + x, rows)
        count = sums[:, 3:]
        voxel = torch.cat([sums[:, :3] / count.clamp(min=1), count.log1p()], dim=1)
        found.append(voxel.view(levels, cells, cells, FEATURES).permute(0, 3, 1, 2).flatten(0, 1))
    return torch.stack(found)


def column_points(extent: Sequence[float], cells: int) -> Tensor:
    """Return (heights * cells * cells, 3): points in metres above the middle of each cell, row by row."""
    low, high = torch.tensor(extent[:3]), torch.tensor(extent[3:])
    middle = (torch.arange(cells) + 0.5) / cells
    z, y, x = torch.meshgrid(torch.tensor(HEIGHTS), middle, middle, indexing="ij")
    return torch.stack([x, y, z], dim=-1).flatten(0, 2) * (high - low) + low


def sampling_places(points: Tensor, rigs: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return where points (n, 3) lie in pictures, (B, views, n, 2) in [-1, 1], and who sees them, float."""
    projected = torch.einsum("bvij,nj->bvni", rigs[..., :3, :], F.pad(points, (0, 1), value=1.0))
    depth = projected[..., 2].clamp(min=1e-3)
    height, width = size
    u, v = (projected[..., 0] / depth + 0.5) / width * 2 - 1, (projected[..., 1] / depth + 0.5) / height * 2 - 1
    seen = (projected[..., 2] > 1e-3) & (u.abs() <= 1) & (v.abs() <= 1)
    return torch.stack([u, v], dim=-1).clamp(-2, 2), seen.float()


def _layers(widths: Sequence[int], strides: Sequence[int]) -> nn.Sequential:
    found: list[nn.Module] = []
    for inputs, outputs, stride in zip(widths[:-1], widths[1:], strides, strict=True):
        found += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*found)


class FusedHeatmap(nn.Module):
    """Heat and codes of each cell.

    Parameters
    ----------
    width, classes, levels
        Channels of the maps, number of classes, levels of the raster.
    """

    def __init__(self, width: int, classes: int, levels: int) -> None:
        super().__init__()
        self.lidar = _layers((FEATURES * levels, width // 2, width), (1, 2))
        self.camera = _layers((3, width // 4, width // 2, width), (2, 2, 1))
        self.fuse = _layers((2 * width, width, width), (1, 1))
        self.heat = nn.Sequential(_layers((width, width), (1,)), nn.Conv2d(width, classes, 1))
        self.code = nn.Sequential(_layers((width, width), (1,)), nn.Conv2d(width, CODE, 1))
        nn.init.constant_(self.heat[-1].bias, _HEAT_BIAS)

    def forward(self, raster: Tensor, images: Tensor, places: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, classes, Y, X) and codes (B, 10, Y, X).

        Parameters
        ----------
        raster
            (B, 4 * levels, 2Y, 2X).
        images
            (B, views, 3, H, W) in [0, 1].
        places, seen
            See `sampling_places`; (B or 1, views, heights * Y * X, ...).
        """
        bev = self.lidar(raster)
        samples, views = images.shape[:2]
        maps = self.camera(images.flatten(0, 1))  # (B * views, width, h, w)
        where = places.expand(samples, -1, -1, -1).flatten(0, 1)[:, None]  # (B * views, 1, n, 2)
        found = F.grid_sample(maps, where, align_corners=False, padding_mode="border")[:, :, 0]
        seen = seen.expand(samples, -1, -1)[:, :, None]  # (B, views, 1, n)
        joined = (found.unflatten(0, (samples, views)) * seen).sum(1) / seen.sum(1).clamp(min=1)
        lifted = joined.unflatten(-1, (len(HEIGHTS), *bev.shape[2:])).mean(2)  # (B, width, Y, X)
        fused = self.fuse(torch.cat([bev, lifted], dim=1))
        return self.heat(fused), self.code(fused)
