"""From annotated images to tensors: geometry, flips, and the drawing of batches and supports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchsuite_reft.losses import Target

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_STRIDE = 32
_CACHE_BYTES = 1 << 30


@dataclass(frozen=True)
class View:
    """One image as a network sees it, not yet normalised.

    ``image`` is uint8 (3, H, W); ``labels`` (G,) int64 and ``masks`` (G, H, W) bool are its labelled objects.
    """

    image: Tensor
    labels: Tensor
    masks: Tensor

    def flipped(self) -> View:
        """Return the mirror image."""
        return View(self.image.flip(2), self.labels, self.masks.flip(2))

    def of(self, number: int) -> View:
        """Return the view with a single object."""
        return View(self.image, self.labels[number : number + 1], self.masks[number : number + 1])

    def only(self, labels: Sequence[int]) -> View:
        """Return the view in which objects of other classes have lost their label."""
        kept = torch.isin(self.labels, torch.tensor(labels, dtype=torch.int64))
        return View(self.image, self.labels[kept], self.masks[kept])


class Pictures:
    """The images of a data set with the objects of some classes, resized on demand.

    Parameters
    ----------
    records
        Annotated images; crowd regions and classes not in ``labels`` are left out.
    labels
        Category id to contiguous label.
    """

    def __init__(self, records: Sequence[Any], labels: Mapping[int, int]) -> None:
        self.records = records
        self.labels = labels
        self._fitted: dict[tuple[int, int], View] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.records)

    def original(self, number: int) -> View:
        """Return an image in its own size."""
        record = self.records[number]
        objects = [i for i in record.instances() if i.category_id in self.labels and not i.iscrowd]
        masks = np.stack([i.mask for i in objects]) if objects else np.zeros((0, record.height, record.width), bool)
        image = torch.from_numpy(np.ascontiguousarray(record.pixels().transpose(2, 0, 1)))
        labels = torch.tensor([self.labels[i.category_id] for i in objects], dtype=torch.int64)
        return View(image, labels, torch.from_numpy(np.ascontiguousarray(masks)))

    def fitted(self, number: int, size: int) -> View:
        """Return an image scaled to fit a square of ``size`` and padded with the mean colour at right and bottom."""
        key = (number, size)
        if key not in self._fitted:
            view = fit(self.original(number), size)
            self._cached_bytes += view.image.numel() + view.masks.numel()
            if self._cached_bytes > _CACHE_BYTES:
                return view
            self._fitted[key] = view
        return self._fitted[key]

    def instances_by_label(self) -> dict[int, list[tuple[int, int]]]:
        """Return for each label the (image, object) numbers of its instances, image by image."""
        found: dict[int, list[tuple[int, int]]] = {label: [] for label in self.labels.values()}
        for number, record in enumerate(self.records):
            kept = [a for a in record.annotations if a["category_id"] in self.labels and not a.get("iscrowd", 0)]
            for place, annotation in enumerate(kept):
                found[self.labels[annotation["category_id"]]].append((number, place))
        return found


def fit(view: View, size: int) -> View:
    """Return a view scaled to fit a square of ``size``, padded at right and bottom."""
    height, width = view.image.shape[1:]
    scale = size / max(height, width)
    return _pad(_resize(view, max(round(height * scale), 1), max(round(width * scale), 1)), size, size)


def jittered(view: View, size: int, scales: tuple[float, float], generator: torch.Generator) -> View:
    """Return a random crop of ``size`` of a view scaled at random relative to `fit` (large-scale jitter)."""
    height, width = view.image.shape[1:]
    low, high = scales
    scale = (low + (high - low) * float(torch.rand((), generator=generator))) * size / max(height, width)
    view = _resize(view, max(round(height * scale), 1), max(round(width * scale), 1))
    corner = []
    for length in view.image.shape[1:]:
        corner.append(int(torch.randint(max(length - size, 0) + 1, (), generator=generator)))
    rows, columns = slice(corner[0], corner[0] + size), slice(corner[1], corner[1] + size)
    return _pad(View(view.image[:, rows, columns], view.labels, view.masks[:, rows, columns]), size, size)


def inference_size(height: int, width: int, short: int, long: int) -> tuple[int, int]:
    """Return the size of a test image: short side ``short``, long side at most ``long``."""
    scale = min(short / min(height, width), long / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def inference_view(image: np.ndarray, short: int, long: int) -> tuple[Tensor, tuple[int, int]]:
    """Return a test image resized and padded to whole strides, uint8 (3, H', W'), and its size before padding."""
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    nothing = torch.zeros((0, *image.shape[:2]), dtype=torch.bool)
    size = inference_size(image.shape[0], image.shape[1], short, long)
    view = _resize(View(pixels, torch.zeros(0, dtype=torch.int64), nothing), *size)
    padded = [-(-length // _STRIDE) * _STRIDE for length in size]
    return _pad(view, padded[0], padded[1]).image, size


def normalised(images: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return uint8 images as one float32 batch (B, 3, H, W) with ImageNet's mean and deviation removed."""
    batch = torch.stack(list(images)).to(device).float()
    mean, std = (torch.tensor(x, device=device)[:, None, None] for x in (_MEAN, _STD))
    return (batch - mean) / std


def targets_of(views: Sequence[View], device: torch.device) -> list[Target]:
    """Return the objects of views that are still visible."""
    targets = []
    for view in views:
        seen = view.masks.flatten(1).any(dim=1)
        targets.append(Target(view.labels[seen].to(device), view.masks[seen].to(device)))
    return targets


def _resize(view: View, height: int, width: int) -> View:
    if tuple(view.image.shape[1:]) == (height, width):
        return view
    image = F.interpolate(view.image[None].float(), (height, width), mode="bilinear", antialias=True)[0]
    masks = view.masks.float()
    if len(masks):
        masks = F.interpolate(masks[:, None], (height, width), mode="bilinear", antialias=True)[:, 0]
    else:
        masks = masks.new_zeros((0, height, width))
    return View(image.round().clamp(0, 255).to(torch.uint8), view.labels, masks > 0.5)


def _pad(view: View, height: int, width: int) -> View:
    below, right = height - view.image.shape[1], width - view.image.shape[2]
    if below == 0 and right == 0:
        return view
    colour = torch.tensor(_MEAN).round().to(torch.uint8)[:, None, None]
    image = colour.expand(3, height, width).clone()
    image[:, : view.image.shape[1], : view.image.shape[2]] = view.image
    return View(image, view.labels, F.pad(view.masks, (0, right, 0, below)))
