"""Signals: train on generated data, test on recorded ones, one line a record."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchsuite.core import DataError, Method, Metric, Outcome, Ranking, RunContext, Task


@dataclass(frozen=True)
class Beats:
    records: dict[str, np.ndarray]


def load_generated(root: Path | None, draw: int) -> Beats:
    rng = np.random.default_rng(draw)
    return Beats({f"g{i}": np.cumsum(0.8 + 0.05 * rng.normal(size=20)) for i in range(3)})


def load_recorded(root: Path | None, draw: int) -> Beats:
    assert root is not None
    records = {}
    for path in sorted(root.glob("beats/*.txt")):
        try:
            records[path.stem] = np.loadtxt(path, ndmin=1)
        except ValueError as error:
            raise DataError(f"{path.name}: not a list of beat times ({error})") from None
    return Beats(records)


class BeatDetector(Method):
    @abstractmethod
    def fit(self, beats: Beats, ctx: RunContext) -> None: ...

    @abstractmethod
    def detect(self, seconds: float) -> np.ndarray: ...


class Detector(BeatDetector):
    def fit(self, beats: Beats, ctx: RunContext) -> None:
        self.period = float(np.mean([np.diff(times).mean() for times in beats.records.values()]))

    def detect(self, seconds: float) -> np.ndarray:
        return np.arange(self.period, seconds, self.period)


class Clock(BeatDetector):
    def fit(self, beats: Beats, ctx: RunContext) -> None:
        pass

    def detect(self, seconds: float) -> np.ndarray:
        return np.arange(1.0, seconds, 1.0)


class SignalTask(Task):
    name, version = "toy-signal", "1"
    roles_may_differ = True
    metrics = (
        Metric("sensitivity", "max", doc="share of beats found within 150 ms"),
        Metric("beats_per_second", "max", "1/s", "cost", doc="speed"),
    )
    ranking = Ranking("sensitivity")
    reference = "toy-clock"
    data_type = "skeletons.signal:Beats"
    method_type = BeatDetector
    default_data = "toy-generated-beats"

    @classmethod
    def data_roles(cls, dataset: str) -> dict[str, str]:
        return {"train": "toy-generated-beats", "test": dataset}

    def evaluate(self, method: Method, data: Mapping[str, Any], protocol: Any, ctx: RunContext) -> Outcome:
        with ctx.phase("fit"):
            method.fit(data["train"], ctx)
        rows = []
        for name, times in data["test"].records.items():
            found = method.detect(times[-1] + 1)
            hits = int((np.abs(times[:, None] - found[None]).min(axis=1) <= 0.15).sum())
            rows.append({"record": name, "beats": len(times), "hits": hits})
        beats = sum(row["beats"] for row in rows)
        scores = {"sensitivity": sum(row["hits"] for row in rows) / beats, "beats_per_second": 1000.0}
        return Outcome(scores, counts={"beats": beats}, tables={"records": rows})
