"""What a method of the three tasks of visual recognition may import: protocols, what it sees, what it returns.

Classification, semantic segmentation and detection share pictures, the trained network and the measurement of its
costs, so that one backbone is judged in all three. One class may implement all three abstract classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import ConfigError, Method, RunContext
from benchsuite.datasets.pictures import Pictures

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "IGNORED",
    "MOST_DETECTIONS",
    "ClassificationData",
    "ClassificationProtocol",
    "CostProtocol",
    "DetectionData",
    "DetectionProtocol",
    "Found",
    "ImageClassifier",
    "ObjectDetector",
    "Objects",
    "Pictures",
    "SegmentationData",
    "SegmentationProtocol",
    "Selection",
    "SemanticSegmenter",
    "Trained",
    "TrainedDetector",
]

IGNORED = 255
"""The value of label maps that counts nowhere."""

MOST_DETECTIONS = 100
"""So many detections of a picture count, the best first."""

Selection = Literal["last", "test"]


@dataclass(frozen=True, kw_only=True)
class CostProtocol:
    """How costs are measured, and which model counts.

    Attributes
    ----------
    selection
        ``last``: the model after the last step. ``test``: a method may keep the best of its models on the judged part,
        as the official code does; the table says so.
    latency_repeats, warm_ups
        Timed and untimed passes of one picture, each in turn with those of the yardstick.
    throughput_batch, throughput_repeats
        Pictures of a batch, and timed passes of it; as many warm-ups come first.
    """

    selection: Selection = "last"
    latency_repeats: int = 12
    warm_ups: int = 2
    throughput_batch: int = 32
    throughput_repeats: int = 3

    def __post_init__(self) -> None:
        for name in ("latency_repeats", "throughput_batch", "throughput_repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.warm_ups < 0:
            raise ConfigError(f"warm_ups cannot be negative ({self.warm_ups})")


@dataclass(frozen=True, kw_only=True)
class ClassificationProtocol(CostProtocol):
    """What belongs to neither method nor data.

    Attributes
    ----------
    size
        Side in pixels of what the network sees.
    crop
        The shorter side is resized to ``size / crop`` (whole part; bicubic), then the middle is cut out.
    """

    size: int = 32
    crop: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1 or not 0 < self.crop <= 1:
            raise ConfigError(f"size must be positive and crop in (0, 1], not {self.size} and {self.crop:g}")


@dataclass(frozen=True, kw_only=True)
class SegmentationProtocol(CostProtocol):
    """What belongs to neither method nor data.

    Attributes
    ----------
    size, max_size
        A picture is resized, keeping its proportions, to the largest whose shorter side is at most ``size`` and whose
        longer side is at most ``max_size`` pixels. Costs are measured on a square of ``size``.
    """

    size: int = 96
    max_size: int = 96

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sizes(self.size, self.max_size)


@dataclass(frozen=True, kw_only=True)
class DetectionProtocol(CostProtocol):
    """What belongs to neither method nor data.

    Attributes
    ----------
    size, max_size, keep_ratio
        Without ``keep_ratio`` a picture is resized to a square of ``size``; with it as in segmentation, and batches are
        padded on the right and below with zeros to multiples of 32 pixels. Costs are measured on the square, or on
        ``size`` x ``max_size`` (padded likewise).
    """

    size: int = 96
    max_size: int = 96
    keep_ratio: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sizes(self.size, self.max_size)


def _check_sizes(size: int, max_size: int) -> None:
    if not 1 <= size <= max_size:
        raise ConfigError(f"size {size} must be positive and not above max_size {max_size}")


@dataclass(frozen=True, eq=False, kw_only=True)
class _Data:
    """What all training data have in common.

    Attributes
    ----------
    dataset
        Name of the data set.
    pictures
        To learn from.
    classes
        Names; a label is a place in this tuple.
    mean, std
        Of red, green and blue, on the scale where 255 is 1: what pictures are normalised by.
    digest
        Identifies pictures, answers and the protocol's sizes: for ``ctx.cached``.
    score
        Under ``selection=test`` the quality in [0, 1] of a model on the judged part; else None.
    """

    dataset: str
    pictures: Pictures
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    digest: str
    score: Callable[[Any], float] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassificationData(_Data):
    """What a classifier may see while it learns; see `_Data` for the rest.

    Attributes
    ----------
    labels
        (N,) int64.
    size
        Side of what the network sees.
    prepared
        Places to float32 (B, 3, size, size) on the CPU, normalised: pictures brought to the size as for the judge.
    """

    labels: NDArray[np.int64] = field(repr=False)
    size: int
    prepared: Callable[[Sequence[int]], torch.Tensor] = field(repr=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class SegmentationData(_Data):
    """What a segmenter may see while it learns; see `_Data` for the rest.

    Attributes
    ----------
    label_map
        Place to uint8 (H, W) of the stored picture; 255 counts nowhere.
    size
        Bounds of the shorter and of the longer side of what the network sees.
    prepared
        Place to float32 (1, 3, H, W) on the CPU, normalised: a picture brought to the size as for the judge.
    prepared_map
        Place to uint8 (H, W): the label map at that size, nearest pixels.
    """

    label_map: Callable[[int], NDArray[np.uint8]] = field(repr=False)
    size: tuple[int, int]
    prepared: Callable[[int], torch.Tensor] = field(repr=False)
    prepared_map: Callable[[int], NDArray[np.uint8]] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of a picture.

    Attributes
    ----------
    boxes
        (n, 4) float32: x1, y1, x2, y2 in pixels of the stored picture, the edges (x2 - x1 is the width).
    labels
        (n,) int64.
    crowd
        (n,) bool: regions of many, in which detections count neither as right nor as wrong.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectionData(_Data):
    """What a detector may see while it learns; see `_Data` for the rest.

    Attributes
    ----------
    objects
        Place to the objects of the stored picture.
    size, max_size, keep_ratio
        Of the protocol.
    prepared
        Places to float32 (B, 3, H, W) on the CPU, normalised, brought to the size as for the judge; int64 (B, 2) height
        and width without padding; float64 (B, 2) pixels of the input a pixel of the picture, down and across.
    """

    objects: Callable[[int], Objects] = field(repr=False)
    size: int
    max_size: int
    keep_ratio: bool
    prepared: Callable[[Sequence[int]], tuple[torch.Tensor, NDArray[np.int64], NDArray[np.float64]]] = field(repr=False)


@dataclass(eq=False)
class Trained:
    """A trained model as the task judges it.

    Attributes
    ----------
    network
        In float32 on the device of the run; the task puts it into evaluation mode. It takes normalised pictures,
        float32 (B, 3, H, W), and returns logits: (B, C) in classification, (B, C, h, w) of any height and width in
        segmentation (the task brings them to the picture's size, bilinear). In detection it may return any nesting of
        tensors.
    deployed
        A second form with the same inputs and, to 1e-4, outputs (folded, compiled, exported), or None: timed in turn
        with the network.
    table
        Flat records that are kept with the result (a loss curve).
    """

    network: nn.Module
    deployed: Callable[[torch.Tensor], Any] | None = None
    table: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True, eq=False)
class Found:
    """Detections in one picture.

    Attributes
    ----------
    boxes
        (n, 4) float32: x1, y1, x2, y2 in pixels of the network's input.
    scores
        (n,) float32 in [0, 1].
    labels
        (n,) int64. There is no background class.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


class TrainedDetector(Trained, ABC):
    """A trained detector: its network's raw outputs are what costs are measured on, `detect` is what is judged."""

    @abstractmethod
    def detect(self, images: torch.Tensor, sizes: NDArray[np.int64]) -> list[Found]:
        """Return the detections of each picture of a batch; the best 100 of a picture count.

        Parameters
        ----------
        images
            float32 (B, 3, H, W), normalised, on the device of the run.
        sizes
            int64 (B, 2): height and width of each without padding.
        """


class ImageClassifier(Method):
    """A way to learn to name what a picture shows."""

    @abstractmethod
    def fit_classifier(self, data: ClassificationData, ctx: RunContext) -> Trained:
        """Learn and return a model; seeds come from ``ctx.seed_for("run", ...)``."""


class SemanticSegmenter(Method):
    """A way to learn to name every pixel."""

    @abstractmethod
    def fit_segmenter(self, data: SegmentationData, ctx: RunContext) -> Trained:
        """Learn and return a model; seeds come from ``ctx.seed_for("run", ...)``."""


class ObjectDetector(Method):
    """A way to learn to find and name objects."""

    @abstractmethod
    def fit_detector(self, data: DetectionData, ctx: RunContext) -> TrainedDetector:
        """Learn and return a model; seeds come from ``ctx.seed_for("run", ...)``."""
