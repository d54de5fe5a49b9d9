"""EMO: a pyramid of four phases made of inverted residual mobile blocks, and its published variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from torch import Tensor, nn

from benchsuite_emo.blocks import EPSILON, IRMB, BlockShape, LayerNorm2d

__all__ = ["EMO", "EMO_VARIANTS", "EMOFeatures", "EMOShape", "build_emo", "initialise"]


@dataclass(frozen=True, kw_only=True)
class EMOShape:
    """The sizes of a network; what has four entries is one a phase.

    Attributes
    ----------
    stem
        Channels of the stem.
    depths, widths, expansions, head_widths, kernels
        Blocks, channels, expansion, channels of a head, side of the depth-wise kernel.
    norms, activations
        ``bn`` or ``ln``, ``silu`` or ``gelu``.
    attention
        Which phases attend (all their blocks but the first).
    window
        Side of a strided window.
    attend_first, depthwise
        See `benchsuite_emo.blocks.BlockShape`.
    drop_path
        Rate of the last block; it grows linearly from 0.
    """

    stem: int = 24
    depths: tuple[int, ...] = (2, 2, 8, 3)
    widths: tuple[int, ...] = (32, 48, 80, 168)
    expansions: tuple[float, ...] = (2.0, 2.5, 3.0, 3.5)
    head_widths: tuple[int, ...] = (16, 16, 20, 21)
    kernels: tuple[int, ...] = (3, 3, 5, 5)
    norms: tuple[str, ...] = ("bn", "bn", "ln", "ln")
    activations: tuple[str, ...] = ("silu", "silu", "gelu", "gelu")
    attention: tuple[bool, ...] = (False, False, True, True)
    window: int = 7
    attend_first: bool = True
    depthwise: bool = True
    drop_path: float = 0.04036


_DEPTHS = (3, 3, 9, 3)
EMO_VARIANTS: dict[str, EMOShape] = {
    "emo_1m": EMOShape(),
    "emo_2m": EMOShape(depths=_DEPTHS, widths=(32, 48, 120, 200), head_widths=(16, 16, 20, 20), drop_path=0.05),
    "emo_5m": EMOShape(
        depths=_DEPTHS,
        widths=(48, 72, 160, 288),
        expansions=(2.0, 3.0, 4.0, 4.0),
        head_widths=(24, 24, 32, 32),
        drop_path=0.05,
    ),
    "emo_6m": EMOShape(
        depths=_DEPTHS,
        widths=(48, 72, 160, 320),
        expansions=(2.0, 3.0, 4.0, 5.0),
        head_widths=(16, 24, 20, 32),
        drop_path=0.05,
    ),
    "emo_nano": EMOShape(
        stem=12,
        depths=(1, 1, 2, 2),
        widths=(16, 24, 40, 48),
        expansions=(2.0, 2.0, 2.0, 2.0),
        head_widths=(8, 8, 20, 24),
        kernels=(3, 3, 3, 3),
        drop_path=0.0,
    ),
}
"""The four published networks, and one of 56 thousand parameters made of the same blocks."""


class _Stem(nn.Module):
    """A convolution of stride 2 with a bias, then a batch norm; no activation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        conv = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.convs = nn.Sequential(nn.Sequential(conv, nn.BatchNorm2d(width, eps=EPSILON)))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, H / 2, W / 2)."""
        found: Tensor = self.convs(x)
        return found


def _phase(s: EMOShape, phase: int, inputs: int, rates: Sequence[float]) -> nn.Sequential:
    kinds: dict[str, Any] = {"norm": s.norms[phase], "activation": s.activations[phase], "kernel": s.kernels[phase]}
    width, expansion = s.widths[phase], s.expansions[phase]
    first = BlockShape(
        inputs=inputs, outputs=width, expansion=2 * expansion, stride=2, skip=False, drop_path=rates[0], **kinds
    )
    further = BlockShape(
        inputs=width,
        outputs=width,
        expansion=expansion,
        attention=s.attention[phase],
        head_width=s.head_widths[phase],
        window=s.window,
        attend_first=s.attend_first,
        depthwise=s.depthwise,
        **kinds,
    )
    return nn.Sequential(IRMB(first), *(IRMB(replace(further, drop_path=rate)) for rate in rates[1:]))


class EMO(nn.Module):
    """The network: a stem and four phases with strides 2, 4, 8, 16, 32, then norm, mean and a linear head.

    Parameters
    ----------
    shape
        Its sizes.
    classes
        Number of classes; 0 leaves out norm and head, for dense predictions.
    """

    def __init__(self, shape: EMOShape, classes: int = 1000) -> None:
        super().__init__()
        s = self.shape = shape
        first = BlockShape(inputs=s.stem, outputs=s.stem, norm="none", skip=False, expand=False, squeeze=1.0)
        self.stage0 = nn.Sequential(_Stem(s.stem), IRMB(first))
        blocks = sum(s.depths)
        rates = [s.drop_path * place / max(blocks - 1, 1) for place in range(blocks)]
        ends = [0, *accumulate(s.depths)]
        for phase, (start, end) in enumerate(pairwise(ends)):
            inputs = s.widths[phase - 1] if phase else s.stem
            self.add_module(f"stage{phase + 1}", _phase(s, phase, inputs, rates[start:end]))
        if classes:
            self.norm = LayerNorm2d(s.widths[-1])
            self.head = nn.Linear(s.widths[-1], classes)
        initialise(self)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the maps behind stem and phases, strides 2, 4, 8, 16, 32."""
        maps = []
        for stage in (self.stage0, self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of normalised pictures (B, 3, H, W) of any height and width."""
        found: Tensor = self.head(self.norm(self.features(x)[-1]).mean((2, 3)))
        return found


class EMOFeatures(nn.Module):
    """The maps of an EMO without norm and head, for dense predictions.

    Attributes
    ----------
    channels, strides
        Of each of the maps.
    """

    def __init__(self, network: EMO, out_indices: Sequence[int] = (1, 2, 3, 4)) -> None:
        super().__init__()
        self.network, self.out_indices = network, tuple(out_indices)
        widths = (network.shape.stem, *network.shape.widths)
        self.channels = tuple(widths[i] for i in self.out_indices)
        self.strides = tuple(2 ** (i + 1) for i in self.out_indices)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the chosen maps of pictures (B, 3, H, W), without a norm on them."""
        maps = self.network.features(x)
        return [maps[i] for i in self.out_indices]


def initialise(network: nn.Module) -> None:
    """Draw linear layers from a normal of deviation .02, biases 0; the rest as torch does.

    Officially that normal is cut at two units, a hundred deviations away: no draw meets the cut.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)


def build_emo(variant: str, classes: int = 1000, **changes: Any) -> EMO:
    """Return a variant by name, with some of its sizes changed (``window=16``).

    Raises
    ------
    KeyError
        For a variant that there is not.
    """
    return EMO(replace(EMO_VARIANTS[variant], **changes), classes)
