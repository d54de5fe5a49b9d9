"""What there is: tasks, methods and data sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchsuite.cli._shared import Debug, Json, print_columns, print_json
from benchsuite.core.errors import UserError, did_you_mean
from benchsuite.core.registry import config_class, get_registry, load_object, load_task, require

if TYPE_CHECKING:
    from benchsuite.core.method import Paper
    from benchsuite.core.task import TaskSpec


def list_everything(as_json: Json = False, debug: Debug = False) -> None:
    """List tasks, methods and data sets."""
    registry = get_registry()
    tasks = [{"name": t.name, "title": t.title} for _, t in sorted(registry.tasks.items())]
    methods = [
        {"name": m.name, "role": m.role, "tasks": list(m.tasks), "title": m.title, "presets": sorted(m.presets)}
        for _, m in sorted(registry.methods.items())
    ]
    datasets = [
        {"name": d.name, "embedded": d.embedded, "title": d.title} for _, d in sorted(registry.datasets.items())
    ]
    broken = [{"plugin": b.name, "error": b.error} for b in registry.broken]
    if as_json:
        print_json({"tasks": tasks, "methods": methods, "datasets": datasets, "broken": broken})
        return
    print_columns("tasks", [(t["name"], t["title"]) for t in tasks])
    papers: dict[str, list[tuple[str, ...]]] = {}
    for _, spec in sorted(registry.methods.items()):
        papers.setdefault(_paper_heading(spec.paper), []).append(
            (spec.name, spec.role, ", ".join(spec.tasks), spec.title)
        )
    for heading in sorted(papers, key=lambda text: (text == _NO_PAPER, text)):
        print_columns(f"methods: {heading}", papers[heading])
    print_columns(
        "data sets", [(d["name"], "embedded" if d["embedded"] else "needs files", d["title"]) for d in datasets]
    )
    for item in broken:
        print(f"plugin {item['plugin']} failed to load: {item['error']}", file=sys.stderr)


_NO_PAPER = "of no paper"


def _paper_heading(paper: Paper | None) -> str:
    return f"{paper.title} ({paper.venue} {paper.year})" if paper else _NO_PAPER


def info(name: str, as_json: Json = False, debug: Debug = False) -> None:
    """Describe a task, a method or a data set."""
    registry = get_registry()
    found: dict[str, Any]
    if name in registry.tasks:
        found = _task_info(name)
    elif name in registry.methods:
        found = _method_info(name)
    elif name in registry.datasets:
        found = _dataset_info(name)
    else:
        known = [*registry.tasks, *registry.methods, *registry.datasets]
        raise UserError(f"there is no task, method or data set {name!r}{did_you_mean(name, known)}")
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for inner, text in value.items():
                print(f"  {inner}: {text}")
        elif value not in ("", None, [], ()):
            print(f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}")


def _task_info(name: str) -> dict[str, Any]:
    from benchsuite.core.config import build_config, config_dict

    registry = get_registry()
    spec = registry.task(name)
    require(f"task {name!r}", spec.requires, spec.install)
    task = load_task(spec)
    return {
        "task": name,
        "title": spec.title,
        "version": task.version,
        "default data": task.default_data,
        "data sets": sorted(d.name for d in registry.datasets.values() if d.data_type in task.data_types()),
        **{
            f"data sets as {role}": sorted(d.name for d in registry.datasets.values() if d.data_type == data_type)
            for role, data_type in task.optional_roles.items()
        },
        "seed axes": list(task.seed_axes),
        "published seeds": {axis: spec.published.seeds[axis] for axis in task.seed_axes},
        **({"published data": list(spec.published.data)} if spec.published.data else {}),
        **({"published protocols": protocols} if (protocols := _published_protocols(spec)) else {}),
        "ranked by": task.ranking.metric,
        "reference": task.reference,
        "methods": [m.name for m in registry.methods_for(name)],
        "metrics": {m.name: f"({m.direction}, {m.kind}) {m.doc}" for m in task.metrics},
        **{
            f"protocol ({preset})": config_dict(build_config(task.Protocol, values.resolve({}), name), whole=True)
            for preset, values in task.presets.items()
        },
    }


def _published_protocols(spec: TaskSpec) -> list[str]:
    """Return the protocols at which a task is published, as changes of its preset's; nothing for the preset's alone."""
    if spec.published.protocols == ({},):
        return []
    told = []
    for change in spec.published.protocols:
        without = sorted(name for name, those in spec.published.without.items() if change in those)
        text = ", ".join(f"{key}={value}" for key, value in change.items()) or "the preset's"
        told.append(f"{text} (without {', '.join(without)})" if without else text)
    return told


def _method_info(name: str) -> dict[str, Any]:
    spec = get_registry().method(name)
    found = {
        "method": name,
        "title": spec.title,
        "version": spec.version,
        "role": spec.role,
        "tasks": list(spec.tasks),
        "paper": f"{spec.paper.title} ({spec.paper.venue} {spec.paper.year}) {spec.paper.url}" if spec.paper else "",
        "requires": list(spec.requires),
        **{
            f"preset {preset}": dict(values.settings)
            | {f"where {dict(case.where)}": dict(case.settings) for case in values.cases}
            for preset, values in spec.presets.items()
        },
    }
    try:
        require(f"method {name!r}", spec.requires, spec.install)
    except UserError as error:
        return found | {"settings": f"not known here: {error}"}
    from benchsuite.core.config import build_config, config_dict

    config = config_class(spec)
    return found | {
        "settings (embedded)": config_dict(build_config(config, spec.presets["embedded"].resolve({}), name))
    }


def _dataset_info(name: str) -> dict[str, Any]:
    spec = get_registry().dataset(name)
    return {
        "data set": name,
        "title": spec.title,
        "version": spec.version,
        "embedded": spec.embedded,
        "home page": spec.homepage,
        "licence": spec.licence,
        "citation": spec.citation,
        "layout": spec.layout,
        "parameters": dict(spec.parameters),
    }


def data_list(as_json: Json = False, debug: Debug = False) -> None:
    """List the data sets."""
    specs = sorted(get_registry().datasets.values(), key=lambda spec: spec.name)
    if as_json:
        print_json([_dataset_info(spec.name) for spec in specs])
        return
    rows = [(s.name, "embedded" if s.embedded else "needs files", s.licence, s.title) for s in specs]
    print_columns("data sets", rows)


def data_info(name: str, as_json: Json = False, debug: Debug = False) -> None:
    """Describe a data set: where it comes from, its licence, the files expected."""
    get_registry().dataset(name)
    info(name, as_json)


def data_verify(
    name: str,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Read all of a data set that a run can read, and say what was found."""
    from benchsuite.core.dataset import DataSource
    from benchsuite.harness.identity import data_hash

    spec = get_registry().dataset(name)
    require(f"data set {name!r}", spec.requires, spec.install)
    digest = data_hash(DataSource(spec, data_root))
    data = load_object(spec.load)(data_root, 0)
    if hasattr(data, "verify"):  # what loading leaves on the disk until a run asks for it
        data.verify()
    summary = data.summary() if hasattr(data, "summary") else {}
    if as_json:
        print_json({"data set": name, "hash": digest, "summary": summary})
        return
    print(f"{name}: readable, hash {digest[:16]}")
    for key, value in summary.items():
        print(f"  {key}: {value}")
