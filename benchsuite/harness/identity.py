"""What identifies a run besides its settings: the code that made it and the data it read."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchsuite.core.dataset import DataSource
from benchsuite.core.errors import DatasetNotFound
from benchsuite.core.method import MethodSpec
from benchsuite.core.result import content_hash
from benchsuite.core.task import TaskSpec

# The floors that carry runs but do not decide what a number is.
_NOT_HASHED = ("benchsuite.core", "benchsuite.harness", "benchsuite.leaderboard", "benchsuite.cli")


def source_digest(task: TaskSpec, method: MethodSpec, sources: Mapping[str, DataSource]) -> str:
    """Return the sha256 of the code behind a result.

    Covers the modules of the method, the task and the readers, with everything that these import from
    their own top-level packages. Found by reading the source; nothing is imported.
    """
    references = {task.load, method.load, *(source.spec.load for source in sources.values())}
    modules: dict[str, str] = {}
    for reference in sorted(references):
        _collect_sources(reference.partition(":")[0], modules)
    return content_hash(modules)


def _collect_sources(module: str, seen: dict[str, str]) -> None:
    if module in seen or module.startswith(_NOT_HASHED):
        return
    path = _module_path(module)
    if path is None:
        return
    stat = path.stat()
    digest, imported = _read_module(module, path, stat.st_mtime_ns, stat.st_size)
    seen[module] = digest
    for name in imported:
        _collect_sources(name, seen)


@functools.lru_cache(maxsize=4096)
def _read_module(module: str, path: Path, mtime_ns: int, size: int) -> tuple[str, tuple[str, ...]]:
    source = path.read_bytes()
    imported = _imports_within_package(module, source, path.name == "__init__.py")
    return hashlib.sha256(source).hexdigest(), tuple(sorted(set(imported)))


def _imports_within_package(module: str, source: bytes, is_package: bool) -> Iterator[str]:
    top = module.partition(".")[0]
    parents = module.split(".") if is_package else module.split(".")[:-1]
    try:
        tree = ast.parse(source)
    except SyntaxError:  # the run will fail with the real message; its bytes are hashed all the same
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == top)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            if name.partition(".")[0] == top:
                yield name
                yield from (f"{name}.{alias.name}" for alias in node.names)


def _module_path(module: str) -> Path | None:
    top, _, rest = module.partition(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for location in spec.submodule_search_locations or ():
        base = Path(location, *rest.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def data_hash(source: DataSource) -> str:
    """Return the hash of a data set's content.

    Generated data: name, version and parameters. Real data: the bytes of its ``files`` and, for
    ``bulk_files``, names and sizes.

    Raises
    ------
    DatasetNotFound
        If the files of a real data set are not where they should be.
    """
    spec = source.spec
    if spec.embedded:
        return content_hash([spec.name, spec.version, dict(spec.parameters)])
    root = existing_root(source)
    listing: list[tuple[str, str | int]] = []
    for pattern in (*spec.files, *spec.optional_files):
        for path in sorted(root.glob(pattern)):
            stat = path.stat()
            listing.append((path.relative_to(root).as_posix(), _file_sha256(path, stat.st_mtime_ns)))
    for pattern in spec.bulk_files:
        listing += [(p.relative_to(root).as_posix(), p.stat().st_size) for p in sorted(root.glob(pattern))]
    return content_hash([spec.name, spec.version, listing])


def existing_root(source: DataSource) -> Path:
    """Return the data root of a real data set; raises `DatasetNotFound` if its files are not there."""
    spec = source.spec
    where = f"expected layout: {spec.layout}; home page: {spec.homepage}"
    if source.root is None:
        raise DatasetNotFound(f"data set {spec.name!r} is not bundled: give its folder with --data-root DIR ({where})")
    if not source.root.is_dir():
        raise DatasetNotFound(f"--data-root {source.root} is not a folder; data set {spec.name!r} needs one ({where})")
    for pattern in spec.files:
        if next(source.root.glob(pattern), None) is None:
            raise DatasetNotFound(f"no {pattern} in {source.root} for data set {spec.name!r} ({where})")
    return source.root


@functools.lru_cache(maxsize=4096)
def _file_sha256(path: Path, mtime_ns: int) -> str:
    return file_sha256(path)


def file_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
