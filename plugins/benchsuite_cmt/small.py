"""Front ends of the embedded size: a raster of points and a few convolutions a sensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["SmallBEV", "SmallImage", "raster"]

FEATURES = 4


def raster(
    points: Sequence[Tensor], point_range: Sequence[float], size: Sequence[float], grid: tuple[int, int, int]
) -> Tensor:
    """Return (B, 4 * z, y, x): of each voxel the mean offset of its points from its centre, and ln(1 + count).

    A cloud (n, 3 or more) starts with x, y, z in metres; points beyond the range do not count.
    """
    nz, ny, nx = grid
    rows, cells = [], []
    for sample, cloud in enumerate(points):
        places = (cloud[:, :3] - cloud.new_tensor(point_range[:3])) / cloud.new_tensor(size)
        whole = places.floor()
        inside = ((whole >= 0) & (whole < whole.new_tensor([nx, ny, nz]))).all(1)
        x, y, z = whole[inside].long().unbind(1)
        cells.append(((sample * nz + z) * ny + y) * nx + x)
        rows.append(nn.functional.pad(places[inside] - whole[inside] - 0.5, (0, 1), value=1.0))
    sums = points[0].new_zeros(len(points) * nz * ny * nx, FEATURES).index_add(0, torch.cat(cells), torch.cat(rows))
    count = sums[:, 3:]
    found = torch.cat([sums[:, :3] / count.clamp(min=1), count.log1p()], dim=1)
    return found.view(len(points), nz, ny, nx, FEATURES).permute(0, 1, 4, 2, 3).flatten(1, 2)


def _layers(widths: Sequence[int], strides: Sequence[int]) -> list[nn.Module]:
    found: list[nn.Module] = []
    for inputs, outputs, stride in zip(widths[:-1], widths[1:], strides, strict=True):
        found += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return found


class SmallBEV(nn.Sequential):
    """Three convolutions over a raster; the map has half of its cells a side."""

    def __init__(self, levels: int, width: int) -> None:
        super().__init__(*_layers((FEATURES * levels, 32, width, width), (1, 2, 1)))


class SmallImage(nn.Sequential):
    """Four convolutions and a linear one; the map has stride 8."""

    def __init__(self, width: int) -> None:
        super().__init__(*_layers((3, 16, 32, width, width), (2, 2, 2, 1)), nn.Conv2d(width, width, 1))
