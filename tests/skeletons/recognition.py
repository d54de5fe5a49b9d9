"""Methods and data of the tests: small enough for a forward pass in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from benchsuite.datasets.shapes import SCENES, SHAPES
from benchsuite.datasets.shapes.generated import ShapeScenes, generate
from benchsuite.tasks.visual_recognition.contract import (
    ClassificationData,
    DetectionData,
    Found,
    ImageClassifier,
    ObjectDetector,
    SegmentationData,
    SemanticSegmenter,
    Trained,
    TrainedDetector,
)

FAST: dict[str, Any] = {"latency_repeats": 1, "warm_ups": 0, "throughput_batch": 2, "throughput_repeats": 1}


def shapes(**changes: Any) -> ShapeScenes:
    return generate("shapes", {**SHAPES, "train": 50, "test": 20, "size": 48, **changes}, 0)


def scenes(**changes: Any) -> ShapeScenes:
    return generate("shape-scenes", {**SCENES, "train": 20, "test": 8, **changes}, 0)


@dataclass(frozen=True)
class Config:
    steps: int = 3


class Everything(ImageClassifier, SemanticSegmenter, ObjectDetector):
    """One class for all three tasks; keeps what it was shown and what it returned."""

    Config = Config
    seen: Any = None
    trained: Any = None
    name = "toy"

    def fit_classifier(self, data: ClassificationData, ctx: Any) -> Trained:
        self.seen = data
        torch.manual_seed(ctx.seed_for("run", "start"))
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, len(data.classes)),
        )
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        labels = torch.from_numpy(data.labels)
        for _ in ctx.resumable("training", self.config.steps, {"network": network, "optimizer": optimizer}):
            loss = nn.functional.cross_entropy(network(data.prepared(range(10))), labels[:10])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.trained = Trained(network, table=[{"step": self.config.steps, "loss": float(loss.detach())}])
        return self.trained

    def fit_segmenter(self, data: SegmentationData, ctx: Any) -> Trained:
        self.seen = data
        torch.manual_seed(ctx.seed_for("run", "start"))
        self.trained = Trained(nn.Conv2d(3, len(data.classes), 3, stride=4, padding=1))
        return self.trained

    def fit_detector(self, data: DetectionData, ctx: Any) -> TrainedDetector:
        self.seen = data
        torch.manual_seed(ctx.seed_for("run", "start"))
        self.trained = Corner(nn.Conv2d(3, len(data.classes), 3, stride=8, padding=1))
        return self.trained


class Corner(TrainedDetector):
    """Finds in every picture the class of the largest mean output, in its upper left half."""

    def detect(self, images: torch.Tensor, sizes: np.ndarray) -> list[Found]:
        scores, labels = self.network(images).mean(dim=(2, 3)).sigmoid().max(dim=1)
        boxes = np.array([[0, 0, width / 2, height / 2] for height, width in sizes], dtype=np.float32)
        return [
            Found(box[None], score.numpy()[None], label.numpy()[None])
            for box, score, label in zip(boxes, scores, labels, strict=True)
        ]
