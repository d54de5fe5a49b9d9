"""Checks of result files that nobody vouches for, beyond the schema."""

from __future__ import annotations

import math

from benchsuite.core.registry import Registry, load_task
from benchsuite.core.result import FINISHED, Result


def problems_of(result: Result, registry: Registry) -> list[str]:
    """Return what is wrong with a result, one line each; empty if nothing is."""
    run = result.run
    problems = []
    if run.task not in registry.tasks:
        problems.append(f"task {run.task!r} is not known here")
    else:
        task = load_task(registry.task(run.task))
        if task.version != run.task_version:
            problems.append(f"task version {run.task_version} is not the present one ({task.version})")
        names = {metric.name for metric in result.definition.metrics}
        if names != set(task.metric_names()):
            problems.append("its metrics are not those of the task")
    for ref in run.data.values():
        spec = registry.datasets.get(ref.name)
        if spec is None:
            problems.append(f"data set {ref.name!r} is not known here")
        elif spec.embedded:
            problems += _embedded_data_problems(ref.hash, ref.name, registry)
    return problems + _score_problems(result) + _cost_problems(result)


def _embedded_data_problems(digest: str, name: str, registry: Registry) -> list[str]:
    from benchsuite.core.dataset import DataSource
    from benchsuite.harness.identity import data_hash

    if data_hash(DataSource(registry.dataset(name))) != digest:
        return [f"data set {name!r} has another hash than here"]
    return []


def _score_problems(result: Result) -> list[str]:
    metrics = {metric.name: metric for metric in result.definition.metrics}
    problems = [f"score {name!r} is not a metric of its task" for name in result.scores if name not in metrics]
    if result.status in FINISHED:
        problems += [f"score {name!r} is missing" for name in metrics if name not in result.scores]
    for name, value in result.scores.items():
        if value is None:
            if not result.undefined.get(name):
                problems.append(f"score {name!r} is undefined without a reason")
        elif name in metrics and metrics[name].unit == "fraction" and not (math.fabs(value) <= 1.0):
            problems.append(f"score {name!r} is {value:g}, not a fraction")
    return problems


def _cost_problems(result: Result) -> list[str]:
    costs: dict[str, float | None] = {"wall_s": result.wall_s, "peak_memory_mb": result.peak_memory_mb}
    costs |= {"peak_gpu_memory_mb": result.peak_gpu_memory_mb, "parameters": result.parameters}
    for name, timing in result.timings.items():
        costs |= {f"{name} wall_s": timing.wall_s, f"{name} cpu_s": timing.cpu_s}
    return [f"{name} is {value:g}, below 0" for name, value in costs.items() if value is not None and value < 0]
