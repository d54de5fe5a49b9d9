"""MSHNet (2022): few-shot segmentation by two similarities to the foreground of the supports."""

from __future__ import annotations

from typing import Any

from benchsuite.core import Case, MethodSpec, Paper, Preset, Role, hookimpl

_PAPER = Paper(
    title="MSHNet: Multi-Similarity Based Hyperrelation Network for Few-Shot Segmentation",
    authors="Xiangwen Shi, Zhe Cui, Shaobing Zhang, Miao Cheng, Lian He, Xianghong Tang",
    venue="arXiv; IET Image Processing",
    year=2022,
    url="https://arxiv.org/abs/2203.09550",
)
_SHARED: dict[str, Any] = {
    "version": "1",
    "tasks": ("fss",),
    "load": "benchsuite_mshnet.method:MSHNetMethod",
    "config": "benchsuite_mshnet.config:MSHNetConfig",
    "paper": _PAPER,
    "requires": ("torch", "torchvision"),
    "install": "pip install 'benchsuite[vision]'",
    "saves_model": True,
    "claims": "benchsuite_mshnet:claims.toml",
    "reported": "benchsuite_mshnet:reported.csv",
    "card": "benchsuite_mshnet:README.md",
}
_FULL: dict[str, Any] = {
    "gps_width": 128,
    "cosine_width": 256,
    "merge_width": 512,
    "head_width": 128,
    "dropout": 0.2,
    "steps": 0,
    "epochs": 300,
    "batch_size": 11,
    "lr": 0.025,
    "schedule": "exponential",
}
# COCO and ResNet-101 were trained with other batches; on the generated scenes the full network is a check that it runs.
_CASES = (
    Case({"backbone": "resnet101"}, {"batch_size": 14}),
    Case({"dataset": "coco"}, {"batch_size": 14}),
    *(Case({"dataset": name}, {"batch_size": 2}) for name in ("synth-fss", "synth-fss-weak")),
)


def _row(name: str, title: str, role: Role, similarities: str) -> MethodSpec:
    chosen = {"similarities": similarities}
    presets = {"embedded": Preset(chosen), "paper": Preset({**_FULL, **chosen}, _CASES)}
    return MethodSpec(name=name, title=title, role=role, presets=presets, **_SHARED)


@hookimpl
def benchsuite_methods() -> list[MethodSpec]:
    """Return the rows of this paper."""
    return [
        _row("mshnet", "MSHNet: cosine and generative prototype similarity", "method", "both"),
        _row("mshnet-cosine-only", "MSHNet with the cosine similarity alone", "ablation", "cosine"),
        _row("mshnet-gps-only", "MSHNet with the generative prototype similarity alone", "ablation", "gps"),
    ]
