"""Pictures brought to what a network of the dense tasks sees: resized and padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchsuite.datasets.pictures import normalised

if TYPE_CHECKING:
    import torch

__all__ = ["bounded_size", "nearest", "padded_batch", "resized", "up_to"]

_MULTIPLE = 32

Bytes = NDArray[np.uint8]


def bounded_size(height: int, width: int, shorter: int, longer: int) -> tuple[int, int]:
    """Return height and width of the largest picture of these proportions within bounds of its two sides.

    Rounded half up, as mmcv's ``imrescale`` does.
    """
    scale = min(longer / max(height, width), shorter / min(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resized(pixels: Bytes, height: int, width: int) -> Bytes:
    """Return a picture at another size: bilinear between pixel centres without smoothing, as OpenCV does it."""
    import torch
    from torch.nn import functional

    if pixels.shape[:2] == (height, width):
        return pixels
    planes = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32))[None]
    found = functional.interpolate(planes, size=(height, width), mode="bilinear", align_corners=False)[0]
    return np.asarray(found.round().clamp(0, 255).to(torch.uint8).numpy().transpose(1, 2, 0))


def nearest(labels: Bytes, height: int, width: int) -> Bytes:
    """Return a label map at another size: each pixel takes that at its scaled place, rounded down."""
    rows, columns = (
        np.minimum(np.arange(side) * own // side, own - 1)
        for side, own in ((height, labels.shape[0]), (width, labels.shape[1]))
    )
    return labels[rows[:, None], columns]


def up_to(value: int) -> int:
    """Return the next multiple of 32."""
    return -(-value // _MULTIPLE) * _MULTIPLE


def padded_batch(
    batch: Sequence[Bytes], mean: Sequence[float], std: Sequence[float], multiple: bool
) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Return pictures of several sizes as one batch, zeros on the right and below, and their own heights and widths.

    Parameters
    ----------
    batch, mean, std
        As of `normalised`.
    multiple
        Pad to multiples of 32.
    """
    import torch

    sizes = np.array([pixels.shape[:2] for pixels in batch], dtype=np.int64)
    height, width = (int(side) for side in sizes.max(axis=0))
    if multiple:
        height, width = up_to(height), up_to(width)
    found = torch.zeros(len(batch), 3, height, width)
    for place, pixels in enumerate(batch):
        found[place, :, : pixels.shape[0], : pixels.shape[1]] = normalised([pixels], mean, std)[0]
    return found, sizes
