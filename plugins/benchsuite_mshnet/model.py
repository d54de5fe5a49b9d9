"""MSHNet's learner: two similarities a backbone block, merged level by level, then from coarse to fine.

Notation: B episodes, K shots, l level in {4, 3, 2} (the order of all lists), n_l blocks of a level. Section numbers
are those of the paper's fact sheet. Every convolution has a bias unless it says otherwise; everything starts as
PyTorch starts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchsuite.tasks.fewshot_semantic_segmentation.networks import Backbone
from benchsuite_mshnet.config import MSHNetConfig
from benchsuite_mshnet.similarity import chained_masks, cosine_map, foreground, gps_map, prototype

__all__ = ["Learner", "MSHNet", "Output", "loss_of", "resized"]


@dataclass(frozen=True)
class Output:
    """What the learner says.

    Attributes
    ----------
    logits
        (B, 2, 2h, 2w), h x w the size of l2: background and foreground.
    auxiliary
        Logits of the heads of l4, l3, l2, (B, 2, h_l, w_l); those of l4 at l3's size.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...]


class ConvBlock(nn.Module):
    """BC(i, o): 3 x 3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv0, self.bn0 = nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, h, w)."""
        found: Tensor = self.bn0(self.conv0(x)).relu()
        return found


class PointBlock(nn.Module):
    """B11(i, o): 1 x 1 and 3 x 3 convolution, each with batch norm and ReLU."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv0, self.bn0 = nn.Conv2d(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, h, w)."""
        x = self.bn0(self.conv0(x)).relu()
        found: Tensor = self.bn1(self.conv1(x)).relu()
        return found


class PyramidBlock(nn.Module):
    """PShot(c): three branches of growing reach on the same input, joined, and dropout of channels."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.conv0 = _normed(nn.Conv2d(width, width, 1))
        self.conv1 = _normed(nn.Conv2d(width, width, 3, padding=2, dilation=2))
        self.conv2 = _normed(nn.Conv2d(width, width, 3, padding=4, dilation=4))
        self.conv3 = _normed(nn.Conv2d(3 * width, width, 3, padding=1))
        self.drop = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, h, w)."""
        found: Tensor = self.drop(self.conv3(torch.cat([self.conv0(x), self.conv1(x), self.conv2(x)], dim=1)))
        return found


def _normed(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU())


class ChannelGate(nn.Module):
    """CBAM's channel attention with a reduction of 4: one MLP for the mean and the maximum of each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, h, w)."""
        attention = self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1))
        return x * attention.sigmoid()[:, :, None, None]


class SymmetricMerge(nn.Module):
    """SMBmerge: the sum of the similarities that there are, brought to one width, gated between two blocks."""

    def __init__(self, cosine: int, gps: int, width: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cosine, width, 1) if cosine else None
        self.conv2 = nn.Conv2d(gps, width, 1) if gps else None
        self.merge = ConvBlock(width, width)
        self.gate = ChannelGate(width)
        self.merge2 = ConvBlock(width, width)
        self.drop = nn.Dropout2d(dropout)

    def forward(self, cosine: Tensor | None, gps: Tensor | None) -> Tensor:
        """Return x_l (B, width, h, w)."""
        pairs = ((self.conv1, cosine), (self.conv2, gps))
        parts = [conv(x) for conv, x in pairs if conv is not None]
        found: Tensor = self.drop(self.merge2(self.gate(self.merge(sum(parts)))))
        return found


class CoarseFusion(nn.Module):
    """Merge34: l4 and l3, side by side."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inputs, width, 1), nn.Conv2d(inputs, width, 1)
        self.merge, self.merge2 = ConvBlock(2 * width, width), ConvBlock(width, width)
        self.drop = nn.Dropout2d(dropout)

    def forward(self, x4: Tensor, x3: Tensor) -> Tensor:
        """Return (B, width, h, w) of two maps of one size."""
        joined = torch.cat([self.conv1(x4), self.conv2(x3)], dim=1)
        found: Tensor = self.drop(self.merge2(self.merge(joined)))
        return found


class FineFusion(nn.Module):
    """Merge234: what comes from above and l2, side by side; no dropout."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = ConvBlock(width, width), nn.Conv2d(inputs, width, 1)
        self.merge, self.convout = ConvBlock(2 * width, width), ConvBlock(width, width)

    def forward(self, x43: Tensor, x2: Tensor) -> Tensor:
        """Return (B, width, h, w) of two maps of one size."""
        found: Tensor = self.convout(self.merge(torch.cat([self.conv1(x43), self.conv2(x2)], dim=1)))
        return found


class Refinement(nn.Module):
    """Out: to half the width, and a residual block before the last."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv0 = _normed(nn.Conv2d(inputs, width, 1))
        self.conv1, self.conv2 = ConvBlock(width, width), ConvBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, h, w)."""
        y = self.conv0(x)
        found: Tensor = self.conv2(y + self.conv1(y))
        return found


class Head(nn.Sequential):
    """3 x 3 without bias, ReLU, 3 x 3 to two classes."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(width, 2, 3, padding=1)
        )


class Learner(nn.Module):
    """All that MSHNet learns.

    Parameters
    ----------
    config
        Similarities, widths and dropout.
    blocks, channels
        Of the backbone's levels l2, l3, l4.
    """

    def __init__(self, config: MSHNetConfig, blocks: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        self.blocks = tuple(blocks)
        self.uses_cosine, self.uses_gps = config.similarities != "gps", config.similarities != "cosine"
        cosine, gps, drop = config.cosine_width, config.gps_width, config.dropout
        levels = range(2, -1, -1)  # l4, l3, l2
        if self.uses_gps:  # one weight a level, shared by its blocks
            self.gps = nn.ModuleList(nn.Conv2d(2 * channels[level], 1, 1, bias=False) for level in levels)
            self.gps_blocks = nn.ModuleList(PointBlock(blocks[level], gps) for level in levels)
            self.gps_shots = nn.ModuleList(PyramidBlock(gps, drop) for _ in levels)
        if self.uses_cosine:
            self.cosine_blocks = nn.ModuleList(PointBlock(blocks[level], cosine) for level in levels)
            self.cosine_shots = nn.ModuleList(ConvBlock(cosine, cosine) for _ in levels)
        used = (cosine if self.uses_cosine else 0, gps if self.uses_gps else 0)
        self.merges = nn.ModuleList(SymmetricMerge(*used, cosine, drop) for _ in levels)
        self.fuse43 = CoarseFusion(cosine, config.merge_width, drop)
        self.fuse432 = FineFusion(cosine, config.merge_width)
        self.out = Refinement(config.merge_width, cosine)
        self.heads = nn.ModuleList(Head(cosine, config.head_width) for _ in levels)
        self.head = Head(cosine, config.head_width)

    def forward(self, query: Sequence[Tensor], supports: Sequence[Tensor], masks: Tensor) -> Output:
        """Return logits.

        Parameters
        ----------
        query
            Maps of the backbone, low to high, (B, C, h, w) each.
        supports
            The same of the supports, (B, K, C, h, w) each.
        masks
            (B, K, H, W) in [0, 1]: where the class is in the supports.
        """
        cosine, gps = self.similarities(query, supports, masks)
        merged = [
            merge(
                self._over_shots(self.cosine_blocks[i], self.cosine_shots[i], cosine[i]) if self.uses_cosine else None,
                self._over_shots(self.gps_blocks[i], self.gps_shots[i], gps[i]) if self.uses_gps else None,
            )
            for i, merge in enumerate(self.merges)
        ]
        return self.decode(*merged)

    def similarities(
        self, query: Sequence[Tensor], supports: Sequence[Tensor], masks: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the cosine and the GPS maps of each level, (B, K, n_l, h, w): l4, l3, l2 (sections 5.2 to 5.4)."""
        shots = masks.shape[1]
        sizes = [(found.shape[2], found.shape[3]) for found in query]
        resized_masks = chained_masks(masks.flatten(0, 1), sizes)
        cosine: list[Tensor] = []
        gps: list[Tensor] = []
        first = 0
        for level, count in enumerate(self.blocks):
            found = foreground(resized_masks[first].unflatten(0, (-1, shots)))
            of_cosine, of_gps = [], []
            for place in range(first, first + count):
                kept = found.of(supports[place])
                if self.uses_cosine:
                    of_cosine.append(cosine_map(query[place], kept, found))
                if self.uses_gps:
                    weight = self.gps[2 - level].weight.flatten()
                    of_gps.append(gps_map(query[place], prototype(kept, found), weight))
            first += count
            cosine[:0] = [torch.stack(of_cosine, dim=2)] if of_cosine else []
            gps[:0] = [torch.stack(of_gps, dim=2)] if of_gps else []
        return cosine, gps

    def _over_shots(self, block: nn.Module, shot_block: nn.Module, maps: Tensor) -> Tensor:
        """Return a level's features, (B, width, h, w): the mean over shots, out of place, then a block (5.6).

        All shots go through at once. In training each has batch statistics of its own, as if it came alone.
        """
        if self.training:
            each = torch.stack([block(maps[:, k]) for k in range(maps.shape[1])], dim=1)
        else:
            each = block(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
        found: Tensor = shot_block(each.mean(dim=1))
        return found

    def decode(self, x4: Tensor, x3: Tensor, x2: Tensor) -> Output:
        """Return the logits of merged levels (section 5.7); the head of l4 sees it at l3's size."""
        x4 = resized(x4, x3.shape[2:])
        x43 = resized(self.fuse43(x4, x3), x2.shape[2:])
        found = self.out(self.fuse432(x43, x2))
        logits = self.head(resized(found, (2 * x2.shape[2], 2 * x2.shape[3])))
        auxiliary = tuple(head(x) for head, x in zip(self.heads, (x4, x3, x2), strict=True)) if self.training else ()
        return Output(logits, auxiliary)


class MSHNet(nn.Module):
    """Backbone and learner: what a checkpoint holds."""

    def __init__(self, config: MSHNetConfig, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.learner = Learner(config, backbone.blocks, backbone.channels)

    def forward(self, query: Tensor, supports: Tensor, masks: Tensor) -> Output:
        """Return logits of queries uint8 (B, H, W, 3), supports uint8 (B, K, H, W, 3) and masks (B, K, H, W)."""
        shots = supports.shape[1]
        maps = self.backbone(torch.cat([query, supports.flatten(0, 1)]))
        of_query = [found[: len(query)] for found in maps]
        of_supports = [found[len(query) :].unflatten(0, (-1, shots)) for found in maps]
        output: Output = self.learner(of_query, of_supports, masks)
        return output


def loss_of(output: Output, answers: Tensor, auxiliary: float) -> Tensor:
    """Return the main cross-entropy plus ``auxiliary`` times each of the heads' (section 6).

    Parameters
    ----------
    output
        Of the learner; without auxiliary logits (evaluation) the main term alone.
    answers
        bool (B, S, S): the query masks, brought to the size of logits by nearest pixels. Nothing is ignored.
    auxiliary
        The weight, .3 as published.
    """
    height, width = output.logits.shape[2:]
    loss = F.cross_entropy(output.logits, _nearest(answers, (height, width)))
    for logits in output.auxiliary:
        side = (height // 2, width // 2)  # l2
        loss = loss + auxiliary * F.cross_entropy(resized(logits, side), _nearest(answers, side))
    return loss


def _nearest(answers: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(answers[:, None].float(), size=size, mode="nearest")[:, 0].long()


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps (B, C, h, w) at another size: bilinear, corners aligned."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
