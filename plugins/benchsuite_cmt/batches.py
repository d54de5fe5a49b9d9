"""Batches of training: which frames come when, augmented how. All follows from the seed and the step's number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from benchsuite.core import ConfigError
from benchsuite.tasks.detection3d.contract import Boxes, Frames, TrainingScenes
from benchsuite_cmt.architecture import Architecture
from benchsuite_cmt.augmenting import (
    facing_forward,
    mirror_views,
    mirrored,
    moved,
    random_fit,
    random_movement,
    within,
    without_sensor,
)
from benchsuite_cmt.config import CMTConfig
from benchsuite_cmt.examples import Batch, Example, ImageFit, collate, example_of, fitted
from benchsuite_cmt.objects import ObjectStore, paste_objects

__all__ = ["Batches", "balanced", "head_classes"]

_MEMORY_BYTES = 2_000_000_000
# Of the stored 1600 x 900: at 640 x 1600 and at 320 x 800. [the factors of the released configurations]
_FACTORS = {640: (0.94, 1.25), 320: (0.47, 0.625)}
_STORED_HEIGHT = 900


def head_classes(wanted: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return for each class of the task its place among a head's classes.

    Raises
    ------
    ConfigError
        If the head has no place for one.
    """
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ConfigError(f"this head has no class {missing[0]!r}: it has {', '.join(known)}")
    return [known.index(name) for name in wanted]


def balanced(boxes: Sequence[Boxes], classes: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return places of frames, drawn so that every class has the same number of draws (CBGS).

    A class's draws come, with repetition, from the frames that show it: a tenth (for ten classes) of all pairs of frame
    and class that there are.
    """
    shown = [np.array([i for i, b in enumerate(boxes) if (b.labels[b.points > 0] == c).any()]) for c in range(classes)]
    share = -(-sum(len(frames) for frames in shown) // classes)
    found = [generator.choice(frames, share) for frames in shown if len(frames)]
    return np.concatenate(found).astype(np.int64) if found else np.zeros(0, np.int64)


@dataclass(eq=False)
class _Source:
    """Frames as examples with pictures of the network's size where augmentation leaves that to the source."""

    frames: Frames
    boxes: Sequence[Boxes]
    head: Sequence[int]
    fit: tuple[int, int] | None
    kept: dict[int, Example] = field(default_factory=dict)
    size: int = 0

    def __call__(self, place: int) -> Example:
        if place in self.kept:
            return self.kept[place]
        found = example_of(self.frames[place], self.boxes[place], self.head)
        if self.fit is not None:
            found = fitted(found, ImageFit.for_test(found.images[0].shape[:2], self.fit))
        self.size += found.points.nbytes + sum(image.nbytes for image in found.images)
        if self.size < _MEMORY_BYTES:
            self.kept[place] = found
        return found


@dataclass(frozen=True)
class _Plan:
    """What one example of a step is made from."""

    place: int
    seed: int
    masked: bool
    pasted: bool


class Batches:
    """The batches of a training.

    Parameters
    ----------
    scenes
        Frames and answers.
    sizes
        Of the network.
    config
        How to augment.
    head
        For each label of the task its place among the head's classes.
    seed
        Of order and augmentation.
    store
        Objects to paste, if they are to be.
    """

    def __init__(
        self,
        scenes: TrainingScenes,
        sizes: Architecture,
        config: CMTConfig,
        head: Sequence[int],
        seed: int,
        store: ObjectStore | None = None,
    ) -> None:
        self.sizes, self.config, self.seed, self.store = sizes, config, seed, store
        self.published = config.augment.startswith("published")
        self.source = _Source(scenes.frames, scenes.boxes, head, None if self.published else sizes.image_size)
        self.order = np.arange(len(scenes.frames))
        if config.balance:
            self.order = balanced(scenes.boxes, len(scenes.classes), np.random.default_rng(seed))
        if not len(self.order):
            raise ConfigError("no frame of the training data shows an object: there is nothing to learn from")
        self.per_epoch = -(-len(self.order) // config.batch_size)
        self.total = config.steps or config.epochs * self.per_epoch
        self.mask_from = round(config.masking_from * self.total)
        self._partners: dict[int, tuple[int, ...] | None] | None = None

    def plan(self, step: int) -> list[_Plan]:
        """Return what the examples of a step are made from."""
        first = step * self.config.batch_size
        places = range(first, first + self.config.batch_size)
        epoch_of = [place // len(self.order) for place in places]
        shuffled = {e: np.random.default_rng((self.seed, e)).permutation(self.order) for e in set(epoch_of)}
        masked = bool(self.config.masking) and step >= self.mask_from
        plain = self.total - self.config.plain_epochs * self.per_epoch
        pasted = self.store is not None and step < plain
        return [
            _Plan(int(shuffled[e][place % len(self.order)]), place, masked, pasted)
            for e, place in zip(epoch_of, places, strict=True)
        ]

    def example(self, plan: _Plan) -> Example:
        """Return one example of a step."""
        c, generator = self.config, np.random.default_rng((self.seed, 1, plan.seed))
        found = self.source(plan.place)
        if plan.pasted and self.store is not None:
            found = paste_objects(found, self.store, generator)
        if plan.masked:
            found = without_sensor(found, float(generator.random()), c.masking)
        if self.published:
            return self._published(found, generator)
        if c.augment == "mirror":
            for axis in (0, 1):
                wanted, partners = generator.random() < 0.5, self._mirror(found, axis)
                found = mirrored(found, axis, partners) if wanted and partners is not None else found
            found = facing_forward(found) if c.still else found
        return within(found, self.sizes.point_range, lidar=False)

    def _published(self, found: Example, generator: np.random.Generator) -> Example:
        alone = self.config.augment == "published-camera"
        movement = random_movement(generator, 0.5 if alone else 1.0, flips=not alone, shifts=not alone)
        found = within(moved(found, movement), self.sizes.point_range)
        generator.shuffle(found.points)
        if not self.sizes.camera:
            return found
        stored, size = found.images[0].shape[:2], self.sizes.image_size
        factors = _FACTORS.get(size[0], (0.94 * size[0] / 640, 1.25 * size[0] / 640))
        relative = _STORED_HEIGHT / stored[0]  # the published factors are of pictures of 900 rows
        fit = random_fit(generator, stored, size, (factors[0] * relative, factors[1] * relative))
        return fitted(found, fit)

    def _mirror(self, example: Example, axis: int) -> tuple[int, ...] | None:
        """Return the partners of cameras under a mirroring, asked once: rigs are those of one data set."""
        if self._partners is None:
            width = example.images[0].shape[1]
            self._partners = {a: mirror_views(example.lidar_to_image, width, a) for a in (0, 1)}
        return self._partners[axis]

    def batch(self, step: int, device: str) -> Batch:
        """Return the batch of a step."""
        return collate([self.example(plan) for plan in self.plan(step)], self.sizes, device)

    def generator(self, step: int) -> torch.Generator:
        """Return a generator for what the network draws in a step."""
        seed = np.random.SeedSequence((self.seed, 2, step)).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed) >> 1)

    def loaded(self, end: int, device: str) -> Callable[[int], Batch]:
        """Return what yields the batches of steps before ``end``, prepared by workers if there are any."""
        if not self.config.workers:
            return lambda step: self.batch(step, device)
        return _Prepared(self, end, device)


class _Steps(Dataset[Batch]):
    """The batches of some steps, for a loader's workers."""

    def __init__(self, batches: Batches, first: int, end: int) -> None:
        self.batches, self.first, self.end = batches, first, end

    def __len__(self) -> int:
        return self.end - self.first

    def __getitem__(self, index: int) -> Batch:
        return self.batches.batch(self.first + index, "cpu")


class _Prepared:
    """Batches in order from worker processes, which start with the first one that is asked for."""

    def __init__(self, batches: Batches, end: int, device: str) -> None:
        self.batches, self.end, self.device = batches, end, device
        self.next = -1
        self.iterator: Iterator[Batch] = iter(())

    def __call__(self, step: int) -> Batch:
        if step != self.next:
            steps = _Steps(self.batches, step, self.end)
            loader = DataLoader(steps, batch_size=None, num_workers=self.batches.config.workers)
            self.iterator, self.next = iter(loader), step
        self.next += 1
        return on_device(next(self.iterator), self.device)


def on_device(batch: Batch, device: str) -> Batch:
    """Return a batch on a device."""
    sensors = batch.sensors
    moved_to = type(sensors)(
        None if sensors.points is None else [cloud.to(device) for cloud in sensors.points],
        None if sensors.images is None else sensors.images.to(device),
        None if sensors.lidar_to_image is None else sensors.lidar_to_image.to(device),
    )
    seen = (batch.lidar_seen.to(device), batch.cameras_seen.to(device))
    return Batch(moved_to, [b.to(device) for b in batch.boxes], [names.to(device) for names in batch.labels], *seen)
