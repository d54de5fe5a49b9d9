"""Backdoors through dataset distillation.

A method receives labelled training images, distils them into a few synthetic images a class, and may poison the
training images while it does so. The harness then trains fresh victims on the synthetic images alone and measures
how many clean test images they get right (CTA) and how many stamped ones they take for the attacker's class (ASR).

Two controls go along with every row. Victims of the cleanly distilled set meet the trigger as the attack found it,
and the trigger as the attack left it. If the latter fooled them too, the trigger would be an adversarial patch
and nothing would have been implanted.
"""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import ConfigError, Constraint, Method, Metric, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.core.config import config_dict
from benchsuite.core.errors import DataError, InvalidPrediction
from benchsuite.datasets.small_images import SmallImages
from benchsuite.metrics import backdoor, classification

if TYPE_CHECKING:
    from benchsuite.tasks._victims import VictimSettings

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

_VALIDATION_EVERY = 5


@dataclass(frozen=True)
class DistillationBackdoorProtocol:
    """What belongs to neither method nor data. The defaults are the published settings.

    Attributes
    ----------
    images_per_class
        Synthetic images of each class (of each class and batch where a method hands over batches).
    poison_share
        Share of the training images that an attack may poison, rounded down to whole images.
    trigger_size
        Side of the square patch, pixels.
    target_class
        The class that stamped images are to be taken for.
    network
        Architecture that the distillation trains.
    victim
        Architecture that is trained on the synthetic images; ``same`` as the distillation's.
    victim_epochs, victim_lr
        Index of the last pass over the synthetic images (there are ``victim_epochs + 1``), and SGD's learning rate.
    """

    images_per_class: int = 10
    poison_share: float = 0.01
    trigger_size: int = 2
    target_class: int = 0
    network: Literal["convnet", "alexnet", "convnet-small"] = "convnet"
    victim: Literal["same", "convnet", "alexnet", "convnet-small", "vgg11", "resnet18"] = "same"
    victim_epochs: int = 300
    victim_lr: float = 0.01

    def __post_init__(self) -> None:
        if not 0.0 <= self.poison_share <= 1.0:
            raise ValueError(f"poison_share {self.poison_share:g} is not a share between 0 and 1")
        for name in ("images_per_class", "trigger_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.victim_epochs < 0 or self.victim_lr <= 0:
            raise ValueError("victim_epochs must not be negative, victim_lr must be positive")


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """What a method may see of a data set: its training part.

    Attributes
    ----------
    images
        (N, C, H, W) uint8.
    labels
        (N,) int64.
    mean, std
        One value a channel, on the scale where 255 is 1.
    num_classes
        Number of classes.
    """

    images: Bytes
    labels: Integers
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int


@dataclass(frozen=True, eq=False)
class StepSchedule:
    """How to train on a distilled set that prescribes it: gradient steps of learnt size from given weights.

    Attributes
    ----------
    batches
        (n,) int64: the batch of each synthetic image, from 0. Step i takes batch i modulo their number.
    step_sizes
        (T,) float32 > 0.
    initial_weights
        (P,) float32, the parameters of the protocol's network, flattened in their order. A victim of another
        architecture starts from weights of its own.
    """

    batches: Integers
    step_sizes: Floats
    initial_weights: Floats


@dataclass(frozen=True, eq=False)
class DistilledSet:
    """What a method hands over.

    Attributes
    ----------
    images
        (n, C, H, W) float32, normalised.
    labels
        (n,) int64.
    trigger
        (C, H, W) float32, normalised: what test images are stamped with. None without an attack: a white patch.
    start_trigger
        The trigger before it was learnt; None if it was not.
    schedule
        How to train on the set; None: the task's own way.
    facts
        Whole numbers worth keeping (images poisoned, updates of the trigger).
    """

    images: Floats
    labels: Integers
    trigger: Floats | None = None
    start_trigger: Floats | None = None
    schedule: StepSchedule | None = None
    facts: Mapping[str, int] = field(default_factory=dict)


class Distiller(Method):
    """A way to distil a data set, with or without a backdoor.

    Class attributes
    ----------------
    clean_counterpart
        Name of the registered method that distils the same way without an attack: the source of the controls.
    """

    clean_counterpart: ClassVar[str] = "dc"

    @abstractmethod
    def distil(self, training: TrainingImages, protocol: DistillationBackdoorProtocol, ctx: RunContext) -> DistilledSet:
        """Distil the training images.

        Parameters
        ----------
        training
            The training part of the data.
        protocol
            Images a class, and what an attack may do.
        ctx
            Take seeds from ``ctx.seed_for("run", ...)`` only: victims of one run share the set.
        """

    def clean_settings(self) -> dict[str, Any]:
        """Return the settings that the clean counterpart must share with this method."""
        return {}


class DistillationBackdoor(Task):
    """See the module's description."""

    name = "distillation-backdoor"
    title = "Backdoors through dataset distillation"
    version = "1"
    Protocol = DistillationBackdoorProtocol
    presets: ClassVar[Mapping[str, Preset]] = {
        "embedded": Preset({"poison_share": 0.05, "network": "convnet-small", "victim_lr": 0.02}),
        "paper": Preset(),
    }
    seed_axes = ("run", "victim")
    published_seeds: ClassVar[Mapping[str, int]] = {"run": 3, "victim": 3}
    metrics = (
        Metric(
            "cta", "max", doc="clean test accuracy: share of clean test images whose predicted class is their label"
        ),
        Metric(
            "asr",
            "max",
            doc="attack success rate, official count: share of all stamped test images taken for the target class",
        ),
        Metric("asr_nontarget", "max", doc="the same without test images of the target class"),
        Metric(
            "asr_valid_pixels",
            "max",
            doc="asr_nontarget with the trigger clipped to what an image file can hold",
        ),
        Metric(
            "control_asr_start",
            "min",
            doc="asr_nontarget of victims of the cleanly distilled set, under the trigger that the attack started from",
        ),
        Metric(
            "control_asr",
            "min",
            doc="asr_nontarget of victims of the cleanly distilled set, under the attack's final trigger",
        ),
        Metric("trigger_amplitude", "min", unit="sd", doc="largest normalised value of the trigger, without its sign"),
        Metric("distillation_seconds", "min", unit="s", kind="cost", doc="wall seconds of the distillation"),
    )
    ranking = Ranking("asr_nontarget", Constraint("cta", "dc", 0.08))
    reference = "dc"
    data_type = "benchsuite.datasets.small_images:SmallImages"
    method_type = Distiller
    default_data = "digits"

    def evaluate(self, method: Method, data: Mapping[str, Any], protocol: Any, ctx: RunContext) -> Outcome:
        """Distil with the method and cleanly, train a victim on either set, and judge both."""
        from benchsuite.tasks import _image_sheets, _victims

        assert isinstance(method, Distiller)
        images = judged_data(data, ctx)
        check_protocol(protocol, images)
        training = training_part(images)
        distilled, seconds = distilled_set(method, images, protocol, ctx)
        clean, _ = distilled_set(clean_method(method, ctx), images, protocol, ctx)
        settings = victim_settings(images, protocol)
        with ctx.phase("victims"):
            victim = _victims.trained_victim(distilled, settings, ctx)
            control = _victims.trained_victim(clean, settings, ctx)
        triggers = _victims.triggers_of(distilled, settings)
        stamped = {
            "clean": (victim, None),
            "triggered": (victim, triggers.final),
            "triggered_valid_pixels": (victim, triggers.valid_pixels),
            "control_start": (control, triggers.start),
            "control": (control, triggers.final),
        }
        with ctx.phase("judge"):
            predictions = {
                name: _victims.predict(network, images.test_images, settings, trigger, ctx)
                for name, (network, trigger) in stamped.items()
            }
        _write_predictions(ctx.artifact("predictions.csv"), predictions)
        _image_sheets.write_contact_sheet(
            ctx.artifact("contact_sheet.png"), distilled.images, distilled.labels, triggers.final.numpy(), training
        )
        np.save(ctx.artifact("trigger.npy"), triggers.final.numpy())
        outcome = judge(predictions, images.test_labels, protocol.target_class)
        outcome.scores["trigger_amplitude"] = float(triggers.final[:, triggers.mask].abs().max())
        outcome.scores["distillation_seconds"] = seconds
        outcome.counts |= {"synthetic_images": len(distilled.labels), **distilled.facts}
        outcome.tables["classes"] = _patch_readout(distilled, triggers.mask.numpy())
        outcome.parameters = victim.num_parameters()
        return outcome

    def with_other_answers(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the data with the class of every test image changed."""
        changed = {}
        for role, images in data.items():
            labels = (images.test_labels + 1) % images.num_classes
            changed[role] = replace(images, test_labels=labels)
        return changed


def judged_data(data: Mapping[str, Any], ctx: RunContext) -> SmallImages:
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


def victim_settings(images: SmallImages, protocol: DistillationBackdoorProtocol) -> VictimSettings:
    """Return everything about victims that does not depend on the set they are trained on."""
    from benchsuite.tasks._victims import VictimSettings

    return VictimSettings(
        architecture=protocol.network if protocol.victim == "same" else protocol.victim,
        channels=images.shape[0],
        size=images.shape[1],
        num_classes=images.num_classes,
        epochs=protocol.victim_epochs,
        lr=protocol.victim_lr,
        trigger_size=protocol.trigger_size,
        mean=images.mean,
        std=images.std,
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
    inputs = {
        "method": f"{type(method).__module__}.{type(method).__qualname__}",
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


def judge(predictions: Mapping[str, Integers], labels: Integers, target: int) -> Outcome:
    """Return the quality metrics of predicted classes, one (N,) array a situation."""

    def success(name: str) -> float | None:
        return backdoor.attack_success_rate_nontarget(predictions[name], labels, target)

    scores: dict[str, float | None] = {
        "cta": classification.accuracy(predictions["clean"], labels),
        "asr": backdoor.attack_success_rate(predictions["triggered"], target),
        "asr_nontarget": success("triggered"),
        "asr_valid_pixels": success("triggered_valid_pixels"),
        "control_asr_start": success("control_start"),
        "control_asr": success("control"),
    }
    undefined = {name: "every test image is of the target class" for name, value in scores.items() if value is None}
    counts = {"test_images": len(labels), "test_images_of_target_class": int((labels == target).sum())}
    return Outcome(scores=scores, undefined=undefined, counts=counts)


def _patch_readout(distilled: DistilledSet, mask: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return, for each class, the mean of the synthetic pixels under the patch: where a trigger was implanted."""
    under = distilled.images[:, :, mask].mean(axis=(1, 2))
    return [
        {"class": int(c), "mean_under_patch": float(under[distilled.labels == c].mean())}
        for c in np.unique(distilled.labels)
    ]


def _write_predictions(path: Path, predictions: Mapping[str, Integers]) -> None:
    table = np.column_stack([np.arange(len(predictions["clean"])), *predictions.values()])
    np.savetxt(path, table, fmt="%d", delimiter=",", header=",".join(["image", *predictions]), comments="")
