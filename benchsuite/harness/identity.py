"""What identifies a run besides its settings: the code that made it and the data it read."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchsuite.core.dataset import DataSource
from benchsuite.core.errors import DatasetNotFound, UserError
from benchsuite.core.method import MethodSpec
from benchsuite.core.registry import Registry
from benchsuite.core.result import content_hash
from benchsuite.core.task import TaskSpec
from benchsuite.harness.definitions import Definitions

# The floors that carry runs but do not decide what a number is.
_APART = ("benchsuite.core", "benchsuite.harness", "benchsuite.leaderboard", "benchsuite.testing", "benchsuite.cli")


@dataclass(frozen=True)
class Digests:
    """The code behind a row (``source``), and the code behind the cached steps that rows of one plugin share."""

    source: str
    shared: str


class SourceDigests:
    """The digests of the code behind results, as the source stands when this object is made.

    ``roots`` are the folders of another checkout whose specs ``registry`` holds; none: the installed code.
    """

    def __init__(self, registry: Registry, roots: Sequence[Path] = ()) -> None:
        self._registry = registry
        self._roots = tuple(roots)
        self._definitions: dict[frozenset[str], Definitions] = {}
        self._known: dict[tuple[Any, ...], Digests] = {}

    def of(self, task: TaskSpec, method: MethodSpec, data: Iterable[str], protocol: Mapping[str, Any]) -> Digests:
        """Return the digests for a row.

        Covers what the code of method, task and readers defines, and of the methods that `methods_in_use` names,
        with their presets: wherever it stands (see `definitions`).

        Raises
        ------
        UserError
            If a module or name that the code imports from its own package cannot be found.
        """
        registry = self._registry
        readers = tuple(sorted({registry.dataset(name).load for name in data}))
        used = methods_in_use(registry, task, method, protocol)
        key = (task.load, method.name, readers, tuple(spec.name for spec in used))
        if key not in self._known:
            owner = registry.owners.get(method.name)
            siblings = [
                spec
                for spec in registry.methods_for(task.name)
                if registry.owners.get(spec.name) == owner and (spec is method or self._is_sound(task, spec))
            ]
            source = self._digest(task, [method], readers, used)
            also_used = [m for sibling in siblings for m in methods_in_use(registry, task, sibling, protocol)]
            shared = self._digest(task, siblings or [method], readers, [*used, *also_used])
            self._known[key] = Digests(source, shared)
        return self._known[key]

    def _is_sound(self, task: TaskSpec, spec: MethodSpec) -> bool:
        """Return whether the code of a method can be followed: a broken one must not stop the others of its plugin."""
        try:
            self._digest(task, [spec], [], [])
        except UserError:
            return False
        return True

    def of_reader(self, data: str) -> str:
        """Return the digest of the code that reads a data set.

        Raises
        ------
        UserError
            As `of`.
        """
        reference = self._registry.dataset(data).load
        packages = frozenset({"benchsuite", reference.partition(":")[0].partition(".")[0]})
        return self._definitions.setdefault(packages, Definitions(packages, _APART, self._roots)).digest(reference)

    def _digest(
        self, task: TaskSpec, methods: Iterable[MethodSpec], readers: Iterable[str], used: Iterable[MethodSpec]
    ) -> str:
        def digest(reference: str, package: str) -> str:
            packages = frozenset({"benchsuite", task.load.partition(".")[0].partition(":")[0], package})
            definitions = self._definitions.setdefault(packages, Definitions(packages, _APART, self._roots))
            return definitions.digest(reference)

        def own(reference: str) -> str:
            return digest(reference, reference.partition(":")[0].partition(".")[0])

        return content_hash(
            {
                "task": own(task.load),
                "methods": sorted({own(method.load) for method in methods}),
                "readers": [own(reader) for reader in readers],
                "used": {spec.name: [own(spec.load), _presets(spec)] for spec in used},
            }
        )


def methods_in_use(
    registry: Registry, task: TaskSpec, method: MethodSpec, protocol: Mapping[str, Any]
) -> list[MethodSpec]:
    """Return the registered methods that a run may ask for through ``ctx.method``, by name.

    Those that task and method declare in ``uses`` (``"{field}"`` stands for a value of the protocol), and what these
    use in turn.

    Raises
    ------
    UnknownName
        If there is no method of a declared name.
    """
    found: dict[str, MethodSpec] = {}
    waiting = [*task.uses, *method.uses]
    while waiting:
        name = waiting.pop()
        if name.startswith("{"):
            name = str(protocol.get(name.strip("{}"), ""))
        if name not in found:
            found[name] = registry.method(name)
            waiting += found[name].uses
    return [found[name] for name in sorted(found)]


def _presets(spec: MethodSpec) -> dict[str, Any]:
    """Return what a method that is not asked for by name is set to: its own settings are in no run's record."""
    return {
        name: [dict(preset.settings), [[dict(case.where), dict(case.settings)] for case in preset.cases]]
        for name, preset in spec.presets.items()
    }


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
