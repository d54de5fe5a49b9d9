"""SDQ: quantisers, bitwidth parameters, regularisers, the two phases, and the other strategies."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("PIL")

import torch
from support import Killable, Killed, context, write_class_folders

from benchsuite.core.errors import ConfigError
from benchsuite.core.registry import get_registry
from benchsuite.datasets.image_folders.reader import load_imagenet
from benchsuite.datasets.small_images.reader import load_digits
from benchsuite.harness.checkpoint import EVERY_STEPS
from benchsuite.tasks.mixed_precision_quantization.contract import (
    Budget,
    FullPrecision,
    Layer,
    QuantizationProtocol,
    average_bits,
)
from benchsuite.tasks.mixed_precision_quantization.packed import quantized_network
from benchsuite.tasks.mixed_precision_quantization.sources import parts_of
from benchsuite.tasks.mixed_precision_quantization.task import MixedPrecisionQuantization, budget_of
from benchsuite.tasks.mixed_precision_quantization.teachers import full_precision
from benchsuite_sdq import strategies
from benchsuite_sdq.bitwidths import (
    BitwidthParameters,
    StochasticWeight,
    choice,
    groups_of,
    quantization_errors,
)
from benchsuite_sdq.config import SDQConfig
from benchsuite_sdq.losses import bin_regularisation, bin_values, distillation, network_regularisation
from benchsuite_sdq.method import SDQ
from benchsuite_sdq.quantizers import (
    InputQuantizer,
    PictureQuantizer,
    WeightQuantizer,
    dorefa,
    exported,
    layer_scale,
    quantized_layers,
    round_through,
    squashed,
    with_quantizers,
)
from benchsuite_sdq.search import Found, search, searched
from benchsuite_sdq.training import Order, Problem, make_optimizer, scales_of, train

FAST = QuantizationProtocol(teacher_epochs=4, calibration=64)
QUICK: dict[str, Any] = {"search_steps": 60, "lambda_q": 0.01, "epochs": 1}


@pytest.fixture(scope="module")
def digits() -> Any:
    return load_digits(None, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sdq")


def problem_of(digits: Any, folder: Path, protocol: QuantizationProtocol = FAST, **changes: Any) -> Problem:
    ctx = context(folder, **changes)
    data, _ = parts_of(digits, protocol, "test")
    model = full_precision(data, protocol, ctx)
    return Problem(model, data, budget_of(model.layers, protocol), ctx)


@pytest.fixture(scope="module")
def problem(digits: Any, folder: Path) -> Problem:
    return problem_of(digits, folder)


@pytest.fixture
def fresh(problem: Problem, tmp_path: Path) -> Problem:
    """Return the problem with a context that has trained nothing yet."""
    return Problem(problem.model, problem.data, problem.budget, context(tmp_path))


def hand(weights: dict[str, tuple[int, ...]]) -> tuple[Layer, ...]:
    return tuple(
        Layer(name, shape, math.prod(shape), math.prod(shape), shape[1], 0.0, 1.0) for name, shape in weights.items()
    )


# --- quantisers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_levels_and_codes_are_those_of_the_formula(bits: int) -> None:
    weight = np.random.default_rng(bits).normal(size=4000)
    bounded = np.tanh(weight)
    codes = np.rint((bounded / (2 * np.abs(bounded).max()) + 0.5) * (2**bits - 1))
    found = dorefa(torch.from_numpy(weight), bits).numpy()
    assert np.allclose(found, 2 * codes / (2**bits - 1) - 1, atol=1e-6)
    levels = np.unique(found)
    assert (levels.min(), levels.max()) == pytest.approx((-1, 1), abs=1e-6)
    if bits < 8:
        assert len(levels) == 2**bits
    assert not (levels == 0).any()


def test_half_goes_to_the_even_code() -> None:
    weight = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
    codes = {b: round(float((dorefa(weight, b)[0] + 1) / 2 * (2**b - 1)), 4) for b in (1, 2, 3, 8)}
    assert codes == {1: 0, 2: 2, 3: 4, 8: 128}


def test_the_gradient_is_that_of_the_squashed_weight() -> None:
    weight = torch.randn(40, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(40, dtype=torch.float64)
    (found,) = torch.autograd.grad((dorefa(weight, 3) * upstream).sum(), weight)
    (wanted,) = torch.autograd.grad(((2 * squashed(weight) - 1) * upstream).sum(), weight)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert squashed(weight).min() >= 0
    assert squashed(weight).max() == 1 or squashed(weight).min() == 0


def test_32_bits_change_nothing() -> None:
    weight = torch.randn(5)
    assert dorefa(weight, 32) is weight


def test_only_layers_without_a_norm_behind_have_a_scale() -> None:
    normed, last = torch.nn.Linear(5, 4, bias=False), torch.nn.Linear(5, 4).requires_grad_(False)
    size = float(last.weight.abs().mean())
    assert layer_scale(normed) == 1
    wanted = size / float(dorefa(last.weight, 8).abs().mean())
    assert layer_scale(last) == pytest.approx(wanted)
    assert float(dorefa(last.weight, 8, wanted).abs().mean()) == pytest.approx(size, rel=1e-5)


def test_inputs_are_clipped_and_rounded_and_the_clip_learns_from_what_lies_above() -> None:
    quantizer = InputQuantizer(2, signed=False, clip=1.5, learned=True)
    x = torch.tensor([-1.0, 0.2, 0.3, 0.9, 1.4, 1.6, 3.0], requires_grad=True)
    found = quantizer(x)
    assert found.tolist() == [0, 0, 0.5, 1.0, 1.5, 1.5, 1.5]
    found.backward(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 0, 0]
    assert quantizer.clip.grad is not None
    assert float(quantizer.clip.grad) == 13
    assert quantizer.exported().scale == 0.5
    fixed = InputQuantizer(2, signed=False, clip=1.0, learned=False)
    assert not fixed.clip.requires_grad
    assert fixed(torch.tensor([0.4, 2.0])).tolist() == pytest.approx([1 / 3, 1])


def test_signed_inputs_have_levels_on_both_sides_of_zero() -> None:
    quantizer = InputQuantizer(2, signed=True, clip=1.5, learned=True)
    x = torch.tensor([-4.0, -1.2, -0.4, 0.2, 0.9, 9.0], requires_grad=True)
    found = quantizer(x)
    assert found.tolist() == [-2, -1, 0, 0, 1, 1]
    found.backward(torch.ones(6))
    assert quantizer.clip.grad is not None
    assert float(quantizer.clip.grad) == 0  # one above, one below
    assert quantizer.exported().zero == 2
    with torch.no_grad():
        quantizer.clip.fill_(-3)
    quantizer.bound()
    assert float(quantizer.clip) > 0


def test_pictures_have_levels_over_their_range_with_zero_among_them() -> None:
    quantizer = PictureQuantizer(8, -0.8, 1.7)
    x = torch.linspace(-0.8, 1.7, 400)
    found = quantizer(x)
    assert float((found - x).abs().max()) <= 2.5 / 255 / 2 + 1e-6
    assert float(quantizer(torch.zeros(1))) == 0
    assert PictureQuantizer(32, -1, 1)(x) is x


def test_clips_start_where_the_error_is_least(problem: Problem) -> None:
    bits = {layer.name: 2 for layer in problem.model.layers}
    pictures = problem.data.prepared(range(64))
    weights = {layer.name: WeightQuantizer(8, 1.0) for layer in problem.model.layers}
    network = with_quantizers(problem.model, bits, True, pictures, weights)
    seen: list[torch.Tensor] = []
    whole = problem.model.build()
    name = problem.model.layers[2].name
    whole.get_submodule(name).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    whole(pictures)
    quantizer: Any = dict(quantized_layers(network))[name].input_quantizer

    def error(clip: float) -> float:
        return float((InputQuantizer(2, False, clip, False)(seen[0]) - seen[0]).square().mean())

    start = float(quantizer.clip)
    assert error(start) <= min(error(0.7 * start), error(1.4 * start), error(1.0))
    assert all(float(m.input_quantizer.clip) == 1 for n, m in list(quantized_layers(
        with_quantizers(problem.model, bits, False, pictures, weights)))[1:])  # fmt: skip


# --- bitwidth parameters ----------------------------------------------------------------------------------


def parameters(beta: float, count: int = 1, estimator: Any = "gumbel") -> BitwidthParameters:
    shared = BitwidthParameters(count, range(1, 9), 0.01, estimator, 1.0)
    with torch.no_grad():
        shared.beta.fill_(beta)
        shared.index.fill_(2)  # 3 bits, or 2
    return shared


def test_a_draw_is_one_of_two_bitwidths_and_as_frequent_as_beta_says() -> None:
    shared, count = parameters(0.3, count=20_000), 20_000
    shared.draw(torch.Generator().manual_seed(0))
    chosen = shared.chosen
    assert chosen is not None
    assert set(chosen.tolist()) == {0.0, 1.0}
    assert abs(float(chosen.mean()) - 0.3) < 0.01
    shared.draw(torch.Generator().manual_seed(0))
    assert torch.equal(chosen, shared.chosen)  # type: ignore[arg-type]
    assert count == len(chosen)


def test_the_forward_pass_never_blends() -> None:
    shared, weight = parameters(0.5), torch.randn(6, 5)
    layer = StochasticWeight(shared, torch.tensor([0]), 1.0).train()
    draws = torch.Generator().manual_seed(1)
    high, low = dorefa(weight, 3), dorefa(weight, 2)
    seen = []
    for _ in range(60):
        shared.draw(draws)
        found = layer(weight)
        seen.append(torch.equal(found, high))
        assert seen[-1] or torch.equal(found, low)
    assert 10 < sum(seen) < 50
    layer.eval()
    assert torch.equal(layer(weight), high)


def test_interpolation_blends_and_has_the_gradient_of_the_mean() -> None:
    shared, weight = parameters(0.25, estimator="interpolation"), torch.randn(6, 5)
    layer = StochasticWeight(shared, torch.tensor([0]), 1.0).train()
    shared.draw(torch.Generator())
    high, low = dorefa(weight, 3), dorefa(weight, 2)
    found = layer(weight)
    assert torch.allclose(found, 0.25 * high + 0.75 * low)
    upstream = torch.randn(6, 5)
    (found * upstream).sum().backward()
    assert shared.beta.grad is not None
    assert float(shared.beta.grad) == pytest.approx(float((upstream * (high - low)).sum()), rel=1e-5)


@pytest.mark.parametrize(("beta", "temperature"), [(0.3, 1.0), (0.9, 0.5), (0.02, 2.0)])
def test_the_gradient_of_a_parameter_is_the_closed_form(beta: float, temperature: float) -> None:
    value = torch.tensor([beta], dtype=torch.float64, requires_grad=True)
    noise = torch.tensor([[0.4, -0.7]], dtype=torch.float64)
    high, low, upstream = (torch.randn(7, dtype=torch.float64) for _ in range(3))
    taken = choice(value, noise, temperature)
    ((taken * high + (1 - taken) * low) * upstream).sum().backward()
    logits = (np.array([math.log(beta), math.log(1 - beta)]) + noise.numpy()[0]) / temperature
    y = np.exp(logits) / np.exp(logits).sum()
    wanted = float((upstream * (high - low)).sum()) * y[0] * y[1] / temperature * (1 / beta + 1 / (1 - beta))
    assert value.grad is not None
    assert float(value.grad) == pytest.approx(wanted, abs=1e-6, rel=1e-9)


def test_the_mean_gradient_points_where_the_loss_falls() -> None:
    beta = torch.full((100_000,), 0.4, dtype=torch.float64, requires_grad=True)
    uniform = torch.rand((100_000, 2), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    taken = choice(beta, -torch.log(-torch.log(uniform)), 1.0)
    taken.sum().backward()
    assert beta.grad is not None
    assert float(beta.grad.mean()) > 0.5  # times <g, Q_i - Q_(i-1)>: its sign is that of the product


def test_a_parameter_at_the_edge_still_has_a_gradient() -> None:
    beta = torch.tensor([1.0, 0.0], requires_grad=True)
    choice(beta, torch.zeros(2, 2), 1.0).sum().backward()
    assert beta.grad is not None
    assert bool((beta.grad > 0).all())


def test_the_gradient_to_weights_is_that_of_the_branch_drawn() -> None:
    for beta, bits in ((1.0, 3), (0.0, 2)):
        shared = parameters(beta)
        layer = StochasticWeight(shared, torch.tensor([0]), 1.0).train()
        weight = torch.randn(6, 5, requires_grad=True)
        shared.chosen = torch.tensor([beta])
        upstream = torch.randn(6, 5)
        (found,) = torch.autograd.grad((layer(weight) * upstream).sum(), weight)
        (wanted,) = torch.autograd.grad((dorefa(weight, bits) * upstream).sum(), weight)
        assert torch.allclose(found, wanted, atol=1e-6)


def test_decay_by_hand() -> None:
    shared = BitwidthParameters(3, (2, 4, 8), 0.01, "gumbel", 1.0)
    optimizer = torch.optim.SGD([shared.beta], lr=0.1, momentum=0.9)
    trace = []
    for gradient in ([6.0, 20.0, 0.0], [6.0, -5.0, 0.0], [0.0, 20.0, 0.0], [99.0, 99.0, 0.0], [99.0, 99.0, -9.0]):
        shared.beta.grad = torch.tensor(gradient)
        optimizer.step()
        fallen = shared.decay(optimizer)
        trace.append((fallen, shared.bits().tolist(), [round(value, 3) for value in shared.beta.tolist()]))
    assert trace == [
        ([1], [8, 4, 8], [0.4, 1.0, 1.0]),
        ([0], [4, 4, 8], [1.0, 1.0, 1.0]),
        ([1], [4, 2, 8], [1.0, 1.0, 1.0]),
        ([0], [2, 2, 8], [1.0, 0.0, 1.0]),  # what has no lower bitwidth stays
        ([], [2, 2, 8], [0.0, 0.0, 1.0]),
    ]


def test_a_new_parameter_has_no_memory_of_the_old_one() -> None:
    shared = parameters(0.0, count=2)
    optimizer = torch.optim.SGD([shared.beta], lr=0.0, momentum=0.9)
    with torch.no_grad():
        shared.beta[1] = 0.7
    shared.beta.grad = torch.tensor([5.0, 5.0])
    optimizer.step()
    assert shared.decay(optimizer) == [0]
    assert optimizer.state[shared.beta]["momentum_buffer"].tolist() == [0.0, 5.0]
    assert shared.beta.tolist() == pytest.approx([1.0, 0.7])


def test_the_lowest_bitwidth_neither_draws_nor_falls() -> None:
    shared = parameters(0.0)
    with torch.no_grad():
        shared.index.fill_(0)
    shared.draw(torch.Generator().manual_seed(0))
    assert shared.chosen is not None
    assert shared.chosen.tolist() == [1.0]
    assert shared.decay(torch.optim.SGD([shared.beta], lr=0.1)) == []
    assert shared.bits().tolist() == [1]


def test_when_time_is_over_the_likelier_bitwidth_counts() -> None:
    shared = parameters(1.0, count=4)
    with torch.no_grad():
        shared.beta.copy_(torch.tensor([0.4, 0.6, 0.0, 1.0]))
    assert shared.settled().tolist() == [2, 3, 3, 3]


def test_granularities_share_parameters() -> None:
    layers = hand({"a.x": (4, 3), "a.y": (2, 4), "b": (3, 2)})
    wanted = {"layer": ([[0], [1], [2]], 3), "block": ([[0], [0], [1]], 2), "net": ([[0], [0], [0]], 1)}
    for granularity, (places, count) in wanted.items():
        found, number = groups_of(layers, granularity)
        assert ([found[layer.name].tolist() for layer in layers], number) == (places, count)
    found, number = groups_of(layers, "kernel")
    assert [found[layer.name].tolist() for layer in layers] == [[0, 1, 2, 3], [4, 5], [6, 7, 8]]
    assert number == 9


def test_kernels_have_bitwidths_of_their_own() -> None:
    shared, weight = parameters(1.0, count=3), torch.randn(3, 5)
    with torch.no_grad():
        shared.index.copy_(torch.tensor([0, 2, 3]))
    layer = StochasticWeight(shared, torch.arange(3), 1.0).eval()
    found = layer(weight)
    for channel, bits in enumerate((1, 3, 4)):
        assert torch.equal(found[channel], dorefa(weight, bits)[channel])


def test_the_quantisation_error_presses_by_size_and_bits() -> None:
    weights = {"a": torch.randn(30, 20, dtype=torch.float64), "b": torch.randn(5, 4, dtype=torch.float64)}
    shared = BitwidthParameters(2, (1, 3, 6), 0.01, "gumbel", 1.0).double()
    with torch.no_grad():
        shared.index.copy_(torch.tensor([1, 2]))
        shared.beta.copy_(torch.tensor([0.5, 0.25]))
    groups = {"a": torch.tensor([0]), "b": torch.tensor([1])}
    wanted = 0.0
    for weight, bits, beta in zip(weights.values(), (3, 6), (0.5, 0.25), strict=True):
        bounded = np.tanh(weight.numpy())
        aim = bounded / np.abs(bounded).max()
        top = 2**bits - 1
        level = 2 * np.rint((aim + 1) / 2 * top) / top - 1
        wanted += top**2 * beta * float(((level - aim) ** 2).sum())
    weights["a"].requires_grad_(True)
    found = quantization_errors(shared, weights, groups, normalised=False)
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-4)
    found.backward()
    assert weights["a"].grad is None
    assert shared.beta.grad is not None
    first, second = shared.beta.grad.tolist()
    assert first > 10 * second > 0  # thirty times the weights
    normalised = quantization_errors(shared, weights, groups, normalised=True)
    normalised_first, normalised_second = torch.autograd.grad(normalised, shared.beta)[0].tolist()
    assert normalised_first == pytest.approx(first / 600, rel=1e-6)
    assert normalised_second == pytest.approx(second / 20, rel=1e-6)
    assert 0.2 < normalised_first < 0.5  # about a third, whatever size and bits


def test_the_error_of_kernels_is_their_own() -> None:
    weight = torch.randn(4, 50)
    shared = BitwidthParameters(4, (1, 3, 6), 0.01, "gumbel", 1.0)
    with torch.no_grad():
        shared.index.copy_(torch.tensor([0, 1, 1, 2]))
    found = quantization_errors(shared, {"a": weight}, {"a": torch.arange(4)}, False)
    (gradient,) = torch.autograd.grad(found, shared.beta)
    assert gradient[0] == 0  # no lower bitwidth: no pressure
    aim = 2 * squashed(weight) - 1
    for channel, bits in ((1, 3), (2, 3), (3, 6)):
        wanted = (2**bits - 1) ** 2 * (dorefa(weight, bits) - aim)[channel].square().sum()
        assert float(gradient[channel]) == pytest.approx(float(wanted), rel=1e-4)


# --- what phase 2 learns from -----------------------------------------------------------------------------


def test_distillation_is_cross_entropy_with_the_teacher() -> None:
    student, teacher = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    p = np.exp(teacher.numpy()) / np.exp(teacher.numpy()).sum(axis=1, keepdims=True)
    q = np.exp(student.numpy()) / np.exp(student.numpy()).sum(axis=1, keepdims=True)
    found = float(distillation(student, teacher))
    assert found == pytest.approx(float(-(p * np.log(q)).sum(axis=1).mean()), rel=1e-9)
    entropy = float(-(p * np.log(p)).sum(axis=1).mean())
    assert found - entropy == pytest.approx(float((p * np.log(p / q)).sum(axis=1).mean()), rel=1e-9)
    assert found >= entropy
    assert float(distillation(teacher, teacher)) == pytest.approx(entropy, rel=1e-9)


def by_hand(values: Any, bits: int) -> float:
    top, total = 2**bits - 1, 0.0
    for n in range(top + 1):
        inside = [v for v in values if round(v * top) == n]
        if inside:
            total += (np.mean(inside) - n / top) ** 2
        if len(inside) >= 2:
            total += np.var(inside, ddof=1)
    return float(total)


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8])
def test_bin_regularisation_is_the_sum_over_all_bins(bits: int) -> None:
    values = np.random.default_rng(bits).uniform(0, 1, size=70)
    found = bin_regularisation(torch.from_numpy(values).reshape(7, 10), bits)
    assert float(found) == pytest.approx(by_hand(values, bits), abs=1e-9)


def test_bin_regularisation_on_paper() -> None:
    # two bits: bins at 0, 1/3, 2/3, 1. One value each in the first three, two in the top one.
    values = torch.tensor([0.1, 0.3, 0.7, 0.9, 1.0], dtype=torch.float64)
    wanted = 0.1**2 + (1 / 3 - 0.3) ** 2 + (0.7 - 2 / 3) ** 2 + 0.05**2 + 0.005
    assert float(bin_regularisation(values, 2)) == pytest.approx(wanted, abs=1e-12)
    levels = torch.arange(4, dtype=torch.float64).repeat(3) / 3
    assert float(bin_regularisation(levels, 2)) == pytest.approx(0, abs=1e-30)


def test_empty_and_single_bins_have_finite_gradients() -> None:
    values = torch.tensor([0.02, 0.98, 0.97], dtype=torch.float64, requires_grad=True)
    bin_regularisation(values, 8).backward()
    assert values.grad is not None
    assert bool(torch.isfinite(values.grad).all())
    assert float(values.grad.abs().sum()) > 0


def test_entropy_norm_rescales_by_the_mean_magnitude() -> None:
    weight = torch.randn(50, dtype=torch.float64)
    scale = 2**2 / (2**3 - 1) * 50 / float(weight.abs().sum())
    wanted = np.clip((scale * weight.numpy() + 1) / 2, 0, 1)
    assert np.allclose(bin_values(weight, 3, entropy_norm=True).numpy(), wanted)
    assert torch.equal(bin_values(weight, 3, entropy_norm=False), squashed(weight))
    both = network_regularisation([(weight, 3), (weight, 32), (weight, 2)], False)
    one, two = (bin_regularisation(squashed(weight), bits) for bits in (3, 2))
    assert float(both) == pytest.approx(float(one + two))


# --- strategies -------------------------------------------------------------------------------------------

LAYERS = hand({"a": (16, 64), "b": (96, 16), "c": (96, 96), "d": (10, 96)})
BUDGET = Budget(2.0, tuple(range(1, 9)), {}, dict.fromkeys("abcd", 2))


def test_uniform_is_the_most_that_fits() -> None:
    assert set(strategies.uniform(LAYERS, BUDGET).values()) == {2}
    pinned = Budget(3.61, tuple(range(1, 9)), {"a": 8, "d": 8}, {})
    found = strategies.uniform(LAYERS, pinned)
    assert (found["a"], found["d"], found["b"]) == (8, 8, 2)
    with pytest.raises(ConfigError, match="a budget of"):
        strategies.uniform(LAYERS, Budget(0.5, (1, 2), {}, {}))


def no_room(strategy: dict[str, int], budget: Budget = BUDGET) -> bool:
    return all(
        strategy[name] == 8 or average_bits(LAYERS, {**strategy, name: strategy[name] + 1}) > budget.weight_bits
        for name in strategy
        if name not in budget.pinned
    )


def test_random_strategies_have_the_budgets_size_and_differ() -> None:
    found = [strategies.random(LAYERS, BUDGET, np.random.default_rng(seed)) for seed in range(40)]
    assert all(average_bits(LAYERS, strategy) <= 2 and no_room(strategy) for strategy in found)
    assert len({tuple(strategy.values()) for strategy in found}) > 10
    pinned = Budget(3.0, tuple(range(1, 9)), {"a": 8}, {})
    assert strategies.random(LAYERS, pinned, np.random.default_rng(0))["a"] == 8


def test_reversed_ranks_have_the_budgets_size() -> None:
    found = strategies.reversed_ranks(LAYERS, {"a": 5, "b": 4, "c": 1, "d": 5}, BUDGET)
    assert average_bits(LAYERS, found) <= 2
    assert no_room(found)
    assert found["a"] == found["d"] == 1
    assert found["c"] >= found["a"]


def test_maximal_strategies_are_all_within_the_budget_and_have_no_room() -> None:
    budget = Budget(2.0, (1, 2, 3, 4), {}, {})
    found = list(strategies.maximal(LAYERS, budget))
    assert len({tuple(strategy.values()) for strategy in found}) == len(found)
    wanted = {
        bits
        for bits in np.ndindex(4, 4, 4, 4)
        if average_bits(LAYERS, dict(zip("abcd", np.array(bits) + 1, strict=True))) <= 2
        and all(
            bits[k] == 3
            or average_bits(LAYERS, dict(zip("abcd", np.array(bits) + 1 + np.eye(4, dtype=int)[k], strict=True))) > 2
            for k in range(4)
        )
    }
    assert {tuple(b - 1 for b in strategy.values()) for strategy in found} == wanted


def test_given_bits_are_checked() -> None:
    assert list(strategies.given(LAYERS, (5, 4, 1, 5), BUDGET).values()) == [5, 4, 1, 5]
    for bits, message in (((1, 2), "has 2 numbers"), ((0, 1, 1, 1), "0 bits"), ((1, 1, 1, 9), "9 bits")):
        with pytest.raises(ConfigError, match=message):
            strategies.given(LAYERS, bits, BUDGET)
    pinned = replace(BUDGET, pinned={"a": 8}, candidates=(1, 2, 3, 4))
    assert list(strategies.given(LAYERS, (8, 4, 1, 4), pinned).values()) == [8, 4, 1, 4]
    for bits, message in (((5, 4, 1, 4), "5 bits for layer 'a': needs 8, as it"), ((8, 5, 1, 4), "needs 1 to 4")):
        with pytest.raises(ConfigError, match=message):
            strategies.given(LAYERS, bits, pinned)


def test_traces_are_those_of_the_hessian(fresh: Problem) -> None:
    class Quadratic(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = torch.nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(x.flatten(1))

    torch.manual_seed(0)
    network = Quadratic().eval()
    layer = Layer("out", (10, 64), 640, 640, 64, 0, 1)
    model = FullPrecision((layer,), "", lambda: network)
    problem = Problem(model, fresh.data, Budget(2.0, (1, 2), {}, {"out": 2}), fresh.ctx)
    config = SDQConfig(allocation="sensitivity", probes=60, batch_size=64)
    found = strategies.traces(network, problem, config)["out"]
    order, exact = Order(range(len(fresh.data)), 64, fresh.ctx.seed_for("run", "probes")), []
    for probe in range(20):
        places = order.of(probe)
        x = fresh.data.prepared(places.tolist()).flatten(1)
        p = torch.softmax(network(x), dim=1)
        exact.append(float(((p - p**2).sum(dim=1) * x.square().sum(dim=1)).mean()))
    assert found == pytest.approx(np.mean(exact), rel=0.15)


def test_sensitive_layers_keep_bits(fresh: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [layer.name for layer in fresh.model.layers]
    config = SDQConfig(allocation="sensitivity")
    found = {}
    for loud in (0, 3):
        told = {name: 1e4 if place == loud else 1e-4 for place, name in enumerate(names)}
        monkeypatch.setattr(strategies, "traces", lambda *_, told=told: told)
        found[loud], rows = strategies.sensitivity(fresh, config)
        assert average_bits(fresh.model.layers, found[loud]) <= 2
        assert [row["trace"] for row in rows] == list(told.values())
    assert found[0][names[0]] > found[3][names[0]]
    assert found[3][names[3]] > found[0][names[3]]


def test_the_oracle_takes_the_best_on_held_out_pictures(fresh: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [layer.name for layer in fresh.model.layers]
    tried: list[tuple[str, int, Any]] = []

    def fake_train(problem: Any, strategy: Any, c: Any, name: str, places: Any, epochs: int) -> Any:
        tried.append((name, epochs, places))
        return strategy, []

    def accuracy(network: Any, problem: Any, places: Any) -> float:
        assert not set(places) & set(tried[-1][2])
        return network[names[1]] / 8 - network[names[0]] / 80

    monkeypatch.setattr(strategies, "train", fake_train)
    monkeypatch.setattr(strategies, "_accuracy", accuracy)
    problem = Problem(fresh.model, fresh.data, Budget(2.0, (1, 2, 3, 4), {}, fresh.budget.input_bits), fresh.ctx)
    strategy, rows = strategies.oracle(problem, SDQConfig(allocation="oracle", oracle_finalists=2, oracle_epochs=3))
    every = list(strategies.maximal(fresh.model.layers, problem.budget))
    assert strategy == max(every, key=lambda one: one[names[1]] / 8 - one[names[0]] / 80)
    assert [epochs for _, epochs, _ in tried] == [3] * len(every) + [0] * 2
    assert len(rows) == len(tried)
    monkeypatch.setattr(strategies, "_LISTED", 10)
    drawn = strategies.tried_strategies(problem, SDQConfig(allocation="oracle", oracle_most=7))
    assert 3 <= len(drawn) <= 7
    assert all(one in every for one in drawn)


# --- the two phases ---------------------------------------------------------------------------------------


def test_the_search_meets_the_budget_and_bits_never_rise(problem: Problem, fresh: Problem) -> None:
    found = search(fresh, SDQConfig(**{**QUICK, "search_steps": 400, "lambda_q": 0.003}))
    layers = problem.model.layers
    assert 2 - 0.1 <= average_bits(layers, found.strategy) <= 2
    assert found.trace[: len(layers)] == [
        {"step": 0, "layer": layer.name, "bits": 8, "weight_bits": 8.0} for layer in layers
    ]
    for layer in layers:
        bits = [row["bits"] for row in found.trace if row["layer"] == layer.name]
        assert bits == sorted(bits, reverse=True)
        assert all(before - after == 1 for before, after in itertools.pairwise(bits))
        assert bits[-1] == found.strategy[layer.name]
    assert found.trace[-1]["weight_bits"] == average_bits(layers, found.strategy)
    assert found.steps == found.trace[-1]["step"]


def test_more_pressure_takes_more_bits(problem: Problem, tmp_path: Path) -> None:
    averages = []
    for number, pressure in enumerate((0.0002, 0.0008, 0.0032)):
        ctx = context(tmp_path / str(number))
        one = Problem(problem.model, problem.data, problem.budget, ctx)
        strategy = search(one, SDQConfig(**{**QUICK, "search_steps": 40, "lambda_q": pressure})).strategy
        averages.append(average_bits(problem.model.layers, strategy))
    assert averages[0] > averages[1] > averages[2]


def test_the_search_is_made_once_for_rows_of_the_same_phase_1(fresh: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    first = searched(fresh, SDQConfig(**QUICK))
    monkeypatch.setattr("benchsuite_sdq.search.search", None)
    again = searched(fresh, SDQConfig(**QUICK, distillation=False, lambda_e=0.0))
    assert again == first
    with pytest.raises(TypeError):
        searched(fresh, SDQConfig(**{**QUICK, "lambda_q": 0.02}))


def test_pinned_layers_keep_their_bits(digits: Any, folder: Path, tmp_path: Path) -> None:
    protocol = QuantizationProtocol(teacher_epochs=4, calibration=64, pinned_bits=8, weight_bits=3.0)
    made = problem_of(digits, folder, protocol)
    one = Problem(made.model, made.data, made.budget, context(tmp_path))
    found = search(one, SDQConfig(**{**QUICK, "search_steps": 200}))
    bits = list(found.strategy.values())
    assert (bits[0], bits[-1]) == (8, 8)
    assert max(bits[1:-1]) < 8


@pytest.mark.parametrize("granularity", ["block", "net", "kernel"])
def test_other_granularities_search_too(fresh: Problem, granularity: Any) -> None:
    found = search(fresh, SDQConfig(**{**QUICK, "lambda_q": 0.1, "search_steps": 25, "granularity": granularity}))
    bits = list(found.strategy.values())
    assert min(bits) < 8
    if granularity == "net":
        assert len(set(bits)) == 1


def test_phase_2_starts_from_the_full_precision_network_and_learns(fresh: Problem, tmp_path: Path) -> None:
    strategy = strategies.uniform(fresh.model.layers, fresh.budget)
    network, curve = train(fresh, strategy, SDQConfig(epochs=3, lambda_e=0.01))
    assert curve[-1]["task_loss"] < 0.7 * curve[0]["task_loss"]
    assert curve[0]["loss"] > curve[0]["task_loss"]
    still = Problem(fresh.model, fresh.data, fresh.budget, context(tmp_path / "still"))
    untouched, _ = train(still, strategy, SDQConfig(steps=1, lr=1e-12))
    whole = fresh.model.build()
    for name, module in quantized_layers(untouched):
        assert torch.allclose(module.layer.weight, whole.get_submodule(name).weight, atol=1e-6)
    assert not network.training


@pytest.mark.parametrize("distillation", [True, False])
def test_phase_2_learns_the_classes_of_the_pictures(fresh: Problem, distillation: bool) -> None:
    strategy = dict.fromkeys((layer.name for layer in fresh.model.layers), 4)
    network, _ = train(fresh, strategy, SDQConfig(epochs=3, lambda_e=0.0, distillation=distillation))
    with torch.no_grad():
        answers = network(fresh.data.prepared(range(len(fresh.data)))).argmax(1).numpy()
    assert (answers == fresh.data.labels).mean() > 0.7


@pytest.mark.parametrize("changes", [{"distillation": False}, {"lambda_e": 0.0}, {"entropy_norm": True}])
def test_the_parts_of_phase_2_change_what_is_learned(fresh: Problem, tmp_path: Path, changes: dict[str, Any]) -> None:
    strategy = strategies.uniform(fresh.model.layers, fresh.budget)
    settings: dict[str, Any] = {"steps": 5, "lambda_e": 0.1}
    networks = []
    for number, more in enumerate(({}, changes)):
        one = Problem(fresh.model, fresh.data, fresh.budget, context(tmp_path / str(number)))
        networks.append(train(one, strategy, SDQConfig(**(settings | more)))[0])
    first, second = (torch.cat([p.flatten() for p in network.parameters()]) for network in networks)
    assert not torch.allclose(first, second)


def test_what_is_handed_back_computes_what_was_trained(fresh: Problem) -> None:
    strategy = dict(zip([la.name for la in fresh.model.layers], (5, 2, 1, 32), strict=True))
    network, _ = train(fresh, strategy, SDQConfig(epochs=1))
    given = exported(network, fresh.model)
    assert [given.weights[name].bits for name in strategy] == [5, 2, 1, 32]
    read = quantized_network(given, fresh.model.build())
    pictures = fresh.data.prepared(range(200))
    with torch.no_grad():
        assert float((read(pictures) - network(pictures)).abs().max()) <= 1e-5


def test_a_pass_shows_every_picture_once() -> None:
    order = Order(range(10), 3, seed=5)
    first, second = ([order.of(step).tolist() for step in steps] for steps in (range(3), range(3, 6)))
    assert len({place for batch in first for place in batch}) == 9
    assert first != second
    assert Order(range(10), 3, seed=5).of(4).tolist() == second[1]


def test_ablations_differ_from_the_method_in_one_thing() -> None:
    registry = get_registry()
    settings = {
        name: vars(SDQConfig(**registry.method(name).presets["embedded"].resolve({})))
        for name in ("sdq", "sdq-no-kd", "sdq-no-ebr", "sdq-interpolation", "uniform-dorefa", "random-strategy-1")
    }
    different = {name: {key for key in found if found[key] != settings["sdq"][key]} for name, found in settings.items()}
    assert different == {
        "sdq": set(),
        "sdq-no-kd": {"distillation"},
        "sdq-no-ebr": {"lambda_e"},
        "sdq-interpolation": {"estimator"},
        "uniform-dorefa": {"allocation"},
        "random-strategy-1": {"allocation"},
    }
    draws = {
        SDQConfig(**registry.method(f"random-strategy-{n}").presets["embedded"].resolve({})).draw for n in (1, 2, 3)
    }
    assert draws == {1, 2, 3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta_lr": 0.0}, "beta_lr must be positive"),
        ({"beta_threshold": 1.0}, "starts at 1"),
        ({"lambda_q": -1.0}, "lambda_q must not be negative"),
        ({"batch_size": 1}, "batch norms"),
        ({"epochs": 0}, "give steps"),
        ({"search_steps": 0}, "search_steps must be at least 1"),
        ({"given": "1,2"}, "allocation=given"),
        ({"allocation": "given"}, "allocation=given"),
        ({"allocation": "given", "given": "1;2"}, "write whole numbers"),
    ],
)
def test_odd_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SDQConfig(**settings)


def test_rounding_passes_the_gradient() -> None:
    x = torch.tensor([0.5, 1.5, 2.4], requires_grad=True)
    found = round_through(x)
    found.backward(torch.tensor([1.0, 2.0, 3.0]))
    assert found.tolist() == [0, 2, 2]
    assert x.grad is not None
    assert x.grad.tolist() == [1, 2, 3]


def test_scales_of_a_network(problem: Problem) -> None:
    found = list(scales_of(problem.model).values())
    assert found[:-1] == [1, 1, 1]
    assert found[-1] != 1


# --- what a whole run is made of --------------------------------------------------------------------------


def betas_after(problem: Problem, folder: Path, c: SDQConfig, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Return the bitwidth parameters at the end of a search."""
    seen: list[BitwidthParameters] = []
    decay = BitwidthParameters.decay

    def watched(shared: BitwidthParameters, optimizer: torch.optim.Optimizer) -> list[int]:
        seen.append(shared)
        return decay(shared, optimizer)

    with monkeypatch.context() as patch:
        patch.setattr(BitwidthParameters, "decay", watched)
        search(Problem(problem.model, problem.data, problem.budget, context(folder)), c)
    return seen[-1].beta.detach().clone()


def test_the_search_draws_before_every_step(fresh: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, chosen = BitwidthParameters.draw, []

    def watched(shared: BitwidthParameters, generator: torch.Generator) -> None:
        draw(shared, generator)
        assert shared.chosen is not None
        chosen.append(shared.chosen.tolist())

    monkeypatch.setattr(BitwidthParameters, "draw", watched)
    search(fresh, SDQConfig(search_steps=40, lambda_q=0.003, beta_lr=0.02))
    assert len(chosen) == 40
    assert {value for drawn in chosen for value in drawn} == {0.0, 1.0}


def test_the_task_alone_moves_bitwidth_parameters(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = SDQConfig(search_steps=6, lambda_q=0.0, beta_lr=5.0, beta_threshold=1e-9)
    assert betas_after(problem, tmp_path, c, monkeypatch).min() < 1


@pytest.mark.parametrize(
    "changes", [{"estimator": "interpolation"}, {"temperature": 5.0}, {"normalised_qer": True}, {"activation": "pact"}]
)
def test_the_settings_of_the_search_reach_it(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {"search_steps": 12, "lambda_q": 1e-3, "beta_lr": 0.2, "beta_threshold": 1e-9}
    first, second = (
        betas_after(problem, tmp_path / str(number), SDQConfig(**(settings | more)), monkeypatch)
        for number, more in enumerate(({}, changes))
    )
    assert not torch.equal(first, second)


def test_whatever_decides_a_search_has_it_made_anew(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def one(problem: Problem, c: SDQConfig) -> Any:
        made.append(1)
        return Found({layer.name: 1 for layer in problem.model.layers} | {"a": len(made)}, 300, [])

    monkeypatch.setattr("benchsuite_sdq.search.search", one)
    base = SDQConfig(**QUICK)
    ctx = context(tmp_path)
    first = Problem(problem.model, problem.data, problem.budget, ctx)
    assert [searched(first, base).strategy["a"], searched(first, base).strategy["a"]] == [1, 1]
    changed = {"estimator": "interpolation", "granularity": "net", "temperature": 2.0, "normalised_qer": True}
    changed |= {"beta_threshold": 0.02, "beta_lr": 0.1, "search_steps": 61, "search_optimizer": "sgd"}
    changed |= {"search_lr": 0.01, "batch_size": 32, "activation": "pact", "lambda_q": 0.02}
    for name, value in changed.items():
        before = len(made)
        searched(first, SDQConfig(**{**QUICK, name: value}))
        assert len(made) == before + 1, name
    others = {
        "model": Problem(replace(problem.model, digest="other"), problem.data, problem.budget, ctx),
        "budget": Problem(problem.model, problem.data, replace(problem.budget, weight_bits=3.0), ctx),
        "pins": Problem(problem.model, problem.data, replace(problem.budget, pinned={"1": 8}), ctx),
        "seed": Problem(problem.model, problem.data, problem.budget, context(tmp_path, seeds={"run": 1})),
    }
    for name, other in others.items():
        before = len(made)
        searched(other, base)
        assert len(made) == before + 1, name


def test_what_is_likelier_to_fall_has_fallen_when_time_is_over(fresh: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BitwidthParameters, "settled", lambda shared: torch.full_like(shared.index, 3))
    assert set(search(fresh, SDQConfig(search_steps=2, lambda_q=0.0)).strategy.values()) == {3}


def test_a_search_that_goes_on_after_a_kill_tells_the_same(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EVERY_STEPS, "7")
    c = SDQConfig(**{**QUICK, "search_steps": 80, "lambda_q": 0.003})
    whole = search(Problem(problem.model, problem.data, problem.budget, context(tmp_path / "whole")), c)
    assert len(whole.trace) > 12
    for kill in (("search", 24), None):
        ctx = context(tmp_path / "killed", Killable, kill=kill)
        one = Problem(problem.model, problem.data, problem.budget, ctx)
        if kill is None:
            assert search(one, c) == whole
        else:
            with pytest.raises(Killed):
                search(one, c)
    assert ctx.taken["search"][0] == 21


def test_hessian_traces_go_on_after_a_kill(problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EVERY_STEPS, "1")

    def made(folder: str, kill: Any = None) -> dict[str, float]:
        ctx = context(tmp_path / folder, Killable, kill=kill)
        one = Problem(problem.model, problem.data, problem.budget, ctx)
        return strategies.traces(problem.model.build(), one, SDQConfig(probes=4))

    whole = made("whole")
    with pytest.raises(Killed):
        made("killed", ("probes", 2))
    assert made("killed") == whole
    assert made("killed") == whole  # nothing is left to do


def test_phase_2_goes_on_after_a_kill(problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EVERY_STEPS, "4")
    strategy = strategies.uniform(problem.model.layers, problem.budget)

    def made(folder: str, kill: Any = None) -> Any:
        ctx = context(tmp_path / folder, Killable, kill=kill)
        one = Problem(problem.model, problem.data, problem.budget, ctx)
        network, curve = train(one, strategy, SDQConfig(steps=20))
        return curve, [value.tolist() for value in network.state_dict().values()]

    whole = made("whole")
    assert len(whole[0]) == 20
    with pytest.raises(Killed):
        made("killed", ("phase 2", 10))
    assert made("killed") == whole


def test_the_trace_tells_what_fell_when_time_was_over(fresh: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BitwidthParameters, "settled", lambda shared: torch.full_like(shared.index, 3))
    found = search(fresh, SDQConfig(search_steps=2, lambda_q=0.0))
    last = {row["layer"]: row["bits"] for row in found.trace}
    assert last == found.strategy
    assert [row["step"] for row in found.trace[-4:]] == [2] * 4


def test_a_short_search_warns(fresh: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(fresh.ctx.log, "warning", lambda text, *more: warnings.append(text))
    for _ in range(2):  # made, then taken from the cache
        searched(fresh, SDQConfig(search_steps=2))
        short, over = warnings
        assert "the search ended after 2 steps, fewer than 300" in short
        assert "the search ended at 8 bits, above the budget of 2" in over
        warnings.clear()


@pytest.mark.parametrize("changes", [{"weight_decay": 1.0}, {"activation": "pact"}, {"optimizer": "sgd"}])
def test_the_settings_of_phase_2_reach_it(problem: Problem, tmp_path: Path, changes: dict[str, Any]) -> None:
    strategy = strategies.uniform(problem.model.layers, problem.budget)
    found = []
    for number, more in enumerate(({}, changes)):
        one = Problem(problem.model, problem.data, problem.budget, context(tmp_path / str(number)))
        network, _ = train(one, strategy, SDQConfig(**{"steps": 5, "lambda_e": 0.0} | more))
        found.append(torch.cat([m.layer.weight.detach().flatten() for _, m in quantized_layers(network)]))
    assert not torch.allclose(*found)


def test_phase_2_trains_its_norms_under_a_falling_rate_and_a_teacher_that_stays(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.optim.Optimizer] = []
    rates, teachers = [], []
    build = problem.model.build

    def watched() -> torch.nn.Module:
        network = build()
        teachers.append(network)
        return network

    def optimizer(*given: Any) -> torch.optim.Optimizer:
        made.append(make_optimizer(*given))
        made[-1].register_step_post_hook(lambda *_: rates.append(made[-1].param_groups[0]["lr"]))
        return made[-1]

    monkeypatch.setattr("benchsuite_sdq.training.make_optimizer", optimizer)
    one = Problem(replace(problem.model, build=watched), problem.data, problem.budget, context(tmp_path))
    strategy = strategies.uniform(problem.model.layers, problem.budget)
    network, _ = train(one, strategy, SDQConfig(steps=8, lr=0.01))
    wanted = [0.01 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert rates == pytest.approx(wanted)
    whole = build().state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in teachers[-1].state_dict().items())
    assert not teachers[-1].training
    means = {name: value for name, value in network.state_dict().items() if name.endswith("running_mean")}
    assert all(not torch.allclose(value, whole[name]) for name, value in means.items())
    scales = scales_of(problem.model)
    assert {name: module.weight_quantizer.scale for name, module in quantized_layers(network)} == scales


def test_strategies_come_from_where_the_row_says(fresh: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, budget = fresh.model.layers, fresh.budget
    found = Found(dict(zip([la.name for la in layers], (5, 4, 1, 5), strict=True)), 400, [{"step": 0}])
    monkeypatch.setattr("benchsuite_sdq.method.searched", lambda problem, c: found)
    monkeypatch.setattr(strategies, "sensitivity", lambda problem, c: ({"s": 1}, [{"row": 1}]))
    monkeypatch.setattr(strategies, "oracle", lambda problem, c: ({"o": 1}, [{"row": 2}]))

    def of(**settings: Any) -> Any:
        return SDQ(SDQConfig(**settings))._strategy(fresh)

    assert of() == (found.strategy, {"search": found.trace, "search_length": [{"steps": 400}]})
    assert of(allocation="reversed")[0] == strategies.reversed_ranks(layers, found.strategy, budget)
    assert of(allocation="sensitivity") == ({"s": 1}, {"sensitivity": [{"row": 1}]})
    assert of(allocation="oracle") == ({"o": 1}, {"oracle": [{"row": 2}]})
    assert list(of(allocation="given", given="5,4,1,5")[0].values()) == [5, 4, 1, 5]
    assert of(allocation="uniform")[0] == strategies.uniform(layers, budget)
    drawn = [tuple(of(allocation="random", draw=number)[0].values()) for number in range(1, 7)]
    assert drawn[0] == tuple(of(allocation="random", draw=1)[0].values())
    assert len(set(drawn)) > 1


@pytest.mark.slow
def test_resnet18_takes_two_steps_in_both_phases(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "data", (240, 260), {"train": 6, "val": 2})
    data = load_imagenet(tmp_path / "data", 0)
    settings = MixedPrecisionQuantization.presets["paper"].resolve({"dataset": "imagenet"})
    protocol = QuantizationProtocol(**settings | {"teacher_batch": 4, "calibration": 8})
    ctx = context(tmp_path, max_steps=2)
    method = SDQ(SDQConfig(batch_size=4))
    outcome = MixedPrecisionQuantization().evaluate(method, {"train": data, "test": data}, protocol, ctx)
    assert outcome.tables["search_length"] == [{"steps": 2}]
    assert [row["step"] for row in outcome.tables["training"]] == [0, 1]
    assert all(math.isfinite(row["loss"]) for row in outcome.tables["training"])
    assert len(outcome.tables["layers"]) == 21
    assert outcome.tables["reload"][0]["largest_difference_of_logits"] <= 1e-5
