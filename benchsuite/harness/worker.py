"""The inside of one run: load the data, build the method, evaluate, check what came out.

Runs in a process of its own. Whatever happens here is turned into an `OutcomeFile` that the supervising
process completes to a result.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from benchsuite.core.config import build_config
from benchsuite.core.errors import UserError
from benchsuite.core.metric import Metric
from benchsuite.core.registry import get_registry, load_object
from benchsuite.core.result import Artifact, Failure, Measurement
from benchsuite.core.task import Outcome, Task
from benchsuite.harness.context import HarnessContext, seed_everything
from benchsuite.harness.identity import file_sha256
from benchsuite.harness.job import Job
from benchsuite.harness.store import write_atomic

ARTIFACT_FOLDER = "artifacts"


class OutcomeFile(Measurement):
    """What a worker leaves for its supervisor, who completes it to a result."""

    gpu: str | None = None


class InvalidOutcome(Exception):
    """A task returned something that is not a valid measurement."""


def run_job(job: Job, attempt: Path, outcome_path: Path, progress_fd: int | None) -> None:
    """Make the run and write its outcome; never raises for what task or method do."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        outcome = _measure(job, attempt, progress_fd)
    except Exception as error:  # the measured code is a stranger's: record whatever it raised
        traceback.print_exc()
        outcome = OutcomeFile(status="failed", error=describe_failure(error))
    write_atomic(outcome_path, outcome.model_dump_json().encode())


def _measure(job: Job, attempt: Path, progress_fd: int | None) -> OutcomeFile:
    registry = get_registry()
    run = job.run
    task: Task = load_object(registry.task(run.task).load)()
    method_spec = registry.method(run.method)
    method_class = load_object(method_spec.load)
    if method_spec.config and load_object(method_spec.config) is not method_class.Config:
        raise TypeError(
            f"method {run.method!r} is registered with settings {method_spec.config}, which are not its own"
        )
    _limit_threads(run.threads, {*method_spec.requires, *registry.task(run.task).requires})

    ctx = HarnessContext(
        seeds=dict(run.seeds),
        seed_axes=tuple(task.seed_axes),
        workdir=attempt / "work",
        artifact_folder=attempt / ARTIFACT_FOLDER,
        cache_root=Path(job.cache),
        shared_digest=job.shared_digest,
        uses=frozenset(job.uses),
        preset=run.preset,
        device=job.device,
        threads=run.threads,
        split=run.split,
        weights=Path(job.weights) if job.weights else None,
        wanted_artifacts=frozenset(job.artifacts),
        deadline=time.monotonic() + job.timeout if job.timeout else None,
        max_steps=run.max_steps,
        facts={"task": run.task, "dataset": run.data["test"].name, **run.protocol},
        progress_fd=progress_fd,
        job_id=job.id,
    )
    ctx.workdir.mkdir()
    seed_everything(ctx.seed_for(task.seed_axes[-1], "global"))
    data = _load_data(job, ctx, task.seed_axes[0])
    protocol: Any = build_config(task.Protocol, run.protocol, f"task {run.task!r}")
    method = method_class(build_config(method_class.Config, run.config, f"method {run.method!r}"))
    outcome = task.evaluate(method, data, protocol, ctx)
    check_outcome(outcome, task.metrics)
    return OutcomeFile(
        status="truncated" if ctx.truncated else "ok",
        scores=outcome.scores,
        undefined=outcome.undefined,
        counts=outcome.counts,
        tables=outcome.tables,
        artifacts=_artifacts(ctx.artifact_folder, attempt),
        parameters=outcome.parameters,
        timings=ctx.timing_table(),
        **_gpu_usage(run.device),
    )


def _limit_threads(threads: int, requires: set[str]) -> None:
    if "torch" in requires and importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)


def _load_data(job: Job, ctx: HarnessContext, outer_axis: str) -> dict[str, Any]:
    registry = get_registry()
    loaded: dict[str, Any] = {}
    with ctx.phase("load"):
        for ref in job.run.data.values():
            if ref.name not in loaded:
                root = job.data_roots.get(ref.name)
                load = load_object(registry.dataset(ref.name).load)
                loaded[ref.name] = load(Path(root) if root else None, job.run.seeds[outer_axis])
    return {role: loaded[ref.name] for role, ref in job.run.data.items()}


def check_outcome(outcome: Outcome, metrics: tuple[Metric, ...]) -> None:
    """Raise `InvalidOutcome` unless every metric is there, and finite or undefined for a stated reason."""
    if not isinstance(outcome, Outcome):
        raise InvalidOutcome(f"evaluate returned {type(outcome).__name__} instead of an Outcome")
    expected = {metric.name: metric for metric in metrics}
    if outcome.scores.keys() != expected.keys():
        missing, extra = expected.keys() - outcome.scores.keys(), outcome.scores.keys() - expected.keys()
        raise InvalidOutcome(f"scores are not the task's metrics (missing {sorted(missing)}, extra {sorted(extra)})")
    for name, value in outcome.scores.items():
        if value is None:
            if not outcome.undefined.get(name):
                raise InvalidOutcome(f"score {name} is undefined without a reason")
            continue
        outcome.scores[name] = value = float(value)
        if not math.isfinite(value):
            raise InvalidOutcome(f"score {name} is {value}; an undefined value is None with a reason")
        if expected[name].unit == "fraction" and not -1.0 <= value <= 1.0:
            raise InvalidOutcome(f"score {name} is {value}, not a fraction")
    try:
        TypeAdapter(dict[str, int]).validate_python(outcome.counts, strict=True)
        TypeAdapter(dict[str, list[dict[str, Any]]]).validate_python(outcome.tables)
    except ValidationError as error:
        raise InvalidOutcome(f"counts or tables are malformed: {error.errors()[0]['msg']}") from None


def _artifacts(folder: Path, attempt: Path) -> dict[str, Artifact]:
    return {
        path.relative_to(folder).as_posix(): Artifact(
            path=path.relative_to(attempt).as_posix(), sha256=file_sha256(path)
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _gpu_usage(device: str) -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if device != "cuda" or torch is None:
        return {}
    return {
        "peak_gpu_memory_mb": torch.cuda.max_memory_allocated() / 1e6,
        "gpu": torch.cuda.get_device_name(0),
    }


def describe_failure(error: BaseException) -> Failure:
    """Return a failure as one line and a traceback without this machine's folders."""
    message = " ".join(str(error).split())
    line = message if isinstance(error, UserError) else f"{type(error).__name__}: {message}".rstrip(": ")
    return Failure(message=line, traceback=_relative_paths("".join(traceback.format_exception(error))))


def _relative_paths(text: str) -> str:
    roots = {str(Path(entry).resolve()) for entry in sys.path if entry} | {str(Path.cwd()), str(Path.home())}
    for root in sorted(roots, key=len, reverse=True):
        if len(root) > 1:
            text = text.replace(root + "/", "")
    return text
