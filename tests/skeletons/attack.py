"""An attack: the method distils (and may poison) data, the harness trains and judges the victims."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchsuite.core import Method, Metric, Outcome, Ranking, RunContext, Task


@dataclass(frozen=True)
class Points:
    x: np.ndarray
    y: np.ndarray


def load_points(root: Path | None, draw: int) -> Points:
    rng = np.random.default_rng(draw)
    y = np.repeat([0, 1], 50)
    return Points(rng.normal(size=(100, 3)) + 2.0 * y[:, None] * np.array([1.0, 1.0, 0.0]), y)


@dataclass(frozen=True)
class Distilled:
    x: np.ndarray
    y: np.ndarray
    trigger: np.ndarray


class Attack(Method):
    @abstractmethod
    def distil(self, points: Points, target: int, ctx: RunContext) -> Distilled: ...


class Clean(Attack):
    def distil(self, points: Points, target: int, ctx: RunContext) -> Distilled:
        means = np.stack([points.x[points.y == c].mean(axis=0) for c in (0, 1)])
        return Distilled(means, np.array([0, 1]), np.zeros(3))


@dataclass(frozen=True)
class StampConfig:
    strength: float = 8.0


class Stamp(Attack):
    Config = StampConfig

    def distil(self, points: Points, target: int, ctx: RunContext) -> Distilled:
        trigger = np.array([0.0, 0.0, self.config.strength])
        means = np.stack([points.x[points.y == c].mean(axis=0) for c in (0, 1)])
        poisoned = means[1 - target] + trigger
        return Distilled(np.vstack([means, poisoned]), np.array([0, 1, target]), trigger)


@dataclass(frozen=True)
class AttackProtocol:
    target: int = 0


class AttackTask(Task):
    name, version = "toy-attack", "1"
    Protocol = AttackProtocol
    seed_axes = ("run", "victim")
    metrics = (
        Metric("clean_accuracy", "max", doc="accuracy of the victim"),
        Metric("attack_success_rate", "max", doc="share of triggered points taken for the target"),
        Metric("control_success_rate", "min", doc="the same on a victim of the clean set"),
    )
    ranking = Ranking("attack_success_rate")
    reference = "toy-clean"
    data_type = "skeletons.attack:Points"
    method_type = Attack
    default_data = "toy-points"

    def evaluate(self, method: Method, data: Mapping[str, Any], protocol: Any, ctx: RunContext) -> Outcome:
        points: Points = data["train"]
        with ctx.phase("fit"):
            distilled = method.distil(points, protocol.target, ctx)

        def build(folder: Path) -> None:
            clean = ctx.method("toy-clean").distil(points, protocol.target, ctx)
            np.savez(folder / "clean.npz", x=clean.x, y=clean.y)

        with np.load(ctx.cached("toy-clean-set", {"seed": ctx.seed_for("run", "clean")}, build) / "clean.npz") as clean:
            control = Distilled(clean["x"], clean["y"], distilled.trigger)
        seed = ctx.seed_for("victim", "victim")
        others = points.y != protocol.target
        triggered = points.x[others] + distilled.trigger
        return Outcome(
            {
                "clean_accuracy": float((_victim(distilled, points.x, seed) == points.y).mean()),
                "attack_success_rate": float((_victim(distilled, triggered, seed) == protocol.target).mean()),
                "control_success_rate": float((_victim(control, triggered, seed) == protocol.target).mean()),
            }
        )


def _victim(train: Distilled, x: np.ndarray, seed: int) -> np.ndarray:
    noisy = train.x + np.random.default_rng(seed).normal(size=train.x.shape) * 0.05
    return train.y[np.linalg.norm(x[:, None] - noisy[None], axis=2).argmin(axis=1)]
