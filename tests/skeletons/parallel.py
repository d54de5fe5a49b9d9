"""Data-parallel training: the method runs on two ranks over gloo, inside one isolated run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from benchsuite.core import Method, Metric, Outcome, Ranking, RunContext, Task


class Algorithm(Method):
    @abstractmethod
    def exchange(self, gradient: torch.Tensor) -> int:
        """Combine the ranks' gradients in place; returns the bytes sent."""


class AllReduce(Algorithm):
    def exchange(self, gradient: torch.Tensor) -> int:
        dist.all_reduce(gradient)
        gradient /= dist.get_world_size()
        return gradient.numel() * gradient.element_size()


@dataclass(frozen=True)
class ParallelProtocol:
    world_size: int = 2
    steps: int = 20


class ParallelTask(Task):
    name, version = "toy-parallel", "1"
    Protocol = ParallelProtocol
    metrics = (
        Metric("error", "min", "", doc="distance of the averaged model from the solution"),
        Metric("consensus_distance", "min", "", doc="largest distance between two ranks' models"),
        Metric("bytes_per_step", "min", "B", "cost", doc="bytes sent by a rank in a step"),
    )
    ranking = Ranking("error")
    reference = "toy-allreduce"
    data_type = "skeletons.attack:Points"
    method_type = Algorithm
    default_data = "toy-points"

    def evaluate(self, method: Method, data: Mapping[str, Any], protocol: Any, ctx: RunContext) -> Outcome:
        world = protocol.world_size
        with ctx.phase("fit"):
            ranks = [ctx.for_rank(rank) for rank in range(world)]
            arguments = (ranks, method, protocol.steps, str(ctx.workdir / "rendezvous"))
            multiprocessing.start_processes(_train, arguments, nprocs=world, start_method="fork")
        models = [torch.load(ctx.workdir / f"model-{rank}.pt", weights_only=True) for rank in range(world)]
        mean = torch.stack([m["weights"] for m in models]).mean(dim=0)
        return Outcome(
            {
                "error": float((mean - 1.0).norm()),
                "consensus_distance": float((models[0]["weights"] - models[-1]["weights"]).norm()),
                "bytes_per_step": models[0]["bytes"] / protocol.steps,
            },
            parameters=mean.numel(),
        )


def _train(rank: int, ranks: list[RunContext], method: Algorithm, steps: int, rendezvous: str) -> None:
    ctx = ranks[rank]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=len(ranks))
    try:
        weights, sent = torch.zeros(5), 0
        generator = torch.Generator().manual_seed(ctx.seed_for("run", "batches"))
        for _ in ctx.steps(steps):
            batch = torch.randn(16, 5, generator=generator)
            gradient = batch.T @ (batch @ (weights - 1.0)) / len(batch)
            sent += method.exchange(gradient)
            weights -= 0.3 * gradient
        torch.save({"weights": weights, "bytes": sent}, Path(ctx.workdir).parent / f"model-{rank}.pt")
    finally:
        dist.destroy_process_group()
