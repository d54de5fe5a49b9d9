"""Distilled sets: what a method may see, checking the protocol and the set, distilling once, saving and loading."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchsuite.core import ConfigError, RunContext
from benchsuite.core.config import config_dict
from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.datasets.small_images.reader import SmallImages
from benchsuite.tasks.distillation_backdoors.contract import (
    DistillationBackdoorProtocol,
    DistilledSet,
    Distiller,
    StepSchedule,
    TrainingImages,
)

_VALIDATION_EVERY = 5


def judged_data(data: Mapping[str, SmallImages], ctx: RunContext) -> SmallImages:
    """Return training part and judged part as one data set; every fifth training image is the validation part.

    Raises
    ------
    DataError
        If training and test images come from data sets that do not fit together.
    """
    train, test = data["train"], data["test"]
    if train is not test and (train.shape, train.num_classes) != (test.shape, test.num_classes):
        raise DataError(
            f"{train.name} has {_shape_text(train)}, {test.name} has {_shape_text(test)}:"
            " train and test on data sets of the same shape"
        )
    images = replace(train, test_images=test.test_images, test_labels=test.test_labels)
    if ctx.split == "test":
        return images
    order = np.argsort(images.train_labels, kind="stable")
    held_out = np.zeros(len(order), dtype=bool)
    held_out[order[::_VALIDATION_EVERY]] = True
    return replace(
        images,
        train_images=images.train_images[~held_out],
        train_labels=images.train_labels[~held_out],
        test_images=images.train_images[held_out],
        test_labels=images.train_labels[held_out],
    )


def _shape_text(images: SmallImages) -> str:
    channels, height, width = images.shape
    return f"{images.num_classes} classes of {channels} x {height} x {width} images"


def training_part(images: SmallImages) -> TrainingImages:
    """Return a copy of what a method may see: an attack that poisons it in place must not poison the controls."""
    return TrainingImages(
        images.train_images.copy(), images.train_labels.copy(), images.mean, images.std, images.num_classes
    )


def check_protocol(protocol: DistillationBackdoorProtocol, images: SmallImages) -> None:
    """Check that a protocol fits the data.

    Raises
    ------
    ConfigError
        One line that names the setting and what the data allow.
    """
    height = images.shape[1]
    if protocol.trigger_size > height - 1:
        raise ConfigError(
            f"trigger_size={protocol.trigger_size} does not fit images of {height} x {height} pixels:"
            f" give {height - 1} or less"
        )
    if not 0 <= protocol.target_class < images.num_classes:
        raise ConfigError(
            f"target_class={protocol.target_class} is none of the {images.num_classes} classes of {images.name}:"
            f" give 0 to {images.num_classes - 1}"
        )
    smallest = int(np.bincount(images.train_labels).min())
    if protocol.images_per_class > smallest:
        raise ConfigError(
            f"images_per_class={protocol.images_per_class}, but a class of {images.name} has only {smallest}"
            f" training images: give {smallest} or less"
        )


def clean_method(method: Distiller, ctx: RunContext) -> Distiller:
    """Return the method that distils as ``method`` does, without an attack."""
    clean = ctx.method(method.clean_counterpart, **method.clean_settings())
    assert isinstance(clean, Distiller)
    return clean


def distilled_set(
    method: Distiller, images: SmallImages, protocol: DistillationBackdoorProtocol, ctx: RunContext
) -> tuple[DistilledSet, float]:
    """Return the checked set of this method and run, distilled once for all victims, and the seconds it took."""
    if not method.name:
        raise ValueError("a method without a name would share the set of any other: build it from its spec")
    inputs = {
        "method": method.name,
        "config": config_dict(method.config),
        "data": images.training_hash(),
        "seed": ctx.seed_for("run", "distillation"),
        **{k: v for k, v in config_dict(protocol).items() if not k.startswith("victim")},
    }

    def build(folder: Path) -> None:
        start = time.perf_counter()
        distilled = method.distil(training_part(images), protocol, ctx)
        seconds = time.perf_counter() - start
        check_distilled(distilled, images, protocol)
        save_distilled(distilled, folder / "set.npz")
        facts = {"seconds": seconds, "facts": dict(distilled.facts)}
        (folder / "facts.json").write_text(json.dumps(facts))

    folder = ctx.cached("distilled-set", inputs, build)
    notes = json.loads((folder / "facts.json").read_text())
    return load_distilled(folder / "set.npz", notes["facts"]), notes["seconds"]


def check_distilled(distilled: DistilledSet, images: SmallImages, protocol: DistillationBackdoorProtocol) -> None:
    """Check what a method handed over.

    Raises
    ------
    InvalidPrediction
        For a wrong shape or type, a value that is not finite, or more or fewer images than the protocol allows.
    """
    if distilled.images.dtype != np.float32 or distilled.images.shape[1:] != images.shape:
        raise InvalidPrediction(
            f"synthetic images must be float32 (n, {', '.join(map(str, images.shape))}),"
            f" not {distilled.images.dtype} {distilled.images.shape}"
        )
    if distilled.labels.shape != (len(distilled.images),) or distilled.labels.dtype.kind not in "iu":
        raise InvalidPrediction("synthetic images need one whole-number label each")
    if not np.isfinite(distilled.images).all():
        raise InvalidPrediction("synthetic images must be finite")
    for trigger in (distilled.trigger, distilled.start_trigger):
        if trigger is not None and (trigger.shape != images.shape or not np.isfinite(trigger).all()):
            raise InvalidPrediction(f"a trigger must be finite and of shape {images.shape}")
    schedule = distilled.schedule
    batches = np.zeros_like(distilled.labels) if schedule is None else schedule.batches
    if schedule is not None and not (np.isfinite(schedule.step_sizes).all() and (schedule.step_sizes > 0).all()):
        raise InvalidPrediction("step sizes must be finite and positive")
    for batch in np.unique(batches):
        counts = np.bincount(distilled.labels[batches == batch], minlength=images.num_classes)
        if len(counts) > images.num_classes or (counts != protocol.images_per_class).any():
            raise InvalidPrediction(
                f"the protocol asks for {protocol.images_per_class} synthetic images of each of {images.num_classes}"
                f" classes, not for {counts.tolist()}"
            )


def save_distilled(distilled: DistilledSet, path: Path) -> None:
    """Write a distilled set, its triggers and its schedule to one file."""
    arrays: dict[str, Any] = {"images": distilled.images, "labels": distilled.labels}
    for name in ("trigger", "start_trigger"):
        if getattr(distilled, name) is not None:
            arrays[name] = getattr(distilled, name)
    if distilled.schedule is not None:
        arrays |= vars(distilled.schedule)
    np.savez(path, **arrays)


def load_distilled(path: Path, facts: Mapping[str, int]) -> DistilledSet:
    """Read what `save_distilled` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        found = dict(arrays)
    schedule = None
    if "step_sizes" in found:
        schedule = StepSchedule(found["batches"], found["step_sizes"], found["initial_weights"])
    return DistilledSet(
        found["images"], found["labels"], found.get("trigger"), found.get("start_trigger"), schedule, facts
    )
