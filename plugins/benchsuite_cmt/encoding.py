"""The coordinates encoding: where tokens and queries are, told by the same two networks (section 5.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "bev_centres",
    "depth_bins",
    "frequencies",
    "inverse_sigmoid",
    "plane_features",
    "query_rays",
    "token_rays",
]

_EPSILON = 1e-6


def frequencies(count: int, kind: str, device: torch.device | None = None) -> Tensor:
    """Return the cycles over the range of ``count`` features; neighbours (sine, cosine) share theirs.

    ``released``: 1 / d with d = 2 floor(k / 2) / count + 1, no temperature. ``geometric``: from .5 to 8.
    """
    pair = torch.div(torch.arange(count, device=device), 2, rounding_mode="floor")
    if kind == "released":
        return 1 / (2 * pair / count + 1)
    return 0.5 * 16.0 ** (pair / max(count // 2 - 1, 1))


def plane_features(places: Tensor, cycles: Tensor) -> Tensor:
    """Return (..., 2 * count) sines and cosines of places (..., 2), x and y as shares of the range: y comes first."""
    angles = 2 * math.pi * places[..., None] * cycles  # (..., 2, count)
    waves = torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1).flatten(-2)
    return torch.cat([waves[..., 1, :], waves[..., 0, :]], dim=-1)


def bev_centres(rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """Return (rows * columns, 2): x and y of the cells' centres as shares of the range, row by row."""
    y = (torch.arange(rows, device=device) + 0.5) / rows
    x = (torch.arange(columns, device=device) + 0.5) / columns
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)


def depth_bins(count: int, far: float, device: torch.device | None = None) -> Tensor:
    """Return depths in metres, from 1 in equal steps of (far - 1) / count."""
    return 1 + torch.arange(count, device=device) * (far - 1) / count


def _shares(points: Tensor, point_range: Sequence[float]) -> Tensor:
    low, high = points.new_tensor(point_range[:3]), points.new_tensor(point_range[3:])
    return (points - low) / (high - low)


def _ray_points(pixels: Tensor, image_to_lidar: Tensor, depths: Tensor, point_range: Sequence[float]) -> Tensor:
    """Return (..., 3 * depths): places in the range of points on rays through homogeneous pixels (..., 3), by depth.

    ``image_to_lidar`` (..., 4, 4) maps (u t, v t, t, 1) to LiDAR coordinates: a ray is its last column plus t times the
    image of the pixel.
    """
    direction = (image_to_lidar[..., :3, :3] @ pixels[..., None])[..., 0]
    origin = image_to_lidar[..., :3, 3]
    points = origin[..., None, :] + depths[:, None] * direction[..., None, :]  # (..., depths, 3)
    return _shares(points, point_range).flatten(-2)


def token_rays(
    lidar_to_image: Tensor,
    image_size: tuple[int, int],
    rows: int,
    columns: int,
    depths: Tensor,
    point_range: Sequence[float],
) -> Tensor:
    """Return (B, views, rows * columns, 3 * depths): the rays of the cells of image maps.

    Parameters
    ----------
    lidar_to_image
        (B, views, 4, 4).
    image_size
        Height and width in pixels of the (padded) image.
    """
    height, width = image_size
    device = lidar_to_image.device
    v = torch.arange(rows, device=device) * height / rows  # no half pixel
    u = torch.arange(columns, device=device) * width / columns
    grid = torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1).flatten(0, 1)  # (rows * columns, 2)
    pixels = torch.nn.functional.pad(grid, (0, 1), value=1.0)
    return _ray_points(pixels, _inverse(lidar_to_image)[:, :, None], depths, point_range)


def query_rays(
    points: Tensor, lidar_to_image: Tensor, image_size: tuple[int, int], depths: Tensor, point_range: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return the rays (B, views, queries, 3 * depths) through points (B, queries, 3) in metres, and who sees them.

    The second tensor, bool (B, views, queries), says where the point lies before the camera and inside the image.
    """
    homogeneous = torch.nn.functional.pad(points, (0, 1), value=1.0)  # (B, queries, 4)
    projected = torch.einsum("bvij,bqj->bvqi", lidar_to_image, homogeneous)[..., :3]
    z = projected[..., 2:]
    pixels = projected / torch.where(z > 0, z + _EPSILON, z - _EPSILON)
    (height, width), (u, v) = image_size, pixels[..., :2].unbind(-1)
    visible = (z[..., 0] > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    return _ray_points(pixels, _inverse(lidar_to_image)[:, :, None], depths, point_range), visible


def _inverse(lidar_to_image: Tensor) -> Tensor:
    return torch.linalg.inv(lidar_to_image.double()).to(lidar_to_image.dtype)


def inverse_sigmoid(x: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Return the logit of x in [0, 1], kept away from both ends."""
    x = x.clamp(0, 1)
    return (x.clamp(min=epsilon) / (1 - x).clamp(min=epsilon)).log()
