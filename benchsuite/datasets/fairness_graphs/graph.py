"""The graph type, and the checks of what it promises."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FairnessGraph:
    """A graph for transductive node classification with a sensitive attribute.

    Attributes
    ----------
    name
        Of the data set.
    features
        (N, F) float32.
    edge_index
        (2, E) int64; symmetric, one self-loop a node, columns sorted by (row, column) and unique.
    labels
        (N,) int64 class indices.
    sensitive
        (N,) int64 group indices.
    train, validation, test
        Disjoint int64 node indices.
    feature_names
        F names.
    """

    name: str
    features: NDArray[np.float32]
    edge_index: Integers
    labels: Integers
    sensitive: Integers
    train: Integers
    validation: Integers
    test: Integers
    feature_names: tuple[str, ...]

    def validate(self) -> None:
        """Check everything that the attributes promise.

        Raises
        ------
        DataError
            One line that names the graph and the first broken promise.
        """
        problem = self._shape_problem() or self._value_problem() or self._edge_problem() or self._split_problem()
        if problem:
            raise DataError(f"graph {self.name!r}: {problem}")

    def summary(self) -> dict[str, int]:
        """Return the counts that tell whether this is the published graph."""
        return {
            "nodes": len(self.labels),
            "entries": self.edge_index.shape[1],
            "features": self.features.shape[1],
            "train": len(self.train),
            "validation": len(self.validation),
            "test": len(self.test),
        }

    def content_hash(self) -> str:
        """Return the sha256 (hex) of all arrays and names."""
        digest = hashlib.sha256()
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                digest.update(f"{field.name}:{value.dtype}:{value.shape}".encode())
                digest.update(np.ascontiguousarray(value).tobytes())
            else:
                digest.update(f"{field.name}:{value}".encode())
        return digest.hexdigest()

    def _shape_problem(self) -> str:
        nodes = len(self.labels)
        for name in ("labels", "train", "validation", "test"):
            if getattr(self, name).ndim != 1:
                return f"{name} has shape {getattr(self, name).shape}, not (n,)"
        if self.features.dtype != np.float32 or self.features.shape != (nodes, len(self.feature_names)):
            return (
                f"features are {self.features.dtype} {self.features.shape}, "
                f"not float32 {(nodes, len(self.feature_names))}"
            )
        if self.edge_index.ndim != 2 or len(self.edge_index) != 2:
            return f"edge_index has shape {self.edge_index.shape}, not (2, E)"
        if self.sensitive.shape != (nodes,):
            return f"sensitive has shape {self.sensitive.shape}, not {(nodes,)}"
        for name in ("edge_index", "labels", "sensitive", "train", "validation", "test"):
            if getattr(self, name).dtype != np.int64:
                return f"{name} is {getattr(self, name).dtype}, not int64"
        return ""

    def _value_problem(self) -> str:
        if not np.isfinite(self.features).all():
            return "features hold NaN or infinite values"
        if self.labels.min(initial=0) < 0 or self.sensitive.min(initial=0) < 0:
            return "labels and groups must be numbered from 0"
        return ""

    def _edge_problem(self) -> str:
        nodes = len(self.labels)
        if self.edge_index.size and (self.edge_index.min() < 0 or self.edge_index.max() >= nodes):
            return f"edge_index points outside the {nodes} nodes"
        keys = self.edge_index[0] * nodes + self.edge_index[1]
        if (np.diff(keys) <= 0).any():
            return "edge_index must be sorted by (row, column), without duplicates"
        if (self.edge_index[0] == self.edge_index[1]).sum() != nodes:
            return "every node needs a self-loop"
        if not np.array_equal(np.sort(self.edge_index[1] * nodes + self.edge_index[0]), keys):
            return "edge_index must be symmetric"
        return ""

    def _split_problem(self) -> str:
        parts = np.concatenate([self.train, self.validation, self.test])
        if min(len(self.train), len(self.validation), len(self.test)) == 0:
            return "train, validation and test need at least one node each"
        if parts.min() < 0 or parts.max() >= len(self.labels):
            return f"the split points outside the {len(self.labels)} nodes"
        if len(np.unique(parts)) != len(parts):
            return "train, validation and test share nodes"
        return ""
