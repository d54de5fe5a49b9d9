"""RELIANT against naive re-implementations: networks, losses, optimisation steps, and its claims in small."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.polynomial import legendre
from support import Killed, WatchedContext, watched
from torch._subclasses.fake_tensor import FakeTensorMode
from torch_geometric import EdgeIndex

from benchsuite.core.claim import parse_claims, read_resource
from benchsuite.core.config import build_config
from benchsuite.core.errors import ConfigError
from benchsuite.core.registry import get_registry
from benchsuite.datasets.fairness_graphs.generated import load_synthetic
from benchsuite.datasets.fairness_graphs.rules import symmetric_with_self_loops
from benchsuite.harness.checkpoint import EVERY_STEPS
from benchsuite.metrics import classification, fairness
from benchsuite.tasks.fair_distillation.contract import StudentGraph, Teacher, Validation
from benchsuite.tasks.fair_distillation.teachers import GCNTeacher, adjacency, train_teacher
from benchsuite_reliant import method as rows
from benchsuite_reliant.losses import (
    Discriminators,
    bias_measure,
    cpf_distillation_loss,
    equal_opportunity_loss,
    graph_akd_discriminator_loss,
    graph_akd_generator_loss,
    scaled_lambda,
    soft_step,
    statistical_parity_loss,
)
from benchsuite_reliant.model import (
    BiasProxy,
    GlobalDiscriminator,
    LocalDiscriminator,
    LogitDiscriminator,
    PLPStudent,
    SGCStudent,
)
from benchsuite_reliant.training import (
    Graph,
    TeacherOutput,
    cpf_logits,
    cpf_step,
    graph_akd_discriminator_step,
    graph_akd_generator_step,
    graph_akd_probabilities,
    graph_akd_proxy_step,
    proxy_step,
    train_cpf,
    train_graph_akd,
)

NODES, FEATURES = 40, 6


@dataclass
class Example:
    """A random graph with everything that a training step needs."""

    graph: Graph
    sensitive: torch.Tensor
    teacher: TeacherOutput


@pytest.fixture
def example() -> Example:
    rng = np.random.default_rng(0)
    edge_index = symmetric_with_self_loops(rng.integers(0, NODES, (90, 2)), NODES)
    features = rng.standard_normal((NODES, FEATURES)).astype(np.float32)
    train = rng.permutation(NODES)[:12]
    graph = Graph(
        features=torch.from_numpy(features),
        edge_index=torch.from_numpy(edge_index),
        train=torch.from_numpy(train),
        train_labels=torch.from_numpy(rng.integers(0, 2, 12)),
    )
    logits = torch.from_numpy(rng.standard_normal((NODES, 2)).astype(np.float32))
    embedding = torch.from_numpy(rng.standard_normal((NODES, 8)).astype(np.float32))
    sensitive = torch.from_numpy(rng.integers(0, 2, NODES))
    return Example(graph, sensitive, TeacherOutput(logits.log_softmax(dim=1), embedding))


def _randomised(model, seed=0):
    """Give every parameter a value of its own, gates and biases included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.7, 0.7, generator=generator)
    return model


def _plp(in_features=FEATURES, steps=4, dropout=0.0, seed=0):
    student = PLPStudent(NODES, in_features, 2, steps + 1, 8, feature_dropout=dropout, attention_dropout=dropout)
    return _randomised(student, seed)


def _discriminators(seed=0):
    judges = Discriminators(LogitDiscriminator(2), LocalDiscriminator(8), GlobalDiscriminator(8))
    for number, judge in enumerate((judges.logits, judges.local, judges.whole)):
        _randomised(judge, seed + number)
    return judges


def _softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _relu(x):
    return np.maximum(x, 0)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _numpy(tensor):
    return tensor.detach().numpy().astype(np.float64)


# --- bias measure ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_soft_step_has_the_published_values(dtype):
    p = torch.tensor([0, 0.25, 0.5, 0.75, 1], dtype=dtype)
    published = torch.tensor([0.07421875, 0.2057392, 0.5, 0.7942608, 0.92578125], dtype=dtype)
    assert torch.allclose(soft_step(p), published, rtol=0, atol=1e-7)


def test_soft_step_is_the_legendre_sum():
    p = np.linspace(0, 1, 101)
    series = legendre.legval(2 * p - 1, [1 / 2, 1 / 2, 0, -1 / 8, 0, 1 / 16, 0, -5 / 128, 0, 7 / 256])
    assert np.allclose(soft_step(torch.from_numpy(p)).numpy(), series, atol=1e-14)


def _gap_by_hand(probabilities, groups):
    total = 0.0
    for c in range(probabilities.shape[1]):
        x = 2 * probabilities[:, c] - 1
        f = legendre.legval(x, [1 / 2, 1 / 2, 0, -1 / 8, 0, 1 / 16, 0, -5 / 128, 0, 7 / 256])
        total += (f[groups == 0].mean() - f[groups == 1].mean()) ** 2
    return total


@pytest.mark.parametrize("classes", [2, 3])
def test_bias_losses_equal_the_formula(classes):
    rng = np.random.default_rng(classes)
    p = _softmax(rng.standard_normal((40, classes)))
    s, y = rng.integers(0, 2, 40), rng.integers(0, 2, 40)
    ours = statistical_parity_loss(torch.from_numpy(p), torch.from_numpy(s))
    assert ours.item() == pytest.approx(_gap_by_hand(p, s), rel=1e-12)
    ours = equal_opportunity_loss(torch.from_numpy(p), torch.from_numpy(y), torch.from_numpy(s))
    assert ours.item() == pytest.approx(_gap_by_hand(p[y == 1], s[y == 1]), rel=1e-12)
    if classes == 2:
        gap = np.sqrt(_gap_by_hand(p, s) / 2)
        f = soft_step(torch.from_numpy(p))[:, 1].numpy()
        assert abs(f[s == 0].mean() - f[s == 1].mean()) == pytest.approx(gap, rel=1e-12)


def test_bias_gradient_equals_finite_differences():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    s = torch.randint(0, 2, (40,), generator=generator)
    y = torch.randint(0, 2, (40,), generator=generator)
    assert torch.autograd.gradcheck(lambda z: statistical_parity_loss(z.softmax(1), s), logits, atol=1e-8)
    assert torch.autograd.gradcheck(lambda z: equal_opportunity_loss(z.softmax(1), y, s), logits, atol=1e-8)


def test_an_empty_group_has_no_gap_and_no_gradient():
    p = torch.rand(5, 2, requires_grad=True)
    loss = statistical_parity_loss(p, torch.ones(5, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert not p.grad.any()


def test_bias_measure_restricts_to_its_nodes(example):
    p = example.teacher.log_probabilities.exp()
    nodes, labels, s = example.graph.train, example.graph.train_labels, example.sensitive
    parity = bias_measure("sp", nodes, s)
    opportunity = bias_measure("eo", nodes, s, labels)
    assert torch.equal(parity(p), statistical_parity_loss(p[nodes], s[nodes]))
    assert torch.allclose(opportunity(p), equal_opportunity_loss(p[nodes], labels, s[nodes]))
    with pytest.raises(ValueError, match="pass labels"):
        bias_measure("eo", nodes, s)


def test_lambda_scales_with_the_distillation_loss():
    assert scaled_lambda(1000, 13_214) == pytest.approx(1000)
    difference = torch.rand(100, 2)
    four_times = difference.repeat(4, 1)
    grows = cpf_distillation_loss(four_times, torch.zeros(400, 2)) / cpf_distillation_loss(
        difference, torch.zeros(100, 2)
    )
    assert scaled_lambda(1, 400) / scaled_lambda(1, 100) == pytest.approx(grows.item())


# --- networks --------------------------------------------------------------------------------------------


def _plp_by_hand(state, x, graph, steps):
    """Node by node, in NumPy."""
    w = {key.removeprefix("plp_layer."): _numpy(value) for key, value in state.items()}
    senders = {v: [] for v in range(NODES)}
    for u, v in graph.edge_index.T.tolist():
        senders[v].append(u)
    known = dict(zip(graph.train.tolist(), np.eye(2)[graph.train_labels.numpy()], strict=True))
    score = x @ w["attn_l"][0]
    h = np.full((NODES, 2), 0.5)
    for v, row in known.items():
        h[v] = row
    for _ in range(steps):
        new = np.empty_like(h)
        for v in range(NODES):
            attention = _softmax(score[senders[v]])
            propagated = attention @ h[senders[v]]
            hidden = _relu(w["mlp.linears.0.weight"] @ x[v] + w["mlp.linears.0.bias"])
            guess = w["mlp.linears.1.weight"] @ hidden + w["mlp.linears.1.bias"]
            gate = _sigmoid(w["lr_alpha"][v])
            new[v] = _relu(gate * propagated + _sigmoid(-w["lr_alpha"][v]) * guess)
        unclamped = new.copy()
        for v, row in known.items():
            new[v] = row
        h = new
    return h, unclamped


def test_plp_equals_the_formula(example):
    student = _plp().eval()
    g = example.graph
    expected, unclamped = _plp_by_hand(student.state_dict(), _numpy(g.features), g, steps=4)
    arguments = (g.features, g.edge_index, g.train, g.train_labels)
    assert np.allclose(student(*arguments).detach().numpy(), expected, atol=1e-5)
    assert np.allclose(student.unclamped(*arguments).detach().numpy(), unclamped, atol=1e-5)


def test_plp_clamps_training_nodes_to_probabilities_of_a_one_hot(example):
    g = example.graph
    p = _plp()(g.features, g.edge_index, g.train, g.train_labels).softmax(dim=1)[g.train]
    own = p.gather(1, g.train_labels[:, None])
    assert torch.allclose(own, torch.full_like(own, 0.7310586))


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "adjacency"])
def test_sgc_equals_the_formula(example, fast):
    student = _randomised(SGCStudent(FEATURES, 2, hidden=8)).eval()
    edges = example.graph.edge_index
    a = np.zeros((NODES, NODES))
    a[edges[1], edges[0]] = 1
    s = a / np.sqrt(np.outer(a.sum(1), a.sum(1)))
    w = {key: _numpy(value) for key, value in student.state_dict().items()}
    h = _numpy(example.graph.features)
    h = _relu((s @ h) @ w["layers.0.weight"] + w["layers.0.bias"])
    embedding = _relu((s @ h) @ w["layers.1.weight"] + w["layers.1.bias"])
    expected = (s @ embedding) @ w["layers.2.weight"] + w["layers.2.bias"]
    if fast:
        edges = EdgeIndex(edges, sparse_size=(NODES, NODES), sort_order="row", is_undirected=True)
    logits, ours = student(example.graph.features, edges)
    assert np.allclose(logits.detach().numpy(), expected, atol=1e-5)
    assert np.allclose(ours.detach().numpy(), embedding, atol=1e-5)


def _logit_discriminator_by_hand(state, z):
    w1, b1 = _numpy(state["residual.weight"]), _numpy(state["residual.bias"])
    out = np.stack([_numpy(state["output.weight"]) @ _relu(row + w1 @ row + b1) for row in z])
    return out[:, :-1], out[:, -1]


def _local_discriminator_by_hand(state, e, edges):
    d, c = _numpy(state["diagonal"]), _numpy(state["scale"])[0]
    unit = e / np.linalg.norm(e, axis=1, keepdims=True)
    return np.array([c * sum(d * unit[u] * unit[v]) for u, v in edges.T.tolist()])


def _global_discriminator_by_hand(state, e, summarised):
    d, c = _numpy(state["diagonal"]), _numpy(state["scale"])[0]
    m = _sigmoid(summarised.mean(axis=0))
    return np.array([c * sum(d * row / np.linalg.norm(row) * m) for row in e])


def test_discriminators_equal_the_formulas(example):
    judges = _discriminators()
    z, e = example.teacher.log_probabilities, example.teacher.embedding
    edges = example.graph.edge_index
    for ours, expected in zip(
        judges.logits(z), _logit_discriminator_by_hand(judges.logits.state_dict(), _numpy(z)), strict=True
    ):
        assert np.allclose(ours.detach().numpy(), expected, atol=1e-5)
    local = _local_discriminator_by_hand(judges.local.state_dict(), _numpy(e), edges)
    assert np.allclose(judges.local(e, edges).detach().numpy(), local, atol=1e-5)
    whole = _global_discriminator_by_hand(judges.whole.state_dict(), _numpy(e), _numpy(e))
    assert np.allclose(judges.whole(e, judges.whole.summary(e)).detach().numpy(), whole, atol=1e-5)


def test_fresh_discriminators_start_from_ones_and_a_half():
    local, whole = LocalDiscriminator(64), GlobalDiscriminator(64)
    for judge in (local, whole):
        assert judge.diagonal.tolist() == [1.0] * 64
        assert judge.scale.tolist() == [0.5]


def _count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_on_bail():
    assert _count(PLPStudent(18_876, 18, 2)) == 39_116
    assert _count(SGCStudent(18 + 2, 2)) == 5_634
    assert [_count(d) for d in (LogitDiscriminator(2), LocalDiscriminator(64), GlobalDiscriminator(64))] == [
        12, 65, 65,
    ]  # fmt: skip
    assert _count(PLPStudent(1_000, 27, 2)) == 3_949
    assert _count(PLPStudent(39_424, 5_694, 2)) == 449_152


def test_an_official_plp_checkpoint_loads_unchanged():
    official = {
        "alpha": (18_876, 1),
        "plp_layer.lr_alpha": (18_876, 1),
        "plp_layer.attn_l": (1, 18),
        "plp_layer.mlp.linears.0.weight": (64, 18),
        "plp_layer.mlp.linears.0.bias": (64,),
        "plp_layer.mlp.linears.1.weight": (2, 64),
        "plp_layer.mlp.linears.1.bias": (2,),
    }
    student = PLPStudent(18_876, 18, 2)
    assert {key: tuple(value.shape) for key, value in student.state_dict().items()} == official
    student.load_state_dict({key: torch.randn(shape) for key, shape in official.items()}, strict=True)


def test_gates_start_half_open():
    assert not PLPStudent(5, 3, 2).plp_layer.lr_alpha.any()


def test_forward_runs_on_another_device():
    with FakeTensorMode(), torch.device("cuda"):
        x, edges = torch.randn(10, 18), torch.zeros(2, 40, dtype=torch.long)
        train, labels = torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.long)
        logits, embedding = SGCStudent(18, 2)(x, edges)
        outputs = [
            PLPStudent(10, 18, 2)(x, edges, train, labels),
            logits,
            BiasProxy(10)(x),
            BiasProxy(10, mode="replace").averaged(x),
            *LogitDiscriminator(2)(logits),
            LocalDiscriminator(64)(embedding, edges),
            GlobalDiscriminator(64)(embedding, GlobalDiscriminator.summary(embedding)),
        ]
    assert {output.device.type for output in outputs} == {"cuda"}


def test_proxy_is_appended_or_replaces_the_last_columns(example):
    x = example.graph.features
    append, replace = BiasProxy(NODES, 2, "append"), BiasProxy(NODES, 2, "replace")
    assert append.values.min() >= 0
    assert append.values.max() < 1
    assert torch.equal(append(x), torch.cat([x, append.values], dim=1))
    assert torch.equal(replace(x), torch.cat([x[:, :-2], replace.values], dim=1))
    mean = append.averaged(x)[:, -2:]
    assert torch.allclose(mean, append.values.mean(dim=0).expand(NODES, 2))
    assert not mean.requires_grad
    assert append.input_width(FEATURES) == append(x).shape[1]
    assert replace.input_width(FEATURES) == replace(x).shape[1]


# --- CPF optimisation ------------------------------------------------------------------------------------


class _AdamByHand:
    def __init__(self, parameters, lr, weight_decay):
        self.parameters, self.lr, self.weight_decay = parameters, lr, weight_decay
        self.first = {key: torch.zeros_like(p) for key, p in parameters.items()}
        self.second = {key: torch.zeros_like(p) for key, p in parameters.items()}
        self.count = 0

    def step(self, gradients):
        self.count += 1
        for key, gradient in gradients.items():
            gradient = gradient + self.weight_decay * self.parameters[key].detach()
            self.first[key] = 0.9 * self.first[key] + 0.1 * gradient
            self.second[key] = 0.999 * self.second[key] + 0.001 * gradient**2
            first = self.first[key] / (1 - 0.9**self.count)
            second = self.second[key] / (1 - 0.999**self.count)
            with torch.no_grad():
                self.parameters[key] -= self.lr * first / (second.sqrt() + 1e-8)


def _dense_plp(w, x, graph, steps):
    """The student with an N x N attention matrix, in float64; returns logits and unclamped logits."""
    adjacent = torch.zeros(NODES, NODES, dtype=torch.bool)
    adjacent[graph.edge_index[1], graph.edge_index[0]] = True
    known = torch.zeros(NODES, 1, dtype=torch.bool)
    known[graph.train] = True
    labels = torch.zeros(NODES, 2, dtype=x.dtype)
    labels[graph.train, graph.train_labels] = 1
    score = (x @ w["plp_layer.attn_l"].T).T.expand(NODES, NODES)
    attention = torch.where(adjacent, score, -torch.inf).softmax(dim=1)
    hidden = torch.relu(x @ w["plp_layer.mlp.linears.0.weight"].T + w["plp_layer.mlp.linears.0.bias"])
    guess = hidden @ w["plp_layer.mlp.linears.1.weight"].T + w["plp_layer.mlp.linears.1.bias"]
    gate = torch.sigmoid(w["plp_layer.lr_alpha"])
    h = torch.where(known, labels, torch.full_like(labels, 0.5))
    for _ in range(steps):
        unclamped = torch.relu(gate * (attention @ h) + (1 - gate) * guess)
        h = torch.where(known, labels, unclamped)
    return h, unclamped


def _joined_by_hand(x, proxy, mode):
    return torch.cat([x[:, :-2] if mode == "replace" else x, proxy], dim=1)


@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize("objective", ["sp", "eo"])
def test_two_cpf_epochs_equal_a_naive_reference(example, mode, objective):
    g, s, epochs, lam, lr, decay = example.graph, example.sensitive, 2, 5.0, 0.01, 0.01
    targets = example.teacher.log_probabilities.exp()
    student = _plp(FEATURES + 2 if mode == "append" else FEATURES)
    proxy = BiasProxy(NODES, 2, mode)
    rest = [v for v in range(NODES) if v not in set(g.train.tolist())]

    w = {key: value.double().clone().requires_grad_() for key, value in student.state_dict().items()}
    values = {"values": proxy.values.detach().double().clone().requires_grad_()}
    x, t = g.features.double(), targets.double()
    del w["alpha"]
    student_adam, proxy_adam = _AdamByHand(w, lr, decay), _AdamByHand(values, lr, decay)

    def bias(inputs):
        logits, unclamped = _dense_plp(w, inputs, g, 4)
        if objective == "sp":
            return statistical_parity_loss(logits.softmax(dim=1)[rest], s[rest])
        return equal_opportunity_loss(unclamped.softmax(dim=1)[g.train], g.train_labels, s[g.train])

    for _ in range(epochs):
        inputs = _joined_by_hand(x, values["values"].detach().mean(0).expand(NODES, 2), mode)
        p = _dense_plp(w, inputs, g, 4)[0].softmax(dim=1)
        loss = (p[rest] - t[rest]).square().sum().sqrt() + lam * bias(inputs)
        student_adam.step(dict(zip(w, torch.autograd.grad(loss, list(w.values())), strict=True)))
        loss = -lam * bias(_joined_by_hand(x, values["values"], mode))
        proxy_adam.step({"values": torch.autograd.grad(loss, values["values"])[0]})

    measure = (
        bias_measure("sp", g.unlabelled, s) if objective == "sp" else bias_measure("eo", g.train, s, g.train_labels)
    )
    probabilities = train_cpf(
        student,
        proxy,
        g,
        targets,
        bias=measure,
        bias_weight=lam,
        lr=lr,
        weight_decay=decay,
        patience=epochs,
        validation_accuracy=lambda logits: 0.0,
        steps=lambda parts: range(epochs),
    )
    assert torch.allclose(proxy.values.double(), values["values"], atol=1e-4)
    for key, value in w.items():
        assert torch.allclose(student.state_dict()[key].double(), value, atol=1e-4), key
    inputs = _joined_by_hand(x, values["values"].mean(0).expand(NODES, 2), mode)
    expected = _dense_plp(w, inputs, g, 4)[0].log_softmax(dim=1)
    assert torch.allclose(probabilities.log().double(), expected, atol=1e-4)


def _cpf_run(example, bias, bias_weight, proxy=None, seed=0, epochs=4):
    torch.manual_seed(seed)
    width = FEATURES if proxy is None else proxy.input_width(FEATURES)
    student = PLPStudent(NODES, width, 2, 4, 8)
    return train_cpf(
        student,
        proxy,
        example.graph,
        example.teacher.log_probabilities.exp(),
        bias=bias,
        bias_weight=bias_weight,
        lr=0.01,
        weight_decay=0.01,
        patience=epochs,
        validation_accuracy=lambda logits: 0.0,
        steps=lambda parts: range(epochs),
    )


def test_cpf_without_lambda_and_proxy_is_the_vanilla_student_bit_for_bit(example):
    measure = bias_measure("sp", example.graph.unlabelled, example.sensitive)
    vanilla = _cpf_run(example, None, 0.0)
    assert torch.equal(vanilla, _cpf_run(example, measure, 0.0))
    assert not torch.equal(vanilla, _cpf_run(example, measure, 10.0))


def test_vanilla_cpf_equals_a_plain_loop(example):
    """Nothing but distillation happens: the loop written out, with dropout, draws the same numbers."""
    g, t = example.graph, example.teacher.log_probabilities.exp()
    torch.manual_seed(0)
    student = PLPStudent(NODES, FEATURES, 2, 4, 8)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01, weight_decay=0.01)
    for _ in range(4):
        student.train()
        p = student(g.features, g.edge_index, g.train, g.train_labels).softmax(dim=1)
        loss = (p[g.unlabelled] - t[g.unlabelled]).norm()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    student.eval()
    with torch.no_grad():
        expected = student(g.features, g.edge_index, g.train, g.train_labels).softmax(dim=1)
    assert torch.equal(_cpf_run(example, None, 0.0), expected)


def test_cpf_keeps_the_latest_of_the_best_states_and_stops_when_patience_ends(example):
    g = example.graph
    scripted, seen = iter([0.5, 0.9, 0.9, 0.1, 0.2, 0.3, 1.0]), []

    def accuracy(logits):
        seen.append(logits.clone())
        return next(scripted)

    student, epochs = _plp(dropout=0.5), iter(range(100))
    probabilities = train_cpf(
        student,
        None,
        g,
        example.teacher.log_probabilities.exp(),
        bias=None,
        bias_weight=0.0,
        lr=0.01,
        weight_decay=0.0,
        patience=3,
        validation_accuracy=accuracy,
        steps=lambda parts: epochs,
    )
    assert next(epochs) == 6
    assert torch.equal(probabilities, seen[2].softmax(dim=1))


def test_mean_proxy_hides_which_node_has_which_proxy(example):
    g, generator = example.graph, torch.Generator().manual_seed(0)
    proxy = BiasProxy(NODES)
    shuffled, levelled = deepcopy(proxy), deepcopy(proxy)
    with torch.no_grad():
        shuffled.values.copy_(proxy.values[torch.randperm(NODES, generator=generator)])
        levelled.values.copy_(proxy.values.mean(dim=0).expand(NODES, 2))
    plp, sgc = _plp(FEATURES + 2), _randomised(SGCStudent(FEATURES + 2, 2, 8))
    for other in (shuffled, levelled):
        assert torch.allclose(cpf_logits(plp, proxy, g), cpf_logits(plp, other, g), atol=1e-6)
        assert torch.allclose(graph_akd_probabilities(sgc, proxy, g), graph_akd_probabilities(sgc, other, g), atol=1e-6)


def test_proxy_step_raises_the_bias_and_leaves_the_student_alone(example):
    g = example.graph
    measure = bias_measure("sp", g.unlabelled, example.sensitive)
    student, proxy = _plp(FEATURES + 2), BiasProxy(NODES)
    before = deepcopy(student.state_dict())

    def bias():
        with torch.no_grad():
            h = student.unclamped(proxy(g.features), g.edge_index, g.train, g.train_labels)
            return measure(h.softmax(dim=1)).item()

    first = bias()
    optimizer = torch.optim.Adam(proxy.parameters(), lr=1e-3)
    loss = proxy_step(student, proxy, optimizer, g, measure, 7.0)
    assert loss.item() == pytest.approx(-7.0 * first, rel=1e-5)
    assert bias() > first
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())
    assert all(parameter.grad is None for parameter in student.parameters())


def test_cpf_step_lowers_its_loss_and_leaves_the_proxy_alone(example):
    g, t = example.graph, example.teacher.log_probabilities.exp()
    measure = bias_measure("sp", g.unlabelled, example.sensitive)
    student, proxy = _plp(FEATURES + 2), BiasProxy(NODES)
    values = proxy.values.detach().clone()
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-4)
    losses = [
        cpf_step(student, optimizer, proxy.averaged(g.features), g, t, g.unlabelled, measure, 5.0) for _ in range(2)
    ]
    assert losses[1] < losses[0]
    assert torch.equal(values, proxy.values)
    assert proxy.values.grad is None


def test_equal_opportunity_over_training_nodes_needs_the_unclamped_step(example):
    """The logits of training nodes are constant labels; what the last step says of them is not."""
    g = example.graph
    measure = bias_measure("eo", g.train, example.sensitive, g.train_labels)
    student = _plp()
    arguments = (g.features, g.edge_index, g.train, g.train_labels)
    scores = student.plp_layer.attn_l
    for output, moves in ((student(*arguments), False), (student.unclamped(*arguments), True)):
        (gradient,) = torch.autograd.grad(measure(output.softmax(dim=1)), scores)
        assert gradient.any() == moves


# --- GraphAKD --------------------------------------------------------------------------------------------


def _bce(logits, target):
    p = _sigmoid(logits)
    return -np.mean(target * np.log(p) + (1 - target) * np.log(1 - p))


def _cross_entropy(logits, labels):
    return -np.mean(np.log(_softmax(logits))[np.arange(len(labels)), labels])


def _graph_akd_losses_by_hand(judges, z, e, t, e_t, graph):
    edges, train, y = graph.edge_index.numpy(), graph.train.numpy(), graph.train_labels.numpy()
    logit, local, whole = (j.state_dict() for j in (judges.logits, judges.local, judges.whole))
    t_classes, t_real = _logit_discriminator_by_hand(logit, t)
    z_classes, z_real = _logit_discriminator_by_hand(logit, z)
    teacher_edges, student_edges = (_local_discriminator_by_hand(local, h, edges) for h in (e_t, e))

    def judged(h, summarised):
        return _global_discriminator_by_hand(whole, h, summarised)

    discriminator = 0.5 * (
        _bce(t_real, 1) + _bce(z_real, 0) + _cross_entropy(t_classes[train], y) + _cross_entropy(z_classes[train], y)
    )
    discriminator += _bce(teacher_edges, 1) + _bce(student_edges, 0)
    discriminator += _bce(judged(e_t, e_t), 1) + _bce(judged(e, e_t), 0)
    discriminator += _bce(judged(e, e), 1) + _bce(judged(e_t, e), 0)
    generator = _cross_entropy(z[train], y)
    generator += 0.5 * (_cross_entropy(z_classes[train], y) + _bce(z_real, 1))
    generator += np.abs(z - t).sum() / len(z)
    generator += _bce(student_edges, 1) + _bce(judged(e, e_t), 1)
    generator += _bce(judged(e, e), 1) + _bce(judged(e_t, e), 0)
    return discriminator, generator


def test_graph_akd_losses_equal_the_formulas(example):
    judges, generator = _discriminators(), torch.Generator().manual_seed(5)
    z, e = torch.randn(NODES, 2, generator=generator), torch.randn(NODES, 8, generator=generator)
    t, e_t = example.teacher.log_probabilities, example.teacher.embedding
    g = example.graph
    expected = _graph_akd_losses_by_hand(judges, *map(_numpy, (z, e, t, e_t)), g)
    arguments = (judges, z, e, t, e_t, g.edge_index, g.train, g.train_labels)
    assert graph_akd_discriminator_loss(*arguments).item() == pytest.approx(expected[0], abs=1e-5)
    assert graph_akd_generator_loss(*arguments).item() == pytest.approx(expected[1], abs=1e-5)


def test_discriminator_loss_sends_no_gradient_to_the_student(example):
    judges, g, t = _discriminators(), example.graph, example.teacher
    z, e = torch.randn(NODES, 2, requires_grad=True), torch.randn(NODES, 8, requires_grad=True)
    arguments = (z, e, t.log_probabilities, t.embedding, g.edge_index, g.train, g.train_labels)
    graph_akd_discriminator_loss(judges, *arguments).backward()
    assert z.grad is None
    assert e.grad is None


def test_graph_akd_steps_update_only_their_own_part(example):
    g, t = example.graph, example.teacher
    judges = _discriminators()
    student, proxy = _randomised(SGCStudent(FEATURES + 2, 2, 8, dropout=0.0)), BiasProxy(NODES)
    measure = bias_measure("sp", torch.arange(NODES), example.sensitive)
    parts = {"student": student, "proxy": proxy, "l": judges.logits, "e": judges.local, "g": judges.whole}

    def snapshot():
        return {name: deepcopy(part.state_dict()) for name, part in parts.items()}

    def changed(before):
        return {
            name
            for name, part in parts.items()
            if any(not torch.equal(before[name][key], value) for key, value in part.state_dict().items())
        }

    def forward():
        return student(proxy.averaged(g.features), g.edge_index)

    def adam(parameters):
        return torch.optim.Adam(parameters, lr=1e-4)

    before, optimizer = snapshot(), adam(judges.parameters())
    losses = [graph_akd_discriminator_step(judges, optimizer, *forward(), t, g) for _ in range(2)]
    assert losses[1] < losses[0]
    assert changed(before) == {"l", "e", "g"}

    before, optimizer = snapshot(), adam(student.parameters())
    losses = [graph_akd_generator_step(student, optimizer, judges, *forward(), t, g, measure, 10.0) for _ in range(2)]
    assert losses[1] < losses[0]
    assert changed(before) == {"student"}

    before, optimizer = snapshot(), adam(proxy.parameters())
    losses = [
        graph_akd_proxy_step(student, proxy, optimizer, g.features, g.edge_index, measure, 10.0) for _ in range(2)
    ]
    assert losses[1] < losses[0]
    assert changed(before) == {"proxy"}


def _graph_akd_run(example, measure, bias_weight, scripted=None):
    torch.manual_seed(0)
    student = SGCStudent(FEATURES, 2, 8)
    seen, losses = [], iter(scripted or [3.0, 2.0, 1.0])

    def cross_entropy(log_probabilities):
        seen.append(log_probabilities.exp())
        return next(losses)

    result = train_graph_akd(
        student,
        None,
        Discriminators(LogitDiscriminator(2), LocalDiscriminator(8), GlobalDiscriminator(8)),
        example.graph,
        example.teacher,
        student_bias=measure,
        proxy_bias=measure,
        bias_weight=bias_weight,
        lr=1e-2,
        discriminator_lr=1e-3,
        proxy_lr=1e-3,
        weight_decay=5e-4,
        validation_cross_entropy=cross_entropy,
        steps=lambda parts: range(3),
    )
    return result, seen


def test_graph_akd_without_lambda_and_proxy_is_the_vanilla_student_bit_for_bit(example):
    measure = bias_measure("sp", example.graph.train, example.sensitive)
    vanilla, _ = _graph_akd_run(example, None, 0.0)
    assert torch.equal(vanilla, _graph_akd_run(example, measure, 0.0)[0])
    assert not torch.equal(vanilla, _graph_akd_run(example, measure, 100.0)[0])


def test_graph_akd_keeps_the_state_of_lowest_cross_entropy(example):
    result, seen = _graph_akd_run(example, None, 0.0, scripted=[2.0, 1.0, 1.5])
    assert torch.equal(result, seen[1])


def test_graph_akd_trains_its_proxies_to_raise_the_bias(example):
    """Seen with their own proxies, by a student that stands still."""
    g, measure = example.graph, bias_measure("sp", torch.arange(NODES), example.sensitive)
    student, proxy = _randomised(SGCStudent(FEATURES + 2, 2, 8, dropout=0.0)), BiasProxy(NODES)

    def bias():
        with torch.no_grad():
            return measure(student(proxy(g.features), g.edge_index)[0].softmax(dim=1)).item()

    before = bias()
    train_graph_akd(
        student,
        proxy,
        _discriminators(),
        g,
        example.teacher,
        student_bias=None,
        proxy_bias=measure,
        bias_weight=10.0,
        lr=0.0,
        discriminator_lr=1e-3,
        proxy_lr=1e-2,
        weight_decay=0.0,
        validation_cross_entropy=lambda log_probabilities: 0.0,
        steps=lambda parts: range(3),
    )
    assert bias() > before * 1.01


# --- going on after a kill -------------------------------------------------------------------------------


# Best at epoch 2, so that a patience of 6 ends CPF's training after epoch 8; GraphAKD has none.
ACCURACIES = (0.5, 0.4, 0.9, 0.8, 0.7, 0.6, 0.8, 0.8, 0.8, 1.0)


def visible_to_a_student(example: Example, labels: Any = None) -> tuple[StudentGraph, Teacher]:
    g, rest = example.graph, example.graph.unlabelled.numpy()
    graph = StudentGraph(
        features=g.features.numpy(),
        edge_index=g.edge_index.numpy(),
        sensitive=example.sensitive.numpy(),
        train=g.train.numpy(),
        validation=rest[:10],
        test=rest[10:],
        train_labels=g.train_labels.numpy(),
        num_classes=2,
        labels=labels,
    )
    teacher = Teacher("gcn", example.teacher.log_probabilities.numpy(), example.teacher.embedding.numpy(), 1)
    return graph, teacher


@pytest.mark.parametrize("row", ["VanillaCPF", "ReliantCPF", "VanillaGraphAKD", "ReliantGraphAKD"])
def test_a_killed_training_goes_on_bit_for_bit(example: Example, tmp_path: Path, monkeypatch: Any, row: str) -> None:
    monkeypatch.setenv(EVERY_STEPS, "2")
    graph, teacher = visible_to_a_student(example)
    cpf, last = "CPF" in row, 8
    settings = {"epochs": len(ACCURACIES) if cpf else last + 1, "lr": 0.01} | ({"patience": 6} if cpf else {})

    def trained(ctx: WatchedContext, kill_at: int | None = None) -> Any:
        class Scripted(Validation):
            def accuracy(self, scores: Any) -> float:
                if ctx.epochs[-1] == kill_at:
                    raise Killed
                return ACCURACIES[ctx.epochs[-1]]

            def cross_entropy(self, log_probabilities: Any) -> float:
                return -self.accuracy(log_probabilities)

        method = getattr(rows, row)
        validation = Scripted(graph.validation, graph.validation)
        return method(method.Config(**settings)).distil(graph, teacher, validation, ctx).probabilities

    whole = watched(tmp_path / "whole")
    expected = trained(whole)
    assert whole.epochs == list(range(last + 1))
    for kill_at in (3, 5, last):
        with pytest.raises(Killed):
            trained(watched(tmp_path / str(kill_at)), kill_at)
        ctx = watched(tmp_path / str(kill_at))
        assert np.array_equal(trained(ctx), expected)
        assert ctx.epochs == list(range(kill_at - kill_at % 2, last + 1))


# --- what the rows hand to the training ------------------------------------------------------------------


def handed_over(
    example: Example, folder: Path, monkeypatch: Any, row: str, labels: Any = None, **settings: Any
) -> dict[str, Any]:
    """Return what a row calls its training loop with, in a task that shows all ``labels`` or those for training."""
    graph, teacher = visible_to_a_student(example, labels)
    seen: dict[str, Any] = {}

    def noted(student: Any, proxy: Any, *arguments: Any, **keywords: Any) -> torch.Tensor:
        seen.update(keywords, student=student, proxy=proxy, arguments=arguments)
        seen["epochs"] = len(list(keywords["steps"]({"nothing": []})))
        return torch.full((NODES, 2), 0.5)

    monkeypatch.setattr(rows, "train_cpf", noted)
    monkeypatch.setattr(rows, "train_graph_akd", noted)
    method = getattr(rows, row)
    validation = Validation(graph.validation, graph.validation % 2)
    method(method.Config(**settings)).distil(graph, teacher, validation, watched(folder))
    return seen


def depends_on(bias: Any) -> set[int]:
    """Return the nodes whose predictions a bias measure looks at."""
    p = torch.linspace(0.05, 0.95, NODES).repeat(2, 1).T.contiguous().requires_grad_()
    (gradient,) = torch.autograd.grad(bias(p), p)
    return set(gradient.any(dim=1).nonzero()[:, 0].tolist())


def test_cpf_is_taught_the_teachers_probabilities(example: Example, tmp_path: Path, monkeypatch: Any) -> None:
    seen = handed_over(example, tmp_path, monkeypatch, "VanillaCPF")
    graph, targets = seen["arguments"]
    assert torch.allclose(targets, example.teacher.log_probabilities.exp())
    assert torch.equal(graph.train, example.graph.train)
    assert torch.equal(graph.train_labels, example.graph.train_labels)
    assert (seen["bias"], seen["bias_weight"], seen["proxy"]) == (None, 0, None)


@pytest.mark.parametrize("eo_labels", ["train", "teacher", "all"])
@pytest.mark.parametrize("objective", ["sp", "eo"])
def test_bias_is_measured_on_the_published_nodes(
    example: Example, tmp_path: Path, monkeypatch: Any, objective: str, eo_labels: str
) -> None:
    g, settings = example.graph, {"objective": objective, "eo_labels": eo_labels}
    labels = np.random.default_rng(5).integers(0, 2, NODES)
    labels[g.train] = g.train_labels
    settings["labels"] = labels if eo_labels == "all" else None
    train, rest = set(g.train.tolist()), set(g.unlabelled.tolist())
    truly_positive = set(g.train[g.train_labels == 1].tolist())
    called_positive = set(example.teacher.log_probabilities.argmax(dim=1).nonzero()[:, 0].tolist())

    def expected(nodes: set[int]) -> set[int]:
        if objective == "sp":
            return nodes
        if eo_labels == "all":
            return nodes & set(labels.nonzero()[0].tolist())
        return truly_positive if eo_labels == "train" else nodes & called_positive

    cpf = handed_over(example, tmp_path, monkeypatch, "ReliantCPF", **settings)
    assert depends_on(cpf["bias"]) == expected(rest)
    akd = handed_over(example, tmp_path, monkeypatch, "ReliantGraphAKD", **settings)
    assert depends_on(akd["student_bias"]) == expected(train)
    assert depends_on(akd["proxy_bias"]) == expected(train | rest)


@pytest.mark.parametrize("row", ["BiasTermCPF", "ReliantGraphAKD"])
def test_labels_of_all_nodes_are_there_only_where_the_task_shows_them(
    example: Example, tmp_path: Path, monkeypatch: Any, row: str
) -> None:
    with pytest.raises(ConfigError, match=r"add --set task.student_labels=all") as caught:
        handed_over(example, tmp_path, monkeypatch, row, objective="eo", eo_labels="all")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", ["ReliantCPF", "ReliantGraphAKD"])
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_fixed_proxy_has_the_groups_for_columns(
    example: Example, tmp_path: Path, monkeypatch: Any, row: str, mode: str
) -> None:
    proxy = handed_over(example, tmp_path, monkeypatch, row, proxy="fixed", proxy_mode=mode)["proxy"]
    assert torch.equal(proxy.values, torch.stack([example.sensitive, 1 - example.sensitive], dim=1).float())
    assert (proxy.mode, proxy.learns, list(proxy.parameters())) == (mode, False, [])
    assert handed_over(example, tmp_path, monkeypatch, row)["proxy"].learns


@pytest.mark.parametrize("row", ["ReliantCPF", "ReliantGraphAKD"])
def test_a_fixed_proxy_is_averaged_in_training_and_stays(
    example: Example, tmp_path: Path, monkeypatch: Any, row: str
) -> None:
    """Which node belongs to which group cannot reach the student through it: only the share of the groups does."""
    graph, teacher = visible_to_a_student(example)
    validation = Validation(graph.validation, graph.validation % 2)
    method, made = getattr(rows, row), []
    plain = rows.BiasProxy
    monkeypatch.setattr(rows, "BiasProxy", lambda *a: made.append(plain(*a)) or made[-1])
    settings = {"epochs": 3, "proxy": "fixed", "bias_weight": 0.0}

    def trained(sensitive: Any, number: int) -> Any:
        student = method(method.Config(**settings))
        visible = replace(graph, sensitive=sensitive)
        return student.distil(visible, teacher, validation, watched(tmp_path / str(number))).probabilities

    expected = trained(graph.sensitive, 0)
    assert np.array_equal(trained(graph.sensitive[::-1].copy(), 1), expected)
    assert not np.array_equal(trained(np.zeros_like(graph.sensitive), 2), expected)
    groups = torch.from_numpy(graph.sensitive)
    assert torch.equal(made[0].values, torch.stack([groups, 1 - groups], dim=1).float())


def test_a_fixed_proxy_has_two_columns() -> None:
    with pytest.raises(ValueError, match="leave proxy_width at 2, not 3"):
        rows.ReliantCPF.Config(proxy="fixed", proxy_width=3)
    with pytest.raises(ValueError, match="proxy_width must be 1 or more"):
        rows.ReliantGraphAKD.Config(proxy_width=0)


@pytest.mark.parametrize(
    ("method", "against"), [("reliant", "cpf-bias-term"), ("reliant-graph-akd", "graph-akd-bias-term")]
)
def test_a_claim_asks_whether_the_proxy_adds_to_the_bias_term(method: str, against: str) -> None:
    """Both rows are trained alike but for the proxy."""
    (claim,) = [
        c
        for c in parse_claims(read_resource("benchsuite_reliant:claims.toml"), "claims")
        if (c.method, c.against) == (method, against)
    ]
    assert (claim.form, claim.metric, claim.higher) == ("superiority", "statistical_parity_difference", False)
    settings = [get_registry().method(name).presets["embedded"].resolve({}) for name in (method, against)]
    assert settings[0] == settings[1]


def test_bias_is_that_between_the_groups(example: Example, tmp_path: Path, monkeypatch: Any) -> None:
    bias = handed_over(example, tmp_path, monkeypatch, "BiasTermCPF")["bias"]
    rest, s = example.graph.unlabelled, example.sensitive
    p = torch.full((NODES, 2), 0.5)
    p[s == 1] = torch.tensor([0.2, 0.8])
    assert bias(p).item() == pytest.approx(statistical_parity_loss(p[rest], s[rest]).item())
    assert bias(p).item() > 0.1


def test_lambda_is_scaled_by_the_nodes_that_are_distilled_on(
    example: Example, tmp_path: Path, monkeypatch: Any
) -> None:
    weights = [
        handed_over(example, tmp_path, monkeypatch, "ReliantCPF", bias_weight=100.0, scale_lambda=scale)["bias_weight"]
        for scale in (False, True)
    ]
    assert weights == pytest.approx([100, 100 * np.sqrt((NODES - 12) / 13_214)])


def test_students_are_chosen_by_validation_accuracy_and_cross_entropy(
    example: Example, tmp_path: Path, monkeypatch: Any
) -> None:
    graph, _ = visible_to_a_student(example)
    p = torch.from_numpy(np.random.default_rng(0).random((NODES, 2)))
    p /= p.sum(dim=1, keepdim=True)
    nodes, labels = graph.validation, graph.validation % 2
    of_labels = p.numpy()[nodes, labels]
    accuracy = handed_over(example, tmp_path, monkeypatch, "VanillaCPF")["validation_accuracy"](p)
    assert accuracy == pytest.approx((of_labels > 0.5).mean())
    loss = handed_over(example, tmp_path, monkeypatch, "VanillaGraphAKD")["validation_cross_entropy"](p.log())
    assert loss == pytest.approx(-np.log(of_labels).mean())


def _published(name: str, **facts: Any) -> Any:
    spec = get_registry().method(name)
    cls = getattr(rows, spec.load.partition(":")[2]).Config
    return build_config(cls, spec.presets["paper"].resolve(facts), name)


@pytest.mark.parametrize(
    ("facts", "steps", "lr"),
    [
        ({"dataset": "bail", "teacher": "gcn"}, 10, 0.01),
        ({"dataset": "credit", "teacher": "graphsage"}, 10, 0.01),
        ({"dataset": "german", "teacher": "gcn"}, 8, 0.01),
        ({"dataset": "german", "teacher": "graphsage"}, 10, 0.001),
    ],
)
def test_paper_presets_are_the_published_settings(facts: dict[str, str], steps: int, lr: float) -> None:
    for name in ("cpf", "cpf-bias-term", "reliant"):
        c = _published(name, **facts)
        assert (c.num_layers, c.lr, c.epochs, c.patience, c.hidden) == (steps, lr, 1000, 500, 64)
        assert (c.feature_dropout, c.attention_dropout, c.weight_decay) == (0.8, 0.2, 0.01)
    assert _published("reliant", **facts).bias_weight == 1000
    a = _published("reliant-graph-akd", **facts)
    assert (a.epochs, a.lr, a.discriminator_lr, a.proxy_lr) == (600, 1e-4, 1e-3, 1e-3)
    assert (a.weight_decay, a.dropout, a.bias_weight) == (5e-4, 0.5, 10)


# --- the claims, on the generated graph ------------------------------------------------------------------


def _judged(data, probabilities):
    predicted = probabilities.argmax(dim=1).numpy()[data.test]
    return (
        classification.accuracy(predicted, data.labels[data.test]),
        fairness.statistical_parity_difference(predicted, data.sensitive[data.test]),
    )


def _students_on(draw, weights, mode):
    """Accuracy and statistical parity difference of a student for each lambda, of one teacher."""
    data = load_synthetic(None, draw)
    graph = Graph(
        features=torch.from_numpy(data.features),
        edge_index=torch.from_numpy(data.edge_index),
        train=torch.from_numpy(data.train),
        train_labels=torch.from_numpy(data.labels[data.train]),
    )

    def accuracy(logits):
        predicted = logits.argmax(dim=1).numpy()[data.validation]
        return classification.accuracy(predicted, data.labels[data.validation])

    torch.manual_seed(draw)
    teacher = GCNTeacher(15, 2, dropout=0.5)
    train_teacher(
        teacher,
        graph.features,
        adjacency(graph.edge_index, 1000),
        graph.train,
        graph.train_labels,
        accuracy,
        lr=0.01,
        weight_decay=0.001,
        patience=150,
        steps=lambda parts: range(150),
    )
    with torch.no_grad():
        targets = teacher(graph.features, graph.edge_index)[0].softmax(dim=1)
    measure = bias_measure("sp", graph.unlabelled, torch.from_numpy(data.sensitive))
    judged = []
    for weight in weights:
        torch.manual_seed(draw)
        proxy = BiasProxy(1000, 2, mode) if weight else None
        student = PLPStudent(1000, 15 if proxy is None else proxy.input_width(15), 2)
        probabilities = train_cpf(
            student,
            proxy,
            graph,
            targets,
            bias=measure,
            bias_weight=weight,
            lr=0.01,
            weight_decay=0.01,
            patience=100,
            validation_accuracy=accuracy,
            steps=lambda parts: range(100),
        )
        judged.append(_judged(data, probabilities))
    return judged


@pytest.mark.slow
def test_reliant_cuts_the_bias_of_the_student_at_a_bounded_cost():
    """The default, ``append``, in every seed.

    ``replace`` gives up two features and is left out: in one of 15 measured runs it lost 8.8 points.
    """
    table = np.array([_students_on(draw, (0.0, 100.0, 300.0), "append") for draw in range(3)])
    accuracy, parity = table[..., 0], table[..., 1]
    assert (parity[:, 2] <= 0.75 * parity[:, 0]).all()
    assert (accuracy[:, 0] - accuracy[:, 2] <= 0.08).all()
    assert (np.diff(parity.mean(axis=0)) < 0).all()
