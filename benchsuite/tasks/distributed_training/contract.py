"""What an algorithm for training on real ranks may import: protocol, world and worker, session, abstract class."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, Protocol

from benchsuite.core import Method

if TYPE_CHECKING:
    import torch


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


class GroupMaker(Protocol):
    """Makes process groups whose every byte is counted."""

    def __call__(self, ranks: Sequence[int] | None = None) -> Any:
        """Return a new group of these ranks (default: all); every rank makes the same ones in the same order."""


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
    new_group
        Makes further groups that are counted too: ``worker.new_group([0, 1])``.
    device
        Where the model is.
    """

    rank: int
    world: World
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    group: Any
    control: Any
    new_group: GroupMaker
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
