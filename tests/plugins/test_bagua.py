"""BAGUA's parts, in one process: compressors, schedules, QAdam, formulas, and the emulation of all workers."""

from __future__ import annotations

from fractions import Fraction

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from benchsuite.core.errors import ConfigError  # noqa: E402
from benchsuite.core.registry import get_registry, load_object  # noqa: E402
from benchsuite.tasks.distributed_training.contract import World  # noqa: E402
from benchsuite_bagua import emulation, method, traffic  # noqa: E402
from benchsuite_bagua.bucketing import bucket_sizes, flatten_in_place, padded  # noqa: E402
from benchsuite_bagua.compressor import MinMaxUInt8, OneBit  # noqa: E402
from benchsuite_bagua.config import AsyncConfig, ByteGradConfig, DecentralizedConfig, QAdamConfig  # noqa: E402
from benchsuite_bagua.primitives import shift_one_peer  # noqa: E402
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
