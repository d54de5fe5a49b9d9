"""scikit-learn's logistic regression on the positions of the supports: one classifier an episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchsuite.core import RunContext
from benchsuite.tasks.fewshot_semantic_segmentation.backbones import Features
from benchsuite.tasks.fewshot_semantic_segmentation.contract import Episode, FewShotSegmenter, Segmenter, TrainingData
from benchsuite_baselines.segmentation.config import PixelLogisticConfig
from benchsuite_baselines.segmentation.features import levels_of, masks_of

_MOST_ITERATIONS = 200


class PixelLogistic(FewShotSegmenter):
    """Learns nothing from the base classes."""

    Config: ClassVar[type] = PixelLogisticConfig

    def fit(self, data: TrainingData, ctx: RunContext) -> Segmenter:
        """See `FewShotSegmenter.fit`."""
        return PixelLogisticSegmenter(Features(data.backbone), self.config)


class PixelLogisticSegmenter(Segmenter):
    """Fits a classifier of positions to the supports and asks it about the query's."""

    def __init__(self, features: Features, config: PixelLogisticConfig) -> None:
        self._features, self._config = features, config

    @torch.no_grad()
    def predict(self, episodes: Sequence[Episode]) -> list[NDArray[np.bool_]]:
        """See `Segmenter.predict`."""
        return [self._answer(episode) for episode in episodes]

    def _answer(self, episode: Episode) -> NDArray[np.bool_]:
        c = self._config
        pictures = [episode.query, *episode.supports]
        maps = F.normalize(levels_of(self._features, pictures, c.level, c.rectified), dim=1)
        side = maps.shape[2:]
        labels = (masks_of([episode], maps)[0] > 0.5).flatten().cpu().numpy()
        positions = maps.permute(0, 2, 3, 1).flatten(1, 2).cpu().numpy()
        if labels.all() or not labels.any():  # nothing to tell apart at this size
            return np.full(episode.output_size, bool(labels.all()))
        classifier = LogisticRegression(
            C=c.strength,
            class_weight="balanced" if c.balanced else None,
            max_iter=_MOST_ITERATIONS,
        )
        classifier.fit(positions[1:].reshape(len(labels), -1), labels)
        logits = torch.from_numpy(classifier.decision_function(positions[0]).reshape(1, 1, *side))
        resized = F.interpolate(logits, size=episode.output_size, mode="bilinear", align_corners=True)
        return (resized[0, 0] > 0).numpy()
