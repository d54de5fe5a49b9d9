"""The plugin manager, and look-up by name.

Plugins come from the entry-point group ``benchsuite``. A plugin that cannot be imported, or that
registers something unusable, is remembered in `Registry.broken` and does no harm to the others.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import pluggy

from benchsuite.core import hookspecs
from benchsuite.core.dataset import DatasetSpec
from benchsuite.core.errors import ConfigError, MissingDependency, UnknownName, UserError, did_you_mean
from benchsuite.core.method import MethodSpec
from benchsuite.core.task import Task, TaskSpec

ENTRY_POINT_GROUP = "benchsuite"
Spec = TypeVar("Spec", TaskSpec, DatasetSpec, MethodSpec)


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that could not be used, and why."""

    name: str
    error: str


@dataclass
class Registry:
    """Everything that is registered, by name."""

    manager: pluggy.PluginManager
    tasks: dict[str, TaskSpec] = field(default_factory=dict)
    datasets: dict[str, DatasetSpec] = field(default_factory=dict)
    methods: dict[str, MethodSpec] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    broken: list[BrokenPlugin] = field(default_factory=list)

    def task(self, name: str) -> TaskSpec:
        """Return the task of that name; raises `UnknownName`."""
        return self._find("task", self.tasks, name)

    def dataset(self, name: str) -> DatasetSpec:
        """Return the data set of that name; raises `UnknownName`."""
        return self._find("data set", self.datasets, name)

    def method(self, name: str) -> MethodSpec:
        """Return the method of that name; raises `UnknownName`."""
        return self._find("method", self.methods, name)

    def methods_for(self, task: str) -> list[MethodSpec]:
        """Return the methods registered for a task, by name."""
        return sorted((m for m in self.methods.values() if task in m.tasks), key=lambda m: m.name)

    def _find(self, kind: str, known: Mapping[str, Spec], name: str) -> Spec:
        if name in known:
            return known[name]
        hint = did_you_mean(name, known)
        hint += ": see 'benchsuite list'" if " like it" in hint else ""
        if self.broken:
            hint += f" ({len(self.broken)} plugins failed to load: see 'benchsuite doctor')"
        raise UnknownName(f"there is no {kind} {name!r}{hint}")


@functools.cache
def get_registry() -> Registry:
    """Return the registry of all installed plugins, made at the first call."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    registry = Registry(manager)
    # The bundled ones first: of two plugins, tasks or methods with one name the first stays.
    entries = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda e: (_package(e) != "benchsuite", e.name))
    first: dict[str, EntryPoint] = {}
    for entry in entries:
        if entry.name in first:
            if entry.value != first[entry.name].value:
                error = f"{_package(first[entry.name])} and {_package(entry)} both have a plugin of this name"
                registry.broken.append(BrokenPlugin(entry.name, f"{error}: the first is used, uninstall one"))
            continue
        first[entry.name] = entry
        try:
            with strangers_code():
                plugin = entry.load()
                manager.register(plugin, name=entry.name)
        except StrangersError as error:
            registry.broken.append(BrokenPlugin(entry.name, str(error)))
            continue
        _collect(registry, entry.name, plugin)
    return registry


class StrangersError(Exception):
    """What code of a plugin raised, in one line."""


@contextlib.contextmanager
def strangers_code() -> Iterator[None]:
    """Keep code of plugins from ending this process and from writing to its output.

    What it prints goes to the standard error, whatever it raises (an exit included) becomes a `StrangersError`; only
    Ctrl-C stays what it is.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), _without_output():
            yield
    except KeyboardInterrupt:
        raise
    except SystemExit as error:
        last = [line.strip() for line in said.getvalue().splitlines() if line.strip()][-1:]
        raise StrangersError(
            ": ".join([f"it ends the process that imports it (exit code {error.code})", *last])
        ) from error
    except BaseException as error:
        raise StrangersError(_one_line(error)) from error
    sys.stderr.write(said.getvalue())


@contextlib.contextmanager
def _without_output() -> Iterator[None]:
    """Let what is written to file descriptor 1, by whatever library, go to 2."""
    try:
        kept = os.dup(1)
    except OSError:  # there is none
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unknown package"


def _collect(registry: Registry, plugin_name: str, plugin: object) -> None:
    kinds: tuple[tuple[str, type, dict[str, Any]], ...] = (
        ("benchsuite_tasks", TaskSpec, registry.tasks),
        ("benchsuite_datasets", DatasetSpec, registry.datasets),
        ("benchsuite_methods", MethodSpec, registry.methods),
    )
    found: list[tuple[type, Any, dict[str, Any]]]
    try:
        with strangers_code():
            found = [(kind, spec, known) for hook, kind, known in kinds for spec in _call(plugin, hook)]
            for kind, spec, known in found:
                if not isinstance(spec, kind):
                    raise TypeError(f"registered {spec!r} where a {kind.__name__} belongs")
                name = getattr(spec, "name", "")
                if name in known:
                    raise ValueError(f"{name!r} is already registered by {registry.owners[name]!r}")
    except StrangersError as error:
        registry.broken.append(BrokenPlugin(plugin_name, str(error)))
        return
    for _, spec, known in found:
        known[spec.name] = spec
        registry.owners[spec.name] = plugin_name


def _call(plugin: object, hook: str) -> Iterable[Any]:
    implementation = getattr(plugin, hook, None)
    return list(implementation()) if implementation is not None else []


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def load_object(reference: str) -> Any:
    """Import ``"module:attribute"`` and return the attribute."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


_NEEDED = ("name", "version", "metrics", "ranking", "reference", "data_type", "method_type", "default_data")


def load_task(spec: TaskSpec) -> type[Task[Any, Any, Any]]:
    """Return the class of a task, whole and in agreement with its spec and with itself.

    Raises
    ------
    ConfigError
        If it cannot be imported, lacks an attribute, has another name than its spec, or ranks by an unknown metric.
    """
    try:
        with strangers_code():
            task: type[Task[Any, Any, Any]] = load_object(spec.load)
    except StrangersError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise ConfigError(f"task {spec.name!r} cannot be imported: {error}") from error
    where = f"task {spec.name!r} ({spec.load})"
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise ConfigError(f"{where}: this is no subclass of Task")
    if missing := [name for name in _NEEDED if not hasattr(task, name)]:
        raise ConfigError(f"{where} does not say its {', '.join(missing)}")
    if task.name != spec.name:
        raise ConfigError(f"{where}: the task is registered as {spec.name!r} and calls itself {task.name!r}")
    metrics = [metric.name for metric in task.metrics]
    constraint = task.ranking.constraint
    wanted = {
        "the ranking": task.ranking.metric,
        "the ranking's second choice": task.ranking.otherwise,
        "the ranking's constraint": constraint and constraint.metric,
    }
    for what, name in wanted.items():
        if name and name not in metrics:
            raise ConfigError(
                f"{where}: {what} names the metric {name!r}, which the task lacks{did_you_mean(name, metrics)}"
            )
    return task


def config_class(spec: MethodSpec) -> Any:
    """Return the class of a method's settings, without importing the method if the spec names it."""
    return load_object(spec.config) if spec.config else load_object(spec.load).Config


def require(owner: str, modules: Iterable[str], install: str) -> None:
    """Raise `MissingDependency` with the exact command if a needed library is not installed.

    Only looks libraries up; imports none of them.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        command = install or "pip install " + " ".join(name.replace("_", "-") for name in missing)
        raise MissingDependency(f"{owner} needs {', '.join(missing)}, not installed here - run: {command}")
