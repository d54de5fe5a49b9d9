"""Look at stored results, check them, publish them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchsuite.cli._shared import (
    PUBLISHED,
    RUNS,
    Debug,
    Json,
    Results,
    Tasks,
    find_stored,
    print_json,
    read_stored,
    warn,
)
from benchsuite.core.errors import UserError
from benchsuite.core.registry import get_registry

if TYPE_CHECKING:
    from benchsuite.core.result import Result
    from benchsuite.harness.store import StoredResult


def results_list(results: Results = None, as_json: Json = False, debug: Debug = False) -> None:
    """List stored results."""
    from benchsuite.cli.console import print_table
    from benchsuite.harness.execute import seed_text

    stored, problems = read_stored(results or [RUNS])
    warn(problems)
    if as_json:
        print_json([_summary_of(item) for item in stored])
        return
    rows = [
        (
            item.result.fingerprint[:16],
            item.attempt,
            item.result.run.task,
            item.result.run.data["test"].name,
            item.result.label,
            seed_text(item.result.run),
            item.result.status,
            item.result.started,
        )
        for item in stored
    ]
    columns = ["fingerprint", "attempt", "task", "data", "method", "seeds", "status", "started"]
    print_table(f"{len(rows)} results", columns, rows)


def _summary_of(item: StoredResult) -> dict[str, Any]:
    result = item.result
    keys = {"run", "fingerprint", "source_digest", "status", "label", "scores", "started"}
    return {"path": str(item.path), "attempt": item.attempt, **result.model_dump(include=keys)}


def results_show(fingerprint: str, results: Results = None, as_json: Json = False, debug: Debug = False) -> None:
    """Show one result: settings, scores, timings, environment, error."""
    item = find_stored(fingerprint, results or [RUNS, PUBLISHED])
    content = item.result.model_dump(exclude={"tables", "definition"})
    if as_json:
        print_json(item.result.model_dump())
        return
    print(f"{item.path}")
    axis = item.result.definition.seed_axes[0]
    print(
        f"draw of generated data: {item.result.run.seeds[axis]} (the seed of {axis}; 'score --run' takes it from here)"
    )
    traceback = (content.get("error") or {}).pop("traceback", "")
    for key, value in content.items():
        print(f"{key}: {json.dumps(value, sort_keys=True) if isinstance(value, (dict, list)) else value}")
    if traceback:
        print(traceback)


def results_compare(
    first: Annotated[str, typer.Argument(help="A fingerprint, or a folder of results: the state before.")],
    second: Annotated[
        str | None,
        typer.Argument(help="Another fingerprint, or the state after (one folder: it, after the published)."),
    ] = None,
    results: Results = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Compare two results field by field, or two folders of results row by row (exit code 1 if a row became worse)."""
    from benchsuite.cli.console import print_table

    if Path(first).is_dir():
        before, after = (PUBLISHED, Path(first)) if second is None else (Path(first), Path(second))
        return _compare_states(before, after, as_json)
    if second is None:
        raise UserError(f"{first} is not a folder: give a folder of results, or two fingerprints")
    roots = results or [RUNS, PUBLISHED]
    one, two = (_comparable(find_stored(name, roots).result) for name in (first, second))
    rows = [
        {"field": key, "first": one.get(key), "second": two.get(key)}
        for key in sorted(one.keys() | two.keys())
        if one.get(key) != two.get(key)
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(f"{len(rows)} differences", ["field", "first", "second"], [tuple(row.values()) for row in rows])
    return 0


def _compare_states(before: Path, after: Path, as_json: bool) -> int:
    from collections import Counter

    from benchsuite.cli.console import print_table
    from benchsuite.leaderboard.build import presentations
    from benchsuite.leaderboard.cells import change_cells
    from benchsuite.leaderboard.states import compare_states

    for folder in (before, after):
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder of results: give two folders, or two fingerprints")
    (old, problems), (new, more_problems) = read_stored([before]), read_stored([after])
    warn([*problems, *more_problems])
    changes = compare_states(old, new, presentations(get_registry()))
    if as_json:
        keys = ("task", "data", "label", "change", "before", "after", "other_code", "other_data")
        print_json([{"metric": c.metric.name, **{key: getattr(c, key) for key in keys}} for c in changes])
    else:
        columns = ["task", "data", "method", "metric", "before", "after", "difference (p, Holm)", "change"]
        print_table(f"{before} -> {after}", columns, map(change_cells, changes), right=(4, 5, 6))
        counts = Counter(change.change for change in changes)
        print(", ".join(f"{number} {what}" for what, number in sorted(counts.items())) or "no rows")
    return 1 if any(change.regression for change in changes) else 0


def _comparable(result: Result) -> dict[str, Any]:
    keys = {"run", "source_digest", "status", "scores", "counts", "parameters", "environment", "peak_memory_mb"}
    flat: dict[str, Any] = {}

    def flatten(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                flatten(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            flat[prefix] = value

    flatten("", result.model_dump(include=keys))
    return flat


def results_validate(
    files: Annotated[list[Path], typer.Argument(help="Result files or folders.")],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Check result files of unknown origin: schema, ranges, known task version and data."""
    from benchsuite.harness.validate import problems_of

    for path in files:
        if not path.exists():
            raise UserError(f"{path}: there is no such file")
    stored, problems = read_stored(files)
    problems += [f"{item.path}: {text}" for item in stored for text in problems_of(item.result, get_registry())]
    if as_json:
        print_json({"files": len(stored) + len(problems), "problems": problems})
    else:
        for problem in problems:
            print(problem)
        print(f"{len(stored)} result files read, {len(problems)} problems")
    return 1 if problems else 0


def results_publish(
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks.")] = None,
    results: Results = None,
    to: Annotated[Path, typer.Option(help="Folder of the published results.")] = PUBLISHED,
    pilot: Annotated[
        bool, typer.Option("--pilot", help="The pilots that seeds are planned by, instead of rows.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Copy complete rows (all published seeds and protocols, made by the present code) to the published results."""
    from benchsuite.harness.publish import publish, publish_pilots
    from benchsuite.leaderboard.build import current_digests

    registry = get_registry()
    for name in task or []:
        registry.task(name)
    stored, problems = read_stored(results or [RUNS])
    warn(problems)
    stored = [item for item in stored if item.result.run.task in (task or registry.tasks)]
    if pilot:
        copied = publish_pilots(stored, to)
        print_json([str(path) for path in copied]) if as_json else print(f"{len(copied)} runs of pilots copied to {to}")
        return 0 if copied else 1
    digest = current_digests(registry)
    chosen = {item.result.run.task for item in stored}
    published = [item for item in read_stored([to])[0] if item.result.run.task in chosen] if to.is_dir() else []
    digests = {item.result.fingerprint: digest(item.result) for item in (*stored, *published)}
    written, refused = publish(stored, to, registry, digests, published)
    if as_json:
        print_json({"published": [str(p) for p in written], "refused": [vars(item) for item in refused]})
        return 0
    for item in refused:
        print(f"not published: {item.label}: {item.reason}", file=sys.stderr)
    print(f"{len(written)} results published to {to}; now run 'benchsuite leaderboard'")
    return 0 if written else 1


def results_remove(
    fingerprints: Annotated[
        list[str] | None, typer.Argument(metavar="[FINGERPRINT]...", help="Beginnings of fingerprints.")
    ] = None,
    stale: Annotated[bool, typer.Option("--stale", help="Those that other code than the present made.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Attempts that did not finish.")] = False,
    task: Tasks = None,
    results: Results = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove stored results with their logs and artifacts (from runs/, or the folders in --results).

    Pilots among the published results go only by name: the seeds were planned by them.
    """
    from benchsuite.core.result import FINISHED
    from benchsuite.harness.publish import is_pilot
    from benchsuite.harness.store import remove_attempt
    from benchsuite.leaderboard.build import current_digests

    if not (fingerprints or stale or failed):
        raise UserError("nothing to remove: name fingerprints, or give --stale or --failed")
    found = [(item, root) for root in results or [RUNS] for item in read_stored([root])[0]]
    for start in fingerprints or ():
        names = {item.result.fingerprint for item, _ in found if item.result.fingerprint.startswith(start)}
        if not start or len(names) != 1:
            raise UserError(f"fingerprint {start!r} fits {len(names)} runs: see 'benchsuite results list'")
    digest = current_digests(get_registry())

    def is_stale(result: Result) -> bool:
        present = digest(result)
        return present is not None and present != result.source_digest

    def goes(result: Result, root: Path) -> bool:
        if task and result.run.task not in task:
            return False
        named = any(result.fingerprint.startswith(start) for start in fingerprints or ())
        planned_by = is_pilot(result) and root.resolve() == PUBLISHED.resolve()  # older than what it planned
        outdated = stale and not planned_by and is_stale(result)
        return named or outdated or (failed and result.status not in FINISHED)

    chosen = [(item, root) for item, root in found if goes(item.result, root)]
    for item, root in chosen:
        if not dry_run:
            remove_attempt(item, root)
    if as_json:
        print_json([str(item.path.parent) for item, _ in chosen])
        return
    for item, _ in chosen:
        print(f"{item.path.parent}  {item.result.run.task}  {item.result.label}  {item.result.status}")
    print(f"{len(chosen)} results {'would be ' if dry_run else ''}removed")


def results_carry(
    checkout: Annotated[Path, typer.Argument(help="Folder of the repository as it was when the results were made.")],
    results: Results = None,
    before: Annotated[list[Path] | None, typer.Option(help="Single seeds measured with that checkout.")] = None,
    after: Annotated[list[Path] | None, typer.Option(help="The same seeds measured with the present code.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Keep results whose code moved, or gives one seed bit for bit the same; refuse all others.

    Changes the published results in place (or those in --results), and notes in each why it was carried over.
    """
    from benchsuite.harness.carry import carry

    if not checkout.is_dir():
        raise UserError(f"{checkout} is not a folder: give a checkout of the repository")
    published, problems = read_stored(results or [PUBLISHED])
    warn(problems)
    proofs = [read_stored(folders)[0] if folders else [] for folders in (before, after)]
    account = carry(published, checkout, get_registry(), *proofs)
    if as_json:
        refused = [vars(item) for item in account.refused]
        print_json({"carried": [str(p) for p in account.carried], "current": account.current, "refused": refused})
        return 1 if refused else 0
    for item in account.refused:
        print(f"not carried over: {item.label}: {item.reason}", file=sys.stderr)
    print(f"{len(account.carried)} carried over, {account.current} current already, {len(account.refused)} refused")
    return 1 if account.refused else 0
