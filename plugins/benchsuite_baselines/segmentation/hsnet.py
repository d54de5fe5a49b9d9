"""A small HSNet (Min, Kang, Cho, ICCV 2021): correlations of all pairs of positions, centre-pivot convolutions.

Notation: B episodes, C channels, h x w positions of the query, u x v of the support.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchsuite.core import RunContext
from benchsuite.tasks.fewshot_semantic_segmentation.backbones import Features
from benchsuite.tasks.fewshot_semantic_segmentation.contract import Episode, FewShotSegmenter, Segmenter, TrainingData
from benchsuite_baselines.segmentation.config import HSNetConfig
from benchsuite_baselines.segmentation.features import answers_of
from benchsuite_baselines.segmentation.prototypes import Chosen

_GROUPS = 4


class CenterPivotConv(nn.Module):
    """A 4-D convolution of the pairs that share one centre: two 2-D convolutions, added; norm and ReLU."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.of_query = nn.Conv2d(inputs, width, 3, padding=1)
        self.of_support = nn.Conv2d(inputs, width, 3, padding=1, stride=stride)
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, width, h, w, u', v') of (B, C, h, w, u, v); the support's side shrinks by the stride."""
        batch, _, height, width, *_ = x.shape
        pruned = x[..., :: self.stride, :: self.stride]
        u, v = pruned.shape[4:]
        by_query = self.of_query(pruned.permute(0, 4, 5, 1, 2, 3).flatten(0, 2))
        by_support = self.of_support(x.permute(0, 2, 3, 1, 4, 5).flatten(0, 2))
        added = by_query.view(batch, u, v, -1, height, width).permute(0, 3, 4, 5, 1, 2) + by_support.view(
            batch, height, width, -1, u, v
        ).permute(0, 3, 1, 2, 4, 5)
        found: Tensor = self.norm(added).relu()
        return found


class HSNet(nn.Module):
    """Squeezes a level's correlations to 2 x 2 positions of the support, joins levels from coarse to fine, decodes."""

    def __init__(self, config: HSNetConfig, blocks: Sequence[int]) -> None:
        super().__init__()
        first, second = config.widths
        self.side = config.support_side
        self.squeeze = nn.ModuleList(
            nn.Sequential(CenterPivotConv(count, first, 2), CenterPivotConv(first, second, 2)) for count in blocks
        )
        self.join = nn.ModuleList(CenterPivotConv(second, second, 1) for _ in range(2))
        self.decode = nn.Sequential(nn.Conv2d(second, second, 3, padding=1), nn.ReLU())
        self.head = nn.Sequential(
            nn.Conv2d(second, second, 3, padding=1), nn.ReLU(), nn.Conv2d(second, 2, 3, padding=1)
        )
        self.blocks = tuple(blocks)

    def forward(self, query: Sequence[Tensor], support: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Return logits (B, 2, 2h, 2w), h x w the size of l2.

        Parameters
        ----------
        query, support
            Maps of the backbone, low to high, (B, C, h, w) each.
        mask
            (B, H, W) in [0, 1].
        """
        first, joined = 0, None
        squeezed = []
        for count, squeeze in zip(self.blocks, self.squeeze, strict=True):
            pairs = zip(query[first : first + count], support[first : first + count], strict=True)
            squeezed.append(squeeze(torch.stack([self._correlation(q, s, mask) for q, s in pairs], dim=1)))
            first += count
        joined = squeezed[2]
        for level, join in zip((1, 0), self.join, strict=True):
            joined = join(_up(joined, squeezed[level].shape[2:4]) + squeezed[level])
        x = self.decode(joined.mean(dim=(4, 5)))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        found: Tensor = self.head(x)
        return found

    def _correlation(self, query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
        """Return ReLU'd cosines (B, h, w, u, v) of a query and a masked support, the support pooled to u x v."""
        resized = F.interpolate(mask[:, None], size=support.shape[2:], mode="bilinear", align_corners=True)
        masked = F.adaptive_avg_pool2d(support * resized, (self.side, self.side))
        unit = [F.normalize(found, dim=1) for found in (query, masked)]
        return torch.einsum("bchw,bcuv->bhwuv", *unit).relu()


def _up(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return (B, C, h, w, u, v) with another size of the query's side."""
    batch, channels, height, width, u, v = x.shape
    flat = x.permute(0, 4, 5, 1, 2, 3).reshape(batch * u * v, channels, height, width)
    resized = F.interpolate(flat, size=tuple(size), mode="bilinear", align_corners=True)
    return resized.view(batch, u, v, channels, *size).permute(0, 3, 4, 5, 1, 2)


class SmallHSNet(FewShotSegmenter):
    """Trained with one shot; further shots vote when it is asked."""

    Config: ClassVar[type] = HSNetConfig
    config: HSNetConfig

    def fit(self, data: TrainingData, ctx: RunContext) -> Segmenter:
        """See `FewShotSegmenter.fit`."""
        c = self.config
        torch.manual_seed(ctx.seed_for("fold", "start"))
        network = HSNet(c, data.backbone.blocks).to(ctx.device)
        model = HSNetSegmenter(network, Features(data.backbone))
        optimizer = torch.optim.Adam(network.parameters(), lr=c.lr)
        chosen = Chosen(data, network, model)
        for step in ctx.resumable("training", c.steps, {"model": network, "optimizer": optimizer, "best": chosen.best}):
            network.train()
            episodes = data.batch(step * c.batch_size, c.batch_size)
            logits = model.logits(episodes, 0)
            answers = answers_of(episodes, logits.device)
            resized = F.interpolate(logits, size=answers.shape[1:], mode="bilinear", align_corners=True)
            optimizer.zero_grad()
            F.cross_entropy(resized, answers).backward()
            optimizer.step()
            chosen.after(step, c.steps, c.batch_size)
        chosen.restore()
        network.eval()
        return model

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield the network on maps of the tiny backbone."""
        maps = [torch.randn(2, c, s, s) for c, s in ((64, 16), (96, 8), (128, 4)) for _ in range(2)]
        yield HSNet(self.config, (2, 2, 2)), (maps, maps, torch.rand(2, 64, 64))


class HSNetSegmenter(Segmenter):
    """Foreground where at least half of the most votes of any pixel fall."""

    def __init__(self, network: HSNet, features: Features) -> None:
        self._network, self._features = network, features
        self.parameters = sum(p.numel() for p in network.parameters())

    def logits(self, episodes: Sequence[Episode], shot: int) -> Tensor:
        """Return the logits that one of the supports leads to."""
        query = self._features([episode.query for episode in episodes])
        support = self._features([episode.supports[shot] for episode in episodes])
        masks = torch.from_numpy(np.stack([episode.support_masks[shot] for episode in episodes]))
        found: Tensor = self._network(query, support, masks.to(query[0]))
        return found

    @torch.no_grad()
    def predict(self, episodes: Sequence[Episode]) -> list[NDArray[np.bool_]]:
        """See `Segmenter.predict`."""
        self._network.eval()
        return [self._voted(episode) for episode in episodes]

    def _voted(self, episode: Episode) -> NDArray[np.bool_]:
        votes = torch.zeros(episode.output_size)
        for shot in range(len(episode.supports)):
            logits = self.logits([episode], shot)
            resized = F.interpolate(logits, size=episode.output_size, mode="bilinear", align_corners=True)[0]
            votes += (resized[1] > resized[0]).cpu()
        return (votes / votes.max().clamp(min=1) >= 0.5).numpy()
