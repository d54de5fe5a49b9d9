"""A process group that counts what it sends.

`CountingGroup` stands in front of a real process group: collectives and point-to-point calls of any
library (torch's communication hooks, model averagers, a method's own code) go through it unchanged and
are entered into a `Traffic` book. Payload only: no headers of the network, no rendezvous.

Bytes that one rank sends in a collective over n ranks, for a payload of B bytes a rank:

=================  ===========================================================================
all-reduce         2 (n - 1) / n * B (ring)
all-gather         (n - 1) * B
all-to-all         B without the share that stays at home
reduce-scatter     (n - 1) / n * B (B: what goes in)
broadcast, reduce  (n - 1) / n * B (mean over ranks: n - 1 copies leave or n - 1 ranks send)
send               B, or nothing to itself
=================  ===========================================================================
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Any

import torch
import torch.distributed as dist

from benchsuite.tasks.distributed_training.contract import all_reduce_bytes

BACKEND = "counted"


class Traffic:
    """What this rank has sent: bytes (exact, so fractions of ring shares stay whole), and calls by kind."""

    def __init__(self) -> None:
        self.sent_bytes = Fraction(0)
        self.calls: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, kind: str, sent: Fraction) -> None:
        """Enter one call."""
        with self._lock:
            self.sent_bytes += sent
            self.calls[kind] += 1


def _size(tensors: Any) -> int:
    if isinstance(tensors, torch.Tensor):
        size: int = tensors.numel() * tensors.element_size()
        return size
    return sum(_size(tensor) for tensor in tensors)


class CountingGroup(dist.ProcessGroup):
    """A process group that hands every call to ``inner`` and enters it into ``traffic``.

    Parameters
    ----------
    inner
        The backend that does the work (gloo, NCCL).
    rank, size
        Of this process, within the group.
    traffic
        The book; several groups of a process share one.
    latency_s
        Seconds to wait before every round of messages (a slow network, injected); 0: none.
    """

    def __init__(self, inner: Any, rank: int, size: int, traffic: Traffic, latency_s: float = 0.0) -> None:
        super().__init__(rank, size)
        self._inner = inner
        self._rank = rank
        self._size = size
        self._traffic = traffic
        self._latency_s = latency_s
        self._name = ""

    def getBackendName(self) -> str:  # noqa: N802 - torch's name
        """Return the name under which the backend is registered."""
        return BACKEND

    @property
    def group_name(self) -> str:
        """The name that torch registers the group by."""
        return self._name

    def _set_group_name(self, name: str) -> None:
        self._name = name

    def _get_backend(self, device: torch.device) -> Any:
        return self._inner

    def _start_coalescing(self, device: torch.device) -> None:
        self._inner._start_coalescing()

    def _end_coalescing(self, device: torch.device) -> Any:
        return self._inner._end_coalescing()

    def _account(self, kind: str, sent: Fraction, rounds: int) -> None:
        self._traffic.add(kind, sent)
        if self._latency_s:
            time.sleep(self._latency_s * rounds)

    def allreduce(self, tensors: Any, *options: Any) -> Any:
        """Count a ring all-reduce."""
        self._account("all_reduce", all_reduce_bytes(_size(tensors), self._size), 2 * (self._size - 1))
        return self._inner.allreduce(tensors, *options)

    def broadcast(self, tensors: Any, *options: Any) -> Any:
        """Count a broadcast."""
        self._account("broadcast", self._share(_size(tensors)), 1)
        return self._inner.broadcast(tensors, *options)

    def reduce(self, tensors: Any, *options: Any) -> Any:
        """Count a reduction to one rank."""
        self._account("reduce", self._share(_size(tensors)), 1)
        return self._inner.reduce(tensors, *options)

    def allgather(self, outputs: Any, inputs: Any, *options: Any) -> Any:
        """Count an all-gather."""
        self._account("all_gather", Fraction((self._size - 1) * _size(inputs)), 1)
        return self._inner.allgather(outputs, inputs, *options)

    def alltoall(self, outputs: Any, inputs: Any, *options: Any) -> Any:
        """Count an all-to-all of a list of tensors, one a rank."""
        self._account("all_to_all", Fraction(_size(inputs) - _size(inputs[self._rank])), 1)
        return self._inner.alltoall(outputs, inputs, *options)

    def send(self, tensors: Any, destination: int, *options: Any) -> Any:
        """Count a message."""
        sent = 0 if destination == self._rank else _size(tensors)
        self._account("send", Fraction(sent), 1)
        return self._inner.send(tensors, destination, *options)

    def recv(self, *arguments: Any) -> Any:
        """Receive; sends nothing."""
        return self._inner.recv(*arguments)

    def barrier(self, opts: Any = None) -> Any:
        """Wait for all; carries no payload."""
        return self._inner.barrier(opts) if opts is not None else self._inner.barrier()

    def _share(self, payload: int) -> Fraction:
        return Fraction((self._size - 1) * payload, self._size)

    def _all_to_all_single(
        self, name: str, output: Any, source: Any, out_splits: Any, in_splits: Any, options: tuple[Any, ...]
    ) -> Any:
        kept = _size(source) // self._size
        if len(in_splits):
            kept = in_splits[self._rank] * _size(source[:1])
        self._account("all_to_all", Fraction(_size(source) - kept), 1)
        return getattr(self._inner, name)(output, source, out_splits, in_splits, *options)

    def _all_gather_single(self, name: str, output: Any, source: Any, options: tuple[Any, ...]) -> Any:
        self._account("all_gather", Fraction((self._size - 1) * _size(source)), 1)
        return getattr(self._inner, name)(output, source, *options)

    def _reduce_scatter_single(self, name: str, output: Any, source: Any, options: tuple[Any, ...]) -> Any:
        self._account("reduce_scatter", self._share(_size(source)), 1)
        return getattr(self._inner, name)(output, source, *options)


def _add_single_tensor_calls() -> None:
    """Define the calls on single tensors under the names that torch's versions know them by."""

    def method(name: str, count: str) -> Callable[..., Any]:
        def call(self: CountingGroup, *arguments: Any) -> Any:
            tensors = 4 if count == "_all_to_all_single" else 2
            return getattr(self, count)(name, *arguments[:tensors], arguments[tensors:])

        return call

    names = {
        "_all_to_all_single": ("alltoall_base", "all_to_all_single"),
        "_all_gather_single": ("_allgather_base", "all_gather_single"),
        "_reduce_scatter_single": ("_reduce_scatter_base", "reduce_scatter_single"),
    }
    for count, versions in names.items():
        for name in versions:
            setattr(CountingGroup, name, method(name, count))


_add_single_tensor_calls()


def register_counted_backend(backend: str, traffic: Traffic, latency_s: float = 0.0) -> None:
    """Make ``dist.new_group(backend="counted")`` give counting groups over gloo or NCCL in this process."""

    def create(store: Any, rank: int, size: int, timeout: timedelta) -> CountingGroup:
        inner = dist.ProcessGroupGloo if backend == "gloo" else dist.ProcessGroupNCCL
        return CountingGroup(inner(store, rank, size, timeout), rank, size, traffic, latency_s)

    dist.Backend.register_backend(BACKEND, create, devices=["cpu", "cuda"])


def counted_group(ranks: Sequence[int] | None = None) -> Any:
    """Return a new counting group of these ranks (default: all). Every rank of the world must call this."""
    return dist.new_group(None if ranks is None else list(ranks), backend=BACKEND)
