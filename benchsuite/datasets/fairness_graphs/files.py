"""The files of the real graphs: table, edge list and split, read and checked with one-line errors."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets.fairness_graphs.graph import Floats, Integers

HOMEPAGE = "https://github.com/chirag126/nifty"
GET_AGAIN = f"get the file again from {HOMEPAGE}"


def data_folder(root: Path | None, name: str, layout: str) -> Path:
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


def read_table(
    path: Path, columns: Sequence[str], codes: Mapping[str, Mapping[str, int]] | None = None
) -> pd.DataFrame:
    """Read ``columns`` as numbers; ``codes`` translates the text of some of them."""
    codes = codes or {}
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(codes, str))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable CSV table ({_one_line(error)}); {GET_AGAIN}") from None
    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(f"{path}: lacks the columns {', '.join(missing)}; {GET_AGAIN}")
    if len(table) < 2:
        raise DataError(f"{path}: has {len(table)} rows; {GET_AGAIN}")
    return pd.DataFrame({column: _numbers(table[column], codes.get(column), path) for column in columns})


def _numbers(values: pd.Series, code: Mapping[str, int] | None, path: Path) -> Floats:
    numbers = pd.to_numeric(values.map(code) if code else values, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(numbers)
    if bad.any():
        wanted = " or ".join(code) if code else "a number"
        line = int(bad.argmax()) + 2
        raise DataError(f"{path}: column {values.name} in line {line} is not {wanted}; {GET_AGAIN}")
    return numbers


def binary(table: pd.DataFrame, column: str, folder: Path) -> Integers:
    """Return a column that may only hold 0 and 1."""
    values = table[column].to_numpy()
    if not np.isin(values, (0, 1)).all():
        raise DataError(f"{folder}: column {column} of the table may only hold 0 and 1; {GET_AGAIN}")
    return values.astype(np.int64)


def read_edges(folder: Path, name: str, nodes: int, regenerate: Callable[[], Integers]) -> Integers:
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


def read_split(folder: Path, nodes: int) -> tuple[Integers, Integers, Integers] | None:
    """Return the published split, or None if there is none."""
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
