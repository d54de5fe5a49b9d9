"""The inverted residual mobile block (iRMB): window attention in an expansion, a depth-wise convolution, shrinking.

Attribute names follow the released checkpoints, so that a state dict loads unchanged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["EPSILON", "IRMB", "BlockShape", "ConvNorm", "DropPath", "LayerNorm2d", "from_windows", "to_windows"]

EPSILON = 1e-6
"""Of every norm, batch norm too."""

_ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "gelu": nn.GELU, "none": nn.Identity}


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of maps (B, C, H, W). The inner module is nested, as in the released checkpoints."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the same shape."""
        found: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return found


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=EPSILON) if kind == "bn" else LayerNorm2d(channels)


class ConvNorm(nn.Module):
    """A convolution, perhaps a batch norm, perhaps an activation; padded by ceil((kernel - stride) / 2)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        norm: bool = False,
        activation: str = "none",
    ) -> None:
        super().__init__()
        padding = math.ceil((kernel - stride) / 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(outputs, eps=EPSILON) if norm else nn.Identity()
        self.act = _ACTIVATIONS[activation]()
        if isinstance(self.act, nn.SiLU):
            self.act.inplace = True  # what it reads is its own

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H', W')."""
        found: Tensor = self.act(self.norm(self.conv(x)))
        return found


class SqueezeExcite(nn.Module):
    """Channels weighted by a gate on their means."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        reduced = round(channels * ratio)
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.act = nn.SiLU()
        self.conv_expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the same shape."""
        return x * torch.sigmoid(self.conv_expand(self.act(self.conv_reduce(x.mean((2, 3), keepdim=True)))))


class DropPath(nn.Module):
    """In training a sample's branch is dropped with probability ``rate``, else scaled by 1 / (1 - rate)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the same shape."""
        if not self.training or not self.rate:
            return x
        kept = torch.rand((len(x), 1, 1, 1), device=x.device, dtype=x.dtype) >= self.rate
        return x * kept / (1 - self.rate)


def to_windows(x: Tensor, rows: int, columns: int) -> Tensor:
    """Deal the pixels of maps out to strided windows.

    Pixel (r, c) belongs to window (r mod rows, c mod columns) at position (r div rows, c div columns): neighbours
    lie in different windows, and every window spans the whole map.

    Parameters
    ----------
    x
        (B, C, H, W); H a multiple of ``rows``, W of ``columns``.
    rows, columns
        Number of windows down and across.

    Returns
    -------
    Tensor
        (B * rows * columns, C, H / rows, W / columns). With one window nothing is copied.
    """
    if rows == columns == 1:
        return x
    parts = x.unflatten(3, (-1, columns)).unflatten(2, (-1, rows))  # (B, C, h, rows, w, columns)
    return parts.permute(0, 3, 5, 1, 2, 4).flatten(0, 2)


def from_windows(x: Tensor, rows: int, columns: int) -> Tensor:
    """Undo `to_windows`."""
    if rows == columns == 1:
        return x
    parts = x.unflatten(0, (-1, rows, columns))  # (B, rows, columns, C, h, w)
    return parts.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """What one block is.

    Attributes
    ----------
    inputs, outputs, expansion
        Channels; inside there are ``int(inputs * expansion)``.
    norm, activation
        ``bn``, ``ln`` or ``none``; ``silu`` or ``gelu`` behind the expansion.
    kernel, stride
        Of the depth-wise convolution.
    skip
        The block's residuals, where shapes allow them.
    expand
        The 1x1 expansion; without it the depth-wise convolution sees the inputs.
    attention, head_width, window
        Whether the block attends, channels of a head, side of a window (0: one window is the whole map).
    attend_first
        Attention averages the un-expanded inputs, which are expanded then, as in every released model; else what is
        expanded is averaged, in as many equal groups of channels as there are heads.
    group_values
        One group of the expansion a head.
    squeeze
        Ratio of the squeeze-and-excite gate; 0 for none.
    depthwise
        False leaves out the depth-wise convolution of blocks that keep their shape.
    drop_path
        Rate of dropped branches.
    """

    inputs: int
    outputs: int
    expansion: float = 1.0
    norm: Literal["bn", "ln", "none"] = "bn"
    activation: str = "silu"
    kernel: int = 3
    stride: int = 1
    skip: bool = True
    expand: bool = True
    attention: bool = False
    head_width: int = 16
    window: int = 7
    attend_first: bool = True
    group_values: bool = False
    squeeze: float = 0.0
    depthwise: bool = True
    drop_path: float = 0.0


class IRMB(nn.Module):
    """The block; see `BlockShape`."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        s = self.shape = shape
        middle = int(s.inputs * s.expansion)
        self.skip = s.skip and s.inputs == s.outputs and s.stride == 1
        self.norm = nn.Identity() if s.norm == "none" else _norm(s.norm, s.inputs)
        heads = s.inputs // s.head_width if s.attention else 1
        if s.attention:
            if s.inputs % s.head_width:
                raise ValueError(f"{s.inputs} channels cannot be parted into heads of {s.head_width}")
            if (not s.attend_first or s.group_values) and middle % heads:
                raise ValueError(f"{middle} expanded channels cannot be parted among {heads} heads")
            self.qk = ConvNorm(s.inputs, 2 * s.inputs, bias=True)
        groups = heads if s.group_values else 1
        if s.expand:
            self.v: nn.Module = ConvNorm(s.inputs, middle, groups=groups, bias=True, activation=s.activation)
        else:
            self.v = nn.Identity()
        self.depthwise = s.depthwise or not self.skip
        if self.depthwise:
            self.conv_local = ConvNorm(
                middle, middle, s.kernel, stride=s.stride, groups=middle, norm=True, activation="silu"
            )
        self.se: nn.Module = SqueezeExcite(middle, s.squeeze) if s.squeeze else nn.Identity()
        self.proj = ConvNorm(middle, s.outputs)
        self.drop_path: nn.Module = DropPath(s.drop_path) if s.drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride)."""
        shortcut, x = x, self.norm(x)
        x = self._attended(x) if self.shape.attention else self.v(x)
        if self.depthwise:
            local = self.se(self.conv_local(x))
            x = x + local if self.skip else local
        x = self.proj(x)
        return shortcut + self.drop_path(x) if self.skip else x

    def _attended(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        window = self.shape.window or max(height, width)
        sides = (window, window) if self.shape.window else (height, width)
        rows, columns = math.ceil(height / sides[0]), math.ceil(width / sides[1])
        # Padded pixels are zeros only here: by the bias of `qk` they are keys like others, and nothing masks them.
        padding = (0, columns * sides[1] - width, 0, rows * sides[0] - height)
        x = F.pad(x, padding) if any(padding) else x
        x = to_windows(x, rows, columns)  # (B rows columns, C, h, w)
        weights = self.attention(x)
        if self.shape.attend_first:
            x = self.v(from_windows(_averaged(weights, x), rows, columns))
        else:
            x = from_windows(_averaged(weights, self.v(x)), rows, columns)
        return x[:, :, :height, :width]

    def attention(self, x: Tensor) -> Tensor:
        """Return the weights of attention (B, heads, queries, keys) inside windows (B, C, h, w)."""
        heads = x.shape[1] // self.shape.head_width
        q, k = self.qk(x).flatten(2).unflatten(1, (2, heads, self.shape.head_width)).unbind(1)  # (B, heads, d, N)
        return ((q * self.shape.head_width**-0.5).transpose(2, 3) @ k).softmax(dim=-1)


def _averaged(weights: Tensor, x: Tensor) -> Tensor:
    """Return windows (B, C, h, w) averaged by the weights of the head that a channel belongs to."""
    values = x.flatten(2).unflatten(1, (weights.shape[1], -1))  # (B, heads, d, N)
    return (values @ weights.transpose(2, 3)).flatten(1, 2).unflatten(2, x.shape[2:])
