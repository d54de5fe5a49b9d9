"""Multiply-adds by hand and by torch's own counter, timing in turn, and deployed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchsuite.core import Outcome
from benchsuite.core.errors import InvalidPrediction
from benchsuite.tasks.visual_recognition import costs
from benchsuite.tasks.visual_recognition.contract import ClassificationProtocol, Trained
from benchsuite.tasks.visual_recognition.costs import (
    COSTS,
    Operations,
    compare_outputs,
    count_operations,
    measure_costs,
    time_in_turn,
    yardstick,
)


class Attention(nn.Module):
    """Self-attention over the pixels of a map, fused or by two products."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.qkv, self.heads, self.fused = nn.Linear(width, 3 * width), heads, fused
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.fused:
            return nn.functional.scaled_dot_product_attention(q, k, v)
        return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1) @ v


@pytest.mark.parametrize("fused", [False, True])
def test_every_kind_is_counted_by_its_rule(fused: bool) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False), nn.GELU(),
        Attention(8, 2, fused),
    )  # fmt: skip
    pixels = 8 * 6
    assert count_operations(network, (1, 3, 16, 12)) == Operations(
        convolution=9 * 3 * 8 * pixels + 25 * 8 * pixels,
        linear=pixels * 8 * 24,
        matmul=2 * pixels * pixels * 8,
        batch_norm=2 * 8 * pixels,
        layer_norm=5 * 8 * pixels,
    )


def test_norms_without_scale_and_other_norms() -> None:
    plain = nn.Sequential(nn.BatchNorm2d(4, affine=False), nn.GroupNorm(2, 4), nn.GroupNorm(2, 4, affine=False))
    assert count_operations(plain, (1, 4, 5, 5)) == Operations(batch_norm=100, layer_norm=500 + 400)


def test_transposed_convolutions_count_by_their_input() -> None:
    network = nn.ConvTranspose2d(4, 6, 2, stride=2)
    assert count_operations(network, (1, 4, 5, 7)).convolution == 5 * 7 * 4 * 6 * 4


def test_linear_layers_of_maps_with_and_without_bias() -> None:
    network = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 2, bias=False))
    assert count_operations(network, (1, 3, 4, 5)).linear == 12 * (35 + 14)


def test_totals() -> None:
    found = Operations(1, 10, 100, 1000, 10000)
    assert (found.products, found.total) == (111, 11111)


def test_products_are_half_of_what_torch_calls_flops() -> None:
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.mobilenet_v3_small(weights=None).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(1, 3, 96, 96))
    assert 2 * count_operations(network, (1, 3, 96, 96)).products == counter.get_total_flops()


def test_counting_leaves_mode_and_statistics_as_they_were() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    count_operations(network, (1, 3, 8, 8))
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_all_are_timed_in_turn() -> None:
    calls: list[tuple[str, int]] = []
    candidates: dict[str, Any] = {
        name: (lambda x, name=name: calls.append((name, len(x))), (batch, 3, 4, 4))
        for name, batch in (("a", 1), ("b", 2))
    }
    found = time_in_turn(candidates, repeats=3, warm_ups=2, device="cpu")
    assert calls == [("a", 1), ("b", 2)] * 5
    assert set(found) == {"a", "b"}
    assert all(0 <= t.wall_min <= t.wall_median for t in found.values())


def test_median_and_minimum_are_those_of_the_timed_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    walls = iter([0.0, 10, 13, 20, 21, 30, 32])  # the start of the warm-up, then passes of 3, 1 and 2 seconds
    work = iter([0.0, 10, 15, 20, 24, 30, 36])
    monkeypatch.setattr(costs.time, "perf_counter", lambda: next(walls))
    monkeypatch.setattr(costs.time, "process_time", lambda: next(work))
    found = time_in_turn({"a": (lambda x: x, (1, 1))}, repeats=3, warm_ups=1, device="cpu")["a"]
    assert (found.wall_median, found.wall_min, found.cpu_min) == (2, 1, 4)


def test_the_yardstick_never_changes_and_leaves_the_random_state() -> None:
    state = torch.random.get_rng_state()
    one, other = yardstick("cpu"), yardstick("cpu")
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    first, second = 32 * 32, 16 * 16  # pixels of the two resolutions
    expected = first * (27 * 16 + 9 * 16 + 16 * 32) + second * (9 * 32 + 32 * 64)
    assert count_operations(one, (1, 3, 64, 64)).total == expected


def _measured(trained: Trained) -> Outcome:
    protocol = ClassificationProtocol(latency_repeats=2, warm_ups=0, throughput_batch=4, throughput_repeats=1)
    outcome = Outcome({})
    measure_costs(outcome, trained, 16, 16, protocol, "cpu")
    return outcome


def test_an_outcome_gets_all_costs() -> None:
    network = nn.Conv2d(3, 5, 1)
    found = _measured(Trained(network, table=[{"step": 1}]))
    assert set(found.scores) == {metric.name for metric in COSTS}
    assert found.scores["macs"] == 15 * 256 / 1e6
    assert found.parameters == 20
    assert found.scores["latency_deployed_ms"] is None
    assert found.undefined == {"latency_deployed_ms": costs.NO_DEPLOYED_FORM}
    assert [row["form"] for row in found.tables["costs"]] == ["network", "yardstick", "network"]
    assert found.tables["training"] == [{"step": 1}]
    table = {row["form"]: row for row in found.tables["costs"][:2]}
    ratio = table["network"]["wall_min_ms"] / table["yardstick"]["wall_min_ms"]
    assert found.scores["latency_relative"] == pytest.approx(ratio)
    throughput = found.tables["costs"][2]
    assert found.scores["images_per_second"] == pytest.approx(4 / (throughput["wall_min_ms"] / 1e3))


def test_a_deployed_form_is_timed_beside_the_network() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5)).eval()
    folded = torch.nn.utils.fusion.fuse_conv_bn_eval(network[0], network[1])
    found = _measured(Trained(network, deployed=folded))
    assert found.scores["latency_deployed_ms"] is not None
    assert "deployed" in {row["form"] for row in found.tables["costs"]}


def test_a_deployed_form_that_differs_is_refused() -> None:
    network = nn.Conv2d(3, 5, 1)
    with pytest.raises(InvalidPrediction, match="off the network"):
        compare_outputs(network, lambda x: network(x) + 3e-3, (1, 3, 8, 8))
    with pytest.raises(InvalidPrediction, match="off the network"):
        compare_outputs(network, lambda x: network(x) * float("nan"), (1, 3, 8, 8))
    with pytest.raises(InvalidPrediction, match="other shapes"):
        compare_outputs(network, lambda x: network(x)[..., :2], (1, 3, 8, 8))
    compare_outputs(network, lambda x: network(x) + 5e-5, (1, 3, 8, 8))


def test_nested_outputs_are_compared_one_by_one() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> Any:
            return {"classes": [self.conv(x)], "boxes": (self.conv(x) * 2,)}

    network = Heads()
    compare_outputs(network, network, (1, 3, 4, 4))

    def other(x: torch.Tensor) -> Any:
        found = network(x)
        return {"classes": found["classes"], "boxes": (found["boxes"][0] + 1,)}

    with pytest.raises(InvalidPrediction, match="off the network"):
        compare_outputs(network, other, (1, 3, 4, 4))
