"""The one way through a run: seed, load the data, build protocol and method, evaluate, check what came out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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
            refs = {ref.name: ref for ref in run.data.values()}
            draw = run.seeds[task.seed_axes[0]]

            def reading(name: str, read: Callable[[], Any]) -> Any:
                return ctx.read_once(refs[name], roots.get(name), draw, read)

            data = load_data(registry, names, roots, draw, reading)
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
        try:
            outcome.scores[name] = value = float(value)
        except (TypeError, ValueError):
            raise InvalidOutcome(f"score {name} is {_described(value)}, not a number") from None
        if not math.isfinite(value):
            raise InvalidOutcome(f"score {name} is {value}; an undefined value is None with a reason")
        if expected[name].unit == "fraction" and not -1.0 <= value <= 1.0:
            raise InvalidOutcome(f"score {name} is {value}, not a fraction")
    _check_records(outcome)


def _check_records(outcome: Outcome) -> None:
    """Raise `InvalidOutcome` for counts, tables and parameters that a result file cannot hold as they are."""
    if not isinstance(outcome.counts, dict) or not isinstance(outcome.tables, dict):
        raise InvalidOutcome("counts and tables are not dicts of names")
    for name, count in outcome.counts.items():
        if type(count) is not int:
            raise InvalidOutcome(f"count {name} is {_described(count)}, not an int: write int(...)")
    if outcome.parameters is not None and type(outcome.parameters) is not int:
        raise InvalidOutcome(f"parameters is {_described(outcome.parameters)}, not an int: write int(...)")
    for table, records in outcome.tables.items():
        if not isinstance(records, list):
            raise InvalidOutcome(f"table {table} is {_described(records)}, not a list of records")
        for index, record in enumerate(records):
            if not isinstance(record, dict):
                raise InvalidOutcome(f"table {table}, record {index} is {_described(record)}, not a dict")
            for key, value in record.items():
                if value is not None and not isinstance(value, (bool, int, float, str)):
                    raise InvalidOutcome(
                        f"table {table}, record {index}: {key} is {_described(value)}; a cell is a bool, int, float,"
                        " str or None"
                    )
                if isinstance(value, float) and not math.isfinite(value):
                    raise InvalidOutcome(f"table {table}, record {index}: {key} is {value}; what is undefined is None")


def _described(value: object) -> str:
    text = " ".join(repr(value).split())
    return f"{type(value).__module__}.{type(value).__name__} {text[:40]}".removeprefix("builtins.")
