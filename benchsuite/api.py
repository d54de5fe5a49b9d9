"""``benchsuite.run``, ``load_results``, ``leaderboard`` and ``claims``: what the command line can, as data frames."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchsuite.core.errors import StoreError
from benchsuite.core.registry import get_registry
from benchsuite.core.result import Result
from benchsuite.harness.execute import SilentReporter, execute, open_executor
from benchsuite.harness.executor import Options
from benchsuite.harness.plan import Request, plan
from benchsuite.harness.settings import assignments_of, seeds_of
from benchsuite.harness.store import StoredResult, find_result_files, read_results
from benchsuite.leaderboard.build import build, current_digests
from benchsuite.leaderboard.cells import settings_text
from benchsuite.leaderboard.claims import Verdict
from benchsuite.leaderboard.tables import Row, Table, build_tables

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
    split: Literal["test", "val"] = "test",
    weights: str | Path | None = None,
    artifacts: Sequence[Literal["model"]] = (),
    max_steps: int | None = None,
    device: str = "auto",
    gpus: str = "",
    executor: Literal["local", "ray"] = "local",
    address: str | None = None,
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
    split, weights, artifacts, max_steps, device, gpus, executor, address, out, workers, timeout, force, reference,
    preset
        As the options of ``benchsuite run``.

    Returns
    -------
    pandas.DataFrame
        See `load_results`; one row a run, failed ones with their ``status``.

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
        split=split,
        weights=Path(weights).expanduser() if weights else None,
        keep_model="model" in artifacts,
        max_steps=max_steps,
        device=device,
        reference=reference,
    )
    options = Options(out=Path(out).expanduser(), workers=workers, timeout=timeout, force=force)
    with open_executor(executor, address=address, workers=workers, gpus=gpus) as carrier:
        summary = execute(plan(request, get_registry(), carrier.machine), options, SilentReporter(), carrier)
    if summary.unstored or summary.lost:
        raise StoreError("; ".join([*summary.unstored, *summary.lost]))
    digest = current_digests(get_registry())
    stored = [StoredResult(result, path) for result, path in zip(summary.results, summary.paths, strict=True)]
    return _frame([_record(item.result, item.attempt, _is_stale(item.result, digest(item.result))) for item in stored])


def load_results(folder: str | Path = "runs", *, everything: bool = False) -> pandas.DataFrame:
    """Read results below a folder into a table.

    Columns: task, data, data_hash, method, label, preset, role, protocol and settings (JSON), split, weights, device,
    status, fingerprint, attempt, stale (None where the code is not installed here), ``seed_AXIS``, ``score_METRIC``
    (fractions for ratios), ``seconds_PHASE`` (CPU seconds), parameters, peak_memory_mb, started. Unreadable files are
    skipped with a warning that names them.

    Parameters
    ----------
    folder
        Searched with all below it.
    everything
        By default one row for each run that a leaderboard counts: on the test split, whole, the newest finished attempt
        by the newest code. With ``everything`` a row for every stored attempt.
    """
    stored = _stored(folder)
    digest = current_digests(get_registry())
    if not everything:
        tables = build_tables(stored, digest)
        counted = {id(result) for table in tables for row in table.rows for result in row.results}
        stored = [item for item in stored if id(item.result) in counted]
    return _frame([_record(item.result, item.attempt, _is_stale(item.result, digest(item.result))) for item in stored])


def leaderboard(folder: str | Path = "runs", task: str | None = None) -> pandas.DataFrame:
    """Return the rows of all tables (of one task), as `benchsuite leaderboard` makes them.

    Columns: task, data, settings, rank and rank_to (best and worst that the seeds leave open; None without one),
    unranked (why), label, method, preset, role, n, stale, for every metric ``METRIC`` and ``METRIC_ci95`` (half width),
    difference, difference_ci95 and p_holm (to the reference, on the ranking metric).
    """
    board = build([_root(folder)], get_registry())
    _warn(board.problems)
    return _frame(
        [_row_record(table, row) for table in board.tables if task in (None, table.task) for row in table.rows]
    )


def claims(folder: str | Path = "runs", task: str | None = None) -> pandas.DataFrame:
    """Return the verdicts on all claims (on one task), as `benchsuite claims` gives them.

    Columns: id, statement, task, data, verdict, effect, effect_ci95, n, p, p_holm, why, command; effects in the unit of
    the metric (fractions for ratios), positive as claimed.
    """
    board = build([_root(folder)], get_registry())
    _warn(board.problems)
    return _frame([_claim_record(verdict) for verdict in board.verdicts if task in (None, verdict.claim.task)])


def _root(folder: str | Path) -> Path:
    return Path(folder).expanduser()


def _stored(folder: str | Path) -> list[StoredResult]:
    stored, problems = read_results(find_result_files([_root(folder)]))
    _warn(problems)
    return stored


def _warn(problems: Sequence[str]) -> None:
    for problem in problems:
        warnings.warn(problem, stacklevel=3)


def _is_stale(result: Result, present: str | None) -> bool | None:
    return None if present is None else result.source_digest != present


def _frame(records: Sequence[dict[str, Any]]) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame(list(records))


def _record(result: Result, attempt: int, stale: bool | None) -> dict[str, Any]:
    run = result.run
    return {
        "task": run.task,
        "data": run.data["test"].name,
        "data_hash": run.data["test"].hash,
        "method": run.method,
        "label": result.label,
        "preset": run.preset,
        "role": result.role,
        "protocol": json.dumps(run.protocol, sort_keys=True),
        "settings": json.dumps(run.config, sort_keys=True),
        "split": run.split,
        "weights": run.weights,
        "device": run.device,
        "status": result.status,
        "fingerprint": result.fingerprint,
        "attempt": attempt,
        "stale": stale,
        **{f"seed_{axis}": seed for axis, seed in run.seeds.items()},
        **{f"score_{name}": value for name, value in result.scores.items()},
        **{f"seconds_{name}": timing.cpu_s for name, timing in result.timings.items()},
        "parameters": result.parameters,
        "peak_memory_mb": result.peak_memory_mb,
        "started": result.started,
    }


def _row_record(table: Table, row: Row) -> dict[str, Any]:
    found = row.comparison
    record: dict[str, Any] = {
        "task": table.task,
        "data": table.data_name,
        "settings": settings_text(table),
        "rank": row.rank,
        "rank_to": row.rank_to,
        "unranked": row.unranked or None,
        "label": row.label,
        "method": row.method,
        "preset": row.preset,
        "role": row.role,
        "n": row.n,
        "stale": row.stale,
    }
    for name, score in row.scores.items():
        record |= {name: score and score.mean, f"{name}_ci95": score and score.half_width}
    return record | {
        "difference": found and found.difference,
        "difference_ci95": found and found.half_width,
        "p_holm": found and found.holm,
    }


def _claim_record(verdict: Verdict) -> dict[str, Any]:
    effect = verdict.effect
    return {
        "id": verdict.claim.id,
        "statement": verdict.claim.statement,
        "task": verdict.claim.task,
        "data": verdict.data or None,
        "verdict": verdict.verdict,
        "effect": effect and effect.mean,
        "effect_ci95": effect and effect.half_width,
        "n": effect and effect.n,
        "p": verdict.p_value,
        "p_holm": verdict.holm,
        "why": verdict.why or None,
        "command": verdict.command,
    }
