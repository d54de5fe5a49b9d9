"""Copy chosen results from the user's ``runs/`` to the published ones, after checking that they are whole."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchsuite.core.errors import UserError
from benchsuite.core.registry import Registry, load_task
from benchsuite.core.result import FINISHED, Result
from benchsuite.harness.plan import protocol_of
from benchsuite.harness.store import RESULT_FILE, StoredResult, result_folder, write_atomic

FIRST_PILOT_SEED = 100
_MAX_ARTIFACT_BYTES = 500_000
_SHOWN = (".png", ".wav")


@dataclass(frozen=True)
class Refused:
    """A row that is not published, and why."""

    label: str
    reason: str


def publish(
    stored: Iterable[StoredResult],
    target: Path,
    registry: Registry,
    digest_of: dict[str, str | None],
    published: Iterable[StoredResult] = (),
) -> tuple[list[Path], list[Refused]]:
    """Publish every row that is complete, and at every published protocol, with the pictures of its first run.

    Parameters
    ----------
    stored
        Candidates.
    target
        Folder of the published results.
    registry
        Knows what a published row of each task consists of.
    digest_of
        For each fingerprint, the digest of the present code: only results of that digest are published.
    published
        What is published already: its seeds and protocols count, and need not be measured again. A published seed
        stays, unless all seeds of its row are among the candidates.

    Returns
    -------
    written, refused
        The published result files, and the rows left out.
    """
    rows = _publishable(stored, digest_of)
    present = _publishable(published, digest_of)
    refused: list[Refused] = []
    complete: dict[tuple[str, ...], dict[str, StoredResult]] = {}
    for key in {**rows, **present}:
        mine, there = rows.get(key, {}), present.get(key, {})
        members = {**there, **mine}
        example = next(iter(members.values())).result
        label = f"{example.run.task} {example.label}"
        missing = _missing_seeds(example.run.task, [item.result for item in members.values()], registry)
        if missing and mine:
            refused.append(Refused(label, f"seeds missing: {'; '.join(missing)}"))
        if missing:
            continue
        complete[key] = members
        if mine and _missing_seeds(example.run.task, [item.result for item in mine.values()], registry):
            rows[key] = {name: item for name, item in mine.items() if name not in there}
            if len(rows[key]) < len(mine):
                refused.append(Refused(label, "seeds that are published stay: a row is replaced as a whole"))
    written: list[Path] = []
    there_are = {_named(next(iter(members.values())).result) for members in complete.values()}
    for key, members in complete.items():
        example = next(iter(members.values())).result
        missing = _missing_protocols(example, there_are, registry)
        if missing and key in rows:
            refused.append(Refused(f"{example.run.task} {example.label}", f"protocols missing: {'; '.join(missing)}"))
        if missing:
            continue
        pictured = min(members.values(), key=lambda item: sorted(item.result.run.seeds.items()))
        written += [_copy(item, target, pictures=item is pictured) for item in rows.get(key, {}).values()]
    return written, refused


def _publishable(
    stored: Iterable[StoredResult], digest_of: dict[str, str | None]
) -> dict[tuple[str, ...], dict[str, StoredResult]]:
    """Return the results that may be published, the newest attempt by fingerprint, by row."""
    rows: dict[tuple[str, ...], dict[str, StoredResult]] = {}
    for item in sorted(stored, key=lambda i: (i.result.started, i.attempt)):
        result = item.result
        fits = (
            result.status == "ok"
            and result.run.split == "test"
            and result.run.max_steps is None
            and not result.run.weights
        )
        if fits and digest_of.get(result.fingerprint) == result.source_digest:
            rows.setdefault(row_key(result), {})[result.fingerprint] = item
    return rows


def is_pilot(result: Result) -> bool:
    """Return whether a result belongs to a pilot: validation split, an outermost seed that no table shows."""
    run, axes = result.run, result.definition.seed_axes
    return run.split == "val" and run.max_steps is None and run.seeds[axes[0]] >= FIRST_PILOT_SEED


def publish_pilots(stored: Iterable[StoredResult], target: Path) -> list[Path]:
    """Publish the pilots that seeds are planned by: of every finished run the newest attempt, without artifacts."""
    newest: dict[str, StoredResult] = {}
    for item in sorted(stored, key=lambda i: (i.result.started, i.attempt)):
        if item.result.status == "ok" and is_pilot(item.result):
            newest[item.result.fingerprint] = item
    return [_copy(item, target, pictures=False) for item in newest.values()]


def complete_rows(
    incoming: Sequence[StoredResult], published: Sequence[StoredResult], registry: Registry
) -> tuple[list[StoredResult], list[Refused]]:
    """Return the incoming results whose rows are complete, counting what is published, and the rows that are not.

    A row is one code's: results of another code never fill its gaps.
    """
    rows: dict[tuple[str, ...], list[StoredResult]] = {}
    for item in (*incoming, *published):
        rows.setdefault((*row_key(item.result), item.result.source_digest), []).append(item)
    new = {id(item) for item in incoming}
    kept: list[StoredResult] = []
    refused: list[Refused] = []
    for members in rows.values():
        mine = [item for item in members if id(item) in new]
        if not mine:
            continue
        example = mine[0].result
        try:
            finished = [item.result for item in members if item.result.status in FINISHED]
            missing = _missing_seeds(example.run.task, finished, registry)
            reason = f"seeds missing: {'; '.join(missing)}" if missing else ""
        except UserError as error:
            reason = str(error)
        if reason:
            refused.append(Refused(f"{example.run.task} {example.label}", reason))
        else:
            kept += mine
    return kept, refused


def row_key(result: Result) -> tuple[str, ...]:
    """Return what the results of one row share, and those of no other."""
    run = result.run
    data = ",".join(ref.hash for ref in run.data.values())
    return (run.task, str(sorted(run.protocol.items())), data, run.method, run.preset, run.row_config)


def _missing_seeds(name: str, results: list[Result], registry: Registry) -> list[str]:
    spec = registry.task(name)
    task = load_task(spec)
    ranges = [range(spec.published.seeds[axis]) for axis in task.seed_axes]
    have = {tuple(r.run.seeds.get(axis) for axis in task.seed_axes) for r in results}
    return [
        ", ".join(f"{axis} {seed}" for axis, seed in zip(task.seed_axes, combination, strict=True))
        for combination in itertools.product(*ranges)
        if combination not in have
    ]


def _named(result: Result) -> tuple[str, ...]:
    """Return what tells a row from others by name: a preset may give a method other settings at another protocol."""
    return (*row_key(result)[:-1], result.label)


def _missing_protocols(row: Result, rows: Container[tuple[str, ...]], registry: Registry) -> list[str]:
    """Return the published protocols at which the method of a row has none, if the row is at one of them itself.

    ``rows`` holds the names of those that there are, see `_named`.
    """
    run = row.run
    spec = registry.task(run.task)
    task = load_task(spec)
    dataset = run.data["test"].name
    changes = spec.published.changes(run.method)
    protocols = [protocol_of(task, run.preset, dataset, change)[0] for change in changes]
    if run.protocol not in protocols:
        return []
    return [
        ", ".join(f"{name}={value}" for name, value in change.items()) or "the preset's"
        for change, protocol in zip(changes, protocols, strict=True)
        if _named(row.model_copy(update={"run": run.model_copy(update={"protocol": protocol})})) not in rows
    ]


def _copy(item: StoredResult, target: Path, pictures: bool) -> Path:
    """Replace what is published under the same fingerprint; artifacts other than small pictures and sounds stay."""
    folder = result_folder(target, item.result.run)
    attempt = folder / "attempt-1"
    if item.path.resolve().is_relative_to(folder.resolve()):  # published from where it is published
        return item.path
    shutil.rmtree(folder, ignore_errors=True)
    attempt.mkdir(parents=True)
    kept = {}
    for name, artifact in item.result.artifacts.items():
        source = item.path.parent / artifact.path
        small = source.is_file() and source.stat().st_size <= _MAX_ARTIFACT_BYTES
        if pictures and small and source.suffix in _SHOWN:
            (attempt / artifact.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, attempt / artifact.path)
            kept[name] = artifact
    result = item.result.model_copy(update={"artifacts": kept})
    path = attempt / RESULT_FILE
    write_atomic(path, result.model_dump_json(indent=1).encode() + b"\n")
    return path
