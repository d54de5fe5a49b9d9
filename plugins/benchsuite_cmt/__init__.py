"""CMT (2023): 3-D detection by one decoder over camera and LiDAR tokens that carry their 3-D coordinates."""

from __future__ import annotations

from typing import Any

from benchsuite.core import Case, MethodSpec, Paper, Preset, Role, hookimpl

_PAPER = Paper(
    title="Cross Modal Transformer: Towards Fast and Robust 3D Object Detection",
    authors="Junjie Yan, Yingfei Liu, Jianjian Sun, Fan Jia, Shuailin Li, Tiancai Wang, Xiangyu Zhang",
    venue="ICCV",
    year=2023,
    url="https://arxiv.org/abs/2301.01283",
)
_SHARED: dict[str, Any] = {
    "version": "1",
    "tasks": ("detection3d",),
    "load": "benchsuite_cmt.method:CMTMethod",
    "config": "benchsuite_cmt.config:CMTConfig",
    "paper": _PAPER,
    "requires": ("torch", "PIL"),
    "install": "pip install 'benchsuite[vision]'",
    "saves_model": True,
    "claims": "benchsuite_cmt:claims.toml",
    "reported": "benchsuite_cmt:reported.csv",
    "card": "benchsuite_cmt:README.md",
}

# As published: eight GPUs with two samples each (four at ResNet-50), twenty passes over the resampled frames.
_RECIPE: dict[str, Any] = {
    "masking": 0.25,
    "masking_from": 0.0,
    "steps": 0,
    "epochs": 20,
    "batch_size": 16,
    "lr": 1e-4,
    "clip": 35.0,
    "peak": 8.0,
    "final": 1e-4,
    "warm_up": 0.4,
    "denoising_groups": 10,
    "noise": "box",
    "auxiliary": 0.0,
    "augment": "published",
    "sample_objects": True,
    "balance": True,
    "grid_mask": True,
    "needs_pretrained": True,
    "amp": True,
    "workers": 4,
}
_R50 = {"architecture": "voxel0100_r50_800x320", "batch_size": 32, "lr": 1.4e-4, "peak": 6.0}
_LIDAR = {
    **{"architecture": "lidar_voxel0075", "modality": "lidar", "masking": 0.0, "peak": 6.0},
    **{"grid_mask": False, "needs_pretrained": False},
}
_CAMERA = {
    **{"architecture": "camera_vov_1600x640", "modality": "camera", "masking": 0.0},
    **{"augment": "published-camera", "sample_objects": False},
}
# On small data the published recipe is a check that it runs: one sample a step, in this process.
_SMALL = tuple(
    Case({"dataset": name}, {"batch_size": 1, "workers": 0})
    for name in ("cuboids-a", "cuboids-b", "cuboids-c", "cuboid-streets", "nuscenes-infos")
)

_STILL = tuple(Case({"dataset": name}, {"still": True}) for name in ("cuboids-a", "cuboids-b", "cuboids-c"))


def _row(name: str, title: str, role: Role, embedded: dict[str, Any], paper: dict[str, Any]) -> MethodSpec:
    presets = {"embedded": Preset(embedded, _STILL), "paper": Preset({**_RECIPE, **paper}, _SMALL)}
    return MethodSpec(name=name, title=title, role=role, presets=presets, **_SHARED)


@hookimpl
def benchsuite_methods() -> list[MethodSpec]:
    """Return the rows of this paper."""
    return [
        _row("cmt", "CMT: both sensors, masked-modal training", "method", {"masking": 0.25}, _R50),
        _row("cmt-vanilla", "CMT without masked-modal training", "ablation", {}, {**_R50, "masking": 0.0}),
        _row("cmt-lidar", "CMT with LiDAR alone", "ablation", {"modality": "lidar"}, _LIDAR),
        _row("cmt-camera", "CMT with cameras alone", "ablation", {"modality": "camera"}, _CAMERA),
    ]
