"""The deployed form of a network: what training needs is folded away, what is left runs with few copies.

Of an EMO: batch norms are folded into the convolutions beside them, 1x1 convolutions are products of matrices on
maps with
the channels last, attention is one fused call with its scale folded into the queries, and the last norm's gain is
part of the
head. Pixels are dealt out to windows once a block, before queries and keys are made, and with a single window not
at all.

Of any other network: branches of training are merged (timm's ``reparameterize_model``), batch norms behind convolutions
are folded wherever the graph can be traced, channels come last.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from benchsuite_emo.blocks import EPSILON, IRMB, ConvNorm, LayerNorm2d
from benchsuite_emo.model import EMO, EMOFeatures

__all__ = ["compiled", "compiler", "deployed", "export_onnx"]


def deployed(network: nn.Module) -> nn.Module:
    """Return a network that computes the same in evaluation mode, faster; the original is left as it is.

    Parameters
    ----------
    network
        Any network; EMO networks and batch norms inside are found. Inputs and outputs stay (B, C, H, W).
    """
    if isinstance(network, EMO):
        return _DeployedEMO(network).eval()
    if isinstance(network, EMOFeatures):
        return _DeployedFeatures(network).eval()
    found = copy.deepcopy(network).eval()
    if type(network).__module__.startswith("timm."):
        return _with_channels_last(_folded_by_graph(_reparameterised(found)))
    _replace_inside(found)
    return _with_channels_last(found)


def _replace_inside(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, (EMO, EMOFeatures)) or type(child).__module__.startswith("timm."):
            setattr(module, name, deployed(child))
        elif isinstance(child, nn.Sequential):
            setattr(module, name, _folded_sequence(child))
        else:
            _replace_inside(child)


def _folded_sequence(layers: nn.Sequential) -> nn.Sequential:
    found: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d) and found and isinstance(found[-1], nn.Conv2d):
            found[-1] = _folded_conv(found[-1], layer)
        elif isinstance(layer, nn.Sequential):
            found.append(_folded_sequence(layer))
        else:
            _replace_inside(layer)
            found.append(layer)
    return nn.Sequential(*found)


def _with_channels_last(network: nn.Module) -> nn.Module:
    return _ChannelsLast(network.to(memory_format=torch.channels_last)).eval()


class _ChannelsLast(nn.Module):
    """Hands pictures over with their channels last in memory."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network(x.contiguous(memory_format=torch.channels_last))


# --- folding ---


def _gain_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return what a batch norm multiplies by and adds in evaluation mode, in float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    gain = gain if norm.weight is None else gain * norm.weight.double()
    shift = -norm.running_mean.double() * gain
    return gain.detach(), (shift if norm.bias is None else shift + norm.bias.double()).detach()


def _folded(weight: Tensor, bias: Tensor | None, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution (outputs first) with the batch norm behind it folded in."""
    assert isinstance(norm, nn.BatchNorm2d)
    gain, shift = _gain_and_shift(norm)
    shift = shift if bias is None else shift + bias.detach().double() * gain
    scaled = weight.detach().double() * gain.view(-1, *(1 for _ in weight.shape[1:]))
    return scaled.to(weight.dtype), shift.to(weight.dtype)


def _folded_conv(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    found = copy.deepcopy(conv)
    weight, bias = _folded(conv.weight, conv.bias, norm)
    found.weight, found.bias = nn.Parameter(weight), nn.Parameter(bias)
    return found


class _Tracer(torch.fx.Tracer):
    """Sees convolutions and norms of timm's as single steps."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (nn.Conv2d, nn.BatchNorm2d)) or super().is_leaf_module(m, module_qualified_name)


def _reparameterised(network: nn.Module) -> nn.Module:
    from timm.utils.model import reparameterize_model

    found: nn.Module = reparameterize_model(network)
    return found


def _folded_by_graph(network: nn.Module) -> nn.Module:
    """Fold each batch norm that alone follows a convolution."""
    try:
        graph = _Tracer().trace(network)
    except Exception:  # whatever a traced forward pass raises on symbols: control flow that depends on shapes
        return _folded_by_name(network)
    traced = torch.fx.GraphModule(network, graph)
    modules = dict(traced.named_modules())
    for node in list(graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        before = node.args[0] if node.args else None
        if not isinstance(norm, nn.BatchNorm2d) or not isinstance(before, torch.fx.Node) or norm.running_mean is None:
            continue
        conv = modules.get(str(before.target)) if before.op == "call_module" else None
        if type(conv) is not nn.Conv2d or len(before.users) != 1:
            continue
        _set(traced, str(before.target), _folded_conv(conv, norm))
        _set(traced, str(node.target), _behind(norm))
    traced.recompile()
    return traced


def _folded_by_name(network: nn.Module) -> nn.Module:
    """Fold what timm keeps as ``conv`` and ``bn`` of one layer; for networks that cannot be traced."""
    for layer in list(network.modules()):
        conv, norm = getattr(layer, "conv", None), getattr(layer, "bn", None)
        if not type(layer).__module__.startswith("timm.layers") or type(conv) is not nn.Conv2d:
            continue
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
            layer.conv, layer.bn = _folded_conv(conv, norm), _behind(norm)
    return network


def _behind(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what timm's norms do besides."""
    parts = (getattr(norm, name, None) for name in ("drop", "act"))
    return nn.Sequential(*(part for part in parts if isinstance(part, nn.Module)))


def _set(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(operator.attrgetter(parent)(network) if parent else network, last, module)


# --- EMO with channels last: maps are (B, H, W, C) throughout ---


class _Frozen(nn.Module):
    """Keeps tensors as buffers that are no part of a state dict."""

    def _keep(self, **tensors: Tensor | None) -> None:
        for name, value in tensors.items():
            self.register_buffer(name, None if value is None else value.detach().clone(), persistent=False)


class _Depthwise(_Frozen):
    """A depth-wise convolution with its batch norm folded in, then SiLU."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: ConvNorm) -> None:
        super().__init__()
        weight, bias = _folded(layer.conv.weight, None, layer.norm)
        self._keep(weight=weight.contiguous(memory_format=torch.channels_last), bias=bias)
        self.stride, self.padding, self.groups = layer.conv.stride, layer.conv.padding, layer.conv.groups

    def forward(self, x: Tensor) -> Tensor:
        maps = x.permute(0, 3, 1, 2)
        found = F.conv2d(maps, self.weight, self.bias, self.stride, self.padding, groups=self.groups)
        return F.silu(found, inplace=True).permute(0, 2, 3, 1)


class _Attention(_Frozen):
    """Averages of the un-expanded inputs inside strided windows."""

    weight: Tensor
    bias: Tensor

    def __init__(self, block: IRMB) -> None:
        super().__init__()
        self.head_width, self.window = block.shape.head_width, block.shape.window
        conv, width = block.qk.conv, block.shape.inputs
        assert conv.bias is not None
        weight, bias = conv.weight.detach()[:, :, 0, 0].clone(), conv.bias.detach().clone()
        weight[:width] *= self.head_width**-0.5
        bias[:width] *= self.head_width**-0.5
        self._keep(weight=weight, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        sides = (self.window, self.window) if self.window else (height, width)
        rows, columns = math.ceil(height / sides[0]), math.ceil(width / sides[1])
        padding = (0, 0, 0, columns * sides[1] - width, 0, rows * sides[0] - height)
        x = F.pad(x, padding) if any(padding) else x
        if rows * columns > 1:
            x = x.view(batch, sides[0], rows, sides[1], columns, channels).permute(0, 2, 4, 1, 3, 5)
        x = x.reshape(batch * rows * columns, sides[0] * sides[1], channels)  # (B windows, N, C)
        shape = (-1, channels // self.head_width, self.head_width)
        q, k = F.linear(x, self.weight, self.bias).unflatten(2, (2, *shape[1:])).unbind(2)  # (B windows, N, heads, d)
        q, k, v = (part.transpose(1, 2) for part in (q, k, x.unflatten(2, shape[1:])))
        x = F.scaled_dot_product_attention(q, k, v, scale=1.0).transpose(1, 2).flatten(2)
        if rows * columns > 1:
            x = x.view(batch, rows, columns, *sides, channels).permute(0, 3, 1, 4, 2, 5)
        x = x.reshape(batch, rows * sides[0], columns * sides[1], channels)
        return x[:, :height, :width] if any(padding) else x


# What is freshly made is overwritten: nothing here is differentiated.
_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": lambda x: F.silu(x, inplace=True),
    "gelu": torch.ops.aten.gelu_,
}


class _DeployedBlock(_Frozen):
    """An `IRMB`; a batch norm before it is folded unless it attends: zeros of the padding lie between."""

    gain: Tensor | None
    shift: Tensor | None
    expand_weight: Tensor | None
    expand_bias: Tensor | None
    shrink: Tensor

    def __init__(self, block: IRMB) -> None:
        super().__init__()
        self.skip, self.squeeze = block.skip, block.se if block.shape.squeeze else None
        self.activation = _IN_PLACE.get(block.shape.activation)
        self.attention = _Attention(block) if block.shape.attention else None
        self.depthwise = _Depthwise(block.conv_local) if block.depthwise else None
        gain = shift = weight = bias = None
        self.layer_norm = isinstance(block.norm, LayerNorm2d)
        if isinstance(block.v, ConvNorm):
            weight, bias = block.v.conv.weight[:, :, 0, 0], block.v.conv.bias
        if isinstance(block.norm, LayerNorm2d):
            gain, shift = block.norm.norm.weight, block.norm.norm.bias
        elif isinstance(block.norm, nn.BatchNorm2d):
            exact_gain, exact_shift = _gain_and_shift(block.norm)
            if self.attention is None and weight is not None and bias is not None:
                bias = (bias.double() + weight.double() @ exact_shift).to(weight.dtype)
                weight = (weight.double() * exact_gain).to(weight.dtype)
            else:
                gain, shift = (part.to(torch.get_default_dtype()) for part in (exact_gain, exact_shift))
        self._keep(gain=gain, shift=shift, expand_weight=weight, expand_bias=bias)
        self._keep(shrink=block.proj.conv.weight[:, :, 0, 0])

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.layer_norm:
            x = F.layer_norm(x, x.shape[3:], self.gain, self.shift, EPSILON)
        elif self.gain is not None and self.shift is not None:
            x = x * self.gain + self.shift
        if self.attention is not None:
            x = self.attention(x)
        if self.expand_weight is not None:
            x = F.linear(x, self.expand_weight, self.expand_bias)
            x = x if self.activation is None else self.activation(x)
        if self.depthwise is not None:
            local = self.depthwise(x)
            if self.squeeze is not None:
                local = self.squeeze(local.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            x = local.add_(x) if self.skip else local
        x = F.linear(x, self.shrink)
        return x.add_(shortcut) if self.skip else x


class _KeptBlock(nn.Module):
    """A block of another order than the released ones', as it is."""

    def __init__(self, block: IRMB) -> None:
        super().__init__()
        self.block = copy.deepcopy(block)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.block(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return found


def _deployed_block(block: IRMB) -> nn.Module:
    released = block.shape.attend_first and not block.shape.group_values
    return _DeployedBlock(block) if released or not block.shape.attention else _KeptBlock(block)


class _DeployedMaps(_Frozen):
    """Stem and phases."""

    def __init__(self, network: EMO) -> None:
        super().__init__()
        conv, norm = network.stage0[0].convs[0]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        self.stem = _folded_conv(conv, norm).to(memory_format=torch.channels_last)
        blocks = [[network.stage0[1]], *(list(getattr(network, f"stage{phase}")) for phase in range(1, 5))]
        self.stages = nn.ModuleList(nn.Sequential(*(_deployed_block(b) for b in stage)) for stage in blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class _DeployedEMO(_Frozen):
    """A classifier."""

    weight: Tensor
    bias: Tensor

    def __init__(self, network: EMO) -> None:
        super().__init__()
        self.maps = _DeployedMaps(network)
        gain, shift = network.norm.norm.weight.detach().double(), network.norm.norm.bias.detach().double()
        weight, bias = network.head.weight.detach().double(), network.head.bias.detach().double()
        self._keep(
            weight=(weight * gain).to(network.head.weight.dtype),
            bias=(bias + weight @ shift).to(network.head.weight.dtype),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.maps(x)[-1]
        return F.linear(F.layer_norm(x, x.shape[3:], eps=EPSILON).mean((1, 2)), self.weight, self.bias)


class _DeployedFeatures(nn.Module):
    """Maps for a dense head."""

    def __init__(self, features: EMOFeatures) -> None:
        super().__init__()
        self.maps, self.out_indices = _DeployedMaps(features.network), features.out_indices
        self.channels, self.strides = features.channels, features.strides

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.maps(x)
        return [maps[i].permute(0, 3, 1, 2) for i in self.out_indices]


# --- compilers and exports ---


def compiler() -> str | None:
    """Return the C++ compiler that ``torch.compile`` would use on the CPU, or None."""
    import os
    import shutil

    names = [name for name in (os.environ.get("CXX"), "g++", "clang++") if name]
    return next((found for found in map(shutil.which, names) if found), None)


def compiled(network: nn.Module, device: str = "cpu") -> Callable[[Tensor], Any]:
    """Return a network compiled by torch, or itself where there is no compiler.

    The first call with an input of each shape takes tens of seconds.
    """
    if device == "cpu" and compiler() is None:
        return network
    found: Callable[[Tensor], Any] = torch.compile(network)
    return found


def export_onnx(network: nn.Module, path: Path, size: int) -> None:
    """Write a network as an ONNX file that takes any number of square pictures of one size.

    Parameters
    ----------
    network
        In evaluation mode.
    path
        Of the file.
    size
        Side of the pictures.
    """
    example = torch.zeros(2, 3, size, size)
    batch = torch.export.Dim("batch", min=1)
    torch.onnx.export(
        network.eval(),
        (example,),
        str(path),
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=["images"],
        dynamic_shapes=({0: batch},),
    )
