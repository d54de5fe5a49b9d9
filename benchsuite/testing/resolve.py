"""Which methods a name or a folder given to ``benchsuite plugin check`` stands for."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
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


def is_folder(name: str, registry: Registry) -> bool:
    """Return whether a name given to ``plugin check`` is a folder rather than a registered plugin."""
    return Path(name).is_dir() and name not in registry.owners.values()


def check_folders(names: Sequence[str], registry: Registry, as_json: bool) -> int:
    """Check plugins, those in folders that need not be installed among them; returns the exit code.

    The entry points of folders are registered for one process of its own.
    """
    with tempfile.TemporaryDirectory(prefix="benchsuite-plugin-") as place:
        wanted, path = [], [place]
        for name in names:
            if not is_folder(name, registry):
                wanted.append(name)
                continue
            plugin, module = _entry_point(Path(name))
            if plugin in wanted:
                raise ConfigError(f"two of the plugins to check are called {plugin!r}: check them one by one")
            wanted.append(plugin)
            meta = Path(place, f"{plugin.replace('-', '_')}-0.dist-info")
            meta.mkdir()
            (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {plugin}\nVersion: 0\n")
            (meta / "entry_points.txt").write_text(f"[benchsuite]\n{plugin} = {module}\n")
            path += [str(folder.resolve()) for folder in (Path(name), Path(name, "src"))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-m", "benchsuite.cli", "plugin", "check", *wanted, *(["--json"] if as_json else [])]
        return subprocess.run(command, env=environment, check=False).returncode


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
