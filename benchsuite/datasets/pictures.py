"""Pictures that are read when they are asked for, brought to what a classifier sees, and held out for validation.

What all tasks on labelled pictures share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["Pictures", "centre_square", "held_out", "kept", "normalised"]

_KEPT_BYTES = 512 * 2**20
_VALIDATION_SHARE = 0.2

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Some pictures in a fixed order, read when they are asked for.

    Attributes
    ----------
    names
        One a picture, all different.
    read
        Place to pixels, uint8 RGB (H, W, 3), as they are stored; raises `DataError` for a file that is broken.
    digest
        Identifies their content: names and sizes of files, or the pixels themselves.
    """

    names: tuple[str, ...] = field(repr=False)
    read: Callable[[int], NDArray[np.uint8]] = field(repr=False)
    digest: str

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        if not 0 <= index < len(self.names):
            raise IndexError(f"there is no picture {index}: they are numbered 0 to {len(self.names) - 1}")
        return self.read(index)


def centre_square(pixels: Bytes, size: int, crop: float) -> Bytes:
    """Return the middle of a picture, (size, size, 3), after its shorter side was brought to ``size / crop``.

    As timm and torchvision evaluate: whole part of the sizes, PIL's bicubic filter.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    shorter = int(size / crop)
    if min(height, width) != shorter:
        if width <= height:
            target = (shorter, int(shorter * height / width))
        else:
            target = (int(shorter * width / height), shorter)
        pixels = np.asarray(Image.fromarray(pixels).resize(target, Image.Resampling.BICUBIC))
        height, width = pixels.shape[:2]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return pixels[top : top + size, left : left + size]


def normalised(batch: Sequence[Bytes], mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return pictures of one size as float32 (B, 3, H, W): (x / 255 - mean) / std."""
    import torch

    planes = torch.from_numpy(np.stack(batch).transpose(0, 3, 1, 2).astype(np.float32)) / 255
    centre, spread = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (mean, std))
    return ((planes - centre) / spread).contiguous()


def kept(pictures: Pictures, prepare: Callable[[Bytes], Bytes], size: int) -> Callable[[int], Bytes]:
    """Return a function from place to prepared picture that keeps what it made, up to half a gigabyte.

    Parameters
    ----------
    pictures
        To prepare.
    prepare
        Pixels to pixels.
    size
        Bytes of a prepared picture, about.
    """

    @lru_cache(maxsize=max(1, _KEPT_BYTES // max(size, 1)))
    def found(index: int) -> Any:
        return np.ascontiguousarray(prepare(pictures[index]))

    return found


def held_out(count: int, labels: NDArray[np.int64] | None) -> list[int]:
    """Return the places of the fifth of training pictures that validate, ascending; the same for every run.

    With labels it is a fifth of each class (rounded, none of a class of two or fewer).
    """
    rng = np.random.default_rng(0)
    groups = [np.arange(count)] if labels is None else [np.flatnonzero(labels == c) for c in np.unique(labels)]
    chosen = [rng.permutation(group)[: round(_VALIDATION_SHARE * len(group))] for group in groups]
    return sorted(int(place) for place in np.concatenate(chosen))
