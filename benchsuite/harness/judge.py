"""Judge predictions that were made outside the harness."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchsuite.core.errors import Incompatible, InvalidPrediction, UserError
from benchsuite.core.registry import Registry, load_object, require
from benchsuite.core.task import Outcome, Task
from benchsuite.harness.identity import data_hash
from benchsuite.harness.measure import check_outcome
from benchsuite.harness.parts import build_protocol, load_data
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
    cls: type[Task[Any, Any, Any]] = load_object(spec.load)
    if cls.score is Task.score:
        raise Incompatible(f"task {task!r} cannot judge a file: its methods are judged while they run")
    if not predictions.is_file():
        raise UserError(f"--predictions {predictions}: there is no such file")
    sources = data_sources(Request(datasets=datasets, data_roots=data_roots), registry, cls)
    task_settings, _ = route(settings, cls.Protocol, {})
    preset = cls.presets["embedded"].resolve({"dataset": sources["test"].spec.name, **task_settings})
    protocol = build_protocol(cls, {**preset, **task_settings})
    for source in sources.values():
        data_hash(source)  # tells missing files in one line before a reader stumbles over them
    names = {role: source.spec.name for role, source in sources.items()}
    roots = {source.spec.name: source.root for source in sources.values() if source.root}
    data = load_data(registry, names, roots, draw)
    try:
        outcome = cls().score(predictions, data, protocol)
    except InvalidPrediction as error:
        raise UserError(f"{predictions}: {' '.join(str(error).split())}") from None
    check_outcome(outcome, cls.metrics)
    return outcome
