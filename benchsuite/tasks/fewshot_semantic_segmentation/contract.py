"""What a method of few-shot semantic segmentation may import: the protocol, what it sees, and what it returns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import ConfigError, Method, RunContext

if TYPE_CHECKING:
    from benchsuite.tasks.fewshot_semantic_segmentation.networks import Backbone

__all__ = [
    "SHOTS",
    "BackboneName",
    "Episode",
    "FewShotMasksProtocol",
    "FewShotSegmenter",
    "LabelledEpisode",
    "Picture",
    "Segmenter",
    "TrainingData",
]

SHOTS = (1, 5)

BackboneName = Literal["tiny", "resnet50", "resnet101", "vgg16"]


@dataclass(frozen=True)
class FewShotMasksProtocol:
    """What belongs to neither method nor data.

    Attributes
    ----------
    shots
        K, the support images of an episode: 1 or 5.
    episodes
        Test episodes a fold (FSS-1000 always has one for each of its test pictures).
    size
        Side in pixels that pictures and masks are brought to, without regard to their proportions.
    original_size
        Judge at the picture's own size instead.
    masks
        ``stored``: as the data set stores them (label maps; for COCO the PNGs of HSNet). ``polygon-fill``: COCO's
        polygons, filled as MSHNet does.
    selection
        ``last``: the model is the one after the last step. ``test``: a method may keep the best of its models on the
        test episodes, as the official code does.
    backbone
        The frozen network behind all methods. ``tiny`` is pre-trained by the task on the pool of the data.
    backbone_file
        Weights of the backbone on ImageNet, a state dict in torchvision's layout.
    """

    shots: int = 1
    episodes: int = 200
    size: int = 64
    original_size: bool = False
    masks: Literal["stored", "polygon-fill"] = "stored"
    selection: Literal["last", "test"] = "last"
    backbone: BackboneName = "tiny"
    backbone_file: str = ""

    def __post_init__(self) -> None:
        if self.shots not in SHOTS:
            raise ConfigError(f"shots must be one of {', '.join(map(str, SHOTS))}, not {self.shots}")
        if self.episodes < 1:
            raise ConfigError(f"episodes must be at least 1, not {self.episodes}")
        if self.size < 33:
            raise ConfigError(f"size must be at least 33 pixels (the coarsest map has a stride of 32), not {self.size}")
        if self.backbone == "tiny" and self.backbone_file:
            raise ConfigError("the tiny backbone is pre-trained on the pool of the data: leave backbone_file out")


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture brought to the size of the protocol.

    Attributes
    ----------
    key
        Names the picture within its data set: equal keys are equal pictures.
    pixels
        uint8 RGB (S, S, 3).
    """

    key: str
    pixels: NDArray[np.uint8] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Episode:
    """One question: where in the query is what the supports show? The class is not told.

    Attributes
    ----------
    supports
        K pictures; one may occur twice.
    support_masks
        bool (K, S, S): where the class is.
    query
        The picture to segment.
    output_size
        Height and width of the mask that is asked for.
    """

    supports: tuple[Picture, ...]
    support_masks: NDArray[np.bool_] = field(repr=False)
    query: Picture
    output_size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class LabelledEpisode(Episode):
    """An episode to learn from.

    Attributes
    ----------
    query_mask
        bool (S, S): the answer. Ignored boundaries are background.
    label
        Class id: two episodes of one label are about one class.
    """

    query_mask: NDArray[np.bool_] = field(repr=False)
    label: int


class Segmenter:
    """A trained model. ``parameters``: its trainable ones, without the frozen backbone."""

    parameters: int | None = None

    def predict(self, episodes: Sequence[Episode]) -> list[NDArray[np.bool_]]:
        """Return for each episode where the class is in the query, bool of its ``output_size``."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a method may see while it learns.

    Attributes
    ----------
    backbone
        The frozen network, on the device of the run. Methods may read its features, never change it.
    shots, size
        Of the protocol.
    classes
        Ids of the classes to learn from; those of the test episodes are not among them.
    episodes_per_epoch
        As the data set's rule says.
    episode
        Returns episode number i = 0, 1, 2 ... of the training: the same for every method of a seed.
    score
        Under ``selection=test`` the mIoU in [0, 1] of a model on the test episodes; else None.
    """

    backbone: Backbone = field(repr=False)
    shots: int
    size: int
    classes: tuple[int, ...]
    episodes_per_epoch: int
    episode: Callable[[int], LabelledEpisode] = field(repr=False)
    score: Callable[[Segmenter], float] | None = field(default=None, repr=False)

    def batch(self, first: int, size: int) -> list[LabelledEpisode]:
        """Return episodes ``first`` to ``first + size - 1``."""
        return [self.episode(number) for number in range(first, first + size)]


class FewShotSegmenter(Method):
    """A way to learn to segment classes that nobody has seen."""

    @abstractmethod
    def fit(self, data: TrainingData, ctx: RunContext) -> Segmenter:
        """Learn from episodes and return a model; seeds come from ``ctx.seed_for("fold", ...)``.

        Under ``data.score`` the model that is returned may be chosen by it.
        """
