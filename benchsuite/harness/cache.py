"""A content-addressed cache of expensive steps that runs share.

An entry is a folder named by the hash of its inputs. It is built beside its final place and renamed
when complete, under a lock that dies with its process: an interrupted build leaves no entry. Where nodes share the
folder and do not see each other's locks, each builds in a place of its own, and the first to finish makes the entry.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import BaseModel, ValidationError

from benchsuite.core.errors import UserError
from benchsuite.core.result import content_hash
from benchsuite.harness.store import file_lock, write_atomic

_META_FILE = "entry.json"
_CONTENT = "content"


class Charge(BaseModel):
    """Seconds that a build took, charged to every run that uses its product."""

    name: str
    wall_s: float
    cpu_s: float


class Entry(BaseModel):
    """What is remembered of a build: its inputs, and the seconds of it and of what it used in turn."""

    inputs: dict[str, Any]
    charges: dict[str, Charge]
    truncated: bool = False


@dataclass(frozen=True)
class Built:
    """What a build reports: the seconds to charge, and whether its training was cut short."""

    charges: dict[str, Charge]
    truncated: bool = False


@dataclass(frozen=True)
class CachedFolder:
    """A complete entry."""

    key: str
    path: Path
    entry: Entry
    hit: bool


def default_cache_root() -> Path:
    """Return the cache folder: ``$BENCHSUITE_CACHE``, else the platform's place for caches."""
    return Path(os.environ.get("BENCHSUITE_CACHE") or platformdirs.user_cache_dir("benchsuite")).expanduser()


@functools.cache
def _host() -> str:
    """Return a name for this host, unlike that of any other that may share the folder: locks hold within it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        boot = ""
    return content_hash([platform.node(), boot])[:8]


class Cache:
    """The cache below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, name: str, inputs: Mapping[str, Any], build: Callable[[Path], Built]) -> CachedFolder:
        """Return the entry for ``inputs``, built by ``build(folder)`` if it is not there."""
        key = content_hash(inputs)
        folder = self.root / name / key[:32]
        entry = self._read(folder)
        if entry is not None:
            return CachedFolder(key, folder / _CONTENT, entry, hit=True)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write the cache at {self.root} ({error.strerror}): set BENCHSUITE_CACHE to another folder"
            ) from None
        with file_lock(folder.with_suffix(".lock")):
            entry = self._read(folder)
            if entry is not None:
                return CachedFolder(key, folder / _CONTENT, entry, hit=True)
            entry = self._build(folder, inputs, build)
        return CachedFolder(key, folder / _CONTENT, entry, hit=False)

    def _read(self, folder: Path) -> Entry | None:
        try:
            return Entry.model_validate_json((folder / _META_FILE).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValidationError:
            shutil.rmtree(folder)
            return None

    def _build(self, folder: Path, inputs: Mapping[str, Any], build: Callable[[Path], Built]) -> Entry:
        partial = folder.with_suffix(f".{_host()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        (partial / _CONTENT).mkdir(parents=True)
        built = build(partial / _CONTENT)
        entry = Entry(inputs=dict(inputs), charges=built.charges, truncated=built.truncated)
        write_atomic(partial / _META_FILE, entry.model_dump_json().encode())
        try:
            partial.rename(folder)
        except OSError:
            earlier = self._read(folder)  # another node was faster
            if earlier is None:
                raise
            shutil.rmtree(partial, ignore_errors=True)
            return earlier
        return entry

    def usage(self) -> dict[str, tuple[int, int]]:
        """Return, for each name, the number of entries and their size in bytes."""
        totals: dict[str, tuple[int, int]] = {}
        for meta in sorted(self.root.glob(f"*/*/{_META_FILE}")):
            name = meta.parent.parent.name
            size = sum(path.stat().st_size for path in meta.parent.rglob("*") if path.is_file())
            count, total = totals.get(name, (0, 0))
            totals[name] = (count + 1, total + size)
        return totals

    def clear(self, name: str | None = None) -> int:
        """Remove all entries (of one name); returns how many there were."""
        count = 0
        for folder in sorted(self.root.glob("*/*")) if name is None else sorted(self.root.glob(f"{name}/*")):
            if folder.is_dir():
                count += (folder / _META_FILE).is_file()
                with file_lock(folder.with_suffix(".lock")):
                    shutil.rmtree(folder, ignore_errors=True)
        return count
