"""Opponents of RELIANT that belong to no paper here: plain distillation, and FairGNN."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch_geometric")

import torch
from support import Killed
from support import context as make_context
from torch import nn

from benchsuite.core.errors import ConfigError
from benchsuite.core.registry import get_registry
from benchsuite.datasets.fairness_graphs.rules import symmetric_with_self_loops
from benchsuite.harness.checkpoint import EVERY_STEPS
from benchsuite.harness.context import HarnessContext
from benchsuite.tasks.fair_distillation.contract import StudentGraph, Teacher, Validation
from benchsuite_baselines.fairness import method as rows

NODES, FEATURES = 60, 5
ROWS = ("GCNStudent", "SAGEStudent", "FairGNN")


class Context(HarnessContext):
    """Keeps its epochs."""

    epochs: list[int]

    def resumable(self, name: str, total: int, parts: Any, description: str = "") -> Iterator[int]:
        self.epochs, self.parts = [], parts
        for epoch in super().resumable(name, total, parts, description):
            self.epochs.append(epoch)
            yield epoch


context = functools.partial(make_context, cls=Context)


@pytest.fixture
def graph() -> StudentGraph:
    """A graph whose first feature says the class and whose second the group, the two related."""
    rng = np.random.default_rng(0)
    sensitive = rng.integers(0, 2, NODES)
    labels = (rng.random(NODES) < 0.2 + 0.6 * sensitive).astype(np.int64)
    features = rng.normal(size=(NODES, FEATURES)).astype(np.float32)
    features[:, 0] += 2 * labels - 1
    features[:, 1] += 2 * (2 * sensitive - 1)
    order = rng.permutation(NODES)
    return StudentGraph(
        features=features,
        edge_index=symmetric_with_self_loops(rng.integers(0, NODES, (60, 2)), NODES),
        sensitive=sensitive,
        train=order[:24],
        validation=order[24:42],
        test=order[42:],
        train_labels=labels[order[:24]],
        num_classes=2,
        labels=labels,
    )


@pytest.fixture
def teacher(graph: StudentGraph) -> Teacher:
    logits = np.random.default_rng(1).normal(size=(NODES, 2))
    logits[np.arange(NODES), graph.labels] += 3
    log_probabilities = torch.from_numpy(logits).float().log_softmax(dim=1).numpy()
    return Teacher("gcn", log_probabilities, np.zeros((NODES, 4), dtype=np.float32), 1)


def validation_of(graph: StudentGraph) -> Validation:
    assert graph.labels is not None
    return Validation(graph.validation, graph.labels[graph.validation])


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# --- plain distillation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "weight"), [(4.0, 0.9), (1.0, 0.3), (2.0, 1.0)])
def test_the_distillation_loss_by_hand(temperature: float, weight: float) -> None:
    rng = np.random.default_rng(0)
    z, t, train, labels = rng.normal(size=(8, 3)), rng.normal(size=(8, 3)) * 3, np.array([1, 4, 6]), np.array([2, 0, 1])
    cross_entropy = -np.log(softmax(z)[train, labels]).mean()
    soft, student = softmax(t / temperature), softmax(z / temperature)
    divergence = (soft * np.log(soft / student)).sum(axis=1).mean()
    expected = (1 - weight) * cross_entropy + weight * temperature**2 * divergence
    logits, taught = torch.from_numpy(z), torch.from_numpy(t).log_softmax(dim=1)
    found = rows.distillation_loss(
        logits, taught, torch.from_numpy(train), torch.from_numpy(labels), temperature, weight
    )
    assert found.item() == pytest.approx(expected)


def test_the_gcn_student_counts_each_self_loop_once(graph: StudentGraph) -> None:
    student = rows.GCNStudent(rows.GCNStudent.Config(hidden=7)).network(FEATURES, 2).eval()
    edges = graph.edge_index
    a = np.zeros((NODES, NODES))
    a[edges[1], edges[0]] = 1
    s = a / np.sqrt(np.outer(a.sum(1), a.sum(1)))
    w = {key: value.double().numpy() for key, value in student.state_dict().items()}
    h = np.maximum(s @ graph.features @ w["convs.0.lin.weight"].T + w["convs.0.bias"], 0)
    expected = s @ h @ w["convs.1.lin.weight"].T + w["convs.1.bias"]
    found = student(torch.from_numpy(graph.features), torch.from_numpy(edges))
    assert np.allclose(found.detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("row", ["GCNStudent", "SAGEStudent"])
def test_a_student_is_taught_by_the_teacher_where_there_are_no_labels(
    graph: StudentGraph, teacher: Teacher, tmp_path: Path, row: str
) -> None:
    """A teacher that turns every answer round is followed outside the training nodes."""
    turned = replace(teacher, log_probabilities=teacher.log_probabilities[:, ::-1].copy())
    method = getattr(rows, row)
    agreed = {}
    for weight in (0.0, 1.0):
        student = method(method.Config(epochs=60, soft_weight=weight, dropout=0.0))
        found = student.distil(graph, turned, Validation(graph.test, turned.log_probabilities.argmax(1)[graph.test]),
                               context(tmp_path / f"{row}{weight}"))  # fmt: skip
        same = found.probabilities.argmax(axis=1) == turned.log_probabilities.argmax(axis=1)
        agreed[weight] = same[graph.validation].mean()
    assert agreed[1.0] > 0.7
    assert agreed[1.0] > agreed[0.0] + 0.2


@pytest.mark.parametrize("row", ["GCNStudent", "SAGEStudent"])
def test_the_latest_of_the_most_accurate_epochs_is_kept(
    graph: StudentGraph, teacher: Teacher, tmp_path: Path, row: str
) -> None:
    accuracies, seen = iter([0.5, 0.9, 0.9, 0.8, 0.7, 0.6, 0.5]), []

    class Scripted(Validation):
        def accuracy(self, scores: Any) -> float:
            seen.append(softmax(scores))
            return next(accuracies)

    method = getattr(rows, row)
    student = method(method.Config(epochs=20, patience=3))
    found = student.distil(graph, teacher, Scripted(graph.validation, graph.validation), context(tmp_path))
    assert len(seen) == 6
    assert np.allclose(found.probabilities, seen[2], atol=1e-6)


# --- FairGNN ---------------------------------------------------------------------------------------------


def test_the_loss_of_fairgnn_by_hand() -> None:
    rng = np.random.default_rng(0)
    y, guessed, s = rng.normal(size=9), rng.normal(size=9), np.array([0.0, 1, 1, 0, 1, 0, 1, 1, 0])
    train, labels = np.array([0, 3, 5, 8]), np.array([1.0, 0, 0, 1])

    def cross_entropy(logits: Any, wanted: Any) -> float:
        p = 1 / (1 + np.exp(-logits))
        return float(-(wanted * np.log(p) + (1 - wanted) * np.log(1 - p)).mean())

    covariance = np.cov(s, 1 / (1 + np.exp(-y)), bias=True)[0, 1]
    expected = cross_entropy(y[train], labels) + 7 * abs(covariance) - 0.5 * cross_entropy(guessed, s)
    tensors = [torch.from_numpy(values) for values in (y, guessed, train, labels, s)]
    assert rows.fairgnn_loss(*tensors, 7.0, 0.5).item() == pytest.approx(expected)


def test_the_adversary_learns_the_group_and_nothing_else_moves_it(
    graph: StudentGraph, teacher: Teacher, tmp_path: Path
) -> None:
    """Two epochs step by step: the network against the adversary at hand, then the adversary on what it was shown."""
    config = rows.FairGNN.Config(epochs=2, hidden=6, dropout=0.0, lr=0.05)
    ctx = context(tmp_path)
    rows.FairGNN(config).distil(graph, teacher, validation_of(graph), ctx)
    torch.manual_seed(ctx.seed_for("run", "student"))
    model, adversary = rows.FairGNNNetwork(FEATURES, 6, 0.0), nn.Linear(6, 1)
    x, edges, s = (torch.from_numpy(a) for a in (graph.features, graph.edge_index, graph.sensitive))
    train, labels = torch.from_numpy(graph.train), torch.from_numpy(graph.train_labels).float()
    optimizers = [torch.optim.Adam(p.parameters(), lr=0.05, weight_decay=1e-5) for p in (model, adversary)]
    for _ in range(2):
        logits, h = model(x, edges)
        loss = rows.fairgnn_loss(logits, adversary(h)[:, 0], train, labels, s.float(), 100.0, 1.0)
        parameters = list(model.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimizers[0].step()
        wrong = nn.functional.binary_cross_entropy_with_logits(adversary(h.detach())[:, 0], s.float())
        parameters = list(adversary.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(wrong, parameters), strict=True):
            parameter.grad = gradient
        optimizers[1].step()
    assert torch.allclose(ctx.parts["adversary"].weight, adversary.weight, atol=1e-6)
    assert torch.allclose(ctx.parts["adversary"].bias, adversary.bias, atol=1e-6)


def test_of_the_epochs_accurate_enough_the_fairest_is_kept(graph: StudentGraph, teacher: Teacher) -> None:
    least, validation = 0.8, validation_of(graph)
    fairgnn, rng = rows.FairGNN(rows.FairGNN.Config()), np.random.default_rng(2)
    assert graph.labels is not None
    right = np.eye(2, dtype=np.float32)[graph.labels]
    epochs = [right.copy() for _ in range(8)]
    for number, predicted in enumerate(epochs):
        wrong = rng.permutation(graph.validation)[:number]
        predicted[wrong] = predicted[wrong, ::-1]

    def gap(predicted: Any) -> float:
        classes, groups = predicted.argmax(axis=1)[graph.validation], graph.sensitive[graph.validation]
        return abs(float(classes[groups == 0].mean() - classes[groups == 1].mean()))

    ratings = [fairgnn._rating(predicted, graph, validation, least) for predicted in epochs]
    enough = [number for number in range(8) if 1 - number / 18 >= least]
    assert [number for number, (accurate, _) in enumerate(ratings) if accurate] == enough == [0, 1, 2, 3]
    assert max(range(8), key=ratings.__getitem__) == min(enough, key=lambda number: gap(epochs[number]))
    none = [fairgnn._rating(predicted, graph, validation, 1.1) for predicted in epochs]
    assert max(range(8), key=none.__getitem__) == 0  # else the most accurate


def test_what_the_teacher_reaches_is_the_bound(graph: StudentGraph, teacher: Teacher, tmp_path: Path, monkeypatch: Any):
    bounds = []
    monkeypatch.setattr(rows.FairGNN, "_rating", lambda self, p, g, v, least: bounds.append(least) or (True, 0.0))
    rows.FairGNN(rows.FairGNN.Config(epochs=1, accuracy_slack=0.03)).distil(
        graph, teacher, validation_of(graph), context(tmp_path)
    )
    assert bounds == [validation_of(graph).accuracy(teacher.log_probabilities) - 0.03]


def test_fairgnn_lowers_the_gap_between_the_groups(graph: StudentGraph, teacher: Teacher, tmp_path: Path) -> None:
    def gap(**settings: float) -> float:
        config = rows.FairGNN.Config(epochs=80, lr=0.02, dropout=0.0, accuracy_slack=1.0, **settings)
        ctx = context(tmp_path / str(settings))
        student = rows.FairGNN(config)
        student._rating = lambda *a: (True, float(ctx.epochs[-1]))  # type: ignore[method-assign]  # the last epoch
        p = student.distil(graph, teacher, validation_of(graph), ctx).probabilities[:, 1]
        return abs(float(p[graph.sensitive == 0].mean() - p[graph.sensitive == 1].mean()))

    assert gap() < 0.3 * gap(alpha=0.0, beta=0.0)


def test_fairgnn_is_for_two_classes(graph: StudentGraph, teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this graph has 3: choose gcn-kd"):
        rows.FairGNN(rows.FairGNN.Config()).distil(
            replace(graph, num_classes=3), teacher, validation_of(graph), context(tmp_path)
        )


# --- all rows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS)
def test_a_killed_training_goes_on_bit_for_bit(
    graph: StudentGraph, teacher: Teacher, tmp_path: Path, monkeypatch: Any, row: str
) -> None:
    monkeypatch.setenv(EVERY_STEPS, "2")
    method = getattr(rows, row)

    def trained(ctx: Context, kill_at: int | None = None) -> Any:
        class Judge(Validation):
            def accuracy(self, scores: Any) -> float:
                if not hasattr(ctx, "epochs"):
                    return 9.0  # the teacher: no student comes near, so that FairGNN too keeps its last epoch
                if ctx.epochs[-1] == kill_at:
                    raise Killed
                return 0.1 * ctx.epochs[-1]

        assert graph.labels is not None
        validation = Judge(graph.validation, graph.labels[graph.validation])
        return method(method.Config(epochs=9)).distil(graph, teacher, validation, ctx).probabilities

    expected = trained(context(tmp_path / "whole"))
    for kill_at in (3, 5, 8):
        with pytest.raises(Killed):
            trained(context(tmp_path / str(kill_at)), kill_at)
        ctx = context(tmp_path / str(kill_at))
        assert np.array_equal(trained(ctx), expected)
        assert ctx.epochs == list(range(kill_at - kill_at % 2, 9))


@pytest.mark.parametrize("row", ROWS)
def test_probabilities_and_sizes(graph: StudentGraph, teacher: Teacher, tmp_path: Path, row: str) -> None:
    method = getattr(rows, row)
    student = method(method.Config(epochs=2)).distil(graph, teacher, validation_of(graph), context(tmp_path))
    assert student.probabilities.shape == (NODES, 2)
    assert np.allclose(student.probabilities.sum(axis=1), 1, atol=1e-6)
    hidden = 64
    convolution = 2 if row == "SAGEStudent" else 1  # its own node and its neighbours have weights of their own
    expected = {
        "GCNStudent": (FEATURES + 1) * hidden + (hidden + 1) * 2,
        "SAGEStudent": (convolution * FEATURES + 1) * hidden + (convolution * hidden + 1) * 2,
        "FairGNN": (FEATURES + 1) * hidden + (hidden + 1) * hidden + hidden + 1,  # without its adversary
    }
    assert student.parameters == expected[row]


def test_the_rows_are_baselines_of_the_task() -> None:
    specs = [get_registry().method(name) for name in ("gcn-kd", "sage-kd", "fairgnn")]
    assert {(spec.role, spec.tasks) for spec in specs} == {("baseline", ("fair-distillation",))}
    published = rows.FairGNN.Config(**specs[2].presets["paper"].resolve({}))
    assert (published.alpha, published.beta, published.epochs, published.hidden) == (100, 1, 2000, 64)
    assert (published.lr, published.weight_decay, published.dropout) == (1e-3, 1e-5, 0.5)


@pytest.mark.parametrize(
    ("settings", "message"), [({"temperature": 0.0}, "temperature must be above 0"), ({"soft_weight": 1.5}, "share")]
)
def test_settings_that_make_no_sense(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rows.GCNStudent.Config(**settings)
