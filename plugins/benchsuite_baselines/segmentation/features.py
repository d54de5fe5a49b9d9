"""Frozen features, masks and answers of episodes as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchsuite.tasks.fewshot_semantic_segmentation.backbones import Features
from benchsuite.tasks.fewshot_semantic_segmentation.contract import Episode, LabelledEpisode, Picture
from benchsuite.tasks.fewshot_semantic_segmentation.networks import Backbone
from benchsuite_baselines.segmentation.config import Level

_LEVELS = ("l2", "l3", "l4")


def levels_of(features: Features, pictures: Sequence[Picture], level: Level, rectified: bool) -> Tensor:
    """Return the last map of a level, (N, C, h, w), after its ReLU if ``rectified``.

    ``all``: unit vectors of all levels, joined at l2's size.
    """
    maps = features(pictures)
    last = [maps[place - 1] for place in np.cumsum(features.backbone.blocks)]
    if rectified:
        last = [found.relu() for found in last]
    if level != "all":
        return last[_LEVELS.index(level)]
    size = last[0].shape[2:]
    resized = [F.interpolate(found, size=size, mode="bilinear", align_corners=True) for found in last]
    return torch.cat([F.normalize(found, dim=1) for found in resized], dim=1)


def width_of(backbone: Backbone, level: Level) -> int:
    """Return the channels of `levels_of`."""
    return sum(backbone.channels) if level == "all" else backbone.channels[_LEVELS.index(level)]


def masks_of(episodes: Sequence[Episode], like: Tensor) -> Tensor:
    """Return the share of foreground at each position of a map (B, C, h, w), for all supports: (B, K, h, w)."""
    masks = torch.from_numpy(np.stack([episode.support_masks for episode in episodes])).to(like)
    return F.adaptive_avg_pool2d(masks, like.shape[2:])


def answers_of(episodes: Sequence[LabelledEpisode], device: torch.device) -> Tensor:
    """Return the query masks, int64 (B, S, S)."""
    return torch.from_numpy(np.stack([episode.query_mask for episode in episodes])).to(device).long()
