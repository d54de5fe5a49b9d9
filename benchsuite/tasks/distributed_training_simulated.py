"""Data-parallel training on up to a thousand workers, in one process.

What the workers learn is emulated exactly: row i of one tensor (workers, parameters) is worker i's model,
trained on its own batches and combined with the others' just as the algorithm says. What it costs comes
from a model of the network (see ``_network_model``) for a published workload.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Constraint, Method, Metric, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.datasets.tabular_digits import TabularDataset
from benchsuite.metrics import classification
from benchsuite.tasks._network_model import (
    WORKLOADS,
    Exchange,
    Network,
    Stragglers,
    Waiting,
    bucket_count,
    run_clocks,
)
from benchsuite.tasks.distributed_training import (
    DistributedTraining,
    DistributedTrainingProtocol,
    _write_predictions,
    time_to_loss,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DistributedTrainingSimulated", "EmulatedAlgorithm", "Emulation", "Exchange", "Waiting", "bucket_count"]


@dataclass(frozen=True)
class SimulatedTrainingProtocol:
    """What belongs to neither algorithm nor data.

    Parameters
    ----------
    workers
        How many there are (8 to 1,024): machines, since what happens inside a machine is neglected.
    hidden, steps, local_batch, lr, momentum, target_loss
        Of the emulated training, as in ``distributed-training``. Batches are drawn with replacement.
    workload
        Whose parameters, steps and computing time the costs are for.
    bandwidth_gbps, latency_ms
        Of every worker's link.
    straggler_probability, straggler_slowdown
        With this probability a worker's step takes so many times as long.
    """

    workers: int = 16
    hidden: int = 64
    steps: int = 150
    local_batch: int = 16
    lr: float = 0.1
    momentum: float = 0.9
    target_loss: float = 0.2
    workload: Literal["bert-large", "vgg16"] = "bert-large"
    bandwidth_gbps: float = 10.0
    latency_ms: float = 0.0
    straggler_probability: float = 0.0
    straggler_slowdown: float = 1.0

    def __post_init__(self) -> None:
        for name in ("workers", "hidden", "steps", "local_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.bandwidth_gbps <= 0 or self.latency_ms < 0:
            raise ValueError("bandwidth_gbps must be above 0 and latency_ms not negative")
        if not 0 <= self.straggler_probability <= 1 or self.straggler_slowdown < 1:
            raise ValueError("straggler_probability must be in [0, 1] and straggler_slowdown at least 1")


class Emulation:
    """An algorithm at work on all workers at once. Tensors are (workers, parameters), float32, changed in place.

    The defaults exchange nothing and make steps of stochastic gradient descent with momentum.
    """

    def __init__(self, weights: Tensor, lr: float, momentum: float) -> None:
        self.weights = weights
        self.lr = lr
        self.momentum = momentum
        self._velocity: Tensor | None = None

    def before_forward(self) -> None:
        """Do what comes before the gradients of a step are computed."""

    def combine_gradients(self, gradients: Tensor) -> Tensor:
        """Return what the optimisers get in place of the workers' own gradients."""
        return gradients

    def after_backward(self) -> None:
        """Do what comes between gradients and optimiser."""

    def update(self, gradients: Tensor) -> None:
        """Make one step of every worker's optimiser."""
        first = self._velocity is None
        self._velocity = gradients.clone() if first else self._velocity.mul_(self.momentum).add_(gradients)  # type: ignore[union-attr]
        self.weights.sub_(self._velocity, alpha=self.lr)

    def after_step(self) -> None:
        """Do what comes after the optimiser."""

    def partners(self, step: int) -> NDArray[np.int64] | Waiting:
        """Return whose messages a worker waits for in a step: indices (workers, k), ``everybody`` or ``nobody``."""
        return "everybody"


class EmulatedAlgorithm(Method):
    """A way for workers to train one model together, as it can be emulated in one process."""

    @abstractmethod
    def emulate(self, weights: Tensor, lr: float, momentum: float) -> Emulation:
        """Start the algorithm on equal weights (workers, parameters).

        Raises
        ------
        ConfigError
            If the algorithm does not work with so many workers.
        """

    @abstractmethod
    def exchange(self, elements: int, workers: int, step: int) -> Exchange:
        """Return what a worker sends in a step (the first is 0), for a model of so many float32 parameters."""


class DistributedTrainingSimulated(Task):
    """See the module's description."""

    name = "distributed-training-simulated"
    title = "Data-parallel training on many workers, simulated"
    version = "1"
    Protocol = SimulatedTrainingProtocol
    presets: ClassVar[Mapping[str, Preset]] = {
        "embedded": Preset(),
        "paper": Preset({"workers": 16, "workload": "bert-large", "bandwidth_gbps": 100.0}),
    }
    seed_axes = ("run",)
    published_seeds: ClassVar[Mapping[str, int]] = {"run": 3}
    metrics = (
        Metric("accuracy", "max", doc="share of test samples that the mean of all models classifies correctly"),
        Metric("consensus_distance", "min", unit="", doc="as in distributed-training"),
        Metric("bytes_per_step", "min", unit="B", doc="payload sent by a worker in a step of the workload"),
        Metric("epoch_time", "min", unit="s", doc="simulated seconds of an epoch of the workload"),
        Metric("time_to_loss", "min", unit="s", doc="simulated seconds until the mean training loss is at the target"),
    )
    ranking = Ranking("epoch_time", Constraint("accuracy", "ddp", 0.015))
    reference = "ddp"
    data_type = "benchsuite.datasets.tabular_digits:TabularDataset"
    method_type = EmulatedAlgorithm
    default_data = "digits-table"

    def evaluate(self, method: Method, data: Mapping[str, Any], protocol: Any, ctx: RunContext) -> Outcome:
        """Emulate the training, then put the workload's price on it."""
        assert isinstance(method, EmulatedAlgorithm)
        from benchsuite.tasks import _data_parallel, _emulation, _network_plot

        dataset: TabularDataset = data["test"]
        with ctx.phase("fit"):
            trained = _emulation.train(method, dataset, protocol, ctx)
        samples = dataset.test if ctx.split == "test" else dataset.validation
        probabilities = _emulation.mean_model_probabilities(trained, dataset.features[samples])
        _write_predictions(ctx.artifact("predictions.csv"), samples, probabilities)
        workload = WORKLOADS[protocol.workload]
        network = Network(protocol.bandwidth_gbps, protocol.latency_ms)
        steps = len(trained.losses)
        exchanges = [method.exchange(workload.elements, protocol.workers, step) for step in range(steps)]
        seconds = run_clocks(
            protocol.workers,
            trained.partners,
            workload.compute_s,
            [network.seconds(exchange) for exchange in exchanges],
            Stragglers(protocol.straggler_probability, protocol.straggler_slowdown),
            np.random.default_rng(ctx.seed_for("run", "stragglers")),
        )
        _network_plot.draw_epoch_times(
            ctx.artifact("epoch_time.svg"), workload, {"this method": exchanges}, protocol.latency_ms
        )
        scores: dict[str, float | None] = {
            "accuracy": classification.accuracy(probabilities.argmax(axis=1), dataset.labels[samples]),
            "consensus_distance": _data_parallel.consensus_distance(trained.weights),
            "bytes_per_step": float(np.mean([exchange.sent_bytes for exchange in exchanges])),
            "epoch_time": float(seconds[-1] / steps * workload.steps_per_epoch),
            "time_to_loss": time_to_loss(trained.losses, list(seconds), protocol.target_loss),
        }
        undefined = {"time_to_loss": f"the training loss never came down to {protocol.target_loss:g}"}
        return Outcome(
            scores=scores,
            undefined={name: reason for name, reason in undefined.items() if scores[name] is None},
            counts={"workers": protocol.workers, "steps": steps},
            parameters=trained.weights.shape[1],
        )

    def with_other_answers(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the data with the class of every test sample changed."""
        return DistributedTraining().with_other_answers(data)


def model_protocol(protocol: SimulatedTrainingProtocol) -> DistributedTrainingProtocol:
    """Return the protocol of the emulated model."""
    return DistributedTrainingProtocol(hidden=protocol.hidden)
