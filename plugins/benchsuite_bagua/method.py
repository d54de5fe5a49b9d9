"""BAGUA's algorithms as rows: each on real ranks, emulated in one process, and as a formula of what it sends."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod

from torch import Tensor

from benchsuite.tasks.distributed_training.contract import Session, TrainingAlgorithm, Worker, World
from benchsuite.tasks.distributed_training.simulated_contract import (
    EmulatedAlgorithm,
    Emulation,
    Exchange,
    bucket_count,
)
from benchsuite_bagua import algorithms, emulation, traffic
from benchsuite_bagua.bucketing import bucket_sizes
from benchsuite_bagua.compressor import Compressor, MinMaxUInt8, make_compressor
from benchsuite_bagua.config import (
    AsyncConfig,
    ByteGradConfig,
    DecentralizedConfig,
    GradientAllReduceConfig,
    LowPrecisionDecentralizedConfig,
    QAdamConfig,
)
from benchsuite_bagua.primitives import require_even

_MIB = 2**20
_NOTHING = Exchange(0.0, 0.0)


def _elements(shapes: Sequence[tuple[int, ...]]) -> int:
    return sum(prod(shape) for shape in shapes)


def _buckets(shapes: Sequence[tuple[int, ...]], bucket_mib: float) -> list[int]:
    return bucket_sizes([prod(shape) for shape in shapes], int(bucket_mib * _MIB))


def _full_precision_exchange(elements: int, workers: int, count: int) -> Exchange:
    """Ring all-reduces, one a bucket: 2 (n - 1) rounds each."""
    return Exchange(float(traffic.full_precision_bytes(elements, workers)), 2 * (workers - 1) * count)


def _low_precision_exchange(compressor: Compressor, elements: int, workers: int, count: int) -> Exchange:
    """An all-to-all and an all-gather a bucket: two rounds."""
    bucket = -(-elements // count)
    return Exchange(float(count * traffic.low_precision_bytes(compressor, bucket, workers)), 2 * count)


class GradientAllReduce(TrainingAlgorithm, EmulatedAlgorithm):
    """Mean gradients in full precision."""

    Config = GradientAllReduceConfig

    def join(self, worker: Worker) -> Session:
        """See `TrainingAlgorithm.join`."""
        return algorithms.GradientAllReduceSession(worker, self.config)

    def sent_bytes(self, shapes: Sequence[tuple[int, ...]], world: World, steps: int, syncs: int) -> Fraction:
        """See `TrainingAlgorithm.sent_bytes`."""
        elements = _elements(shapes)
        return steps * traffic.hierarchical_bytes(
            elements, world, self.config.hierarchical, traffic.full_precision_bytes
        )

    def emulate(self, weights: Tensor, lr: float, momentum: float) -> Emulation:
        """See `EmulatedAlgorithm.emulate`."""
        return emulation.MeanGradients(weights, lr, momentum)

    def exchange(self, elements: int, workers: int, step: int) -> Exchange:
        """See `EmulatedAlgorithm.exchange`."""
        return _full_precision_exchange(elements, workers, bucket_count(elements, self.config.bucket_mib * _MIB))


class ByteGrad(TrainingAlgorithm, EmulatedAlgorithm):
    """Mean gradients in eight bits (or one)."""

    Config = ByteGradConfig

    def join(self, worker: Worker) -> Session:
        """See `TrainingAlgorithm.join`."""
        return algorithms.ByteGradSession(worker, self.config)

    def sent_bytes(self, shapes: Sequence[tuple[int, ...]], world: World, steps: int, syncs: int) -> Fraction:
        """See `TrainingAlgorithm.sent_bytes`. The first step has a single bucket."""
        first, later = (
            self._bytes([_elements(shapes)], world),
            self._bytes(_buckets(shapes, self.config.bucket_mib), world),
        )
        return first + (steps - 1) * later

    def _bytes(self, sizes: Sequence[int], world: World) -> Fraction:
        compressor = make_compressor(self.config.compressor)

        def operation(elements: int, participants: int) -> Fraction:
            return traffic.low_precision_bytes(compressor, elements, participants)

        per_bucket = (traffic.hierarchical_bytes(size, world, self.config.hierarchical, operation) for size in sizes)
        return sum(per_bucket, Fraction(0))

    def emulate(self, weights: Tensor, lr: float, momentum: float) -> Emulation:
        """See `EmulatedAlgorithm.emulate`."""
        return emulation.CompressedGradients(weights, lr, momentum, self.config)

    def exchange(self, elements: int, workers: int, step: int) -> Exchange:
        """See `EmulatedAlgorithm.exchange`."""
        count = bucket_count(elements, self.config.bucket_mib * _MIB)
        return _low_precision_exchange(make_compressor(self.config.compressor), elements, workers, count)


class QuantizedAdam(TrainingAlgorithm, EmulatedAlgorithm):
    """Adam with mean gradients in the warm-up, then with mean momenta in eight bits (or one)."""

    Config = QAdamConfig

    def join(self, worker: Worker) -> Session:
        """See `TrainingAlgorithm.join`."""
        return algorithms.QAdamSession(worker, self.config)

    def sent_bytes(self, shapes: Sequence[tuple[int, ...]], world: World, steps: int, syncs: int) -> Fraction:
        """See `TrainingAlgorithm.sent_bytes`. The warm-up is never hierarchical."""
        compressor = make_compressor(self.config.compressor)

        def operation(elements: int, participants: int) -> Fraction:
            return traffic.low_precision_bytes(compressor, elements, participants)

        warm = min(steps, self.config.warmup_steps)
        later = [
            traffic.hierarchical_bytes(size, world, self.config.hierarchical, operation)
            for size in _buckets(shapes, self.config.bucket_mib)
        ]
        return warm * traffic.full_precision_bytes(_elements(shapes), world.size) + (steps - warm) * sum(
            later, Fraction(0)
        )

    def emulate(self, weights: Tensor, lr: float, momentum: float) -> Emulation:
        """See `EmulatedAlgorithm.emulate`."""
        return emulation.CompressedMomenta(weights, lr, momentum, self.config)

    def exchange(self, elements: int, workers: int, step: int) -> Exchange:
        """See `EmulatedAlgorithm.exchange`."""
        count = bucket_count(elements, self.config.bucket_mib * _MIB)
        if step < self.config.warmup_steps:
            return _full_precision_exchange(elements, workers, count)
        return _low_precision_exchange(make_compressor(self.config.compressor), elements, workers, count)


class Decentralized(TrainingAlgorithm, EmulatedAlgorithm):
    """Weights averaged with all ranks, or with one that changes."""

    Config = DecentralizedConfig

    def join(self, worker: Worker) -> Session:
        """See `TrainingAlgorithm.join`."""
        return algorithms.DecentralizedSession(worker, self.config)

    def sent_bytes(self, shapes: Sequence[tuple[int, ...]], world: World, steps: int, syncs: int) -> Fraction:
        """See `TrainingAlgorithm.sent_bytes`."""
        config = self.config
        operation = traffic.full_precision_bytes if config.peers == "all" else traffic.peer_bytes
        if config.peers == "shift_one":
            require_even(world.nodes if config.hierarchical else world.size)
        exchanges = -(-steps // config.interval)
        return exchanges * traffic.hierarchical_bytes(_elements(shapes), world, config.hierarchical, operation)

    def emulate(self, weights: Tensor, lr: float, momentum: float) -> Emulation:
        """See `EmulatedAlgorithm.emulate`."""
        return emulation.AveragedWeights(weights, lr, momentum, self.config)

    def exchange(self, elements: int, workers: int, step: int) -> Exchange:
        """See `EmulatedAlgorithm.exchange`. The weights are one bucket."""
        if step % self.config.interval:
            return _NOTHING
        if self.config.peers == "all":
            return _full_precision_exchange(elements, workers, 1)
        return Exchange(float(traffic.peer_bytes(elements, workers)), 1)


class LowPrecisionDecentralized(TrainingAlgorithm, EmulatedAlgorithm):
    """Differences of weights in eight bits, to both neighbours on a ring."""

    Config = LowPrecisionDecentralizedConfig

    def join(self, worker: Worker) -> Session:
        """See `TrainingAlgorithm.join`."""
        return algorithms.LowPrecisionDecentralizedSession(worker, self.config)

    def sent_bytes(self, shapes: Sequence[tuple[int, ...]], world: World, steps: int, syncs: int) -> Fraction:
        """See `TrainingAlgorithm.sent_bytes`."""

        def operation(elements: int, participants: int) -> Fraction:
            return traffic.ring_bytes(MinMaxUInt8(), elements, participants)

        exchanges = -(-steps // self.config.interval)
        return exchanges * traffic.hierarchical_bytes(_elements(shapes), world, self.config.hierarchical, operation)

    def emulate(self, weights: Tensor, lr: float, momentum: float) -> Emulation:
        """See `EmulatedAlgorithm.emulate`."""
        return emulation.CompressedRing(weights, lr, momentum, self.config.interval)

    def exchange(self, elements: int, workers: int, step: int) -> Exchange:
        """See `EmulatedAlgorithm.exchange`."""
        if step % self.config.interval:
            return _NOTHING
        return Exchange(float(traffic.ring_bytes(MinMaxUInt8(), elements, workers)), 1)


class AsyncModelAverage(TrainingAlgorithm, EmulatedAlgorithm):
    """Weights averaged in the background, by the clock."""

    Config = AsyncConfig

    def join(self, worker: Worker) -> Session:
        """See `TrainingAlgorithm.join`."""
        return algorithms.AsyncSession(worker, self.config)

    def sent_bytes(self, shapes: Sequence[tuple[int, ...]], world: World, steps: int, syncs: int) -> Fraction:
        """See `TrainingAlgorithm.sent_bytes`.

        Before every average, and once more at the end, the ranks agree on one byte whether to go on.
        """
        elements = _elements(shapes)
        started = steps > self.config.warmup_steps
        averages = (min(steps, self.config.warmup_steps) + syncs) * traffic.full_precision_bytes(elements, world.size)
        agreements = (syncs + 1 if started else 0) * Fraction(2 * (world.size - 1), world.size)
        return averages + agreements

    def emulate(self, weights: Tensor, lr: float, momentum: float) -> Emulation:
        """See `EmulatedAlgorithm.emulate`."""
        return emulation.BackgroundAverage(weights, lr, momentum, self.config)

    def exchange(self, elements: int, workers: int, step: int) -> Exchange:
        """See `EmulatedAlgorithm.exchange`. Nobody waits; an average is spread over the steps between two."""
        config = self.config
        average = float(traffic.full_precision_bytes(elements, workers))
        if step < config.warmup_steps:
            return Exchange(average, 2 * (workers - 1))
        return Exchange(average / (config.emulated_interval + config.emulated_delay), 0, blocking=False)
