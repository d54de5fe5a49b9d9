"""The training loop that every rank runs, and what a rank brings back from it."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DistributedSampler

from benchsuite.core import RunContext
from benchsuite.core.errors import ConfigError
from benchsuite.datasets.tabular_digits.reader import TabularDataset
from benchsuite.tasks.distributed_training import namespaces
from benchsuite.tasks.distributed_training.contract import (
    DistributedTrainingProtocol,
    TrainingAlgorithm,
    Worker,
    World,
)
from benchsuite.tasks.distributed_training.models import build_model
from benchsuite.tasks.distributed_training.ranks import run_ranks
from benchsuite.tasks.distributed_training.transport import Traffic, counted_group, register_counted_backend

_PATIENCE = timedelta(minutes=10)  # of a collective: a rank that dies is noticed long before
_UNTIMED_STEPS = 5
_TIMED_PARTS = 3


@dataclass(frozen=True)
class RankReport:
    """What one rank brings back.

    Attributes
    ----------
    state
        Its model's state, on the CPU.
    losses, seconds
        Training loss of each step; when the step was done, in seconds since the common start.
    sent_bytes, calls
        Payload sent, and the number of calls of each kind.
    syncs
        See `Session`.
    link_bytes
        What the kernel counted as sent on the rank's link during the steps (``veth`` only).
    load
        The machine's load average at the end.
    """

    rank: int
    state: dict[str, Tensor]
    losses: list[float]
    seconds: list[float]
    sent_bytes: Fraction
    calls: dict[str, int]
    syncs: int
    link_bytes: int | None
    load: float

    @property
    def steps(self) -> int:
        """Number of steps made."""
        return len(self.losses)

    @property
    def steps_per_s(self) -> float | None:
        """Median speed of three equal parts, after the first steps; None if there are too few."""
        times = self.seconds[_UNTIMED_STEPS:]
        part = (len(times) - 1) // _TIMED_PARTS
        if part < 1:
            return None
        return statistics.median(part / (times[(i + 1) * part] - times[i * part]) for i in range(_TIMED_PARTS))

    def row(self) -> dict[str, Any]:
        """Return the record for the table of ranks."""
        return {
            "rank": self.rank,
            "steps": self.steps,
            "sent_bytes": float(self.sent_bytes),
            "link_bytes": self.link_bytes,
            "calls": sum(self.calls.values()),
            "syncs": self.syncs,
            "last_loss": self.losses[-1],
            "wall_s": round(self.seconds[-1], 3),
            "load_average": round(self.load, 2),
        }


def choose_backend(protocol: DistributedTrainingProtocol, device: str) -> str:
    """Return ``gloo`` or ``nccl``.

    Raises
    ------
    ConfigError
        If NCCL is asked for without a GPU for every rank.
    """
    gpus = torch.cuda.device_count() if device != "cpu" else 0
    enough = gpus >= protocol.world_size and dist.is_nccl_available()
    if protocol.backend == "auto":
        return "nccl" if enough else "gloo"
    if protocol.backend == "nccl" and not enough:
        raise ConfigError(
            f"backend nccl needs a GPU for each of {protocol.world_size} ranks, there are {gpus} (device {device}):"
            " choose task.backend=gloo"
        )
    return protocol.backend


def train(
    method: TrainingAlgorithm,
    dataset: TabularDataset,
    protocol: DistributedTrainingProtocol,
    ctx: RunContext,
    on_step: Callable[[], object],
) -> list[RankReport]:
    """Train on all ranks; returns their reports, in order of rank."""
    backend = choose_backend(protocol, ctx.device)
    importlib.import_module("torch._dynamo")  # optimisers and DDP load it at first use: seconds, here once for all
    seeds = {name: ctx.seed_for("run", name) for name in ("weights", "order")}
    folder = ctx.workdir / "ranks"
    arguments = [
        (_Seat(rank, backend, folder / "meeting-point", ctx.for_rank(rank)), method, dataset, protocol, seeds)
        for rank in range(protocol.world_size)
    ]
    with _links(protocol, folder) as plug_in:
        return run_ranks(
            _train_rank,
            arguments,
            folder,
            fork=not torch.cuda.is_available(),  # CUDA does not survive a fork
            on_step=on_step,
            on_start=plug_in,
        )


@contextlib.contextmanager
def _links(protocol: DistributedTrainingProtocol, folder: Path) -> Iterator[Callable[[Sequence[int]], None]]:
    """Yield what connects the ranks once they exist: nothing on loopback, a switch of virtual links else."""
    if protocol.network == "loopback":
        yield lambda pids: None
        return
    with namespaces.switch(folder, protocol.bandwidth_mbit) as plug_in:
        yield plug_in


@dataclass(frozen=True)
class _Seat:
    """Where a rank sits."""

    rank: int
    backend: str
    meeting_point: Path
    ctx: RunContext


def _stay_on_this_machine() -> None:
    """Let ranks talk over the loopback interface; the one that the environment names may not be there."""
    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    os.environ.pop("GLOO_SOCKET_IFNAME", None)
    if loopback:
        os.environ["GLOO_SOCKET_IFNAME"] = loopback[0]


def _train_rank(
    seat: _Seat,
    method: TrainingAlgorithm,
    dataset: TabularDataset,
    protocol: DistributedTrainingProtocol,
    seeds: dict[str, int],
    tell: Callable[[], None],
) -> RankReport:
    """Be one rank from start to end."""
    rank, world_size = seat.rank, protocol.world_size
    torch.set_num_threads(seat.ctx.threads)
    if protocol.network == "veth":
        namespaces.enter(seat.meeting_point.parent, rank, protocol.bandwidth_mbit)
    else:
        _stay_on_this_machine()
    device = torch.device("cuda", rank) if seat.backend == "nccl" else torch.device("cpu")
    dist.init_process_group(
        seat.backend, init_method=f"file://{seat.meeting_point}", rank=rank, world_size=world_size, timeout=_PATIENCE
    )
    traffic = Traffic()
    register_counted_backend(seat.backend, traffic, protocol.latency_ms / 1000)
    torch.manual_seed(seeds["weights"])
    model = build_model(dataset.features.shape[1], dataset.num_classes, protocol).to(device)
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, 0)
    torch.manual_seed(seat.ctx.seed_for("run", "dropout"))
    worker = Worker(
        rank=rank,
        world=World(world_size, protocol.ranks_per_node),
        model=model,
        optimizer=torch.optim.SGD(
            model.parameters(), lr=protocol.lr, momentum=protocol.momentum, weight_decay=protocol.weight_decay
        ),
        group=counted_group(),
        control=dist.group.WORLD,
        new_group=counted_group,
        device=device,
    )
    session = method.join(worker)
    batches = _batches(dataset, protocol, rank, seeds["order"])
    losses: list[float] = []
    seconds: list[float] = []
    dist.barrier()
    link_before = namespaces.sent_on_link() if protocol.network == "veth" else 0
    start = time.perf_counter()
    for step in seat.ctx.steps(protocol.steps):
        features, labels = (part.to(device) for part in next(batches))
        session.before_forward()
        loss = nn.functional.cross_entropy(session.model(features), labels)
        session.optimizer.zero_grad()
        loss.backward()
        if step == 0:
            _require_gradients(model)
        session.after_backward()
        session.step()
        session.after_step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
        tell()
    session.close()
    dist.barrier()
    link = namespaces.sent_on_link() - link_before if protocol.network == "veth" else None
    return RankReport(
        rank=rank,
        state={name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()},
        losses=losses,
        seconds=seconds,
        sent_bytes=traffic.sent_bytes,
        calls=dict(traffic.calls),
        syncs=session.syncs,
        link_bytes=link,
        load=os.getloadavg()[0],
    )


def _require_gradients(model: nn.Module) -> None:
    """Refuse a model in which a trainable parameter takes no part: ranks would wait for its gradient."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            raise ConfigError(
                f"parameter {name!r} receives no gradient, but every parameter is exchanged:"
                " use it in the forward pass or set requires_grad=False"
            )


def _batches(
    dataset: TabularDataset, protocol: DistributedTrainingProtocol, rank: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this rank's batches for ever: its share of one permutation an epoch, short ends dropped."""
    features, labels = torch.from_numpy(dataset.features), torch.from_numpy(dataset.labels)
    sampler: DistributedSampler[Any] = DistributedSampler(
        range(len(labels)),
        num_replicas=protocol.world_size,
        rank=rank,
        shuffle=True,
        seed=seed % 2**30,
        drop_last=True,
    )
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        share = torch.tensor(list(sampler))
        for batch in share.split(protocol.local_batch):
            if len(batch) == protocol.local_batch:
                yield features[batch], labels[batch]
        epoch += 1
