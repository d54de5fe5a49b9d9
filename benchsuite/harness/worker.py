"""The process of one run: whatever happens in it becomes an `OutcomeFile` that its supervisor completes to a result."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from benchsuite.core.errors import UserError
from benchsuite.core.registry import get_registry, load_object
from benchsuite.core.result import Artifact, Failure, Measurement
from benchsuite.harness.checkpoint import Interrupted
from benchsuite.harness.devices import MASK
from benchsuite.harness.identity import file_sha256
from benchsuite.harness.job import Job
from benchsuite.harness.measure import make_context, measure
from benchsuite.harness.store import checkpoint_folder, write_atomic

ARTIFACT_FOLDER = "artifacts"
_OWN_FOLDER = "own"


class OutcomeFile(Measurement):
    """What a worker leaves for its supervisor, who completes it to a result."""

    gpu: str | None = None


def run_job(job: Job, attempt: Path, outcome_path: Path, progress_fd: int | None) -> None:
    """Make the run and write its outcome; never raises for what task or method do."""
    os.environ[MASK] = ",".join(job.gpus)  # CUDA reads it when it starts: nothing before a fork may start it
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    home = Path.cwd()
    try:
        content = _measure(job, attempt, progress_fd).model_dump_json()
    except (Exception, SystemExit) as error:  # the measured code is a stranger's: record whatever it raised
        if isinstance(error, Interrupted):
            raise
        traceback.print_exc()
        failed = OutcomeFile(status="failed", error=describe_failure(error, home))
        content = failed.model_dump_json()
    write_atomic(outcome_path, content.encode())


def _measure(job: Job, attempt: Path, progress_fd: int | None) -> OutcomeFile:
    registry = get_registry()
    run = job.identity.run
    task_spec = registry.task(run.task)
    _limit_threads(run.threads, {*registry.method(run.method).requires, *task_spec.requires})
    ctx = make_context(
        run,
        load_object(task_spec.load),
        attempt,
        artifact_folder=attempt / ARTIFACT_FOLDER,
        cache_root=Path(job.cache),
        shared_digest=job.shared_digest,
        uses=frozenset(job.uses),
        device=job.device,
        weights=Path(job.weights) if job.weights else None,
        wanted_artifacts=frozenset(job.artifacts),
        deadline=time.monotonic() + job.timeout if job.timeout else None,
        checkpoint_folder=checkpoint_folder(attempt, job.identity),
        progress_fd=progress_fd,
        job_id=job.id,
        readers=job.readers,
    )
    _enter(ctx.workdir / _OWN_FOLDER)
    _warm_up(*job.warm_up)
    outcome = measure(run, registry, ctx, {name: Path(root) for name, root in job.data_roots.items()})
    return OutcomeFile(
        status="truncated" if ctx.truncated else "ok",
        scores=outcome.scores,
        undefined=outcome.undefined,
        counts=outcome.counts,
        tables=outcome.tables,
        artifacts=_artifacts(ctx.artifact_folder, attempt),
        parameters=outcome.parameters,
        timings=ctx.timing_table(),
        **_gpu_usage(run.device, ctx.peak_gpu_memory_mb),
    )


def _enter(folder: Path) -> None:
    """Let the run stand in a folder of its own: what it writes without a path is in nobody's way, and goes with it."""
    sys.path[:] = [str(Path(entry).resolve()) for entry in sys.path]
    folder.mkdir()
    os.chdir(folder)


def _warm_up(seconds: float, cpus: int) -> None:
    """Keep so many CPUs busy for a while: after idling, the first seconds of a timing would be slow."""
    if seconds <= 0:
        return
    end, block = time.monotonic() + seconds, bytes(1 << 20)

    def spin() -> None:
        while time.monotonic() < end:
            hashlib.sha256(block)  # lets other threads run meanwhile

    threads = [threading.Thread(target=spin) for _ in range(cpus)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logging.getLogger("benchsuite.run").info("warmed up %d CPUs for %g s", cpus, seconds)


def _limit_threads(threads: int, requires: set[str]) -> None:
    if "torch" in requires and importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)


def _artifacts(folder: Path, attempt: Path) -> dict[str, Artifact]:
    return {
        path.relative_to(folder).as_posix(): Artifact(
            path=path.relative_to(attempt).as_posix(), sha256=file_sha256(path)
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _gpu_usage(device: str, apart_mb: float) -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if device != "cuda" or torch is None:
        return {}
    return {
        "peak_gpu_memory_mb": max(torch.cuda.max_memory_allocated() / 1e6, apart_mb),
        "gpu": torch.cuda.get_device_name(0),
    }


def describe_failure(error: BaseException, home: Path | None = None) -> Failure:
    """Return a failure as one line and a traceback without this machine's folders (``home``: where the run began)."""
    message = " ".join(str(error).split())
    line = message if isinstance(error, UserError) else f"{type(error).__name__}: {message}".rstrip(": ")
    return Failure(message=line, traceback=_relative_paths("".join(traceback.format_exception(error)), home))


def _relative_paths(text: str, home: Path | None) -> str:
    here = {str(Path.cwd()), str(Path.home()), *([str(home)] if home else [])}
    roots = {str(Path(entry).resolve()) for entry in sys.path if entry} | here
    for root in sorted(roots, key=len, reverse=True):
        if len(root) > 1:
            text = text.replace(root + "/", "")
    return text
