"""What is committed under leaderboards/ and quoted in the README is what the committed results give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchsuite.core.registry import get_registry
from benchsuite.leaderboard.build import Leaderboard, build, differences

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


def test_every_claim_has_a_verdict_unless_one_of_its_rows_is_stale(published: Leaderboard) -> None:
    assert published.verdicts
    stale = {(table.task, row.label) for table in published.tables for row in table.rows if row.stale}
    for verdict in published.verdicts:
        claim = verdict.claim
        if verdict.verdict == "not run":
            assert stale & {(claim.task, claim.method), (claim.task, claim.against)}, claim.id


def test_the_table_in_the_readme_quotes_the_published_one() -> None:
    tables = (ROOT / "leaderboards" / "fair-distillation.md").read_text()
    quoted = r"^\| (\d|-) \| (\S+(?: \(stale\))?) \| [^|]+ \| ([^|]+) \| ([^|]+) \| (\d+) \|$"
    rows = re.findall(quoted, (ROOT / "README.md").read_text(), re.M)
    assert len(rows) == 7
    for rank, label, accuracy, parity, n in rows:
        (line,) = [line for line in tables.splitlines() if line.startswith(f"| {rank} | {label} |")]
        assert {accuracy.strip(), parity.strip(), n} <= {cell.strip() for cell in line.split("|")}
