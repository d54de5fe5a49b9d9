"""``benchsuite.run`` and ``benchsuite.load_results``: the harness from Python and notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchsuite.core.errors import StoreError
from benchsuite.core.registry import get_registry
from benchsuite.core.result import Result
from benchsuite.harness.execute import Options, SilentReporter, execute
from benchsuite.harness.plan import Request, plan
from benchsuite.harness.settings import assignments_of, seeds_of
from benchsuite.harness.store import find_result_files, read_results

if TYPE_CHECKING:
    import pandas


def run(
    task: str,
    method: str | Sequence[str] = (),
    *,
    dataset: str | None = None,
    data_root: str | Path | None = None,
    preset: str = "embedded",
    settings: Mapping[str, Any] | None = None,
    seeds: int | Sequence[int] | Mapping[str, int | Sequence[int]] = 1,
    device: str = "auto",
    out: str | Path = "runs",
    workers: int = 1,
    timeout: float | None = None,
    force: bool = False,
    reference: bool = True,
) -> pandas.DataFrame:
    """Run methods on a task and return their results, one row a run.

    Parameters
    ----------
    task, method
        Names; no method means every method of the task.
    dataset, data_root
        Name of the data set, and its folder if it is a real one.
    settings
        What ``--set`` takes, as values: ``{"method.lr": 0.1, "task.teacher": "graphsage"}``.
    seeds
        A number of seeds or the seeds themselves, of the outermost axis; or a mapping from axis to either.
    device, out, workers, timeout, force, reference, preset
        As the options of ``benchsuite run``.

    Returns
    -------
    pandas.DataFrame
        See `load_results`. Failed runs are rows with their ``status``.

    Raises
    ------
    UserError
        For names and settings that do not exist or do not fit.
    StoreError
        If a result could not be stored.
    """
    chosen = seeds if isinstance(seeds, Mapping) else {"": seeds}
    request = Request(
        tasks=[task],
        methods=[method] if isinstance(method, str) else list(method),
        datasets=[dataset] if dataset else [],
        data_roots=[str(data_root)] if data_root else [],
        preset=preset,
        settings=assignments_of(settings or {}),
        seeds=[seeds_of(values, axis) for axis, values in chosen.items()],
        device=device,
        reference=reference,
    )
    options = Options(out=Path(out).expanduser(), workers=workers, timeout=timeout, force=force)
    summary = execute(plan(request, get_registry()), options, SilentReporter())
    if summary.unstored:
        raise StoreError("; ".join(summary.unstored))
    return to_frame(summary.results)


def load_results(folder: str | Path = "runs") -> pandas.DataFrame:
    """Read every result below a folder into a table, one row a stored attempt.

    Columns: task, data, method, label, preset, role, status, fingerprint, ``seed_AXIS``, ``score_METRIC``
    (fractions for ratios), ``seconds_PHASE`` (CPU seconds), parameters, peak_memory_mb, started.
    Unreadable files are skipped with a warning that names them.
    """
    import warnings

    stored, problems = read_results(find_result_files([Path(folder).expanduser()]))
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return to_frame([item.result for item in stored])


def to_frame(results: Sequence[Result]) -> pandas.DataFrame:
    """Return results as a table, one row a result."""
    import pandas

    return pandas.DataFrame([_record(result) for result in results])


def _record(result: Result) -> dict[str, Any]:
    run = result.run
    return {
        "task": run.task,
        "data": run.data["test"].name,
        "method": run.method,
        "label": result.label,
        "preset": run.preset,
        "role": result.role,
        "status": result.status,
        "fingerprint": result.fingerprint,
        **{f"seed_{axis}": seed for axis, seed in run.seeds.items()},
        **{f"score_{name}": value for name, value in result.scores.items()},
        **{f"seconds_{name}": timing.cpu_s for name, timing in result.timings.items()},
        "parameters": result.parameters,
        "peak_memory_mb": result.peak_memory_mb,
        "started": result.started,
    }
