"""Runs on a Ray cluster: Ray decides which node makes which runs, and the nodes make them as this machine would.

Runs that load the same libraries and share cached steps travel together, in one Ray task. What a node that ended leaves
unfinished is submitted again; what failed or ran out of time is a result, and is not.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
import os
import signal
import socket
import time
import uuid
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchsuite.core.errors import ConfigError, MissingDependency, UserError
from benchsuite.harness.devices import MASK, Machine, Needs, this_machine
from benchsuite.harness.executor import Event, Note, Options, Started
from benchsuite.harness.job import Report
from benchsuite.harness.node import Batch, carry_batch
from benchsuite.harness.plan import PlannedRun

_ROUNDS = 3  # batches a place: few, for each starts a fork server at worst; several, so that places end together
_LOOK_S = 1.0
_REACH_S = 10.0
_UNSCHEDULED_S = 60.0
_OBJECT_STORE_BYTES = 100 << 20  # events are small
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
# A node that stops answering is given up after some five seconds instead of twenty.
_HEALTH = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}


@dataclass(frozen=True)
class Node:
    """What one node of a cluster has in all."""

    id: str
    cpus: float
    gpus: float
    memory_mb: float

    def places(self, needs: Needs) -> int:
        """Return how many such runs fit at once; a run alone may need more CPUs than there are."""
        if self.cpus < 1:
            return 0
        fits = [self.cpus // (self.cpus if needs.exclusive else min(needs.cpus, self.cpus))]
        if needs.gpus:
            fits.append(float(self.gpus >= 1) if needs.gpus == math.inf else self.gpus // needs.gpus)
        if needs.memory_mb:
            fits.append(self.memory_mb // needs.memory_mb)
        return int(min(fits))


@dataclass
class Load:
    """Runs that travel together."""

    runs: dict[int, PlannedRun]
    needs: Needs
    submitted: float = 0.0
    begun: bool = False
    node: str | None = None


def loads_of(runs: Mapping[int, PlannedRun], nodes: Sequence[Node]) -> list[Load]:
    """Return the runs in loads: of one kind each, those that share cached steps side by side, exclusive ones last.

    Runs of one kind load the same libraries with the same number of threads and need the same of a machine. Of one
    task, protocol, data and seed they share what is cached. As many loads of a kind are made as give every place of
    the cluster some rounds.
    """
    kinds: dict[Any, dict[Any, list[int]]] = {}
    for index, planned in runs.items():
        run = planned.run
        kind = (tuple(sorted(planned.requires)), run.threads, planned.needs)
        data = tuple(sorted((role, ref.hash) for role, ref in run.data.items()))
        shared = (run.task, repr(sorted(run.protocol.items())), data, tuple(run.seeds.values()))
        kinds.setdefault(kind, {}).setdefault(shared, []).append(index)
    loads = []
    for (_, _, needs), blocks in kinds.items():
        places = max(1, sum(node.places(needs) for node in nodes))
        size = max(1, math.ceil(sum(map(len, blocks.values())) / (places * _ROUNDS)))
        for members in _parts(list(blocks.values()), size):
            loads.append(Load({index: runs[index] for index in members}, needs))
    return sorted(loads, key=lambda load: (load.needs.exclusive, min(load.runs)))


def _parts(blocks: Sequence[list[int]], size: int) -> Iterator[list[int]]:
    """Yield members of all blocks in lists of about ``size``; a block is only cut where it is longer than that."""
    part: list[int] = []
    for block in blocks:
        if part and len(part) + len(block) > size:
            yield part
            part = []
        while len(block) > size:
            yield block[:size]
            block = block[size:]
        part = part + block
    if part:
        yield part


class RayExecutor:
    """Carries runs on a Ray cluster: one that is there, or one on this machine that ends with the command.

    Parameters
    ----------
    address
        Of the cluster (``auto``, ``HOST:PORT``); none: a cluster is started here, with so many CPUs as ``workers``.
    gpus
        For a cluster started here, see `choose_gpus`.
    resubmit
        How often a run is submitted again that was unfinished when its node ended.

    Raises
    ------
    MissingDependency
        If ray is not installed.
    UserError
        If there is no such cluster.
    """

    def __init__(self, address: str | None = None, workers: int = 1, gpus: str = "", resubmit: int = 2) -> None:
        if importlib.util.find_spec("ray") is None:
            raise MissingDependency(
                "--executor ray needs ray, which is not installed - run: pip install 'benchsuite[cluster]'"
            )
        if address and gpus:
            raise ConfigError("--gpus is for GPUs of this machine: those of a cluster are chosen where its nodes start")
        self._resubmit = resubmit
        self._connect(address, workers, gpus)
        self._nodes = self._alive()
        if not any(node.cpus >= 1 for node in self._nodes):
            self.close()
            raise UserError(f"the Ray cluster at {address} has no CPU for runs")

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        import ray

        ray.shutdown()

    @property
    def machine(self) -> Machine:
        """What a run may get at most: of the node that has most."""
        gpus = max(node.gpus for node in self._nodes)
        return Machine([str(number) for number in range(int(gpus))], max(node.memory_mb for node in self._nodes))

    def _connect(self, address: str | None, workers: int, gpus: str) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        _silence()
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
        try:
            if address:
                _check_reachable(address)
                ray.init(address, **quiet)
            else:
                devices = this_machine(gpus).gpus
                with _environment(MASK, ",".join(devices) if devices else None):
                    ray.init(
                        "local",
                        num_cpus=workers,
                        num_gpus=len(devices),
                        include_dashboard=False,
                        object_store_memory=_OBJECT_STORE_BYTES,
                        _system_config=_HEALTH,
                        **quiet,
                    )
        except (OSError, ValueError, RuntimeError) as error:
            line = " ".join(str(error).split())
            raise UserError(f"cannot use the Ray cluster at {address or 'this machine'}: {line[:200]}") from None
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _alive(self) -> list[Node]:
        import ray

        return [
            Node(
                node["NodeID"],
                node["Resources"].get("CPU", 0),
                node["Resources"].get("GPU", 0),
                node["Resources"].get("memory", 0) / 1e6,
            )
            for node in ray.nodes()
            if node["Alive"]
        ]

    def carry(self, runs: Mapping[int, PlannedRun], options: Options) -> Generator[Event, None, None]:
        """See `Executor.carry`."""
        out = options.out.resolve()
        if named := next((run.device for run in runs.values() if run.needs.only is not None), None):
            raise ConfigError(f"--device {named}: Ray chooses the GPU: give --device cuda")
        proof = out / f".shared-{uuid.uuid4().hex}"
        proof.touch()
        try:
            yield from _Voyage(self, runs, replace(options, out=out), str(proof)).run()
        finally:
            proof.unlink(missing_ok=True)


def _check_reachable(address: str) -> None:
    """Raise `OSError` at once if nobody answers at ``HOST:PORT``, for which Ray would wait a minute."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S):
            pass


def _silence() -> None:
    """Keep what Ray tells of workers and nodes from the standard output, which may be JSON: a sweep tells it itself."""
    from ray._private import worker

    logging.getLogger("ray").setLevel(logging.ERROR)
    worker.print_to_stdstream = lambda *arguments, **more: None  # no setting keeps it from printing errors


@contextlib.contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    before = os.environ.get(name)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        if value is not None:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before


@dataclass
class _Voyage:
    """Runs on their way through a cluster."""

    executor: RayExecutor
    runs: Mapping[int, PlannedRun]
    options: Options
    proof: str
    started: set[int] = field(default_factory=set)
    losses: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.nodes = self.executor._nodes
        self.pending = deque(loads_of(self.runs, self.nodes))
        self.travelling: dict[Any, Load] = {}

    def run(self) -> Generator[Event, None, None]:
        """Carry all runs."""
        import ray

        try:
            while self.pending or self.travelling:
                self._submit_what_fits()
                ready: list[Any] = []
                if self.travelling:
                    ready, _ = ray.wait(list(self.travelling), timeout=_LOOK_S, fetch_local=False)
                else:
                    time.sleep(_LOOK_S)
                for stream in ready:
                    yield from self._take(stream)
                if not ready:
                    yield from self._give_up_what_no_node_can_make()
        finally:
            for stream in self.travelling:
                with contextlib.suppress(Exception):  # it may have ended meanwhile
                    ray.cancel(stream, force=True)  # a polite one leaves the processes of runs alive

    def _submit_what_fits(self) -> None:
        """Submit some more than there are places, so that none is ever empty; exclusive loads when all else is done."""
        while self.pending:
            load = self.pending[0]
            under_way = self.travelling.values()
            if load.needs.exclusive:
                taken = {other.node for other in under_way}
                free = [node for node in self.nodes if node.places(load.needs) and node.id not in taken]
                if not free or any(not other.needs.exclusive for other in under_way):
                    return
                self._submit(load, free[0])
            else:
                places = sum(node.places(load.needs) for node in self.nodes)
                if len(under_way) >= 2 * max(places, 1):
                    return
                self._submit(load, None)
            self.pending.popleft()

    def _submit(self, load: Load, node: Node | None) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        needs = load.needs
        most = max(self.nodes, key=lambda other: other.places(needs)) if node is None else node
        wanted: dict[str, Any] = {"num_cpus": most.cpus if needs.exclusive else min(needs.cpus, most.cpus)}
        if needs.gpus:
            wanted["num_gpus"] = most.gpus if needs.gpus == math.inf else needs.gpus
        if needs.memory_mb:
            wanted["memory"] = int(needs.memory_mb * 1e6)
        if node is not None:
            wanted["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node.id, soft=False)
        runs = {i: replace(r, weights=r.weights.resolve() if r.weights else None) for i, r in load.runs.items()}
        batch = Batch(
            runs, replace(self.options, workers=needs.cpus), self.proof, cache=os.environ.get("BENCHSUITE_CACHE")
        )
        task = ray.remote(max_retries=0, **wanted)(carry_batch)
        load.submitted, load.begun, load.node = time.monotonic(), False, node.id if node else None
        self.travelling[task.remote(batch)] = load

    def _take(self, stream: Any) -> Generator[Event, None, None]:
        """Take the next event of a load; what its end leaves unfinished is submitted again or told."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        load = self.travelling[stream]
        try:
            event: Event = ray.get(next(stream))
        except StopIteration:
            del self.travelling[stream]
            if load.runs:
                yield from self._lost(load, "its worker ended early")
        except RayTaskError as error:
            del self.travelling[stream]
            reason = " ".join(str(error.cause if hasattr(error, "cause") else error).split())[-300:]
            for index in list(load.runs):
                yield Report(id=index, problem=f"a node could not carry it: {reason}")
        except RayError as error:
            del self.travelling[stream]
            yield from self._lost(load, type(error).__name__)
        else:
            load.begun = True
            if isinstance(event, Report):
                del load.runs[event.id]
            elif isinstance(event, Started):
                if event.id in self.started:
                    return
                self.started.add(event.id)
            yield event

    def _lost(self, load: Load, reason: str, for_good: bool = False) -> Generator[Event, None, None]:
        self.losses.update(load.runs.keys())
        again = {i: run for i, run in load.runs.items() if self.losses[i] <= self.executor._resubmit and not for_good}
        for index in load.runs.keys() - again.keys():
            times = self.losses[index]
            text = f"lost: its node or worker ended {times} times ({reason}): the same command goes on from here"
            yield Report(id=index, problem=text, lost=True)
        self.nodes = self.executor._alive() or self.nodes
        if again:
            yield Note(f"a node or worker ended ({reason}): {len(again)} unfinished runs are submitted again")
            self.pending.appendleft(Load(again, load.needs))

    def _give_up_what_no_node_can_make(self) -> Generator[Event, None, None]:
        """End loads that wait for a node which is no longer there: Ray would let them wait for ever."""
        import ray

        late = [
            s for s, o in self.travelling.items() if not o.begun and time.monotonic() - o.submitted > _UNSCHEDULED_S
        ]
        if not late and self.travelling:
            return
        self.nodes = self.executor._alive()
        for stream in late:
            load = self.travelling[stream]
            if not any(node.places(load.needs) for node in self.nodes if load.node in (None, node.id)):
                ray.cancel(stream, force=True)
                del self.travelling[stream]
                yield from self._lost(load, "no node is left that has what it needs", for_good=load.node is None)
        if not self.travelling and self.pending and not any(n.places(self.pending[0].needs) for n in self.nodes):
            yield from self._lost(self.pending.popleft(), "no node is left that has what it needs", for_good=True)
