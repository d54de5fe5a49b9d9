"""DOORPING (NDSS 2023): backdoors through dataset distillation, and defenses against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchsuite.core import MethodSpec, Paper, Preset, Role, hookimpl

_PAPER = Paper(
    title="Backdoor Attacks Against Dataset Distillation",
    authors="Yugeng Liu, Zheng Li, Michael Backes, Yun Shen, Yang Zhang",
    venue="NDSS",
    year=2023,
    url="https://arxiv.org/abs/2301.01197",
)
_SHARED: dict[str, Any] = {
    "version": "1",
    "paper": _PAPER,
    "requires": ("numpy", "torch"),
    "install": "pip install 'benchsuite[distillation]'",
    "claims": "benchsuite_doorping:claims.toml",
    "reported": "benchsuite_doorping:reported.csv",
    "card": "benchsuite_doorping:README.md",
}
_MATCHING = {
    "iterations": 100, "outer": 5, "inner": 10, "real_batch": 32, "image_lr": 1.0, "network_lr": 0.05, "init": "real",
}  # fmt: skip
_TRIGGER = {"trigger_steps": 50}
_BILEVEL = {"distill_steps": 1, "distill_epochs": 10, "distill_lr": 0.3, "epochs": 40, "batch": 256, "lr": 0.03}


@hookimpl
def benchsuite_methods() -> list[MethodSpec]:
    """Return the rows of this paper: attacks on DC, attacks on DD, defenses."""
    learnt = {**_MATCHING, **_TRIGGER}
    doorping = ("DoorpingOnMatching", "DoorpingConfig")
    return [
        _attack("dc", "clean DC (gradient matching)", "baseline", "GradientMatching", "MatchingConfig", _MATCHING),
        _attack("naiveattack", "NAIVEATTACK on DC: a white patch", "method", "NaiveAttack", "NaiveConfig", _MATCHING),
        _attack("loud-patch", "a random patch as loud as DOORPING's on DC, never learnt", "control",
                "LoudPatch", "StaticPatchConfig", _MATCHING),
        _attack("doorping", "DOORPING on DC: a learnt trigger, not clamped", "method", *doorping, learnt),
        _attack("doorping-1-percent", "DOORPING on DC with the official poison share of 1 %", "ablation",
                *doorping, learnt, poison_share=0.01),
        _attack("doorping-pixel-clamp", "DOORPING on DC, the trigger kept to valid pixels", "ablation",
                *doorping, learnt, clamp="pixel"),
        _attack("dd", "clean DD (bilevel distillation)", "baseline", "Bilevel", "BilevelConfig", _BILEVEL),
        _attack("naiveattack-dd", "NAIVEATTACK on DD: a white patch", "method",
                "NaiveAttackOnBilevel", "BilevelNaiveConfig", _BILEVEL),
        _attack("doorping-dd", "DOORPING on DD: a learnt trigger, not clamped", "method",
                "DoorpingOnBilevel", "BilevelDoorpingConfig", {**_BILEVEL, **_TRIGGER}),
        _defense("neural-cleanse", "Neural Cleanse: a small mask for each class", "NeuralCleanse", "2"),
        _defense("strip", "STRIP: entropy under overlays, threshold from benign inputs", "Strip"),
        _defense("spectral-signatures", "spectral signatures of the distilled images", "SpectralSignatures"),
        _defense("scan", "SCAn: one group or two in each class of the distilled set", "Scan", "2"),
    ]  # fmt: skip


def _attack(
    name: str, title: str, role: Role, cls: str, config: str, embedded: Mapping[str, Any], **everywhere: Any
) -> MethodSpec:
    """Return a row of the attack task; ``everywhere`` holds in every preset."""
    return MethodSpec(
        name=name,
        title=title,
        role=role,
        tasks=("distillation-backdoor",),
        load=f"benchsuite_doorping.method:{cls}",
        config=f"benchsuite_doorping.config:{config}",
        presets={"embedded": Preset({**embedded, **everywhere}), "paper": Preset(everywhere)},
        uses=("dd",) if "distill_steps" in embedded else (),
        **_SHARED,
    )


def _defense(name: str, title: str, cls: str, version: str = "1") -> MethodSpec:
    return MethodSpec(
        name=name,
        title=title,
        role="baseline",
        tasks=("backdoor-defense",),
        load=f"benchsuite_doorping.method:{cls}",
        config=f"benchsuite_doorping.config:{cls}Config",
        presets={"embedded": Preset(), "paper": Preset()},
        **{**_SHARED, "version": version, "requires": ("numpy", "scipy", "torch")},
    )
