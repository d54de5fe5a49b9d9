"""Finding and reading the files of real data sets, with one-line errors."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchsuite.core.errors import DataError, DatasetNotFound

T = TypeVar("T")


def find_files(root: Path | None, pattern: str, what: str) -> list[Path]:
    """Return the files under ``root`` that match a glob pattern, sorted.

    Raises
    ------
    DatasetNotFound
        If no folder was given, or it has none.
    """
    if root is None:
        raise DatasetNotFound(f"give the folder with the {what}: --data-root DIR")
    found = sorted(root.glob(pattern))
    if not found:
        raise DatasetNotFound(f"{root}: holds no {what}")
    return found


def read_file(path: Path, reader: Callable[[], T]) -> T:
    """Call a library's reader; whatever it stumbles over becomes one line.

    Raises
    ------
    DataError
        If the reader fails, or a file that belongs to this one is missing.
    """
    try:
        return reader()
    except FileNotFoundError as error:
        raise DataError(f"{path.name}: {Path(error.filename or path).name} is missing beside it") from None
    except Exception as error:  # readers of binary files fail in many ways
        text = " ".join(str(error).split())[:120]
        raise DataError(
            f"{path.name}: cannot be read, damaged or cut short? ({type(error).__name__}: {text})"
        ) from None


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return all arrays of an ``.npz`` by name, once their check sums are right: NumPy itself need not look at them.

    Raises
    ------
    ValueError, OSError, zipfile.BadZipFile
        As NumPy, or for an array that was changed after it was written.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the check sum of {damaged} is wrong")
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def flat_numbers(values: Any, what: str) -> NDArray[Any]:
    """Return a list of real numbers, stored as a row, a column or nothing, as (n,) of its own type.

    Raises
    ------
    DataError
        If it has several rows and columns, or holds anything but integers and floats (complex, text, truth values).
    """
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{what} holds {array.dtype}, needs real numbers")
    if array.size and array.size != max(array.shape, default=1):
        raise DataError(f"{what} has shape {array.shape}, needs one row or column")
    return array.ravel()


def whole_numbers(values: Any, what: str) -> NDArray[np.int64]:
    """Return a list of whole numbers, which may be stored as floats, as (n,) int64.

    Raises
    ------
    DataError
        As `flat_numbers`, and for a number that is not whole, not finite or beyond 2**53.
    """
    array = flat_numbers(values, what)
    wrong = ~(np.isfinite(array) & (np.abs(array.astype(np.float64)) <= 2**53) & (array == np.floor(array)))
    if wrong.any():
        raise DataError(f"{what} holds {array[wrong][0]:g}, needs whole numbers")
    return array.astype(np.int64)


def matlab_value(path: Path, key: str) -> Any:
    """Return what a MATLAB file (up to version 7) keeps under a name.

    Raises
    ------
    DataError
        If the file is damaged, of version 7.3, or keeps nothing under that name.
    """
    from scipy.io import loadmat

    try:
        content = read_file(path, lambda: loadmat(path))
    except DataError:
        if path.read_bytes()[:10] == b"MATLAB 7.3":
            raise DataError(f"{path.name}: is in the format of MATLAB 7.3 - save it again with -v7") from None
        raise
    if key not in content:
        names = ", ".join(sorted(name for name in content if not name.startswith("__")))
        raise DataError(f"{path.name}: has no {key!r}, only {names or 'nothing'}")
    return content[key]
