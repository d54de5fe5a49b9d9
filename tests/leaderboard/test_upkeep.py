"""Stored results: removed, shown for some tasks, told apart by their data, and of methods that are not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchsuite.core.result import DataRef, Failure
from benchsuite.harness.store import StoredResult
from benchsuite.leaderboard.cells import footnotes
from benchsuite.leaderboard.tables import build_tables

RUN = ("run", "--task", "toy-graph", "--method", "toy-student")


def stored(*results: Any) -> list[StoredResult]:
    return [StoredResult(r, Path(f"/x/{i}/attempt-{i + 1}/result.json")) for i, r in enumerate(results)]


def test_remove_takes_what_is_named_whole_and_nothing_else(cli: Any) -> None:
    cli(*RUN, "--seeds", "2")
    cli(*RUN, "--force", "--no-reference")
    listed: Any = cli("results", "list", "--json").json()
    (name,) = {item["fingerprint"] for item in listed if item["attempt"] == 2}
    assert "2 results would be removed" in cli("results", "remove", name[:10], "--dry-run").out
    assert len(cli("results", "list", "--json").json()) == len(listed) == 5
    assert "2 results removed" in cli("results", "remove", name[:10]).out
    assert {item["fingerprint"] for item in cli("results", "list", "--json").json()} == {
        item["fingerprint"] for item in listed
    } - {name}
    assert list(cli.folder.glob(f"runs/*/*/*/{name[:16]}")) == []
    assert "0 results removed" in cli("results", "remove", "--stale").out
    for item in cli("results", "list", "--json").json():
        cli("results", "remove", item["fingerprint"])
    assert list(cli.folder.glob("runs/*")) == []


def test_remove_takes_failed_attempts_and_those_of_other_code(cli: Any) -> None:
    plugin = """
from benchsuite.core import MethodSpec, hookimpl
from skeletons.graph import Distiller

class Edited(Distiller):
    def distil(self, features, teacher, ctx):
        return 1 * teacher

class Broken(Distiller):
    def distil(self, features, teacher, ctx):
        raise ValueError("no")

@hookimpl
def benchsuite_methods():
    return [MethodSpec(name.lower(), "1", ("toy-graph",), f"edited:{name}") for name in ("Edited", "Broken")]
"""
    cli.install("edited", plugin)
    cli("run", "--task", "toy-graph", "--method", "edited", "--method", "broken")
    pilot = ("run", "--task", "toy-graph", "--method", "edited", "--no-reference", "--split", "val", "--seeds", "100,")
    published = ("--results", "leaderboards/results")
    cli(*pilot, "--out", "leaderboards/results")
    assert "1 results removed" in cli("results", "remove", "--failed").out
    assert "0 results removed" in cli("results", "remove", "--stale", "--task", "toy-graph").out
    (cli.plugins / "edited.py").write_text(plugin.replace("1 * teacher", "2 * teacher"))
    assert "0 results removed" in cli("results", "remove", "--stale", "--task", "toy-signal").out
    assert "1 results removed" in cli("results", "remove", "--stale").out
    assert "0 results removed" in cli("results", "remove", "--stale", *published).out  # seeds were planned by it
    (kept,) = cli("results", "list", "--json", *published).json()
    assert "1 results removed" in cli("results", "remove", kept["fingerprint"], *published).out
    (left,) = cli("results", "list", "--json").json()
    assert left["label"] == "toy-copy"


def test_remove_refuses_a_file_that_does_not_lie_in_a_store(cli: Any) -> None:
    cli(*RUN, "--no-reference")
    (file,) = cli.folder.glob("runs/**/result.json")
    (cli.folder / "mine").mkdir()
    (cli.folder / "mine/result.json").write_bytes(file.read_bytes())
    (cli.folder / "mine/thesis.txt").write_text("years of work")
    (item,) = cli("results", "list", "--json").json()
    done = cli("results", "remove", item["fingerprint"], "--results", "mine")
    assert done.code == 2
    assert "does not lie in a store" in done.err
    assert (cli.folder / "mine/thesis.txt").is_file()


def test_tables_claims_and_pages_of_one_task(cli: Any) -> None:
    cli(*RUN)
    cli("run", "--task", "toy-fewshot")
    cli("leaderboard", "--out", "whole")
    tables: Any = cli("leaderboard", "--task", "toy-graph", "--json", "--out", "some").json()
    assert {table["task"] for table in tables} == {"toy-graph"}
    names = {path.name for path in (cli.folder / "some").iterdir()}
    assert names == {"toy-graph.md", "toy-graph.csv", "toy-graph.json"}
    for name in names:
        assert (cli.folder / "some" / name).read_bytes() == (cli.folder / "whole" / name).read_bytes()
    (cli.folder / "whole/toy-fewshot.md").write_text("changed")
    assert cli("leaderboard", "--task", "toy-graph", "--check", "--out", "whole").code == 0
    assert cli("leaderboard", "--check", "--out", "whole").code == 1
    cli("leaderboard", "--task", "toy-graph", "--site", "pages")
    pages = {path.stem for path in (cli.folder / "pages").rglob("*.html")}
    assert "task-toy-graph" in pages
    assert "task-toy-fewshot" not in pages


def data(name: str, content: str) -> dict[str, DataRef]:
    ref = DataRef(name=name, version="1", hash=content * 64)
    return {"train": ref, "test": ref}


def test_two_folders_of_one_reader_have_different_headings(make_result: Any) -> None:
    results = [make_result(data=data("csv", content)) for content in "ab"]
    found = build_tables(stored(*results), lambda result: None)
    assert len({table.heading for table in found}) == 2
    assert all(table.heading.startswith("csv [data ") for table in found)
    (alone,) = build_tables(stored(results[0]), lambda result: None)
    assert alone.heading == "csv"
    labelled = [
        result.model_copy(update={"data_labels": {"csv": label}})
        for result, label in zip(results, ("house", "barn"), strict=True)
    ]
    found = build_tables(stored(*labelled), lambda result: None)
    assert {table.heading for table in found} == {"csv=house", "csv=barn"}


def test_a_label_for_a_folder_stands_in_the_heading(cli: Any) -> None:
    for name in ("one", "two"):
        (cli.folder / name / "beats").mkdir(parents=True)
        (cli.folder / name / "beats/a.txt").write_text(f"1.0\n2.0\n{len(name) + 0.1}\n")
    (cli.folder / "two/beats/b.txt").write_text("1\n2\n")
    signal = ("run", "--task", "toy-signal", "--method", "toy-detector", "--no-reference")
    first = cli(*signal, "--dataset", "toy-recorded-beats=house", "--data-root", "one")
    assert first.code == 0, first.err
    assert "toy-recorded-beats=house" in first.out
    cli(*signal, "--dataset", "test=toy-recorded-beats,toy-recorded-beats=barn", "--data-root", "two")
    printed = cli("leaderboard").out
    assert "toy-recorded-beats=house" in printed
    assert "toy-recorded-beats=barn" in printed


def test_failed_attempts_alone_make_no_table(make_result: Any) -> None:
    failed = make_result(status="failed", scores={}, error=Failure(message="no"), data=data("csv", "a"))
    assert build_tables(stored(failed), lambda result: None) == []
    fine = make_result(method="other", data=data("csv", "a"))
    (table,) = build_tables(stored(failed, fine), lambda result: None)
    assert len(table.rows) == 2


def test_rows_of_methods_that_are_not_installed_say_so(make_result: Any) -> None:
    results = stored(make_result(method="here"), make_result(method="gone"))
    (table,) = build_tables(results, lambda result: result.source_digest if result.run.method == "here" else None)
    (note,) = [text for text in footnotes(table) if "Not installed here" in text]
    assert note.endswith(": gone.")


def test_a_preset_that_the_reference_lacks_leaves_no_opponent(cli: Any) -> None:
    done = cli("run", "--task", "toy-fewshot", "--preset", "paper", "--dry-run")
    assert "no preset 'paper'" in done.err
    assert "the other rows have no opponent" in done.err
    named = cli("run", "--task", "toy-fewshot", "--method", "toy-tuner", "--preset", "paper", "--dry-run")
    assert named.code == 0
    assert "the other rows have no opponent" in named.err
