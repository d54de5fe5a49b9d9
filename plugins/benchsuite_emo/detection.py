"""Detectors on any backbone: SSDLite and RetinaNet, their losses, and how outputs become boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchsuite_emo.boxes import decode, encode, match, retina_anchors, ssd_anchors, suppressed
from benchsuite_emo.segmentation import FPN

__all__ = ["DetectionHead", "DetectionNetwork", "Detections", "RetinaNet", "SSDLite"]

DetectionHead = Literal["ssdlite", "retinanet"]
_PRIOR = 0.01


@dataclass(frozen=True)
class Detections:
    """Of one picture: boxes (n, 4) x1, y1, x2, y2 in pixels of the input, scores (n,), labels (n,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@dataclass(frozen=True)
class _Rules:
    """What differs between the two detectors besides their layers and the loss of classes."""

    stds: tuple[float, float, float, float]
    positive: float
    negative: float
    all_best: bool
    least_score: float
    overlap: float
    most: int
    before: int = 1000


class DetectionNetwork(nn.Module):
    """A detector: ``forward`` returns logits (B, anchors, classes or one more) and codes (B, anchors, 4) a level."""

    STRIDES: tuple[int, ...]
    RULES: _Rules

    def anchors(self, maps: Sequence[tuple[int, int]], size: tuple[int, int]) -> list[Tensor]:
        """Return the anchors of levels with these heights and widths, of an input of this height and width."""
        raise NotImplementedError

    def scores(self, logits: Tensor) -> Tensor:
        """Return scores in [0, 1] of the classes without background."""
        raise NotImplementedError

    def class_loss(self, logits: Tensor, matched: Tensor, labels: Tensor) -> Tensor:
        """Return the sum of the loss of classes of one picture (anchors, ...); labels are those of matched anchors."""
        raise NotImplementedError

    def box_loss(self, codes: Tensor, wanted: Tensor) -> Tensor:
        """Return the sum of the loss of boxes."""
        raise NotImplementedError

    def levels(self, x: Tensor) -> list[Tensor]:
        """Return the maps that the heads see."""
        raise NotImplementedError

    def heads(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits and codes a level, as (B, anchors of the level, numbers)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits and codes a level of pictures (B, 3, H, W)."""
        return self.heads(self.levels(x))

    def loss(self, x: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """Return the loss of a batch, over the number of matched anchors (at least 1).

        Parameters
        ----------
        x
            Pictures (B, 3, H, W).
        boxes, labels
            (n, 4) in pixels of the input and int64 (n,), one a picture.
        """
        maps = self.levels(x)
        found = self.heads(maps)
        logits, codes = (torch.cat(part, dim=1).float() for part in found)
        anchors = self._anchors(maps, x)
        joined = torch.cat(anchors)
        rules, total, count = self.RULES, logits.sum() * 0 + codes.sum() * 0, 0
        for place, (targets, names) in enumerate(zip(boxes, labels, strict=True)):
            matched = match(joined, targets, rules.positive, rules.negative, rules.all_best)
            positive = matched >= 0
            count += int(positive.sum())
            total = total + self.class_loss(logits[place], matched, names[matched[positive]])
            wanted = encode(joined[positive], targets[matched[positive]], rules.stds)
            total = total + self.box_loss(codes[place][positive], wanted)
        return total / max(count, 1)

    @torch.no_grad()
    def detect(self, x: Tensor, sizes: Sequence[Sequence[int]]) -> list[Detections]:
        """Return the detections of pictures (B, 3, H, W); ``sizes`` are heights and widths without padding."""
        maps = self.levels(x)
        logits, codes = self.heads(maps)
        anchors = self._anchors(maps, x)
        found = []
        for place, (height, width) in enumerate(sizes):
            parts = [
                self._best(level_logits[place], level_codes[place], level_anchors)
                for level_logits, level_codes, level_anchors in zip(logits, codes, anchors, strict=True)
            ]
            boxes, scores, labels = (torch.cat(part) for part in zip(*parts, strict=True))
            boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
            kept = torch.from_numpy(suppressed(boxes, scores, labels, self.RULES.overlap, self.RULES.most))
            kept = kept.to(boxes.device)
            found.append(Detections(boxes[kept], scores[kept], labels[kept]))
        return found

    def _best(self, logits: Tensor, codes: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes, scores and labels of the best pairs of anchor and class of a level."""
        scores = self.scores(logits.float())
        pairs = (scores > self.RULES.least_score).nonzero()
        values = scores[pairs[:, 0], pairs[:, 1]]
        values, order = values.sort(descending=True, stable=True)
        pairs, values = pairs[order[: self.RULES.before]], values[: self.RULES.before]
        boxes = decode(anchors[pairs[:, 0]], codes.float()[pairs[:, 0]], self.RULES.stds)
        return boxes, values, pairs[:, 1]

    def _anchors(self, maps: Sequence[Tensor], x: Tensor) -> list[Tensor]:
        sizes = tuple((m.shape[2], m.shape[3]) for m in maps)
        return [level.to(x.device) for level in self.anchors(sizes, (x.shape[2], x.shape[3]))]


def _per_anchor(x: Tensor, numbers: int) -> Tensor:
    """Return (B, H * W * anchors, numbers) of (B, anchors * numbers, H, W)."""
    return x.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, numbers))


def _conv6(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03), nn.ReLU6(inplace=True))


class SSDLite(DetectionNetwork):
    """SSDLite: maps of strides 16 and 32, further levels of half the size each, depth-wise separable heads.

    Parameters
    ----------
    backbone
        Maps of ``STRIDES``.
    width
        Channels of the first further level (512 as published), 1/2, 1/2 and 1/4 of it for the others.
    classes
        Number of classes; one for the background comes last.
    further
        Number of further levels, at most four.
    """

    STRIDES = (16, 32)
    RULES = _Rules((0.1, 0.1, 0.2, 0.2), 0.5, 0.5, all_best=False, least_score=0.02, overlap=0.45, most=200)
    NEGATIVES = 3

    def __init__(self, backbone: nn.Module, width: int, classes: int, further: int = 4) -> None:
        super().__init__()
        self.backbone, self.classes = backbone, classes
        inputs: tuple[int, ...] = backbone.channels
        outputs = (width, width // 2, width // 2, width // 4)[:further]
        self.further = nn.ModuleList()
        previous = inputs[-1]
        for channels in outputs:
            middle = channels // 2
            self.further.append(
                nn.Sequential(
                    _conv6(previous, middle), _conv6(middle, middle, 3, 2, groups=middle), _conv6(middle, channels)
                )
            )
            previous = channels
        of_levels = (*inputs, *outputs)
        self.classify = nn.ModuleList(_separable(channels, 6 * (classes + 1)) for channels in of_levels)
        self.locate = nn.ModuleList(_separable(channels, 6 * 4) for channels in of_levels)

    def levels(self, x: Tensor) -> list[Tensor]:
        """See `DetectionNetwork.levels`."""
        maps = list(self.backbone(x))
        for level in self.further:
            maps.append(level(maps[-1]))
        return maps

    def heads(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """See `DetectionNetwork.heads`."""
        logits = [_per_anchor(head(m), self.classes + 1) for head, m in zip(self.classify, maps, strict=True)]
        return logits, [_per_anchor(head(m), 4) for head, m in zip(self.locate, maps, strict=True)]

    def anchors(self, maps: Sequence[tuple[int, int]], size: tuple[int, int]) -> list[Tensor]:
        """See `DetectionNetwork.anchors`; the input is a square."""
        return _ssd_anchors(tuple(maps), size[0])

    def scores(self, logits: Tensor) -> Tensor:
        """See `DetectionNetwork.scores`."""
        return logits.softmax(dim=-1)[..., :-1]

    def class_loss(self, logits: Tensor, matched: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of matched anchors and of the hardest background, three times as many."""
        positive, background = matched >= 0, matched == -1
        of_objects = F.cross_entropy(logits[positive], labels, reduction="sum")
        of_background = -logits[background].log_softmax(dim=-1)[:, -1]
        hardest = min(self.NEGATIVES * int(positive.sum()), len(of_background))
        return of_objects + of_background.topk(hardest).values.sum()

    def box_loss(self, codes: Tensor, wanted: Tensor) -> Tensor:
        """Smooth L1."""
        return F.smooth_l1_loss(codes, wanted, reduction="sum")


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_conv6(inputs, inputs, 3, groups=inputs), nn.Conv2d(inputs, outputs, 1))


class RetinaNet(DetectionNetwork):
    """RetinaNet: a pyramid from stride 8 on, two heads of stacked convolutions that all levels share.

    Parameters
    ----------
    backbone
        Maps of ``STRIDES``; the finest serves nothing, but is there as in the official configuration.
    width
        Channels of pyramid and heads, 256 as published.
    classes
        Number of classes.
    further
        Further levels of half the size each: 2 as published.
    stacked
        Convolutions of a head: 4 as published.
    """

    STRIDES = (4, 8, 16, 32)
    RULES = _Rules((1.0, 1.0, 1.0, 1.0), 0.5, 0.4, all_best=True, least_score=0.05, overlap=0.5, most=100)
    ANCHORS = 9

    def __init__(self, backbone: nn.Module, width: int, classes: int, further: int = 2, stacked: int = 4) -> None:
        super().__init__()
        self.backbone, self.classes = backbone, classes
        channels: tuple[int, ...] = backbone.channels
        self.pyramid = FPN(channels[1:], width)
        inputs = (channels[-1], *(width for _ in range(further - 1)))[:further]
        self.further = nn.ModuleList(nn.Conv2d(c, width, 3, stride=2, padding=1) for c in inputs)
        self.of_classes, self.of_boxes = (_stack(width, stacked) for _ in range(2))
        self.classify = nn.Conv2d(width, self.ANCHORS * classes, 3, padding=1)
        self.locate = nn.Conv2d(width, self.ANCHORS * 4, 3, padding=1)
        for module in (*self.of_classes, *self.of_boxes, self.classify, self.locate):
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        nn.init.constant_(self.classify.bias, -math.log((1 - _PRIOR) / _PRIOR))

    def levels(self, x: Tensor) -> list[Tensor]:
        """See `DetectionNetwork.levels`."""
        maps = self.backbone(x)
        found, coarse = self.pyramid(maps[1:]), maps[-1]
        for level in self.further:
            coarse = level(coarse)
            found.append(coarse)
        return found

    def heads(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """See `DetectionNetwork.heads`."""
        logits = [_per_anchor(self.classify(self.of_classes(m)), self.classes) for m in maps]
        return logits, [_per_anchor(self.locate(self.of_boxes(m)), 4) for m in maps]

    def anchors(self, maps: Sequence[tuple[int, int]], size: tuple[int, int]) -> list[Tensor]:
        """See `DetectionNetwork.anchors`."""
        return _retina_anchors(tuple(maps), tuple(self.STRIDES[1] * 2**level for level in range(len(maps))))

    def scores(self, logits: Tensor) -> Tensor:
        """See `DetectionNetwork.scores`."""
        return logits.sigmoid()

    def class_loss(self, logits: Tensor, matched: Tensor, labels: Tensor) -> Tensor:
        """Focal loss, gamma 2, alpha .25, of every anchor that is an object's or the background's."""
        wanted = torch.zeros_like(logits)
        wanted[(matched >= 0).nonzero()[:, 0], labels] = 1
        return focal_loss(logits[matched != -2], wanted[matched != -2])

    def box_loss(self, codes: Tensor, wanted: Tensor) -> Tensor:
        """L1."""
        return (codes - wanted).abs().sum()


def focal_loss(logits: Tensor, wanted: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Return the sum of the focal loss of independent classes; ``wanted`` is 0 or 1 (Lin et al., 2017)."""
    chance = logits.sigmoid()
    missed = chance + wanted - 2 * chance * wanted  # 1 - p_t
    weight = alpha * wanted + (1 - alpha) * (1 - wanted)
    return (weight * missed**gamma * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")).sum()


def _stack(width: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(count):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


@lru_cache(maxsize=16)
def _ssd_anchors(maps: tuple[tuple[int, int], ...], side: int) -> list[Tensor]:
    with torch.device("cpu"):
        return ssd_anchors(maps, side)


@lru_cache(maxsize=16)
def _retina_anchors(maps: tuple[tuple[int, int], ...], strides: tuple[int, ...]) -> list[Tensor]:
    with torch.device("cpu"):
        return retina_anchors(maps, strides)
