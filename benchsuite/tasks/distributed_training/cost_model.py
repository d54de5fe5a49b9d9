"""The alpha-beta model of a network: what an exchange costs, at sizes that no test machine has.

    t_exchange = rounds * latency + bytes / (efficiency * bandwidth)

A step takes the longer of computing and exchanging where the two overlap. Waiting for others is followed
worker by worker, so that a straggler delays exactly those who need its message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

EFFICIENCY = 0.87  # of the nominal bandwidth; fitted to the published curves of four systems at 1 to 8 Gbit/s

Waiting = Literal["everybody", "nobody"]


@dataclass(frozen=True)
class Exchange:
    """What a participant sends in a step, and how many rounds of messages follow one another.

    ``blocking``: the step waits for it; False for what goes on in the background for ever.
    """

    sent_bytes: float
    rounds: float
    blocking: bool = True


NOTHING = Exchange(0.0, 0.0)


@dataclass(frozen=True)
class Network:
    """A link per participant: bandwidth in Gbit/s in each direction, latency of a round in milliseconds."""

    bandwidth_gbps: float
    latency_ms: float = 0.0
    efficiency: float = EFFICIENCY

    def seconds(self, exchange: Exchange) -> float:
        """Return how long a step waits for an exchange."""
        if not exchange.blocking:
            return 0.0
        transfer = exchange.sent_bytes * 8 / (self.efficiency * self.bandwidth_gbps * 1e9)
        return exchange.rounds * self.latency_ms / 1000 + transfer


@dataclass(frozen=True)
class Workload:
    """A training job: parameters (float32), steps of an epoch, seconds that one step computes."""

    name: str
    elements: int
    steps_per_epoch: int
    compute_s: float

    def epoch_seconds(self, exchange: Exchange, network: Network, overlap: bool = True) -> float:
        """Return the seconds of an epoch without stragglers."""
        exchanging = network.seconds(exchange)
        step = max(self.compute_s, exchanging) if overlap else self.compute_s + exchanging
        return self.steps_per_epoch * step


# 88,500 training features in batches of 128 x 6; 61 s an epoch is what remains of the published curves when
# nothing is waited for. VGG16: 1,281,167 images in batches of 128 x 32 at 229 images a second and GPU.
BERT_LARGE = Workload("bert-large", 340_000_000, 115, 61 / 115)
VGG16 = Workload("vgg16", 138_357_544, 313, 32 / 229)
WORKLOADS: Mapping[str, Workload] = {workload.name: workload for workload in (BERT_LARGE, VGG16)}

# Rounds a step of the published BERT-Large runs on 16 machines: slope of the published epoch time over added
# latency, divided by 115 steps; one whole number a system.
FITTED_ROUNDS: Mapping[str, int] = {
    "ddp": 1365,
    "horovod": 840,
    "byteps": 540,
    "decentralized": 574,
    "bytegrad": 659,
    "qadam-1bit": 265,
    "low-precision-decentralized": 140,
    "async": 0,
}


def published_systems(nodes: int = 16) -> dict[str, Exchange]:
    """Return the exchanges of the published BERT-Large runs; bytes by formula, rounds fitted to the latency curves."""
    elements = BERT_LARGE.elements
    ring = 2 * (nodes - 1) / nodes
    sent = {
        "ddp": ring * 4 * elements,
        "horovod": ring * 4 * elements,
        "byteps": 2 * 4 * elements,
        "decentralized": 4.0 * elements,  # the published curve fits pairs, not an average over all
        "bytegrad": ring * elements,
        "qadam-1bit": ring * elements / 8,
        "low-precision-decentralized": 2.0 * elements,
        "async": ring * 4 * elements,
    }
    return {name: Exchange(sent[name], FITTED_ROUNDS[name], blocking=name != "async") for name in sent}


def bucket_count(elements: int, bucket_bytes: float) -> int:
    """Return the number of buckets of so many float32 elements."""
    return max(1, round(4 * elements / bucket_bytes))


@dataclass(frozen=True)
class Stragglers:
    """With this probability a worker's step takes ``slowdown`` times as long."""

    probability: float = 0.0
    slowdown: float = 1.0


def run_clocks(
    workers: int,
    partners: Sequence[NDArray[np.int64] | Waiting],
    compute_s: float,
    exchange_s: Sequence[float],
    stragglers: Stragglers,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return when the slowest worker has finished each step, in seconds (steps,).

    Parameters
    ----------
    partners
        For each step, whose message a worker waits for: indices (workers, k), ``everybody`` or ``nobody``.
    compute_s
        Seconds that a step computes.
    exchange_s
        Seconds of each step's exchange; it overlaps with computing.
    """
    clock = np.zeros(workers)
    finished = np.empty(len(partners))
    for step, whom in enumerate(partners):
        slow = rng.random(workers) < stragglers.probability
        computing = compute_s * np.where(slow, stragglers.slowdown, 1.0)
        if isinstance(whom, str) and whom == "nobody":
            clock = clock + computing
        else:
            ready = clock + np.maximum(computing, exchange_s[step])
            clock = (
                np.full(workers, ready.max()) if isinstance(whom, str) else np.maximum(ready, ready[whom].max(axis=1))
            )
        finished[step] = clock.max()
    return finished


def fastest(
    exchanges: Mapping[str, Sequence[Exchange]],
    workload: Workload,
    bandwidths_gbps: Sequence[float],
    latencies_ms: Sequence[float],
    within: float = 0.0,
) -> list[list[str]]:
    """Return the name of the fastest for every latency (rows) and bandwidth (columns).

    Parameters
    ----------
    exchanges
        Name to the exchanges of its steps, which repeat for ever.
    bandwidths_gbps, latencies_ms
        Of the networks: Gbit/s, milliseconds.
    within
        Whoever takes at most this share longer than the fastest counts as one of them; the first of these, in the
        order of ``exchanges``, is named.
    """
    shares = {
        name: [(exchange, count / len(steps)) for exchange, count in Counter(steps).items()]
        for name, steps in exchanges.items()
    }

    def winner(network: Network) -> str:
        seconds = {
            name: sum(share * workload.epoch_seconds(exchange, network) for exchange, share in parts)
            for name, parts in shares.items()
        }
        bar = min(seconds.values()) * (1 + within)
        return next(name for name, value in seconds.items() if value <= bar)

    return [[winner(Network(bandwidth, latency)) for bandwidth in bandwidths_gbps] for latency in latencies_ms]
