"""What a method of few-shot instance segmentation may import: the protocol, what it sees, and what it returns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import ConfigError, Method, RunContext
from benchsuite.datasets.coco.reader import ImageSet, Instance, Record

__all__ = [
    "SHOTS",
    "BaseData",
    "Detection",
    "FewShotData",
    "FewShotProtocol",
    "FewShotSegmenter",
    "ImageSet",
    "IncrementalProtocol",
    "Instance",
    "Record",
    "Segmenter",
    "Setting",
    "State",
]

SHOTS = (1, 2, 3, 5, 10, 30)
TFA_GROUPS = 9
"""TFA sampled its groups 1 to 9 with these seeds; group 0, which its files hold too, is older."""

Setting = Literal["fsis", "gfsis", "ifsis"]


@dataclass(frozen=True)
class FewShotProtocol:
    """What belongs to neither method nor data.

    Attributes
    ----------
    shots
        K, the objects of a class to learn from.
    source
        ``sampler`` draws them as TFA does, with seeds of its own. The others are published groups: ``tfa-groups`` draws
        as TFA did, with its seeds 1 to 9; ``tfa-files`` and ``meta-detr-files`` read the groups' files under the data
        root.
    group
        Which published group: ``draw`` takes group s + 1 in draw s of the axis ``shots``, so that ``--seeds shots=9``
        are TFA's groups 1 to 9; a number is that group in every draw (0: the files that TFA gives without a seed).
    infeasible
        Classes whose images cannot add up to K objects: ``drop`` them with a warning, or ``refuse`` to run.
    merge_records
        One training record an image with all its shots, instead of TFA's one record a shot.
    """

    shots: int = 5
    source: Literal["sampler", "tfa-groups", "tfa-files", "meta-detr-files"] = "sampler"
    group: Literal["draw"] | int = "draw"
    infeasible: Literal["drop", "refuse"] = "drop"
    merge_records: bool = False

    def __post_init__(self) -> None:
        if self.shots not in SHOTS:
            raise ConfigError(f"shots must be one of {', '.join(map(str, SHOTS))}, not {self.shots}")
        if self.group == "draw":
            return
        if self.source == "sampler":
            raise ConfigError("the sampler's shots are no published group: set source=tfa-groups, or leave group out")
        least = 0 if self.source == "tfa-files" else 1
        if self.group < least:
            raise ConfigError(f"the groups of {self.source} begin with {least}, so group={self.group} is none of them")
        if self.source == "tfa-groups":
            self._check_sampled(self.group)

    def group_of(self, draw: int) -> int:
        """Return the published group that a draw of shots takes.

        Raises
        ------
        ConfigError
            If TFA has no such group.
        """
        group = draw + 1 if self.group == "draw" else self.group
        if self.source == "tfa-groups":
            self._check_sampled(group)
        return group

    @staticmethod
    def _check_sampled(group: int) -> None:
        if group > TFA_GROUPS:
            raise ConfigError(f"TFA sampled groups 1 to {TFA_GROUPS}, not {group}: ask for --seeds shots={TFA_GROUPS}")


@dataclass(frozen=True)
class IncrementalProtocol(FewShotProtocol):
    """The protocol of ``ifsis``.

    Attributes
    ----------
    arrival
        Novel classes come ``together``, or ``one-by-one`` in ascending order: one call of tuning a class, which sees
        neither the shots of earlier classes nor of later ones.
    """

    arrival: Literal["together", "one-by-one"] = "together"


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

    def state(self) -> State:
        """Return what tuning on a further class needs, as `FewShotSegmenter.learn_base` does.

        Raises
        ------
        ConfigError
            If the method cannot add classes one by one.
        """
        raise ConfigError("this method cannot add classes one by one: run it with --set task.arrival=together")


State = Mapping[str, NDArray[Any]]
"""What learning leaves for tuning on novel classes: named arrays of numbers, and nothing else."""


@dataclass(frozen=True)
class BaseData:
    """What a method may see while it learns the base classes.

    Attributes
    ----------
    images
        Training images with the annotations of base classes.
    base_classes, novel_classes
        Category ids, ascending. Of novel classes there is nothing but their ids.
    head_classes
        Category ids that the tuned model tells apart, ascending.
    names
        Category id to name.
    setting
        ``fsis``, ``gfsis`` or ``ifsis``.
    """

    images: ImageSet = field(repr=False)
    base_classes: tuple[int, ...]
    novel_classes: tuple[int, ...]
    head_classes: tuple[int, ...]
    names: Mapping[int, str]
    setting: Setting


@dataclass(frozen=True)
class FewShotData:
    """What a method may see while it is tuned.

    Attributes
    ----------
    shots
        Records to tune on, one annotation each; every other object in the image is unlabelled.
    base_images
        As in `BaseData`; None in ``ifsis``, which tunes without them.
    base_classes
        Category ids that the state knows: the base classes, ascending; where classes arrive one by one, then those that
        were added before, in order.
    novel_classes
        Category ids to learn from the shots, ascending.
    head_classes, names, setting
        As in `BaseData`.
    """

    shots: ImageSet = field(repr=False)
    base_images: ImageSet | None = field(repr=False)
    base_classes: tuple[int, ...]
    novel_classes: tuple[int, ...]
    head_classes: tuple[int, ...]
    names: Mapping[int, str]
    setting: Setting


class FewShotSegmenter(Method):
    """A way to learn novel classes from few objects: two calls, the second on a fresh object of the same settings.

    In ``ifsis`` the second call is made in a process of its own, with a scratch folder and a cache of its own: what it
    knows of the base classes is the state that the first call returned, whose size the result shows. Where novel
    classes arrive one by one it is made once a class, each time with the state of the model before (`Segmenter.state`).
    """

    @abstractmethod
    def learn_base(self, data: BaseData, ctx: RunContext) -> State:
        """Learn the base classes and return what the second call needs, as arrays (at least an empty mapping).

        Training belongs in ``ctx.cached`` with ``data.images.digest`` among its inputs and seeds from
        ``ctx.seed_for("base", ...)``, so that shots and rows share it.
        """

    @abstractmethod
    def tune(self, state: State, data: FewShotData, ctx: RunContext) -> Segmenter:
        """Learn from the shots and return a model; seeds come from ``ctx.seed_for("shots", ...)``."""
