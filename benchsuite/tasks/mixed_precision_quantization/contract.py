"""What a method of mixed-precision quantisation may import: the budget, the trained network, and what it hands back.

A method takes the task's full-precision network and a budget, and returns whole numbers: codes of a few bits for every
quantised layer, a quantiser for every layer's input, and the few scalars that stay in full precision. The task packs
them into a file, reads that file with its own code, and judges what it read.

Conventions
-----------
A weight is ``offset + scale * code`` with a code of ``b`` bits in ``0 .. 2**b - 1``; scale and offset belong to a
tensor or to an output channel. An input becomes ``scale * (clip(round(x / scale) + zero, 0, 2**a - 1) - zero)``, halves
rounded to even. 32 bits mean that nothing is quantised.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import ConfigError, Method, RunContext
from benchsuite.tasks.mixed_precision_quantization.network_names import MODELS, TIMM

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "FULL_BITS",
    "MOST_BITS",
    "Augmentation",
    "Budget",
    "FullPrecision",
    "Layer",
    "QuantizationData",
    "QuantizationProtocol",
    "QuantizedInput",
    "QuantizedModel",
    "QuantizedWeight",
    "Quantizer",
    "average_bits",
]

FULL_BITS = 32
"""So many bits has what is not quantised."""

MOST_BITS = 8
"""So many bits at most has what is quantised."""

Augmentation = Literal["none", "crop-flip", "resized-crop"]


@dataclass(frozen=True, kw_only=True)
class QuantizationProtocol:
    """What belongs to neither method nor data: the network, its training in full precision, and the budget.

    Attributes
    ----------
    model
        ``mlp``, ``mlp-narrow``, ``cnn``, ``resnet20``, ``resnet56``, ``resnet18``, ``mobilenetv2``, or ``timm:NAME``.
    size, crop
        Side of what the network sees; the shorter side is resized to ``size / crop``, then the middle is cut out.
    weight_bits
        The budget: bits of an average weight of all quantised layers.
    activation_bits, input_bits
        Bits of the inputs of all layers, and of the pictures, which the first layer sees.
    fewest_bits, most_bits
        The candidates of a layer are all whole numbers between them.
    pinned_bits
        Bits of first and last layer, which are not searched then; 0 searches them too.
    augment
        What training pictures go through, in all rows: nothing; padding by 4, cropping and mirroring (CIFAR-10); a
        part of any size and mirroring (ImageNet).
    pretrained
        State dict of the full-precision network; without it the task trains one.
    teacher_epochs, teacher_batch, teacher_optimizer, teacher_lr, teacher_weight_decay
        Training in full precision, the rate falls along half a cosine.
    calibration
        So many training pictures give the range of each layer's input.
    latency_repeats, warm_ups
        Timed and untimed passes of one picture, 8-bit kernels in turn with full precision.
    """

    model: str = "mlp"
    size: int = 8
    crop: float = 1.0
    weight_bits: float = 2.0
    activation_bits: int = 2
    input_bits: int = 8
    fewest_bits: int = 1
    most_bits: int = 8
    pinned_bits: int = 0
    augment: Augmentation = "none"
    pretrained: str = ""
    teacher_epochs: int = 40
    teacher_batch: int = 64
    teacher_optimizer: Literal["adam", "sgd"] = "adam"
    teacher_lr: float = 0.005
    teacher_weight_decay: float = 0.0001
    calibration: int = 256
    latency_repeats: int = 50
    warm_ups: int = 5

    def __post_init__(self) -> None:
        for name in ("size", "teacher_epochs", "calibration", "latency_repeats"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.teacher_batch < 2 or self.warm_ups < 0:
            raise ConfigError("teacher_batch must be at least 2 (batch norms), warm_ups not negative")
        if not 0 < self.crop <= 1 or self.teacher_lr <= 0 or self.teacher_weight_decay < 0:
            raise ConfigError("crop must be in (0, 1], teacher_lr positive, teacher_weight_decay not negative")
        if not 1 <= self.fewest_bits <= self.most_bits <= MOST_BITS:
            raise ConfigError(
                f"candidates are {self.fewest_bits} to {self.most_bits} bits: need 1 <= fewest <= most <= {MOST_BITS}"
            )
        if not self.fewest_bits <= self.weight_bits <= FULL_BITS:
            raise ConfigError(
                f"weight_bits is {self.weight_bits:g}: give {self.fewest_bits} (no candidate has fewer) to {FULL_BITS}"
            )
        if self.model not in MODELS and not self.model.startswith(TIMM):
            raise ConfigError(f"there is no network {self.model!r}: choose {', '.join(MODELS)}, or {TIMM}NAME")
        for name in ("activation_bits", "input_bits"):
            _check_bits(name, getattr(self, name))
        if self.pinned_bits:
            _check_bits("pinned_bits", self.pinned_bits)


def _check_bits(name: str, bits: int) -> None:
    if bits != FULL_BITS and not 1 <= bits <= MOST_BITS:
        raise ConfigError(f"{name} is {bits}: give 1 to {MOST_BITS}, or {FULL_BITS} for full precision")


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer of the network: what is quantised. Bias and norms are not counted.

    Attributes
    ----------
    name
        Of the module.
    shape
        Of its weight, output channels first.
    weights, macs, inputs
        Numbers of weights, of multiply-adds of one picture, and of input values of one picture.
    least, largest
        Range of its inputs in full precision on training pictures.
    """

    name: str
    shape: tuple[int, ...]
    weights: int
    macs: int
    inputs: int
    least: float
    largest: float

    @property
    def signed(self) -> bool:
        """Whether its input has negative values."""
        return self.least < 0


@dataclass(frozen=True)
class Budget:
    """What a quantised network may spend.

    Attributes
    ----------
    weight_bits
        Bits of an average weight, at most.
    candidates
        Bits that a layer's weights may have, ascending.
    pinned
        Layers whose bits are given.
    input_bits
        Layer to the bits of its input, at most.
    """

    weight_bits: float
    candidates: tuple[int, ...]
    pinned: Mapping[str, int]
    input_bits: Mapping[str, int]


def average_bits(layers: Sequence[Layer], strategy: Mapping[str, int]) -> float:
    """Return the bits of an average weight: each layer counts by its number of weights."""
    return sum(layer.weights * strategy[layer.name] for layer in layers) / sum(layer.weights for layer in layers)


@dataclass(frozen=True, eq=False, kw_only=True)
class QuantizationData:
    """What a method may learn from.

    Attributes
    ----------
    dataset
        Name of the data set.
    labels
        (N,) int64.
    classes, channels, size
        Number of classes, channels and side of what the network sees.
    digest
        Identifies pictures, labels and how they are prepared: for ``ctx.cached``.
    prepared
        Places to float32 (B, channels, size, size) on the CPU, normalised, as the judge sees pictures.
    augmented
        The same for training: places and a generator to a batch, changed as the protocol's ``augment`` says.
    """

    dataset: str
    labels: NDArray[np.int64] = field(repr=False)
    classes: int
    channels: int
    size: int
    digest: str
    prepared: Callable[[Sequence[int]], torch.Tensor] = field(repr=False)
    augmented: Callable[[Sequence[int], torch.Generator], torch.Tensor] = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class FullPrecision:
    """The network in full precision, trained by the task: the same for every row of a seed.

    Attributes
    ----------
    layers
        What is quantised, in the order in which the network uses them.
    digest
        Identifies the trained network: for ``ctx.cached``.
    build
        Returns a copy of its own on the device of the run, in evaluation mode.
    """

    layers: tuple[Layer, ...]
    digest: str
    build: Callable[[], nn.Module] = field(repr=False)


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """The weight of a layer, ``offset + scale * code``.

    Attributes
    ----------
    bits
        1 to 8, or 32.
    codes
        Whole numbers of the weight's shape in 0 .. 2**bits - 1; with 32 bits the float32 weight itself.
    scale, offset
        float32, () or (output channels,); with 32 bits they do not count.
    """

    bits: int
    codes: NDArray[Any]
    scale: NDArray[np.float32] = field(default_factory=lambda: np.ones((), np.float32))
    offset: NDArray[np.float32] = field(default_factory=lambda: np.zeros((), np.float32))


@dataclass(frozen=True)
class QuantizedInput:
    """How the input of a layer is quantised: ``scale * (clip(round(x / scale) + zero, 0, 2**bits - 1) - zero)``.

    Attributes
    ----------
    bits
        1 to 8, or 32: the input stays as it is.
    scale
        Positive; a float32 value.
    zero
        Code of the value 0, in 0 .. 2**bits - 1.
    """

    bits: int = FULL_BITS
    scale: float = 1.0
    zero: int = 0


@dataclass(eq=False)
class QuantizedModel:
    """What a method hands back.

    Attributes
    ----------
    weights, inputs
        One for every layer, by its name.
    scalars
        The rest of the network's state: biases, parameters and statistics of norms, float32, by the names and in the
        shapes of the full-precision network's state dict (its counters of batches left out).
    network
        What the method itself would predict with, or None: the task compares its logits with those of the packed file.
    tables
        Flat records that are kept with the result: ``search`` (the decays of a search), ``training``.
    """

    weights: Mapping[str, QuantizedWeight]
    inputs: Mapping[str, QuantizedInput]
    scalars: Mapping[str, NDArray[np.float32]]
    network: nn.Module | None = None
    tables: Mapping[str, Sequence[dict[str, Any]]] = field(default_factory=dict)


class Quantizer(Method):
    """A way to quantise a trained network within a budget."""

    @abstractmethod
    def quantize(self, model: FullPrecision, data: QuantizationData, budget: Budget, ctx: RunContext) -> QuantizedModel:
        """Return the quantised network; seeds come from ``ctx.seed_for("run", ...)``."""
