"""The simulated task through the command line."""

from __future__ import annotations

import pytest

from benchsuite.core.registry import get_registry


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("workers=0", "workers must be at least 1"),
        ("bandwidth_gbps=0", "bandwidth_gbps must be above 0"),
        ("straggler_slowdown=0.5", "straggler_slowdown at least 1"),
        ("workload=gpt", "workload cannot be 'gpt'"),
    ],
)
def test_protocols_that_make_no_sense_are_refused(shared_cli, setting: str, message: str) -> None:
    pytest.importorskip("torch")
    done = shared_cli("run", "--task", "distributed-training-simulated", "--set", f"task.{setting}", "--dry-run")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert message in done.err


def test_the_task_measures_and_draws(cli) -> None:
    for library in get_registry().task("distributed-training-simulated").requires:
        pytest.importorskip(library)
    run = ("run", "--task", "distributed-training-simulated", "--set", "task.workers=8", "--set", "task.steps=60")
    done = cli(*run, "--method", "bytegrad", "--json")
    assert done.code == 0, done.err
    results = {result["run"]["method"]: result for result in done.json()}
    ours, reference = results["bytegrad"], results["ddp"]
    assert ours["scores"]["epoch_time"] < 0.3 * reference["scores"]["epoch_time"]
    assert 3.9 < reference["scores"]["bytes_per_step"] / ours["scores"]["bytes_per_step"] <= 4.0
    assert ours["scores"]["accuracy"] > 0.8
    assert ours["scores"]["consensus_distance"] == 0.0
    (picture,) = cli.folder.glob("runs/*/*/bytegrad/**/epoch_time.svg")
    assert "<svg" in picture.read_text()
    odd = cli(*run, "--method", "decentralized-shift-one", "--set", "task.workers=9", "--no-reference")
    assert odd.code == 1
    assert "needs an even number of them, not 9" in odd.err
