"""RELIANT (SDM 2023): fair knowledge distillation for graph neural networks."""

from __future__ import annotations

from typing import Any

from benchsuite.core import Case, MethodSpec, Paper, Preset, Role, hookimpl

_PAPER = Paper(
    title="RELIANT: Fair Knowledge Distillation for Graph Neural Networks",
    authors="Yushun Dong, Binchi Zhang, Yiling Yuan, Na Zou, Qi Wang, Jundong Li",
    venue="SIAM SDM",
    year=2023,
    url="https://arxiv.org/abs/2301.01150",
)
_SHARED: dict[str, Any] = {
    "version": "1",
    "tasks": ("fair-distillation",),
    "paper": _PAPER,
    "requires": ("torch", "torch_geometric"),
    "install": "pip install 'benchsuite[graph]'",
    "claims": "benchsuite_reliant:claims.toml",
    "reported": "benchsuite_reliant:reported.csv",
    "card": "benchsuite_reliant:README.md",
}
# Number of propagation steps K and learning rate where the published CPF configuration differs from K = 10, 0.01.
_PUBLISHED_CASES = (
    Case({"dataset": "german", "teacher": "gcn"}, {"num_layers": 8}),
    Case({"dataset": "german", "teacher": "graphsage"}, {"lr": 0.001}),
)
_CPF = {
    "embedded": Preset({"epochs": 100, "patience": 100}),
    "paper": Preset({}, _PUBLISHED_CASES),
}
_CPF_WITH_BIAS_TERM = {
    "embedded": Preset({"epochs": 100, "patience": 100, "bias_weight": 300.0}),
    "paper": Preset({}, _PUBLISHED_CASES),
}
_GRAPH_AKD = {"embedded": Preset({"epochs": 200, "lr": 0.001}), "paper": Preset()}


@hookimpl
def benchsuite_methods() -> list[MethodSpec]:
    """Return the rows of this paper."""

    def row(name: str, title: str, role: Role, cls: str, presets: dict[str, Preset]) -> MethodSpec:
        load = f"benchsuite_reliant.method:{cls}"
        return MethodSpec(name=name, title=title, role=role, load=load, presets=presets, **_SHARED)

    untrained = {"embedded": Preset(), "paper": Preset()}
    return [
        row("teacher", "the teacher itself", "control", "TeacherItself", untrained),
        row("cpf", "vanilla CPF student (label propagation + MLP)", "baseline", "VanillaCPF", _CPF),
        row(
            "cpf-bias-term", "CPF student with the bias term, no proxy", "ablation", "BiasTermCPF", _CPF_WITH_BIAS_TERM
        ),
        row("reliant", "RELIANT with a CPF student", "method", "ReliantCPF", _CPF_WITH_BIAS_TERM),
        row("graph-akd", "vanilla GraphAKD student", "baseline", "VanillaGraphAKD", _GRAPH_AKD),
        row(
            "graph-akd-bias-term",
            "GraphAKD student with the bias term, no proxy",
            "ablation",
            "BiasTermGraphAKD",
            _GRAPH_AKD,
        ),
        row("reliant-graph-akd", "RELIANT with a GraphAKD student", "method", "ReliantGraphAKD", _GRAPH_AKD),
    ]
