"""Where results live: ``runs/TASK/DATA/METHOD/FINGERPRINT/attempt-N/result.json``.

Nothing stored is ever overwritten. Every write goes to a temporary file, is flushed to the disk, and is
renamed into place, so a file is either whole or not there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchsuite.core.errors import StoreError
from benchsuite.core.result import FINISHED, Identity, Result, RunSpec, parse_result

RESULT_FILE = "result.json"
LOG_FILE = "log.txt"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # said by file systems without


@dataclass(frozen=True)
class StoredResult:
    """A result and the file it was read from."""

    result: Result
    path: Path

    @property
    def attempt(self) -> int:
        """Number of the attempt, counted from 1 (0 for a file outside an attempt folder)."""
        prefix, _, number = self.path.parent.name.partition("-")
        return int(number) if prefix == "attempt" and number.isdigit() else 0


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is either complete or absent, even after a power cut."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")  # unlike on every host that shares the folder
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def data_folder(run: RunSpec) -> str:
    """Return the folder name for a run's data: one name, or ``train-to-test`` if they differ."""
    names = [run.data[role].name for role in ("train", "test")]
    return names[0] if names[0] == names[1] else f"{names[0]}-to-{names[1]}"


def result_folder(root: Path, run: RunSpec) -> Path:
    """Return the folder that holds all attempts of a run."""
    return root / run.task / data_folder(run) / run.method / run.fingerprint[:16]


def checkpoint_folder(attempt: Path, identity: Identity) -> Path:
    """Return where the trainings of a run keep their state: the same for all attempts by the same code."""
    return attempt.parent / f".checkpoint-{identity.source_digest[:16]}"


class Store:
    """The user's own results under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def check_writable(self) -> None:
        """Raise `StoreError` if results cannot be written here."""
        probe = self.root / f".probe-{uuid.uuid4().hex}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(
                f"cannot write results to {self.root} ({reason}): choose another folder with --out"
            ) from None

    def attempts(self, run: RunSpec) -> list[StoredResult]:
        """Return the readable attempts of a run, oldest first."""
        folder = result_folder(self.root, run)
        found, _ = read_results(sorted(folder.glob(f"attempt-*/{RESULT_FILE}")))
        mine = [stored for stored in found if stored.result.fingerprint == run.fingerprint]
        return sorted(mine, key=lambda stored: stored.attempt)

    def finished(self, identity: Identity) -> StoredResult | None:
        """Return the newest finished attempt that was made by the same code, if there is one."""
        for stored in reversed(self.attempts(identity.run)):
            if stored.result.status in FINISHED and stored.result.source_digest == identity.source_digest:
                return stored
        return None

    def new_attempt(self, run: RunSpec) -> Path:
        """Create the folder of the next attempt and return it."""
        folder = result_folder(self.root, run)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(p.name[8:]) for p in folder.glob("attempt-*") if p.name[8:].isdigit()]
        number = max(numbers, default=0) + 1
        while True:
            try:
                path = folder / f"attempt-{number}"
                path.mkdir()
                return path
            except FileExistsError:
                number += 1

    @contextlib.contextmanager
    def lock(self, run: RunSpec, poll: Callable[[], None]) -> Iterator[None]:
        """Hold the run's lock, waiting while another process has it (``poll`` is called meanwhile)."""
        folder = result_folder(self.root, run)
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / ".lock", poll):
            yield


@contextlib.contextmanager
def file_lock(path: Path, poll: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold an advisory lock that the kernel releases when the process ends, however it ends.

    It saves work and nothing else: some file systems that nodes share have none, or none that other nodes see. What
    two holders do at once must end well all the same.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                poll()
                time.sleep(0.1)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                break
        yield
    finally:
        os.close(descriptor)


def remove_attempt(item: StoredResult, root: Path) -> Path:
    """Remove an attempt with its log and artifacts, and the folders above it that are empty then.

    Parameters
    ----------
    item
        The result, as `read_results` gives it.
    root
        The folder that it was found below, which stays.

    Raises
    ------
    StoreError
        If the file does not lie as the store lays files out, so that its folder may hold other things.
    """
    folder = item.path.parent
    if item.attempt == 0 or folder.parent.name != item.result.fingerprint[:16]:
        raise StoreError(f"{item.path} does not lie in a store (.../FINGERPRINT/attempt-N): remove the file yourself")
    shutil.rmtree(folder)
    above = folder.parent
    if not any(above.glob("attempt-*")):
        shutil.rmtree(above)
        above = above.parent
    while above != root and above.is_relative_to(root) and not any(above.iterdir()):
        above.rmdir()
        above = above.parent
    return folder


def find_result_files(roots: Iterable[Path]) -> list[Path]:
    """Return all result files below the folders (or the files themselves), sorted."""
    found: set[str] = set()
    for root in roots:
        if root.is_file():
            found.add(str(root))
            continue
        found.update(f"{folder}{os.sep}{RESULT_FILE}" for folder, _, names in os.walk(root) if RESULT_FILE in names)
    return [Path(name) for name in sorted(found)]


def read_results(paths: Iterable[Path]) -> tuple[list[StoredResult], list[str]]:
    """Read result files; unreadable ones become one-line problems instead of errors."""
    results: list[StoredResult] = []
    problems: list[str] = []
    shared = _Shared()
    with without_collections():
        for path in paths:
            try:
                results.append(StoredResult(shared.of(parse_result(path.read_bytes(), path)), path))
            except StoreError as error:
                problems.append(str(error))
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
    return results, problems


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Keep the garbage collector from walking again and again over results that all stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Shared:
    """Lets results that say the same hold it once: 100,000 results know a few definitions and environments.

    Nothing that results hold is ever changed, so that sharing cannot be seen.
    """

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def of(self, result: Result) -> Result:
        """Return the result, its parts replaced by equal ones that are known already."""
        run = result.run
        self._share(result, "definition", result.definition.model_dump_json())
        for name in ("environment", "protocol_changes", "data_labels", "artifacts", "carried", "undefined", "counts"):
            self._share(result, name)
        for name in ("protocol", "config"):
            self._share(run, name)
        self._share(run, "data", tuple((role, d.name, d.version, d.hash) for role, d in run.data.items()))
        for model in (result, run):
            fields = model.__dict__
            for name, value in fields.items():
                if type(value) is str and name != "fingerprint":
                    fields[name] = sys.intern(value)
            stated = model.__pydantic_fields_set__
            known = self._known.setdefault(frozenset(stated), stated)
            object.__setattr__(model, "__pydantic_fields_set__", known)
        return result

    def _share(self, model: Any, name: str, key: Any = None) -> None:
        value = model.__dict__[name]
        model.__dict__[name] = self._known.setdefault((name, repr(value) if key is None else key), value)
