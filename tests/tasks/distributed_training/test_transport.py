"""The counting group, in front of a group that sends nothing."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from benchsuite.tasks.distributed_training import transport  # noqa: E402
from benchsuite.tasks.distributed_training.transport import CountingGroup, Traffic  # noqa: E402


class Silence:
    """A process group that does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: name


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(transport.time, "sleep", found.append)
    return found


def group(traffic: Traffic, latency_s: float = 0.5) -> CountingGroup:
    return CountingGroup(Silence(), 1, 4, traffic, latency_s)


def test_latency_is_waited_for_before_every_round(waited: list[float]) -> None:
    tensor = torch.ones(8)
    ring = group(Traffic())
    ring.allreduce([tensor])
    assert waited == [3.0]  # two times three rounds
    for call in (
        lambda: ring.broadcast([tensor]),
        lambda: ring.reduce([tensor]),
        lambda: ring.send([tensor], 0),
        lambda: ring.allgather([[tensor] * 4], [tensor]),
        lambda: ring.alltoall([tensor] * 4, [tensor] * 4),
        lambda: ring.alltoall_base(tensor, tensor, [], []),
    ):
        waited.clear()
        call()
        assert waited == [0.5]
    waited.clear()
    ring.recv([tensor], 0)
    group(Traffic(), latency_s=0.0).allreduce([tensor])
    assert waited == []


def test_what_stays_at_home_is_not_counted() -> None:
    def sent(call: Any) -> Fraction:
        traffic = Traffic()
        call(group(traffic, 0.0))
        return traffic.sent_bytes

    rows = torch.ones(8, 3)
    assert sent(lambda g: g.alltoall_base(rows, rows, [], [])) == 3 * 2 * 12
    assert sent(lambda g: g.alltoall_base(rows, rows, [2, 2, 2, 2], [1, 5, 1, 1])) == 3 * 12
    assert sent(lambda g: g.alltoall([], [torch.ones(n) for n in (1, 2, 3, 4)])) == 4 * (1 + 3 + 4)
    assert sent(lambda g: g.send([rows], 1)) == 0
    assert sent(lambda g: g.send([rows.half()], 0)) == 48
