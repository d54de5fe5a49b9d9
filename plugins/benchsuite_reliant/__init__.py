"""RELIANT (SDM 2023): fair knowledge distillation for graph neural networks."""

from __future__ import annotations

from benchsuite.core import Case, MethodSpec, Paper, Preset, hookimpl

_PAPER = Paper(
    title="RELIANT: Fair Knowledge Distillation for Graph Neural Networks",
    authors="Yushun Dong, Binchi Zhang, Yiling Yuan, Na Zou, Qi Wang, Jundong Li",
    venue="SIAM SDM",
    year=2023,
    url="https://arxiv.org/abs/2301.01150",
)
_SHARED = {
    "version": "1",
    "tasks": ("fair-distillation",),
    "paper": _PAPER,
    "requires": ("torch", "torch_geometric"),
    "install": "pip install 'benchsuite[graph]'",
    "claims": "benchsuite_reliant:claims.toml",
    "reported": "benchsuite_reliant:reported.csv",
    "card": "benchsuite_reliant:README.md",
}
# Number of propagation steps K and learning rate where the published configuration differs from K = 10, 0.01.
_PUBLISHED_CASES = (
    Case({"dataset": "german", "teacher": "gcn"}, {"num_layers": 8}),
    Case({"dataset": "german", "teacher": "graphsage"}, {"lr": 0.001}),
)
_EMBEDDED = {"epochs": 100, "patience": 100}
_PAPER_CPF = Preset({}, _PUBLISHED_CASES)


@hookimpl
def benchsuite_methods() -> list[MethodSpec]:
    """Return the rows of this paper."""
    return [
        MethodSpec(
            name="teacher",
            title="the teacher itself",
            role="control",
            load="benchsuite_reliant.method:TeacherItself",
            presets={"embedded": Preset(), "paper": Preset()},
            **_SHARED,
        ),
        MethodSpec(
            name="cpf",
            title="vanilla CPF student (parametrised label propagation + MLP)",
            role="baseline",
            load="benchsuite_reliant.method:VanillaCPF",
            presets={"embedded": Preset(_EMBEDDED), "paper": _PAPER_CPF},
            **_SHARED,
        ),
        MethodSpec(
            name="cpf-bias-term",
            title="CPF student with the bias term but no proxy",
            role="ablation",
            load="benchsuite_reliant.method:BiasTermCPF",
            presets={"embedded": Preset({**_EMBEDDED, "bias_weight": 300.0}), "paper": _PAPER_CPF},
            **_SHARED,
        ),
        MethodSpec(
            name="reliant",
            title="RELIANT with a CPF student",
            load="benchsuite_reliant.method:Reliant",
            presets={"embedded": Preset({**_EMBEDDED, "bias_weight": 300.0}), "paper": _PAPER_CPF},
            **_SHARED,
        ),
    ]
