"""Batches by number: what a step sees depends on the seed and the number of the step alone.

So a training goes on at any step without a state of its own, and processes may prepare batches in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchsuite.core import DataError
from benchsuite.tasks.visual_recognition.contract import ClassificationData, DetectionData, SegmentationData
from benchsuite_emo.augmenting import (
    crop_around_objects,
    distorted,
    expanded,
    imagenet_view,
    mirrored_boxes,
    resized_picture,
    segmentation_view,
    shifted,
)

__all__ = ["ClassificationBatches", "DetectionBatches", "Order", "SegmentationBatches"]

_IGNORED = 255


@dataclass(frozen=True)
class Order:
    """Which pictures a step sees: pass after pass in a random order, without the rest that fills no batch.

    Attributes
    ----------
    pictures, batch, seed
        Numbers of pictures and of those in a batch; the seed of the order. Fewer pictures than a batch come several
        times.
    repeats
        A pass has every picture so many times.
    rank, ranks
        Which share of each batch this process sees.
    """

    pictures: int
    batch: int
    seed: int
    repeats: int = 1
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        if not self.pictures:
            raise DataError("there are no pictures to learn from")

    @property
    def steps(self) -> int:
        """Steps of a pass."""
        return max(1, self.pictures * self.repeats // self.batch)

    def places(self, step: int) -> list[int]:
        """Return the places of a step's pictures."""
        turn, step = divmod(step, self.steps)
        shuffled = _shuffled(self.pictures * self.repeats, self.seed, turn)
        chosen = np.take(shuffled, range(step * self.batch, (step + 1) * self.batch), mode="wrap")
        return [int(place) % self.pictures for place in chosen[self.rank :: self.ranks]]

    def generator(self, step: int) -> np.random.Generator:
        """Return where the changes of a step's pictures are drawn from."""
        return np.random.default_rng([self.seed, step, self.rank])


@lru_cache(maxsize=4)
def _shuffled(count: int, seed: int, turn: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, turn]).permutation(count)


@dataclass(frozen=True)
class ClassificationBatches:
    """Step to pictures (B, 3, size, size) and labels int64 (B,)."""

    data: ClassificationData
    order: Order
    augment: str

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return a batch."""
        data, places, generator = self.data, self.order.places(step), self.order.generator(step)
        labels = torch.from_numpy(data.labels[places])
        if self.augment == "published":
            seeds = generator.integers(0, 2**31, len(places)).tolist()
            views = [
                imagenet_view(data.pictures[place], data.size, data.mean, data.std, seed)
                for place, seed in zip(places, seeds, strict=True)
            ]
            return torch.stack(views), labels
        images = data.prepared(places)
        return shifted(images, generator) if self.augment == "light" else images, labels


@dataclass(frozen=True)
class SegmentationBatches:
    """Step to pictures (B, 3, H, W) and label maps int64 (B, H, W); smaller pictures are padded, 255 there."""

    data: SegmentationData
    order: Order
    augment: str

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return a batch."""
        generator = self.order.generator(step)
        found = [self._one(place, generator) for place in self.order.places(step)]
        if self.augment == "published":
            height = width = self.data.size[0]
        else:
            height, width = (max(image.shape[side] for image, _ in found) for side in (1, 2))
        images = torch.zeros(len(found), 3, height, width)
        labels = torch.full((len(found), height, width), _IGNORED, dtype=torch.int64)
        for place, (image, answer) in enumerate(found):
            images[place, :, : image.shape[1], : image.shape[2]] = image
            labels[place, : answer.shape[0], : answer.shape[1]] = answer
        return images, labels

    def _one(self, place: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        data = self.data
        if self.augment == "published":
            pixels, labels = segmentation_view(data.pictures[place], data.label_map(place), *data.size, generator)
            return normalised(pixels, data.mean, data.std), torch.from_numpy(labels).long()
        image, answer = data.prepared(place)[0], torch.from_numpy(data.prepared_map(place)).long()
        if self.augment == "light" and generator.random() < 0.5:
            return image.flip(2), answer.flip(1)
        return image, answer


@dataclass(frozen=True)
class DetectionBatches:
    """Step to pictures (B, 3, H, W), and lists of boxes float32 (n, 4) in pixels of the input and labels int64 (n,).

    Regions of crowds are left out, as are boxes without an area.
    """

    data: DetectionData
    order: Order
    augment: str

    def __call__(self, step: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return a batch."""
        generator, places = self.order.generator(step), self.order.places(step)
        if self.augment == "published" and not self.data.keep_ratio:
            found = [self._ssd_view(place, generator) for place in places]
            return torch.stack([f[0] for f in found]), [f[1] for f in found], [f[2] for f in found]
        images, sizes, scales = self.data.prepared(places)
        boxes, labels = [], []
        mirror = generator.random(len(places)) < (0 if self.augment == "none" else 0.5)
        for number, place in enumerate(places):
            kept, names = self._objects(place)
            kept = (kept * scales[number][[1, 0, 1, 0]]).astype(np.float32)
            if mirror[number]:
                width = int(sizes[number, 1])
                images[number, :, :, :width] = images[number, :, :, :width].flip(2)
                kept = mirrored_boxes(kept, width)
            boxes.append(torch.from_numpy(kept))
            labels.append(torch.from_numpy(names))
        return images, boxes, labels

    def _objects(self, place: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        objects = self.data.objects(place)
        boxes = np.asarray(objects.boxes, np.float32).reshape(-1, 4)
        kept = ~objects.crowd & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return boxes[kept], objects.labels[kept]

    def _ssd_view(self, place: int, generator: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        data, (boxes, labels) = self.data, self._objects(place)
        pixels = distorted(data.pictures[place], generator, swap=True)
        pixels, boxes = expanded(pixels, boxes, np.array(data.mean) * 255, generator)
        pixels, boxes, labels = crop_around_objects(pixels, boxes, labels, generator)
        height, width = pixels.shape[:2]
        pixels = resized_picture(pixels, data.size, data.size)
        boxes = boxes * np.array([data.size / width, data.size / height] * 2, np.float32)
        if generator.random() < 0.5:
            pixels, boxes = np.ascontiguousarray(pixels[:, ::-1]), mirrored_boxes(boxes, data.size)
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        image = normalised(pixels, data.mean, data.std)
        return image, torch.from_numpy(boxes[kept].astype(np.float32)), torch.from_numpy(labels[kept])


def normalised(pixels: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return float32 (3, H, W): (x / 255 - mean) / std."""
    planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)) / 255
    centre, spread = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (mean, std))
    return (planes - centre) / spread
