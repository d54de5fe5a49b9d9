"""The parts of a run, built from names and settings: its data, its protocol, its method."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from benchsuite.core.config import build_config
from benchsuite.core.method import Method, MethodSpec
from benchsuite.core.registry import Registry, load_object
from benchsuite.core.task import Task

T = TypeVar("T")


def load_data(
    registry: Registry,
    names: Mapping[str, str],
    roots: Mapping[str, Path],
    draw: int,
    reading: Callable[[str, Callable[[], Any]], Any] | None = None,
) -> dict[str, Any]:
    """Return the data object of each role; roles that name one data set share one object.

    Parameters
    ----------
    names
        Role to name of the data set.
    roots
        Folder of each real data set, by name.
    draw
        Which sample of generated data to take.
    reading
        Called with a name and what reads that data set; returns what was read, now or earlier.
    """
    loaded: dict[str, Any] = {}
    for name in names.values():
        if name not in loaded:
            read = functools.partial(load_object(registry.dataset(name).load), roots.get(name), draw)
            loaded[name] = reading(name, read) if reading else read()
    return {role: loaded[name] for role, name in names.items()}


def build_protocol(task: type[Task[Any, Any, Any]], settings: Mapping[str, Any]) -> Any:
    """Return a task's protocol; raises `ConfigError` for settings that it does not take."""
    return build_config(task.Protocol, settings, f"task {task.name!r}")


def build_method(spec: MethodSpec, settings: Mapping[str, Any]) -> Method:
    """Return an unfitted method under its registered name.

    Raises
    ------
    ConfigError
        For settings that it does not take.
    TypeError
        If the class of settings that its spec names is not the method's own.
    """
    cls: type[Method] = load_object(spec.load)
    if spec.config and load_object(spec.config) is not cls.Config:
        raise TypeError(f"method {spec.name!r} is registered with settings {spec.config}, which are not its own")
    method = cls(build_config(cls.Config, settings, f"method {spec.name!r}"))
    method.name = spec.name
    return method


def with_seeds(function: Callable[..., T], *arguments: Any, seeds: Mapping[str, int]) -> T:
    """Call ``score`` or ``with_other_answers`` of a task, with the run's seeds if it asks for them (``seeds``)."""
    wanted = "seeds" in inspect.signature(function).parameters
    return function(*arguments, **({"seeds": dict(seeds)} if wanted else {}))
