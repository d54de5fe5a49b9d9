"""What is committed under leaderboards/ and quoted in the README is what the committed results give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchsuite.core.config import build_config, config_dict
from benchsuite.core.registry import config_class, get_registry, load_object
from benchsuite.harness.plan import protocol_of
from benchsuite.leaderboard.build import Leaderboard, build, differences
from benchsuite.leaderboard.claims import claims_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def published() -> Leaderboard:
    return build([ROOT / "leaderboards" / "results"], get_registry())


def test_the_committed_tables_are_what_the_results_give(published: Leaderboard) -> None:
    assert published.problems == []
    assert differences(published, ROOT / "leaderboards") == []


def test_every_row_is_complete_and_made_by_the_present_code_or_says_that_it_is_not(published: Leaderboard) -> None:
    for table in published.tables:
        text = (ROOT / "leaderboards" / f"{table.task}.md").read_text()
        for row in table.rows:
            assert row.not_finished == row.conflicting == []
            assert not row.stale or f"| {row.label} (stale) |" in text


def test_rows_that_bear_a_methods_name_have_the_settings_that_it_has_now(published: Leaderboard) -> None:
    registry = get_registry()
    for table in published.tables:
        facts = {"task": table.task, "dataset": table.data["test"]["name"], **table.protocol}
        for row in table.rows:
            if row.label != row.method or row.stale:
                continue
            method = registry.method(row.method)
            settings = method.presets[row.preset].resolve(facts)
            present = config_dict(build_config(config_class(method), settings, row.method))
            assert {str(sorted(r.run.config.items())) for r in row.results} == {str(sorted(present.items()))}, row.label


def test_a_task_is_published_at_protocols_that_exist_and_differ() -> None:
    for spec in get_registry().tasks.values():
        task = load_object(spec.load)
        for data in spec.published.data or (task.default_data,):
            protocols = [protocol_of(task, "embedded", data, change)[0] for change in spec.published.protocols]
            assert len({str(sorted(protocol.items())) for protocol in protocols}) == len(protocols) > 0


def test_a_plan_leaves_out_rows_and_protocols_that_exist() -> None:
    registry = get_registry()
    for spec in registry.tasks.values():
        names = {method.name for method in registry.methods_for(spec.name)}
        assert set(spec.published.without) <= names
        for changes in spec.published.without.values():
            assert all(change in spec.published.protocols for change in changes)


def test_every_claim_is_about_data_and_a_protocol_that_are_published() -> None:
    registry = get_registry()
    claims, problems = claims_of(registry.methods.values())
    assert claims
    assert problems == []
    for claim in claims:
        spec = registry.task(claim.task)
        task = load_object(spec.load)
        presets = registry.method(claim.method).presets
        published = [
            (data, protocol_of(task, preset, data, change)[0])
            for preset in presets
            for data in spec.published.data or (task.default_data,)
            for change in spec.published.changes(claim.method)
        ]
        assert any(claim.is_about(spec.name, data, protocol) for data, protocol in published), claim.id


def test_bagua_is_judged_on_bytes_and_accuracy_of_four_ranks_and_on_speed_of_two() -> None:
    claims, _ = claims_of([get_registry().method("bytegrad")])
    ranks = {(c.metric, c.protocol.get("world_size")) for c in claims if c.task == "distributed-training"}
    assert ranks == {("bytes_per_step", 4), ("accuracy", 4), ("steps_per_s", 2)}


def test_every_claim_has_a_verdict_unless_its_table_or_a_row_is_to_be_measured(published: Leaderboard) -> None:
    assert published.verdicts
    stale = {(table.task, row.label) for table in published.tables for row in table.rows if row.stale}
    for verdict in published.verdicts:
        claim = verdict.claim
        if verdict.verdict == "not run":
            tables = [
                table
                for table in published.tables
                if claim.is_about(table.task, table.data["test"]["name"], table.protocol)
            ]
            assert not tables or stale & {(claim.task, claim.method), (claim.task, claim.against)}, claim.id


def test_the_table_in_the_readme_quotes_the_published_one() -> None:
    tables = (ROOT / "leaderboards" / "fair-distillation.md").read_text()
    quoted = r"^\| ([\d-]+) \| (\S+(?: \(stale\))?) \| [^|]+ \| ([^|]+) \| ([^|]+) \| ([^|]+) \| (\d+) \|$"
    rows = re.findall(quoted, (ROOT / "README.md").read_text(), re.M)
    assert len(rows) == 10
    for rank, label, parity, accuracy, opportunity, n in rows:
        (line,) = [line for line in tables.splitlines() if line.startswith(f"| {rank} | [{label}](")]
        assert {parity, accuracy, opportunity, n} <= {cell.strip() for cell in line.split("|")}
