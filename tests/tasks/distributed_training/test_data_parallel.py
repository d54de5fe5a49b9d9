"""The training loops: what every rank or worker trains on, and how."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchsuite.core.registry import get_registry, load_object  # noqa: E402
from benchsuite.datasets.tabular_digits.reader import TabularDataset, load_linear_teacher  # noqa: E402
from benchsuite.harness.context import HarnessContext  # noqa: E402
from benchsuite.tasks.distributed_training import data_parallel, emulation  # noqa: E402
from benchsuite.tasks.distributed_training.contract import DistributedTrainingProtocol  # noqa: E402
from benchsuite.tasks.distributed_training.data_parallel import _batches  # noqa: E402
from benchsuite.tasks.distributed_training.models import build_model  # noqa: E402
from benchsuite.tasks.distributed_training.simulated_contract import SimulatedTrainingProtocol  # noqa: E402


def epochs(rank: int, number: int, seed: int = 5) -> list[list[int]]:
    """Return the samples of a rank of two in each epoch: of 15 samples, two batches of three a rank."""
    nothing, count = np.empty(0, dtype=np.int64), 15
    features = np.arange(count, dtype=np.float32)[:, None]
    dataset = TabularDataset("numbers", features, np.arange(count) % 4, np.arange(count), nothing, nothing, 4)
    protocol = DistributedTrainingProtocol(world_size=2, local_batch=3)
    found = []
    for x, y in itertools.islice(_batches(dataset, protocol, rank, seed), 2 * number):
        assert y.tolist() == [int(value) % 4 for value in x[:, 0]]
        found.append([int(value) for value in x[:, 0]])
    assert {len(batch) for batch in found} == {3}
    return [found[i] + found[i + 1] for i in range(0, 2 * number, 2)]


def test_ranks_share_every_epoch() -> None:
    one, other = epochs(0, 4), epochs(1, 4)
    for mine, theirs in zip(one, other, strict=True):
        assert len({*mine, *theirs}) == 12  # nobody sees a sample twice; what does not fill a batch is left out
    assert len({tuple(mine) for mine in one}) == 4  # in another order every time
    assert len(set().union(*one)) > 6
    assert epochs(0, 4, seed=6) != one
    assert epochs(0, 4) == one


DATA = load_linear_teacher(None, 0)


def make_context(folder: Path) -> HarnessContext:
    return HarnessContext(
        seeds={"run": 0},
        seed_axes=("run",),
        workdir=folder,
        artifact_folder=folder / "artifacts",
        cache_root=folder / "cache",
        shared_digest="",
    )


def method(row: str) -> Any:
    spec = get_registry().method(row)
    return load_object(spec.load)(load_object(spec.config)(**spec.presets["embedded"].settings))


def alone(
    protocol: DistributedTrainingProtocol, seed: int, batches: Iterable[list[tuple[Any, Any]]]
) -> tuple[list[list[float]], torch.Tensor]:
    """Train one model on the batches of all ranks together: the ranks' losses at each step, and the weights."""
    torch.manual_seed(seed)
    model = build_model(64, 10, protocol)
    optimizer = torch.optim.SGD(model.parameters(), protocol.lr, protocol.momentum, weight_decay=protocol.weight_decay)
    losses = []
    for parts in batches:
        each = [torch.nn.functional.cross_entropy(model(x), y) for x, y in parts]
        optimizer.zero_grad()
        torch.stack(each).mean().backward()
        optimizer.step()
        losses.append([loss.item() for loss in each])
    return losses, torch.nn.utils.parameters_to_vector(model.parameters()).detach()


def test_ddp_on_ranks_learns_what_one_model_learns_from_all_batches(tmp_path: Path) -> None:
    ctx = make_context(tmp_path)
    protocol = DistributedTrainingProtocol(hidden=8, steps=6, local_batch=16, lr=0.2, momentum=0.8, weight_decay=0.05)
    told: list[int] = []
    reports = data_parallel.train(method("ddp"), DATA, protocol, ctx, lambda: told.append(1))
    seed, order = ctx.seed_for("run", "weights"), ctx.seed_for("run", "order")
    shares = [_batches(DATA, protocol, rank, order) for rank in range(2)]
    losses, weights = alone(protocol, seed, itertools.islice(zip(*shares, strict=True), 6))
    assert [report.rank for report in reports] == [0, 1]
    assert len(told) == 6
    for rank, report in enumerate(reports):
        assert report.losses == pytest.approx([step[rank] for step in losses], rel=1e-4)
        own = torch.cat([tensor.reshape(-1) for tensor in report.state.values()])
        assert torch.allclose(own, weights, atol=1e-5)


def test_emulated_workers_learn_what_one_model_learns_from_all_batches(tmp_path: Path) -> None:
    ctx = make_context(tmp_path)
    protocol = SimulatedTrainingProtocol(workers=3, hidden=8, steps=6, local_batch=16, lr=0.2, momentum=0.8)
    trained = emulation.train(method("gradient-allreduce"), DATA, protocol, ctx)
    order = torch.Generator().manual_seed(ctx.seed_for("run", "order"))
    features, labels = torch.from_numpy(DATA.features[DATA.train]), torch.from_numpy(DATA.labels[DATA.train])
    draws = [torch.randint(len(labels), (3, 16), generator=order) for _ in range(6)]
    base = DistributedTrainingProtocol(hidden=8, lr=0.2, momentum=0.8)
    batches = ([(features[own], labels[own]) for own in step] for step in draws)
    losses, weights = alone(base, ctx.seed_for("run", "weights"), batches)
    assert trained.losses == pytest.approx([float(np.mean(step)) for step in losses], rel=1e-4)
    assert torch.allclose(trained.weights, weights.expand(3, -1), atol=1e-5)
    assert trained.partners == ["everybody"] * 6
