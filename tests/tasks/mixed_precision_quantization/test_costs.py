"""Counted costs: by hand on small layers, and the sizes of the published networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("torchvision")

import torch
from torch import nn

from benchsuite.core.errors import ConfigError
from benchsuite.tasks.mixed_precision_quantization.contract import Budget, Layer, average_bits
from benchsuite.tasks.mixed_precision_quantization.costs import costs_of, counted, over_budget
from benchsuite.tasks.mixed_precision_quantization.networks import build_network
from benchsuite.tasks.mixed_precision_quantization.teachers import inventory

HAND = (
    Layer("a", (4, 3, 3, 3), 108, 108 * 64, 192, -1.0, 1.0),
    Layer("b", (5, 4), 20, 20, 4, 0.0, 1.0),
    Layer("c", (3, 5), 15, 15, 5, 0.0, 1.0),
)
WEIGHTS, INPUTS = {"a": 8, "b": 3, "c": 1}, {"a": 8, "b": 2, "c": 2}

# Multiply-adds, weights and parameters of the networks as published.
PUBLISHED = {
    "resnet18": (3, 1000, 224, 21, 11_678_912, 11_689_512, 1_814_073_344),
    "mobilenetv2": (3, 1000, 224, 53, 3_469_760, 3_504_872, 300_774_272),
    "resnet20": (3, 10, 32, 20, 268_336, 269_722, 40_551_040),
    "resnet56": (3, 10, 32, 56, 848_944, 853_018, 125_485_696),
}


def test_by_hand() -> None:
    costs = costs_of(HAND, WEIGHTS, INPUTS)
    stored = 108 * 8 + 20 * 3 + 15
    assert costs.weight_bits == stored / 143
    assert costs.activation_bits == (192 * 8 + 4 * 2 + 5 * 2) / 201
    assert costs.bitops == 108 * 64 * 64 + 20 * 6 + 15 * 2
    assert costs.compression == 32 * 143 / stored
    assert costs.code_bytes == 108 + 8 + 2
    assert average_bits(HAND, WEIGHTS) == costs.weight_bits
    scores, undefined = counted(HAND, WEIGHTS, INPUTS, 50)
    assert scores["model_bytes"] == 118 + 200
    assert scores["weight_bits_inner"] == 3
    assert scores["bitops_inner"] == 120 / 1e6
    assert scores["model_bytes_inner"] == 8
    assert not undefined


def test_without_first_and_last_nothing_may_be_left() -> None:
    scores, undefined = counted(HAND[:2], WEIGHTS, INPUTS, 0)
    assert scores["bitops_inner"] is None
    assert set(undefined) == {name for name, value in scores.items() if value is None}


def test_compression_is_that_of_the_paper_s_average() -> None:
    layers = [Layer(str(n), (10, 10), 100, 100, 10, 0, 1) for n in range(100)]
    bits = {str(n): 2 if n < 93 else 1 for n in range(100)}
    assert costs_of(layers, bits, dict.fromkeys(bits, 32)).weight_bits == pytest.approx(1.93)
    assert round(costs_of(layers, bits, dict.fromkeys(bits, 32)).compression, 2) == 16.58


def test_what_lies_above_the_budget() -> None:
    budget = Budget(7.0, (1, 8), {}, {"a": 8, "b": 2, "c": 2})
    assert over_budget(HAND, WEIGHTS, INPUTS, budget) == 0
    assert over_budget(HAND, dict.fromkeys("abc", 8), INPUTS, budget) == 1
    pinned = replace(budget, pinned={"a": 8}, candidates=(2, 3, 4), weight_bits=32)
    for bits, off in (
        ((8, 4, 2), 0),
        ((5, 4, 2), 3),
        ((8, 6, 2), 2),
        ((8, 4, 1), 1),
        ((8, 4, 32), 0),
        ((32, 4, 2), 24),
    ):
        assert over_budget(HAND, dict(zip("abc", bits, strict=True)), INPUTS, pinned) == off, bits
    assert over_budget(HAND, dict.fromkeys("abc", 8), {"a": 8, "b": 4, "c": 3}, budget) == 1 + 2


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_networks_have_their_published_size(name: str) -> None:
    channels, classes, size, count, weights, parameters, macs = PUBLISHED[name]
    network = build_network(name, channels, classes, size).eval()
    layers = inventory(network, [torch.zeros(1, channels, size, size)])
    assert len(layers) == count
    assert sum(layer.weights for layer in layers) == weights
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert sum(layer.macs for layer in layers) == macs
    if name == "resnet18":
        assert (layers[0].weights, layers[-1].weights) == (9_408, 512_000)
        bits = {layer.name: 32 for layer in layers}
        assert round(costs_of(layers, bits, bits).bitops / 1e9, 1) == 1857.6
        bits = {layer.name: 4 for layer in layers}
        assert round(costs_of(layers, bits, bits).bitops / 1e9, 2) == 29.03


def test_the_perceptrons_have_the_sheets_layers() -> None:
    for name, wanted in (("mlp", (1024, 1536, 9216, 960)), ("mlp-narrow", (512, 384, 2304, 480))):
        layers = inventory(build_network(name, 1, 10, 8).eval(), [torch.zeros(2, 1, 8, 8)])
        assert tuple(layer.weights for layer in layers) == wanted
        assert layers[0].inputs == 64


def test_ranges_are_of_all_batches_and_tokens_are_counted() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.out = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(torch.relu(self.inner(x.flatten(2).mT))).mean(dim=1)

    batches = [torch.zeros(3, 4, 2, 5), torch.full((2, 4, 2, 5), -2.0), torch.ones(1, 4, 2, 5)]
    first, second = inventory(Tokens(), batches)
    assert (first.macs, first.inputs, first.least, first.largest) == (24 * 10, 40, -2.0, 1.0)
    assert (second.macs, second.inputs, second.signed) == (12 * 10, 60, False)
    assert first.signed


def test_a_layer_that_nobody_uses_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    network.idle = nn.Linear(2, 2)
    network.forward = lambda x: network[1](network[0](x))  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="layers idle"):
        inventory(network, [torch.zeros(1, 1, 2, 2)])
    with pytest.raises(ConfigError, match="layers none"):
        inventory(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)).eval(), [torch.zeros(1, 1, 2, 2)])


def test_networks_that_are_not_there_are_refused() -> None:
    for model, message in (("resnet19", "no network"), ("timm:nothing", "timm has no model"), ("resnet18", "colours")):
        with pytest.raises(ConfigError, match=message):
            build_network(model, 1, 10, 32)


def test_a_network_of_timm_says_which_pictures_it_takes() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match="vit_tiny_patch16_224 does not take pictures of 32 px"):
        build_network("timm:vit_tiny_patch16_224", 3, 10, 32)


def test_any_network_of_timm_is_taken() -> None:
    pytest.importorskip("timm")
    network = build_network("timm:mobilenetv3_small_050", 1, 7, 32).eval()
    layers = inventory(network, [torch.zeros(1, 1, 32, 32)])
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    assert layers[-1].shape[0] == 7
    assert np.prod(layers[0].shape) == layers[0].weights
