"""Skeletons of five very different tasks: does the vocabulary hold them all?

Graph distillation, few-shot instance segmentation, signals, an attack judged on victims that the harness
trains, and data-parallel training whose method spawns ranks. Registered like anybody's plugin.
"""

from __future__ import annotations

from benchsuite.core import DatasetSpec, MethodSpec, Preset, Publication, Resources, TaskSpec, hookimpl

_SHAPES = {
    "toy-graph": ("graph", "GraphTask"),
    "toy-fewshot": ("fewshot", "FewShotTask"),
    "toy-signal": ("signal", "SignalTask"),
    "toy-attack": ("attack", "AttackTask"),
    "toy-checked": ("checked", "CheckedTask"),
}
_SEEDS = {"fewshot": {"base": 2, "shots": 3}, "attack": {"run": 2, "victim": 2}}


@hookimpl
def benchsuite_tasks() -> list[TaskSpec]:
    tasks = [
        TaskSpec(
            name,
            f"skeleton: {name}",
            f"skeletons.{m}:{c}",
            uses=("toy-clean",) if m == "attack" else (),
            published=Publication(_SEEDS.get(m, {"run": 3})),
        )
        for name, (m, c) in _SHAPES.items()
    ]
    parallel = TaskSpec(
        "toy-parallel",
        "skeleton: data-parallel training",
        "skeletons.parallel:ParallelTask",
        requires=("torch",),
        published=Publication(
            protocols=({}, {"world_size": 3}, {"world_size": 5}), without={"toy-allreduce": ({"world_size": 5},)}
        ),
    )
    return [*tasks, parallel]


@hookimpl
def benchsuite_datasets() -> list[DatasetSpec]:
    def embedded(name: str, reader: str, kind: str) -> DatasetSpec:
        return DatasetSpec(name, "1", f"skeletons.{kind}", f"skeletons.{reader}", embedded=True)

    return [
        embedded("toy-ring", "graph:load_ring", "graph:Ring"),
        embedded("toy-images", "fewshot:load_images", "fewshot:Images"),
        embedded("toy-generated-beats", "signal:load_generated", "signal:Beats"),
        embedded("toy-points", "attack:load_points", "attack:Points"),
        DatasetSpec(
            "toy-recorded-beats",
            "1",
            "skeletons.signal:Beats",
            "skeletons.signal:load_recorded",
            homepage="https://example.org/beats",
            files=("beats/*.txt",),
            layout="beats/RECORD.txt, one beat time in seconds a line",
        ),
    ]


@hookimpl
def benchsuite_methods() -> list[MethodSpec]:
    def row(name: str, task: str, load: str, role: str = "method", **more: object) -> MethodSpec:
        return MethodSpec(name, "1", (task,), f"skeletons.{load}", role, **more)

    return [
        row("toy-student", "toy-graph", "graph:Student"),
        row("toy-copy", "toy-graph", "graph:Copy", "baseline"),
        row(
            "toy-tuner", "toy-fewshot", "fewshot:Tuner", presets={"embedded": Preset(), "paper": Preset({"steps": 500})}
        ),
        row("toy-frozen", "toy-fewshot", "fewshot:Frozen", "baseline"),
        row("toy-detector", "toy-signal", "signal:Detector"),
        row("toy-clock", "toy-signal", "signal:Clock", "baseline"),
        row("toy-clean", "toy-attack", "attack:Clean", "baseline"),
        row("toy-plain", "toy-checked", "checked:Plain", "baseline"),
        row("toy-stamp", "toy-attack", "attack:Stamp"),
        row(
            "toy-allreduce",
            "toy-parallel",
            "parallel:AllReduce",
            "baseline",
            requires=("torch",),
            resources=Resources(cpus=2, exclusive=True),
        ),
    ]
