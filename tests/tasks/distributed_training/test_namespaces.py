"""The network of namespaces: what its kernel counts, and what it says where it cannot be made."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from benchsuite.tasks.distributed_training import namespaces

pytest.importorskip("torch")
pytest.importorskip("sklearn")

RUN = ("run", "--task", "distributed-training")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ddp", "bytegrad", "low-precision-decentralized"])
def test_the_kernel_counts_what_we_count(cli: Any, method: str) -> None:
    if reason := namespaces.unavailable():
        pytest.skip(reason)
    veth = ("--set", "task.network=veth", "--set", "task.bandwidth_mbit=500", "--set", "task.steps=60")
    done = cli(*RUN, "--method", method, "--no-reference", *veth, "--json")
    assert done.code == 0, done.err
    (result,) = done.json()
    for row in result["tables"]["ranks"]:
        assert 1.0 <= row["link_bytes"] / row["sent_bytes"] < 1.01


def test_a_network_that_cannot_be_made_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: None)
    assert "needs the tools ip, tc, unshare" in namespaces.unavailable()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert namespaces.unavailable() == "network namespaces need Linux"
