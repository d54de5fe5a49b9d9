"""Data-parallel training on several ranks: how much they must say to each other to learn the same.

A method is a communication algorithm. Every rank is a real process with its own copy of the model and its
own part of the data; the algorithm decides what is exchanged (gradients, weights, momenta), when, and in
how many bits. Model, base optimiser, learning rate and number of steps belong to the task and are the same
for all. Judged are the mean of all ranks' models, how far the ranks are apart, and what was sent.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from benchsuite.core import Constraint, Method, Metric, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.core.errors import ConfigError
from benchsuite.datasets.tabular_digits import TabularDataset
from benchsuite.metrics import classification

if TYPE_CHECKING:
    import torch

_PREDICTIONS = "predictions.csv"
_LOSSES = "losses.csv"


@dataclass(frozen=True)
class DistributedTrainingProtocol:
    """What belongs to neither algorithm nor data.

    Parameters
    ----------
    world_size
        Number of ranks (processes).
    ranks_per_node
        How many consecutive ranks count as one machine, for hierarchical communication.
    model
        ``mlp`` (two hidden layers), ``vgg16`` (of torchvision: 138,357,544 parameters; samples are shown as
        square images of ``image_size``), or ``"module:factory"``, called with the numbers of features and classes.
    hidden, image_size
        Width of the hidden layers of ``mlp``; side of the images of ``vgg16`` in pixels.
    steps, local_batch
        Optimiser steps, and samples a rank sees in one.
    lr, momentum, weight_decay
        Of the base optimiser, stochastic gradient descent.
    target_loss
        The time to this training loss is measured (mean of the last 20 steps of rank 0).
    backend
        ``gloo`` (CPU), ``nccl`` (a GPU a rank), or ``auto``: NCCL if the run is on CUDA with enough GPUs.
    network
        ``loopback``, or ``veth``: every rank in a network namespace of its own (Linux, root).
    bandwidth_mbit
        With ``veth``: limit of every rank's link in each direction, in Mbit/s; None: no limit.
    latency_ms
        Waited before every round of messages.
    """

    world_size: int = 2
    ranks_per_node: int = 1
    model: str = "mlp"
    hidden: int = 512
    image_size: int = 32
    steps: int = 150
    local_batch: int = 32
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    target_loss: float = 0.1
    backend: Literal["auto", "gloo", "nccl"] = "auto"
    network: Literal["loopback", "veth"] = "loopback"
    bandwidth_mbit: float | None = None
    latency_ms: float = 0.0

    def __post_init__(self) -> None:
        for name in ("world_size", "ranks_per_node", "hidden", "image_size", "steps", "local_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.world_size % self.ranks_per_node:
            raise ValueError(
                f"world_size {self.world_size} is not a multiple of ranks_per_node {self.ranks_per_node}:"
                " nodes must be equally large"
            )
        if self.bandwidth_mbit is not None and (self.network != "veth" or self.bandwidth_mbit <= 0):
            raise ValueError("bandwidth_mbit needs network=veth and a value above 0")
        if self.latency_ms < 0:
            raise ValueError(f"latency_ms must not be negative, not {self.latency_ms:g}")


@dataclass(frozen=True)
class World:
    """How many ranks there are, and how many of them (consecutive ones) make up a node."""

    size: int
    ranks_per_node: int = 1

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return self.size // self.ranks_per_node


@dataclass
class Worker:
    """One rank, as an algorithm meets it.

    Attributes
    ----------
    rank, world
        This rank's number; the number of ranks.
    model
        The rank's copy; equal on all ranks at the start.
    optimizer
        The base optimiser, over all parameters of the model.
    group
        Process group for the algorithm's messages: every byte that goes through it is counted.
    control
        Process group for bookkeeping (DDP's own, barriers): not counted.
    device
        Where the model is.
    """

    rank: int
    world: World
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    group: Any
    control: Any
    device: torch.device

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """The model's trainable parameters, in order of registration."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def data_parallel(self, hook: Callable[..., Any], state: Any, bucket_mib: float) -> torch.nn.Module:
        """Return the model wrapped in DDP: ``hook(state, bucket)`` exchanges each bucket of gradients.

        Buffers stay each rank's own. DDP's own bookkeeping goes through ``control``.
        """
        import torch

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)  # its successor is not in torch 2.4
            model = torch.nn.parallel.DistributedDataParallel(
                self.model, process_group=self.control, bucket_cap_mb=bucket_mib, broadcast_buffers=False
            )
        model.register_comm_hook(state, hook)
        return model

    def new_group(self, ranks: Sequence[int] | None = None) -> Any:
        """Return a further counting group; every rank must make the same ones in the same order."""
        from benchsuite.tasks._transport import counted_group

        return counted_group(ranks)


class Session:
    """An algorithm at work on one rank; the training loop calls it at these five places.

    The defaults communicate nothing. ``model`` is what the loop calls for the forward pass. ``syncs`` counts
    exchanges of algorithms that do not communicate once a step.
    """

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model = model
        self.optimizer = optimizer
        self.syncs = 0

    def before_forward(self) -> None:
        """Do what comes before the forward pass of a step."""

    def after_backward(self) -> None:
        """Do what comes between gradients and optimiser."""

    def step(self) -> None:
        """Update the weights."""
        self.optimizer.step()

    def after_step(self) -> None:
        """Do what comes after the optimiser."""

    def close(self) -> None:
        """End all communication; called once, by every rank, after its last step."""


class TrainingAlgorithm(Method):
    """A way for ranks to train one model together."""

    @abstractmethod
    def join(self, worker: Worker) -> Session:
        """Start the algorithm on one rank; called by every rank.

        Raises
        ------
        ConfigError
            If the algorithm does not work with this world, model or optimiser.
        """

    @abstractmethod
    def sent_bytes(self, shapes: Sequence[tuple[int, ...]], world: World, steps: int, syncs: int) -> Fraction:
        """Return by formula the payload bytes that a rank sends (mean over ranks).

        Parameters
        ----------
        shapes
            Of all trainable parameters (float32), in the order in which backward finishes them.
        world, steps
            Ranks; steps made.
        syncs
            What the session counted, for algorithms that exchange by the clock.

        Raises
        ------
        ConfigError
            If the algorithm does not work with this world; called before any rank is started.
        """


def all_reduce_bytes(payload: int, ranks: int) -> Fraction:
    """Return the bytes that a rank sends in a ring all-reduce of ``payload`` bytes."""
    return Fraction(2 * (ranks - 1) * payload, ranks)


class DistributedTraining(Task):
    """See the module's description."""

    name = "distributed-training"
    title = "Data-parallel training with less communication"
    version = "1"
    Protocol = DistributedTrainingProtocol
    presets: ClassVar[Mapping[str, Preset]] = {
        "embedded": Preset(),
        "paper": Preset({"model": "vgg16", "lr": 0.01, "weight_decay": 1e-4}),
    }
    seed_axes = ("run",)
    published_seeds: ClassVar[Mapping[str, int]] = {"run": 3}
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
    data_type = "benchsuite.datasets.tabular_digits:TabularDataset"
    method_type = TrainingAlgorithm
    default_data = "digits-table"

    def evaluate(self, method: Method, data: Mapping[str, Any], protocol: Any, ctx: RunContext) -> Outcome:
        """Train on all ranks, then judge the mean of their models."""
        assert isinstance(method, TrainingAlgorithm)
        from benchsuite.tasks import _data_parallel

        dataset: TabularDataset = data["test"]
        _check_data(dataset, protocol)
        world = World(protocol.world_size, protocol.ranks_per_node)
        shapes = _data_parallel.parameter_shapes(dataset, protocol)
        method.sent_bytes(shapes, world, 1, 0)  # refuses a world that does not fit before anything starts
        with ctx.phase("fit"):
            ticks = ctx.steps(protocol.steps, "steps")
            reports = _data_parallel.train(method, _training_view(dataset), protocol, ctx, lambda: next(ticks, None))
            deque(ticks, maxlen=0)
        steps = reports[0].steps
        nodes = dataset.test if ctx.split == "test" else dataset.validation
        with ctx.phase("judge"):
            judged = _data_parallel.judge(reports, dataset, nodes, protocol)
        _write_predictions(ctx.artifact(_PREDICTIONS), nodes, judged.probabilities)
        _write_losses(ctx.artifact(_LOSSES), [report.losses for report in reports])
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

    def with_other_answers(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the data with the class of every test sample changed."""
        dataset: TabularDataset = data["test"]
        labels = dataset.labels.copy()
        labels[dataset.test] = (labels[dataset.test] + 1) % dataset.num_classes
        return dict.fromkeys(data, replace(dataset, labels=labels))


def time_to_loss(losses: Sequence[float], seconds: Sequence[float], target: float, window: int = 20) -> float | None:
    """Return the seconds until the mean of the last ``window`` losses is at most ``target``, or None.

    Parameters
    ----------
    losses, seconds
        Training loss of each step, and when the step was done (seconds since the start).
    """
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(losses, dtype=np.float64))])
    trailing = (sums[window:] - sums[:-window]) / window
    reached = np.flatnonzero(trailing <= target)
    return float(seconds[reached[0] + window - 1]) if len(reached) else None


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


def _write_predictions(path: Any, samples: np.ndarray, probabilities: np.ndarray) -> None:
    header = ",".join(["sample", *(f"probability_{c}" for c in range(probabilities.shape[1]))])
    formats = ["%d"] + ["%.9g"] * probabilities.shape[1]
    table = np.column_stack([samples, probabilities])
    np.savetxt(path, table, fmt=formats, delimiter=",", header=header, comments="")


def _write_losses(path: Any, losses: Sequence[Sequence[float]]) -> None:
    header = ",".join(f"rank_{rank}" for rank in range(len(losses)))
    np.savetxt(path, np.asarray(losses).T, fmt="%.9g", delimiter=",", header=header, comments="")
