"""BAGUA's parts, in one process: compressors, schedules, QAdam, formulas, and the emulation of all workers."""

from __future__ import annotations

import itertools
import re
import threading
import time
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from benchsuite.core.claim import read_resource  # noqa: E402
from benchsuite.core.errors import ConfigError  # noqa: E402
from benchsuite.core.registry import get_registry, load_object  # noqa: E402
from benchsuite.leaderboard.build import reported_of  # noqa: E402
from benchsuite.tasks.distributed_training.contract import Worker, World  # noqa: E402
from benchsuite_bagua import algorithms, emulation, method, primitives, traffic  # noqa: E402
from benchsuite_bagua.bucketing import bucket_sizes, flatten_in_place, padded  # noqa: E402
from benchsuite_bagua.compressor import MinMaxUInt8, OneBit  # noqa: E402
from benchsuite_bagua.config import (  # noqa: E402
    AsyncConfig,
    ByteGradConfig,
    DecentralizedConfig,
    GradientAllReduceConfig,
    QAdamConfig,
)
from benchsuite_bagua.primitives import CommunicationThread, shift_one_peer  # noqa: E402
from benchsuite_bagua.qadam import QAdam  # noqa: E402

SHIFT_ONE = {
    2: [[1, 0]],
    4: [[2, 3, 0, 1], [3, 2, 1, 0]],
    6: [[3, 4, 5, 0, 1, 2], [4, 5, 3, 2, 0, 1], [5, 3, 4, 1, 2, 0]],
    8: [
        [4, 5, 6, 7, 0, 1, 2, 3],
        [5, 6, 7, 4, 3, 0, 1, 2],
        [6, 7, 4, 5, 2, 3, 0, 1],
        [7, 4, 5, 6, 1, 2, 3, 0],
    ],
}


def through(values: list[float], compressor=None) -> torch.Tensor:
    chunk = torch.tensor([values])
    compressor = compressor or MinMaxUInt8()
    return compressor.decompress(compressor.compress(chunk), chunk.shape[1])[0]


def test_wire_layout_is_a_header_of_32_bytes_and_aligned_codes() -> None:
    codes = MinMaxUInt8().compress(torch.linspace(-1, 3, 33)[None].repeat(2, 1))
    assert codes.shape == (2, 32 + 64)
    assert codes.dtype == torch.uint8
    assert codes[0, :8].clone().view(torch.float32).tolist() == [-1.0, 3.0]
    assert codes[0, 8:32].count_nonzero() == 0
    assert [MinMaxUInt8().chunk_bytes(m) for m in (1, 32, 33, 1000)] == [64, 64, 96, 1056]


def test_a_symmetric_chunk_keeps_the_sign_of_its_minimum() -> None:
    # Without the clamp at 0 the minimum wraps around to +1.0039.
    decoded = through([-1.0, 0.0, 1.0])
    assert decoded.tolist() == pytest.approx([-0.9961, 0.0, 1.0039], abs=1e-4)


def test_zeros_and_constants_come_back() -> None:
    assert through([0.0] * 5).tolist() == [0.0] * 5
    assert MinMaxUInt8().compress(torch.zeros(1, 3))[0, 32:35].tolist() == [255, 255, 255]
    for constant in (1.0, -3.7, 1e-3, 1234.5):
        assert through([constant] * 4).tolist() == pytest.approx([constant] * 4, rel=2e-7)


@settings(max_examples=100)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=70))
def test_the_error_is_at_most_one_step(values: list[float]) -> None:
    error = (through(values) - torch.tensor(values)).abs().max().item()
    step = (max(values) - min(values) + 1e-7) / 255  # as in the formula of the scale
    assert error <= step * (1 + 1e-4) + 1e-4 * max(map(abs, values))


def test_chunks_are_coded_independently_and_half_precision_is_taken() -> None:
    chunks = torch.stack([torch.linspace(-1, 1, 40), torch.linspace(0, 900, 40)])
    together = MinMaxUInt8().compress(chunks)
    assert torch.equal(together, torch.cat([MinMaxUInt8().compress(chunk[None]) for chunk in chunks]))
    decoded = MinMaxUInt8().decompress(MinMaxUInt8().compress(chunks.half()), 40)
    near, far = (decoded - chunks).abs().amax(dim=1).tolist()
    assert near < 0.01
    assert far < 4.0


def test_codes_follow_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    for size in (1, 31, 32, 100):
        chunk = torch.randn(size, generator=generator) * 3
        low, high = chunk.min(), chunk.max()
        scale = 255 / (high - low + 1e-7)
        upper = torch.round(high * scale)
        lower = upper - 255
        expected = (torch.minimum(torch.round(chunk * scale), upper) - lower).clamp(0, 255)
        codes = MinMaxUInt8().compress(chunk[None])[0, 32 : 32 + size].float()
        assert (codes - expected).abs().max() <= 1
        decoded = through(chunk.tolist())
        assert (decoded - (expected + lower) / scale).abs().max() <= 1 / scale


def test_codes_round_half_to_even() -> None:
    codes = MinMaxUInt8().compress(torch.tensor([[0.0, 0.5, 1.5, 2.5, 3.6, 255.0]]))[0, 32:38]
    assert codes.tolist() == [0, 0, 2, 2, 4, 255]  # one step is 1


def test_zero_is_a_level_of_its_own() -> None:
    for low in (-0.3, -0.77, -41.0):
        assert through([low, 0.0, 1.0])[1].item() == 0.0


def test_one_bit_sends_signs_and_the_mean_magnitude() -> None:
    assert through([1.0, -3.0, 0.0, 2.0], OneBit()).tolist() == [1.5, -1.5, 1.5, 1.5]
    assert OneBit().chunk_bytes(256) == 32 + 32
    long = torch.randn(1, 77, generator=torch.Generator().manual_seed(0))
    decoded = OneBit().decompress(OneBit().compress(long), 77)
    assert torch.equal(decoded.sign(), torch.where(long >= 0, 1.0, -1.0))


@pytest.mark.parametrize("size", SHIFT_ONE)
def test_the_schedule_of_shift_one(size: int) -> None:
    period = size // 2
    for communications in range(3 * period):
        peers = [shift_one_peer(rank, size, communications) for rank in range(size)]
        assert peers == SHIFT_ONE[size][communications % period]
        assert all(peers[peers[rank]] == rank != peers[rank] for rank in range(size))


def test_shift_one_with_an_interval_and_with_an_odd_number() -> None:
    run = emulation.AveragedWeights(torch.zeros(4, 3), 0.1, 0.0, DecentralizedConfig("shift_one", interval=3))
    partners = [run.partners(step) for step in range(9)]
    assert [p if isinstance(p, str) else p[:, 0].tolist() for p in partners] == [
        SHIFT_ONE[4][0], "nobody", "nobody", SHIFT_ONE[4][1], "nobody", "nobody", SHIFT_ONE[4][0], "nobody", "nobody",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="needs an even number of them, not 3: choose peers=all"):
        shift_one_peer(0, 3, 0)
    shift_one = method.Decentralized(DecentralizedConfig("shift_one"))
    with pytest.raises(ConfigError, match="even number"):
        shift_one.sent_bytes([(2, 2)], World(5), 1, 0)
    with pytest.raises(ConfigError, match="even number"):
        shift_one.emulate(torch.zeros(7, 2), 0.1, 0.9)


def test_buckets_are_filled_until_they_are_large_enough() -> None:
    assert bucket_sizes([5, 65, 13, 91], 200) == [70, 104]
    assert bucket_sizes([5, 65, 13, 91], 10**6) == [174]
    assert bucket_sizes([1, 100], 4) == [1, 100]
    assert bucket_sizes([30, 20, 60], 200) == [50, 60]


def test_flat_weights_are_views_and_padding_is_zero() -> None:
    model = torch.nn.Linear(3, 2)
    flat = flatten_in_place(model.parameters())
    flat.fill_(7.0)
    assert model.weight.flatten().tolist() + model.bias.tolist() == [7.0] * 8
    assert padded(torch.ones(5), 4).tolist() == [1, 1, 1, 1, 1, 0, 0, 0]


def test_formulas() -> None:
    n, elements = 4, 301_066
    assert traffic.full_precision_bytes(elements, n) == Fraction(2 * 3 * 4 * elements, 4)
    assert traffic.low_precision_bytes(MinMaxUInt8(), elements, n) == 2 * 3 * (32 + 75_296)
    assert traffic.ring_bytes(MinMaxUInt8(), elements, n) == 2 * (32 + 301_088)
    assert traffic.ring_bytes(MinMaxUInt8(), elements, n) <= 2 * elements + 2 * 64
    full = traffic.full_precision_bytes(elements, n)
    assert 3.9 <= full / traffic.low_precision_bytes(MinMaxUInt8(), elements, n) <= 4.0
    assert 31 <= full / traffic.low_precision_bytes(OneBit(), elements, n) <= 32
    # Four nodes of two: 4 N go to and from the leader inside, a half of the leaders' bytes on average outside.
    inside = Fraction(4 * elements)
    assert traffic.hierarchical_bytes(elements, World(8, 2), True, traffic.full_precision_bytes) == inside + full / 2


def test_what_a_step_of_the_workload_costs() -> None:
    """Payload and rounds of messages, for a thousand parameters in one bucket on four workers."""

    def cost(row: type, step: int = 0, **settings: Any) -> tuple[float, float]:
        exchange = row(row.Config(**settings)).exchange(1000, 4, step)
        return exchange.sent_bytes, exchange.rounds

    full, compressed = (6000.0, 6), (6.0 * (32 + 256), 2)
    assert cost(method.GradientAllReduce) == full
    assert cost(method.ByteGrad) == compressed
    assert cost(method.ByteGrad, compressor="one-bit") == (6.0 * (32 + 32), 2)
    assert [cost(method.QuantizedAdam, step, warmup_steps=2) for step in (0, 1, 2)] == [full, full, compressed]
    nothing = (0.0, 0.0)
    assert [cost(method.Decentralized, step, interval=2) for step in range(3)] == [full, nothing, full]
    assert [cost(method.Decentralized, step, peers="shift_one", interval=2) for step in (0, 1)] == [(4000, 1), nothing]
    ring = [cost(method.LowPrecisionDecentralized, step, interval=2) for step in (0, 1)]
    assert ring == [(2 * (32 + 1024), 1), nothing]
    background = method.AsyncModelAverage(AsyncConfig(warmup_steps=1, emulated_interval=4, emulated_delay=2))
    assert background.exchange(1000, 4, 0).blocking
    assert not background.exchange(1000, 4, 1).blocking
    assert background.exchange(1000, 4, 1).sent_bytes == pytest.approx(1000)  # an average of 6,000 bytes every 6 steps


def test_a_large_model_is_exchanged_in_buckets() -> None:
    elements = 50 * 2**18  # of 10 MiB each: five
    assert method.GradientAllReduce(GradientAllReduceConfig()).exchange(elements, 4, 0).rounds == 6 * 5
    assert method.ByteGrad(ByteGradConfig()).exchange(elements, 4, 0).rounds == 2 * 5
    assert method.Decentralized(DecentralizedConfig()).exchange(elements, 4, 0).rounds == 6


def test_presets_are_those_of_the_card() -> None:
    def settings(row: str, preset: str = "embedded") -> Any:
        spec = get_registry().method(row)
        return load_object(spec.config)(**spec.presets[preset].settings)

    assert settings("bytegrad", "paper") == ByteGradConfig(
        hierarchical=True, bucket_mib=10.0, compressor="minmax-uint8", error_feedback=False
    )
    adam = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "warmup_steps": 30, "eps": 1e-4, "weight_decay": 0.0}
    assert settings("qadam") == QAdamConfig(**adam, mode="official")
    assert settings("qadam-fixed") == QAdamConfig(**adam, mode="fixed")
    assert settings("onebit-adam") == QAdamConfig(**adam, mode="fixed", compressor="one-bit", error_feedback=True)
    assert settings("decentralized") == DecentralizedConfig("all", interval=1, hierarchical=True)
    assert settings("decentralized-shift-one") == DecentralizedConfig("shift_one", interval=1, hierarchical=True)
    assert settings("local-sgd") == DecentralizedConfig("all", interval=4, hierarchical=True)
    assert settings("low-precision-decentralized").interval == 1
    assert (settings("async-model-average").sync_interval_ms, AsyncConfig().sync_interval_ms) == (20.0, 500.0)
    assert (QAdamConfig().warmup_steps, QAdamConfig().eps) == (100, 1e-8)  # the official code's


def test_the_card_names_every_row_with_its_role_and_says_what_is_not_built() -> None:
    card = read_resource("benchsuite_bagua:README.md").decode()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (method|ablation|extension) \|", card, re.M))
    specs = get_registry().methods_for("distributed-training")
    assert rows == {spec.name: spec.role for spec in specs if spec.card == "benchsuite_bagua:README.md"}
    _, _, missing = card.partition("## Not built")
    section, _, _ = missing.partition("\n## ")
    for what in ("autotuner", "ablation of the execution optimiser", "Parameter servers", "several machines", "NCCL"):
        assert what in section


def test_the_cards_throttled_steps_take_no_less_than_their_bytes_at_100_mbit() -> None:
    card = read_resource("benchsuite_bagua:README.md").decode()
    shapes = [(10,), (10, 512), (512,), (512, 512), (512,), (512, 64)]
    lines = re.findall(r"^\| `([\w-]+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| \+[\d.]+ % \|$", card, re.M)
    assert len(lines) == 5
    (ddp,) = [float(measured) for row, measured, _, _ in lines if row == "ddp"]
    for row, measured, in_theory, speed in lines:
        spec = get_registry().method(row)
        algorithm = load_object(spec.load)(load_object(spec.config)(**spec.presets["embedded"].settings))
        by_formula = 1000 * 8 * float(algorithm.sent_bytes(shapes, World(2), 35, 0)) / 35 / 100e6
        assert float(in_theory) == pytest.approx(by_formula, abs=0.06)
        assert float(in_theory) <= float(measured) <= 1.2 * float(in_theory)
        assert float(speed) == pytest.approx(ddp / float(measured), abs=0.01)


def test_what_the_paper_and_its_tutorials_report_is_there_once_and_makes_sense() -> None:
    numbers, _ = reported_of([get_registry().method("bytegrad")])
    values = {(number.data, number.row, number.metric): number.value for number in numbers}
    assert len(values) == len(numbers)

    def scaling(system: str) -> list[float]:
        data = "VGG16 scaling on {} GPUs at 100 Gbit/s"
        return [values[data.format(gpus), system, "throughput"] for gpus in (8, 16, 32, 64, 128)]

    linear = scaling("linear scaling")
    assert linear == pytest.approx([linear[0] * 2**doublings for doublings in range(5)], rel=0.02)
    for system in ("Bagua", "PyTorch-DDP", "Horovod", "BytePS"):
        assert all(a < b for a, b in itertools.pairwise(scaling(system)))
        assert all(own <= ideal for own, ideal in zip(scaling(system), linear, strict=True))
    convergence = "VGG16 convergence on 128 GPUs"
    assert values[convergence, "Bagua ByteGrad", "accuracy"] >= values[convergence, "PyTorch-DDP", "accuracy"]
    assert values[convergence, "Bagua ByteGrad", "training_time"] < values[convergence, "PyTorch-DDP", "training_time"]
    squad = "BERT-Large fine-tuned on SQuAD (128 GPUs)"
    assert values[squad, "Bagua QAdam", "f1"] > values[squad, "other systems", "f1"]
    losses = {row: value for (data, row, metric), value in values.items() if metric.startswith("final_loss")}
    official = {"gradient_allreduce", "bytegrad", "decentralized", "low_precision_decentralized", "qadam", "async"}
    assert set(losses) == official
    assert min(losses, key=lambda row: losses[row]) == "qadam"


# ---- QAdam -----------------------------------------------------------------------------------------------------


def train_qadam(config: QAdamConfig, steps: int, seed: int = 0) -> list[torch.Tensor]:
    """Train one worker, exactly; returns its weights after each step."""
    generator = torch.Generator().manual_seed(seed)
    parameter = torch.nn.Parameter(torch.randn(9, generator=generator))
    adam = QAdam([parameter], config)
    history = []
    for _ in range(steps):
        gradient = 2 * parameter.detach() + torch.randn(9, generator=generator)
        parameter.grad = gradient if adam.averages_gradients else adam.local_momentum(parameter, gradient)
        adam.step()
        history.append(parameter.detach().clone())
    return history


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_warm_up_is_adam(weight_decay: float) -> None:
    ours = train_qadam(QAdamConfig(lr=0.01, warmup_steps=50, weight_decay=weight_decay), 49)
    generator = torch.Generator().manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(9, generator=generator))
    adam = torch.optim.Adam([parameter], lr=0.01, weight_decay=weight_decay)
    for step in range(49):
        parameter.grad = 2 * parameter.detach() + torch.randn(9, generator=generator)
        adam.step()
        assert torch.allclose(ours[step], parameter.detach(), atol=1e-6, rtol=0)


def test_official_drops_the_gradient_of_the_last_warm_up_step_and_grows_its_steps() -> None:
    config = QAdamConfig(lr=0.01, warmup_steps=5, beta2=0.99)
    parameter = torch.nn.Parameter(torch.ones(3))
    adam = QAdam([parameter], config)
    state = adam.state[parameter]
    for step in range(1, 9):
        before = {name: tensor.clone() for name, tensor in state.items()}
        moved = parameter.detach().clone()
        gradient = torch.full((3,), float(step))
        parameter.grad = gradient if adam.averages_gradients else adam.local_momentum(parameter, gradient)
        adam.step()
        assert torch.equal(state["exp_avg"], before["exp_avg"]) == (step == 5)
        assert torch.equal(state["exp_avg_sq"], before["exp_avg_sq"]) == (step >= 5)
        denominator = (state["exp_avg_sq"] / (1 - 0.99**step)).sqrt() + config.eps
        expected = moved - 0.01 / (1 - 0.9**step) * state["exp_avg"] / denominator
        assert torch.allclose(parameter.detach(), expected, atol=1e-6)


def test_fixed_differs_from_official_from_the_last_warm_up_step_on() -> None:
    official = train_qadam(QAdamConfig(lr=0.01, warmup_steps=10), 15)
    fixed = train_qadam(QAdamConfig(lr=0.01, warmup_steps=10, mode="fixed"), 15)
    equal = [torch.equal(a, b) for a, b in zip(official, fixed, strict=True)]
    assert equal == [True] * 9 + [False] * 6


def test_fixed_keeps_the_step_size_and_the_weight_decay() -> None:
    config = QAdamConfig(lr=0.01, warmup_steps=3, beta1=0.0, mode="fixed", weight_decay=0.5, eps=0.0)
    parameter = torch.nn.Parameter(torch.ones(1))
    adam = QAdam([parameter], config)
    moves = []
    for _ in range(2000):
        parameter.data.fill_(1.0)
        gradient = torch.ones(1)
        parameter.grad = gradient if adam.averages_gradients else adam.local_momentum(parameter, gradient)
        adam.step()
        moves.append(1.0 - parameter.item())
    # The gradient is 1.5 at every step, so every step of Adam is lr, and stays so when the moment is frozen.
    assert moves == pytest.approx([0.01] * 2000, rel=1e-3)


def test_weight_decay_after_the_warm_up_is_in_fixed_only() -> None:
    parameter, gradient = torch.nn.Parameter(torch.full((2,), 3.0)), torch.ones(2)
    for mode, expected in (("official", 0.1 * 1.0), ("fixed", 0.1 * (1.0 + 0.5 * 3.0))):
        config = QAdamConfig(warmup_steps=2, beta1=0.9, weight_decay=0.5, mode=mode)  # type: ignore[arg-type]  # a loop
        momentum = QAdam([parameter], config).local_momentum(parameter, gradient)
        assert momentum.tolist() == pytest.approx([expected] * 2)


@pytest.mark.parametrize("mode", ["official", "fixed"])
def test_the_warm_up_has_as_many_steps_as_it_says(mode: Any) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    adam = QAdam([parameter], QAdamConfig(warmup_steps=4, mode=mode))
    averages = []
    for _ in range(6):
        averages.append(adam.averages_gradients)
        parameter.grad = torch.ones(2)
        adam.step()
    assert averages == [True] * 4 + [False] * 2


# ---- all workers in one process ---------------------------------------------------------------------------------


def start(workers: int = 4, size: int = 101) -> torch.Tensor:
    return torch.randn(workers, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_the_low_precision_mean_is_within_two_steps(workers: int) -> None:
    vectors = start(workers)
    mean = emulation.EmulatedLowPrecisionMean(MinMaxUInt8())(vectors)
    step = (vectors.max() - vectors.min()) / 255
    assert (mean - vectors.mean(dim=0)).abs().max() <= 2 * step


def test_error_feedback_makes_the_sum_of_many_one_bit_means_right() -> None:
    vectors, total = start(4, 64), torch.zeros(64)
    mean = emulation.EmulatedLowPrecisionMean(OneBit(), error_feedback=True)
    for _ in range(400):
        total += mean(vectors)
    plain = emulation.EmulatedLowPrecisionMean(OneBit())(vectors)
    truth = vectors.mean(dim=0)
    assert (total / 400 - truth).abs().max() < 0.05 < (plain - truth).abs().max()


def test_decentralized_takes_the_gradient_at_weights_not_averaged_and_keeps_the_mean() -> None:
    weights = start()
    mean = weights.mean(dim=0)
    before = weights.clone()
    run = emulation.AveragedWeights(weights, 0.1, 0.0, DecentralizedConfig("all"))
    run.before_forward()
    assert torch.equal(weights, before)
    run.after_backward()
    assert torch.allclose(weights.mean(dim=0), mean, atol=1e-6)
    assert (weights - weights[0]).abs().max() == 0
    gradients = torch.ones_like(weights)
    run.update(gradients)
    assert torch.allclose(weights, mean - 0.1, atol=1e-6)


def test_a_cycle_of_shift_one_brings_workers_together() -> None:
    weights = start(8)
    mean, spread = weights.mean(dim=0), [(weights - weights.mean(dim=0)).norm().item()]
    run = emulation.AveragedWeights(weights, 0.1, 0.0, DecentralizedConfig("shift_one"))
    for _ in range(4):
        run.before_forward()
        run.after_backward()
        spread.append((weights - mean).norm().item())
    assert torch.allclose(weights.mean(dim=0), mean, atol=1e-6)
    assert spread[-1] < 0.5 * spread[0]


def test_the_ring_follows_its_recurrence() -> None:
    weights = torch.zeros(5, 40) + torch.linspace(-1, 1, 40)
    run = emulation.CompressedRing(weights, 1.0, 0.0, 1)
    generator = torch.Generator().manual_seed(2)
    own = [row.clone() for row in weights]
    for _ in range(6):
        updates = 0.1 * torch.randn(5, 40, generator=generator)
        run.update(updates)
        moved = weights.clone()
        run.after_step()
        new = []
        for i in range(5):
            difference = moved[i] + own[i - 1] / 3 + own[(i + 1) % 5] / 3 - 5 / 3 * own[i]
            new.append(own[i] + through(difference.tolist()))
        own = new
        assert torch.allclose(weights, torch.stack(own), atol=1e-5)


def test_background_averages_keep_the_steps_made_meanwhile() -> None:
    weights = start(3, 10)
    mean = weights.mean(dim=0).clone()
    run = emulation.BackgroundAverage(weights, 1.0, 0.0, AsyncConfig(emulated_interval=1, emulated_delay=2))
    for _ in range(2):
        run.before_forward()
        run.update(run.combine_gradients(torch.full_like(weights, 0.25)))
    run.before_forward()  # what was started two steps ago arrives
    assert torch.allclose(weights, (mean - 0.5).expand(3, -1), atol=1e-6)
    assert run.partners(0) == "nobody"


def test_background_averages_take_their_delay_and_interval() -> None:
    weights = start(3, 10)
    config = AsyncConfig(emulated_interval=4, emulated_delay=3, warmup_steps=2)
    run = emulation.BackgroundAverage(weights, 0.0, 0.0, config)
    arrived = []
    for step in range(15):
        before = weights.clone()
        run.before_forward()
        if not torch.equal(before, weights):
            arrived.append(step)
            weights += start(3, 10) * step  # apart again
        gradients = start(3, 10)
        assert torch.equal(run.combine_gradients(gradients), gradients) == (step >= 2)
        assert run.partners(step) == ("everybody" if step < 2 else "nobody")
    assert arrived == [5, 12]  # after the warm-up of two: started at 2, and four steps after the first at 9


def test_every_row_is_emulated_and_says_what_it_sends() -> None:
    for spec in get_registry().methods.values():
        if "distributed-training-simulated" not in spec.tasks:
            continue
        cls = load_object(spec.load)
        row = cls(load_object(spec.config)(**spec.presets["embedded"].settings))
        weights = torch.zeros(4, 21)
        run = row.emulate(weights, 0.1, 0.9)
        for step in range(3):
            run.before_forward()
            gradients = run.combine_gradients(start(4, 21) * 0.01)
            run.after_backward()
            run.update(gradients)
            run.after_step()
            exchange = row.exchange(1000, 4, step)
            assert exchange.sent_bytes >= 0
        assert torch.isfinite(weights).all(), spec.name
        assert weights.abs().max() > 0


# ---- beside training ---------------------------------------------------------------------------------------------


def test_an_exchange_goes_on_beside_whoever_starts_it() -> None:
    goes_on = threading.Event()

    def exchange() -> torch.Tensor:
        assert goes_on.wait(5)
        return torch.ones(2)

    thread = CommunicationThread(torch.device("cpu"))
    future = thread.start(exchange)
    assert not future.done()
    goes_on.set()
    assert future.wait().tolist() == [1, 1]
    thread.close()


def test_receives_are_posted_before_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    # Over gloo the notice of a waiting receive would else stand in line behind the own message.
    posted: list[list[tuple[str, int]]] = []

    def batch(operations: list[Any]) -> list[Any]:
        posted.append([(operation.op.__name__, operation.peer) for operation in operations])
        return []

    monkeypatch.setattr(primitives.dist, "P2POp", lambda op, tensor, peer, group: SimpleNamespace(op=op, peer=peer))
    monkeypatch.setattr(primitives.dist, "batch_isend_irecv", batch)
    participants: Any = SimpleNamespace(group=None, size=4, index=1, rank_of=lambda index: index)
    primitives.mean_with_peer(torch.ones(4), participants, communications=0)
    primitives.LowPrecisionRing(torch.zeros(4), participants)(torch.zeros(4))
    assert posted == [[("irecv", 3), ("isend", 3)], [("irecv", 0), ("irecv", 2), ("isend", 0), ("isend", 2)]]


class OtherRank:
    """Stands for torch.distributed: the other of two ranks, whose weights are given, answers when it is let."""

    ReduceOp = torch.distributed.ReduceOp

    def __init__(self, weights: torch.Tensor) -> None:
        self.weights = weights
        self.asked, self.answers = threading.Event(), threading.Event()
        self.gradients = 0
        self.stops = False

    def all_reduce(self, tensor: torch.Tensor, op: Any = ReduceOp.SUM, group: Any = None) -> None:
        if tensor.dtype == torch.uint8:  # whether to go on
            other = torch.tensor([not self.stops], dtype=torch.uint8)
            tensor.copy_(torch.minimum(tensor, other) if op == self.ReduceOp.MIN else torch.maximum(tensor, other))
        elif group == "gradients":
            self.gradients += 1
            tensor += 3.0
        else:
            self.asked.set()
            assert self.answers.wait(10)
            tensor += self.weights

    def barrier(self, group: Any = None) -> None:
        self.answers.set()


class TestAsync:
    """One rank of two in the background; the other one's weights are all 4, the own start at 0 and are moved by 1."""

    @pytest.fixture
    def other(self, monkeypatch: pytest.MonkeyPatch) -> OtherRank:
        other = OtherRank(torch.full((6,), 4.0))
        monkeypatch.setattr(algorithms, "dist", other)
        monkeypatch.setattr(primitives.dist, "all_reduce", other.all_reduce)
        return other

    def join(self, interval_ms: float = 60_000.0, warmup_steps: int = 0) -> algorithms.AsyncSession:
        model = torch.nn.Linear(6, 1, bias=False)
        torch.nn.init.zeros_(model.weight)
        model.weight.grad = torch.ones(1, 6)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        gradients = GradientGroup("gradients")
        worker = Worker(
            0, World(2), model, optimizer, gradients, None, lambda ranks=None: "weights", torch.device("cpu")
        )
        return algorithms.AsyncSession(worker, AsyncConfig(interval_ms, warmup_steps))

    def weights(self, session: Any) -> float:
        (weights,) = {round(w, 4) for w in session.model.weight.flatten().tolist()}
        return weights

    def wait_for_average(self, session: Any, number: int = 1) -> None:
        deadline = time.monotonic() + 10
        while session.syncs < number and time.monotonic() < deadline:
            time.sleep(0.005)
        assert session.syncs == number

    def test_steps_made_during_an_average_survive(self, other: OtherRank) -> None:
        session = self.join()
        session.before_forward()
        assert other.asked.wait(10)  # the weights are copied
        session.after_backward()
        session.step()
        assert self.weights(session) == -1.0
        other.answers.set()
        self.wait_for_average(session)
        assert self.weights(session) == -1.0 + (0.0 + 4.0) / 2 - 0.0
        session.close()

    def test_forward_and_backward_keep_the_background_out(self, other: OtherRank) -> None:
        session = self.join()
        session.before_forward()
        other.answers.set()
        time.sleep(0.3)
        assert (session.syncs, self.weights(session)) == (0, 0.0)
        session.after_backward()
        self.wait_for_average(session)
        assert self.weights(session) == 2.0
        session.close()

    def test_the_optimiser_keeps_the_background_out(self, other: OtherRank) -> None:
        session = self.join()
        session.before_forward()
        assert other.asked.wait(10)
        session.after_backward()
        seen = []

        def slow_step() -> None:
            other.answers.set()
            time.sleep(0.3)
            seen.append((session.syncs, self.weights(session)))

        session.optimizer.step = slow_step  # type: ignore[method-assign]  # an optimiser that takes its time
        session.step()
        assert seen == [(0, 0.0)]
        self.wait_for_average(session)
        session.close()

    def test_the_background_gets_its_turn_before_training_goes_on(self) -> None:
        turn = algorithms._Turn()
        turn.take_for_training()
        order: list[str] = []

        def write() -> None:
            turn.take_for_writing()
            order.append("background")
            turn.give_back()

        background = threading.Thread(target=write)
        background.start()
        while not turn._asked:
            time.sleep(0.005)
        turn.give_back()
        turn.take_for_training()
        order.append("training")
        turn.give_back()
        background.join()
        assert order == ["background", "training"]

    @pytest.mark.parametrize(("interval_ms", "most"), [(60_000.0, 1), (100.0, 6), (0.0, 10**9)])
    def test_averages_keep_to_the_clock(self, other: OtherRank, interval_ms: float, most: int) -> None:
        other.answers.set()
        session = self.join(interval_ms)
        session.before_forward()
        session.after_backward()
        time.sleep(0.4)
        assert (1 if most < 10 else 8) <= session.syncs <= most
        session.close()

    def test_the_warm_up_averages_gradients(self, other: OtherRank) -> None:
        session = self.join(warmup_steps=2)
        for step in range(3):
            assert (step, other.asked.is_set()) == (step, False)
            session.model.weight.grad = torch.ones(1, 6)
            session.before_forward()
            session.after_backward()
            # The other one's gradients are all 3.
            assert session.model.weight.grad.tolist() == [[2.0 if step < 2 else 1.0] * 6]
            assert other.gradients == min(step + 1, 2)
            if step < 2:
                session.step()
                time.sleep(0.05)
        assert other.asked.wait(10)
        session.close()

    def test_one_rank_that_stops_stops_all(self, other: OtherRank) -> None:
        other.stops = True
        other.answers.set()
        session = self.join(0.0)
        session.before_forward()
        session.after_backward()
        time.sleep(0.2)
        assert session.syncs == 0
        assert session._thread is not None
        assert not session._thread.is_alive()
        session.close()


class GradientGroup(str):
    """A group of two ranks, for gradients."""

    def size(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QAdamConfig(warmup_steps=0), "warmup_steps must be at least 2"),
        (lambda: QAdamConfig(warmup_steps=0, mode="fixed"), "warmup_steps must be at least 1"),
        (lambda: QAdamConfig(beta1=1.0), "beta1 must be in"),
        (lambda: DecentralizedConfig(interval=0), "interval must be at least 1"),
        (lambda: ByteGradConfig(bucket_mib=0), "bucket_mib must be above 0"),
        (lambda: AsyncConfig(sync_interval_ms=-1), "sync_interval_ms must be at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
