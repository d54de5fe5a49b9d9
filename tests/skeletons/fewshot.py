"""Few-shot instance segmentation: nested seed axes, a shared base stage, undefined size metrics."""

from __future__ import annotations

import base64
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchsuite.core import Method, Metric, Outcome, Ranking, RunContext, Task

ONE_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True)
class Images:
    base: np.ndarray
    novel: np.ndarray


def load_images(root: Path | None, draw: int) -> Images:
    rng = np.random.default_rng(draw)
    return Images(rng.normal(size=(50, 4)), rng.normal(loc=1.0, size=(20, 4)))


class Segmenter(Method):
    @abstractmethod
    def tune(self, base: np.ndarray, shots: np.ndarray, ctx: RunContext) -> np.ndarray: ...


@dataclass(frozen=True)
class TunerConfig:
    steps: int = 10


class Tuner(Segmenter):
    Config = TunerConfig

    def tune(self, base: np.ndarray, shots: np.ndarray, ctx: RunContext) -> np.ndarray:
        centre = base.copy()
        for _ in ctx.steps(self.config.steps):
            centre += 0.2 * (shots.mean(axis=0) - centre)
        return centre


class Frozen(Segmenter):
    def tune(self, base: np.ndarray, shots: np.ndarray, ctx: RunContext) -> np.ndarray:
        return base


@dataclass(frozen=True)
class FewShotProtocol:
    shots: int = 5


class FewShotTask(Task):
    name, version = "toy-fewshot", "1"
    Protocol = FewShotProtocol
    seed_axes = ("base", "shots")
    metrics = (
        Metric("nap", "max", doc="closeness to the novel class"),
        Metric("nap_small", "max", doc="the same on small objects"),
    )
    ranking = Ranking("nap")
    reference = "toy-frozen"
    data_type = "skeletons.fewshot:Images"
    method_type = Segmenter
    default_data = "toy-images"

    def evaluate(self, method: Method, data: Mapping[str, Any], protocol: Any, ctx: RunContext) -> Outcome:
        images: Images = data["test"]

        def build(folder: Path) -> None:
            np.save(folder / "base.npy", images.base.mean(axis=0) + np.random.normal(size=4) * 0.01)

        base = np.load(ctx.cached("toy-base", {"seed": ctx.seed_for("base", "base")}, build) / "base.npy")
        rng = np.random.default_rng(ctx.seed_for("shots", "sampler"))
        chosen = rng.choice(len(images.novel), protocol.shots, replace=False)
        with ctx.phase("fit"):
            centre = method.tune(base, images.novel[chosen], ctx)
        distance = np.linalg.norm(images.novel - centre, axis=1)
        ctx.artifact("sheet.png").write_bytes(ONE_PIXEL)
        return Outcome(
            scores={"nap": float(1 / (1 + distance.mean())), "nap_small": None},
            undefined={"nap_small": "no small object among the novel ones"},
            counts={"detections": len(distance)},
            tables={"classes": [{"class": "novel", "distance": float(distance.mean())}]},
        )
