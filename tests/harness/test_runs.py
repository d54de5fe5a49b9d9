"""Runs through the command line: storing, repeating, resuming."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchsuite.core.config import Preset
from benchsuite.core.task import Publication
from benchsuite.harness import publish as publishing
from benchsuite.harness.store import StoredResult

RUN = ("run", "--task", "toy-graph", "--method", "toy-student")


def scores(done: Any) -> dict[tuple[str, int], dict[str, float]]:
    assert done.code == 0, done.err
    return {(r["run"]["method"], r["run"]["seeds"]["run"]): r["scores"] for r in done.json()}


def test_json_is_one_array_of_results_and_nothing_else(cli: Any) -> None:
    done = cli(*RUN, "--json")
    results = done.json()
    assert [r["run"]["method"] for r in results] == ["toy-student", "toy-copy"]
    for result in results:
        assert {"task", "protocol", "data", "method", "preset", "seeds"} <= result["run"].keys()
        assert result["status"] == "ok"
        assert len(result["fingerprint"]) == 64
        assert 0.0 <= result["scores"]["accuracy"] <= 1.0
    again = cli(*RUN, "--json")
    assert again.json() == results
    assert again.err.count("stored before (ok)") == 2


def test_the_same_seed_gives_the_same_scores_bit_for_bit(cli: Any) -> None:
    first = scores(cli(*RUN, "--seeds", "4", "--json", "--out", "a"))
    warm = scores(cli(*RUN, "--seeds", "4", "--json", "--out", "b", "--workers", "2"))
    assert cli("cache", "clear").code == 0
    cold = scores(cli(*RUN, "--seeds", "4", "--json", "--out", "c", "--workers", "2"))
    assert first == warm == cold
    assert len({values["accuracy"] for (method, _), values in first.items() if method == "toy-student"}) > 1


def test_a_shared_step_is_built_once_and_charged_to_all(cli: Any) -> None:
    results = cli(*RUN, "--json").json()
    charged = [r["timings"]["cached:toy-teacher"] for r in results]
    assert charged[0] == charged[1]
    assert charged[0]["shared"] is True
    usage: Any = cli("cache", "info", "--json").json()
    assert usage["steps"]["toy-teacher"]["entries"] == 1


PLUGIN = """
from benchsuite.core import MethodSpec, hookimpl

@hookimpl
def benchsuite_methods():
    return [MethodSpec("edited", "1", ("toy-graph",), "edited_method:Edited")]
"""
METHOD = """
from skeletons.graph import Distiller
from edited_numbers import SIGN

class Edited(Distiller):
    def distil(self, features, teacher, ctx):
        return SIGN * (teacher - 0.5)
"""


def test_editing_the_source_measures_again_and_changing_it_back_counts_the_old_result(cli: Any) -> None:
    cli.install("edited", PLUGIN)
    method = cli.plugins / "edited_method.py"
    method.write_text(METHOD.replace("from edited_numbers import SIGN", "SIGN = 1"))
    command = ("run", "--task", "toy-graph", "--method", "edited", "--no-reference", "--json")

    (before,) = cli(*command).json()
    original = method.read_text()
    method.write_text(original.replace("SIGN = 1", "SIGN = -1"))
    (after,) = cli(*command).json()
    assert after["fingerprint"] == before["fingerprint"]
    assert after["source_digest"] != before["source_digest"]
    assert after["scores"]["accuracy"] == pytest.approx(1 - before["scores"]["accuracy"])

    stored: Any = cli("results", "list", "--json").json()
    assert [item["attempt"] for item in stored] == [1, 2]
    (table,) = cli("leaderboard", "--json").json()
    assert [row["scores"]["accuracy"]["mean"] for row in table["rows"]] == [after["scores"]["accuracy"]]

    method.write_text(original)
    back = cli(*command)
    assert back.json() == [before]
    assert "stored before" in back.err
    (table,) = cli("leaderboard", "--json").json()
    assert [row["scores"]["accuracy"]["mean"] for row in table["rows"]] == [before["scores"]["accuracy"]]
    assert table["rows"][0]["stale"] is False

    method.write_text(original.replace("SIGN = 1", "SIGN = 0"))
    (table,) = cli("leaderboard", "--json").json()
    assert table["rows"][0]["stale"] is True
    assert table["rows"][0]["rank"] is None


def test_settings_make_rows_of_their_own(cli: Any) -> None:
    cli(*RUN)
    cli(*RUN, "--set", "method.lr=0.01", "--set", "kind=noisy")
    (table,) = cli("leaderboard", "--json").json()
    labels = {row["label"] for row in table["rows"]}
    assert labels == {"toy-student", "toy-student[lr=0.01, kind=noisy]", "toy-copy"}


def test_a_task_setting_makes_a_table_of_its_own(cli: Any) -> None:
    cli(*RUN)
    cli(*RUN, "--set", "teacher=median")
    tables = cli("leaderboard", "--json").json()
    assert sorted(table["protocol"]["teacher"] for table in tables) == ["mean", "median"]
    results: Any = cli(*RUN, "--set", "teacher=median", "--json").json()
    assert results[0]["protocol_changes"] == {"teacher": "median"}


def test_force_adds_an_attempt_and_keeps_the_old_one(cli: Any) -> None:
    cli(*RUN, "--no-reference")
    first = next(cli.folder.glob("runs/*/*/*/*/attempt-1/result.json"))
    content = first.read_bytes()
    cli(*RUN, "--no-reference", "--force")
    assert first.read_bytes() == content
    assert (first.parent.parent / "attempt-2" / "result.json").is_file()


def test_rerun_measures_the_same_again(cli: Any) -> None:
    (before,) = cli(*RUN, "--no-reference", "--set", "lr=0.3", "--json").json()
    (after,) = cli("rerun", before["fingerprint"][:12], "--json").json()
    assert after["fingerprint"] == before["fingerprint"]
    assert after["scores"] == before["scores"]
    assert after["label"] == "toy-student[lr=0.3]"
    assert len(cli("results", "list", "--json").json()) == 2


def test_truncated_and_validation_results_never_reach_a_table(cli: Any) -> None:
    done = cli(*RUN, "--no-reference", "--max-steps", "2")
    assert done.code == 0
    assert "truncated, not on a leaderboard" in done.out
    cli(*RUN, "--no-reference", "--split", "val")
    assert "no results" in cli("leaderboard").err


def test_dry_run_runs_nothing(cli: Any) -> None:
    done = cli(*RUN, "--seeds", "2", "--dry-run")
    assert done.out.count("toy-student") == 2
    assert not (cli.folder / "runs").exists()
    plan: Any = cli(*RUN, "--dry-run", "--json").json()
    assert [item["method"] for item in plan] == ["toy-student", "toy-copy"]


def test_runs_of_one_outer_seed_do_not_start_side_by_side(cli: Any) -> None:
    plan: Any = cli(
        "run",
        "--task",
        "toy-fewshot",
        "--method",
        "toy-tuner",
        "--no-reference",
        "--seeds",
        "base=2",
        "--seeds",
        "shots=0,5",
        "--dry-run",
        "--json",
    ).json()
    assert [item["seeds"] for item in plan] == [
        {"base": 0, "shots": 0},
        {"base": 1, "shots": 0},
        {"base": 0, "shots": 5},
        {"base": 1, "shots": 5},
    ]


def test_train_and_test_data_may_differ(cli: Any) -> None:
    beats = cli.folder / "mine" / "beats"
    beats.mkdir(parents=True)
    (beats / "r1.txt").write_text("0.8\n1.6\n2.4\n")
    arguments = ("run", "--task", "toy-signal", "--dataset", "toy-recorded-beats", "--data-root", "mine", "--json")
    results: Any = cli(*arguments).json()
    assert {role: ref["name"] for role, ref in results[0]["run"]["data"].items()} == {
        "train": "toy-generated-beats",
        "test": "toy-recorded-beats",
    }
    assert results[0]["tables"]["records"][0]["record"] == "r1"
    assert (cli.folder / "runs/toy-signal/toy-generated-beats-to-toy-recorded-beats").is_dir()
    (beats / "r1.txt").write_text("0.8\n1.6\n2.5\n")
    other: Any = cli(*arguments).json()
    assert other[0]["fingerprint"] != results[0]["fingerprint"]
    (beats / "r1.txt").write_text("no number")
    broken = cli(*arguments)
    assert broken.code == 1
    assert "r1.txt: not a list of beat times" in broken.err
    assert "log: " in broken.err


def test_two_ranks_train_inside_one_isolated_run(cli: Any) -> None:
    pytest.importorskip("torch")
    results: Any = cli("run", "--task", "toy-parallel", "--json").json()
    assert results[0]["status"] == "ok"
    assert results[0]["scores"]["consensus_distance"] == 0.0
    assert results[0]["scores"]["error"] < 0.1


def test_results_from_python(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import benchsuite\n"
        "frame = benchsuite.run('toy-graph', 'toy-student', seeds=2, settings={'method.lr': 0.2})\n"
        "print(frame[['method', 'seed_run', 'score_accuracy']].to_json(orient='records'))\n"
        "print(len(benchsuite.load_results('runs')))\n"
    )
    (cli.folder / "script.py").write_text(script)
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "script.py"], cwd=cli.folder, env=cli.full_environment(), capture_output=True, text=True
    )
    frame, count = done.stdout.splitlines()
    assert {(row["method"], row["seed_run"]) for row in json.loads(frame)} == {
        ("toy-student", 0),
        ("toy-student", 1),
        ("toy-copy", 0),
        ("toy-copy", 1),
    }
    assert count == "4"


def test_results_show_compare_validate(cli: Any) -> None:
    results: Any = cli(*RUN, "--json").json()
    first, second = (r["fingerprint"][:10] for r in results)
    assert "source_digest" in cli("results", "show", first).out
    differences: Any = cli("results", "compare", first, second, "--json").json()
    assert "run.method" in {row["field"] for row in differences}
    assert cli("results", "validate", "runs").code == 0
    path = next(cli.folder.glob("runs/*/*/*/*/attempt-1/result.json"))
    content = json.loads(path.read_text())
    content["scores"]["accuracy"] = 7.0
    path.write_text(json.dumps(content))
    done = cli("results", "validate", "runs")
    assert done.code == 1
    assert "score 'accuracy' is 7, not a fraction" in done.out


def test_publish_takes_complete_rows_only(cli: Any) -> None:
    cli(*RUN, "--seeds", "1")
    done = cli("results", "publish")
    assert done.code == 1
    assert "not published: toy-graph toy-student: seeds missing: run 1; run 2" in done.err
    cli(*RUN, "--seeds", "3")
    assert cli("results", "publish").code == 0
    published = sorted(cli.folder.glob("leaderboards/results/**/result.json"))
    assert len(published) == 6
    content = {path: path.read_bytes() for path in published}
    assert cli("leaderboard").code == 0
    assert cli("leaderboard", "--check").code == 0
    cli("run", "--task", "toy-graph", "--method", "toy-student", "--seeds", "1", "--out", "other")
    told = cli("results", "publish", "--results", "other")
    assert told.code == 1
    assert "toy-graph toy-student: seeds that are published stay: a row is replaced as a whole" in told.err
    assert {path: path.read_bytes() for path in published} == content


def test_what_is_published_is_planned_on_all_its_data(cli: Any) -> None:
    cli.install(
        "two_rings",
        "from benchsuite.core import DatasetSpec, MethodSpec, Publication, TaskSpec, hookimpl\n"
        "PLACE = 'skeletons.graph:'\n"
        "@hookimpl\ndef benchsuite_tasks():\n"
        "    plan = Publication({'run': 2}, data=('ring-a', 'ring-b'))\n"
        "    return [TaskSpec('two-rings', 'two rings', 'two_rings_task:TwoRings', published=plan)]\n"
        "@hookimpl\ndef benchsuite_datasets():\n"
        "    kind, load = PLACE + 'Ring', PLACE + 'load_ring'\n"
        "    return [DatasetSpec(f'ring-{n}', '1', kind, load, embedded=True) for n in 'ab']\n"
        "@hookimpl\ndef benchsuite_methods():\n"
        "    return [MethodSpec('two-copy', '1', ('two-rings',), PLACE + 'Copy')]\n",
    )
    (cli.plugins / "two_rings_task.py").write_text(
        "from skeletons.graph import GraphTask\n"
        "class TwoRings(GraphTask):\n"
        "    name, reference, default_data = 'two-rings', 'two-copy', 'ring-a'\n"
    )

    def data_of(*arguments: str) -> list[tuple[str, str]]:
        done = cli("run", "--task", "two-rings", "--dry-run", "--json", *arguments)
        assert done.code == 0, done.err
        return [(item["data"]["test"]["name"], item["seeds"]["run"]) for item in done.json()]

    assert data_of("--all") == [(name, seed) for name in ("ring-a", "ring-b") for seed in (0, 1)]
    assert data_of() == [("ring-a", 0)]


def test_publish_takes_rows_that_are_at_every_published_protocol(make_result: Any, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Protocol:
        shots: int = 1

    task = SimpleNamespace(
        name="a-task",
        Protocol=Protocol,
        presets={"embedded": Preset()},
        seed_axes=("run",),
    )
    plan = Publication(seeds={"run": 2}, protocols=({}, {"shots": 5}), without={"slow": ({"shots": 5},)})

    def made(*rows: tuple[str, int, int]) -> list[StoredResult]:
        results = [  # with settings that the preset changes with the protocol
            make_result(method=method, protocol={"shots": shots}, config={"steps": 10 * shots}, seeds={"run": seed})
            for method, shots, seeds in rows
            for seed in range(seeds)
        ]
        return [StoredResult(result, tmp_path / "runs" / "result.json") for result in results]

    def labels(
        *rows: tuple[str, int, int], there: tuple[tuple[str, int, int], ...] = ()
    ) -> tuple[set[tuple[str, int]], set[tuple[str, str]]]:
        """Publish rows of so many shots and seeds; return what was published, and what was refused and why."""
        stored, present = made(*rows), made(*there)
        registry: Any = SimpleNamespace(task=lambda name: SimpleNamespace(load="a-task", published=plan))
        digests = {i.result.fingerprint: i.result.source_digest for i in (*stored, *present)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(publishing, "load_task", lambda spec: task)
            written, refused = publishing.publish(stored, tmp_path / "published", registry, digests, present)
        published = [json.loads(path.read_text())["run"] for path in written]
        return (
            {(run["method"], run["protocol"]["shots"]) for run in published},
            {(item.label, item.reason) for item in refused},
        )

    both, one = ("both", 1, 2), ("one", 1, 2)
    assert labels(both, ("both", 5, 2)) == ({("both", 1), ("both", 5)}, set())
    assert labels(one) == (set(), {("a-task one", "protocols missing: shots=5")})
    assert labels(("one", 5, 2)) == (set(), {("a-task one", "protocols missing: the preset's")})
    assert labels(one, ("one", 5, 1))[1] == {
        ("a-task one", "protocols missing: shots=5"),
        ("a-task one", "seeds missing: run 1"),
    }
    assert labels(("own", 3, 2)) == ({("own", 3)}, set())  # a protocol of the user's own stands alone
    assert labels(("slow", 1, 2)) == ({("slow", 1)}, set())  # planned without the other protocol
    # What is published already counts, row by row, and is not written again.
    assert labels(("one", 5, 2), there=(one,)) == ({("one", 5)}, set())
    assert labels(one, there=(("other", 5, 2),))[1] == {("a-task one", "protocols missing: shots=5")}
    assert labels(one, there=(("one", 5, 1),)) == (set(), {("a-task one", "protocols missing: shots=5")})


def test_publish_takes_the_pictures_of_a_rows_first_run(cli: Any) -> None:
    assert cli("run", "--task", "toy-fewshot", "--method", "toy-frozen", "--seeds", "2", "--seeds", "shots=3").code == 0
    assert cli("results", "publish").code == 0
    kept = {}
    for path in cli.folder.glob("leaderboards/results/**/result.json"):
        result = json.loads(path.read_text())
        assert set(result["artifacts"]) == {p.name for p in path.parent.glob("artifacts/*")}
        kept[tuple(result["run"]["seeds"].values())] = set(result["artifacts"])
    assert kept.pop((0, 0)) == {"sheet.png"}
    assert len(kept) == 5
    before = {path: path.read_bytes() for path in cli.folder.glob("leaderboards/results/**/*.*")}
    assert cli("results", "publish", "--results", "leaderboards/results").code == 0  # from where it is published
    assert {path: path.read_bytes() for path in cli.folder.glob("leaderboards/results/**/*.*")} == before


def test_seeds_that_are_published_need_not_be_measured_again(cli: Any) -> None:
    first = ("run", "--task", "toy-fewshot", "--method", "toy-frozen", "--seeds", "shots=3", "--seeds")
    assert cli(*first, "2").code == 0
    assert cli("results", "publish").code == 0
    for path in list(cli.folder.glob("leaderboards/results/**/result.json")):
        if json.loads(path.read_text())["run"]["seeds"]["base"] == 1:  # as if it had not been measured
            shutil.rmtree(path.parent)
    assert cli(*first, "1,", "--out", "later").code == 0
    told = cli("results", "publish", "--results", "later")
    assert (told.code, told.out.split(" results")[0]) == (0, "3")
    assert len(list(cli.folder.glob("leaderboards/results/**/sheet.png"))) == 1
    assert len(list(cli.folder.glob("leaderboards/results/**/result.json"))) == 6


def test_publish_leaves_large_pictures_where_they_are(cli: Any) -> None:
    assert cli("run", "--task", "toy-fewshot", "--method", "toy-frozen", "--seeds", "2", "--seeds", "shots=3").code == 0
    for picture in cli.folder.glob("runs/**/sheet.png"):
        picture.write_bytes(picture.read_bytes() + bytes(500_001))  # what everybody would clone
    assert cli("results", "publish").code == 0
    results = [json.loads(path.read_text()) for path in cli.folder.glob("leaderboards/results/**/result.json")]
    assert len(results) == 6
    assert not any(result["artifacts"] for result in results)
    assert not list(cli.folder.glob("leaderboards/results/**/*.png"))


def test_merging_keeps_everything_and_tells_conflicts(cli: Any) -> None:
    cli(*RUN, "--no-reference", "--out", "here")
    cli(*RUN, "--no-reference", "--out", "there", "--seeds", "2")
    merge = ("leaderboard", "--results", "here", "--merge", "there")
    done = cli(*merge)
    assert "merged into here: 2 results added, 0 known already" in done.err
    assert "0 results added, 2 known already" in cli(*merge).err
    path = min(cli.folder.glob("there/**/result.json"))
    content = json.loads(path.read_text())
    content["scores"]["accuracy"] = 0.123
    path.write_text(json.dumps(content))
    before = {p: p.read_bytes() for p in cli.folder.glob("here/**/result.json")}
    done = cli(*merge)
    assert "1 results added" in done.err
    assert "disagree" in done.out
    assert {p: p.read_bytes() for p in before} == before
    assert "there is no such folder" in cli("leaderboard", "--merge", "nowhere").err


def test_merging_into_the_published_results_takes_complete_rows_only(cli: Any) -> None:
    cli(*RUN, "--seeds", "3")
    cli("results", "publish")
    cli("leaderboard")
    before = {p: p.read_bytes() for p in cli.folder.glob("leaderboards/**/*") if p.is_file()}
    for path in cli.folder.glob("runs/**/result.json"):  # one seed, as if of newer code
        content = json.loads(path.read_text())
        if content["run"]["seeds"] == {"run": 0}:
            content["source_digest"] = "f" * 64
            place = cli.folder / "other" / path.relative_to(cli.folder / "runs")
            place.parent.mkdir(parents=True)
            place.write_text(json.dumps(content))
    done = cli("leaderboard", "--merge", "other")
    assert done.code == 0
    assert "not merged: toy-graph toy-student: seeds missing: run 1; run 2" in done.err
    assert "0 results added" in done.err
    assert {p: p.read_bytes() for p in before} == before
    assert len(list(cli.folder.glob("leaderboards/results/**/result.json"))) == 6
    assert "6 results added" in cli("leaderboard", "--results", "elsewhere", "--merge", "runs").err


def test_a_number_of_seeds_that_may_be_meant_as_one_is_noted(cli: Any) -> None:
    many = cli("run", "--task", "toy-graph", "--split", "val", "--seeds", "run=100", "--dry-run")
    assert many.err == "note: --seeds run=100 asks for 100 seeds; seed 100 alone is 'run=100,'\n"
    assert many.out.count("toy-copy") == 100
    one = cli("run", "--task", "toy-graph", "--split", "val", "--seeds", "run=100,", "--dry-run")
    assert (one.err, one.out.count("toy-copy")) == ("", 1)


def test_all_runs_every_task_at_its_published_seeds(cli: Any) -> None:
    plan: Any = cli("run", "--all", "--dry-run", "--json").json()
    seeds = {(item["seeds"]["base"], item["seeds"]["shots"]) for item in plan if item["method"] == "toy-tuner"}
    assert seeds == {(b, s) for b in range(2) for s in range(3)}
    assert "toy-stamp" in {item["method"] for item in plan}
    narrowed: Any = cli("run", "--all", "--task", "toy-fewshot", "--dry-run", "--json").json()
    assert narrowed == [item for item in plan if item["task"] == "toy-fewshot"]
    assert "leave --dataset out" in cli("run", "--all", "--dataset", "toy-points").err


def test_all_runs_a_task_at_every_published_protocol(cli: Any) -> None:
    pytest.importorskip("torch")
    plan: Any = cli("run", "--all", "--dry-run", "--json").json()
    parallel = [
        (item["protocol"]["world_size"], item["seeds"]["run"]) for item in plan if item["task"] == "toy-parallel"
    ]
    assert sorted(parallel) == [(ranks, seed) for ranks in (2, 3) for seed in range(3)]
    narrowed: Any = cli("run", "--all", "--set", "task.world_size=4", "--dry-run", "--json").json()
    parallel = [item for item in narrowed if item["task"] == "toy-parallel"]
    assert [(item["protocol"]["world_size"], item["seeds"]["run"]) for item in parallel] == [(4, 0), (4, 1), (4, 2)]
    named: Any = cli(
        "run", "--all", "--task", "toy-parallel", "--method", "toy-allreduce", "--dry-run", "--json"
    ).json()
    assert {item["protocol"]["world_size"] for item in named} == {2, 3, 5}  # left out of the plan, not forbidden
    one: Any = cli("run", "--task", "toy-parallel", "--dry-run", "--json").json()
    assert [item["protocol"]["world_size"] for item in one] == [2]


def test_data_and_info_commands(shared_cli: Any) -> None:
    assert "toy-ring" in shared_cli("data", "list").out
    assert "beats/RECORD.txt" in shared_cli("data", "info", "toy-recorded-beats").out
    assert "readable, hash" in shared_cli("data", "verify", "toy-ring").out
    task: Any = shared_cli("info", "toy-fewshot", "--json").json()
    assert task["seed axes"] == ["base", "shots"]
    assert "published protocols" not in task
    method: Any = shared_cli("info", "toy-student", "--json").json()
    assert method["settings (embedded)"] == {"lr": 0.5, "steps": 30, "kind": "plain"}
    assert shared_cli("doctor").out.startswith("ok      benchsuite")


def test_info_says_at_which_protocols_a_task_is_published(shared_cli: Any) -> None:
    pytest.importorskip("torch")
    parallel: Any = shared_cli("info", "toy-parallel", "--json").json()
    without = "world_size=5 (without toy-allreduce)"
    assert parallel["published protocols"] == ["the preset's", "world_size=3", without]
