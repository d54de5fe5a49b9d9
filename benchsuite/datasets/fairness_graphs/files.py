"""The files of the real graphs: table, edge list and split, read and checked with one-line errors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchsuite.core.columns import Row, read_rows
from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets.fairness_graphs.graph import Floats, Integers
from benchsuite.datasets.fairness_graphs.rules import symmetric_with_self_loops
from benchsuite.datasets.files import read_arrays

HOMEPAGE = "https://github.com/chirag126/nifty"
GET_AGAIN = f"get the file again from {HOMEPAGE}"
_SPLIT_FIX = "get it again, or delete the folder to have the split made by rule"


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
    """Return ``columns`` of a CSV table as float64; ``codes`` translates the text of some of them.

    Raises
    ------
    DataError
        One line that names the file: no such table, a column that is missing or doubled, fewer than two rows, a row
        with another number of cells, or, with its line, a cell that is no finite number (or no key of its code).
    """
    codes = codes or {}
    values: dict[str, list[float]] = {column: [] for column in columns}
    try:
        rows = list(read_rows(path, columns, others=True, what="not a readable CSV table"))
    except DataError as error:
        raise DataError(f"{error}; {GET_AGAIN}") from None
    if len(rows) < 2:
        raise DataError(f"{path}: has {len(rows)} rows; {GET_AGAIN}")
    for row in rows:
        for column, found in values.items():
            found.append(_number(row, column, codes.get(column)))
    return pd.DataFrame(values, dtype=np.float64)


def _number(row: Row, column: str, code: Mapping[str, int] | None) -> float:
    if code is not None:
        if row.cells[column] in code:
            return float(code[row.cells[column]])
        wanted = " or ".join(code)
    else:
        try:
            return row.number(column)
        except DataError:
            wanted = "a number"
    text = repr(row.cells[column][:40])
    raise DataError(f"{row.path}: column {column} in line {row.line} is not {wanted} but {text}; {GET_AGAIN}")


def binary(table: pd.DataFrame, column: str, folder: Path) -> Integers:
    """Return a column that holds 0 and 1, both of them and nothing else, as (rows,) int64.

    Raises
    ------
    DataError
        If it holds anything else, or only one of the two.
    """
    values = table[column].to_numpy()
    wrong = ~np.isin(values, (0, 1))
    if wrong.any():
        raise DataError(
            f"{folder}: column {column} of the table may only hold 0 and 1, row {int(wrong.argmax()) + 1} holds"
            f" {values[wrong][0]:g}; {GET_AGAIN}"
        )
    if len(np.unique(values)) < 2:
        raise DataError(f"{folder}: column {column} of the table holds only {values[0]:g}, needs 0 and 1; {GET_AGAIN}")
    return values.astype(np.int64)


def read_edges(
    folder: Path, name: str, nodes: int, regenerate: Callable[[], Integers], others: Sequence[str] = ()
) -> Integers:
    """Return the edge rows (E, 2) of the edge file that is there, else regenerate them.

    The file is NAME_edges.txt, .txt.zip or .npz, or one of ``others``. Every row connects two nodes, numbered from 0;
    directions, repetitions and self-loops may occur and mean nothing more.

    Raises
    ------
    DataError
        One line that names the file: no list of two whole numbers a row, nodes outside the table (as in lists numbered
        from 1), nodes without any edge, a file of another name or two files of different edges.
    """
    known = (f"{name}_edges.txt", f"{name}_edges.txt.zip", f"{name}_edges.npz", *others)
    there = sorted(path.name for path in folder.glob(f"{name}_edges*"))
    unknown = [file for file in there if file not in known]
    if unknown:
        raise DataError(
            f"{folder / unknown[0]}: is no edge file that is read ({', '.join(known)}): rename or remove it"
        )
    lists = {file: _checked_edges(folder / file, nodes) for file in known if file in there}
    if not lists:
        return regenerate()
    (first, edges), *more = lists.items()
    for file, other in more:
        if not np.array_equal(symmetric_with_self_loops(edges, nodes), symmetric_with_self_loops(other, nodes)):
            raise DataError(f"{folder / file}: holds other edges than {first}: keep the one that is meant")
    return edges


def _checked_edges(path: Path, nodes: int) -> Integers:
    fix = "get it again, or delete it to have the edges regenerated"
    try:
        if path.suffix == ".npz":
            rows = _numeric(read_arrays(path)["edges"])
        else:
            rows = pd.read_csv(path, sep=r"\s+", header=None, dtype=np.float64).to_numpy()
    except Exception as error:  # readers of archives fail in many ways
        raise DataError(f"{path}: not a readable edge list ({_one_line(error)}); {fix}") from None
    if rows.ndim != 2 or rows.shape[1] != 2:
        raise DataError(f"{path}: needs two columns (source, target), has shape {rows.shape}; {fix}")
    if not len(rows):
        raise DataError(f"{path}: not a readable edge list (it is empty); {fix}")
    wrong = ~(np.isfinite(rows) & (rows == np.floor(rows))).all(axis=1)
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(f"{path}: row {first + 1} holds values that are no node numbers, {rows[first].tolist()}; {fix}")
    if rows.min() == 1 and rows.max() == nodes:
        raise DataError(f"{path}: names nodes outside 0 .. {nodes - 1}: numbered from 1? Subtract 1; {fix}")
    wrong = ((rows < 0) | (rows >= nodes)).any(axis=1)
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(
            f"{path}: names nodes outside 0 .. {nodes - 1}, the rows of the table: {rows[first].tolist()} in row"
            f" {first + 1}; {fix}"
        )
    edges = rows.astype(np.int64)
    _check_complete(path, edges, nodes, fix)
    return edges


def _check_complete(path: Path, edges: Integers, nodes: int, fix: str) -> None:
    """Refuse a list that leaves nodes out: by the rule every node has an edge to its most similar one.

    Lists of the rule have a row from every node; ones that give each edge once, in whichever direction, need only
    name every node.
    """
    proper = edges[edges[:, 0] != edges[:, 1]]
    keys = np.unique(proper[:, 0] * nodes + proper[:, 1])
    once = not np.isin(keys % nodes * nodes + keys // nodes, keys).any()
    connected = len(np.unique(proper if once else proper[:, 0]))
    if connected != nodes:
        raise DataError(f"{path}: only {connected} of {nodes} nodes have an edge: the file is cut off; {fix}")


def read_split(folder: Path, nodes: int) -> tuple[Integers, Integers, Integers] | None:
    """Return the published split, three lists of node numbers (n,) int64, or None if there is none.

    Raises
    ------
    DataError
        One line that names the file: a part that is missing, unreadable, empty, no list of whole numbers, that names
        nodes outside the table, or a node twice or that another part has too.
    """
    paths = [folder / "split" / f"{part}_split.npy" for part in ("train", "val", "test")]
    present = [path.is_file() for path in paths]
    if not any(present):
        return None
    if not all(present):
        missing = paths[present.index(False)]
        raise DataError(f"{missing}: is missing; add it, or delete the folder to have the split made by rule")
    parts = [_checked_nodes(path, nodes) for path in paths]
    for (one, first), (two, second) in itertools.combinations(zip(paths, parts, strict=True), 2):
        shared = np.intersect1d(first, second)
        if len(shared):
            raise DataError(
                f"{two}: {one.name} and {two.name} share nodes ({len(shared)}, the first {shared[0]}); {_SPLIT_FIX}"
            )
    train, validation, test = parts
    return train, validation, test


def _checked_nodes(path: Path, nodes: int) -> Integers:
    try:
        # Some published splits are stored as float64.
        values = _numeric(np.load(path, allow_pickle=False))
    except Exception as error:  # readers of arrays fail in many ways
        raise DataError(f"{path}: not a readable array ({_one_line(error)}); {_SPLIT_FIX}") from None
    if values.ndim != 1 or not np.isfinite(values).all() or (values != np.floor(values)).any():
        raise DataError(f"{path}: is no list of node numbers; {_SPLIT_FIX}")
    if not len(values):
        raise DataError(f"{path}: names no node; {_SPLIT_FIX}")
    if values.min() < 0 or values.max() >= nodes:
        raise DataError(f"{path}: names nodes outside 0 .. {nodes - 1}, the rows of the table; {_SPLIT_FIX}")
    if len(np.unique(values)) != len(values):
        raise DataError(f"{path}: names a node twice; {_SPLIT_FIX}")
    return values.astype(np.int64)


def _numeric(values: Any) -> Floats:
    """Return an array of integers or floats as float64; truth values, text and complex numbers are no node numbers."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"it holds {array.dtype}")
    return array.astype(np.float64)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
