"""The algorithms at work on one rank."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from benchsuite.core.errors import ConfigError
from benchsuite.tasks.distributed_training.contract import Session, Worker
from benchsuite_bagua.bucketing import flatten_in_place
from benchsuite_bagua.compressor import make_compressor
from benchsuite_bagua.config import (
    AsyncConfig,
    ByteGradConfig,
    DecentralizedConfig,
    GradientAllReduceConfig,
    LowPrecisionDecentralizedConfig,
    QAdamConfig,
)
from benchsuite_bagua.primitives import (
    CommunicationThread,
    LowPrecisionMean,
    LowPrecisionRing,
    Participants,
    mean_over,
    mean_with_peer,
    require_even,
)
from benchsuite_bagua.qadam import QAdam


@dataclass(frozen=True)
class Bucket:
    """Gradients that are exchanged together: flat (N,), and as views beside their parameters."""

    index: int
    flat: Tensor
    parameters: list[Tensor]
    gradients: list[Tensor]


class BucketSession(Session):
    """Exchanges buckets of gradients while backward goes on, through a communication hook of DDP."""

    def __init__(self, worker: Worker, optimizer: torch.optim.Optimizer, bucket_mib: float, hierarchical: bool) -> None:
        self.participants = Participants(worker, hierarchical)
        self._thread = CommunicationThread(worker.device)
        self._steps = 0
        super().__init__(worker.data_parallel(_start_exchange, self, bucket_mib), optimizer)

    def start(self, bucket: Bucket) -> torch.futures.Future[Tensor]:
        """Begin the exchange of a bucket."""
        return self._thread.start(lambda: self.exchange(bucket))

    def exchange(self, bucket: Bucket) -> Tensor:
        """Return what replaces a bucket's gradients, (N,)."""
        self.participants.run(bucket.flat, lambda flat: self.combine(flat, bucket.index))
        return bucket.flat

    def combine(self, flat: Tensor, bucket: int) -> None:
        """Combine the participants' vectors in place."""
        mean_over(flat, self.participants.group)

    def after_step(self) -> None:
        """Count the step."""
        self._steps += 1

    def close(self) -> None:
        """End the communication thread."""
        self._thread.close()


def _start_exchange(session, bucket):  # DDP would compare annotations, and here these are strings
    own = Bucket(bucket.index(), bucket.buffer(), bucket.parameters(), bucket.gradients())
    return session.start(own)


class GradientAllReduceSession(BucketSession):
    """Mean gradients in full precision: what DDP does."""

    def __init__(self, worker: Worker, config: GradientAllReduceConfig) -> None:
        super().__init__(worker, worker.optimizer, config.bucket_mib, config.hierarchical)


class ByteGradSession(BucketSession):
    """Mean gradients through the low-precision primitive."""

    def __init__(self, worker: Worker, config: ByteGradConfig) -> None:
        super().__init__(worker, worker.optimizer, config.bucket_mib, config.hierarchical)
        self._plain_mean = LowPrecisionMean(make_compressor(config.compressor))
        self._mean = LowPrecisionMean(make_compressor(config.compressor), config.error_feedback)

    def combine(self, flat: Tensor, bucket: int) -> None:
        """See `LowPrecisionMean`; the memory of errors starts with DDP's final buckets, at the second step."""
        mean = self._mean if self._steps else self._plain_mean
        mean(flat, self.participants.group, bucket)


class QAdamSession(BucketSession):
    """Mean gradients in full precision during the warm-up, then low-precision mean momenta."""

    def __init__(self, worker: Worker, config: QAdamConfig) -> None:
        self._adam = QAdam(worker.parameters, config)
        self._mean = LowPrecisionMean(make_compressor(config.compressor), config.error_feedback)
        self._group = worker.group
        super().__init__(worker, self._adam, config.bucket_mib, config.hierarchical)

    def exchange(self, bucket: Bucket) -> Tensor:
        """Return mean gradients, or, after the warm-up, mean momenta in their place."""
        if self._adam.averages_gradients:
            mean_over(bucket.flat, self._group)
            return bucket.flat
        pairs = zip(bucket.parameters, bucket.gradients, strict=True)
        momenta = torch.cat([self._adam.local_momentum(p, gradient).reshape(-1) for p, gradient in pairs])
        self.participants.run(momenta, lambda flat: self._mean(flat, self.participants.group, bucket.index))
        return momenta


class DecentralizedSession(Session):
    """Averages weights, not gradients, beside forward and backward.

    The gradient is that of the weights before averaging; the optimiser moves the averaged ones.
    """

    def __init__(self, worker: Worker, config: DecentralizedConfig) -> None:
        super().__init__(worker.model, worker.optimizer)
        self._participants = Participants(worker, config.hierarchical)
        self._config = config
        self._weights = flatten_in_place(worker.parameters)
        self._thread = CommunicationThread(worker.device)
        self._averaged: torch.futures.Future[Tensor] | None = None
        self._steps = 0
        if config.peers == "shift_one":
            require_even(self._participants.size)

    def before_forward(self) -> None:
        """Start averaging a copy of the weights."""
        if self._steps % self._config.interval == 0:
            copy, turn = self._weights.clone(), self.syncs
            self._averaged = self._thread.start(lambda: self._average(copy, turn))
            self.syncs += 1
        self._steps += 1

    def after_backward(self) -> None:
        """Put the averaged weights in place."""
        if self._averaged is not None:
            self._weights.copy_(self._averaged.wait())
            self._averaged = None

    def close(self) -> None:
        """End the communication thread."""
        self._thread.close()

    def _average(self, weights: Tensor, turn: int) -> Tensor:
        def combine(mean: Tensor) -> None:
            if self._config.peers == "all":
                mean_over(mean, self._participants.group)
            else:
                mean_with_peer(mean, self._participants, turn)

        self._participants.run(weights, combine)
        return weights


class LowPrecisionDecentralizedSession(Session):
    """Exchanges compressed differences of weights with the neighbours on a ring, after the optimiser's step."""

    def __init__(self, worker: Worker, config: LowPrecisionDecentralizedConfig) -> None:
        super().__init__(worker.model, worker.optimizer)
        _require_plain_optimizer(worker)
        self._participants = Participants(worker, config.hierarchical)
        self._interval = config.interval
        self._weights = flatten_in_place(worker.parameters)
        self.ring = LowPrecisionRing(self._weights, self._participants)
        self._steps = 0

    def after_step(self) -> None:
        """Exchange, every so many steps."""
        if self._steps % self._interval == 0:
            self._participants.run(self._weights, self.ring)
            self.syncs += 1
        self._steps += 1


def _require_plain_optimizer(worker: Worker) -> None:
    """Refuse an optimiser that does not update every parameter, or updates them outside its step."""
    owned = {id(p) for group in worker.optimizer.param_groups for p in group["params"]}
    for name, parameter in worker.model.named_parameters():
        if parameter.requires_grad and id(parameter) not in owned:
            raise ConfigError(
                f"parameter {name!r} belongs to no group of the optimiser: add it, all weights are exchanged"
            )
    if worker.optimizer.defaults.get("fused"):
        raise ConfigError("a fused optimiser cannot be used with exchanged weights: set fused=False")


class AsyncSession(Session):
    """Averages models in the background, by the clock; nobody waits for anybody.

    A thread copies the weights, averages the copies, and adds the *difference* to the weights, so that steps
    made in the meantime survive. Forward and backward keep it out; it writes between them and the optimiser
    [inferred: also never during the optimiser's step, which on a CPU would lose updates].
    """

    def __init__(self, worker: Worker, config: AsyncConfig) -> None:
        super().__init__(worker.model, worker.optimizer)
        self._config = config
        self._ranks = worker.world.size
        self._control = worker.control
        self._gradient_group = worker.group
        self._group = worker.new_group()  # two threads must not share one
        self._weights = flatten_in_place(worker.parameters)
        self._turn = _Turn()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._steps = 0

    def before_forward(self) -> None:
        """Keep the background out."""
        if self._steps == self._config.warmup_steps:
            self._thread = threading.Thread(target=self._average_until_stopped, daemon=True)
            self._thread.start()
        if self._error:
            raise self._error
        self._turn.take_for_training()

    def after_backward(self) -> None:
        """Let the background write; average gradients during the warm-up."""
        self._turn.give_back()
        if self._steps < self._config.warmup_steps:
            self._average_gradients()

    def step(self) -> None:
        """Update the weights."""
        self._turn.take_for_training()
        try:
            self.optimizer.step()
        finally:
            self._turn.give_back()
        self._steps += 1

    def close(self) -> None:
        """Agree with all ranks to stop."""
        dist.barrier(group=self._control)
        self._stop.set()
        if self._thread:
            self._thread.join()
        if self._error:
            raise self._error

    def _average_gradients(self) -> None:
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([p.grad.reshape(-1) for p in parameters])
        mean_over(flat, self._gradient_group)
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    def _average_until_stopped(self) -> None:
        try:
            while self._all_go_on():
                copy = self._weights.clone()
                total = copy.clone()
                dist.all_reduce(total, group=self._group)
                self._turn.take_for_writing()
                try:
                    self._weights.add_(total.div_(self._ranks).sub_(copy))
                finally:
                    self._turn.give_back()
                self.syncs += 1
                self._stop.wait(self._config.sync_interval_ms / 1000)
        except Exception as error:  # raised by the training thread at its next step
            self._error = error

    def _all_go_on(self) -> bool:
        """Agree on going on: one byte, the minimum over ranks."""
        alive = torch.tensor([not self._stop.is_set()], dtype=torch.uint8, device=self._weights.device)
        dist.all_reduce(alive, dist.ReduceOp.MIN, group=self._group)
        return bool(alive.item())


class _Turn:
    """A lock between the training thread and the background, which gets its turn as soon as it asks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = False
        self._asked = False

    def take_for_training(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._taken and not self._asked)
            self._taken = True

    def take_for_writing(self) -> None:
        with self._changed:
            self._asked = True
            self._changed.wait_for(lambda: not self._taken)
            self._taken, self._asked = True, False

    def give_back(self) -> None:
        with self._changed:
            self._taken = False
            self._changed.notify_all()
