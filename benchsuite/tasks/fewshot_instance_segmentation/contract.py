"""What a method of few-shot instance segmentation may import: the protocol, what it sees, and what it returns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import ConfigError, Method, RunContext
from benchsuite.datasets.coco.reader import ImageSet, Instance, Record

__all__ = [
    "SHOTS",
    "Detection",
    "FewShotData",
    "FewShotProtocol",
    "FewShotSegmenter",
    "ImageSet",
    "Instance",
    "Record",
    "Segmenter",
    "Setting",
]

SHOTS = (1, 2, 3, 5, 10, 30)

Setting = Literal["fsis", "gfsis", "ifsis"]


@dataclass(frozen=True)
class FewShotProtocol:
    """What belongs to neither method nor data.

    Attributes
    ----------
    shots
        K, the objects of a class to learn from.
    source
        ``sampler`` draws them as TFA does; ``tfa-files`` and ``meta-detr-files`` read theirs under the data root.
    group
        Which of the files' groups (their seed).
    infeasible
        Classes whose images cannot add up to K objects: ``drop`` them with a warning, or ``refuse`` to run.
    merge_records
        One training record an image with all its shots, instead of TFA's one record a shot.
    """

    shots: int = 5
    source: Literal["sampler", "tfa-files", "meta-detr-files"] = "sampler"
    group: int = 1
    infeasible: Literal["drop", "refuse"] = "drop"
    merge_records: bool = False

    def __post_init__(self) -> None:
        if self.shots not in SHOTS:
            raise ConfigError(f"shots must be one of {', '.join(map(str, SHOTS))}, not {self.shots}")
        if self.group < 0:
            raise ConfigError("group must not be negative")


@dataclass(frozen=True)
class Detection:
    """A found object: class, score in [0, 1], mask (H, W) bool, box (x, y, w, h) in pixels."""

    category_id: int
    score: float
    mask: NDArray[np.bool_]
    box: tuple[float, float, float, float]


class Segmenter:
    """A tuned model."""

    parameters: int | None = None

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[list[Detection]]:
        """Return at most 100 detections for each image (H, W, 3)."""
        raise NotImplementedError


@dataclass
class FewShotData:
    """What a method may see.

    Attributes
    ----------
    base
        Training images with the annotations of base classes. In ``ifsis`` asking for it raises after
        `finish_base`.
    shots
        Records to tune on, one annotation each; every other object in the image is unlabelled.
    base_classes, novel_classes
        Category ids, ascending.
    head_classes
        Category ids that the tuned model tells apart, ascending.
    names
        Category id to name.
    setting
        ``fsis``, ``gfsis`` or ``ifsis``.
    """

    base_images: ImageSet = field(repr=False)
    shots: ImageSet = field(repr=False)
    base_classes: tuple[int, ...]
    novel_classes: tuple[int, ...]
    head_classes: tuple[int, ...]
    names: Mapping[int, str]
    setting: Setting
    base_is_over: bool = False

    @property
    def base(self) -> ImageSet:
        """Return the base images.

        Raises
        ------
        RuntimeError
            In ``ifsis`` after `finish_base`.
        """
        if self.base_is_over and self.setting == "ifsis":
            raise RuntimeError(
                "no base image may be used in the fine-tuning stage of ifsis: store what you need before"
            )
        return self.base_images

    def finish_base(self) -> None:
        """Say that the base stage is over."""
        self.base_is_over = True


class FewShotSegmenter(Method):
    """A way to learn novel classes from few objects."""

    @abstractmethod
    def fit(self, data: FewShotData, ctx: RunContext) -> Segmenter:
        """Learn the base classes, call ``data.finish_base()``, learn from the shots, and return a model.

        The base stage belongs in ``ctx.cached`` with ``data.base.digest`` among its inputs and seeds from
        ``ctx.seed_for("base", ...)``, so that settings, shots and rows share it. Seeds of the second stage come from
        ``ctx.seed_for("shots", ...)``.
        """
