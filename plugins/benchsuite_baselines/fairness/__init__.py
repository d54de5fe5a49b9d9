"""Students of a graph teacher without RELIANT: plain distillation with library networks, and FairGNN."""

from __future__ import annotations

from typing import Any

from benchsuite.core import MethodSpec, Preset

_SHARED: dict[str, Any] = {
    "version": "1",
    "role": "baseline",
    "tasks": ("fair-distillation",),
    "requires": ("torch", "torch_geometric"),
    "install": "pip install 'benchsuite[graph]'",
    "card": "benchsuite_baselines:README.md",
}
_PLAIN = {"embedded": Preset({"epochs": 200, "patience": 200}), "paper": Preset()}


def _row(name: str, title: str, cls: str, config: str, presets: dict[str, Preset]) -> MethodSpec:
    return MethodSpec(
        name=name,
        title=title,
        load=f"benchsuite_baselines.fairness.method:{cls}",
        config=f"benchsuite_baselines.fairness.config:{config}",
        presets=presets,
        **_SHARED,
    )


METHODS = (
    _row("gcn-kd", "GCN student, plain distillation", "GCNStudent", "PlainDistillationConfig", _PLAIN),
    _row("sage-kd", "GraphSAGE student, plain distillation", "SAGEStudent", "PlainDistillationConfig", _PLAIN),
    _row("fairgnn", "FairGNN: no distillation, an adversary and a covariance against the group",
         "FairGNN", "FairGNNConfig", {"embedded": Preset({"epochs": 300, "lr": 0.01}), "paper": Preset()}),
)  # fmt: skip
