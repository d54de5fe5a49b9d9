"""torch's own ways to train data-parallel: DistributedDataParallel, its communication hooks, PostLocalSGD."""

from __future__ import annotations

from typing import Any

from benchsuite.core import MethodSpec, Preset, Resources

_SHARED: dict[str, Any] = {
    "version": "1",
    "role": "baseline",
    "requires": ("torch",),
    "install": "pip install 'benchsuite[distributed]'",
    "resources": Resources(cpus=2, exclusive=True),
    "card": "benchsuite_baselines:README.md",
}
_REAL, _SIMULATED = "distributed-training", "distributed-training-simulated"


def _row(name: str, title: str, cls: str, tasks: tuple[str, ...] = (_REAL,), **settings: Any) -> MethodSpec:
    return MethodSpec(
        name=name,
        title=title,
        tasks=tasks,
        load=f"benchsuite_baselines.distributed.method:{cls}",
        config=f"benchsuite_baselines.distributed.config:{cls}Config",
        presets={"embedded": Preset(settings)} | ({"paper": Preset(settings)} if name == "ddp" else {}),
        **_SHARED,
    )


METHODS = (
    _row("ddp", "DistributedDataParallel", "DDP", (_REAL, _SIMULATED)),
    _row("ddp-fp16", "DDP, gradients sent as float16", "DDP", (_REAL, _SIMULATED), precision="fp16"),
    _row("ddp-bf16", "DDP, gradients sent as bfloat16", "DDP", (_REAL, _SIMULATED), precision="bf16"),
    _row("powersgd", "DDP, gradients approximated by matrices of rank 1", "PowerSGD"),
    _row("post-local-sgd", "DDP first, then averages of the weights every 4 steps", "PostLocalSGD"),
)
