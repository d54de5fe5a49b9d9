"""Brevitas and torchao as they come, and the network in full precision: what they make becomes codes and scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchsuite.core import RunContext
from benchsuite.tasks.mixed_precision_quantization.contract import (
    FULL_BITS,
    Budget,
    FullPrecision,
    Layer,
    QuantizationData,
    QuantizedInput,
    QuantizedModel,
    QuantizedWeight,
    Quantizer,
    average_bits,
)
from benchsuite.tasks.mixed_precision_quantization.networks import build_network
from benchsuite.tasks.mixed_precision_quantization.packed import scalars_of
from benchsuite_baselines.quantization.config import (
    BrevitasConfig,
    FullPrecisionConfig,
    TorchaoConfig,
    TrainingConfig,
)

__all__ = ["BrevitasUniform", "KeepFullPrecision", "Torchao"]

_MOMENTUM = 0.9


class KeepFullPrecision(Quantizer):
    """Quantises nothing: the row above which nobody is expected, and which no budget allows."""

    Config: ClassVar[type] = FullPrecisionConfig

    def quantize(self, model: FullPrecision, data: QuantizationData, budget: Budget, ctx: RunContext) -> QuantizedModel:
        """See `Quantizer.quantize`."""
        network = model.build()
        names = [layer.name for layer in model.layers]
        weights = {name: _untouched(network.get_submodule(name).weight) for name in names}
        return QuantizedModel(weights, {name: QuantizedInput() for name in names}, scalars_of(network, names), network)

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield a network on two pictures."""
        yield build_network("mlp", 1, 10, 8).eval(), (torch.randn(2, 1, 8, 8),)


class BrevitasUniform(Quantizer):
    """Brevitas' layers with learned scales of weights and inputs (in the manner of LSQ), the same bits everywhere."""

    Config: ClassVar[type] = BrevitasConfig
    config: BrevitasConfig

    def quantize(self, model: FullPrecision, data: QuantizationData, budget: Budget, ctx: RunContext) -> QuantizedModel:
        """See `Quantizer.quantize`."""
        torch.manual_seed(ctx.seed_for("run", "start"))
        network = model.build()
        bits = _most_bits(model.layers, budget)
        for layer in model.layers:
            parent, _, child = layer.name.rpartition(".")
            owner = network.get_submodule(parent)
            made = self._layer(getattr(owner, child), bits[layer.name], budget.input_bits[layer.name], layer.signed)
            setattr(owner, child, made.to(ctx.device))
        self._settle(network, data, ctx)
        with _states_restored_in_place():
            curve = learn(network, model, data, self.config, ctx)
        network.eval()
        with torch.no_grad():  # what follows reads the scales of a network that has seen pictures
            network(data.prepared(range(min(2, len(data)))).to(ctx.device))
        weights, inputs = {}, {}
        for layer in model.layers:
            made = network.get_submodule(layer.name)
            weights[layer.name] = _of_brevitas(made.quant_weight(), bits[layer.name])
            inputs[layer.name] = _input_of_brevitas(made, budget.input_bits[layer.name], layer.signed)
        return QuantizedModel(weights, inputs, _scalars(model, network), tables={"training": curve})

    @torch.no_grad()
    def _settle(self, network: nn.Module, data: QuantizationData, ctx: RunContext) -> None:
        """Let all scales find their start before the training."""
        batch = min(self.config.batch_size, len(data))
        network.train()
        for step in range(self.config.collect_steps + 1):
            places = [place % len(data) for place in range(step * batch, (step + 1) * batch)]
            network(data.prepared(places).to(ctx.device))

    def _layer(self, layer: Any, bits: int, input_bits: int, signed: bool) -> nn.Module:
        """Return Brevitas' form of a layer, with its weight and bias."""
        from brevitas import nn as quant_nn
        from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat, Uint8ActPerTensorFloat

        options: dict[str, Any] = {
            **{"bias": layer.bias is not None, "weight_quant": Int8WeightPerTensorFloat, "weight_bit_width": bits},
            # the default leaves out the lowest code: 2 bits would be ternary
            **{"weight_narrow_range": False, "weight_scaling_impl_type": "parameter_from_stats"},
            "weight_scaling_stats_op": self.config.scale_from,
            "weight_scaling_per_output_channel": self.config.granularity == "channel",
        }
        if input_bits < FULL_BITS:
            options |= {
                "input_quant": Int8ActPerTensorFloat if signed else Uint8ActPerTensorFloat,
                "input_bit_width": input_bits,
                "input_collect_stats_steps": self.config.collect_steps,
            }
        if isinstance(layer, nn.Linear):
            made = quant_nn.QuantLinear(layer.in_features, layer.out_features, **options)
        else:
            made = quant_nn.QuantConv2d(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,
                stride=layer.stride,
                padding=layer.padding,
                dilation=layer.dilation,
                groups=layer.groups,
                **options,
            )
        made.load_state_dict(layer.state_dict(), strict=False)  # scales start from the weight that is loaded
        return made

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield nothing: Brevitas reads values while it computes, which no fake device has."""
        return iter(())


@contextmanager
def _states_restored_in_place() -> Iterator[None]:
    """Let Brevitas restore a kept state into the scales that the optimiser knows, instead of making new ones."""
    from brevitas import config

    before, config.REINIT_ON_STATE_DICT_LOAD = config.REINIT_ON_STATE_DICT_LOAD, False
    try:
        yield
    finally:
        config.REINIT_ON_STATE_DICT_LOAD = before


class Torchao(Quantizer):
    """torchao's weights-only integers with a scale an output channel: rounded, or trained with rounding.

    torchao touches linear layers only; convolutions stay as they are, at 32 bits.
    """

    Config: ClassVar[type] = TorchaoConfig
    config: TorchaoConfig

    def quantize(self, model: FullPrecision, data: QuantizationData, budget: Budget, ctx: RunContext) -> QuantizedModel:
        """See `Quantizer.quantize`."""
        from torchao.quantization import IntxWeightOnlyConfig, quantize_
        from torchao.quantization.granularity import PerAxis
        from torchao.quantization.qat import QATConfig

        network = model.build()
        integers = getattr(torch, f"int{self.config.bits}")
        base = IntxWeightOnlyConfig(weight_dtype=integers, granularity=PerAxis(0))
        curve = []
        if self.config.training:
            quantize_(network, QATConfig(base, step="prepare"))
            curve = learn(network, model, data, self.config, ctx)
            quantize_(network, QATConfig(base, step="convert"))
        else:
            quantize_(network, base)
        names = [layer.name for layer in model.layers]
        weights = {name: _of_torchao(network.get_submodule(name).weight, self.config.bits) for name in names}
        left = [name for name, weight in weights.items() if weight.bits == FULL_BITS]
        if left:
            ctx.log.warning(f"torchao quantises linear layers only: {len(left)} convolutions stay at {FULL_BITS} bits")
        inputs = {name: QuantizedInput() for name in names}
        return QuantizedModel(weights, inputs, _scalars(model, network), tables={"training": curve})

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield the network that is quantised."""
        yield build_network("mlp", 1, 10, 8).eval(), (torch.randn(2, 1, 8, 8),)


def learn(
    network: nn.Module,
    model: FullPrecision,
    data: QuantizationData,
    c: TrainingConfig,
    ctx: RunContext,
) -> list[dict[str, Any]]:
    """Train a network with fake quantisation, and return the curve of its loss."""
    batch = min(c.batch_size, len(data))
    a_pass = len(data) // batch
    total = c.steps or c.epochs * a_pass
    optimizer: torch.optim.Optimizer
    if c.optimizer == "adam":
        optimizer = torch.optim.Adam(network.parameters(), lr=c.lr, weight_decay=c.weight_decay)
    else:
        optimizer = torch.optim.SGD(network.parameters(), lr=c.lr, momentum=_MOMENTUM, weight_decay=c.weight_decay)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    seed, teacher = ctx.seed_for("run", "order"), model.build()
    augmenting = torch.Generator().manual_seed(ctx.seed_for("run", "augmenting"))
    labels = torch.from_numpy(data.labels)
    curve: list[dict[str, Any]] = []
    parts = {"network": network, "optimizer": optimizer, "rates": rates, "augmenting": augmenting, "curve": curve}
    network.train()
    for step in ctx.resumable("training", total, parts):
        shuffled = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed + step // a_pass))
        places = shuffled[step % a_pass * batch :][:batch]
        pictures = data.augmented(places.tolist(), augmenting).to(ctx.device)
        logits = _plain(network(pictures))
        if c.distillation:
            with torch.no_grad():
                answers = torch.softmax(teacher(pictures), dim=1)
            loss = F.cross_entropy(logits, answers)
        else:
            loss = F.cross_entropy(logits, labels[places].to(ctx.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        if step % max(1, total // 40) == 0:
            curve.append({"step": step, "loss": float(loss.detach())})
    return curve


def _plain(found: Any) -> torch.Tensor:
    value: Callable[[], torch.Tensor] | torch.Tensor = getattr(found, "value", found)
    return value if isinstance(value, torch.Tensor) else value()


def _most_bits(layers: tuple[Layer, ...], budget: Budget) -> dict[str, int]:
    """Return the most bits that all free layers may have."""
    found: dict[str, int] = {}
    for bits in budget.candidates:
        strategy = {layer.name: budget.pinned.get(layer.name, bits) for layer in layers}
        if not found or average_bits(layers, strategy) <= budget.weight_bits:
            found = strategy
    return found


def _scalars(model: FullPrecision, network: nn.Module) -> dict[str, Any]:
    """Return biases and norms of a trained network, by the names of the full-precision one."""
    names = [layer.name for layer in model.layers]
    state = network.state_dict()
    return {name: state[name].detach().float().cpu().numpy().copy() for name in scalars_of(model.build(), names)}


def _untouched(weight: torch.Tensor) -> QuantizedWeight:
    return QuantizedWeight(FULL_BITS, weight.detach().float().cpu().numpy().copy())


def _of_integers(integers: Any, scale: Any, bits: int) -> QuantizedWeight:
    """Return signed integers and their scales, () or (output channels,), as codes from 0 on."""
    codes = integers.detach().cpu().numpy().astype(np.int64) + 2 ** (bits - 1)
    step = scale.detach().float().cpu().numpy()
    step = step.reshape(-1).astype(np.float32) if step.size > 1 else np.float32(step.reshape(()))
    return QuantizedWeight(bits, codes.astype(np.uint8), np.asarray(step), np.asarray(-step * 2 ** (bits - 1)))


def _of_brevitas(weight: Any, bits: int) -> QuantizedWeight:
    return _of_integers(weight.int(float_datatype=False), weight.scale, bits)


def _input_of_brevitas(layer: Any, bits: int, signed: bool) -> QuantizedInput:
    if bits == FULL_BITS:
        return QuantizedInput()
    scale = float(np.float32(layer.input_quant.scale().detach().cpu().numpy()))
    return QuantizedInput(bits, scale, 2 ** (bits - 1) if signed else 0)


def _of_torchao(weight: Any, bits: int) -> QuantizedWeight:
    if not hasattr(weight, "qdata"):
        return _untouched(weight)
    if bool((weight.zero_point != 0).any()):
        raise RuntimeError("torchao gave weights with a zero point: only symmetric ones can be turned into codes")
    return _of_integers(weight.qdata, weight.scale, bits)
