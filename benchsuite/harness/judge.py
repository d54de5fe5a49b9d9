"""Judge predictions that were made outside the harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchsuite.core.dataset import DataSource
from benchsuite.core.errors import Incompatible, InvalidPrediction, UserError
from benchsuite.core.registry import Registry, StrangersError, load_task, require, strangers_code
from benchsuite.core.result import RunSpec
from benchsuite.core.task import Outcome, Task
from benchsuite.harness.identity import data_hash
from benchsuite.harness.measure import InvalidOutcome, check_outcome
from benchsuite.harness.parts import build_protocol, load_data, with_seeds
from benchsuite.harness.plan import Request, data_sources
from benchsuite.harness.settings import Assignment, route


def score_predictions(
    registry: Registry,
    task: str,
    predictions: Path,
    datasets: Sequence[str],
    data_roots: Sequence[str],
    draw: int,
    settings: Sequence[Assignment],
) -> Outcome:
    """Return the task's scores of a file of predictions.

    Raises
    ------
    UserError
        If the task cannot judge a file, or the file does not fit the data.
    """
    spec = registry.task(task)
    require(f"task {task!r}", spec.requires, spec.install)
    cls = _judging_task(registry, task, predictions)
    sources = data_sources(Request(datasets=datasets, data_roots=data_roots), registry, cls)
    task_settings, _ = route(settings, cls.Protocol, {})
    preset = cls.presets["embedded"].resolve({"dataset": sources["test"].spec.name, **task_settings})
    protocol = build_protocol(cls, {**preset, **task_settings})
    return _judge(registry, cls, predictions, sources, protocol, draw, dict.fromkeys(cls.seed_axes, draw))


def score_of_run(
    registry: Registry, run: RunSpec, predictions: Path, data_roots: Sequence[str], split: str = "test"
) -> Outcome:
    """Return the scores of a file of predictions by the data, draw, seeds and protocol of a stored run.

    Raises
    ------
    UserError
        As `score_predictions`, and if the run was judged on other data, or on the validation split.
    """
    spec = registry.task(run.task)
    require(f"task {run.task!r}", spec.requires, spec.install)
    cls = _judging_task(registry, run.task, predictions)
    if run.split != split:
        raise Incompatible(f"the run was judged on the split {run.split!r}, and files are judged on {split!r}")
    named = ",".join(f"{role}={ref.name}" for role, ref in run.data.items())
    sources = data_sources(Request(datasets=[named], data_roots=data_roots), registry, cls)
    for role, source in sources.items():
        if data_hash(source) != run.data[role].hash:
            raise Incompatible(f"data set {source.spec.name!r} is not what the run was judged on: its content differs")
    protocol = build_protocol(cls, run.protocol)
    return _judge(registry, cls, predictions, sources, protocol, run.seeds[cls.seed_axes[0]], run.seeds)


def _judging_task(registry: Registry, task: str, predictions: Path) -> type[Task[Any, Any, Any]]:
    cls = load_task(registry.task(task))
    if cls.score is Task.score:
        raise Incompatible(f"task {task!r} cannot judge a file: its methods are judged while they run")
    if not predictions.is_file() and not (cls.judges_folders and predictions.is_dir()):
        what = "file or folder" if cls.judges_folders else "file"
        raise UserError(f"--predictions {predictions}: there is no such {what}")
    return cls


def _judge(
    registry: Registry,
    cls: type[Task[Any, Any, Any]],
    predictions: Path,
    sources: Mapping[str, DataSource],
    protocol: Any,
    draw: int,
    seeds: Mapping[str, int],
) -> Outcome:
    for source in sources.values():
        data_hash(source)  # tells missing files in one line before a reader stumbles over them
    names = {role: source.spec.name for role, source in sources.items()}
    roots = {source.spec.name: source.root for source in sources.values() if source.root}
    try:
        with strangers_code():
            data = load_data(registry, names, roots, draw)
            outcome = with_seeds(cls().score, predictions, data, protocol, seeds=seeds)
            check_outcome(outcome, cls.metrics)
    except StrangersError as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, InvalidPrediction):
            raise UserError(f"{predictions}: {' '.join(str(cause).split())}") from None
        if isinstance(cause, InvalidOutcome):
            raise UserError(f"task {cls.name!r}, score: {cause}") from None
        raise UserError(f"task {cls.name!r} cannot judge {predictions}: {error} (--debug shows where)") from error
    return outcome
