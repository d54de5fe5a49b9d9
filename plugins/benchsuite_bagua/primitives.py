"""The communication primitives: centralised or between neighbours, in full or low precision.

Each works on one bucket of tensors, flattened to a vector, in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from benchsuite.core.errors import ConfigError
from benchsuite.tasks.distributed_training.contract import Worker
from benchsuite_bagua.bucketing import padded
from benchsuite_bagua.compressor import Compressor, MinMaxUInt8


class Participants:
    """Who talks to whom: all ranks, or one leader a node with a mean inside the nodes before.

    Attributes
    ----------
    group
        Process group of the participants (of the leaders, if hierarchical).
    size, index
        How many participate; this rank's number among them (its node's).
    """

    def __init__(self, worker: Worker, hierarchical: bool) -> None:
        self._node_size = worker.world.ranks_per_node if hierarchical else 1
        self.size = worker.world.size // self._node_size
        self.index = worker.rank // self._node_size
        self._leader = self.rank_of(self.index)
        self._leads = worker.rank == self._leader
        self.group, self._node = worker.group, None
        if self._node_size > 1:
            nodes = [range(start, start + self._node_size) for start in range(0, worker.world.size, self._node_size)]
            self._node = [worker.new_group(node) for node in nodes][self.index]
            self.group = worker.new_group(range(0, worker.world.size, self._node_size))

    def rank_of(self, index: int) -> int:
        """Return the rank of a participant."""
        return index * self._node_size

    def run(self, flat: Tensor, operation: Callable[[Tensor], None]) -> None:
        """Apply an operation among the participants to the mean of each node; all of a node get its result."""
        if self._node is not None:
            dist.reduce(flat, self._leader, group=self._node)
            flat /= self._node_size
        if self._leads:
            operation(flat)
        if self._node is not None:
            dist.broadcast(flat, self._leader, group=self._node)


@dataclass
class ErrorMemory:
    """What a compressor has lost so far: of the own vector, and of the chunk this rank is responsible for."""

    worker: Tensor | None = None
    server: Tensor | None = None


@dataclass
class LowPrecisionMean:
    """The centralised low-precision primitive (C_LP_S): every rank averages one chunk and codes it again.

    With ``error_feedback`` each of the two compressions adds what it lost the last time, per bucket.
    """

    compressor: Compressor
    error_feedback: bool = False
    _memories: dict[int, ErrorMemory] = field(default_factory=dict)

    def __call__(self, flat: Tensor, group: Any, bucket: int = 0) -> None:
        """Replace a vector (N,) by the ranks' mean as it comes through two compressions; the same bits on all ranks."""
        memory = self._memories.setdefault(bucket, ErrorMemory()) if self.error_feedback else None
        ranks = group.size()
        chunks = padded(flat, ranks).view(ranks, -1)  # (n, m)
        if memory is not None and memory.worker is not None:
            chunks += memory.worker
        codes = self.compressor.compress(chunks)
        if memory is not None:
            memory.worker = chunks - self.compressor.decompress(codes, chunks.shape[1])
        received = torch.empty_like(codes)
        dist.all_to_all_single(received, codes, group=group)
        own = self.compressor.decompress(received, chunks.shape[1]).mean(dim=0, keepdim=True)  # (1, m)
        if memory is not None and memory.server is not None:
            own += memory.server
        code = self.compressor.compress(own)
        if memory is not None:
            memory.server = own - self.compressor.decompress(code, chunks.shape[1])
        dist.all_gather(list(codes.unbind(dim=0)), code[0], group=group)
        flat.copy_(self.compressor.decompress(codes, chunks.shape[1]).reshape(-1)[: flat.numel()])


def mean_over(flat: Tensor, group: Any) -> None:
    """Replace a vector by its mean over the ranks of a group (C_FP_S, and D_FP_S among all)."""
    dist.all_reduce(flat, group=group)
    flat /= group.size()


def shift_one_peer(index: int, size: int, communications: int) -> int:
    """Return whom a participant averages with, after so many communications.

    The lower half pairs with the upper half; the pairing shifts by one each time and repeats after size / 2.

    Raises
    ------
    ConfigError
        For an odd number of participants: somebody would be left alone.
    """
    require_even(size)
    half = size // 2
    if index < half:
        return (communications + index) % half + half
    return (index - half - communications) % half


def require_even(size: int) -> None:
    """Refuse shift_one among an odd number of participants."""
    if size % 2:
        raise ConfigError(f"shift_one pairs ranks and needs an even number of them, not {size}: choose peers=all")


def mean_with_peer(flat: Tensor, participants: Participants, communications: int) -> None:
    """Replace a vector by its mean with that of the peer whose turn it is (D_FP_S, shift_one)."""
    peer = participants.rank_of(shift_one_peer(participants.index, participants.size, communications))
    theirs = torch.empty_like(flat)
    exchange_messages([(flat.clone(), peer)], [(theirs, peer)], participants.group)
    flat.add_(theirs).mul_(0.5)


def exchange_messages(sent: Sequence[tuple[Tensor, int]], received: Sequence[tuple[Tensor, int]], group: Any) -> None:
    """Send tensors to ranks while others are received from ranks, in place; returns when all is done.

    Receives come first. Over gloo a peer starts to send only when it is told that a receive is waiting, and that
    notice takes the connection that the own messages take: behind these it would arrive when they are through, and
    the two directions of a full-duplex link would be used one after the other.
    """
    operations = [dist.P2POp(dist.irecv, tensor, rank, group) for tensor, rank in received]
    operations += [dist.P2POp(dist.isend, tensor, rank, group) for tensor, rank in sent]
    for request in dist.batch_isend_irecv(operations):
        request.wait()


class LowPrecisionRing:
    """The decentralised low-precision primitive (D_LP_S): compressed differences to both neighbours.

    Every rank keeps its own last exchanged weights and replicas of its neighbours', which stay equal to the
    neighbours' own bit for bit, because all three add the same decoded differences.
    """

    def __init__(self, weights: Tensor, participants: Participants) -> None:
        self._participants = participants
        self._compressor = MinMaxUInt8()
        self.own, self.left, self.right = weights.clone(), weights.clone(), weights.clone()

    def __call__(self, weights: Tensor) -> None:
        """Replace the weights after an optimiser step by the next exchanged ones."""
        difference = weights + self.left / 3 + self.right / 3 - (5 / 3) * self.own
        code = self._compressor.compress(difference[None])
        from_left, from_right = self._exchange(code)
        self.left += self._decode(from_left)
        self.right += self._decode(from_right)
        self.own += self._decode(code)
        weights.copy_(self.own)

    def _decode(self, code: Tensor) -> Tensor:
        return self._compressor.decompress(code, self.own.numel())[0]

    def _exchange(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Send one code to both neighbours; return theirs (of the left one, of the right one).

        Between two ranks both neighbours are the same and both messages equal, so their order is no matter.
        """
        size, index = self._participants.size, self._participants.index
        if size == 1:
            return code, code
        left, right = (self._participants.rank_of((index + step) % size) for step in (-1, 1))
        from_left, from_right = torch.empty_like(code), torch.empty_like(code)
        exchange_messages(
            [(code, left), (code, right)], [(from_left, left), (from_right, right)], self._participants.group
        )
        return from_left, from_right


class CommunicationThread:
    """Runs blocking exchanges one after the other, beside forward and backward.

    On CUDA they run in place: the process group has streams of its own there.
    """

    def __init__(self, device: torch.device) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1) if device.type == "cpu" else None

    def start(self, exchange: Callable[[], Tensor]) -> torch.futures.Future[Tensor]:
        """Return the future result of an exchange."""
        future: torch.futures.Future[Tensor] = torch.futures.Future()

        def run() -> None:
            try:
                future.set_result(exchange())
            except Exception as error:  # handed to whoever waits for the result
                future.set_exception(error)

        if self._executor is None:
            run()
        else:
            self._executor.submit(run)
        return future

    def close(self) -> None:
        """Finish what was started."""
        if self._executor is not None:
            self._executor.shutdown()
