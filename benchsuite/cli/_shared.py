"""What the commands share: options, folders, reading results, printing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchsuite.core.errors import UserError

if TYPE_CHECKING:
    from benchsuite.harness.store import StoredResult

RUNS = Path("runs")
LEADERBOARDS = Path("leaderboards")
PUBLISHED = LEADERBOARDS / "results"

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Wide = Annotated[bool, typer.Option("--wide", help="Tables with all metrics and costs.")]
Results = Annotated[list[Path] | None, typer.Option("--results", help="Folder of result files (repeatable).")]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="Only these tasks (repeatable).")]
Out = Annotated[Path, typer.Option("--out", help="Folder for results.")]
INTERRUPTED = 130


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=1, sort_keys=True, allow_nan=False))


def print_columns(title: str, rows: Sequence[Sequence[Any]]) -> None:
    """Print rows below a title, their cells in columns."""
    print(f"{title}:")
    widths = [max((len(str(row[i])) for row in rows), default=0) for i in range(len(rows[0]) if rows else 0)]
    for row in rows:
        print("  " + "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()


def read_stored(roots: Iterable[Path]) -> tuple[list[StoredResult], list[str]]:
    """Return the results below the folders, and a line for every file that is none."""
    from benchsuite.harness.store import find_result_files, read_results

    return read_results(find_result_files(roots))


def warn(problems: Iterable[str]) -> None:
    """Tell what was left out."""
    for problem in problems:
        print(f"skipped: {problem}", file=sys.stderr)


def find_stored(fingerprint: str, roots: Iterable[Path]) -> StoredResult:
    """Return the newest attempt of the one run whose fingerprint starts so."""
    stored, _ = read_stored(roots)
    matches = [item for item in stored if item.result.fingerprint.startswith(fingerprint)]
    names = {item.result.fingerprint for item in matches}
    if not fingerprint or len(names) > 1:
        raise UserError(f"fingerprint {fingerprint!r} fits {len(names) or 'all'} runs: give more of it")
    if not matches:
        raise UserError(f"no stored result has fingerprint {fingerprint!r}: see 'benchsuite results list'")
    return max(matches, key=lambda item: (item.result.started, item.attempt))
