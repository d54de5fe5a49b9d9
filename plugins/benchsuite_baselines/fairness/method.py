"""Plain distillation into torch-geometric's networks, and FairGNN.

Notation: N nodes, F features, C classes, n training nodes.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch_geometric.nn import GCNConv
from torch_geometric.nn.models import GCN, GraphSAGE

from benchsuite.core import ConfigError, RunContext
from benchsuite.tasks.fair_distillation.contract import FairDistiller, Student, StudentGraph, Teacher, Validation
from benchsuite_baselines.fairness.config import FairGNNConfig, PlainDistillationConfig

# --- plain distillation ----------------------------------------------------------------------------------


class _PlainDistillation(FairDistiller):
    """A library network that learns the training labels and the teacher's softened answers on all nodes."""

    Config: ClassVar[type] = PlainDistillationConfig

    @abstractmethod
    def network(self, in_features: int, num_classes: int) -> nn.Module:
        """Return an untrained network, called with (features, edge_index)."""

    def distil(self, graph: StudentGraph, teacher: Teacher, validation: Validation, ctx: RunContext) -> Student:
        """See `FairDistiller.distil`; keeps the epoch of highest validation accuracy, the latest of equals."""
        c = self.config
        torch.manual_seed(ctx.seed_for("run", "student"))
        device = torch.device(ctx.device)
        features, edges = (torch.from_numpy(a).to(device) for a in (graph.features, graph.edge_index))
        train, labels = (torch.from_numpy(a).to(device) for a in (graph.train, graph.train_labels))
        taught = torch.from_numpy(teacher.log_probabilities).to(device)
        model = self.network(features.shape[1], graph.num_classes).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=c.lr, weight_decay=c.weight_decay)
        best: dict[str, Any] = {"accuracy": -1.0, "state": copy.deepcopy(model.state_dict()), "waited": 0}
        for _ in ctx.resumable("student", c.epochs, {"model": model, "optimizer": optimizer, "best": best}):
            model.train()
            loss = distillation_loss(model(features, edges), taught, train, labels, c.temperature, c.soft_weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            accuracy = validation.accuracy(_evaluated(model, features, edges).cpu().numpy())
            if accuracy >= best["accuracy"]:
                best.update(accuracy=accuracy, state=copy.deepcopy(model.state_dict()), waited=0)
            else:
                best["waited"] += 1
                if best["waited"] >= c.patience:
                    break
        model.load_state_dict(best["state"])
        probabilities = _evaluated(model, features, edges).softmax(dim=1)
        return Student(probabilities.cpu().numpy(), _parameters(model))

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield the network on a path of six nodes."""
        yield self.network(18, 2), (torch.randn(6, 18), _path(6))


class GCNStudent(_PlainDistillation):
    """torch-geometric's `GCN`; the graphs have their self-loops already."""

    def network(self, in_features: int, num_classes: int) -> nn.Module:
        """See `_PlainDistillation.network`."""
        c = self.config
        return GCN(in_features, c.hidden, c.num_layers, num_classes, dropout=c.dropout, add_self_loops=False)


class SAGEStudent(_PlainDistillation):
    """torch-geometric's `GraphSAGE` with its default, the mean of the neighbours."""

    def network(self, in_features: int, num_classes: int) -> nn.Module:
        """See `_PlainDistillation.network`."""
        c = self.config
        return GraphSAGE(in_features, c.hidden, c.num_layers, num_classes, dropout=c.dropout)


def distillation_loss(
    logits: Tensor, taught: Tensor, train: Tensor, labels: Tensor, temperature: float, soft_weight: float
) -> Tensor:
    """Return ``(1 - w) CE + w T^2 KL(softmax(t / T) || softmax(z / T))`` (Hinton, Vinyals, Dean 2015).

    Parameters
    ----------
    logits, taught
        (N, C): z, and the teacher's t (log-probabilities serve as logits). The second term is the mean over all nodes.
    train, labels
        (n,) int64 node indices and their classes, for the cross-entropy.
    temperature, soft_weight
        T and w.
    """
    soft = F.kl_div(
        (logits / temperature).log_softmax(dim=1),
        (taught / temperature).log_softmax(dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - soft_weight) * F.cross_entropy(logits[train], labels) + soft_weight * temperature**2 * soft


# --- FairGNN ---------------------------------------------------------------------------------------------


class FairGNNNetwork(nn.Module):
    """Two graph convolutions and one logit a node; the adversary reads the same representation.

    Parameters
    ----------
    in_features
        F.
    hidden
        Width of both convolutions.
    dropout
        After the first.
    """

    def __init__(self, in_features: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first = GCNConv(in_features, hidden, add_self_loops=False)
        self.second = GCNConv(hidden, hidden, add_self_loops=False)
        self.classifier = nn.Linear(hidden, 1)
        self.dropout = dropout

    def forward(self, features: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logit of class 1, (N,), and the representation, (N, hidden), of features (N, F)."""
        h = F.dropout(self.first(features, edge_index).relu(), self.dropout, self.training)
        h = self.second(h, edge_index)
        return self.classifier(h)[:, 0], h


class FairGNN(FairDistiller):
    """FairGNN (Dai and Wang, WSDM 2021) with a GCN: it learns from the labels alone, against an adversary.

    All groups are visible in this task, so that the paper's estimator of missing ones has nothing to do.
    """

    Config: ClassVar[type] = FairGNNConfig

    def distil(self, graph: StudentGraph, teacher: Teacher, validation: Validation, ctx: RunContext) -> Student:
        """See `FairDistiller.distil`; of the teacher only its validation accuracy counts, as a bound."""
        c = self.config
        if graph.num_classes != 2:
            raise ConfigError(f"fairgnn tells two classes apart, and this graph has {graph.num_classes}: choose gcn-kd")
        torch.manual_seed(ctx.seed_for("run", "student"))
        device = torch.device(ctx.device)
        features, edges = (torch.from_numpy(a).to(device) for a in (graph.features, graph.edge_index))
        train, labels = (torch.from_numpy(a).to(device) for a in (graph.train, graph.train_labels))
        groups = torch.from_numpy(graph.sensitive).to(device).float()
        model = FairGNNNetwork(features.shape[1], c.hidden, c.dropout).to(device)
        adversary = nn.Linear(c.hidden, 1).to(device)
        of_model, of_adversary = (
            torch.optim.Adam(part.parameters(), lr=c.lr, weight_decay=c.weight_decay) for part in (model, adversary)
        )
        least = validation.accuracy(teacher.log_probabilities) - c.accuracy_slack
        best: dict[str, Any] = {"rating": (False, -np.inf), "state": copy.deepcopy(model.state_dict())}
        parts = {
            "model": model,
            "adversary": adversary,
            "model_optimizer": of_model,
            "adversary_optimizer": of_adversary,
            "best": best,
        }
        for _ in ctx.resumable("student", c.epochs, parts):
            model.train()
            logits, h = model(features, edges)
            loss = fairgnn_loss(logits, adversary(h)[:, 0], train, labels.float(), groups, c.alpha, c.beta)
            of_model.zero_grad()
            loss.backward(inputs=list(model.parameters()))
            of_model.step()
            of_adversary.zero_grad()
            F.binary_cross_entropy_with_logits(adversary(h.detach())[:, 0], groups).backward()
            of_adversary.step()
            rating = self._rating(_fairgnn_probabilities(model, features, edges), graph, validation, least)
            if rating > tuple(best["rating"]):
                best.update(rating=rating, state=copy.deepcopy(model.state_dict()))
        model.load_state_dict(best["state"])
        return Student(_fairgnn_probabilities(model, features, edges), _parameters(model))

    def _rating(
        self, probabilities: NDArray[np.float32], graph: StudentGraph, validation: Validation, least: float
    ) -> tuple[bool, float]:
        """Return what orders epochs: accurate enough, and then how fair; else how accurate."""
        accuracy = validation.accuracy(probabilities)
        if accuracy < least:
            return False, accuracy
        predicted = probabilities.argmax(axis=1)[graph.validation]
        groups = graph.sensitive[graph.validation]
        rates = [predicted[groups == group].mean() for group in np.unique(groups)]
        return True, -float(max(rates) - min(rates))

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield the network on a path of six nodes."""
        yield FairGNNNetwork(18, self.config.hidden, self.config.dropout), (torch.randn(6, 18), _path(6))


def fairgnn_loss(
    logits: Tensor, guessed: Tensor, train: Tensor, labels: Tensor, groups: Tensor, alpha: float, beta: float
) -> Tensor:
    """Return ``BCE(y) + alpha |Cov(s, sigmoid(y))| - beta BCE(adversary, s)``.

    Parameters
    ----------
    logits, guessed
        (N,): y of the classifier, and the adversary's logit of group 1.
    train, labels
        (n,) int64 node indices and their classes, float 0 or 1; the first term is about them.
    groups
        (N,) s, float 0 or 1; covariance and adversary are about all nodes.
    alpha, beta
        Weights of the two.
    """
    predicted = logits.sigmoid()
    covariance = ((groups - groups.mean()) * (predicted - predicted.mean())).mean().abs()
    return (
        F.binary_cross_entropy_with_logits(logits[train], labels)
        + alpha * covariance
        - beta * F.binary_cross_entropy_with_logits(guessed, groups)
    )


@torch.no_grad()
def _fairgnn_probabilities(model: FairGNNNetwork, features: Tensor, edges: Tensor) -> NDArray[np.float32]:
    model.eval()
    logits, _ = model(features, edges)
    probabilities: NDArray[np.float32] = torch.stack([-logits, logits], dim=1).sigmoid().cpu().numpy()
    return probabilities


@torch.no_grad()
def _evaluated(model: nn.Module, features: Tensor, edges: Tensor) -> Tensor:
    model.eval()
    logits: Tensor = model(features, edges)
    return logits


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _path(nodes: int) -> Tensor:
    """Return the edges (2, 3 * nodes - 2) of a path with self-loops."""
    here = torch.arange(nodes)
    pairs = torch.stack([here[:-1], here[1:]])
    return torch.cat([here.repeat(2, 1), pairs, pairs.flip(0)], dim=1)
