"""What an algorithm for simulated training may import: protocol, emulation, abstract class, exchanges."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Method
from benchsuite.tasks.distributed_training.cost_model import Exchange, Waiting, bucket_count

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["EmulatedAlgorithm", "Emulation", "Exchange", "SimulatedTrainingProtocol", "Waiting", "bucket_count"]


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
