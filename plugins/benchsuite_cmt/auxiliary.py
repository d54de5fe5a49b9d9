"""Two small heads on the tokens that serve a short training only: where objects stand, and which class a pixel shows.

They are no part of the network: nothing of them is kept. The published recipe has none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchsuite_cmt.architecture import Architecture
from benchsuite_cmt.examples import Batch

__all__ = ["Auxiliary"]

_SPREAD = 0.7  # of the bump around a centre, in cells
_PRIOR = -2.19


class Auxiliary(nn.Module):
    """A heat of centres on the map seen from above; a class on each image token that holds a centre.

    Parameters
    ----------
    sizes
        Of the network.
    weight
        Of both losses.
    """

    def __init__(self, sizes: Architecture, weight: float) -> None:
        super().__init__()
        self.sizes, self.weight = sizes, weight
        self.heat, self.classes = nn.Linear(sizes.width, 1), nn.Linear(sizes.width, sizes.classes)
        nn.init.constant_(self.heat.bias, _PRIOR)

    def loss(self, bev: Tensor | None, maps: Tensor | None, batch: Batch) -> Tensor:
        """Return the weighted sum of both losses; a sensor that was removed from a sample does not count there.

        Parameters
        ----------
        bev, maps
            (B, width, Y, X) and (B, views, width, h, w), or None.
        batch
            With the answers.
        """
        total = self.heat.weight.sum() * 0 + self.classes.weight.sum() * 0
        if bev is not None:
            total = total + self._heat_loss(bev, batch)
        if maps is not None and batch.sensors.images is not None and batch.sensors.lidar_to_image is not None:
            size = (int(batch.sensors.images.shape[-2]), int(batch.sensors.images.shape[-1]))
            total = total + self._class_loss(maps, batch, batch.sensors.lidar_to_image, size)
        return self.weight * total

    def _heat_loss(self, bev: Tensor, batch: Batch) -> Tensor:
        rows, columns = bev.shape[2:]
        heat = self.heat(bev.movedim(1, -1))[..., 0].sigmoid().clamp(1e-4, 1 - 1e-4)  # (B, Y, X)
        wanted = torch.stack([self._bumps(boxes, rows, columns) for boxes in batch.boxes])
        hit = wanted == 1
        positive = -heat.log() * (1 - heat) ** 2 * hit
        negative = -(1 - heat).log() * heat**2 * (1 - wanted) ** 4
        counted = batch.lidar_seen[:, None, None]
        return ((positive + negative) * counted).sum() / (hit & counted).sum().clamp(min=1)

    def _bumps(self, boxes: Tensor, rows: int, columns: int) -> Tensor:
        low, high = (boxes.new_tensor(self.sizes.point_range[i : i + 2]) for i in (0, 3))
        cells = ((boxes[:, :2] - low) / (high - low) * boxes.new_tensor([columns, rows])).floor()  # (m, 2) column, row
        away_x = (torch.arange(columns, device=boxes.device) - cells[:, :1]) ** 2  # (m, X)
        away_y = (torch.arange(rows, device=boxes.device) - cells[:, 1:]) ** 2
        bumps = torch.exp(-(away_y[:, :, None] + away_x[:, None, :]) / (2 * _SPREAD**2))
        return torch.cat([bumps, bumps.new_zeros(1, rows, columns)]).amax(0)

    def _class_loss(self, maps: Tensor, batch: Batch, rig: Tensor, size: tuple[int, int]) -> Tensor:
        rows, columns = maps.shape[3:]
        rigs = rig.expand(len(maps), -1, -1, -1)
        tokens, names = [], []
        for sample, (boxes, labels) in enumerate(zip(batch.boxes, batch.labels, strict=True)):
            if not batch.cameras_seen[sample]:
                continue
            points = F.pad(boxes[:, :3], (0, 1), value=1.0)
            projected = torch.einsum("vij,nj->vni", rigs[sample], points)
            depth = projected[..., 2].clamp(min=1e-3)
            u, v = projected[..., 0] / depth / size[1] * columns, projected[..., 1] / depth / size[0] * rows
            inside = (projected[..., 2] > 1e-3) & (u >= 0) & (u < columns) & (v >= 0) & (v < rows)
            view, box = inside.nonzero().unbind(1)
            tokens.append(maps[sample, view, :, v[view, box].long(), u[view, box].long()])
            names.append(labels[box])
        if not names or not sum(len(found) for found in names):
            return maps.sum() * 0
        return F.cross_entropy(self.classes(torch.cat(tokens)), torch.cat(names))
