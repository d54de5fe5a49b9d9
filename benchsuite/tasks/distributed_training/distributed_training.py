"""Data-parallel training on several ranks: how much they must say to each other to learn the same.

A method is a communication algorithm. Every rank is a real process with its own copy of the model and its
own part of the data; the algorithm decides what is exchanged (gradients, weights, momenta), when, and in
how many bits. Model, base optimiser, learning rate and number of steps belong to the task and are the same
for all. Judged are the mean of all ranks' models, how far the ranks are apart, and what was sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from benchsuite.core import Constraint, Metric, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.core.errors import ConfigError
from benchsuite.datasets.tabular_digits.reader import TabularDataset
from benchsuite.metrics import classification
from benchsuite.tasks.distributed_training.contract import DistributedTrainingProtocol, TrainingAlgorithm, World

_PREDICTIONS = "predictions.csv"
_LOSSES = "losses.csv"


class DistributedTraining(Task[TrainingAlgorithm, TabularDataset, DistributedTrainingProtocol]):
    """See the module's description."""

    name = "distributed-training"
    version = "1"
    Protocol = DistributedTrainingProtocol
    presets: ClassVar[Mapping[str, Preset]] = {
        "embedded": Preset(),
        "paper": Preset({"model": "vgg16", "lr": 0.01, "weight_decay": 1e-4}),
    }
    seed_axes = ("run",)
    metrics = (
        Metric("accuracy", "max", doc="share of test samples that the mean of all ranks' models classifies correctly"),
        Metric("worst_local_accuracy", "max", doc="the same of the rank whose own model is worst"),
        Metric(
            "consensus_distance",
            "min",
            unit="",
            doc="largest distance of a rank's weights from their mean, relative to the norm of the mean",
        ),
        Metric("bytes_per_step", "min", unit="B", doc="payload sent by a rank in a step, counted (mean over ranks)"),
        Metric("formula_bytes_per_step", "min", unit="B", doc="the same by the algorithm's formula"),
        Metric("steps_per_s", "max", unit="1/s", kind="cost", doc="median of three parts of the run on rank 0"),
        Metric(
            "time_to_loss",
            "min",
            unit="s",
            kind="cost",
            doc="until the training loss (mean of 20 steps on rank 0) is at the target",
        ),
    )
    ranking = Ranking("bytes_per_step", Constraint("accuracy", "ddp", 0.015))
    reference = "ddp"
    data_type = "benchsuite.datasets.tabular_digits.reader:TabularDataset"
    method_type = TrainingAlgorithm
    default_data = "digits-table"

    def evaluate(
        self,
        method: TrainingAlgorithm,
        data: Mapping[str, TabularDataset],
        protocol: DistributedTrainingProtocol,
        ctx: RunContext,
    ) -> Outcome:
        """Train on all ranks, then judge the mean of their models."""
        from benchsuite.tasks.distributed_training import data_parallel
        from benchsuite.tasks.distributed_training.judge import judge, time_to_loss, write_losses, write_predictions
        from benchsuite.tasks.distributed_training.models import parameter_shapes

        dataset = data["test"]
        _check_data(dataset, protocol)
        world = World(protocol.world_size, protocol.ranks_per_node)
        shapes = parameter_shapes(dataset, protocol)
        method.sent_bytes(shapes, world, 1, 0)  # refuses a world that does not fit before anything starts
        with ctx.phase("fit"):
            ticks = ctx.steps(protocol.steps, "steps")
            reports = data_parallel.train(method, _training_view(dataset), protocol, ctx, lambda: next(ticks, None))
            deque(ticks, maxlen=0)
        steps = reports[0].steps
        nodes = dataset.test if ctx.split == "test" else dataset.validation
        with ctx.phase("judge"):
            judged = judge(reports, dataset, nodes, protocol)
        write_predictions(ctx.artifact(_PREDICTIONS), nodes, judged.probabilities)
        write_losses(ctx.artifact(_LOSSES), [report.losses for report in reports])
        labels = dataset.labels[nodes]
        formula = method.sent_bytes(shapes, world, steps, reports[0].syncs)
        scores: dict[str, float | None] = {
            "accuracy": classification.accuracy(judged.probabilities.argmax(axis=1), labels),
            "worst_local_accuracy": min(classification.accuracy(own, labels) for own in judged.local_classes),
            "consensus_distance": judged.consensus_distance,
            "bytes_per_step": float(sum(r.sent_bytes for r in reports) / (len(reports) * steps)),
            "formula_bytes_per_step": float(formula / steps),
            "steps_per_s": reports[0].steps_per_s,
            "time_to_loss": time_to_loss(reports[0].losses, reports[0].seconds, protocol.target_loss),
        }
        reasons = {
            "steps_per_s": "too few steps to time",
            "time_to_loss": f"the training loss never came down to {protocol.target_loss:g}",
        }
        return Outcome(
            scores=scores,
            undefined={name: reasons[name] for name, value in scores.items() if value is None},
            counts={"ranks": len(reports), "steps": steps, "syncs": reports[0].syncs},
            tables={"ranks": [report.row() for report in reports]},
            parameters=sum(int(np.prod(shape)) for shape in shapes),
        )

    def with_other_answers(self, data: Mapping[str, TabularDataset]) -> Mapping[str, TabularDataset]:
        """Return the data with the class of every test sample changed."""
        from benchsuite.tasks.distributed_training.judge import with_other_answers

        return dict.fromkeys(data, with_other_answers(data["test"]))


def _check_data(dataset: TabularDataset, protocol: DistributedTrainingProtocol) -> None:
    needed = protocol.world_size * protocol.local_batch
    if needed > len(dataset.train):
        raise ConfigError(
            f"{protocol.world_size} ranks with batches of {protocol.local_batch} need {needed} training samples, but"
            f" {dataset.name} has {len(dataset.train)}: lower task.world_size or task.local_batch"
        )


def _training_view(dataset: TabularDataset) -> TabularDataset:
    """Return the training samples alone: ranks see nothing else."""
    nothing = np.empty(0, dtype=np.int64)
    train = np.arange(len(dataset.train))
    features, labels = dataset.features[dataset.train], dataset.labels[dataset.train]
    return replace(dataset, features=features, labels=labels, train=train, validation=nothing, test=nothing)
