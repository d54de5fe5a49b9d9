"""What a defense imports: the protocol, the case it receives, the verdict it hands over, the method."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Method, RunContext
from benchsuite.tasks.distillation_backdoors.contract import DistillationBackdoorProtocol

if TYPE_CHECKING:
    import torch

    from benchsuite.tasks.distillation_backdoors.networks import BackdoorNetwork

Level = Literal["inputs", "images", "classes"]


@dataclass(frozen=True)
class BackdoorDefenseProtocol(DistillationBackdoorProtocol):
    """What belongs to neither defense nor data: the attack, and what the defender and the judge hold.

    Attributes
    ----------
    attack
        Name of the registered method that distils the set; ``dc`` and ``dd`` poison nothing.
    clean_images
        Labelled test images that the defender holds, at most half of all; none of them is judged.
    suspects
        Inputs to rate, at most the other test images; half of them are stamped with the trigger.
    """

    attack: str = "doorping"
    clean_images: int = 3000
    suspects: int = 400

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("clean_images", "suspects"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be 2 or more, not {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Case:
    """What a defense receives. All images are normalised float32 tensors on the run's device.

    Attributes
    ----------
    network
        The victim, in evaluation mode: logits by calling it, penultimate features by ``features_of``.
    images, labels
        (n, C, H, W) and (n,) int64: the distilled set.
    clean_images, clean_labels
        (M, C, H, W) and (M,) int64: real images that nobody tampered with.
    suspects
        (S, C, H, W): inputs of the victim, some of them stamped.
    mean, std
        What images were normalised by, one value a channel.
    num_classes
        Number of classes.
    """

    network: BackdoorNetwork
    images: torch.Tensor
    labels: torch.Tensor
    clean_images: torch.Tensor
    clean_labels: torch.Tensor
    suspects: torch.Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a defense says.

    Attributes
    ----------
    level
        What was rated: ``inputs`` (the suspects), ``images`` (of the distilled set) or ``classes``.
    scores
        (n,) finite, one an item; larger is more suspicious.
    flagged
        (n,) bool: what the defense's own threshold takes for tampered.
    """

    level: Level
    scores: NDArray[np.float64]
    flagged: NDArray[np.bool_]


class Defense(Method):
    """A way to detect a backdoor."""

    @abstractmethod
    def inspect(self, case: Case, ctx: RunContext) -> Verdict:
        """Rate inputs, distilled images or classes.

        Parameters
        ----------
        case
            Set, victim, clean images, suspects. Neither trigger nor target class is known.
        ctx
            Take seeds from ``ctx.seed_for("victim", ...)``.
        """
