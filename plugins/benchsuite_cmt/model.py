"""CMT: tokens of both sensors, placed by their 3-D coordinates, and one decoder over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchsuite_cmt.architecture import Architecture
from benchsuite_cmt.decoder import Decoder
from benchsuite_cmt.encoding import (
    bev_centres,
    depth_bins,
    frequencies,
    inverse_sigmoid,
    plane_features,
    query_rays,
    token_rays,
)
from benchsuite_cmt.image import CPFPN, ResNet50, VoVNet99
from benchsuite_cmt.lidar import SECOND, SECONDFPN, SparseEncoder, SparsePlan, Voxels, voxelise
from benchsuite_cmt.small import SmallBEV, SmallImage, raster

__all__ = ["CMT", "Outputs", "Sensors"]

_CLASS_BIAS = -2.19
_BRANCHES = (("center", 2), ("height", 1), ("dim", 3), ("rot", 2), ("vel", 2))


@dataclass(frozen=True)
class Sensors:
    """What a batch of samples shows.

    Attributes
    ----------
    points
        A cloud (n, 5) a sample, or None without LiDAR: x, y, z in metres, intensity, time lag in seconds.
    images
        float32 (B, views, 3, H, W), normalised, or None without cameras.
    lidar_to_image
        float32 (B or 1, views, 4, 4), or None; one for all samples where the rig is the same.
    """

    points: Sequence[Tensor] | None
    images: Tensor | None
    lidar_to_image: Tensor | None

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of the images."""
        return None if self.images is None else (int(self.images.shape[-2]), int(self.images.shape[-1]))


@dataclass(frozen=True)
class Outputs:
    """Of every layer: logits (layers, B, queries, classes), codes (layers, B, queries, 10)."""

    logits: Tensor
    codes: Tensor

    def split(self, count: int) -> tuple[Outputs, Outputs]:
        """Return the first ``count`` queries and the others."""
        first = Outputs(self.logits[:, :, :count], self.codes[:, :, :count])
        return first, Outputs(self.logits[:, :, count:], self.codes[:, :, count:])


class GroupNorm1d(nn.Module):
    """A layer norm over the channels of each group, with numbers of its own."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(groups * channels))
        self.bias = nn.Parameter(torch.zeros(groups * channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return (groups, N, channels) of the same."""
        weight, bias = (p.view(self.groups, 1, -1) for p in (self.weight, self.bias))
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * weight + bias


class GroupedConv1d(nn.Conv1d):
    """A grouped convolution over queries whose groups are the layers of the decoder: (groups, B, queries, channels)."""

    def __init__(self, groups: int, inputs: int, outputs: int, kernel: int, bias: bool) -> None:
        super().__init__(groups * inputs, groups * outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (groups, B, queries, outputs) of (groups, B, queries, inputs)."""
        if self.kernel_size[0] == 1:  # no query sees another: a product a group
            weight = self.weight.view(self.groups, -1, x.shape[-1]).transpose(1, 2)
            found = torch.bmm(x.flatten(1, 2), weight)
            found = found if self.bias is None else found + self.bias.view(self.groups, 1, -1)
            return found.unflatten(1, x.shape[1:3])
        found = super().forward(x.permute(1, 0, 3, 2).flatten(1, 2))  # (B, groups * outputs, queries)
        return found.unflatten(1, (self.groups, -1)).permute(1, 0, 3, 2)


class Branch(nn.Sequential):
    """One kind of output, with weights of its own for each layer of the decoder."""

    def __init__(self, sizes: Architecture, outputs: int, bias: float = 0.0) -> None:
        layers, hidden = sizes.layers, sizes.branch_width
        entry = GroupedConv1d(layers, sizes.width, hidden, sizes.kernel, bias=False)
        out = GroupedConv1d(layers, hidden, outputs, sizes.kernel, bias=True)
        if sizes.head_start == "narrow":
            bound = hidden**-0.5
            nn.init.uniform_(out.weight, -bound, bound)
        nn.init.constant_(out.bias, bias)
        super().__init__(entry, GroupNorm1d(layers, hidden), nn.ReLU(), out)

    def forward(self, x: Tensor) -> Tensor:
        """Return (layers, B, queries, outputs) of what the decoder returns (layers, B, queries, width)."""
        entry, norm, activation, out = self
        hidden = entry(x)
        normed = activation(norm(hidden.flatten(1, 2))).view_as(hidden)
        return out(normed)


class CMT(nn.Module):
    """The whole detector; which front ends there are is said by its `Architecture`."""

    def __init__(self, sizes: Architecture) -> None:
        super().__init__()
        self.sizes, self.mixed = sizes, False
        width = sizes.width
        if sizes.camera:
            self._add_camera()
        if sizes.lidar:
            self._add_lidar()
        self.decoder = Decoder(width, sizes.heads, sizes.feed_forward, sizes.layers, sizes.dropout)
        self.references = nn.Parameter(_anchors(sizes))
        self.bev_embedding = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, width))
        if sizes.camera:
            rays = 3 * sizes.depths
            self.ray_embedding = nn.Sequential(nn.Linear(rays, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
        branches = _BRANCHES if sizes.velocity else _BRANCHES[:-1]
        self.branches = nn.ModuleDict({name: Branch(sizes, outputs) for name, outputs in branches})
        self.branches["cls_logits"] = Branch(sizes, sizes.classes, _CLASS_BIAS)
        self.register_buffer("_cycles", frequencies(width, sizes.frequencies), persistent=False)
        self.register_buffer("_depths", depth_bins(sizes.depths, sizes.reach * sizes.point_range[3]), persistent=False)

    def _add_camera(self) -> None:
        if self.sizes.image_backbone == "small":
            self.image_encoder: nn.Module = SmallImage(self.sizes.width)
            return
        backbone = VoVNet99() if self.sizes.image_backbone == "vovnet99" else ResNet50()
        self.image_encoder = nn.ModuleDict({"backbone": backbone, "neck": CPFPN(backbone.channels, self.sizes.width)})

    def _add_lidar(self) -> None:
        width = self.sizes.width
        if self.sizes.bev_encoder == "small":
            self.bev_encoder: nn.Module = SmallBEV(self.sizes.grid[0], width)
            return
        self.bev_encoder = nn.ModuleDict({"voxels": SparseEncoder(), "backbone": SECOND(), "neck": SECONDFPN()})
        conv = nn.Conv2d(2 * SECONDFPN.WIDTH, width, 3, padding=1, bias=False)
        self.shared = nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))

    def voxels(self, points: Sequence[Tensor]) -> Voxels:
        """Return the voxels of a batch of clouds."""
        sizes = self.sizes
        most = sizes.max_voxels[0 if self.training else 1]
        return voxelise(points, sizes.point_range, sizes.voxel_size, sizes.grid, most)

    def bev_map(self, points: Sequence[Tensor]) -> Tensor:
        """Return the map (B, width, Y, X) of a batch of clouds (n, 5)."""
        sizes = self.sizes
        if sizes.bev_encoder == "small":
            return self.bev_encoder(raster(points, sizes.point_range, sizes.voxel_size, sizes.grid))
        found = self.voxels(points)
        plan = self.bev_encoder["voxels"].plan(found.coordinates, sizes.grid)
        return self.bev_of_voxels(found.features, plan, len(points))

    def bev_of_voxels(self, features: Tensor, plan: SparsePlan, samples: int) -> Tensor:
        """Return the map (samples, width, Y, X) of voxel features (n, 5) whose plan is known."""
        encoder = self.bev_encoder
        encoded = encoder["voxels"](features, plan, samples)
        with self._precision(encoded):
            found = encoder["neck"](encoder["backbone"](encoded))
        return self.shared(found.float())

    def _precision(self, like: Tensor) -> torch.autocast:
        """Return half precision, where it is on, for the convolutions; voxels, encodings and decoder keep float32."""
        return torch.autocast(like.device.type, torch.float16, enabled=self.mixed and like.is_cuda)

    def image_maps(self, images: Tensor) -> Tensor:
        """Return the maps (B, views, width, h, w) of images (B, views, 3, H, W)."""
        flat = images.flatten(0, 1)
        with self._precision(images):
            if self.sizes.image_backbone == "small":
                found = self.image_encoder(flat)
            else:
                found = self.image_encoder["neck"](self.image_encoder["backbone"](flat))
        return found.float().unflatten(0, images.shape[:2])

    def tokens(self, sensors: Sensors) -> tuple[Tensor, Tensor]:
        """Return all tokens (B, N, width), BEV cells before image cells, and their embeddings (B or 1, N, width)."""
        return self.placed(*self.maps(sensors), sensors.lidar_to_image, sensors.image_size)

    def maps(self, sensors: Sensors) -> tuple[Tensor | None, Tensor | None]:
        """Return the maps of LiDAR and cameras that become tokens, see `bev_map` and `image_maps`."""
        bev = self.bev_map(sensors.points) if self.sizes.lidar and sensors.points is not None else None
        maps = self.image_maps(sensors.images) if self.sizes.camera and sensors.images is not None else None
        return bev, maps

    def placed(
        self, bev: Tensor | None, maps: Tensor | None, rig: Tensor | None, image_size: tuple[int, int] | None
    ) -> tuple[Tensor, Tensor]:
        """Return tokens and embeddings of maps that there are already; see `tokens`."""
        tokens, places = [], []
        if bev is not None:
            centres = bev_centres(bev.shape[2], bev.shape[3], bev.device)
            tokens.append(bev.flatten(2).transpose(1, 2))
            places.append(self.bev_embedding(plane_features(centres, self._cycles))[None])
        if maps is not None and rig is not None and image_size is not None:
            rows, columns = maps.shape[3:]
            rays = token_rays(rig, image_size, rows, columns, self._depths, self.sizes.point_range)
            tokens.append(maps.flatten(3).permute(0, 1, 3, 2).flatten(1, 2))
            places.append(self.ray_embedding(rays).flatten(1, 2))
        samples = max(len(p) for p in places)
        return torch.cat(tokens, dim=1), torch.cat([p.expand(samples, -1, -1) for p in places], dim=1)

    def query_positions(self, references: Tensor, rig: Tensor | None, image_size: tuple[int, int] | None) -> Tensor:
        """Return embeddings (B, queries, width) of references (B, queries, 3) in (0, 1).

        The part of the BEV cell, plus, over all cameras that see the point, the sum of the parts of its rays.
        """
        references = inverse_sigmoid(references).sigmoid()
        found = self.bev_embedding(plane_features(references[..., :2], self._cycles))
        if not self.sizes.camera or rig is None or image_size is None:
            return found
        points = self.metres(references)
        rays, visible = query_rays(points, rig, image_size, self._depths, self.sizes.point_range)
        return found + (self.ray_embedding(rays) * visible[..., None]).sum(1)

    def metres(self, shares: Tensor) -> Tensor:
        """Return places in metres (..., 3) of shares of the range."""
        low, high = shares.new_tensor(self.sizes.point_range[:3]), shares.new_tensor(self.sizes.point_range[3:])
        return shares * (high - low) + low

    def decode(
        self,
        sensors: Sensors,
        tokens: Tensor,
        places: Tensor,
        extra: Tensor | None = None,
        blocked: Tensor | None = None,
    ) -> Outputs:
        """Return what the queries find among the tokens.

        Parameters
        ----------
        sensors
            For calibration and image size.
        tokens, places
            See `tokens`.
        extra, blocked
            References (B, extra queries, 3) that come before the learned ones (denoising), and what self-attention must
            not see, bool (queries, queries).
        """
        references = self.references.expand(len(tokens), -1, -1)
        if extra is not None:
            references = torch.cat([extra, references], dim=1)
        position = self.query_positions(references, sensors.lidar_to_image, sensors.image_size)
        return self.heads(self.decoder(position, tokens, places, blocked), references)

    def heads(self, found: Tensor, references: Tensor) -> Outputs:
        """Return logits and codes of what the decoder returns; each layer moves the same references (section 5.6)."""
        values = {name: branch(found) for name, branch in self.branches.items()}
        start = inverse_sigmoid(references)
        low, high = (found.new_tensor(self.sizes.point_range[i : i + 3]) for i in (0, 3))
        plane = (values["center"] + start[..., :2]).sigmoid() * (high - low)[:2] + low[:2]
        height = (values["height"] + start[..., 2:]).sigmoid()
        if self.sizes.code == "released":
            length, rest = height * (_HIGH - _LOW) + _LOW, values["dim"]
        else:
            length, width, tall = values["dim"].split(1, dim=-1)
            rest = torch.cat([width, height * (high - low)[2:] + low[2:], tall], dim=-1)
        velocity = values["vel"] if "vel" in values else torch.zeros_like(plane)
        codes = torch.cat([plane, length, rest, values["rot"], velocity], dim=-1)
        return Outputs(values["cls_logits"], codes)

    def forward(self, sensors: Sensors) -> Outputs:
        """Return the outputs of every layer."""
        tokens, places = self.tokens(sensors)
        return self.decode(sensors, tokens, places)


# The released range of z. The branch named height spans it, though what it learns is a length's logarithm: a smaller
# world has another range of z, but lengths that these two numbers still hold.
_LOW, _HIGH = -5.0, 3.0


def _anchors(sizes: Architecture) -> Tensor:
    """Return where the queries start, (queries, 3) as shares of the range."""
    if sizes.references == "uniform":
        return torch.rand(sizes.queries, 3)
    side = math.isqrt(sizes.queries)
    centres = bev_centres(side, side)
    low, high = sizes.point_range[2], sizes.point_range[5]
    return F.pad(centres, (0, 1), value=(sizes.anchor_height - low) / (high - low))
