"""MSHNet as a method of the task: episodes to tensors, training, prediction, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchsuite.core import RunContext
from benchsuite.tasks.fewshot_semantic_segmentation.backbones import Features
from benchsuite.tasks.fewshot_semantic_segmentation.contract import (
    Episode,
    FewShotSegmenter,
    LabelledEpisode,
    Segmenter,
    TrainingData,
)
from benchsuite.tasks.fewshot_semantic_segmentation.networks import TinyResNet
from benchsuite_mshnet.config import MSHNetConfig
from benchsuite_mshnet.model import MSHNet, loss_of, resized
from benchsuite_mshnet.weights import load_official, parameters_of, save_official

_WARM_UP = 0.15
_DECAY, _DECAY_EPOCHS = 0.9, 5
_MODEL = "model.pt"


class MSHNetMethod(FewShotSegmenter):
    """Learns to segment by similarities alone, so that what it learns serves classes that it has never seen."""

    Config: ClassVar[type] = MSHNetConfig
    config: MSHNetConfig

    def fit(self, data: TrainingData, ctx: RunContext) -> Segmenter:
        """See `FewShotSegmenter.fit`; with ``--weights`` the checkpoint's backbone takes the place of the task's."""
        torch.manual_seed(ctx.seed_for("fold", "start"))
        model = MSHNet(self.config, data.backbone).to(ctx.device)
        if ctx.weights is not None:
            load_official(model, ctx.weights)
        segmenter = MSHNetSegmenter(model)
        if ctx.weights is None:
            self._train(segmenter, data, ctx)
        if "model" in ctx.wanted_artifacts:
            save_official(model, ctx.artifact(_MODEL))
        model.eval()
        return segmenter

    def _train(self, segmenter: MSHNetSegmenter, data: TrainingData, ctx: RunContext) -> None:
        """SGD on the learner; the model is the last one, or under ``data.score`` the best at the end of an epoch."""
        c, learner = self.config, segmenter.model.learner
        an_epoch = -(-data.episodes_per_epoch // c.batch_size)
        total = c.steps or c.epochs * an_epoch
        optimizer = torch.optim.SGD(learner.parameters(), c.lr, momentum=c.momentum, weight_decay=c.weight_decay)
        schedule = _schedule(c, optimizer, total, an_epoch)
        best: dict[str, Any] = {"score": -1.0, "state": {}}
        parts = {"model": learner, "optimizer": optimizer, "schedule": schedule, "best": best}
        for step in ctx.resumable("training", total, parts):
            learner.train()
            episodes = data.batch(step * c.batch_size, c.batch_size)
            loss = training_loss(segmenter, episodes, c)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if data.score is not None and ((step + 1) % an_epoch == 0 or step + 1 == total):
                score = data.score(segmenter)
                if score > best["score"]:
                    best.update(score=score, state={k: v.detach().clone() for k, v in learner.state_dict().items()})
        if best["state"]:
            learner.load_state_dict(best["state"])

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield backbone and learner on two episodes of two shots."""
        model = MSHNet(self.config, TinyResNet().freeze())
        query = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
        yield model, (query, torch.zeros(2, 2, 64, 64, 3, dtype=torch.uint8), torch.rand(2, 2, 64, 64))


def _schedule(c: MSHNetConfig, optimizer: torch.optim.Optimizer, total: int, an_epoch: int) -> Any:
    if c.schedule == "one-cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, c.lr, total_steps=total, pct_start=_WARM_UP)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _DECAY ** (step // an_epoch // _DECAY_EPOCHS))


def training_loss(segmenter: MSHNetSegmenter, episodes: Sequence[LabelledEpisode], c: MSHNetConfig) -> Tensor:
    """Return the loss of a batch, with as many supports an episode as ``training_shots`` says."""
    query, supports, masks = segmenter.tensors(episodes, c.training_shots)
    answers = torch.from_numpy(np.stack([episode.query_mask for episode in episodes])).to(masks.device)
    return loss_of(segmenter.model.learner(query, supports, masks), answers, c.auxiliary)


class MSHNetSegmenter(Segmenter):
    """Foreground where its logit is the larger one, after the logits were resized."""

    def __init__(self, model: MSHNet) -> None:
        self.model, self._features = model, Features(model.backbone)
        self.parameters = parameters_of(model.learner)

    def tensors(self, episodes: Sequence[Episode], shots: int = 0) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Return maps of queries (B, C, h, w) and of the first ``shots`` supports (B, K, C, h, w), and their masks."""
        count = shots or len(episodes[0].supports)
        query = self._features([episode.query for episode in episodes])
        supports = self._features([picture for episode in episodes for picture in episode.supports[:count]])
        masks = torch.from_numpy(np.stack([episode.support_masks[:count] for episode in episodes]))
        return query, [found.unflatten(0, (-1, count)) for found in supports], masks.to(query[0])

    @torch.no_grad()
    def predict(self, episodes: Sequence[Episode]) -> list[NDArray[np.bool_]]:
        """See `Segmenter.predict`."""
        self.model.eval()
        found = []
        for episode in episodes:
            logits = resized(self.model.learner(*self.tensors([episode])).logits, episode.output_size)[0]
            found.append((logits[1] > logits[0]).cpu().numpy())
        return found
