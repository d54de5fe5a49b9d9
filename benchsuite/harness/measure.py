"""The one way through a run: seed, load the data, build protocol and method, evaluate, check what came out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from benchsuite.core.metric import Metric
from benchsuite.core.registry import Registry, load_object
from benchsuite.core.result import RunSpec
from benchsuite.core.task import Outcome, Task
from benchsuite.harness.context import HarnessContext
from benchsuite.harness.parts import build_method, build_protocol, load_data
from benchsuite.harness.randomness import seed_everything


class InvalidOutcome(Exception):
    """A task returned something that is not a valid measurement."""


def make_context(run: RunSpec, task: type[Task[Any, Any, Any]], folder: Path, **more: Any) -> HarnessContext:
    """Return the context of a run that works below ``folder``; ``more`` are further fields of `HarnessContext`."""
    ctx = HarnessContext(
        seeds=dict(run.seeds),
        seed_axes=tuple(task.seed_axes),
        workdir=folder / "work",
        preset=run.preset,
        threads=run.threads,
        split=run.split,
        max_steps=run.max_steps,
        facts={"task": run.task, "dataset": run.data["test"].name, **run.protocol},
        **more,
    )
    ctx.workdir.mkdir()
    return ctx


def measure(
    run: RunSpec,
    registry: Registry,
    ctx: HarnessContext,
    roots: Mapping[str, Path],
    data: Mapping[str, Any] | None = None,
) -> Outcome:
    """Make a run in this process and return its checked outcome.

    Parameters
    ----------
    run
        What to measure.
    ctx
        See `make_context`.
    roots
        Folder of each real data set, by name.
    data
        The data of each role, if they are loaded already.
    """
    task: Task[Any, Any, Any] = load_object(registry.task(run.task).load)()
    seed_everything(ctx.seed_for(task.seed_axes[-1], "global"))
    if data is None:
        with ctx.phase("load"):
            names = {role: ref.name for role, ref in run.data.items()}
            data = load_data(registry, names, roots, run.seeds[task.seed_axes[0]])
    protocol = build_protocol(type(task), run.protocol)
    method = build_method(registry.method(run.method), run.config)
    if not isinstance(method, task.method_type):
        raise TypeError(f"method {run.method!r} is no {task.method_type.__name__}, which task {run.task!r} takes")
    outcome = task.evaluate(method, data, protocol, ctx)
    check_outcome(outcome, task.metrics)
    return outcome


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
