"""The leaderboard of a folder of results: gather, build, write, check."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchsuite.core.claim import Reported, parse_reported, read_resource
from benchsuite.core.errors import UserError
from benchsuite.core.method import MethodSpec
from benchsuite.core.registry import Registry
from benchsuite.core.result import Result
from benchsuite.core.task import Presentation
from benchsuite.harness.identity import SourceDigests
from benchsuite.harness.store import StoredResult, find_result_files, read_results, without_collections, write_atomic
from benchsuite.leaderboard.claims import Verdict, claims_of, judge, usable
from benchsuite.leaderboard.render import render
from benchsuite.leaderboard.seed_plan import SeedPlan, plan_seeds
from benchsuite.leaderboard.tables import CurrentDigest, Table, build_tables


@dataclass(frozen=True)
class Leaderboard:
    """Everything a folder of results gives."""

    tables: list[Table]
    verdicts: list[Verdict]
    plans: list[SeedPlan]
    problems: list[str]
    files: dict[str, bytes]

    def only(self, tasks: Collection[str]) -> Leaderboard:
        """Return what concerns these tasks: ranks and verdicts stay those among all."""
        return Leaderboard(
            [table for table in self.tables if table.task in tasks],
            [verdict for verdict in self.verdicts if verdict.claim.task in tasks],
            [plan for plan in self.plans if plan.claim.task in tasks],
            self.problems,
            {name: content for name, content in self.files.items() if Path(name).stem in tasks},
        )


def build(roots: Iterable[Path], registry: Registry) -> Leaderboard:
    """Read all results below ``roots`` and make the tables, the verdicts and the files."""
    with without_collections():  # results stay, and are many
        stored, problems = read_results(find_result_files(roots))
        return build_from(stored, problems, registry)


def build_from(stored: Sequence[StoredResult], problems: list[str], registry: Registry) -> Leaderboard:
    """Make the leaderboard of results that are already read.

    A plugin whose claims or reported numbers cannot be read goes without them and adds to the problems.
    """
    tables = build_tables(stored, current_digests(registry), presentations(registry), fixed_data(registry))
    methods = sorted(registry.methods.values(), key=lambda m: m.name)
    claims, claim_problems = claims_of(methods)
    claims, metric_problems = usable(claims, tables)
    reported, reported_problems = reported_of(methods)
    verdicts = judge(claims, tables)
    plans = plan_seeds(claims, stored)
    files = render(tables, verdicts, reported, cards_of(methods), plans)
    return Leaderboard(
        tables, verdicts, plans, [*problems, *claim_problems, *metric_problems, *reported_problems], files
    )


def presentations(registry: Registry) -> dict[str, Presentation]:
    """Return how the tables of every known task show its metrics."""
    return {name: task.shown for name, task in registry.tasks.items()}


def fixed_data(registry: Registry) -> set[str]:
    """Return the names of the data sets whose items are the same for every seed."""
    return {spec.name for spec in registry.datasets.values() if not spec.embedded}


def current_digests(registry: Registry) -> CurrentDigest:
    """Return a function from a result to the digest that the present code would give it.

    None where task, method or data are not installed here; empty where their code cannot be followed.
    """
    digests = SourceDigests(registry)

    def digest(result: Result) -> str | None:
        run = result.run
        names = [ref.name for ref in run.data.values()]
        if (
            run.task not in registry.tasks
            or run.method not in registry.methods
            or any(name not in registry.datasets for name in names)
        ):
            return None
        try:
            return digests.of(registry.tasks[run.task], registry.methods[run.method], names, run.protocol).source
        except UserError:
            return ""

    return digest


def cards_of(methods: Iterable[MethodSpec]) -> dict[str, str]:
    """Return the addresses of cards from the folder of the tables: those of packages in a folder ``plugins``."""
    found = {}
    for method in methods:
        package, _, file = method.card.partition(":")
        spec = importlib.util.find_spec(package.partition(".")[0]) if file else None
        home = Path(spec.origin).parent if spec and spec.origin else None
        if home is not None and home.parent.name == "plugins":
            found[method.name] = f"../plugins/{home.name}/{file}"
    return found


def reported_of(methods: Iterable[MethodSpec]) -> tuple[list[Reported], list[str]]:
    """Return the numbers that the papers print, each file once, and a line for every file that cannot be used."""
    papers: dict[str, str] = {}
    for method in methods:
        if method.reported and (method.paper or method.reported not in papers):  # a row without paper names none
            papers[method.reported] = method.paper.title if method.paper else method.name
    numbers: list[Reported] = []
    problems = []
    for reference in sorted(papers):
        try:
            numbers += parse_reported(read_resource(reference), papers[reference], reference)
        except UserError as error:
            problems.append(str(error))
    return numbers, problems


def write(board: Leaderboard, out: Path) -> None:
    """Write the files below ``out``."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in board.files.items():
            write_atomic(out / name, content)
    except OSError as error:
        raise UserError(
            f"cannot write the tables to {out} ({error.strerror}): choose another folder with --out"
        ) from None


def differences(board: Leaderboard, out: Path) -> list[str]:
    """Return the names of files under ``out`` that are not what the results give."""
    wrong = []
    for name, content in sorted(board.files.items()):
        path = out / name
        if not path.is_file() or path.read_bytes() != content:
            wrong.append(name)
    return wrong
