"""``benchsuite plugin new``: a folder that installs, passes the checks and runs, for any registered task."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template

from benchsuite.core.errors import ConfigError, UserError
from benchsuite.core.registry import Registry, load_task, require
from benchsuite.core.task import TaskSpec

_PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "$name"
version = "0.1.0"
requires-python = ">=3.10"
dependencies = ["benchsuite"]

[project.entry-points.benchsuite]
$name = "$package"

[tool.hatch.build.targets.wheel]
packages = ["$package"]
"""

_INIT = '''\
"""The method $name, for the task $task. Strings only: listing imports no heavy library."""

from benchsuite.core import MethodSpec, Preset, hookimpl


@hookimpl
def benchsuite_methods():
    """Return the rows of this plugin."""
    return [
        MethodSpec(
            name="$name",
            version="1",
            tasks=("$task",),
            load="$package.method:$class",
            title="a new method",
            presets={"embedded": Preset()},
            requires=$requires,
        )
    ]
'''

_TEST = '''\
"""The suite's conformance checks on this method."""

import pytest


@pytest.mark.benchsuite_method("$name")
def test_conformance(conformance_check):
    conformance_check()
'''

_README = """\
# $name

A method for the task `$task`. Edit `$package/method.py`, then:

    pip install -e .
    benchsuite plugin check $name
    benchsuite run --task $task --method $name
    benchsuite leaderboard --results runs --out tables
"""

_SUBCLASS = '''\
"""A method that works as it stands: the task's reference, to be changed where yours differs."""

from $module import $base


class $class($base):
    """Override what your method does differently. The contract is `$contract`."""
'''


def write_scaffold(name: str, task: str, parent: Path, registry: Registry) -> Path:
    """Write the plugin's folder and return it.

    Raises
    ------
    UserError
        For an unusable or taken name, an unknown task, or a folder that is already there.
    """
    spec = registry.task(task)
    require(f"task {task!r}", spec.requires, spec.install)
    if name in registry.methods:
        raise ConfigError(f"a method {name!r} is already registered: choose another name")
    values = {**_named(name), "task": task, "requires": repr(spec.requires)}
    files = {
        "pyproject.toml": _PYPROJECT,
        "README.md": _README,
        f"{values['package']}/__init__.py": _INIT,
        "tests/test_conformance.py": _TEST,
    }
    written = {path: Template(text).substitute(values) for path, text in files.items()}
    written[f"{values['package']}/method.py"] = _method_source(spec, values, registry)
    return _write(parent / name, written)


_TASK_FILES = {
    "pyproject.toml": "pyproject.txt",
    "tests/test_conformance.py": "test.txt",
    "{package}/__init__.py": "package.txt",
    "{package}/contract.py": "contract.txt",
    "{package}/data.py": "data.txt",
    "{package}/task.py": "task.txt",
    "{package}/methods.py": "methods.txt",
    "{package}/claims.toml": "claims.txt",
    "{package}/reported.csv": "reported.txt",
    "{package}/README.md": "card.txt",
}


def write_task_scaffold(name: str, parent: Path, registry: Registry) -> Path:
    """Write a package with a task of its own, its data sets and two methods, and return its folder.

    Raises
    ------
    UserError
        For an unusable or taken name, or a folder that is already there.
    """
    for kind, known in (("task", registry.tasks), ("method", registry.methods), ("data set", registry.datasets)):
        if name in known:
            raise ConfigError(f"a {kind} {name!r} is already registered: choose another name")
    values = _named(name)
    values["title"] = name.replace("-", " ").capitalize()
    templates = resources.files("benchsuite.testing.task_package")
    return _write(
        parent / name,
        {
            path.format(**values): Template(templates.joinpath(file).read_text()).substitute(values)
            for path, file in _TASK_FILES.items()
        },
    )


def _named(name: str) -> dict[str, str]:
    """Return the names that templates need; raises `ConfigError` for one that cannot be a package's."""
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or keyword.iskeyword(name):
        raise ConfigError(f"{name!r} is not a good name: use lower-case letters, digits and '-', a letter first")
    package = name.replace("-", "_")
    found = importlib.util.find_spec(package)
    if package in sys.stdlib_module_names or (found is not None and found.origin is not None):
        raise ConfigError(
            f"a module {package!r} can be imported already, and would hide the plugin: choose another name"
        )
    return {"name": name, "package": package, "class": "".join(part.capitalize() for part in name.split("-"))}


def _write(folder: Path, files: Mapping[str, str]) -> Path:
    if folder.exists():
        raise ConfigError(f"{folder} is already there: choose another name or folder")
    try:
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror}): choose another folder with --folder") from None
    return folder


def _method_source(spec: TaskSpec, values: dict[str, str], registry: Registry) -> str:
    if spec.scaffold:
        package, _, file = spec.scaffold.partition(":")
        text = resources.files(package).joinpath(file).read_text()
        return Template(text).substitute(values)
    task = load_task(spec)
    if task.reference not in registry.methods:
        raise UserError(f"task {spec.name!r} has no scaffold: install its reference {task.reference!r} first")
    module, _, base = registry.methods[task.reference].load.partition(":")
    contract = f"{task.method_type.__module__}.{task.method_type.__name__}"
    return Template(_SUBCLASS).substitute(values, module=module, base=base, contract=contract)
