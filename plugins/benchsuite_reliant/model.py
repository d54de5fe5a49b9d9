"""The networks of RELIANT: two students, the proxy of bias, and GraphAKD's three discriminators.

Notation: N nodes, F features, C classes, D embedding width, E directed edges (self-loops included).
Parameter names of the PLP student follow the official checkpoint.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.utils import degree, scatter, softmax

ProxyMode = Literal["append", "replace"]


class PLPStudent(nn.Module):
    """CPF's student: parametrised label propagation, mixed in each node with an MLP on its features.

    One layer is applied ``num_layers - 1`` times. Per-node gates make the student transductive: its state
    dict fits graphs of exactly ``num_nodes`` nodes.

    Parameters
    ----------
    num_nodes, in_features, num_classes
        N, F (with any appended proxy columns) and C.
    num_layers
        K; the labels travel K - 1 steps.
    hidden
        Width of the MLP's hidden layer.
    feature_dropout, attention_dropout
        On the features (in scores and MLP) and on the edge weights; drawn anew in every step.
    """

    def __init__(
        self,
        num_nodes: int,
        in_features: int,
        num_classes: int,
        num_layers: int = 10,
        hidden: int = 64,
        feature_dropout: float = 0.8,
        attention_dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_steps = num_layers - 1
        self.plp_layer = _PLPLayer(num_nodes, in_features, num_classes, hidden, feature_dropout, attention_dropout)
        # Never used; it keeps the official state dict loadable.
        self.alpha = nn.Parameter(torch.zeros(num_nodes, 1))

    def forward(self, features: Tensor, edge_index: Tensor, train: Tensor, train_labels: Tensor) -> Tensor:
        """Return the logits of all nodes, (N, C).

        A training node's logits are its one-hot label, whatever the parameters.

        Parameters
        ----------
        features
            (N, F) float32.
        edge_index
            (2, E) int64.
        train, train_labels
            (n,) int64 node indices and their classes.
        """
        return self.clamp(self.unclamped(features, edge_index, train, train_labels), train, train_labels)

    def unclamped(self, features: Tensor, edge_index: Tensor, train: Tensor, train_labels: Tensor) -> Tensor:
        """Return what the last step says of every node, training nodes included, (N, C).

        Unlike the logits this depends on the parameters for training nodes too.
        """
        uniform = features.new_full((len(features), self.num_classes), 1 / self.num_classes)
        h = uniform
        for _ in range(self.num_steps):
            h = self.plp_layer(self.clamp(h, train, train_labels), features, edge_index)
        return h

    def clamp(self, h: Tensor, train: Tensor, train_labels: Tensor) -> Tensor:
        """Return ``h`` (N, C) with the rows of training nodes set to their one-hot label."""
        known = F.one_hot(train_labels, self.num_classes).to(h.dtype)
        return h.index_copy(0, train, known)


class _PLPLayer(nn.Module):
    def __init__(
        self,
        num_nodes: int,
        in_features: int,
        num_classes: int,
        hidden: int,
        feature_dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        self.lr_alpha = nn.Parameter(torch.zeros(num_nodes, 1))
        self.attn_l = nn.Parameter(torch.empty(1, in_features))
        nn.init.xavier_normal_(self.attn_l, gain=nn.init.calculate_gain("relu"))
        self.mlp = _MLP(in_features, hidden, num_classes, feature_dropout)
        self.feature_dropout = feature_dropout
        self.attention_dropout = attention_dropout

    def forward(self, h: Tensor, features: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index
        x = F.dropout(features, self.feature_dropout, self.training)
        score = x @ self.attn_l[0]  # (N,): only the sender's score matters
        attention = softmax(score.index_select(0, source), target, num_nodes=len(h))  # (E,)
        attention = F.dropout(attention, self.attention_dropout, self.training)
        messages = attention[:, None] * h.index_select(0, source)  # (E, C)
        propagated = scatter(messages, target, dim=0, dim_size=len(h), reduce="sum")
        gate = self.lr_alpha.sigmoid()  # (N, 1)
        return (gate * propagated + (1 - gate) * self.mlp(features)).relu()


class _MLP(nn.Module):
    def __init__(self, in_features: int, hidden: int, out_features: int, dropout: float) -> None:
        super().__init__()
        self.linears = nn.ModuleList([nn.Linear(in_features, hidden), nn.Linear(hidden, out_features)])
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.linears
        h = first(F.dropout(x, self.dropout, self.training)).relu()
        return second(F.dropout(h, self.dropout, self.training))


class SGCStudent(nn.Module):
    """GraphAKD's student: three graph convolutions, F -> hidden -> hidden -> C.

    Parameters
    ----------
    in_features, num_classes
        F (with any appended proxy columns) and C.
    hidden
        Width of the inner layers; must equal the teacher's embedding width, since the discriminators
        compare the two embeddings.
    dropout
        After the first and the second ReLU.
    """

    def __init__(self, in_features: int, num_classes: int, hidden: int = 64, dropout: float = 0.5) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                _GraphConvolution(in_features, hidden),
                _GraphConvolution(hidden, hidden),
                _GraphConvolution(hidden, num_classes),
            ]
        )
        self.dropout = dropout

    def forward(self, features: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and embedding.

        Parameters
        ----------
        features
            (N, F) float32.
        edge_index
            (2, E) int64, symmetric with self-loops; a row-sorted undirected `EdgeIndex` is faster.

        Returns
        -------
        logits
            (N, C).
        embedding
            (N, hidden): the second layer's output after ReLU, before dropout.
        """
        first, second, third = self.layers
        h = first(features, edge_index).relu()
        h = F.dropout(h, self.dropout, self.training)
        embedding = second(h, edge_index).relu()
        h = F.dropout(embedding, self.dropout, self.training)
        return third(h, edge_index), embedding


class _GraphConvolution(nn.Module):
    """``W (S h) + b`` with ``S = D^-1/2 A D^-1/2``."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, h: Tensor, edge_index: Tensor) -> Tensor:
        if isinstance(edge_index, EdgeIndex):
            norm = edge_index.get_indptr().diff().to(h.dtype).rsqrt()[:, None]  # (N, 1)
            propagated = edge_index.matmul(norm * h)
        else:
            source, target = edge_index
            norm = degree(target, len(h), dtype=h.dtype).rsqrt()[:, None]
            messages = (norm * h).index_select(0, source)  # (E, in)
            propagated = scatter(messages, target, dim=0, dim_size=len(h), reduce="sum")
        return (norm * propagated) @ self.weight + self.bias


class BiasProxy(nn.Module):
    """The proxy of bias: a small learnable vector for every node, fed to the student with its features.

    Parameters
    ----------
    num_nodes
        N.
    width
        Columns of the proxy.
    mode
        ``append`` the proxy to the features (the paper), or let it ``replace`` the last columns (what the
        official CPF code does; those features are lost).
    fixed
        (N, width) values that stay as they are, instead of learnt ones.
    """

    values: Tensor

    def __init__(self, num_nodes: int, width: int = 2, mode: ProxyMode = "append", fixed: Tensor | None = None) -> None:
        super().__init__()
        if fixed is None:
            self.values = nn.Parameter(torch.rand(num_nodes, width))
        else:
            self.register_buffer("values", fixed)
        self.mode = mode

    @property
    def learns(self) -> bool:
        """Whether there is anything to train."""
        return isinstance(self.values, nn.Parameter)

    def forward(self, features: Tensor) -> Tensor:
        """Return the student's input with every node's own proxy, (N, F')."""
        return self._joined(features, self.values)

    def averaged(self, features: Tensor) -> Tensor:
        """Return the student's input with the mean proxy on every node, (N, F'). Carries no gradient."""
        mean = self.values.detach().mean(dim=0, keepdim=True)
        return self._joined(features, mean.expand(len(features), -1))

    def input_width(self, num_features: int) -> int:
        """Return F', the width of the student's input."""
        return num_features + self.values.shape[1] if self.mode == "append" else num_features

    def _joined(self, features: Tensor, proxy: Tensor) -> Tensor:
        if self.mode == "replace":
            features = features[:, : -proxy.shape[1]]
        return torch.cat([features, proxy], dim=1)


class LogitDiscriminator(nn.Module):
    """D_l: tells teacher's from student's logits, and classifies; ``z -> W2 ReLU(z + W1 z + b1)``.

    Parameters
    ----------
    num_classes
        C.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.residual = nn.Linear(num_classes, num_classes)
        self.output = nn.Linear(num_classes, num_classes + 1, bias=False)

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits (N, C) and the teacher-or-student logit (N,)."""
        out = self.output((logits + self.residual(logits)).relu())
        return out[:, :-1], out[:, -1]


class LocalDiscriminator(nn.Module):
    """D_e: scores every edge by the agreement of its ends, ``c sum_k d_k e_uk e_vk``.

    Parameters
    ----------
    width
        D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.diagonal = nn.Parameter(torch.ones(width))
        self.scale = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, embedding: Tensor, edge_index: Tensor) -> Tensor:
        """Return one teacher-or-student logit an edge, (E,), from the embedding (N, D)."""
        unit = F.normalize(embedding, dim=1)
        source, target = edge_index
        # index_select, for the gradient of plain indexing is far slower.
        agreement = (unit * self.diagonal).index_select(0, source) * unit.index_select(0, target)  # (E, D)
        return self.scale * agreement.sum(dim=1)


class GlobalDiscriminator(nn.Module):
    """D_g: scores every node by its agreement with a summary of a graph, ``c sum_k d_k e_vk m_k``.

    Parameters
    ----------
    width
        D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.diagonal = nn.Parameter(torch.ones(width))
        self.scale = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, embedding: Tensor, summary: Tensor) -> Tensor:
        """Return one logit a node, (N,), from the embedding (N, D) and a summary (D,)."""
        return self.scale * (F.normalize(embedding, dim=1) @ (self.diagonal * summary))

    @staticmethod
    def summary(embedding: Tensor) -> Tensor:
        """Return the summary (D,) of an embedding (N, D): the squashed mean of its raw rows."""
        return embedding.mean(dim=0).sigmoid()
