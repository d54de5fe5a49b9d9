"""The optimisation steps and loops of RELIANT around CPF and around GraphAKD.

Without a proxy and without a bias measure both loops are those of the vanilla students, operation by
operation. Training labels are the only labels that enter, but through a bias measure that was given others.

`Bias` functions judge probabilities of all nodes. For CPF these come from the last propagation step
before the training nodes are reset to their one-hot labels: on all other nodes they are the student's
predictions, and on training nodes they still depend on the student, which a constant label does not.

[inferred] The official equal-opportunity term of CPF reads the labels of all non-training nodes, test
nodes included. Two clean substitutes fit `bias_measure`: the training nodes with their labels, or the
non-training nodes with the teacher's predictions as labels. The second keeps the published set of nodes,
and those are where the student predicts: the unclamped output of a training node partly echoes its own
label through its self-loop. Where the protocol shows all labels, the official term itself can be had.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch_geometric import EdgeIndex

from benchsuite_reliant.losses import (
    Bias,
    Discriminators,
    cpf_distillation_loss,
    graph_akd_discriminator_loss,
    graph_akd_generator_loss,
)
from benchsuite_reliant.model import BiasProxy, PLPStudent, SGCStudent

Steps = Callable[[Mapping[str, Any]], Iterable[int]]
"""Given the parts of a training's state (see `RunContext.resumable`), yields one number an epoch."""


@dataclass(frozen=True)
class Graph:
    """What the students see of a graph, as tensors on one device.

    Attributes
    ----------
    features
        (N, F) float32.
    edge_index
        (2, E) int64, symmetric, sorted by (row, column), one self-loop a node.
    train, train_labels
        (n,) int64 node indices and their classes.
    labels
        (N,) int64 classes of all nodes, where the protocol shows them; else None. Only bias measures may read them.
    """

    features: Tensor
    edge_index: Tensor
    train: Tensor
    train_labels: Tensor
    labels: Tensor | None = None

    @property
    def unlabelled(self) -> Tensor:
        """Indices of all nodes that are not training nodes."""
        hidden = torch.ones(len(self.features), dtype=torch.bool, device=self.train.device)
        hidden[self.train] = False
        return hidden.nonzero()[:, 0]


@dataclass(frozen=True)
class TeacherOutput:
    """What a teacher says of every node: log-probabilities (N, C) and embedding (N, D)."""

    log_probabilities: Tensor
    embedding: Tensor


def cpf_step(
    student: PLPStudent,
    optimizer: Optimizer,
    inputs: Tensor,
    graph: Graph,
    teacher_probabilities: Tensor,
    distilled: Tensor,
    bias: Bias | None = None,
    bias_weight: float = 0.0,
) -> Tensor:
    """Update the student once on ``||p_I - T_I||_F + lambda L_bias`` and return that loss.

    Parameters
    ----------
    student, optimizer
        The student and the optimiser of its parameters.
    inputs
        (N, F') features, with the mean proxy if there is one.
    graph
        Edges and training labels.
    teacher_probabilities
        (N, C), T.
    distilled
        I: indices of the nodes that are distilled on.
    bias, bias_weight
        L_bias and lambda; None leaves the term out.
    """
    student.train()
    probabilities = _plp_probabilities(student, inputs, graph)
    loss = cpf_distillation_loss(probabilities[distilled], teacher_probabilities[distilled])
    if bias is not None:
        loss = loss + bias_weight * bias(probabilities)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def proxy_step(
    student: PLPStudent,
    proxy: BiasProxy,
    optimizer: Optimizer,
    graph: Graph,
    bias: Bias,
    bias_weight: float,
) -> Tensor:
    """Update the proxies of a CPF student once on ``-lambda L_bias`` and return that loss.

    Every node is seen with its own proxy; the student stays as it is.

    Parameters
    ----------
    student
        The student, in training mode as its dropout is.
    proxy, optimizer
        The proxies and their optimiser.
    graph
        Features, edges and training labels.
    bias, bias_weight
        L_bias and lambda.
    """
    student.train()
    loss = -bias_weight * bias(_plp_probabilities(student, proxy(graph.features), graph))
    _update_proxy(proxy, optimizer, loss)
    return loss.detach()


def train_cpf(
    student: PLPStudent,
    proxy: BiasProxy | None,
    graph: Graph,
    teacher_probabilities: Tensor,
    *,
    bias: Bias | None,
    bias_weight: float,
    lr: float,
    weight_decay: float,
    patience: int,
    validation_accuracy: Callable[[Tensor], float],
    steps: Steps,
) -> Tensor:
    """Train a CPF student and return the class probabilities of all nodes, (N, C).

    Each epoch updates the student, then the proxies, then looks at the validation accuracy. The state
    with the highest one (the latest of equals) is kept, and predicts with the mean of the proxies as they
    are at the end, as in the official code.

    Parameters
    ----------
    student
        On the device of the tensors.
    proxy
        None for the vanilla student and for the ablation with the bias term alone; a fixed one is never updated.
    graph, teacher_probabilities
        The visible graph, and T (N, C).
    bias, bias_weight
        L_bias and lambda; None or 0 leaves out the term and the proxy updates it would drive.
    lr, weight_decay
        Of both Adam optimisers.
    patience
        Training ends after so many epochs in a row without a new (or equal) best.
    validation_accuracy
        Judges logits (N, C) of all nodes.
    steps
        Yields one number an epoch; is given what a killed training needs to go on (see `RunContext.resumable`).
    """
    bias = bias if bias_weight else None
    optimizer = Adam(student.parameters(), lr=lr, weight_decay=weight_decay)
    proxy_optimizer = Adam(proxy.parameters(), lr=lr, weight_decay=weight_decay) if proxy and proxy.learns else None
    distilled = graph.unlabelled
    best: dict[str, Any] = {"accuracy": -1.0, "state": copy.deepcopy(student.state_dict()), "waited": 0}
    parts = {"student": student, "optimizer": optimizer, "best": best}
    if proxy is not None and proxy_optimizer is not None:
        parts |= {"proxy": proxy, "proxy_optimizer": proxy_optimizer}
    for _ in steps(parts):
        inputs = _with_mean_proxy(proxy, graph)
        cpf_step(student, optimizer, inputs, graph, teacher_probabilities, distilled, bias, bias_weight)
        if proxy is not None and proxy_optimizer is not None and bias is not None:
            proxy_step(student, proxy, proxy_optimizer, graph, bias, bias_weight)
        accuracy = validation_accuracy(cpf_logits(student, proxy, graph))
        if accuracy >= best["accuracy"]:
            best.update(accuracy=accuracy, state=copy.deepcopy(student.state_dict()), waited=0)
        else:
            best["waited"] += 1
            if best["waited"] >= patience:
                break
    student.load_state_dict(best["state"])
    return cpf_probabilities(student, proxy, graph)


def cpf_probabilities(student: PLPStudent, proxy: BiasProxy | None, graph: Graph) -> Tensor:
    """Return a CPF student's class probabilities (N, C) at inference."""
    return cpf_logits(student, proxy, graph).softmax(dim=1)


@torch.no_grad()
def cpf_logits(student: PLPStudent, proxy: BiasProxy | None, graph: Graph) -> Tensor:
    """Return a CPF student's logits (N, C) at inference: no dropout, the mean proxy on every node."""
    student.eval()
    return student(_with_mean_proxy(proxy, graph), graph.edge_index, graph.train, graph.train_labels)


def graph_akd_discriminator_step(
    discriminators: Discriminators,
    optimizer: Optimizer,
    student_logits: Tensor,
    student_embedding: Tensor,
    teacher: TeacherOutput,
    graph: Graph,
) -> Tensor:
    """Update the discriminators once on L_D and return it.

    Parameters
    ----------
    discriminators, optimizer
        D_l, D_e, D_g and the optimiser of their parameters.
    student_logits, student_embedding
        (N, C) and (N, D), with the mean proxy; their gradient is not used.
    teacher, graph
        What to tell the student from; edges and training labels.
    """
    loss = graph_akd_discriminator_loss(
        discriminators,
        student_logits,
        student_embedding,
        teacher.log_probabilities,
        teacher.embedding,
        graph.edge_index,
        graph.train,
        graph.train_labels,
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def graph_akd_generator_step(
    student: SGCStudent,
    optimizer: Optimizer,
    discriminators: Discriminators,
    student_logits: Tensor,
    student_embedding: Tensor,
    teacher: TeacherOutput,
    graph: Graph,
    bias: Bias | None = None,
    bias_weight: float = 0.0,
) -> Tensor:
    """Update the student once on ``L_G + lambda L_bias`` and return that loss.

    Parameters
    ----------
    student, optimizer
        The student and the optimiser of its parameters.
    discriminators
        D_l, D_e and D_g; they stay as they are.
    student_logits, student_embedding
        (N, C) and (N, D), attached to the student, with the mean proxy.
    teacher, graph
        What to imitate; edges and training labels.
    bias, bias_weight
        L_bias (over the training nodes) and lambda; None leaves the term out.
    """
    loss = graph_akd_generator_loss(
        discriminators,
        student_logits,
        student_embedding,
        teacher.log_probabilities,
        teacher.embedding,
        graph.edge_index,
        graph.train,
        graph.train_labels,
    )
    if bias is not None:
        loss = loss + bias_weight * bias(student_logits.softmax(dim=1))
    optimizer.zero_grad()
    loss.backward(inputs=list(student.parameters()))
    optimizer.step()
    return loss.detach()


def graph_akd_proxy_step(
    student: SGCStudent,
    proxy: BiasProxy,
    optimizer: Optimizer,
    features: Tensor,
    edge_index: Tensor,
    bias: Bias,
    bias_weight: float,
) -> Tensor:
    """Update the proxies of a GraphAKD student once on ``-lambda L_bias`` and return that loss.

    Parameters
    ----------
    student
        The student; it stays as it is.
    proxy, optimizer
        The proxies and their optimiser.
    features, edge_index
        (N, F), and (2, E) or a row-sorted undirected `EdgeIndex`.
    bias, bias_weight
        L_bias (over all nodes) and lambda.
    """
    student.train()
    logits, _ = student(proxy(features), edge_index)
    loss = -bias_weight * bias(logits.softmax(dim=1))
    _update_proxy(proxy, optimizer, loss)
    return loss.detach()


def train_graph_akd(
    student: SGCStudent,
    proxy: BiasProxy | None,
    discriminators: Discriminators,
    graph: Graph,
    teacher: TeacherOutput,
    *,
    student_bias: Bias | None,
    proxy_bias: Bias | None,
    bias_weight: float,
    lr: float,
    discriminator_lr: float,
    proxy_lr: float,
    weight_decay: float,
    validation_cross_entropy: Callable[[Tensor], float],
    steps: Steps,
) -> Tensor:
    """Train a GraphAKD student and return the class probabilities of all nodes, (N, C).

    Each epoch updates the discriminators, the student, then the proxies, and looks at the validation
    cross-entropy, in evaluation mode (the official code leaves dropout on there). The state with the
    lowest one is kept.

    [inferred] One forward pass of the student serves both its judges and its own update. The kept state
    predicts with the mean of the proxies as they are at the end, as CPF's official code does.

    Parameters
    ----------
    student, discriminators
        On the device of the tensors.
    proxy
        None for the vanilla student and for the ablation with the bias term alone; a fixed one is never updated.
    graph, teacher
        The visible graph, and what to imitate.
    student_bias, proxy_bias
        L_bias over the training nodes (for the student) and over all nodes (for the proxies).
    bias_weight
        lambda; 0 leaves out the term and the proxy updates.
    lr, discriminator_lr, proxy_lr, weight_decay
        Of the three Adam optimisers.
    validation_cross_entropy
        Judges log-probabilities (N, C) of all nodes.
    steps
        Yields one number an epoch; is given what a killed training needs to go on (see `RunContext.resumable`).
    """
    student_bias, proxy_bias = (student_bias, proxy_bias) if bias_weight else (None, None)
    optimizer = Adam(student.parameters(), lr=lr, weight_decay=weight_decay)
    discriminator_optimizer = Adam(discriminators.parameters(), lr=discriminator_lr, weight_decay=weight_decay)
    proxy_optimizer = (
        Adam(proxy.parameters(), lr=proxy_lr, weight_decay=weight_decay) if proxy and proxy.learns else None
    )
    edges = _fast_adjacency(graph)
    best: dict[str, Any] = {"loss": float("inf"), "state": copy.deepcopy(student.state_dict())}
    parts = {
        "student": student,
        "optimizer": optimizer,
        "logit_discriminator": discriminators.logits,
        "local_discriminator": discriminators.local,
        "global_discriminator": discriminators.whole,
        "discriminator_optimizer": discriminator_optimizer,
        "best": best,
    }
    if proxy is not None and proxy_optimizer is not None:
        parts |= {"proxy": proxy, "proxy_optimizer": proxy_optimizer}
    for _ in steps(parts):
        student.train()
        logits, embedding = student(_with_mean_proxy(proxy, graph), edges)
        graph_akd_discriminator_step(discriminators, discriminator_optimizer, logits, embedding, teacher, graph)
        graph_akd_generator_step(
            student, optimizer, discriminators, logits, embedding, teacher, graph, student_bias, bias_weight
        )
        if proxy is not None and proxy_optimizer is not None and proxy_bias is not None:
            graph_akd_proxy_step(student, proxy, proxy_optimizer, graph.features, edges, proxy_bias, bias_weight)
        loss = validation_cross_entropy(_graph_akd_log_probabilities(student, proxy, graph, edges))
        if loss < best["loss"]:
            best.update(loss=loss, state=copy.deepcopy(student.state_dict()))
    student.load_state_dict(best["state"])
    return graph_akd_probabilities(student, proxy, graph)


def graph_akd_probabilities(student: SGCStudent, proxy: BiasProxy | None, graph: Graph) -> Tensor:
    """Return a GraphAKD student's class probabilities (N, C) at inference: no dropout, the mean proxy."""
    return _graph_akd_log_probabilities(student, proxy, graph, _fast_adjacency(graph)).exp()


@torch.no_grad()
def _graph_akd_log_probabilities(student: SGCStudent, proxy: BiasProxy | None, graph: Graph, edges: Tensor) -> Tensor:
    student.eval()
    logits, _ = student(_with_mean_proxy(proxy, graph), edges)
    return logits.log_softmax(dim=1)


def _plp_probabilities(student: PLPStudent, inputs: Tensor, graph: Graph) -> Tensor:
    h = student.unclamped(inputs, graph.edge_index, graph.train, graph.train_labels)
    return h.softmax(dim=1)


def _with_mean_proxy(proxy: BiasProxy | None, graph: Graph) -> Tensor:
    return graph.features if proxy is None else proxy.averaged(graph.features)


def _update_proxy(proxy: BiasProxy, optimizer: Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward(inputs=list(proxy.parameters()))
    optimizer.step()


def _fast_adjacency(graph: Graph) -> EdgeIndex:
    size = (len(graph.features), len(graph.features))
    edges = EdgeIndex(graph.edge_index, sparse_size=size, sort_order="row", is_undirected=True)
    return edges.fill_cache_()
