"""Generated data sets that are written to the cache once, as files of a real format."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from benchsuite.core.errors import UserError


def written_once(name: str, write: Callable[[Path], None]) -> Path:
    """Return the cache's folder of a name, filled by ``write`` if it is not there.

    It is written beside the final one and renamed: nobody ever sees half a data set.

    Raises
    ------
    UserError
        If the cache cannot be written to.
    """
    cache = Path(os.environ.get("BENCHSUITE_CACHE") or platformdirs.user_cache_dir("benchsuite")).expanduser()
    folder = cache / "datasets" / name
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
        try:
            write(temporary)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if not folder.is_dir():  # else another process was first
            raise UserError(f"cannot write {folder} ({error.strerror}): set BENCHSUITE_CACHE") from None
    return folder
