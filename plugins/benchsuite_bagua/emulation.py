"""The algorithms on all workers at once: tensors are (workers, parameters), row i is worker i.

The same arithmetic as over a network, with every message decoded as its receiver would decode it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchsuite.tasks.distributed_training.simulated_contract import Emulation
from benchsuite_bagua.compressor import Compressor, MinMaxUInt8, make_compressor
from benchsuite_bagua.config import AsyncConfig, ByteGradConfig, DecentralizedConfig, QAdamConfig
from benchsuite_bagua.primitives import ErrorMemory, require_even, shift_one_peer
from benchsuite_bagua.qadam import QAdam


def for_everybody(mean: Tensor, workers: int) -> Tensor:
    """Return a vector (N,) as everybody's row, (workers, N)."""
    return mean.expand(workers, -1)


class EmulatedLowPrecisionMean:
    """The centralised low-precision primitive; see `benchsuite_bagua.primitives.LowPrecisionMean`."""

    def __init__(self, compressor: Compressor, error_feedback: bool = False) -> None:
        self.compressor = compressor
        self._memory = ErrorMemory() if error_feedback else None

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return the mean (N,) of vectors (n, N) as it comes through two compressions."""
        workers, elements = vectors.shape
        chunk = -(-elements // workers)
        padded = vectors.new_zeros(workers, workers * chunk)
        padded[:, :elements] = vectors
        sent = self._through(padded.view(workers * workers, chunk), "worker")  # worker i's chunk r: row i * n + r
        means = sent.view(workers, workers, chunk).mean(dim=0)  # (n, m)
        return self._through(means, "server").reshape(-1)[:elements]

    def _through(self, chunks: Tensor, side: Literal["worker", "server"]) -> Tensor:
        """Return chunks as they are after compression; remember what was lost."""
        lost = None if self._memory is None else getattr(self._memory, side)
        if lost is not None:
            chunks = chunks + lost
        decoded = self.compressor.decompress(self.compressor.compress(chunks), chunks.shape[1])
        if self._memory is not None:
            setattr(self._memory, side, chunks - decoded)
        return decoded


class MeanGradients(Emulation):
    """Mean gradients in full precision."""

    def combine_gradients(self, gradients: Tensor) -> Tensor:
        """See `Emulation.combine_gradients`."""
        return for_everybody(gradients.mean(dim=0), len(gradients))


class CompressedGradients(Emulation):
    """Mean gradients through the low-precision primitive, the whole model in one bucket."""

    def __init__(self, weights: Tensor, lr: float, momentum: float, config: ByteGradConfig) -> None:
        super().__init__(weights, lr, momentum)
        self._mean = EmulatedLowPrecisionMean(make_compressor(config.compressor), config.error_feedback)

    def combine_gradients(self, gradients: Tensor) -> Tensor:
        """See `Emulation.combine_gradients`."""
        return for_everybody(self._mean(gradients), len(gradients))


class CompressedMomenta(Emulation):
    """Adam with mean gradients at first, then with low-precision mean momenta."""

    def __init__(self, weights: Tensor, lr: float, momentum: float, config: QAdamConfig) -> None:
        super().__init__(weights, lr, momentum)
        self._parameter = torch.nn.Parameter(weights, requires_grad=False)
        self._adam = QAdam([self._parameter], config)
        self._mean = EmulatedLowPrecisionMean(make_compressor(config.compressor), config.error_feedback)

    def combine_gradients(self, gradients: Tensor) -> Tensor:
        """Return mean gradients, or, after the warm-up, mean momenta in their place."""
        if self._adam.averages_gradients:
            return for_everybody(gradients.mean(dim=0), len(gradients))
        momenta = self._adam.local_momentum(self._parameter, gradients)
        return for_everybody(self._mean(momenta), len(gradients))

    def update(self, gradients: Tensor) -> None:
        """Make one step of Adam."""
        self._parameter.grad = gradients.contiguous()
        self._adam.step()


class AveragedWeights(Emulation):
    """Weights averaged with all or with one peer; the gradient is that of the weights before averaging."""

    def __init__(self, weights: Tensor, lr: float, momentum: float, config: DecentralizedConfig) -> None:
        super().__init__(weights, lr, momentum)
        self._config = config
        self._averaged: Tensor | None = None
        self._steps = 0
        if config.peers == "shift_one":
            require_even(len(weights))

    def before_forward(self) -> None:
        """Average a copy of the weights."""
        if self._steps % self._config.interval == 0:
            if self._config.peers == "all":
                self._averaged = for_everybody(self.weights.mean(dim=0), len(self.weights)).clone()
            else:
                self._averaged = (self.weights + self.weights[self._peers(self._steps)]) * 0.5
        self._steps += 1

    def after_backward(self) -> None:
        """Put the averaged weights in place."""
        if self._averaged is not None:
            self.weights.copy_(self._averaged)
            self._averaged = None

    def partners(self, step: int) -> NDArray[np.int64] | Literal["everybody", "nobody"]:
        """See `Emulation.partners`."""
        if step % self._config.interval:
            return "nobody"
        return "everybody" if self._config.peers == "all" else self._peers(step)[:, None]

    def _peers(self, step: int) -> NDArray[np.int64]:
        workers, turn = len(self.weights), step // self._config.interval
        return np.array([shift_one_peer(worker, workers, turn) for worker in range(workers)])


class CompressedRing(Emulation):
    """Compressed differences of weights to both neighbours on a ring, after the optimiser.

    A neighbour's replica equals its own weights bit for bit, so the replicas are rotations of them.
    """

    def __init__(self, weights: Tensor, lr: float, momentum: float, interval: int) -> None:
        super().__init__(weights, lr, momentum)
        self._own = weights.clone()
        self._interval = interval
        self._compressor = MinMaxUInt8()
        self._steps = 0

    def after_step(self) -> None:
        """Exchange, every so many steps."""
        if self._steps % self._interval == 0:
            left, right = self._own.roll(1, dims=0), self._own.roll(-1, dims=0)
            difference = self.weights + left / 3 + right / 3 - (5 / 3) * self._own
            codes = self._compressor.compress(difference)
            self._own += self._compressor.decompress(codes, difference.shape[1])
            self.weights.copy_(self._own)
        self._steps += 1

    def partners(self, step: int) -> NDArray[np.int64] | Literal["everybody", "nobody"]:
        """See `Emulation.partners`."""
        if step % self._interval:
            return "nobody"
        workers = np.arange(len(self.weights))
        return np.stack([np.roll(workers, 1), np.roll(workers, -1)], axis=1)


class BackgroundAverage(Emulation):
    """Averages that arrive some steps after they started; only the difference is added.

    The clock of the real algorithm becomes a number of steps, the same for all workers.
    """

    def __init__(self, weights: Tensor, lr: float, momentum: float, config: AsyncConfig) -> None:
        super().__init__(weights, lr, momentum)
        self._config = config
        self._steps = 0
        self._next_event = config.warmup_steps
        self._difference: Tensor | None = None

    def before_forward(self) -> None:
        """Start an average, or let one arrive, if it is time."""
        if self._steps == self._next_event:
            if self._difference is None:
                self._difference = self.weights.mean(dim=0) - self.weights
                self._next_event += self._config.emulated_delay
            else:
                self.weights += self._difference
                self._difference = None
                self._next_event += self._config.emulated_interval
        self._steps += 1

    def combine_gradients(self, gradients: Tensor) -> Tensor:
        """Average gradients during the warm-up."""
        if self._steps <= self._config.warmup_steps:
            return for_everybody(gradients.mean(dim=0), len(gradients))
        return gradients

    def partners(self, step: int) -> NDArray[np.int64] | Literal["everybody", "nobody"]:
        """See `Emulation.partners`."""
        return "everybody" if step < self._config.warmup_steps else "nobody"
