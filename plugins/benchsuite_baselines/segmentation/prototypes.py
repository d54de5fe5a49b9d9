"""PANet (Wang et al., ICCV 2019): the nearest of two prototypes, on frozen features or in a learned embedding.

Notation: B episodes, K shots, C channels, h x w positions.
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
from benchsuite_baselines.segmentation.config import FrozenPANetConfig, PANetConfig
from benchsuite_baselines.segmentation.features import answers_of, levels_of, masks_of, width_of

_EPSILON = 1e-5


class FrozenPANet(FewShotSegmenter):
    """Prototypes of the backbone's own features: nothing is learned."""

    Config: ClassVar[type] = FrozenPANetConfig

    def fit(self, data: TrainingData, ctx: RunContext) -> Segmenter:
        """See `FewShotSegmenter.fit`."""
        return PrototypeSegmenter(nn.Identity(), Features(data.backbone), self.config)


class PANet(FewShotSegmenter):
    """Prototypes in an embedding of the frozen features, learned with PANet's two losses."""

    Config: ClassVar[type] = PANetConfig
    config: PANetConfig

    def fit(self, data: TrainingData, ctx: RunContext) -> Segmenter:
        """See `FewShotSegmenter.fit`."""
        c = self.config
        torch.manual_seed(ctx.seed_for("fold", "start"))
        features = Features(data.backbone)
        embedding = Embedding(width_of(data.backbone, c.level), c.width).to(ctx.device)
        optimizer = torch.optim.AdamW(embedding.parameters(), lr=c.lr, weight_decay=c.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, c.lr, total_steps=c.steps, pct_start=0.15)
        model = PrototypeSegmenter(embedding, features, c)
        chosen = Chosen(data, embedding, model)
        parts = {"model": embedding, "optimizer": optimizer, "schedule": schedule, "best": chosen.best}
        for step in ctx.resumable("training", c.steps, parts):
            embedding.train()
            episodes = data.batch(step * c.batch_size, c.batch_size)
            loss = self._loss(embedding, features, episodes, torch.device(ctx.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            chosen.after(step, c.steps, c.batch_size)
        chosen.restore()
        embedding.eval()
        return model

    def _loss(self, embedding: nn.Module, features: Features, episodes: Sequence[Any], device: torch.device) -> Tensor:
        """Return the cross-entropy of the queries, and of the supports segmented by the predicted query."""
        c = self.config
        query, supports, masks = _embedded(embedding, features, episodes, c)
        logits = segment(query, supports, masks, c.scale)
        answers = answers_of(episodes, device)
        loss = F.cross_entropy(_resized(logits, answers.shape[1:]), answers)
        if c.alignment:
            predicted = logits.argmax(dim=1).to(query)
            turned = [
                segment(supports[:, k], query[:, None], predicted[:, None], c.scale) for k in range(supports.shape[1])
            ]
            wanted = torch.from_numpy(np.stack([episode.support_masks for episode in episodes])).to(device).long()
            aligned = [
                F.cross_entropy(_resized(found, wanted.shape[2:]), wanted[:, k]) for k, found in enumerate(turned)
            ]
            loss = loss + c.alignment * torch.stack(aligned).mean()
        return loss

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield the embedding on the tiny backbone's features."""
        yield Embedding(288, self.config.width), (torch.randn(2, 288, 16, 16),)


class Embedding(nn.Sequential):
    """A 1 x 1 and two 3 x 3 convolutions with batch norm; the last is linear."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )


class PrototypeSegmenter(Segmenter):
    """Foreground where its prototype is the nearer one."""

    def __init__(self, embedding: nn.Module, features: Features, config: FrozenPANetConfig) -> None:
        self._embedding, self._features, self._config = embedding, features, config
        self.parameters = sum(p.numel() for p in embedding.parameters())

    @torch.no_grad()
    def predict(self, episodes: Sequence[Episode]) -> list[NDArray[np.bool_]]:
        """See `Segmenter.predict`."""
        self._embedding.eval()
        query, supports, masks = _embedded(self._embedding, self._features, episodes, self._config)
        logits = segment(query, supports, masks, self._config.scale)
        return foreground(logits, episodes)


def _embedded(
    embedding: nn.Module, features: Features, episodes: Sequence[Episode], config: FrozenPANetConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries (B, C, h, w), supports (B, K, C, h, w) and support masks (B, K, h, w)."""
    shots = len(episodes[0].supports)
    pictures = [episode.query for episode in episodes] + [s for episode in episodes for s in episode.supports]
    embedded = embedding(levels_of(features, pictures, config.level, config.rectified))
    query, supports = embedded[: len(episodes)], embedded[len(episodes) :].unflatten(0, (-1, shots))
    return query, supports, masks_of(episodes, query)


def segment(query: Tensor, supports: Tensor, masks: Tensor, scale: float) -> Tensor:
    """Return logits (B, 2, h, w): scaled cosines with the prototypes of background and of foreground.

    Parameters
    ----------
    query
        (B, C, h, w).
    supports, masks
        (B, K, C, h, w), and their share of foreground (B, K, h, w) in [0, 1].
    scale
        alpha.
    """
    prototypes = []
    for weights in (1 - masks, masks):  # masked average pooling of each shot, then the mean over shots
        pooled = torch.einsum("bkchw,bkhw->bkc", supports, weights)
        prototypes.append((pooled / (weights.sum(dim=(2, 3)) + _EPSILON)[..., None]).mean(dim=1))
    both = F.normalize(torch.stack(prototypes, dim=1), dim=2)
    return scale * torch.einsum("bpc,bchw->bphw", both, F.normalize(query, dim=1))


def foreground(logits: Tensor, episodes: Sequence[Episode]) -> list[NDArray[np.bool_]]:
    """Return where the second logit is the larger one, at each episode's output size."""
    found = []
    for one, episode in zip(logits, episodes, strict=True):
        resized = _resized(one[None], episode.output_size)[0]
        found.append((resized[1] > resized[0]).cpu().numpy())
    return found


def _resized(logits: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=True)


class Chosen:
    """The state of best score, under ``selection=test``; else the last."""

    def __init__(self, data: TrainingData, module: nn.Module, model: Segmenter) -> None:
        self._data, self._module, self._model = data, module, model
        self.best: dict[str, Any] = {"score": -1.0, "state": {}}

    def after(self, step: int, steps: int, batch_size: int) -> None:
        """Score the model at the end of every epoch, and after the last step."""
        score = self._data.score
        every = max(1, self._data.episodes_per_epoch // batch_size)
        if score is None or ((step + 1) % every and step + 1 < steps):
            return
        found = score(self._model)
        if found > self.best["score"]:
            state = {key: value.detach().clone() for key, value in self._module.state_dict().items()}
            self.best.update(score=found, state=state)

    def restore(self) -> None:
        """Load the best state."""
        if self.best["state"]:
            self._module.load_state_dict(self.best["state"])
