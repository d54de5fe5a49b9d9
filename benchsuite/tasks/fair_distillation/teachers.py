"""The two teacher networks of the fair-distillation task, and their training.

Module and parameter names, and the orientation of weights, follow the official checkpoints of RELIANT
(DGL layers), so that a released state dict loads unchanged.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.utils import degree, scatter

if TYPE_CHECKING:
    from benchsuite.core import RunContext
    from benchsuite.tasks.fair_distillation.contract import FairDistillationProtocol, StudentGraph


class _GCNLayer(nn.Module):
    """``S h W + b`` with ``S = D^-1/2 A D^-1/2``."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, h: Tensor, edge_index: Tensor) -> Tensor:
        norm = _degrees(edge_index, len(h)).rsqrt()  # (N, 1)
        in_features, out_features = self.weight.shape
        # Propagation costs most, so it happens where there are fewer columns.
        if in_features > out_features:
            return norm * sum_neighbours(norm * (h @ self.weight), edge_index) + self.bias
        return norm * sum_neighbours(norm * h, edge_index) @ self.weight + self.bias


class GCNTeacher(nn.Module):
    """Graph convolutional network: F -> hidden -> hidden -> C, with ReLU and dropout between layers.

    Parameters
    ----------
    in_features, num_classes
        F and C.
    hidden
        Width of the inner layers.
    dropout
        Before the second and the third layer, none on the input.
    """

    def __init__(self, in_features: int, num_classes: int, hidden: int = 64, dropout: float = 0.8) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [_GCNLayer(in_features, hidden), _GCNLayer(hidden, hidden), _GCNLayer(hidden, num_classes)]
        )
        self.dropout = dropout

    def forward(self, features: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and embedding.

        Parameters
        ----------
        features
            (N, F) float32.
        edge_index
            (2, E) int64, symmetric with self-loops; an `adjacency` is faster.

        Returns
        -------
        logits
            (N, C).
        embedding
            (N, hidden): the first layer's output after ReLU, before dropout.
        """
        first, second, third = self.layers
        embedding = first(features, edge_index).relu()
        h = F.dropout(embedding, self.dropout, self.training)
        h = second(h, edge_index).relu()
        h = F.dropout(h, self.dropout, self.training)
        return third(h, edge_index), embedding


class _SAGELayer(nn.Module):
    """DGL's aggregator "gcn": ``W (h_v + sum of h_u over neighbours u) / (deg_v + 1) + b``.

    Neighbours include v itself through its self-loop, so v counts twice.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.fc_neigh = nn.Linear(in_features, out_features, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_features))
        nn.init.xavier_uniform_(self.fc_neigh.weight, gain=nn.init.calculate_gain("relu"))

    def forward(self, h: Tensor, edge_index: Tensor) -> Tensor:
        degrees = _degrees(edge_index, len(h))  # (N, 1)
        if self.fc_neigh.in_features > self.fc_neigh.out_features:
            h = self.fc_neigh(h)
            return (h + sum_neighbours(h, edge_index)) / (degrees + 1) + self.bias
        return self.fc_neigh((h + sum_neighbours(h, edge_index)) / (degrees + 1)) + self.bias


class GraphSAGETeacher(nn.Module):
    """GraphSAGE with the "gcn" aggregator: F -> hidden -> hidden -> hidden -> C.

    Parameters
    ----------
    in_features, num_classes
        F and C.
    hidden
        Width of the inner layers.
    dropout
        On the input and, after ReLU, between layers.
    """

    def __init__(self, in_features: int, num_classes: int, hidden: int = 128, dropout: float = 0.5) -> None:
        super().__init__()
        widths = [in_features, hidden, hidden, hidden, num_classes]
        self.layers = nn.ModuleList(map(_SAGELayer, widths[:-1], widths[1:]))
        self.dropout = dropout

    def forward(self, features: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and embedding.

        Parameters
        ----------
        features
            (N, F) float32.
        edge_index
            (2, E) int64, symmetric with self-loops; an `adjacency` is faster.

        Returns
        -------
        logits
            (N, C).
        embedding
            (N, hidden): the first layer's output before ReLU.
        """
        first, *others = self.layers
        embedding = h = first(F.dropout(features, self.dropout, self.training), edge_index)
        for layer in others:
            h = layer(F.dropout(h.relu(), self.dropout, self.training), edge_index)
        return h, embedding


TEACHERS: dict[str, type[GCNTeacher] | type[GraphSAGETeacher]] = {
    "gcn": GCNTeacher,
    "graphsage": GraphSAGETeacher,
}


def adjacency(edge_index: Tensor, num_nodes: int) -> EdgeIndex:
    """Return a symmetric, row-sorted edge index in the form that multiplies fastest.

    Sums over neighbours become one sparse product, whose backward pass reuses the same matrix (measured
    on bail, one core, 64 columns, forward and backward: 17 ms instead of 350 ms).

    Parameters
    ----------
    edge_index
        (2, E) int64, symmetric, sorted by (row, column).
    num_nodes
        N.
    """
    size = (num_nodes, num_nodes)
    return EdgeIndex(edge_index, sparse_size=size, sort_order="row", is_undirected=True).fill_cache_()


def sum_neighbours(h: Tensor, edge_index: Tensor) -> Tensor:
    """Return for each node the sum of ``h`` (N, D) over its in-neighbours, (N, D)."""
    if isinstance(edge_index, EdgeIndex):
        return edge_index.matmul(h)
    source, target = edge_index
    return scatter(h.index_select(0, source), target, dim=0, dim_size=len(h), reduce="sum")


def load_teacher_weights(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict in the official layout, strictly.

    Raises
    ------
    RuntimeError
        If a key is missing, unexpected or of another shape.
    """
    model.load_state_dict(dict(state), strict=True)


def train_teacher(
    model: nn.Module,
    features: Tensor,
    edge_index: Tensor,
    train: Tensor,
    train_labels: Tensor,
    validation_accuracy: Callable[[Tensor], float],
    *,
    lr: float,
    weight_decay: float,
    patience: int,
    steps: Callable[[Mapping[str, Any]], Iterable[int]],
) -> None:
    """Train full-batch with Adam on the training nodes, and keep the best state.

    The loss is the mean negative log-likelihood of the training labels. The state with the highest
    validation accuracy (the latest of equals) is in ``model`` afterwards.

    Parameters
    ----------
    model
        A teacher, on the device of the tensors.
    features, edge_index
        (N, F) float32 and (2, E) int64 (or an `adjacency`).
    train, train_labels
        (n,) int64 node indices and their classes.
    validation_accuracy
        Judges logits (N, C) of all nodes.
    lr, weight_decay
        Of Adam.
    patience
        Training ends after so many epochs in a row without a new (or equal) best.
    steps
        Yields one number an epoch; is given what a killed training needs to go on (see `RunContext.resumable`).
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    best: dict[str, Any] = {"accuracy": -1.0, "state": copy.deepcopy(model.state_dict()), "waited": 0}
    for _ in steps({"model": model, "optimizer": optimizer, "best": best}):
        model.train()
        logits, _ = model(features, edge_index)
        optimizer.zero_grad()
        F.cross_entropy(logits[train], train_labels).backward()
        optimizer.step()

        model.eval()
        with torch.no_grad():
            accuracy = validation_accuracy(model(features, edge_index)[0])
        if accuracy >= best["accuracy"]:
            best.update(accuracy=accuracy, state=copy.deepcopy(model.state_dict()), waited=0)
        else:
            best["waited"] += 1
            if best["waited"] >= patience:
                break
    model.load_state_dict(best["state"])
    model.eval()


def train_on(
    graph: StudentGraph,
    validation_accuracy: Callable[[NDArray[Any]], float],
    protocol: FairDistillationProtocol,
    ctx: RunContext,
) -> dict[str, NDArray[Any]]:
    """Build and train the protocol's teacher under the current random state.

    Parameters
    ----------
    graph
        Features, edges and training labels.
    validation_accuracy
        Judges scores (N, C) of all nodes.
    protocol
        Which teacher, and how it is trained.
    ctx
        Gives the device and the epochs.

    Returns
    -------
    dict
        ``log_probabilities`` (N, C) and ``embedding`` (N, D), float32, of the best state in evaluation
        mode; ``parameters``, their number as a 0-d array.
    """
    device = torch.device(ctx.device)
    features = torch.from_numpy(graph.features).to(device)
    edge_index = adjacency(torch.from_numpy(graph.edge_index).to(device), len(features))
    teacher = TEACHERS[protocol.teacher](features.shape[1], graph.num_classes, dropout=protocol.teacher_dropout).to(
        device
    )
    train_teacher(
        teacher,
        features,
        edge_index,
        torch.from_numpy(graph.train).to(device),
        torch.from_numpy(graph.train_labels).to(device),
        lambda logits: validation_accuracy(logits.cpu().numpy()),
        lr=protocol.teacher_lr,
        weight_decay=protocol.teacher_weight_decay,
        patience=protocol.teacher_patience,
        steps=lambda parts: ctx.resumable("teacher", protocol.teacher_epochs, parts),
    )
    with torch.no_grad():
        logits, embedding = teacher(features, edge_index)
    return {
        "log_probabilities": logits.log_softmax(dim=1).cpu().numpy(),
        "embedding": embedding.cpu().numpy(),
        "parameters": np.array(sum(p.numel() for p in teacher.parameters())),
    }


def _degrees(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Return every node's number of in-edges, (N, 1)."""
    if isinstance(edge_index, EdgeIndex):
        return edge_index.get_indptr().diff().float().unsqueeze(1)
    return degree(edge_index[1], num_nodes).unsqueeze(1)
