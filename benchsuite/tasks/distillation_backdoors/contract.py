"""What a distillation of images imports: the protocol, the training images, the set it hands over, the method."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Method, RunContext

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


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
