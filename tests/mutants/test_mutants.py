"""Deliberate faults: each switches one mechanism off, and names the fast test that must notice.

That every fault has its place and its test is checked always, that the test notices it with ``--slow``.

One TOML file a paper (or part of the suite) beside this module:

    [[mutation]]
    what = "poisoned images keep their label"
    file = "plugins/benchsuite_doorping/method.py"
    old = "real.labels[real.poisoned] = self.protocol.target_class"
    new = "pass"
    test = "tests/plugins/test_doorping.py::test_poisoned_images_take_the_target_class"
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
_COPIED = ("benchsuite", "plugins", "tests", "pyproject.toml", "README.md", "leaderboards")
_LIBRARIES = (
    "torch",
    "torch._dynamo",
    "transformers",
    "scipy.optimize",
    "scipy.signal",
    "pandas",
    "hypothesis",
    "hotcoco",
)
_NOT_COPIED = shutil.ignore_patterns("__pycache__", "results", ".*")


@dataclass(frozen=True)
class Mutation:
    """One fault: ``old`` stands exactly once in ``file`` and becomes ``new``; ``test`` must then fail."""

    what: str
    file: str
    old: str
    new: str
    test: str

    def mutated(self, root: Path) -> str:
        """Return the text of the file with the fault."""
        return (root / self.file).read_text().replace(self.old, self.new, 1)


def mutations() -> dict[str, Mutation]:
    """Return all mutations, named by their file and what they do."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["mutation"]:
            mutation = Mutation(**entry)
            name = f"{path.stem}: {mutation.what}"
            if name in found:
                raise ValueError(f"two mutations are called {name!r}")
            found[name] = mutation
    return found


def copy_tree(target: Path) -> None:
    """Copy what the tests need, so that the faults stay out of the working tree."""
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=_NOT_COPIED)
        else:
            shutil.copy(source, target / name)


class Forks:
    """Runs single tests on a copy of the tree, each in a fork of one process (`forks`)."""

    def __init__(self, tree: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree), str(tree / "plugins")])}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        environment.pop("CI", None)  # there pytest works out whole differences: an hour for two lists of some hundred
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "forks.py"), str(tree), *_LIBRARIES],
            cwd=tree,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, test: str) -> tuple[int, str]:
        """Return pytest's exit status and output."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(test, file=self._server.stdin, flush=True)
        status, _, output = self._server.stdout.readline().partition(" ")
        return int(status), json.loads(output)

    def close(self) -> None:
        self._server.communicate()


MUTATIONS = mutations()
ALL = pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)


@ALL
def test_a_mutation_has_its_place_and_its_test(mutation: Mutation) -> None:
    text = (ROOT / mutation.file).read_text()
    assert text.count(mutation.old) == 1, "the old text must occur exactly once"
    ast.parse(mutation.mutated(ROOT))
    file, *names = mutation.test.partition("[")[0].split("::")
    scope: ast.AST = ast.parse((ROOT / file).read_text())
    for name in names:
        found = [node for node in ast.iter_child_nodes(scope) if getattr(node, "name", None) == name]
        assert len(found) == 1, f"{file} has no {name}"
        scope = found[0]
    assert not any("slow" in ast.unparse(mark) for mark in getattr(scope, "decorator_list", ())), "a fast test"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutants")
    copy_tree(folder)
    return folder


@pytest.fixture(scope="module")
def run(tree: Path) -> Iterator[Callable[[str], tuple[int, str]]]:
    forks = Forks(tree)
    yield forks
    forks.close()


@pytest.fixture(scope="module")
def passes(run: Callable[[str], tuple[int, str]]) -> Callable[[str], bool]:
    """Return whether a test passes without any fault; each is run once."""
    known: dict[str, bool] = {}

    def of(test: str) -> bool:
        if test not in known:
            known[test] = run(test)[0] == 0
        return known[test]

    return of


@pytest.mark.slow
@pytest.mark.xdist_group("mutants")
@ALL
def test_the_test_notices(
    mutation: Mutation, tree: Path, run: Callable[[str], tuple[int, str]], passes: Callable[[str], bool]
) -> None:
    assert passes(mutation.test), "the test must pass without the fault"
    file = tree / mutation.file
    whole = file.read_text()
    file.write_text(mutation.mutated(tree))
    try:
        status, output = run(mutation.test)
    finally:
        file.write_text(whole)
    assert status == 1, f"nobody noticed: {mutation.what}\n{output[-2000:]}"
