"""Tables, pages and claims from stored results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchsuite.cli._shared import (
    LEADERBOARDS,
    PUBLISHED,
    RUNS,
    Debug,
    Json,
    Results,
    Tasks,
    Wide,
    print_json,
    read_stored,
    warn,
)
from benchsuite.core.errors import UserError
from benchsuite.core.registry import get_registry

if TYPE_CHECKING:
    from benchsuite.leaderboard.build import Leaderboard


def leaderboard(
    results: Results = None,
    task: Tasks = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the tables.")] = LEADERBOARDS,
    check: Annotated[bool, typer.Option(help="Change nothing; exit 1 if the tables differ.")] = False,
    merge_from: Annotated[
        list[Path] | None,
        typer.Option("--merge", help="Folder of results from another machine, to be joined in first (repeatable)."),
    ] = None,
    site: Annotated[
        Path | None, typer.Option("--site", help="Folder for web pages; nothing but the pages is written then.")
    ] = None,
    wide: Wide = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Make the tables from stored results (default: the published ones, else runs/)."""
    from benchsuite.cli.console import print_how_to_read, print_leaderboard
    from benchsuite.leaderboard.build import build, differences, write
    from benchsuite.leaderboard.render import table_data

    if merge_from:
        _merge(merge_from, results[0] if results else PUBLISHED)
    roots = _result_roots(results)
    if site is not None:
        return _write_site(roots, site, task)
    board = build(roots, get_registry())
    warn(board.problems)
    if task:
        board = board.only(_known_tasks(task, board))
    if check:
        wrong = differences(board, out)
        for name in wrong:
            print(f"{out / name} is not what the results give: run 'benchsuite leaderboard'", file=sys.stderr)
        return 1 if wrong or board.problems else 0
    if not board.tables:
        raise UserError(f"no results in {', '.join(map(str, roots))}: run something first (benchsuite run --task NAME)")
    write(board, out)
    if as_json:
        print_json([table_data(table) for table in board.tables])
        return 0
    for table in board.tables:
        print_leaderboard(table, wide)
    print_how_to_read()
    print(f"written to {out}: {', '.join(sorted(board.files))}")
    return 0


def _known_tasks(names: Sequence[str], board: Leaderboard) -> Sequence[str]:
    """Return the names; raises `UnknownName` for one that neither is registered nor has results."""
    for name in names:
        if not any(table.task == name for table in board.tables):
            get_registry().task(name)
    return names


def _write_site(roots: Sequence[Path], folder: Path, tasks: Sequence[str] | None) -> int:
    from benchsuite.harness.store import find_result_files, read_results
    from benchsuite.leaderboard.build import build_from
    from benchsuite.leaderboard.site import build_site, write_site

    stored, problems = read_results(find_result_files(roots))
    registry = get_registry()
    board = build_from(stored, problems, registry)
    if tasks:
        _known_tasks(tasks, board)
        stored = [item for item in stored if item.result.run.task in tasks]
        board = replace(build_from(stored, problems, registry), verdicts=board.only(tasks).verdicts)
        registry = replace(
            registry,
            tasks={name: spec for name, spec in registry.tasks.items() if name in tasks},
            methods={name: spec for name, spec in registry.methods.items() if {*spec.tasks} & {*tasks}},
        )
    warn(board.problems)
    files = build_site(board, registry, stored)
    write_site(files, folder)
    print(f"{len(files)} files written: open {folder / 'index.html'} in a browser")
    return 0


def _merge(folders: Sequence[Path], target: Path) -> None:
    from benchsuite.harness.merge import merge
    from benchsuite.harness.publish import complete_rows

    for folder in folders:
        if not folder.exists():
            raise UserError(f"--merge {folder}: there is no such folder")
    stored, problems = read_stored(folders)
    warn(problems)
    if target.resolve() == PUBLISHED.resolve():
        stored, refused = complete_rows(stored, read_stored([target])[0], get_registry())
        for item in refused:
            print(f"not merged: {item.label}: {item.reason}", file=sys.stderr)
    merged = merge(stored, target)
    print(f"merged into {target}: {merged.added} results added, {merged.known} known already", file=sys.stderr)


def _result_roots(results: Sequence[Path] | None) -> list[Path]:
    if results:
        for root in results:
            if not root.exists():
                raise UserError(f"--results {root}: there is no such folder")
        return list(results)
    return [PUBLISHED] if PUBLISHED.is_dir() else [RUNS]


def claims(
    results: Results = None,
    task: Tasks = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Say how many seeds each claim needs, by a pilot (--split val, seeds from 100)."),
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say which claims of the papers hold, by the stored results."""
    from benchsuite.cli.console import print_table
    from benchsuite.leaderboard.build import build
    from benchsuite.leaderboard.cells import effect_text
    from benchsuite.leaderboard.render import (
        HOW_CLAIMS_ARE_JUDGED,
        HOW_SEEDS_ARE_PLANNED,
        PLAN_TITLES,
        p_text,
        plan_cells,
        plan_data,
        verdict_data,
    )

    board = build(_result_roots(results), get_registry())
    warn(board.problems)
    if task:
        board = board.only(_known_tasks(task, board))
    if plan:
        if as_json:
            print_json([plan_data(found) for found in board.plans])
            return
        print_table("Seeds that the claims need", PLAN_TITLES, map(plan_cells, board.plans), right=range(2, 7))
        for text in HOW_SEEDS_ARE_PLANNED:
            print(text)
        return
    if as_json:
        print_json([verdict_data(verdict) for verdict in board.verdicts])
        return
    rows = [
        (v.claim.statement, v.verdict, effect_text(v.effect, v.metric), p_text(v), v.command) for v in board.verdicts
    ]
    print_table("Claims of the papers", ["claim", "verdict", "effect", "p (Holm)", "run it again"], rows)
    for text in HOW_CLAIMS_ARE_JUDGED:
        print(text)
