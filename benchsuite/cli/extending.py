"""Write and check plugins."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from benchsuite.cli._shared import Debug, Json, print_json
from benchsuite.core.errors import ConfigError, did_you_mean
from benchsuite.core.registry import get_registry


def plugin_new(
    name: str,
    task: Annotated[str, typer.Option(help="The task of the method.")] = "",
    kind: Annotated[
        str, typer.Option(help="method, or task: a task of its own with data sets and methods.")
    ] = "method",
    folder: Annotated[Path, typer.Option(help="Where to put the new folder.")] = Path(),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a plugin that works as it stands: a method for any task, or a task of its own."""
    from benchsuite.testing.scaffold import write_scaffold, write_task_scaffold

    if kind not in ("method", "task"):
        raise ConfigError(f"--kind {kind!r}{did_you_mean(kind, ['method', 'task'])}")
    if (kind == "method") != bool(task):
        raise ConfigError("a method needs its task: --task NAME" if kind == "method" else "--kind task takes no --task")
    registry = get_registry()
    if kind == "task":
        written = write_task_scaffold(name, folder, registry)
    else:
        written = write_scaffold(name, task, folder, registry)
    if as_json:
        print_json({"folder": str(written)})
        return
    print(f"written to {written}; next:")
    print(f"  pip install -e {written}")
    print(f"  benchsuite plugin check {name}")
    print(f"  benchsuite run --task {task or name}" + (f" --method {name}" if task else ""))


def plugin_list(as_json: Json = False, debug: Debug = False) -> None:
    """List plugins with what they register, and those that failed to load."""
    registry = get_registry()
    kinds: dict[str, dict[str, Any]] = {
        "tasks": registry.tasks,
        "data sets": registry.datasets,
        "methods": registry.methods,
    }
    plugins: dict[str, dict[str, list[str]]] = {}
    for kind, known in kinds.items():
        for name in sorted(known):
            plugins.setdefault(registry.owners[name], {}).setdefault(kind, []).append(name)
    broken = {item.name: item.error for item in registry.broken}
    if as_json:
        print_json({"plugins": plugins, "broken": broken})
        return
    for plugin, content in sorted(plugins.items()):
        print(f"{plugin}:")
        for kind, names in content.items():
            print(f"  {kind}: {', '.join(names)}")
    for plugin, error in broken.items():
        print(f"plugin {plugin} failed to load: {error}", file=sys.stderr)


def plugin_check(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Plugins, methods, or folders of plugins.")],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Check that the methods of plugins obey the contract of the suite and of their tasks."""
    from benchsuite.testing.checks import check_methods
    from benchsuite.testing.resolve import check_folders, is_folder, methods_of

    registry = get_registry()
    if any(is_folder(name, registry) for name in names):
        return check_folders(names, registry, as_json)
    findings = []
    for finding in check_methods([method for name in names for method in methods_of(name, registry)]):
        findings.append(finding)
        if not as_json:
            detail = f": {finding.detail}" if finding.detail else ""
            print(f"{finding.verdict:<16}  {finding.method} ({finding.task})  {finding.check}{detail}", flush=True)
    if as_json:
        print_json([vars(finding) for finding in findings])
    return 1 if any(finding.verdict == "failed" for finding in findings) else 0
