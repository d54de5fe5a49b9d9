"""The cost model of networks against the published curves."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from benchsuite.tasks.distributed_training import cost_model
from benchsuite.tasks.distributed_training.cost_model import (
    BERT_LARGE,
    VGG16,
    Exchange,
    Network,
    Stragglers,
    published_systems,
    run_clocks,
)

REPORTED = Path(__file__).parents[3] / "plugins/benchsuite_bagua/reported.csv"
SYSTEMS = published_systems()


def digitised() -> list[tuple[str, float, float, float]]:
    """Return the published epoch times: system, Gbit/s, ms, seconds."""
    found = []
    with REPORTED.open(newline="") as stream:
        for row in csv.DictReader(stream):
            if row["metric"] == "epoch_time":
                words = row["data"].split()
                latency = float(words[-2]) if words[-1] == "ms" else 0.0
                found.append((row["row"], float(words[words.index("at") + 1]), latency, float(row["value"])))
    return found


@pytest.mark.parametrize("system", ["ddp", "decentralized", "low-precision-decentralized", "bytegrad"])
@pytest.mark.parametrize("bandwidth", [1.0, 2.0, 4.0, 8.0])
def test_epoch_times_at_low_bandwidth_are_within_15_percent(system: str, bandwidth: float) -> None:
    (published,) = [s for name, b, latency, s in digitised() if (name, b, latency) == (system, bandwidth, 0.0)]
    assert BERT_LARGE.epoch_seconds(SYSTEMS[system], Network(bandwidth)) == pytest.approx(published, rel=0.15)


def test_the_order_at_100_gbps_and_5_ms_is_the_published_one() -> None:
    seconds = {name: BERT_LARGE.epoch_seconds(system, Network(100, 5)) for name, system in SYSTEMS.items()}
    middle = [seconds[name] for name in ("decentralized", "bytegrad", "byteps")]
    assert seconds["async"] < seconds["low-precision-decentralized"] < seconds["qadam-1bit"] < min(middle)
    assert max(middle) < seconds["horovod"] < seconds["ddp"]


@pytest.mark.parametrize("system", sorted(set(SYSTEMS) - {"async"}))
def test_the_slope_over_latency_is_the_published_one(system: str) -> None:
    # Of the level this model says less: it overlaps all waiting with computing, the published runs did not.
    seconds = {latency: s for name, b, latency, s in digitised() if (name, b) == (system, 100.0)}
    published = (seconds[5.0] - seconds[0.0]) / 5
    a_millisecond = Network(100, 1).seconds(SYSTEMS[system]) - Network(100, 0).seconds(SYSTEMS[system])
    assert BERT_LARGE.steps_per_epoch * a_millisecond == pytest.approx(published, rel=0.05)


def test_vgg16_throughput_at_10_gbps() -> None:
    images = 128 * 32
    for elements, published in ((4.0, 4470), (1.0, 19690)):
        exchange = Exchange(2 * 15 / 16 * elements * VGG16.elements, 0)
        assert images / Network(10, efficiency=1.0).seconds(exchange) == pytest.approx(published, rel=0.12)


def test_a_straggler_delays_those_who_wait_for_it() -> None:
    class FirstWorker:
        """Draws that make worker 0 slow, always."""

        def random(self, size: int) -> np.ndarray:
            return np.array([0.0] + [1.0] * (size - 1))

    def clocks(partners, workers: int = 4):
        slow = Stragglers(0.5, 3.0)
        return run_clocks(workers, partners, 1.0, [0.5] * len(partners), slow, FirstWorker())  # type: ignore[arg-type]

    assert clocks(["everybody"] * 3).tolist() == [3, 6, 9]
    pair = np.array([[1], [0], [3], [2]])
    assert clocks([pair] * 3).tolist() == [3, 6, 9]
    alone = run_clocks(4, ["nobody"] * 3, 1.0, [9.0] * 3, Stragglers(), np.random.default_rng(0))
    assert alone.tolist() == [1, 2, 3]


def test_a_straggler_delays_its_partner_and_nobody_else() -> None:
    class OneAStep:
        """Draws that make worker 0 slow in the first step, worker 1 in the second and worker 2 in the third."""

        def __init__(self) -> None:
            self.step = -1

        def random(self, size: int) -> np.ndarray:
            self.step += 1
            return np.where(np.arange(size) == self.step, 0.0, 1.0)

    def clocks(*partners) -> list[float]:
        return run_clocks(4, partners, 1.0, [0.5] * 3, Stragglers(0.5, 3.0), OneAStep()).tolist()  # type: ignore[arg-type]

    pairs, across = np.array([[1], [0], [3], [2]]), np.array([[2], [3], [0], [1]])
    assert clocks("everybody", "everybody", "everybody") == [3, 6, 9]
    assert clocks("nobody", "nobody", "nobody") == [3, 4, 5]
    assert clocks(pairs, pairs, pairs) == [3, 6, 7]  # 0 and 1 wait for each other; 2 and 3 are behind them
    assert clocks(pairs, across, across) == [3, 6, 7]
    assert clocks("nobody", across, across) == [3, 4, 7]


def test_which_is_fastest_depends_on_the_network() -> None:
    fastest = cost_model.fastest({name: [system] for name, system in SYSTEMS.items()}, BERT_LARGE, [1, 100], [0, 5])
    assert fastest[0][0] == "async"
    waiting = {name: [system] for name, system in SYSTEMS.items() if system.blocking}
    chart = cost_model.fastest(waiting, BERT_LARGE, [1, 100], [0, 5])
    assert chart[0][0] == "qadam-1bit"
    assert chart[1][1] == "low-precision-decentralized"


def test_the_first_of_those_that_are_as_fast_is_named() -> None:
    job = cost_model.Workload("job", 1, steps_per_epoch=10, compute_s=1.0)
    gigabit = 1e9 / 8 * cost_model.EFFICIENCY  # bytes that take a second at 1 Gbit/s
    rows = {
        "all": [Exchange(2 * gigabit, 0)],
        "half": [Exchange(gigabit * 1.1, 0)],
        "one in two": [Exchange(2 * gigabit, 1), Exchange(0, 0)],  # the second step takes as long as computing
        "less": [Exchange(gigabit * 0.9, 2)],
    }
    assert cost_model.fastest(rows, job, [1], [0]) == [["less"]]
    assert cost_model.fastest(rows, job, [1], [0], within=0.11) == [["half"]]
    assert cost_model.fastest(rows, job, [4, 1.9, 0.5], [0]) == [["all", "half", "less"]]
    assert cost_model.fastest(rows, job, [2], [0, 1000], within=0.05) == [["all"], ["all"]]
    relaxed = {name: rows[name] for name in ("less", "one in two")}
    assert cost_model.fastest(relaxed, job, [1], [0, 1000]) == [["less"], ["one in two"]]  # then 2.9 and 2 s a step


def test_the_map_of_crossovers_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    from benchsuite.tasks.distributed_training.pictures import draw_crossovers, runs_of_equals

    assert runs_of_equals(["a", "a", "b", "a"]) == [("a", 0, 2), ("b", 2, 3), ("a", 3, 4)]
    waiting = {name: [system] for name, system in SYSTEMS.items() if system.blocking}
    waiting["too much"] = [Exchange(1e15, 1e6)]
    draw_crossovers(tmp_path / "map.svg", BERT_LARGE, {16: waiting, 32: waiting})
    picture = (tmp_path / "map.svg").read_text()
    texts = ("16 workers", "32 workers", "qadam-1bit", "low-precision-decentralized", "bandwidth (Gbit/s)", "too much")
    assert [text for text in texts if text not in picture] == ["too much"]  # which is fastest nowhere


def test_exchanges_scale_as_they_should() -> None:
    network = Network(10, latency_ms=2, efficiency=1.0)
    assert network.seconds(Exchange(1.25e9, 5)) == pytest.approx(1.01)
    assert network.seconds(Exchange(1.25e9, 5, blocking=False)) == 0
    job = cost_model.Workload("job", 1, 10, 2.0)
    assert job.epoch_seconds(Exchange(1.25e9, 0), network) == pytest.approx(20)
    assert job.epoch_seconds(Exchange(1.25e9, 0), network, overlap=False) == pytest.approx(30)
