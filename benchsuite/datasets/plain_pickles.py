"""Pickles of plain values, opened without running anything that is in them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from benchsuite.core.errors import DataError

_RECONSTRUCT = ("_reconstruct", "scalar")
_ARRAY_NAMES = frozenset(
    {("numpy", "ndarray"), ("numpy", "dtype")}
    | {(module, name) for module in ("numpy.core.multiarray", "numpy._core.multiarray") for name in _RECONSTRUCT}
)


class _PlainUnpickler(pickle.Unpickler):
    """Builds dict, list, str and numbers; refuses whatever names a class or function but, if wanted, NumPy's arrays."""

    def __init__(self, stream: io.BytesIO, arrays: bool) -> None:
        super().__init__(stream)
        self._arrays = arrays

    def find_class(self, module: str, name: str) -> Any:
        if self._arrays and (module, name) in _ARRAY_NAMES:
            return super().find_class(module, name)
        if self._arrays and (module, name) == ("_codecs", "encode"):
            return _bytes_of
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside")


def _bytes_of(text: str, encoding: str) -> bytes:
    """Return the bytes of an array as protocol 2 writes them (mmengine's files): a text of their numbers."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("it encodes something other than bytes")
    return text.encode("latin1")


def read_plain_pickle(path: Path, what: str, most_bytes: int, *, arrays: bool = False) -> Any:
    """Return what a pickle holds, if that is nothing but dict, list, tuple, str, numbers and, if wanted, arrays.

    Parameters
    ----------
    path
        The file.
    what
        What it should be, for messages: "a list of plain dict, list, str and int".
    most_bytes
        Size above which it is another file.
    arrays
        Whether NumPy arrays and numbers may be in it.

    Raises
    ------
    DataError
        If it cannot be read, is too large, holds an object or a function (nothing of it is executed), or goes on after
        its end.
    """
    try:
        size = path.stat().st_size
        if size > most_bytes:
            raise DataError(f"{path}: has {size} bytes, more than {what} has: is it another file?")
        content = path.read_bytes()
        stream = io.BytesIO(content)
        found = _PlainUnpickler(stream, arrays).load()
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # pickles break in many ways
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{path}: not {what} ({reason}): nothing of it was executed; use the published file") from None
    if stream.tell() != len(content):
        raise DataError(f"{path}: goes on after its end: is it damaged?")
    return found
