"""Finding and reading the files of real data sets, with one-line errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

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
