"""Graphs whose nodes carry a label and a sensitive attribute: bail, german, credit, and a generated one.

The real graphs have no edges of their own. Nodes are people, and two are connected when their records
are similar (`similarity_edges`). The published edge lists are read where they are present, else the
published rule regenerates them; the same holds for the published splits (`class_balanced_split`).

Sources: tables and edge rule from the NIFTY repository (chirag126/nifty, MIT), splits and features of
bail from the RELIANT repository (yushundong/RELIANT).
"""

from __future__ import annotations

import hashlib
import random
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from benchsuite.core.errors import DataError, DatasetNotFound

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

HOMEPAGE = "https://github.com/chirag126/nifty"
_GET_AGAIN = f"get the file again from {HOMEPAGE}"

BAIL_LAYOUT = "bail.csv, bail_edges.txt or .npz (else regenerated), split/{train,val,test}_split.npy (else by rule)"
GERMAN_LAYOUT = "german.csv, german_edges.txt or .npz (else regenerated)"
CREDIT_LAYOUT = "credit.csv, credit_edges.txt, .npz or credit_edges_t07.npz (else regenerated)"

BAIL_COLUMNS = [
    "WHITE",
    "ALCHY",
    "JUNKY",
    "SUPER",
    "MARRIED",
    "FELON",
    "WORKREL",
    "PROPTY",
    "PERSON",
    "MALE",
    "PRIORS",
    "SCHOOL",
    "RULE",
    "AGE",
    "TSERVD",
    "FOLLOW",
    "TIME",
    "FILE",
]
GERMAN_COLUMNS = [
    "Gender",
    "ForeignWorker",
    "Single",
    "Age",
    "LoanDuration",
    "LoanAmount",
    "LoanRateAsPercentOfIncome",
    "YearsAtCurrentHome",
    "NumberOfOtherLoansAtBank",
    "NumberOfLiableIndividuals",
    "HasTelephone",
    "CheckingAccountBalance_geq_0",
    "CheckingAccountBalance_geq_200",
    "SavingsAccountBalance_geq_100",
    "SavingsAccountBalance_geq_500",
    "MissedPayments",
    "NoCurrentLoan",
    "CriticalAccountOrLoansElsewhere",
    "OtherLoansAtBank",
    "HasCoapplicant",
    "HasGuarantor",
    "OwnsHouse",
    "RentsHouse",
    "Unemployed",
    "YearsAtCurrentJob_lt_1",
    "YearsAtCurrentJob_geq_4",
    "JobClassIsSkilled",
]
CREDIT_COLUMNS = [
    "Married",
    "Age",
    "EducationLevel",
    "MaxBillAmountOverLast6Months",
    "MaxPaymentAmountOverLast6Months",
    "MonthsWithZeroBalanceOverLast6Months",
    "MonthsWithLowSpendingOverLast6Months",
    "MonthsWithHighSpendingOverLast6Months",
    "MostRecentBillAmount",
    "MostRecentPaymentAmount",
    "TotalOverdueCounts",
    "TotalMonthsOverdue",
    "HistoryOfOverduePayments",
]

SYNTHETIC_PARAMETERS: dict[str, Any] = {
    "nodes": 1000,
    "label_rate": [0.35, 0.3],
    "informative": [6, 0.55],
    "proxies": [3, 1.0],
    "noise": 5,
    "homophily": [1.6, 0.4],
    "mean_degree": 10,
    "split": [0.3, 0.5],
}
"""What determines the generated graph besides the draw.

``label_rate``: P(y = 1 | s) = first + second * s. ``informative``, ``proxies``: number of columns that
follow the label or the group, and how far the two means lie from zero. ``noise``: number of columns that
follow nothing. ``homophily``: relative chance of an edge between nodes of the same and of another label,
likewise for groups. ``split``: where each class is cut into train, validation and test.
"""


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


def load_bail(root: Path | None, draw: int) -> FairnessGraph:
    """Read the bail (recidivism) graph: 18,876 released defendants, who may reoffend.

    Features are all columns but RECID, each row divided by its own sum (a row of sum 0 becomes zeros).
    Edges follow the similarity rule on the raw columns with t = 0.6. Split 30/20/50 % per class, seed 20.

    Parameters
    ----------
    root
        Folder laid out as `BAIL_LAYOUT`.
    draw
        Ignored: real data have one draw.

    Raises
    ------
    DatasetNotFound
        If ``root`` is None or the table is missing.
    DataError
        If a file is broken.
    """
    folder = _data_folder(root, "bail", BAIL_LAYOUT)
    table = _read_table(folder / "bail.csv", ["RECID", *BAIL_COLUMNS])
    raw = table[BAIL_COLUMNS].to_numpy(np.float64)
    labels = _binary(table, "RECID", folder)
    return _assemble(
        folder,
        name="bail",
        features=_rows_divided_by_sum(raw),
        edges=_read_edges(folder, "bail", len(raw), lambda: similarity_edges(raw, 0.6)),
        labels=labels,
        sensitive=_binary(table, "WHITE", folder),
        split=_read_split(folder, len(raw)) or class_balanced_split(labels, (0.3, 0.5), seed=20),
        feature_names=BAIL_COLUMNS,
    )


def load_german(root: Path | None, draw: int) -> FairnessGraph:
    """Read the german credit graph: 1,000 clients, good customers or not.

    Features are all columns but GoodCustomer, OtherLoansAtStore and PurposeOfLoan; LoanAmount, Age and
    LoanDuration are scaled to [-1, 1]. Edges follow the similarity rule on these features with t = 0.8.
    Label -1 becomes 0, Gender is 1 for Female. Split 50/25/25 % per class, seed 0.

    Parameters
    ----------
    root
        Folder laid out as `GERMAN_LAYOUT`.
    draw
        Ignored: real data have one draw.

    Raises
    ------
    DatasetNotFound
        If ``root`` is None or the table is missing.
    DataError
        If a file is broken.
    """
    folder = _data_folder(root, "german", GERMAN_LAYOUT)
    table = _read_table(
        folder / "german.csv",
        ["GoodCustomer", *GERMAN_COLUMNS],
        codes={"Gender": {"Male": 0, "Female": 1}, "GoodCustomer": {"-1": 0, "1": 1}},
    )
    scaled = ["LoanAmount", "Age", "LoanDuration"]
    table[scaled] = _scaled_to_unit(table[scaled].to_numpy(np.float64))
    features = table[GERMAN_COLUMNS].to_numpy(np.float64)
    labels = _binary(table, "GoodCustomer", folder)
    return _assemble(
        folder,
        name="german",
        features=features,
        edges=_read_edges(folder, "german", len(features), lambda: similarity_edges(features, 0.8)),
        labels=labels,
        sensitive=_binary(table, "Gender", folder),
        split=class_balanced_split(labels, (0.5, 0.75), seed=0),
        feature_names=GERMAN_COLUMNS,
    )


def load_credit(root: Path | None, draw: int) -> FairnessGraph:
    """Read the credit default graph: 30,000 card holders, who may default next month.

    Features are all columns but NoDefaultNextMonth and Single (NIFTY's 13). Edges follow the similarity
    rule on the raw columns with t = 0.7; this gives the graph that PyGDebias counts (200,526 rows), not
    the denser one of the RELIANT logs, whose edge list is used instead if it is there.

    [inferred] RELIANT's own credit file is unpublished. Its loader is known to take at most 500 training
    nodes a class, then 25 % and 25 %; that is the split here, by the class-balanced rule with seed 20.
    Every column but Age is scaled to [-1, 1], since amounts would drown the counts.

    Parameters
    ----------
    root
        Folder laid out as `CREDIT_LAYOUT`.
    draw
        Ignored: real data have one draw.

    Raises
    ------
    DatasetNotFound
        If ``root`` is None or the table is missing.
    DataError
        If a file is broken.
    """
    folder = _data_folder(root, "credit", CREDIT_LAYOUT)
    table = _read_table(folder / "credit.csv", ["NoDefaultNextMonth", *CREDIT_COLUMNS])
    raw = table[CREDIT_COLUMNS].to_numpy(np.float64)
    features = _scaled_to_unit(raw)
    sensitive_column = CREDIT_COLUMNS.index("Age")
    features[:, sensitive_column] = raw[:, sensitive_column]
    labels = _binary(table, "NoDefaultNextMonth", folder)
    return _assemble(
        folder,
        name="credit",
        features=features,
        edges=_read_edges(folder, "credit", len(raw), lambda: similarity_edges(raw, 0.7)),
        labels=labels,
        sensitive=_binary(table, "Age", folder),
        split=class_balanced_split(labels, (0.5, 0.75), seed=20, train_at_most=500),
        feature_names=CREDIT_COLUMNS,
    )


def load_synthetic(root: Path | None, draw: int) -> FairnessGraph:
    """Generate a graph with a strong group bias: groups differ in base rate, features and neighbours.

    Group s is a fair coin, label y is 1 with probability .35 + .3 s. Of the 15 features column 0 is s, six
    follow the label, three follow the group, five are noise. Edges prefer equal labels and equal groups.
    All numbers are in `SYNTHETIC_PARAMETERS`.

    Parameters
    ----------
    root
        Ignored: nothing is read.
    draw
        Which sample is taken; seeds a NumPy generator (and the split). Whole number >= 0.
    """
    p = SYNTHETIC_PARAMETERS
    rng = np.random.default_rng(draw)
    nodes = p["nodes"]
    sensitive = rng.integers(0, 2, nodes)
    base, slope = p["label_rate"]
    labels = (rng.random(nodes) < base + slope * sensitive).astype(np.int64)
    features = _synthetic_features(rng, labels, sensitive)
    split = class_balanced_split(labels, tuple(p["split"]), seed=draw)
    graph = FairnessGraph(
        name="biased-graph",
        features=features.astype(np.float32),
        edge_index=symmetric_with_self_loops(_synthetic_edges(rng, labels, sensitive), nodes),
        labels=labels,
        sensitive=sensitive,
        train=split[0],
        validation=split[1],
        test=split[2],
        feature_names=(
            "group",
            *(f"informative_{i}" for i in range(p["informative"][0])),
            *(f"group_proxy_{i}" for i in range(p["proxies"][0])),
            *(f"noise_{i}" for i in range(p["noise"])),
        ),
    )
    graph.validate()
    return graph


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


def _synthetic_features(rng: np.random.Generator, labels: Integers, sensitive: Integers) -> Floats:
    p = SYNTHETIC_PARAMETERS
    informative, label_shift = p["informative"]
    proxies, group_shift = p["proxies"]
    noise = rng.standard_normal((len(labels), informative + proxies + p["noise"]))
    noise[:, :informative] += label_shift * (2 * labels - 1)[:, None]
    noise[:, informative : informative + proxies] += group_shift * (2 * sensitive - 1)[:, None]
    return np.column_stack([sensitive, noise])


def _synthetic_edges(rng: np.random.Generator, labels: Integers, sensitive: Integers) -> Integers:
    p = SYNTHETIC_PARAMETERS
    same, other = p["homophily"]
    source, target = np.triu_indices(len(labels), k=1)
    weight = np.where(labels[source] == labels[target], same, other)
    weight *= np.where(sensitive[source] == sensitive[target], same, other)
    edges = len(labels) * p["mean_degree"] / 2
    chosen = rng.random(len(weight)) < weight * (edges / weight.sum())
    return np.stack([source[chosen], target[chosen]], axis=1)


def _data_folder(root: Path | None, name: str, layout: str) -> Path:
    """Return the folder that holds ``name``.csv, or say what to do."""
    wanted = f"expected there: {layout}; home page: {HOMEPAGE}"
    if root is None:
        raise DatasetNotFound(f"data set {name!r} needs {name}.csv: pass --data-root DIR ({wanted})")
    if (root / f"{name}.csv").is_file():
        return root
    hint = f"pass --data-root DIR ({wanted})"
    if (root / name / f"{name}.csv").is_file():
        hint = f"did you mean --data-root {root / name}?"
    raise DatasetNotFound(f"data set {name!r}: {name}.csv is missing under {root}: {hint}")


def _read_table(
    path: Path, columns: Sequence[str], codes: Mapping[str, Mapping[str, int]] | None = None
) -> pd.DataFrame:
    """Read ``columns`` as numbers; ``codes`` translates the text of some of them."""
    codes = codes or {}
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(codes, str))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable CSV table ({_one_line(error)}); {_GET_AGAIN}") from None
    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(f"{path}: lacks the columns {', '.join(missing)}; {_GET_AGAIN}")
    if len(table) < 2:
        raise DataError(f"{path}: has {len(table)} rows; {_GET_AGAIN}")
    return pd.DataFrame({column: _numbers(table[column], codes.get(column), path) for column in columns})


def _numbers(values: pd.Series, code: Mapping[str, int] | None, path: Path) -> Floats:
    numbers = pd.to_numeric(values.map(code) if code else values, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(numbers)
    if bad.any():
        wanted = " or ".join(code) if code else "a number"
        line = int(bad.argmax()) + 2
        raise DataError(f"{path}: column {values.name} in line {line} is not {wanted}; {_GET_AGAIN}")
    return numbers


def _binary(table: pd.DataFrame, column: str, folder: Path) -> Integers:
    values = table[column].to_numpy()
    if not np.isin(values, (0, 1)).all():
        raise DataError(f"{folder}: column {column} of the table may only hold 0 and 1; {_GET_AGAIN}")
    return values.astype(np.int64)


def _read_edges(folder: Path, name: str, nodes: int, regenerate: Callable[[], Integers]) -> Integers:
    """Return the directed edge rows of the first edge file that is there, else regenerate them."""
    for file in (f"{name}_edges.txt", f"{name}_edges.txt.zip", f"{name}_edges.npz", f"{name}_edges_t07.npz"):
        if (folder / file).is_file():
            return _checked_edges(folder / file, nodes)
    return regenerate()


def _checked_edges(path: Path, nodes: int) -> Integers:
    fix = "get it again, or delete it to have the edges regenerated"
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                rows = np.asarray(arrays["edges"], dtype=np.float64)
        else:
            rows = pd.read_csv(path, sep=r"\s+", header=None, dtype=np.float64).to_numpy()
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable edge list ({_one_line(error)}); {fix}") from None
    if rows.ndim != 2 or rows.shape[1] != 2:
        raise DataError(f"{path}: needs two columns (source, target), has shape {rows.shape}; {fix}")
    if not np.isfinite(rows).all() or (rows != np.floor(rows)).any():
        raise DataError(f"{path}: holds values that are no node numbers; {fix}")
    if rows.size and (rows.min() < 0 or rows.max() >= nodes):
        raise DataError(f"{path}: names nodes outside 0 .. {nodes - 1}, the rows of the table; {fix}")
    edges = rows.astype(np.int64)
    # By the rule every node has an edge to its most similar one: a node without any betrays a cut-off file.
    connected = len(np.unique(edges[:, 0]))
    if connected != nodes:
        raise DataError(f"{path}: only {connected} of {nodes} nodes have an edge: the file is cut off; {fix}")
    return edges


def _read_split(folder: Path, nodes: int) -> tuple[Integers, Integers, Integers] | None:
    paths = [folder / "split" / f"{part}_split.npy" for part in ("train", "val", "test")]
    present = [path.is_file() for path in paths]
    if not any(present):
        return None
    if not all(present):
        missing = paths[present.index(False)]
        raise DataError(f"{missing}: is missing; add it, or delete the folder to have the split made by rule")
    train, validation, test = (_checked_nodes(path, nodes) for path in paths)
    return train, validation, test


def _checked_nodes(path: Path, nodes: int) -> Integers:
    fix = "get it again, or delete the folder to have the split made by rule"
    try:
        # Some published splits are stored as float64.
        values = np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable array ({_one_line(error)}); {fix}") from None
    if values.ndim != 1 or not np.isfinite(values).all() or (values != np.floor(values)).any():
        raise DataError(f"{path}: is no list of node numbers; {fix}")
    if values.size and (values.min() < 0 or values.max() >= nodes):
        raise DataError(f"{path}: names nodes outside 0 .. {nodes - 1}, the rows of the table; {fix}")
    return values.astype(np.int64)


def _rows_divided_by_sum(raw: Floats) -> Floats:
    sums = raw.sum(axis=1, keepdims=True)
    return np.divide(raw, sums, out=np.zeros_like(raw), where=sums != 0)


def _scaled_to_unit(raw: Floats) -> Floats:
    """Map every column linearly to [-1, 1] (a constant column to -1)."""
    low = raw.min(axis=0)
    span = raw.max(axis=0) - low
    return 2 * (raw - low) / np.where(span == 0, 1, span) - 1


def _assemble(
    folder: Path,
    *,
    name: str,
    features: Floats,
    edges: Integers,
    labels: Integers,
    sensitive: Integers,
    split: tuple[Integers, Integers, Integers],
    feature_names: Sequence[str],
) -> FairnessGraph:
    graph = FairnessGraph(
        name=name,
        features=features.astype(np.float32),
        edge_index=symmetric_with_self_loops(edges, len(labels)),
        labels=labels,
        sensitive=sensitive,
        train=split[0],
        validation=split[1],
        test=split[2],
        feature_names=tuple(feature_names),
    )
    try:
        graph.validate()
    except DataError as error:
        raise DataError(f"{folder}: {error}; {_GET_AGAIN}") from None
    return graph


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
