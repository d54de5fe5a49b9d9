"""Settings: frozen dataclasses that presets and ``--set`` fill in.

A preset is data. What it says for special cases (another learning rate on another data set) is data
too, so that the settings of a run are known before anything heavy is imported.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from benchsuite.core.errors import ConfigError, did_you_mean

Config = TypeVar("Config")


@dataclass(frozen=True)
class Case:
    """Settings that hold only where every fact in ``where`` matches (``{"dataset": "german"}``)."""

    where: Mapping[str, Any]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Preset:
    """A named configuration: settings, then the special cases that apply, in order."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    cases: tuple[Case, ...] = ()

    def resolve(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings for a run with these ``facts`` (names of task and data set, protocol fields)."""
        settings = dict(self.settings)
        for case in self.cases:
            if all(facts.get(key) == value for key, value in case.where.items()):
                settings.update(case.settings)
        return settings


def field_types(cls: type) -> dict[str, Any]:
    """Return the annotated type of every field of a configuration class."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def build_config(cls: type[Config], settings: Mapping[str, Any], owner: str) -> Config:
    """Build a configuration, coercing every value to the type of its field.

    Parameters
    ----------
    cls
        A frozen dataclass.
    settings
        Field name to value; strings (from the command line) are parsed.
    owner
        Whose settings these are, for messages: ``"method 'reliant'"``.

    Raises
    ------
    ConfigError
        For an unknown field, a value of the wrong type, or one the class itself refuses.
    """
    fields = field_types(cls)
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in fields:
            raise ConfigError(f"{owner} has no setting {name!r}{did_you_mean(name, fields)}")
        values[name] = _coerce(value, fields[name], f"{owner}: {name}")
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{owner}: {error}") from error


def config_dict(config: Any, whole: bool = False) -> dict[str, Any]:
    """Return a configuration as plain JSON data (tuples become lists).

    A class may have a property ``dormant``: the names of fields that change nothing while the others are as they are.
    They are left out unless ``whole``, so that a field added later does not part new results from old ones.
    """
    values = typing.cast("dict[str, Any]", json.loads(json.dumps(dataclasses.asdict(config))))
    dormant = () if whole else getattr(config, "dormant", ())
    return {name: value for name, value in values.items() if name not in dormant}


def _coerce(value: Any, expected: Any, where: str) -> Any:
    origin = typing.get_origin(expected)
    if origin in (typing.Union, types.UnionType):
        return _coerce_union(value, expected, where)
    if origin is Literal:
        return _coerce_choice(value, typing.get_args(expected), where)
    if origin in (tuple, list):
        return _coerce_sequence(value, expected, where)
    if expected is Any:
        return value
    return _coerce_scalar(value, expected, where)


def _coerce_union(value: Any, expected: Any, where: str) -> Any:
    members = typing.get_args(expected)
    if type(None) in members and (value is None or value in ("none", "None", "null")):
        return None
    problem: ConfigError | None = None
    for member in members:
        if member is type(None):
            continue
        try:
            return _coerce(value, member, where)
        except ConfigError as error:
            problem = problem or error
    raise problem or ConfigError(f"{where} cannot be {value!r}")


def _coerce_choice(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    for choice in choices:
        if value == choice or (isinstance(value, str) and value == str(choice)):
            return choice
    raise ConfigError(f"{where} cannot be {value!r}{did_you_mean(str(value), map(str, choices))}")


def _coerce_sequence(value: Any, expected: Any, where: str) -> tuple[Any, ...] | list[Any]:
    if isinstance(value, str):
        value = [part.strip() for part in value.strip("()[]").split(",") if part.strip()]
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} needs a comma-separated list, not {value!r}")
    members = typing.get_args(expected)
    variadic = typing.get_origin(expected) is list or members[-1:] == (Ellipsis,)
    if not variadic and len(members) != len(value):
        raise ConfigError(f"{where} needs {len(members)} values, not {len(value)}")
    kinds = [members[0]] * len(value) if variadic else list(members)
    parsed = [_coerce(item, kind, where) for item, kind in zip(value, kinds, strict=True)]
    return parsed if typing.get_origin(expected) is list else tuple(parsed)


_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}


def _coerce_scalar(value: Any, expected: type, where: str) -> Any:
    if expected is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
            return value.lower() in _TRUE
        raise ConfigError(f"{where} needs true or false, not {value!r}")
    if expected is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str):
            try:
                return int(value)
            except ValueError:
                pass
        raise ConfigError(f"{where} needs a whole number, not {value!r}")
    if expected is float:
        return _coerce_float(value, where)
    if isinstance(value, expected):
        return value
    raise ConfigError(f"{where} needs {expected.__name__}, not {value!r}")


def _coerce_float(value: Any, where: str) -> float:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = float("nan")
        if number - number == 0.0:  # finite: neither NaN nor an infinity
            return number
    raise ConfigError(f"{where} needs a finite number, not {value!r}")
