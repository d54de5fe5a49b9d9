"""What training pictures go through, each change drawn from a generator that is handed in."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "crop_around_objects",
    "distorted",
    "expanded",
    "imagenet_view",
    "mirrored_boxes",
    "resized_picture",
    "segmentation_view",
    "shifted",
]

Pixels = NDArray[np.uint8]
_HUE_SHARE = 18 / 180
_TRIES = 50
_CATEGORY_SHARE = 0.75


def shifted(images: Tensor, generator: np.random.Generator) -> Tensor:
    """Return pictures (B, 3, H, W) moved by up to an eighth of their sides, edges repeated."""
    reach = images.shape[2] // 8
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    moves = generator.integers(0, 2 * reach + 1, (len(images), 2))
    height, width = images.shape[2:]
    return torch.stack([p[:, y : y + height, x : x + width] for p, (y, x) in zip(padded, moves.tolist(), strict=True)])


def imagenet_view(pixels: Pixels, size: int, mean: Any, std: Any, seed: int) -> Tensor:
    """Return (3, size, size) of timm's training transform: random crop, mirror, RandAugment rand-m9-mstd0.5-inc1."""
    from PIL import Image

    with _seeded(seed):
        found: Tensor = _imagenet_transform(size, tuple(mean), tuple(std))(Image.fromarray(pixels))
    return found


@lru_cache(maxsize=4)
def _imagenet_transform(size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Any], Tensor]:
    from timm.data import create_transform

    found: Any = create_transform(
        size,
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="random",
        color_jitter=0.4,
        mean=mean,
        std=std,
    )
    for part in found.transforms:
        for op in getattr(part, "ops", ()):
            if op.name.startswith("Posterize"):
                op.aug_fn = _posterized
    return found


def _posterized(image: Any, bits: int, **_: Any) -> Any:
    """Keep so many bits of each colour; none leaves black, which newer versions of Pillow refuse to draw."""
    from PIL import ImageOps

    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits else image.point(lambda value: 0)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed every global random state for a block, and bring it back behind."""
    kept, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(kept)
            np.random.set_state(of_numpy)


def resized_picture(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return a picture at another size, bilinear without smoothing, as the judge's is."""
    if pixels.shape[:2] == (height, width):
        return pixels
    planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32))[None]
    found = F.interpolate(planes, size=(height, width), mode="bilinear", align_corners=False)[0]
    return np.asarray(found.round().clamp(0, 255).to(torch.uint8).numpy().transpose(1, 2, 0))


def distorted(pixels: Pixels, generator: np.random.Generator, swap: bool = False) -> Pixels:
    """Return a picture with brightness, contrast, saturation and hue changed, each with probability a half.

    Contrast comes before or behind saturation and hue. ``swap`` lets channels change places, half of the time.
    """
    values = pixels.astype(np.float32)
    first, *chosen = (generator.random(6) < 0.5).tolist()
    brightness, contrast, saturation, hue, swapped = chosen
    if brightness:
        values = values + generator.uniform(-32, 32)
    factor = generator.uniform(0.5, 1.5) if contrast else 1.0
    values = values * factor if first else values
    if saturation or hue:
        values = _recoloured(
            values,
            generator.uniform(0.5, 1.5) if saturation else 1.0,
            generator.uniform(-_HUE_SHARE, _HUE_SHARE) if hue else 0.0,
        )
    values = values if first else values * factor
    if swap and swapped:
        values = values[..., generator.permutation(3)]
    return np.asarray(values.round().clip(0, 255).astype(np.uint8))


def _recoloured(values: NDArray[np.float32], saturation: float, hue: float) -> NDArray[np.float32]:
    """Multiply the saturation, move the hue (1 is the whole circle), keep the value."""
    values = values.clip(0, 255)
    top, low = values.max(axis=2), values.min(axis=2)
    spread = top - low
    safe = np.where(spread > 0, spread, 1)
    red, green, blue = (values[..., channel] for channel in range(3))
    angle = np.where(
        top == red,
        (green - blue) / safe % 6,
        np.where(top == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    colour = (spread / np.where(top > 0, top, 1) * saturation).clip(0, 1)
    angle = (angle / 6 + hue) % 1 * 6
    parts = []
    for offset in (5, 3, 1):  # red, green, blue from hue, saturation and value
        place = (offset + angle) % 6
        parts.append(top * (1 - colour * np.clip(np.minimum(place, 4 - place), 0, 1)))
    return np.stack(parts, axis=2).astype(np.float32)


def expanded(pixels: Pixels, boxes: NDArray[np.float32], fill: Any, generator: np.random.Generator) -> tuple[Any, Any]:
    """Put a picture, half of the time, somewhere on a canvas one to four times as wide and high, of colour ``fill``."""
    if generator.random() < 0.5:
        return pixels, boxes
    height, width = pixels.shape[:2]
    ratio = generator.uniform(1, 4)
    canvas = np.empty((int(height * ratio), int(width * ratio), 3), np.uint8)
    canvas[:] = np.round(fill)
    top = int(generator.uniform(0, canvas.shape[0] - height))
    left = int(generator.uniform(0, canvas.shape[1] - width))
    canvas[top : top + height, left : left + width] = pixels
    return canvas, boxes + np.array([left, top, left, top], np.float32)


def crop_around_objects(
    pixels: Pixels, boxes: NDArray[np.float32], labels: NDArray[np.int64], generator: np.random.Generator
) -> tuple[Pixels, NDArray[np.float32], NDArray[np.int64]]:
    """Cut out a part that overlaps every object whose centre lies in it by at least a drawn share, as SSD is trained.

    Sides are 30 to 100 % of the picture's, proportions 1:2 to 2:1. What lies outside is cut off, objects without their
    centre in the part are left out. The whole picture may come back, too.
    """
    height, width = pixels.shape[:2]
    while True:
        least = generator.choice([1.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0])
        if least == 1 or not len(boxes):
            return pixels, boxes, labels
        for _ in range(_TRIES):
            wide, high = (int(generator.uniform(0.3, 1) * side) for side in (width, height))
            if not wide or not high or not 0.5 <= high / wide <= 2:
                continue
            left, top = int(generator.uniform(0, width - wide)), int(generator.uniform(0, height - high))
            part = np.array([left, top, left + wide, top + high], np.float32)
            centres = (boxes[:, :2] + boxes[:, 2:]) / 2
            inside = ((centres > part[:2]) & (centres < part[2:])).all(axis=1)
            if not inside.any() or _overlap(boxes, part).min() < least:
                continue
            kept = np.clip(boxes[inside], np.tile(part[:2], 2), np.tile(part[2:], 2)) - np.tile(part[:2], 2)
            return pixels[top : top + high, left : left + wide], kept.astype(np.float32), labels[inside]


def _overlap(boxes: NDArray[np.float32], part: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the IoU of boxes with a part of the picture."""
    sides = np.minimum(boxes[:, 2:], part[2:]) - np.maximum(boxes[:, :2], part[:2])
    common = sides.clip(min=0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.asarray(common / (areas + (part[2:] - part[:2]).prod() - common).clip(min=1e-6))


def mirrored_boxes(boxes: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """Return boxes of a picture of this width that was mirrored."""
    return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)


def segmentation_view(
    pixels: Pixels, labels: Pixels, shorter: int, longer: int, generator: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """Return a part of a picture and of its labels, at most ``shorter`` pixels wide and high.

    Resized by .5 to 2 times the judge's size, cut where no class has more than three quarters (ten tries), mirrored
    half of the time, colours distorted.
    """
    height, width = pixels.shape[:2]
    ratio = generator.uniform(0.5, 2.0)
    scale = min(ratio * longer / max(height, width), ratio * shorter / min(height, width))
    size = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
    pixels = resized_picture(pixels, *size)
    rows, columns = (np.minimum(np.arange(n) * own // n, own - 1) for n, own in zip(size, (height, width), strict=True))
    labels = labels[rows[:, None], columns]
    cut = _some_part(size, shorter, generator)
    for _ in range(10):
        counts = np.bincount(labels[cut][labels[cut] != 255], minlength=1)
        if (counts > 0).sum() > 1 and counts.max() / counts.sum() < _CATEGORY_SHARE:
            break
        cut = _some_part(size, shorter, generator)
    pixels, labels = pixels[cut], labels[cut]
    if generator.random() < 0.5:
        pixels, labels = pixels[:, ::-1], labels[:, ::-1]
    return distorted(np.ascontiguousarray(pixels), generator), np.ascontiguousarray(labels)


def _some_part(size: tuple[int, int], side: int, generator: np.random.Generator) -> tuple[slice, slice]:
    starts = [int(generator.integers(0, max(0, own - side) + 1)) for own in size]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)
