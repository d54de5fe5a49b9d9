"""A task whose answers are separate from what it hands out, for the conformance checks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchsuite.core import DataError, InvalidPrediction, Method, Metric, Outcome, Ranking, RunContext, Task
from skeletons.attack import Points

TRAIN = 60


class Guesser(Method):
    @abstractmethod
    def guess(self, x: np.ndarray, labels: np.ndarray, ctx: RunContext) -> np.ndarray: ...


class Plain(Guesser):
    def guess(self, x: np.ndarray, labels: np.ndarray, ctx: RunContext) -> np.ndarray:
        return x[:, 0] - 1.0


class CheckedTask(Task):
    name, version = "toy-checked", "1"
    metrics = (Metric("accuracy", "max", doc="share of correct test points"),)
    ranking = Ranking("accuracy")
    reference = "toy-plain"
    data_type = "skeletons.attack:Points"
    method_type = Guesser
    default_data = "toy-points"

    def evaluate(self, method: Method, data: Mapping[str, Any], protocol: Any, ctx: RunContext) -> Outcome:
        points: Points = data["test"]
        with ctx.phase("fit"):
            scores = method.guess(points.x, points.y[:TRAIN], ctx)
        if np.shape(scores) != (len(points.x),):
            raise InvalidPrediction(f"a guess has shape ({len(points.x)},), not {np.shape(scores)}")
        np.savetxt(ctx.artifact("predictions.csv"), scores)
        return self._judge(scores, points)

    def _judge(self, scores: np.ndarray, points: Points) -> Outcome:
        return Outcome({"accuracy": float(((scores > 0) == points.y)[TRAIN:].mean())})

    def with_other_answers(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        points: Points = data["test"]
        y = np.concatenate([points.y[:TRAIN], 1 - points.y[TRAIN:]])
        return dict.fromkeys(data, replace(points, y=y))

    def score(self, predictions: Path, data: Mapping[str, Any], protocol: Any) -> Outcome:
        try:
            return self._judge(np.loadtxt(predictions), data["test"])
        except ValueError as error:
            raise DataError(f"{predictions}: not a list of numbers ({error})") from None
