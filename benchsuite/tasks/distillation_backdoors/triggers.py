"""Triggers: a square patch near the lower right corner, in the space of normalised images.

Only images of real data are ever stamped: training images by an attack, test images by the task.
What a distilled image shows of a trigger came there through the distillation alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def patch_mask(size: int, height: int) -> Tensor:
    """Return the mask of the patch, (height, height) bool.

    It covers rows and columns height - 1 - size to height - 2: it stays one pixel away from the border.
    """
    mask = torch.zeros(height, height, dtype=torch.bool)
    mask[height - 1 - size : height - 1, height - 1 - size : height - 1] = True
    return mask


def stamp(images: Tensor, trigger: Tensor, mask: Tensor) -> Tensor:
    """Return the images with the trigger in place of their pixels under the mask; all other bits are unchanged.

    Parameters
    ----------
    images
        (N, C, H, W) normalised.
    trigger
        (C, H, W) normalised; only its pixels under the mask matter.
    mask
        (H, W) bool.
    """
    return torch.where(mask, trigger, images)


def normalised(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return bytes (..., C, H, W) as float32, scaled to [0, 1], less the mean, over the deviation."""
    centre, scale = _per_channel(mean, images.device), _per_channel(std, images.device)
    return (images.to(torch.float32) / 255.0 - centre) / scale


def valid_range(
    mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Return the normalised values of black and of white, (C, 1, 1) each."""
    centre, scale = _per_channel(mean, device), _per_channel(std, device)
    return (0.0 - centre) / scale, (1.0 - centre) / scale


def white_patch(size: int, height: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return a white patch on a black image, (C, height, height), normalised."""
    black, white = valid_range(mean, std)
    return torch.where(patch_mask(size, height), white, black)


def _per_channel(values: Sequence[float], device: torch.device | str) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)
