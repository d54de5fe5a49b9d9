"""EMO as a plain transcription of the paper's fact sheet: functions of a state dict, window by window as it is written.

Nothing here comes from the plugin but the sizes of the variants. Serves as the reference of tests and of the benchmark.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6
State = dict[str, Tensor]


def batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    values = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    mean, variance, gain, shift = (value[None, :, None, None] for value in values)
    return (x - mean) / torch.sqrt(variance + EPS) * gain + shift


def layer_norm(state: State, name: str, x: Tensor) -> Tensor:
    mean = x.mean(dim=1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=1, keepdim=True)
    normed = (x - mean) / torch.sqrt(variance + EPS)
    return normed * state[f"{name}.norm.weight"][:, None, None] + state[f"{name}.norm.bias"][:, None, None]


def norm(state: State, name: str, x: Tensor) -> Tensor:
    if f"{name}.norm.weight" in state:
        return layer_norm(state, name, x)
    return batch_norm(state, name, x) if f"{name}.weight" in state else x


def attended(state: State, name: str, x: Tensor, head: int, window: int) -> Tensor:
    """Return the averages of the normed inputs, each window on its own."""
    batch, channels, height, width = x.shape
    x = F.pad(x, (0, -width % window, 0, -height % window))
    rows, columns, heads = x.shape[2] // window, x.shape[3] // window, channels // head
    qk = F.conv2d(x, state[f"{name}.qk.conv.weight"], state[f"{name}.qk.conv.bias"])
    found = torch.zeros_like(x)
    for row in range(rows):
        for column in range(columns):
            of_window = (..., slice(row, None, rows), slice(column, None, columns))
            q, k = qk[of_window].reshape(batch, 2, heads, head, window * window).unbind(1)
            values = x[of_window].reshape(batch, heads, head, window * window)
            weights = torch.softmax(torch.einsum("bhdq,bhdk->bhqk", q, k) / head**0.5, dim=-1)
            average = torch.einsum("bhqk,bhdk->bhdq", weights, values)
            found[of_window] = average.reshape(batch, channels, window, window)
    return found


def block(state: State, name: str, x: Tensor, activation: Any, head: int, window: int, kernel: int) -> Tensor:
    skip = f"{name}.qk.conv.weight" in state or (not name.endswith(".0") and not name.startswith("stage0"))
    shortcut, (height, width) = x, x.shape[2:]
    x = norm(state, f"{name}.norm", x)
    if f"{name}.qk.conv.weight" in state:
        x = attended(state, name, x, head, window)
    if f"{name}.v.conv.weight" in state:
        x = activation(F.conv2d(x, state[f"{name}.v.conv.weight"], state[f"{name}.v.conv.bias"]))
    x = x[:, :, :height, :width]
    stride = 2 if name.endswith(".0") and not name.startswith("stage0") else 1
    padding = -((stride - kernel) // 2)
    local = F.conv2d(x, state[f"{name}.conv_local.conv.weight"], None, stride, padding, groups=x.shape[1])
    local = batch_norm(state, f"{name}.conv_local.norm", local)
    local = local * torch.sigmoid(local)
    if f"{name}.se.conv_reduce.weight" in state:
        gate = local.mean(dim=(2, 3), keepdim=True)
        gate = F.conv2d(gate, state[f"{name}.se.conv_reduce.weight"], state[f"{name}.se.conv_reduce.bias"])
        gate = F.conv2d(F.silu(gate), state[f"{name}.se.conv_expand.weight"], state[f"{name}.se.conv_expand.bias"])
        local = local * torch.sigmoid(gate)
    x = F.conv2d(x + local if skip else local, state[f"{name}.proj.conv.weight"])
    return shortcut + x if skip else x


def plain_emo(state: State, shape: Any, x: Tensor) -> Tensor:
    """Return logits in evaluation mode; ``shape`` has depths, head_widths, kernels, activations and window."""
    x = F.conv2d(x, state["stage0.0.convs.0.0.weight"], state["stage0.0.convs.0.0.bias"], stride=2, padding=1)
    x = batch_norm(state, "stage0.0.convs.0.1", x)
    x = block(state, "stage0.1", x, F.silu, 1, shape.window, 3)
    for phase in range(4):
        activation = {"silu": F.silu, "gelu": F.gelu}[shape.activations[phase]]
        for place in range(shape.depths[phase]):
            name = f"stage{phase + 1}.{place}"
            x = block(state, name, x, activation, shape.head_widths[phase], shape.window, shape.kernels[phase])
    return F.linear(layer_norm(state, "norm", x).mean(dim=(2, 3)), state["head.weight"], state["head.bias"])
