"""Graph distillation: hidden labels, and a teacher that all students of a seed share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchsuite.core import Constraint, Method, Metric, Outcome, Ranking, RunContext, Task


@dataclass(frozen=True)
class Ring:
    features: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    test: np.ndarray


def load_ring(root: Path | None, draw: int) -> Ring:
    rng = np.random.default_rng(draw)
    labels = np.repeat([0, 1], 40)
    features = rng.normal(size=(80, 3)) + labels[:, None]
    order = rng.permutation(80)
    return Ring(features, labels, order[:40], order[40:])


class Distiller(Method):
    @abstractmethod
    def distil(self, features: np.ndarray, teacher: np.ndarray, ctx: RunContext) -> np.ndarray: ...


@dataclass(frozen=True)
class StudentConfig:
    lr: float = 0.5
    steps: int = 30
    kind: Literal["plain", "noisy"] = "plain"


class Student(Distiller):
    Config = StudentConfig

    def distil(self, features: np.ndarray, teacher: np.ndarray, ctx: RunContext) -> np.ndarray:
        rng = np.random.default_rng(ctx.seed_for("run", "student"))
        weights = rng.normal(size=3) * 0.01
        for _ in ctx.steps(self.config.steps):
            guess = 1 / (1 + np.exp(-(features - 0.5) @ weights))
            weights -= self.config.lr * (features - 0.5).T @ (guess - teacher) / len(features)
        return (features - 0.5) @ weights


class Copy(Distiller):
    def distil(self, features: np.ndarray, teacher: np.ndarray, ctx: RunContext) -> np.ndarray:
        return teacher - 0.5


@dataclass(frozen=True)
class GraphProtocol:
    teacher: Literal["mean", "median"] = "mean"


class GraphTask(Task):
    name, version = "toy-graph", "1"
    Protocol = GraphProtocol
    metrics = (Metric("accuracy", "max", doc="share of correct test nodes"),)
    ranking = Ranking("accuracy", Constraint("accuracy", "toy-copy", 0.5))
    reference = "toy-copy"
    data_type = "skeletons.graph:Ring"
    method_type = Distiller
    default_data = "toy-ring"

    def evaluate(self, method: Method, data: Mapping[str, Any], protocol: Any, ctx: RunContext) -> Outcome:
        ring: Ring = data["test"]

        def build(folder: Path) -> None:
            noise = np.random.normal(size=3) * 0.01
            reduce = np.mean if protocol.teacher == "mean" else np.median
            bar = reduce(ring.features[ring.train], axis=0) + noise
            np.save(folder / "teacher.npy", (ring.features > bar).mean(axis=1))

        inputs = {"seed": ctx.seed_for("run", "teacher"), "teacher": protocol.teacher}
        teacher = np.load(ctx.cached("toy-teacher", inputs, build) / "teacher.npy")
        with ctx.phase("fit"):
            scores = method.distil(ring.features, teacher, ctx)
        correct = (scores[ring.test] > 0).astype(int) == ring.labels[ring.test]
        np.savetxt(ctx.artifact("predictions.csv"), scores[ring.test])
        return Outcome({"accuracy": float(correct.mean())}, counts={"nodes": len(correct)}, parameters=3)
