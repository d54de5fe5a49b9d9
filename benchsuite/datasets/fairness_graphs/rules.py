"""The published rules: edges between similar records, symmetric edges with self-loops, components, splits by class."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from benchsuite.core.errors import DataError
from benchsuite.datasets.fairness_graphs.graph import Floats, Integers


def similarity_edges(features: NDArray[Any], threshold: float, chunk: int = 4000) -> Integers:
    """Connect every row to the rows that are nearly as similar to it as its most similar one.

    With ``s_ij = 1 / (1 + ||x_i - x_j||_2)`` and ``m_i`` the second largest ``s_ij`` of row i (the row
    itself counts, so ``m_i = 1`` if it has a duplicate), the edge i -> j exists iff ``j != i`` and
    ``s_ij > threshold * m_i`` (NIFTY's rule). All arithmetic is in float64: distances that are square
    roots of whole numbers tie exactly at the threshold.

    Parameters
    ----------
    features
        (N, F) finite numbers, N >= 2.
    threshold
        t, in (0, 1).
    chunk
        Rows handled at once. Memory grows with the edges of so many rows, never with N x N.

    Returns
    -------
    ndarray
        (E, 2) int64 directed rows, sorted.

    Raises
    ------
    DataError
        If the features are not a finite matrix of at least two rows, or the threshold is out of range.
    """
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2 or not np.isfinite(x).all():
        raise DataError(f"similarity needs at least two rows of finite features, not shape {x.shape}")
    if not 0 < threshold < 1:
        raise DataError(f"the similarity threshold must lie between 0 and 1, not at {threshold}")
    tree = cKDTree(x)
    nearest = tree.query(x, k=2)[0][:, 1]
    # s > t m means d < (1 + nearest) / t - 1. The tree proposes a hair more, the rule itself decides.
    radius = ((1 + nearest) / threshold - 1) * (1 + 1e-9) + 1e-9
    return np.concatenate(
        [
            _similar_rows(x, tree, radius, threshold, np.arange(start, min(start + chunk, len(x))))
            for start in range(0, len(x), chunk)
        ]
    )


def _similar_rows(x: Floats, tree: cKDTree, radius: Floats, threshold: float, rows: Integers) -> Integers:
    found = tree.query_ball_point(x[rows], radius[rows], return_sorted=True)
    source = np.repeat(rows, [len(columns) for columns in found])
    target = np.concatenate([np.asarray(columns, dtype=np.int64) for columns in found])
    other = source != target
    source, target = source[other], target[other]
    similarity = 1 / (1 + np.sqrt(((x[source] - x[target]) ** 2).sum(axis=1)))
    # A row is its own most similar one, so its second largest is the largest among the others.
    starts = np.searchsorted(source, rows)
    best = np.maximum.reduceat(similarity, starts)
    kept = similarity > threshold * best[source - rows[0]]
    return np.stack([source[kept], target[kept]], axis=1)


def symmetric_with_self_loops(edges: Integers, nodes: int) -> Integers:
    """Return the union of directed edges, their reverses and one self-loop a node.

    Parameters
    ----------
    edges
        (E, 2) int64 rows of node indices below ``nodes``; duplicates and self-loops may occur.
    nodes
        N.

    Returns
    -------
    ndarray
        (2, E') int64, sorted by (row, column), unique.
    """
    source, target = edges[:, 0], edges[:, 1]
    loops = np.arange(nodes, dtype=np.int64) * (nodes + 1)
    keys = np.unique(np.concatenate([source * nodes + target, target * nodes + source, loops]))
    return np.stack([keys // nodes, keys % nodes])


def largest_component(edges: Integers, nodes: int) -> tuple[Integers, Integers]:
    """Return the nodes of the largest connected component, and the edges between them by their new numbers.

    Parameters
    ----------
    edges
        (E, 2) int64 rows of node indices below ``nodes``; directions do not matter.
    nodes
        N.

    Returns
    -------
    members
        (M,) int64, ascending; of equally large components the one with the lowest node.
    edges
        (E', 2) int64 rows of positions in ``members``, in the given order.
    """
    ends = (edges[:, 0], edges[:, 1])
    _, component = connected_components(coo_array((np.ones(len(edges)), ends), shape=(nodes, nodes)), directed=False)
    members = np.flatnonzero(component == np.bincount(component).argmax())
    position = np.full(nodes, -1, dtype=np.int64)
    position[members] = np.arange(len(members))
    inside = position[edges]
    return members, inside[inside[:, 0] >= 0]


def class_balanced_split(
    labels: Integers, cuts: tuple[float, float], seed: int, train_at_most: int | None = None
) -> tuple[Integers, Integers, Integers]:
    """Split nodes per class by the published rule.

    Python's `random` is seeded once, then shuffles the indices of class 0, of class 1, ... in turn. Each
    list of n is cut at ``int(cuts[0] * n)`` and ``int(cuts[1] * n)``; the parts are joined in class order.

    Parameters
    ----------
    labels
        (N,) class indices.
    cuts
        End of the training and of the validation part, as fractions of a class.
    seed
        For `random.Random`.
    train_at_most
        Upper bound on the training nodes of a class; what exceeds it is left out of all parts.

    Returns
    -------
    tuple of ndarray
        Train, validation and test node indices, int64, in the order of the rule.
    """
    generator = random.Random(seed)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == label).tolist()
        generator.shuffle(members)
        first, second = (int(cut * len(members)) for cut in cuts)
        parts[0].extend(members[:first][:train_at_most])
        parts[1].extend(members[first:second])
        parts[2].extend(members[second:])
    train, validation, test = (np.array(part, dtype=np.int64) for part in parts)
    return train, validation, test
