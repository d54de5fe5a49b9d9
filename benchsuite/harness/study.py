"""A study: what to run, as one file that gives the same runs on any machine.

::

    tasks = ["fair-distillation"]
    methods = ["reliant", "cpf"]
    seeds = 3
    workers = 2

    [settings]
    "method.lr" = [0.001, 0.01]
    "task.teacher" = ["gcn", "graphsage"]

    [[parts]]
    datasets = ["german"]
    data_roots = ["data/german"]

What a method needs of a machine can be set too (``[resources.reliant]`` with ``gpus = 0.5``, see `Resources`); it
decides where and beside what a run is made, and is in no result. Keys outside ``parts`` hold for every part; a part's
own keys take their place (its settings are added). Lists of presets, data sets and settings are a grid. Paths are those
of the folder that the command is given in.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchsuite.core.errors import ConfigError, did_you_mean
from benchsuite.core.registry import Registry
from benchsuite.harness.devices import Machine
from benchsuite.harness.executor import Options
from benchsuite.harness.plan import Plan, Request, plan
from benchsuite.harness.settings import SeedChoice, assignments_of, seeds_of
from benchsuite.harness.store import write_atomic

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_OPTIONS = {"out": str, "workers": int, "timeout": (int, float), "gpus": str, "executor": str, "resubmit": int}
_PARTS: dict[str, Any] = {
    "tasks": list,
    "methods": list,
    "datasets": list,
    "data_roots": list,
    "presets": list,
    "seeds": (int, list, dict),
    "settings": dict,
    "split": str,
    "threads": int,
    "device": str,
    "max_steps": int,
    "reference": bool,
    "published": bool,
    "resources": dict,
}
_RESOURCES = {"cpus": int, "gpus": (int, float), "memory_mb": (int, float), "exclusive": bool}


@dataclass(frozen=True)
class Study:
    """What a study file asks for."""

    path: Path
    content: bytes
    requests: tuple[Request, ...]
    options: Options
    gpus: str = ""
    executor: str = "local"
    resubmit: int = 2

    def plan(self, registry: Registry, machine: Machine | None = None) -> Plan:
        """Return the runs of all parts, each once; raises `UserError` for what the plan of a part refuses."""
        whole, known = Plan(), set()
        for request in self.requests:
            part = plan(request, registry, machine)
            fresh = [item for item in part.runs if (item.identity.fingerprint, item.device) not in known]
            known |= {(item.identity.fingerprint, item.device) for item in fresh}
            whole.runs += fresh
            whole.dropped += [drop for drop in part.dropped if drop not in whole.dropped]
        return whole

    def keep(self, out: Path) -> Path:
        """Copy the file beside the results, under a name that says its content; return the copy."""
        name = f"{self.path.stem}-{hashlib.sha256(self.content).hexdigest()[:8]}.toml"
        folder = out / "studies"
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, self.content)
        return folder / name


def read_study(path: Path) -> Study:
    """Read a study file.

    Raises
    ------
    ConfigError
        For a file that is not there, is no TOML, or holds a key or type that it should not, with its line.
    """
    try:
        content = path.read_bytes()
        text = content.decode()
        raw = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    shared = {key: value for key, value in raw.items() if key != "parts"}
    _check(path, text, shared, {**_PARTS, **_OPTIONS}, ["parts"])
    parts = raw.get("parts", [{}])
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise ConfigError(f"{path}, line {_line(text, 'parts')}: parts are tables, each headed [[parts]]")
    requests: list[Request] = []
    for part in parts:
        _check(path, text, part, _PARTS, list(_OPTIONS))
        settings = {**shared.get("settings", {}), **part.get("settings", {})}
        requests += _requests({**shared, **part, "settings": settings}, path, text)
    chosen = {key: shared[key] for key in _OPTIONS if key in shared}
    options = Options(
        out=Path(chosen.get("out", "runs")).expanduser(),
        workers=chosen.get("workers", 1),
        timeout=chosen.get("timeout"),
    )
    carrier = {key: chosen[key] for key in ("gpus", "executor", "resubmit") if key in chosen}
    return Study(path, content, tuple(requests), options, **carrier)


def _requests(values: Mapping[str, Any], path: Path, text: str) -> list[Request]:
    if not values.get("tasks") and not values.get("published"):
        raise ConfigError(f"{path}: a part names no tasks: tasks = [...] (or published = true for all of them)")
    if values.get("split", "test") not in ("test", "val"):
        raise ConfigError(f"{path}, line {_line(text, 'split')}: split {values['split']!r} is neither test nor val")
    base = Request(
        tasks=values.get("tasks", ()),
        methods=values.get("methods", ()),
        data_roots=values.get("data_roots", ()),
        settings=assignments_of(values["settings"]),
        seeds=_seeds(values.get("seeds"), path, text),
        published=values.get("published", False),
        split=values.get("split", "test"),
        threads=values.get("threads", 1),
        device=values.get("device", "auto"),
        max_steps=values.get("max_steps"),
        reference=values.get("reference", True),
        resources=_resources(values.get("resources", {}), path, text),
    )
    datasets = [[name] for name in values.get("datasets", [])] or [[]]
    presets = values.get("presets", ["embedded"])
    return [replace(base, datasets=data, preset=preset) for data, preset in itertools.product(datasets, presets)]


def _resources(value: Mapping[str, Any], path: Path, text: str) -> dict[str, dict[str, Any]]:
    """Return what methods need by this study: ``[resources.NAME]`` with the fields of `Resources`."""
    for method, needs in value.items():
        if not isinstance(needs, dict):
            where = f"{path}, line {_line(text, method)}"
            raise ConfigError(f"{where}: resources of a method are a table: [resources.{method}]")
        _check(path, text, needs, _RESOURCES, [])
    return dict(value)


def _seeds(value: Any, path: Path, text: str) -> list[SeedChoice]:
    if value is None:
        return []
    try:
        chosen = value if isinstance(value, dict) else {"": value}
        return [seeds_of(numbers, axis) for axis, numbers in chosen.items()]
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{path}, line {_line(text, 'seeds')}: {error}") from None


def _check(path: Path, text: str, values: Mapping[str, Any], known: Mapping[str, Any], elsewhere: list[str]) -> None:
    for key, value in values.items():
        where = f"{path}, line {_line(text, key)}"
        if key not in known:
            if key in elsewhere:
                raise ConfigError(f"{where}: {key!r} belongs outside of parts")
            raise ConfigError(f"{where}: there is no key {key!r}{did_you_mean(key, [*known, *elsewhere])}")
        kinds = known[key] if isinstance(known[key], tuple) else (known[key],)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ConfigError(f"{where}: {key} needs {' or '.join(_WORDS[kind] for kind in kinds)}, not {value!r}")
        if isinstance(value, list) and key != "seeds" and not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{where}: {key} needs a list of names, not {value!r}")


_WORDS = {
    list: "a list",
    int: "a whole number",
    float: "a number",
    dict: "a table",
    str: "a text",
    bool: "true or false",
}


def _line(text: str, key: str) -> int:
    """Return the line, counted from 1, on which a key is first written."""
    pattern = re.compile(rf"""^\s*(\[+\s*)?["']?{re.escape(key)}["']?\s*[=.\]]""")
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.match(line):
            return number
    return 1
