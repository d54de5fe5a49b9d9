"""Quantisers of weights and inputs, and a network whose layers have them.

The forward value of a weight is exactly ``offset + scale * code`` in float32, that of an input
``scale * (code - zero)``: the same operations by which a packed file is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchsuite.tasks.mixed_precision_quantization.contract import (
    FULL_BITS,
    FullPrecision,
    Layer,
    QuantizedInput,
    QuantizedModel,
    QuantizedWeight,
)
from benchsuite.tasks.mixed_precision_quantization.packed import scalars_of

__all__ = [
    "InputQuantizer",
    "QuantizedLayer",
    "WeightQuantizer",
    "dorefa",
    "exported",
    "layer_scale",
    "quantized_layers",
    "round_through",
    "squashed",
    "with_quantizers",
]

_LEAST_CLIP = 1e-3
_CLIPS = 24
_SEEN = 2**18  # input values that a first clip is chosen on


class _Round(torch.autograd.Function):
    """Round half to even; the gradient passes as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def round_through(x: Tensor) -> Tensor:
    """Return whole numbers with a straight-through gradient of 1."""
    found: Tensor = _Round.apply(x)
    return found


def squashed(weight: Tensor) -> Tensor:
    """Return ``tanh(w) / (2 max |tanh(w)|) + 1/2`` in [0, 1] (5.1); the gradient goes through the maximum too."""
    bounded = torch.tanh(weight)
    return bounded / (2 * bounded.abs().max().clamp_min(1e-12)) + 0.5


def dorefa(weight: Tensor, bits: int, scale: float = 1.0) -> Tensor:
    """Return ``scale * (2 q_b(w~) - 1)`` with q_b(x) = round(x (2^b - 1)) / (2^b - 1) (5.1); 32 bits change nothing.

    Computed as offset + step * code, with step and offset rounded to float32.
    """
    if bits == FULL_BITS:
        return weight
    step, offset = _affine(bits, scale)
    return offset + step * round_through(squashed(weight) * (2**bits - 1))


def _affine(bits: int, scale: float) -> tuple[float, float]:
    """Return step and offset, float32 values."""
    return float(np.float32(2 * scale / (2**bits - 1))), float(np.float32(-scale))


def layer_scale(layer: nn.Conv2d | nn.Linear) -> float:
    """Return what a layer's levels are multiplied by.

    1 where a batch norm comes behind, which is where there is no bias; else ``mean |w| / mean |Q_8(w)|``. [inferred]
    """
    if layer.bias is None:
        return 1.0
    with torch.no_grad():
        size = float(layer.weight.abs().mean()) / float(dorefa(layer.weight, 8).abs().mean())
    return max(size, 1e-12)


class WeightQuantizer(nn.Module):
    """A weight with given bits."""

    def __init__(self, bits: int, scale: float) -> None:
        super().__init__()
        self.bits, self.scale = bits, scale

    def forward(self, weight: Tensor) -> Tensor:
        """Return the quantised weight."""
        return dorefa(weight, self.bits, self.scale)


class _Levels(torch.autograd.Function):
    """Clip and round; the gradient reaches x inside of the clip, and the clip where x lies outside (PACT)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clip: Tensor, bits: int, zero: int) -> Tensor:
        top = 2**bits - 1
        scale = _step(clip, bits, zero)
        codes = torch.clamp(torch.round(x / scale) + zero, 0, top)
        low = -clip if zero else torch.zeros_like(clip)
        ctx.save_for_backward(x < low if zero else x <= low, x >= clip)
        ctx.signed = bool(zero)
        found: Tensor = (codes - zero) * scale
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        below, above = ctx.saved_tensors
        to_x = gradient.masked_fill(below | above, 0.0)
        to_clip = gradient[above].sum() - (gradient[below].sum() if ctx.signed else 0.0)
        return to_x, to_clip, None, None


def _step(clip: Tensor, bits: int, zero: int) -> Tensor:
    """Return the distance of two levels: up to the clip on one side, or on both (signed)."""
    return clip * (2.0 if zero else 1.0) / (2**bits - 1)


class InputQuantizer(nn.Module):
    """The input of a layer: levels from 0 (signed inputs: on both sides of 0) to a clip (5.2).

    Parameters
    ----------
    bits
        1 to 8, or 32.
    signed
        Whether there are negative values.
    clip
        At first.
    learned
        Whether the clip is (PACT) or stays (DoReFa).
    """

    def __init__(self, bits: int, signed: bool, clip: float, learned: bool) -> None:
        super().__init__()
        self.bits = bits
        self.zero = 2 ** (bits - 1) if signed and bits < FULL_BITS else 0
        self.clip = nn.Parameter(torch.tensor(max(clip, _LEAST_CLIP)), requires_grad=learned)

    def forward(self, x: Tensor) -> Tensor:
        """Return the quantised input."""
        if self.bits == FULL_BITS:
            return x
        found: Tensor = _Levels.apply(x, self.clip, self.bits, self.zero)
        return found

    @torch.no_grad()
    def bound(self) -> None:
        """Keep the clip positive after a step."""
        self.clip.clamp_(min=_LEAST_CLIP)

    def exported(self) -> QuantizedInput:
        """Return what the task takes."""
        if self.bits == FULL_BITS:
            return QuantizedInput()
        return QuantizedInput(self.bits, float(_step(self.clip.detach(), self.bits, self.zero)), self.zero)


class PictureQuantizer(nn.Module):
    """The pictures: levels over the range that training pictures have; nothing is learned.

    Parameters
    ----------
    bits
        1 to 8, or 32.
    least, largest
        The range.
    """

    def __init__(self, bits: int, least: float, largest: float) -> None:
        super().__init__()
        low, top = min(least, 0.0), 2**bits - 1
        step = float(np.float32(max(largest - low, 1e-6) / top)) if bits < FULL_BITS else 1.0
        self.seen = QuantizedInput(bits, step, min(round(-low / step), top)) if bits < FULL_BITS else QuantizedInput()

    def forward(self, x: Tensor) -> Tensor:
        """Return the quantised pictures."""
        from benchsuite.tasks.mixed_precision_quantization.packed import quantized_input

        return quantized_input(x, self.seen)

    def exported(self) -> QuantizedInput:
        """Return what the task takes."""
        return self.seen


class QuantizedLayer(nn.Module):
    """A convolution or linear layer between the quantisers of its weight and its input."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, weight: nn.Module, seen: nn.Module) -> None:
        super().__init__()
        self.layer, self.weight_quantizer, self.input_quantizer = layer, weight, seen

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer makes of quantised input and weight."""
        x, weight = self.input_quantizer(x), self.weight_quantizer(self.layer.weight)
        if isinstance(self.layer, nn.Conv2d):
            found: Tensor = self.layer._conv_forward(x, weight, self.layer.bias)
            return found
        return F.linear(x, weight, self.layer.bias)


def quantized_layers(network: nn.Module) -> Iterator[tuple[str, QuantizedLayer]]:
    """Yield the quantised layers of a network with their names."""
    for name, module in network.named_modules():
        if isinstance(module, QuantizedLayer):
            yield name, module


def with_quantizers(
    model: FullPrecision,
    input_bits: Mapping[str, int],
    learned: bool,
    pictures: Tensor,
    weights: Mapping[str, nn.Module],
) -> nn.Module:
    """Return a copy of the full-precision network with quantisers.

    Parameters
    ----------
    model
        The network.
    input_bits
        Bits of the input of each layer.
    learned
        Whether clips are; they start where the squared error on ``pictures`` is least. Else they are 1.
    pictures
        (B, C, H, W) training pictures.
    weights
        A quantiser for the weight of each layer.
    """
    network = model.build()
    clips = _first_clips(network, model.layers, input_bits, pictures) if learned else {}
    for place, layer in enumerate(model.layers):
        bits = input_bits[layer.name]
        seen: nn.Module
        if place == 0:
            seen = PictureQuantizer(bits, layer.least, layer.largest)
        else:
            seen = InputQuantizer(bits, layer.signed, clips.get(layer.name, 1.0), learned and bits < FULL_BITS)
        parent, _, child = layer.name.rpartition(".")
        owner = network.get_submodule(parent)
        setattr(owner, child, QuantizedLayer(getattr(owner, child), weights[layer.name], seen))
    return network.to(pictures.device)


@torch.no_grad()
def _first_clips(
    network: nn.Module, layers: tuple[Layer, ...], input_bits: Mapping[str, int], pictures: Tensor
) -> dict[str, float]:
    """Return for each layer the clip of the least squared error of its input, among 24 shares of the largest value."""
    found: dict[str, float] = {}

    def watch(layer: Layer) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].flatten()
            x = x[:: max(1, len(x) // _SEEN)]
            bits, largest = input_bits[layer.name], max(float(x.abs().max()), _LEAST_CLIP)
            if bits == FULL_BITS:
                return
            zero = 2 ** (bits - 1) if layer.signed else 0
            clips = largest * torch.arange(1, _CLIPS + 1, device=x.device) / _CLIPS
            errors = torch.stack([(_Levels.apply(x, clip, bits, zero) - x).square().mean() for clip in clips])
            found[layer.name] = float(clips[errors.argmin()])

        return hook

    handles = [network.get_submodule(la.name).register_forward_pre_hook(watch(la)) for la in layers]
    try:
        network(pictures)
    finally:
        for handle in handles:
            handle.remove()
    return found


def exported(network: nn.Module, model: FullPrecision, **tables: Any) -> QuantizedModel:
    """Return a network with quantisers, whose bits are given, as the task takes it."""
    network.eval()
    weights, inputs = {}, {}
    for name, module in quantized_layers(network):
        quantizer: Any = module.weight_quantizer
        inputs[name] = module.input_quantizer.exported()
        weight = module.layer.weight.detach()
        if quantizer.bits == FULL_BITS:
            weights[name] = QuantizedWeight(FULL_BITS, weight.cpu().numpy().astype(np.float32))
            continue
        codes = torch.round(squashed(weight) * (2**quantizer.bits - 1))
        step, offset = _affine(quantizer.bits, quantizer.scale)
        weights[name] = QuantizedWeight(
            quantizer.bits,
            codes.cpu().numpy().astype(np.uint8),
            np.array(step, np.float32),
            np.array(offset, np.float32),
        )
    scalars = scalars_of(model.build(), list(weights))
    state = network.state_dict()
    inner = {f"{name}.bias": f"{name}.layer.bias" for name in weights}
    trained = {name: state[inner.get(name, name)].cpu().numpy().astype(np.float32) for name in scalars}
    return QuantizedModel(weights, inputs, trained, network, tables)
