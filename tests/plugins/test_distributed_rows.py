"""Every algorithm on real ranks over gloo: what is counted is what the formula says, and what is learnt is right.

Two worlds are started, of two and of four ranks; in each all algorithms train a small model of odd sizes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402

from benchsuite.core.errors import ConfigError  # noqa: E402
from benchsuite.core.registry import get_registry, load_object  # noqa: E402
from benchsuite.tasks.distributed_training.contract import Worker, World  # noqa: E402
from benchsuite.tasks.distributed_training.emulation import all_gradients  # noqa: E402
from benchsuite.tasks.distributed_training.models import finishing_order  # noqa: E402
from benchsuite.tasks.distributed_training.ranks import run_ranks  # noqa: E402
from benchsuite.tasks.distributed_training.transport import Traffic, counted_group, register_counted_backend  # noqa: E402
from benchsuite_bagua.bucketing import bucket_sizes  # noqa: E402
from benchsuite_bagua.compressor import MinMaxUInt8, OneBit  # noqa: E402
from benchsuite_bagua.emulation import EmulatedLowPrecisionMean  # noqa: E402
from benchsuite_bagua.primitives import LowPrecisionMean  # noqa: E402

STEPS, LR, MOMENTUM = 6, 0.1, 0.9
SEVERAL = 200 / 2**20  # MiB: two buckets of the small model, of 70 and 104 elements


@dataclass(frozen=True)
class Case:
    row: str
    settings: dict[str, Any] = field(default_factory=dict)
    per_node: int = 1
    ranks: tuple[int, ...] = (2, 4)
    like: str = "itself"  # what it learns the same as: a row's emulation, with a worker a rank ...
    on_nodes: bool = False  # ... or a worker a node
    model: str = "mlp"

    @property
    def name(self) -> str:
        settings = "-".join(f"{key}={value}" for key, value in self.settings.items() if key != "bucket_mib")
        several = "several-buckets" if self.settings.get("bucket_mib") == SEVERAL else ""
        convolutions = "convolutions" if self.model == "conv" else ""
        return "-".join(filter(None, [self.row, settings, several, convolutions, f"nodes-of-{self.per_node}"]))

    def method(self) -> Any:
        spec = get_registry().method(self.row)
        settings = {**spec.presets["embedded"].settings, **self.settings}
        return load_object(spec.load)(load_object(spec.config)(**settings))


CASES = [
    Case("ddp"),
    Case("ddp", {"bucket_mib": SEVERAL}),
    Case("ddp-fp16"),
    Case("ddp-bf16"),
    Case("powersgd", {"plain_steps": 3, "minimum_rate": 1.0}, like=""),
    Case("powersgd", {"plain_steps": 2, "rank": 2}, like=""),
    Case("post-local-sgd", {"plain_steps": 2, "period": 3}, like=""),
    Case("post-local-sgd", {"plain_steps": 2, "period": 3}, 2, (4,), like=""),
    Case("gradient-allreduce"),
    Case("gradient-allreduce", {"bucket_mib": SEVERAL, "hierarchical": True}, 2),
    Case("bytegrad"),
    Case("bytegrad", {"error_feedback": True}),
    Case("bytegrad", {"error_feedback": True, "compressor": "one-bit"}),
    Case("bytegrad", {"bucket_mib": SEVERAL}),
    Case("bytegrad", {"bucket_mib": SEVERAL, "compressor": "one-bit", "error_feedback": True}),
    Case("bytegrad", {"bucket_mib": SEVERAL}, 2, on_nodes=True),
    Case("bytegrad", {"bucket_mib": SEVERAL}, model="conv"),
    Case("qadam", {"warmup_steps": 3, "lr": 0.05, "bucket_mib": SEVERAL}, model="conv"),
    Case("powersgd", {"plain_steps": 2}, like="", model="conv"),
    Case("qadam", {"warmup_steps": 3, "lr": 0.05}),
    Case("qadam-fixed", {"warmup_steps": 3, "lr": 0.05}),
    Case("qadam", {"warmup_steps": 3, "lr": 0.05, "bucket_mib": SEVERAL}, 2, (4,), on_nodes=True),
    Case("onebit-adam", {"warmup_steps": 3, "lr": 0.05}),
    Case("decentralized"),
    Case("decentralized", {"interval": 4}, 2, (4,)),
    Case("decentralized-shift-one"),
    Case("decentralized-shift-one", {"interval": 2}),
    Case("decentralized-shift-one", {}, 2, (4,), like="decentralized"),  # two nodes: a mean of two is one of all
    Case("low-precision-decentralized"),
    Case("low-precision-decentralized", {"interval": 2}),
    Case("low-precision-decentralized", {}, 2, (4,), on_nodes=True),
    Case("local-sgd"),
]
ASYNC = Case("async-model-average", {"sync_interval_ms": 1.0, "warmup_steps": 2})


def small_model(kind: str = "mlp") -> torch.nn.Module:
    torch.manual_seed(3)
    if kind == "conv":
        # Backward finishes a convolution's weight before its bias: not the reverse of their registration, and with
        # these sizes other buckets.
        layers = [torch.nn.Unflatten(1, (1, 7)), torch.nn.Conv1d(1, 9, 3), torch.nn.ReLU(), torch.nn.Conv1d(9, 32, 3)]
        return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(96, 5))
    return torch.nn.Sequential(torch.nn.Linear(7, 13), torch.nn.ReLU(), torch.nn.Linear(13, 5))


def batch(rank: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * rank + step)
    return torch.randn(8, 7, generator=generator), torch.randint(5, (8,), generator=generator)


def flat(model: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def make_worker(rank: int, world: World, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Worker:
    group, control, device = counted_group(), dist.group.WORLD, torch.device("cpu")
    return Worker(rank, world, model, optimizer, group, control, counted_group, device)


def train(case: Case, rank: int, size: int, traffic: Traffic, steps: int) -> dict[str, Any]:
    model = small_model(case.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    worker = make_worker(rank, World(size, case.per_node), model, optimizer)
    before = traffic.sent_bytes
    session = case.method().join(worker)
    for step in range(steps):
        x, y = batch(rank, step)
        session.before_forward()
        loss = torch.nn.functional.cross_entropy(session.model(x), y)
        session.optimizer.zero_grad()
        loss.backward()
        session.after_backward()
        session.step()
        session.after_step()
    session.close()
    found = {"sent": traffic.sent_bytes - before, "syncs": session.syncs, "weights": flat(model)}
    if hasattr(session, "ring"):
        found |= {"own": session.ring.own, "left": session.ring.left, "right": session.ring.right}
    return found


def be_a_rank(rank: int, size: int, folder: Path, tell: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting-point'}", rank=rank, world_size=size)
    traffic = Traffic()
    register_counted_backend("gloo", traffic)
    found: dict[str, Any] = {c.name: train(c, rank, size, traffic, STEPS) for c in CASES if size in c.ranks}
    # Ranks that make unequal numbers of steps (after the warm-up) still stop together.
    found["async"] = train(ASYNC, rank, size, traffic, STEPS + 20 * rank)
    found["refusals"] = refusals(rank, size)
    found["means"] = {n: low_precision_mean(rank, counted_group(range(n)), n) for n in range(2, size + 1)}
    found["feedback"] = means_with_feedback(rank, counted_group())
    found["traffic"] = collectives(rank, size, counted_group(), traffic)
    dist.barrier()
    return found


def low_precision_mean(rank: int, group: Any, size: int) -> torch.Tensor | None:
    if rank >= size:
        return None
    vector = torch.randn(101, generator=torch.Generator().manual_seed(rank))
    LowPrecisionMean(MinMaxUInt8())(vector, group)
    return vector


def vectors_of(size: int, bucket: int, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(10 * bucket + step)
    return torch.randn(size, 50, generator=generator) + bucket


def means_with_feedback(rank: int, group: Any) -> list[torch.Tensor]:
    """Return one-bit means of two buckets, four times in turn."""
    mean, found = LowPrecisionMean(OneBit(), error_feedback=True), []
    for step in range(4):
        for bucket in range(2):
            vector = vectors_of(group.size(), bucket, step)[rank].clone()
            mean(vector, group, bucket)
            found.append(vector)
    return found


def collectives(rank: int, size: int, group: Any, traffic: Traffic) -> dict[str, Fraction]:
    tensor, many = torch.ones(3 * size, dtype=torch.float32), torch.empty(3 * size * size)
    calls = {
        "all_reduce": lambda: dist.all_reduce(tensor, group=group),
        "broadcast": lambda: dist.broadcast(tensor, 0, group=group),
        "reduce": lambda: dist.reduce(tensor, 0, group=group),
        "all_gather": lambda: dist.all_gather(list(many.view(size, -1).unbind()), tensor, group=group),
        "all_to_all_single": lambda: dist.all_to_all_single(torch.empty_like(tensor), tensor, group=group),
        "reduce_scatter": lambda: dist.reduce_scatter_tensor(torch.empty(3), tensor, group=group),
        "barrier": lambda: dist.barrier(group=group),
    }
    found = {}
    for name, call in calls.items():
        before = traffic.sent_bytes
        call()
        found[name] = traffic.sent_bytes - before
    before = traffic.sent_bytes
    if rank == 0:
        dist.send(tensor, 1, group=group)
    elif rank == 1:
        dist.recv(tensor, 0, group=group)
    found["send"] = traffic.sent_bytes - before
    return found


def refusals(rank: int, size: int) -> dict[str, str]:
    """Return what is said to settings and optimisers that cannot work."""

    def said(case: Case, **optimizer: Any) -> str:
        model = small_model()
        parameters = list(model.parameters())[optimizer.pop("without", 0) :]
        worker = make_worker(rank, World(size), model, torch.optim.SGD(parameters, lr=LR, **optimizer))
        try:
            case.method().join(worker).close()
        except ConfigError as error:
            return str(error)
        return ""

    ring = Case("low-precision-decentralized")
    return {
        "powersgd": said(Case("powersgd", {"bucket_mib": SEVERAL})),
        "one bucket": said(Case("powersgd", {"bucket_mib": 1.0})),
        "not all": said(ring, without=1),
        "fused": said(ring, fused=True),
    }


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What the ranks of each world found."""
    found = {}
    for size in (2, 4):
        folder = tmp_path_factory.mktemp(f"world-{size}")
        found[size] = run_ranks(be_a_rank, [(rank, size, folder) for rank in range(size)], folder)
    return found


def both_worlds(cases: list[Case]) -> list[Any]:
    return [pytest.param(c, size, id=f"{c.name}-{size}") for c in cases for size in c.ranks]


SHAPES = {
    kind: [tuple(p.shape) for p in finishing_order(small_model(kind), torch.zeros(2, 7))] for kind in ("mlp", "conv")
}


@pytest.mark.parametrize(("case", "size"), both_worlds(CASES))
def test_counted_bytes_equal_the_formula_exactly(worlds: Any, case: Case, size: int) -> None:
    counted = sum(rank[case.name]["sent"] for rank in worlds[size])
    syncs = worlds[size][0][case.name]["syncs"]
    assert counted / size == case.method().sent_bytes(SHAPES[case.model], World(size, case.per_node), STEPS, syncs)
    assert counted > 0


class MeansOfBuckets:
    """The emulated low-precision mean in the buckets that DDP makes after its first step."""

    def __init__(self, like: EmulatedLowPrecisionMean, case: Case) -> None:
        model = small_model(case.model)
        order, numbers = finishing_order(model, torch.zeros(2, 7)), itertools.count()
        places = {p: [next(numbers) for _ in range(p.numel())] for p in model.parameters()}
        bucket_bytes = int(case.method().config.bucket_mib * 2**20)
        sizes = bucket_sizes([p.numel() for p in order], bucket_bytes)
        self.buckets = torch.tensor([place for p in order for place in places[p]]).split(sizes)
        feedback = like._memory is not None
        self.means = [EmulatedLowPrecisionMean(like.compressor, feedback) for _ in self.buckets]

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        out = torch.empty(vectors.shape[1])
        for places, mean in zip(self.buckets, self.means, strict=True):
            out[places] = mean(vectors[:, places])
        return out


def emulate(case: Case, size: int) -> torch.Tensor:
    """Return what each rank (or node) learns according to the emulation."""
    model = small_model(case.model)
    per_worker = case.per_node if case.on_nodes else 1
    weights = flat(model).repeat(size // per_worker, 1)
    row = case if case.like == "itself" else Case(case.like, case.settings)
    run = row.method().emulate(weights, LR, MOMENTUM)
    for step in range(STEPS):
        batches = [batch(rank, step) for rank in range(size)]
        run.before_forward()
        x, y = (torch.stack(part) for part in zip(*batches, strict=True))
        gradients, _ = all_gradients(model, weights.repeat_interleave(per_worker, dim=0), x, y)
        gradients = run.combine_gradients(gradients.unflatten(0, (-1, per_worker)).mean(dim=1))
        run.after_backward()
        run.update(gradients)
        run.after_step()
        if step == 0 and hasattr(run, "_mean"):
            run._mean = MeansOfBuckets(run._mean, case)
    return weights.repeat_interleave(per_worker, dim=0)


@pytest.mark.parametrize(("case", "size"), both_worlds([c for c in CASES if c.like]))
def test_ranks_learn_what_the_emulation_says(worlds: Any, case: Case, size: int) -> None:
    expected = emulate(case, size)
    real = torch.stack([rank[case.name]["weights"] for rank in worlds[size]])
    moved = (expected - flat(small_model(case.model))).abs().mean()
    assert moved > 0.005
    # A value on the edge of two codes may fall to either side.
    assert (real - expected).abs().mean() < 0.02 * moved


@pytest.mark.parametrize("size", [2, 4])
def test_gradient_allreduce_is_ddp(worlds: Any, size: int) -> None:
    for rank in worlds[size]:
        ours, theirs = rank["gradient-allreduce-nodes-of-1"], rank["ddp-nodes-of-1"]
        assert torch.allclose(ours["weights"], theirs["weights"], atol=1e-6)


@pytest.mark.parametrize("size", [2, 4])
def test_centralised_algorithms_keep_ranks_equal_bit_for_bit(worlds: Any, size: int) -> None:
    rows = ("ddp", "powersgd", "gradient", "bytegrad", "qadam", "onebit")
    for case in CASES:
        if case.row.startswith(rows) and size in case.ranks:
            first, *others = (rank[case.name]["weights"] for rank in worlds[size])
            assert all(torch.equal(first, other) for other in others), case.name


@pytest.mark.parametrize("case", [c for c in CASES if c.row.startswith("low-precision")], ids=lambda c: c.name)
@pytest.mark.parametrize("size", [2, 4])
def test_replicas_on_the_ring_equal_the_neighbours_own_bit_for_bit(worlds: Any, case: Case, size: int) -> None:
    if size not in case.ranks:
        pytest.skip("not in this world")
    leaders = [rank[case.name] for rank in worlds[size]][:: case.per_node]
    for index, rank in enumerate(leaders):
        assert torch.equal(rank["left"], leaders[index - 1]["own"])
        assert torch.equal(rank["right"], leaders[(index + 1) % len(leaders)]["own"])
        if case.settings.get("interval", 1) == 1:
            assert torch.equal(rank["weights"], rank["own"])


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_low_precision_mean_is_the_same_everywhere_and_as_defined(worlds: Any, size: int) -> None:
    found = [rank["means"][size] for rank in worlds[4]][:size]
    assert all(torch.equal(found[0], other) for other in found)
    vectors = torch.stack([torch.randn(101, generator=torch.Generator().manual_seed(r)) for r in range(size)])
    step = (vectors.max() - vectors.min()) / 255
    assert (found[0] - EmulatedLowPrecisionMean(MinMaxUInt8())(vectors)).abs().max() <= step
    assert (found[0] - vectors.mean(dim=0)).abs().max() <= 2 * step


@pytest.mark.parametrize("size", [2, 4])
def test_lost_parts_are_sent_later(worlds: Any, size: int) -> None:
    """Both compressions add what they lost the last time, of the same bucket."""
    means = [EmulatedLowPrecisionMean(OneBit(), error_feedback=True) for _ in range(2)]
    plain = EmulatedLowPrecisionMean(OneBit())
    found, differs = iter(worlds[size][0]["feedback"]), []
    for step in range(4):
        for bucket in range(2):
            vectors = vectors_of(size, bucket, step)
            expected, real = means[bucket](vectors), next(found)
            assert torch.isclose(real, expected, atol=1e-4).float().mean() > 0.95
            differs.append((expected - plain(vectors)).abs().mean().item())
    assert min(differs[2:]) > 0.1  # the memory matters


@pytest.mark.parametrize("size", [2, 4])
def test_async_stops_cleanly_after_unequal_steps_and_counts_its_averages(worlds: Any, size: int) -> None:
    ranks = [rank["async"] for rank in worlds[size]]
    syncs = {rank["syncs"] for rank in ranks}
    assert len(syncs) == 1
    counted = sum(rank["sent"] for rank in ranks) / size
    assert counted == ASYNC.method().sent_bytes(SHAPES["mlp"], World(size), STEPS, syncs.pop())


@pytest.mark.parametrize("size", [2, 4])
def test_the_counter_knows_every_collective(worlds: Any, size: int) -> None:
    payload = 4 * 3 * size
    found = [rank["traffic"] for rank in worlds[size]]
    share = Fraction((size - 1) * payload, size)
    assert {name: value for name, value in found[0].items() if name != "send"} == {
        "all_reduce": 2 * share,
        "broadcast": share,
        "reduce": share,
        "all_gather": (size - 1) * payload,
        "all_to_all_single": share,
        "reduce_scatter": share,
        "barrier": 0,
    }
    assert [rank["send"] for rank in found[:2]] == [payload, 0]


def test_what_cannot_work_is_refused_in_one_line(worlds: Any) -> None:
    said = worlds[2][0]["refusals"]
    assert "PowerSGD over gloo works with one bucket only" in said["powersgd"]
    assert "set powersgd.bucket_mib=none" in said["powersgd"]
    assert said["one bucket"] == ""
    assert "parameter '0.weight' belongs to no group of the optimiser" in said["not all"]
    assert "fused optimiser cannot be used" in said["fused"]
    assert not any("\n" in text for text in said.values())
