"""The part of a Ray cluster's executor that works on the node: the same fork server and supervisors as at home."""

from __future__ import annotations

import atexit
import os
import socket
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import benchsuite
from benchsuite.core.errors import UserError
from benchsuite.core.registry import get_registry, require
from benchsuite.harness.devices import MASK, Machine
from benchsuite.harness.executor import Event, Options
from benchsuite.harness.identity import SourceDigests
from benchsuite.harness.job import Report
from benchsuite.harness.local import ForkServer, LocalExecutor
from benchsuite.harness.plan import PlannedRun

_CACHE = "BENCHSUITE_CACHE"


@dataclass(frozen=True)
class Batch:
    """Runs that travel together: they load the same libraries, and are made one after the other.

    ``proof`` is a file in the folder of results: a node that does not see it would write where nobody looks.
    """

    runs: Mapping[int, PlannedRun]
    options: Options
    proof: str
    version: str = benchsuite.__version__
    cache: str | None = None


class _Worker:
    """What a Ray worker keeps from one batch to the next: loaded libraries, and digests of the code here."""

    def __init__(self) -> None:
        self.server = ForkServer()
        self.digests = SourceDigests(get_registry())
        atexit.register(self.server.close)


_worker: _Worker | None = None


def carry_batch(batch: Batch) -> Generator[Event, None, None]:
    """Make the runs of a batch with the devices that Ray has given to this process, and yield what happens.

    What this node cannot make, or would make with other code, is refused: a report without a result says why.
    """
    global _worker
    if batch.cache:
        os.environ[_CACHE] = batch.cache
    os.environ["PYTHONPATH"] = _path_for_children()
    _worker = _worker or _Worker()
    fitting = {}
    for index, planned in batch.runs.items():
        if problem := refusal(planned, batch, _worker.digests):
            yield Report(id=index, problem=f"refused by node {socket.gethostname()}: {problem}")
        else:
            fitting[index] = planned
    if fitting:
        given = os.environ.get(MASK, "") if any(run.needs.gpus for run in fitting.values()) else ""
        machine = Machine([name for name in given.split(",") if name])
        yield from LocalExecutor(machine, _worker.server).carry(fitting, batch.options)


def refusal(planned: PlannedRun, batch: Batch, digests: SourceDigests) -> str:
    """Return why this node must not make a run, or nothing."""
    if batch.version != benchsuite.__version__:
        return f"it has benchsuite {benchsuite.__version__}, the command {batch.version}: install the same on all nodes"
    if not Path(batch.proof).exists():
        return f"it does not see {Path(batch.proof).parent}: give --out on a file system that all nodes share"
    for name, root in planned.data_roots.items():
        if not Path(root).is_dir():
            return f"it does not see {root}: put data set {name!r} where all nodes find it"
    if planned.weights is not None and not planned.weights.is_file():
        return f"it does not see {planned.weights}: put the weights where all nodes find them"
    run, registry = planned.run, get_registry()
    try:
        task, method = registry.task(run.task), registry.method(run.method)
        require(f"task {run.task!r}", task.requires, task.install)
        require(f"method {run.method!r}", method.requires, method.install)
        code = digests.of(task, method, [ref.name for ref in run.data.values()], run.protocol)
    except UserError as error:
        return str(error)
    if (code.source, code.shared) != (planned.identity.source_digest, planned.shared_digest):
        return f"its code of method {run.method!r} or task {run.task!r} is not that of the command: install the same"
    return ""


def _path_for_children() -> str:
    """Return where processes started from here find what this one finds; Ray's own libraries are no part of it."""
    ray = str(Path(sys.modules["ray"].__file__ or "").parent) if "ray" in sys.modules else None
    return os.pathsep.join(entry for entry in sys.path if entry and not (ray and entry.startswith(ray)))
