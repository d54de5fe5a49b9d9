"""Join result files from other machines."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchsuite.core.errors import UserError
from benchsuite.harness.store import RESULT_FILE, Store, StoredResult, write_atomic


@dataclass(frozen=True)
class Merged:
    """How many results came in, and how many were there already, byte for byte."""

    added: int
    known: int


def merge(incoming: Iterable[StoredResult], target: Path) -> Merged:
    """Copy results and their artifacts below ``target``, each as an attempt of its own.

    Nothing that is there is changed: results that disagree are both kept, and the tables say so.

    Raises
    ------
    UserError
        If ``target`` cannot be written.
    """
    store = Store(target)
    added = known = 0
    for item in incoming:
        content = item.path.read_bytes()
        if any(other.path.read_bytes() == content for other in store.attempts(item.result.run)):
            known += 1
            continue
        try:
            _copy(item, content, store.new_attempt(item.result.run))
        except OSError as error:
            raise UserError(f"cannot write to {target} ({error.strerror}): choose another --results folder") from None
        added += 1
    return Merged(added, known)


def _copy(item: StoredResult, content: bytes, attempt: Path) -> None:
    for artifact in item.result.artifacts.values():
        source, place = item.path.parent / artifact.path, attempt / artifact.path
        inside = place.resolve().is_relative_to(attempt.resolve()) and source.resolve().is_relative_to(
            item.path.parent.resolve()
        )
        if inside and source.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
    write_atomic(attempt / RESULT_FILE, content)
