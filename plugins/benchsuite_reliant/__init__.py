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

    def row(name: str, title: str, role: Role, cls: str, presets: dict[str, Preset], config: str = "") -> MethodSpec:
        return MethodSpec(
            name=name,
            title=title,
            role=role,
            load=f"benchsuite_reliant.method:{cls}",
            config=f"benchsuite_reliant.config:{config}" if config else "benchsuite.core.method:NoSettings",
            presets=presets,
            saves_model=bool(config),
            **_SHARED,
        )

    untrained = {"embedded": Preset(), "paper": Preset()}
    cpf_with_bias, akd_with_bias = (
        "CPF student with the bias term, no proxy",
        "GraphAKD student with the bias term, no proxy",
    )
    return [
        row("teacher", "the teacher itself", "control", "TeacherItself", untrained),
        row("cpf", "vanilla CPF student (label propagation + MLP)", "baseline", "VanillaCPF", _CPF, "CPFConfig"),
        row("cpf-bias-term", cpf_with_bias, "ablation", "BiasTermCPF", _CPF_WITH_BIAS_TERM, "BiasTermCPFConfig"),
        row("reliant", "RELIANT with a CPF student", "method", "ReliantCPF", _CPF_WITH_BIAS_TERM, "ReliantCPFConfig"),
        row("graph-akd", "vanilla GraphAKD student", "baseline", "VanillaGraphAKD", _GRAPH_AKD, "GraphAKDConfig"),
        row("graph-akd-bias-term", akd_with_bias, "ablation", "BiasTermGraphAKD", _GRAPH_AKD, "BiasTermGraphAKDConfig"),
        row(
            "reliant-graph-akd",
            "RELIANT with a GraphAKD student",
            "method",
            "ReliantGraphAKD",
            _GRAPH_AKD,
            "ReliantGraphAKDConfig",
        ),
    ]
