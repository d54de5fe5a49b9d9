"""Settings and seeds that a user asks for, from the command line as text or from Python as values, made precise."""

from __future__ import annotations

import itertools
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchsuite.core.config import field_types
from benchsuite.core.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Assignment:
    """One setting: ``scope.key`` and its value, a text from the command line; the scope may be empty."""

    scope: str
    key: str
    value: Any

    def __str__(self) -> str:
        return f"{self.scope}.{self.key}" if self.scope else self.key


def parse_assignments(texts: Iterable[str]) -> list[Assignment]:
    """Parse ``key=value``, ``task.key=value``, ``method.key=value`` or ``NAME.key=value``."""
    assignments = []
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or not path.strip().rpartition(".")[2]:
            raise ConfigError(f"--set needs key=value, not {text!r}")
        assignments += assignments_of({path.strip(): value.strip()})
    return assignments


def assignments_of(settings: Mapping[str, Any]) -> list[Assignment]:
    """Return the assignments of a mapping from ``key``, ``task.key``, ``method.key`` or ``NAME.key`` to a value."""
    assignments = []
    for path, value in settings.items():
        scope, _, key = path.rpartition(".")
        assignments.append(Assignment(scope, key, value))
    return assignments


@dataclass(frozen=True)
class SeedChoice:
    """The seeds of one axis; no axis: of the outermost."""

    values: tuple[int, ...]
    axis: str = ""


def parse_seeds(texts: Iterable[str]) -> list[SeedChoice]:
    """Parse ``N`` (0 .. N-1 on the outermost axis), ``a,b,c`` (these values), or ``axis=`` with either."""
    choices = []
    for text in texts:
        axis, equals, part = text.rpartition("=")
        if equals and not axis:
            raise ConfigError(f"--seeds {text!r} names no axis before the '='")
        try:
            numbers = [int(number) for number in part.removesuffix(",").split(",")]
        except ValueError:
            raise ConfigError(
                f"--seeds needs a number, or numbers with commas (one seed: '7,'), not {part!r}"
            ) from None
        choices.append(seeds_of(numbers if "," in part else numbers[0], axis))
    return choices


def seeds_of(values: int | Sequence[int], axis: str = "") -> SeedChoice:
    """Return so many seeds from 0 on, or the given ones.

    Raises
    ------
    ConfigError
        For no seed, a negative one, or one named twice.
    """
    if isinstance(values, int):
        if values < 1:
            raise ConfigError(f"--seeds {values} asks for no runs: give 1 or more (or a list like 4,7)")
        return SeedChoice(tuple(range(values)), axis)
    chosen = tuple(values)
    if not chosen or min(chosen) < 0 or len(set(chosen)) < len(chosen):
        named = ",".join(map(str, chosen))
        raise ConfigError(f"--seeds {named}: seeds must be different and not negative")
    return SeedChoice(chosen, axis)


def route(
    assignments: Sequence[Assignment], protocol: type, methods: Mapping[str, type]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Decide what each assignment sets.

    Parameters
    ----------
    assignments
        What was asked for.
    protocol
        The task's protocol class.
    methods
        Configuration class of each method that settings may go to.

    Returns
    -------
    task_settings, method_settings
        Values for the protocol, and for each method.

    Raises
    ------
    ConfigError
        If a key is unknown, or could mean both the task's and a method's.
    """
    task_fields = field_types(protocol)
    method_fields = {name: field_types(cls) for name, cls in methods.items()}
    task_settings: dict[str, Any] = {}
    method_settings: dict[str, dict[str, Any]] = {name: {} for name in methods}
    for item in assignments:
        takers = [name for name, fields in method_fields.items() if item.key in fields]
        known = sorted(set(itertools.chain(task_fields, *method_fields.values())))
        if item.scope == "task":
            if item.key not in task_fields:
                raise ConfigError(f"the task has no setting {item.key!r}{did_you_mean(item.key, task_fields)}")
            task_settings[item.key] = item.value
        elif item.scope in ("", "method"):
            if item.scope == "" and item.key in task_fields and takers:
                raise ConfigError(
                    f"--set {item.key} could be the task's or a method's: write task.{item.key} or method.{item.key}"
                )
            if item.scope == "" and item.key in task_fields:
                task_settings[item.key] = item.value
            elif takers:
                for name in takers:
                    method_settings[name][item.key] = item.value
            else:
                raise ConfigError(f"nothing here has a setting {item.key!r}{did_you_mean(item.key, known)}")
        elif item.scope in method_fields:
            if item.key not in method_fields[item.scope]:
                hint = did_you_mean(item.key, method_fields[item.scope])
                raise ConfigError(f"method {item.scope!r} has no setting {item.key!r}{hint}")
            method_settings[item.scope][item.key] = item.value
        else:
            hint = did_you_mean(item.scope, ["task", "method", *method_fields])
            raise ConfigError(f"--set {item}: no such scope {item.scope!r}{hint}")
    return task_settings, method_settings


def grid(settings: Mapping[str, Any], cls: type) -> list[dict[str, Any]]:
    """Return every combination of settings that name several values (``lr=0.001,0.01``, or a list).

    A list, or a text with commas, is several values where the field takes no sequence; several sequences are a list of
    lists. A text for a field of texts is one value, commas and all.

    Parameters
    ----------
    settings
        Field name to value, fields of ``cls`` all of them.
    cls
        A configuration class.
    """
    kinds = field_types(cls)
    choices = [[(key, value) for value in _alternatives(value, kinds[key], key)] for key, value in settings.items()]
    return [dict(combination) for combination in itertools.product(*choices)]


def _alternatives(value: Any, kind: Any, key: str) -> list[Any]:
    members = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    origins = {typing.get_origin(member) or member for member in members}
    sequence = bool(origins & {tuple, list}) or typing.Any in origins
    found = [value]
    if isinstance(value, list | tuple) and (not sequence or any(isinstance(item, list | tuple) for item in value)):
        found = list(value)
    elif isinstance(value, str) and "," in value and not sequence and str not in origins:
        found = [part.strip() for part in value.split(",")]
    if not found or "" in found[1:]:
        raise ConfigError(f"setting {key!r} names no value: {value!r}")
    return found


def expand_seeds(
    choices: Sequence[SeedChoice], axes: Sequence[str], default: Mapping[str, int]
) -> list[dict[str, int]]:
    """Return the seed combinations, outermost axis fastest.

    Runs of one outer seed share cached steps: started side by side they would wait for one another.

    Parameters
    ----------
    choices
        The seeds asked for.
    axes
        The task's seed axes, outermost first.
    default
        Number of seeds for each axis that is not given.
    """
    values = {axis: list(range(default[axis])) for axis in axes}
    for choice in choices:
        axis = choice.axis or axes[0]
        if axis not in values:
            raise ConfigError(f"there is no seed axis {axis!r}{did_you_mean(axis, axes)}")
        values[axis] = list(choice.values)
    inner_first = itertools.product(*(values[axis] for axis in reversed(axes)))
    return [dict(zip(axes, reversed(combination), strict=True)) for combination in inner_first]
