"""Results are carried over to other code only where that provably gives the same numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

PLUGIN = """
from benchsuite.core import MethodSpec, hookimpl

@hookimpl
def benchsuite_methods():
    return [MethodSpec("moved", "1", ("toy-graph",), "moved_code.method:Moved")]
"""
METHOD = """
from skeletons.graph import Distiller

SIGN = 1

class Moved(Distiller):
    def distil(self, features, teacher, ctx):
        return SIGN * (teacher - 0.5)
"""


class Move:
    """A plugin with two measured seeds, and a copy of it as it then was."""

    def __init__(self, cli: Any) -> None:
        self.cli = cli
        cli.install("moved", PLUGIN)
        self.package = cli.plugins / "moved_code"
        self.package.mkdir()
        (self.package / "__init__.py").write_text("")
        self.method = self.package / "method.py"
        self.method.write_text(METHOD)
        self.measure("runs", "2")
        self.old = cli.folder / "old"
        shutil.copytree(cli.plugins, self.old / "plugins", symlinks=True)

    def measure(self, out: str, seeds: str) -> None:
        done = self.cli("run", "--task", "toy-graph", "--method", "moved", "--no-reference", "--seeds", seeds,
                        "--out", out)  # fmt: skip
        assert done.code == 0, done.err

    def carry(self, *more: str) -> Any:
        return self.cli("results", "carry", "old", "--results", "runs", *more)

    def stored(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted((self.cli.folder / "runs").rglob("result.json"))]


@pytest.fixture
def move(cli: Any) -> Move:
    return Move(cli)


def test_moved_definitions_carry_their_results(move: Move) -> None:
    (move.package / "numbers.py").write_text("SIGN: int = 1  # moved")
    move.method.write_text(METHOD.replace("SIGN = 1", "from moved_code.numbers import SIGN"))
    before = move.stored()
    assert "2 current already" in move.carry().out  # the digest of definitions does not see where they stand
    assert move.stored() == before


def test_a_digest_of_another_kind_is_carried_where_the_definitions_agree(move: Move) -> None:
    """As if the old checkout had computed its digest in another way."""
    for path in (move.cli.folder / "runs").rglob("result.json"):
        path.write_text(path.read_text().replace(json.loads(path.read_text())["source_digest"], "0" * 64))
    (move.old / "sitecustomize.py").write_text(
        "from benchsuite.leaderboard import build\nbuild.current_digests = lambda registry: lambda result: '0' * 64\n"
    )
    done = move.carry()
    assert done.out == "2 carried over, 0 current already, 0 refused\n"
    assert done.code == 0
    for result in move.stored():
        assert result["source_digest"] != "0" * 64
        assert result["carried"] == [{"from_digest": "0" * 64, "proof": "the definitions are the same"}]
    move.measure("runs", "2")
    assert len(move.stored()) == 2  # they count: nothing was measured again
    assert move.carry().out == "0 carried over, 2 current already, 0 refused\n"


def test_other_definitions_need_a_seed_measured_with_both(move: Move) -> None:
    shutil.copytree(move.cli.folder / "runs", move.cli.folder / "before")
    move.method.write_text(METHOD.replace("(teacher - 0.5)", "(teacher - 0.25 - 0.25)"))
    refused = move.carry()
    assert refused.code == 1
    assert refused.err.count("the definitions differ and no seed was measured with both") == 2

    move.measure("after", "1,")
    done = move.carry("--before", "before", "--after", "after")
    assert done.out == "2 carried over, 0 current already, 0 refused\n"
    proofs = {result["carried"][0]["proof"] for result in move.stored()}
    assert proofs == {"run 1, measured with both codes on one machine, gives the same bit for bit"}


def test_a_seed_that_differs_refuses_its_row(move: Move) -> None:
    shutil.copytree(move.cli.folder / "runs", move.cli.folder / "before")
    move.method.write_text(METHOD.replace("SIGN = 1", "SIGN = -1"))
    move.measure("after", "1,")
    before = move.stored()
    done = move.carry("--before", "before", "--after", "after")
    assert done.code == 1
    assert "run 1, measured with both codes: accuracy is " in done.err
    assert move.stored() == before


def test_results_of_yet_another_code_are_refused(move: Move) -> None:
    (path, _) = sorted((move.cli.folder / "runs").rglob("result.json"))
    path.write_text(path.read_text().replace(json.loads(path.read_text())["source_digest"], "f" * 64))
    done = move.carry()
    assert done.out == "0 carried over, 1 current already, 1 refused\n"
    assert "was not made by the code of that checkout" in done.err


def test_a_folder_that_is_no_checkout_is_one_line(move: Move, tmp_path: Path) -> None:
    assert "is not a folder" in move.cli("results", "carry", "nowhere").err
