"""From what a user asks for to the list of runs: tasks x data x methods x seeds."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchsuite.core.config import build_config, config_dict
from benchsuite.core.dataset import DataSource
from benchsuite.core.errors import ConfigError, Incompatible, UserError, did_you_mean
from benchsuite.core.method import MethodSpec, Resources
from benchsuite.core.registry import Registry, StrangersError, config_class, load_task, require, strangers_code
from benchsuite.core.result import ConstraintInfo, DataRef, Definition, Identity, MetricInfo, Result, RunSpec
from benchsuite.core.task import Task, TaskSpec
from benchsuite.harness.devices import Machine, Needs, needs_of, resolve_device, this_machine
from benchsuite.harness.identity import SourceDigests, data_hash, file_sha256, methods_in_use
from benchsuite.harness.settings import Assignment, SeedChoice, expand_seeds, grid, route

_LABEL = re.compile(r"[\w.-]{1,40}")


@dataclass(frozen=True)
class Request:
    """What the user asked for. Names are checked by `plan`.

    ``datasets`` entries are ``NAME``, ``NAME=LABEL`` (what tables call these data) or ``train=NAME,test=NAME`` (or
    another role that the task knows); ``data_roots`` entries are ``DIR`` (for every real data set asked for) or
    ``NAME=DIR``. No ``tasks`` means all; no ``methods`` means every method of the task. ``published`` asks for what
    a published row needs: its seeds, and its protocols. ``resources`` are fields of `Resources` by method, instead of
    those of its spec.
    """

    tasks: Sequence[str] = ()
    datasets: Sequence[str] = ()
    data_roots: Sequence[str] = ()
    methods: Sequence[str] = ()
    preset: str = "embedded"
    settings: Sequence[Assignment] = ()
    seeds: Sequence[SeedChoice] = ()
    published: bool = False
    split: Literal["test", "val"] = "test"
    threads: int = 1
    device: str = "auto"
    weights: Path | None = None
    keep_model: bool = False
    max_steps: int | None = None
    reference: bool = True
    resources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedRun:
    """One run, and what the harness needs to make it."""

    identity: Identity
    shared_digest: str
    data_roots: Mapping[str, str]
    readers: Mapping[str, str]
    requires: tuple[str, ...]
    uses: tuple[str, ...]
    resources: Resources
    device: str = "cpu"
    weights: Path | None = None
    wanted_artifacts: tuple[str, ...] = ()

    @property
    def run(self) -> RunSpec:
        """What is measured."""
        return self.identity.run

    @property
    def label(self) -> str:
        """How tables name its row."""
        return self.identity.label

    @property
    def needs(self) -> Needs:
        """What it takes of the machine that it runs on."""
        return needs_of(self.resources, self.device)


@dataclass(frozen=True)
class Dropped:
    """A combination that will not run, and why. ``fault``: something is broken rather than unsuitable."""

    task: str
    method: str
    reason: str
    fault: bool = False


@dataclass
class Plan:
    """The runs to make and the combinations left out."""

    runs: list[PlannedRun] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)


def plan(request: Request, registry: Registry, machine: Machine | None = None) -> Plan:
    """Expand a request for a machine, this one if none is given: its GPUs and memory decide what can run.

    Raises
    ------
    UserError
        For anything asked for by name that does not exist or does not fit. What was not asked for by
        name (``--all``, a missing optional library of another method) is dropped with its reason.
    """
    if request.threads < 1:
        raise ConfigError(f"--threads {request.threads}: give 1 or more")
    if request.max_steps is not None and request.max_steps < 1:
        raise ConfigError(f"--max-steps {request.max_steps}: give 1 or more")
    _check_names(request, registry)
    machine = machine or this_machine()
    result = Plan()
    digests = SourceDigests(registry)
    for name in request.tasks or sorted(registry.tasks):
        try:
            spec = registry.task(name)
            for of_data in _data_to_publish(request, spec):
                _plan_task(of_data, registry, spec, digests, machine, result)
        except UserError as error:
            if request.tasks:
                raise
            result.dropped.append(Dropped(name, "*", str(error)))
    return result


def _data_to_publish(request: Request, spec: TaskSpec) -> list[Request]:
    """Return the request once for each data set on which a task is published, if that is what it asks for."""
    if not request.published or request.datasets or not spec.published.data:
        return [request]
    return [replace(request, datasets=(name,)) for name in spec.published.data]


def _check_names(request: Request, registry: Registry) -> None:
    for name in request.tasks:
        registry.task(name)
    for name in request.resources:
        registry.method(name)
    for name in request.methods:
        spec = registry.method(name)
        for task in request.tasks:
            if task not in spec.tasks:
                fitting = ", ".join(m.name for m in registry.methods_for(task)) or "none"
                raise Incompatible(
                    f"method {name!r} is for {', '.join(spec.tasks)}, not for task {task!r} (methods for it: {fitting})"
                )


def _plan_task(
    request: Request, registry: Registry, spec: TaskSpec, digests: SourceDigests, machine: Machine, result: Plan
) -> None:
    require(f"task {spec.name!r}", spec.requires, spec.install)
    task = load_task(spec)
    sources = data_sources(request, registry, task)
    methods = _methods(request, registry, spec.name, task.reference, result)
    configs: dict[str, Any] = {}
    for method in list(methods):
        try:
            with strangers_code():
                configs[method.name] = config_class(method)
        except StrangersError as error:
            result.dropped.append(Dropped(spec.name, method.name, f"cannot be imported: {error}", fault=True))
            methods.remove(method)
    settable = {name: configs[name] for name in (request.methods or configs) if name in configs}
    task_settings, method_settings = route(request.settings, task.Protocol, settable)

    dataset = sources["test"].spec.name
    changes = spec.published.protocols if request.published else ({},)
    protocols = [
        protocol_of(task, request.preset, dataset, {**change, **chosen})
        for change in changes
        for chosen in grid(task_settings, task.Protocol)
    ]
    data = {role: DataRef(name=s.spec.name, version=s.spec.version, hash=data_hash(s)) for role, s in sources.items()}
    default = spec.published.seeds if request.published else dict.fromkeys(task.seed_axes, 1)
    seeds = expand_seeds(request.seeds, task.seed_axes, default)
    needed = {m.name: replace(m.resources, **request.resources.get(m.name, {})) for m in methods}
    devices = {
        m.name: resolve_device(request.device, {*spec.requires, *m.requires}, needed[m.name], machine) for m in methods
    }
    data_names = [source.spec.name for source in sources.values()]
    weights = file_sha256(request.weights) if request.weights else None
    labels = data_labels(request.datasets, registry)

    for method in list(methods):
        if misfit := _misfit(needed[method.name], devices[method.name], machine):
            reason = f"method {method.name!r} {misfit}"
            if method.name in request.methods:
                raise Incompatible(reason)
            result.dropped.append(Dropped(spec.name, method.name, reason))
            methods.remove(method)

    distinct = [protocol for index, protocol in enumerate(protocols) if protocol not in protocols[:index]]
    planned_at = {
        name: [
            protocol_of(task, request.preset, dataset, {**change, **chosen})
            for change in spec.published.changes(name)
            for chosen in grid(task_settings, task.Protocol)
        ]
        for name in (spec.published.without if request.published and not request.methods else ())
    }
    for (protocol, protocol_changes), method in itertools.product(distinct, methods):
        if (protocol, protocol_changes) not in planned_at.get(method.name, distinct):
            continue
        facts = {"task": spec.name, "dataset": dataset, **protocol}
        base = _preset_of(method, request.preset).resolve(facts)
        owner = f"method {method.name!r}"
        cls = configs[method.name]
        default_config = config_dict(build_config(cls, base, owner))
        named = method.name in request.methods or not request.methods
        try:
            code = digests.of(spec, method, data_names, protocol)
            used = methods_in_use(registry, spec, method, protocol)
        except UserError as error:
            if method.name in request.methods:
                raise
            result.dropped.append(Dropped(spec.name, method.name, str(error), fault=True))
            continue
        row: dict[str, Any] = {
            "source_digest": code.source,
            "role": method.role,
            "deterministic": method.deterministic,
            "protocol_changes": protocol_changes,
            "data_labels": {name: label for name, label in labels.items() if name in data_names},
            "definition": definition_of(spec, task),
        }
        needs: dict[str, Any] = {
            "shared_digest": code.shared,
            "data_roots": {s.spec.name: str(s.root.resolve()) for s in sources.values() if s.root},
            "readers": {s.spec.name: digests.of_reader(s.spec.name) for s in sources.values() if s.root},
            "requires": tuple(dict.fromkeys((*spec.requires, *method.requires))),
            "uses": tuple(used_method.name for used_method in used),
            "resources": needed[method.name],
            "device": devices[method.name],
            "weights": request.weights if named else None,
            "wanted_artifacts": ("model",) if request.keep_model and method.saves_model else (),
        }
        variants = grid(method_settings.get(method.name, {}), cls)
        configs_of_rows = [config_dict(build_config(cls, {**base, **chosen}, owner)) for chosen in variants]
        for config, combination in itertools.product(configs_of_rows, seeds):
            run = RunSpec(
                task=spec.name,
                task_version=task.version,
                protocol=protocol,
                data=data,
                method=method.name,
                method_version=method.version,
                preset=request.preset,
                config=config,
                seeds=combination,
                threads=request.threads,
                device="cpu" if devices[method.name] == "cpu" else "cuda",
                split=request.split,
                weights=weights if named else None,
                max_steps=request.max_steps,
            )
            label = row_label(method.name, config, default_config)
            identity = Identity(run=run, fingerprint=run.fingerprint, label=label, **row)
            result.runs.append(PlannedRun(identity, **needs))


def protocol_of(
    task: type[Task[Any, Any, Any]], preset: str, dataset: str, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a task's protocol on a data set with some fields set, and where it differs from its preset's."""
    values = (task.presets.get(preset) or task.presets["embedded"]).resolve({"dataset": dataset, **settings})
    plain, protocol = (
        config_dict(build_config(task.Protocol, chosen, f"task {task.name!r}"))
        for chosen in (values, {**values, **settings})
    )
    return protocol, {key: value for key, value in protocol.items() if value != plain.get(key)}


def _methods(request: Request, registry: Registry, task: str, reference: str, result: Plan) -> list[MethodSpec]:
    """Return the methods to run: those asked for, or all that can, and the reference opponent."""
    if request.methods:
        names = dict.fromkeys(request.methods)
        if request.reference and reference in registry.methods:
            names.setdefault(reference)
        chosen = [registry.method(name) for name in names]
    else:
        chosen = registry.methods_for(task)
        if not chosen:
            raise Incompatible(f"no method is registered for task {task!r}: add one with 'benchsuite plugin new'")
    usable = []
    for method in chosen:
        try:
            require(f"method {method.name!r}", method.requires, method.install)
            _preset_of(method, request.preset)
            if method.name in request.methods and not method.saves_model and (request.weights or request.keep_model):
                raise ConfigError(
                    f"method {method.name!r} has no model to save or load: leave --weights and --artifacts out"
                )
        except UserError as error:
            if method.name in request.methods:
                raise
            alone = "; the other rows have no opponent" if method.name == reference else ""
            result.dropped.append(Dropped(task, method.name, f"{error}{alone}"))
        else:
            usable.append(method)
    if not usable:
        raise ConfigError(f"no method of task {task!r} can run: {result.dropped[-1].reason}")
    return usable


def _preset_of(method: MethodSpec, name: str) -> Any:
    if name not in method.presets:
        raise ConfigError(f"method {method.name!r} has no preset {name!r}{did_you_mean(name, method.presets)}")
    return method.presets[name]


def data_labels(datasets: Sequence[str], registry: Registry) -> dict[str, str]:
    """Return what the user calls data sets (``NAME=LABEL``), for the headings of tables.

    Raises
    ------
    ConfigError
        If a label is not a short word.
    """
    labels = {}
    for part in (part for text in datasets for part in text.split(",")):
        name, equals, label = part.partition("=")
        if equals and name in registry.datasets:
            if not _LABEL.fullmatch(label):
                raise ConfigError(f"--dataset {part}: a label is up to 40 letters, digits and any of . _ -")
            labels[name] = label
    return labels


def data_sources(request: Request, registry: Registry, task: type[Task[Any, Any, Any]]) -> dict[str, DataSource]:
    """Return the data set and folder of each role."""
    roles = task.data_roles(task.default_data)
    optional: dict[str, str] = {}
    for text in request.datasets:
        first = text.partition("=")[0]
        if "," not in text and first not in roles and first not in task.optional_roles and first in registry.datasets:
            roles = task.data_roles(first)  # NAME, or NAME=LABEL
        elif "=" in text:
            for part in text.split(","):
                role, _, name = part.partition("=")
                if role not in {*roles, *task.optional_roles} and role in registry.datasets:
                    continue  # NAME=LABEL
                if role not in roles and role not in task.optional_roles:
                    known = [*roles, *task.optional_roles]
                    raise ConfigError(f"--dataset {text}: there is no role {role!r}{did_you_mean(role, known)}")
                (roles if role in roles else optional)[role] = registry.dataset(name).name
        else:
            roles = task.data_roles(registry.dataset(text).name)
    if not task.roles_may_differ and len(set(roles.values())) > 1:
        named = ", ".join(f"{role}={name}" for role, name in roles.items())
        raise Incompatible(f"task {task.name!r} trains and tests on one data set, not on {named}: give --dataset NAME")
    roots = _data_roots(request.data_roots, registry)
    sources = {}
    for role, name in (roles | optional).items():
        spec = registry.dataset(name)
        expected = task.data_types(role)
        if spec.data_type not in expected:
            fitting = sorted(d.name for d in registry.datasets.values() if d.data_type in expected)
            place = f"task {task.name!r}" if role in roles else f"role {role!r} of task {task.name!r}"
            raise Incompatible(f"data set {name!r} does not fit {place} (data sets for it: {', '.join(fitting)})")
        require(f"data set {name!r}", spec.requires, spec.install)
        sources[role] = DataSource(spec, None if spec.embedded else roots.get(name, roots.get("")))
    unused = set(roots) - {""} - set((roles | optional).values())
    if unused:
        raise ConfigError(f"--data-root names {', '.join(sorted(unused))}, which this run does not use")
    if "" in roots and all(source.spec.embedded for source in sources.values()):
        real = sorted(d.name for d in registry.datasets.values() if d.data_type in task.data_types() and not d.embedded)
        names = ", ".join(real) or "none registered"
        raise ConfigError(f"--data-root is for real data: name the data set with --dataset (real ones: {names})")
    return sources


def _data_roots(texts: Sequence[str], registry: Registry) -> dict[str, Path]:
    roots: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if equals and not Path(text).exists():
            roots[registry.dataset(name).name] = Path(folder).expanduser()
        else:
            roots[""] = Path(text).expanduser()
    return roots


def _misfit(resources: Resources, device: str, machine: Machine) -> str:
    """Return why a machine will never have what a run needs, or nothing."""
    if resources.gpus and device == "cpu":
        return f"needs {resources.gpus:g} GPUs, and the device is the CPU"
    return machine.misfit(needs_of(resources, device))


def row_label(name: str, config: Mapping[str, Any], default: Mapping[str, Any]) -> str:
    """Return a readable name for a row: what differs from the preset stands in brackets."""
    changed = [f"{key}={_plain(value)}" for key, value in config.items() if value != default.get(key)]
    return f"{name}[{', '.join(changed)}]" if changed else name


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def definition_of(spec: TaskSpec, task: type[Task[Any, Any, Any]]) -> Definition:
    """Return the part of a task that tables need, as data."""
    constraint = task.ranking.constraint
    return Definition(
        title=spec.title,
        seed_axes=list(task.seed_axes),
        metrics=[
            MetricInfo(name=m.name, direction=m.direction, unit=m.unit, kind=m.kind, doc=m.doc, target=m.target)
            for m in task.metrics
        ],
        rank_by=task.ranking.metric,
        rank_otherwise=task.ranking.otherwise,
        constraint=ConstraintInfo(**asdict(constraint)) if constraint else None,
        reference=task.reference,
    )


def replan(before: Result, data_roots: Sequence[str], registry: Registry, machine: Machine | None = None) -> Plan:
    """Return the plan that measures a stored run again, with the present code.

    Raises
    ------
    UserError
        If what it needs is gone, or its task, method or data now differ from what it names.
    """
    run, machine = before.run, machine or this_machine()
    task_spec, method = registry.task(run.task), registry.method(run.method)
    require(f"task {run.task!r}", task_spec.requires, task_spec.install)
    require(f"method {run.method!r}", method.requires, method.install)
    task = load_task(task_spec)
    roots = _data_roots(data_roots, registry)
    sources = {}
    for role, ref in run.data.items():
        spec = registry.dataset(ref.name)
        sources[role] = DataSource(spec, None if spec.embedded else roots.get(ref.name, roots.get("")))
        if data_hash(sources[role]) != ref.hash:
            raise Incompatible(f"data set {ref.name!r} is not the one that {run.fingerprint[:16]} was measured on")
    if (task.version, method.version) != (run.task_version, run.method_version):
        raise Incompatible(
            f"{run.fingerprint[:16]} was made with task version {run.task_version} and method version"
            f" {run.method_version}; here they are {task.version} and {method.version}: use 'benchsuite run'"
        )
    if run.weights:
        raise Incompatible(f"{run.fingerprint[:16]} used a --weights file: use 'benchsuite run' with that file")
    requires = tuple(dict.fromkeys((*task_spec.requires, *method.requires)))
    digests = SourceDigests(registry)
    code = digests.of(task_spec, method, [ref.name for ref in run.data.values()], run.protocol)
    identity = Identity(
        run=run,
        fingerprint=run.fingerprint,
        source_digest=code.source,
        label=before.label,
        role=method.role,
        deterministic=method.deterministic,
        protocol_changes=before.protocol_changes,
        data_labels=before.data_labels,
        definition=definition_of(task_spec, task),
    )
    planned = PlannedRun(
        identity,
        shared_digest=code.shared,
        data_roots={s.spec.name: str(s.root.resolve()) for s in sources.values() if s.root},
        readers={s.spec.name: digests.of_reader(s.spec.name) for s in sources.values() if s.root},
        requires=requires,
        uses=tuple(used.name for used in methods_in_use(registry, task_spec, method, run.protocol)),
        resources=method.resources,
        device=resolve_device(run.device, set(requires), method.resources, machine),
    )
    if misfit := _misfit(method.resources, planned.device, machine):
        raise Incompatible(f"method {method.name!r} {misfit}")
    return Plan([planned])
