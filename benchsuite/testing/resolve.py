"""Which methods a name or a folder given to ``benchsuite plugin check`` stands for."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchsuite.core.errors import ConfigError, UnknownName, did_you_mean
from benchsuite.core.registry import Registry

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib


def methods_of(name: str, registry: Registry) -> list[str]:
    """Return the methods of the plugin ``name``, or the method ``name`` itself.

    Raises
    ------
    UnknownName
        If there is neither, with the reason if the plugin failed to load.
    """
    for broken in registry.broken:
        if broken.name == name:
            raise UnknownName(f"plugin {name!r} failed to load: {broken.error}")
    owned = sorted(method for method in registry.methods if registry.owners[method] == name)
    if owned:
        return owned
    if name in registry.methods:
        return [name]
    known = {*registry.methods, *(registry.owners[method] for method in registry.methods)}
    raise UnknownName(f"there is no plugin or method {name!r}{did_you_mean(name, known)}")


def check_folder(folder: Path, as_json: bool) -> int:
    """Check the plugin in a folder that need not be installed; returns the exit code.

    Its entry point is registered for one process of its own.
    """
    name, module = _entry_point(folder)
    with tempfile.TemporaryDirectory(prefix="benchsuite-plugin-") as place:
        meta = Path(place, f"{name.replace('-', '_')}-0.dist-info")
        meta.mkdir()
        (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
        (meta / "entry_points.txt").write_text(f"[benchsuite]\n{name} = {module}\n")
        sources = [folder, folder / "src"]
        path = os.pathsep.join([place, *(str(s.resolve()) for s in sources), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "benchsuite.cli", "plugin", "check", name, *(["--json"] if as_json else [])]
        return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


def _entry_point(folder: Path) -> tuple[str, str]:
    file = folder / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text("utf-8"))["project"]
        ((name, module),) = project["entry-points"]["benchsuite"].items()
    except FileNotFoundError:
        raise ConfigError(f"{folder} holds no pyproject.toml: give the folder of a plugin, or its name") from None
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ConfigError(f"{file} has no single entry point in [project.entry-points.benchsuite]") from None
    return str(name), str(module)
