"""Study files and grids of settings: the same runs as the options, and one line for what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchsuite.core.errors import ConfigError
from benchsuite.harness.settings import grid
from benchsuite.harness.study import read_study

STUDY = """\
# six rows of one method, and its opponent
tasks = ["toy-graph"]
methods = ["toy-student"]
seeds = 2
workers = 2
out = "found"

[settings]
"method.lr" = [0.1, 0.2, 0.3]
"method.kind" = ["plain", "noisy"]
"""


@dataclass(frozen=True)
class Config:
    lr: float = 0.1
    steps: int | None = None
    widths: tuple[int, ...] = (1,)
    name: str = ""


def test_a_study_of_two_by_three_settings_makes_six_rows_and_is_kept(cli: Any) -> None:
    (cli.folder / "study.toml").write_text(STUDY)
    done = cli("run", "study.toml")
    assert done.code == 0, done.err
    (table,) = cli("leaderboard", "--results", "found", "--json").json()
    rows = {row["label"]: row["n"] for row in table["rows"]}
    assert len(rows) == 7
    assert set(rows.values()) == {2}
    assert "toy-copy" in rows
    (kept,) = (cli.folder / "found/studies").iterdir()
    assert kept.read_text() == STUDY
    kept.rename(cli.folder / "again.toml")
    again = cli("run", "again.toml", "--json")
    assert again.err.count("stored before") == 14


def test_the_command_line_gives_the_same_runs_as_the_file(cli: Any) -> None:
    (cli.folder / "study.toml").write_text(STUDY)
    by_file: Any = cli("run", "study.toml", "--dry-run", "--json").json()
    grids = ("--set", "method.lr=0.1,0.2,0.3", "--set", "kind=plain,noisy")
    by_options: Any = cli(
        "run", "--task", "toy-graph", "--method", "toy-student", "--seeds", "2", *grids, "--dry-run", "--json"
    ).json()
    assert by_file == by_options
    assert len(by_file) == 14


def test_parts_add_to_what_is_shared_and_a_run_is_made_once(cli: Any) -> None:
    parts = """
tasks = ["toy-graph"]
methods = ["toy-copy"]
[[parts]]
seeds = [0, 3]
[[parts]]
methods = ["toy-student", "toy-copy"]
seeds = { run = 2 }
[parts.settings]
"task.teacher" = ["mean", "median"]
"""
    (cli.folder / "study.toml").write_text(parts)
    plan: Any = cli("run", "study.toml", "--dry-run", "--json").json()
    found = [(item["method"], item["protocol"]["teacher"], item["seeds"]["run"]) for item in plan]
    assert len(set(found)) == len(found)
    first = {("toy-copy", "mean", 0), ("toy-copy", "mean", 3)}
    second = {(m, t, s) for m in ("toy-copy", "toy-student") for t in ("mean", "median") for s in (0, 1)}
    assert set(found) == first | second


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("methods =", "metods =", "line 3: there is no key 'metods' - did you mean 'methods'?"),
        ("seeds = 2", "seeds = true", "line 4: seeds needs a whole number or a list or a table, not True"),
        ("seeds = 2", "seeds = 0", "line 4: --seeds 0 asks for no runs"),
        ("workers = 2", "workers = '2'", "line 5: workers needs a whole number, not '2'"),
        ('["toy-student"]', "[1]", "line 3: methods needs a list of names, not [1]"),
        ("workers = 2", "workers = ", "Invalid value (at line 5"),
        ("seeds = 2", "split = 'train'", "line 4: split 'train' is neither test nor val"),
        ("[settings]", "[[parts]]\nworkers = 3\n[parts.settings]", "line 5: 'workers' belongs outside of parts"),
        ("tasks =", "presets =", "a part names no tasks"),
    ],
)
def test_what_is_wrong_in_a_study_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(STUDY.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        read_study(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_study_says_what_carries_its_runs_and_the_command_may_say_otherwise(cli: Any) -> None:
    lines = 'executor = "rai"\nresubmit = 1\ngpus = "0"\n'
    (cli.folder / "study.toml").write_text(lines + STUDY)
    asked = read_study(cli.folder / "study.toml")
    assert (asked.executor, asked.resubmit, asked.gpus) == ("rai", 1, "0")
    done = cli("run", "study.toml")
    assert done.code == 2
    assert "--executor 'rai' - did you mean 'ray'?" in done.err
    (cli.folder / "study.toml").write_text(lines.replace('gpus = "0"\n', "") + STUDY)
    assert cli("run", "study.toml", "--executor", "local", "--dry-run").code == 0


def test_a_study_beside_options_that_say_what_to_run_is_refused(shared_cli: Any) -> None:
    done = shared_cli("run", "study.toml", "--task", "toy-graph")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "leave --task" in done.err
    assert "No such file" in shared_cli("run", "absent.toml").err


def test_what_is_a_value_and_what_are_several() -> None:
    assert grid({"lr": "0.1,0.2"}, Config) == [{"lr": "0.1"}, {"lr": "0.2"}]
    assert grid({"steps": "1, none"}, Config) == [{"steps": "1"}, {"steps": "none"}]
    assert grid({"widths": "1,2"}, Config) == [{"widths": "1,2"}]
    assert grid({"widths": [1, 2]}, Config) == [{"widths": [1, 2]}]
    assert grid({"widths": [[1, 2], [3]]}, Config) == [{"widths": [1, 2]}, {"widths": [3]}]
    assert grid({"name": "a,b"}, Config) == [{"name": "a,b"}]
    assert grid({"name": ["a,b", "c"]}, Config) == [{"name": "a,b"}, {"name": "c"}]
    assert grid({}, Config) == [{}]
    for nothing in ([], "0.1,,0.2"):
        with pytest.raises(ConfigError, match="names no value"):
            grid({"lr": nothing}, Config)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_a_grid_has_every_combination_once(rates: list[float], steps: list[int]) -> None:
    found = grid({"lr": rates, "steps": ",".join(map(str, steps))}, Config)
    assert [(item["lr"], int(item["steps"])) for item in found] == [(rate, step) for rate in rates for step in steps]
