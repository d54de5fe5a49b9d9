"""Log every run to MLflow, through the two hooks that any plugin may implement.

The tracker is the one that ``MLFLOW_TRACKING_URI`` names. A task is an experiment; a run has its settings as
parameters, its scores, seconds and memory as metrics, and what names it as tags. Both hooks are called in the process
of the command, on one machine and on a cluster alike, so that nodes need neither MLflow nor a way to the tracker. What
goes wrong here is noted by benchsuite and stops no run.
"""

from __future__ import annotations

import atexit
import functools
from typing import TYPE_CHECKING, Any

from benchsuite.core import hookimpl

if TYPE_CHECKING:
    from benchsuite.core.result import Result, RunSpec

_LONGEST_VALUE = 500
_open: dict[str, str] = {}  # fingerprint of a run in flight to its id in the tracker


@functools.cache
def _client() -> Any:
    from mlflow import MlflowClient

    atexit.register(_end_what_was_interrupted)
    return MlflowClient()


@functools.cache
def _experiment(task: str) -> str:
    found = _client().get_experiment_by_name(task)
    return str(found.experiment_id if found else _client().create_experiment(task))


@hookimpl
def benchsuite_run_started(run: RunSpec) -> None:
    """Open a run in the tracker, with all that is known before it is made."""
    seeds = ", ".join(f"{axis} {seed}" for axis, seed in run.seeds.items())
    tags = {"benchsuite.fingerprint": run.fingerprint, "benchsuite.method": run.method, "benchsuite.split": run.split}
    created = _client().create_run(_experiment(run.task), run_name=f"{run.method} {seeds}", tags=tags)
    _open[run.fingerprint] = identity = created.info.run_id
    groups = {"task": run.protocol, "method": run.config, "seed": run.seeds}
    for group, values in groups.items():
        for name, value in values.items():
            _client().log_param(identity, f"{group}.{name}", str(value)[:_LONGEST_VALUE])


@hookimpl
def benchsuite_run_finished(result: Result) -> None:
    """Add what came out, and close the run."""
    identity = _open.pop(result.fingerprint, None)
    if identity is None:  # it could not be opened, which was noted
        return
    measured = {
        **result.scores,
        **{f"seconds.{phase}": timing.wall_s for phase, timing in result.timings.items()},
        "seconds": result.wall_s,
        "peak_memory_mb": result.peak_memory_mb,
    }
    for name, value in measured.items():
        if value is not None:
            _client().log_metric(identity, _permitted(name), float(value))
    _client().set_tag(identity, "benchsuite.status", result.status)
    _client().set_tag(identity, "benchsuite.source_digest", result.source_digest)
    if result.error is not None:
        _client().set_tag(identity, "benchsuite.error", result.error.message[:_LONGEST_VALUE])
    _client().set_terminated(identity, "FINISHED" if result.status in ("ok", "truncated") else "FAILED")


def _permitted(name: str) -> str:
    """Return a name that MLflow takes: letters, digits and some signs."""
    return "".join(letter if letter.isalnum() or letter in "_-./ " else "_" for letter in name)


def _end_what_was_interrupted() -> None:
    for identity in _open.values():
        _client().set_terminated(identity, "KILLED")
