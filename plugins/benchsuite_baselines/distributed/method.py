"""torch's own data-parallel training, as rows: nothing but its public parts put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import prod

import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, post_localSGD_hook, powerSGD_hook
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.optim import PostLocalSGDOptimizer

from benchsuite.core.errors import ConfigError
from benchsuite.tasks.distributed_training.contract import Session, TrainingAlgorithm, Worker, World, all_reduce_bytes
from benchsuite.tasks.distributed_training.simulated_contract import (
    EmulatedAlgorithm,
    Emulation,
    Exchange,
    bucket_count,
)
from benchsuite_baselines.distributed.config import DDPConfig, PostLocalSGDConfig, PowerSGDConfig

_MIB = 2**20


def _elements(shapes: Sequence[tuple[int, ...]]) -> int:
    return sum(prod(shape) for shape in shapes)


class DDP(TrainingAlgorithm, EmulatedAlgorithm):
    """Mean gradients by all-reduce, while backward goes on."""

    Config = DDPConfig

    def join(self, worker: Worker) -> Session:
        """See `TrainingAlgorithm.join`."""
        hooks = {
            "fp32": default_hooks.allreduce_hook,
            "fp16": default_hooks.fp16_compress_hook,
            "bf16": default_hooks.bf16_compress_hook,
        }
        hook = hooks[self.config.precision]
        return Session(worker.data_parallel(hook, worker.group, self.config.bucket_mib), worker.optimizer)

    def sent_bytes(self, shapes: Sequence[tuple[int, ...]], world: World, steps: int, syncs: int) -> Fraction:
        """See `TrainingAlgorithm.sent_bytes`."""
        return steps * all_reduce_bytes(self._element_bytes * _elements(shapes), world.size)

    def emulate(self, weights: Tensor, lr: float, momentum: float) -> Emulation:
        """See `EmulatedAlgorithm.emulate`."""
        return _MeanGradients(weights, lr, momentum, self.config.precision)

    def exchange(self, elements: int, workers: int, step: int) -> Exchange:
        """See `EmulatedAlgorithm.exchange`."""
        rounds = 2 * (workers - 1) * bucket_count(elements, self.config.bucket_mib * _MIB)
        return Exchange(float(all_reduce_bytes(self._element_bytes * elements, workers)), rounds)

    @property
    def _element_bytes(self) -> int:
        return 4 if self.config.precision == "fp32" else 2


class _MeanGradients(Emulation):
    def __init__(self, weights: Tensor, lr: float, momentum: float, precision: str) -> None:
        super().__init__(weights, lr, momentum)
        self._round: Callable[[Tensor], Tensor] = {"fp32": Tensor.float, "fp16": Tensor.half, "bf16": Tensor.bfloat16}[
            precision
        ]

    def combine_gradients(self, gradients: Tensor) -> Tensor:
        # As the hooks do: every worker divides before it sends, and the sum has the type that is sent.
        shares = self._round(gradients / len(gradients))
        return shares.sum(dim=0, keepdim=True).float().expand_as(gradients)


class PowerSGD(TrainingAlgorithm):
    """Gradients of matrices sent as products of two thin ones, with error feedback."""

    Config = PowerSGDConfig

    def join(self, worker: Worker) -> Session:
        """See `TrainingAlgorithm.join`.

        Raises
        ------
        ConfigError
            For several buckets over gloo: their exchanges meet in different order on different ranks.
        """
        config = self.config
        model_mib = 4 * sum(parameter.numel() for parameter in worker.parameters) / _MIB
        if (
            config.bucket_mib is not None
            and config.bucket_mib < model_mib
            and dist.get_backend(worker.control) == "gloo"
        ):
            raise ConfigError(
                f"PowerSGD over gloo works with one bucket only, and {config.bucket_mib:g} MiB do not hold this model"
                f" ({model_mib:.1f} MiB): set powersgd.bucket_mib=none"
            )
        state = powerSGD_hook.PowerSGDState(
            worker.group,
            matrix_approximation_rank=config.rank,
            start_powerSGD_iter=config.plain_steps,
            min_compression_rate=config.minimum_rate,
        )
        bucket_mib = config.bucket_mib or model_mib + 1
        return Session(worker.data_parallel(powerSGD_hook.powerSGD_hook, state, bucket_mib), worker.optimizer)

    def sent_bytes(self, shapes: Sequence[tuple[int, ...]], world: World, steps: int, syncs: int) -> Fraction:
        """See `TrainingAlgorithm.sent_bytes`."""
        plain = min(steps, self.config.plain_steps)
        approximated = sum(self._sent_elements(shape) for shape in shapes)
        elements = plain * _elements(shapes) + (steps - plain) * approximated
        return all_reduce_bytes(4 * elements, world.size)

    def _sent_elements(self, shape: tuple[int, ...]) -> int:
        elements = prod(shape)
        if len(shape) < 2:
            return elements
        rows, columns = shape[0], elements // shape[0]
        thin = min(rows, columns, self.config.rank) * (rows + columns)
        return thin if self.config.rank * (rows + columns) * self.config.minimum_rate < elements else elements


class PostLocalSGD(TrainingAlgorithm):
    """Mean gradients for a while; then ranks (nodes) go their own way and average their weights now and then."""

    Config = PostLocalSGDConfig

    def join(self, worker: Worker) -> Session:
        """See `TrainingAlgorithm.join`."""
        config, per_node = self.config, worker.world.ranks_per_node
        nodes = [worker.new_group(range(first, first + per_node)) for first in range(0, worker.world.size, per_node)]
        state = post_localSGD_hook.PostLocalSGDState(
            worker.group,
            nodes[worker.rank // per_node],
            start_localSGD_iter=config.plain_steps,
            post_local_gradient_allreduce=per_node > 1,
        )
        averager = PeriodicModelAverager(config.period, config.plain_steps, worker.group)
        model = worker.data_parallel(post_localSGD_hook.post_localSGD_hook, state, 25.0)
        return Session(model, PostLocalSGDOptimizer(worker.optimizer, averager))

    def sent_bytes(self, shapes: Sequence[tuple[int, ...]], world: World, steps: int, syncs: int) -> Fraction:
        """See `TrainingAlgorithm.sent_bytes`."""
        plain = min(steps, self.config.plain_steps)
        averages = -(-(steps - plain) // self.config.period)
        payload = 4 * _elements(shapes)
        within_nodes = (steps - plain) * all_reduce_bytes(payload, world.ranks_per_node)
        return (plain + averages) * all_reduce_bytes(payload, world.size) + within_nodes
