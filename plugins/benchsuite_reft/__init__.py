"""RefT (2023): few-shot instance segmentation with two references to the support images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchsuite.core import Case, MethodSpec, Paper, Preset, Role, hookimpl

_PAPER = Paper(
    title="Reference Twice: A Simple and Unified Baseline for Few-Shot Instance Segmentation",
    authors=("Yue Han, Jiangning Zhang, Yabiao Wang, Chengjie Wang, Yong Liu, Lu Qi, Xiangtai Li, Ming-Hsuan Yang"),
    venue="arXiv",
    year=2023,
    url="https://arxiv.org/abs/2301.01156",
)
_SHARED: dict[str, Any] = {
    "version": "2",
    "paper": _PAPER,
    "requires": ("torch", "scipy", "safetensors", "transformers"),
    "install": "pip install 'benchsuite[vision]'",
    "saves_model": True,
    "claims": "benchsuite_reft:claims.toml",
    "reported": "benchsuite_reft:reported.csv",
    "card": "benchsuite_reft:README.md",
}
_TASKS = ("fsis", "gfsis", "ifsis")
_FSIS, _GFSIS, _IFSIS = ({"task": task} for task in _TASKS)

# The published Mask2Former configuration for COCO; what it leaves open is one reading (see the method card).
_FULL: dict[str, Any] = {
    "network": "resnet50",
    "image_size": 1024,
    "jitter": (0.1, 2.0),
    "short_side": 800,
    "long_side": 1333,
    "base_steps": 368_750,
    "refine_steps": 36_875,
    "tune_steps": 0,
    "batch_size": 16,
    "tune_batch_size": 16,
    "micro_batch": 2,
    "lr": 1e-4,
    "refine_lr": 1e-4,
    "tune_lr": 1e-4,
    "backbone_rate": 0.1,
    "weight_decay": 0.05,
    "clip": 0.01,
    "schedule": "step",
    "points": 12_544,
    "amp": True,
    "segment": 25_000,
}
_FULL_REFERENCES: dict[str, Any] = {"support_size": 512, "micro_supports": 8, "reference_rate": 1.0}
# On the generated images the full network keeps to their 64 px, a few at a time: a check that it runs.
_FULL_ON_SMALL = Case(
    {"dataset": "synth-fsis"},
    {"image_size": 64, "short_side": 64, "long_side": 64, "batch_size": 2, "tune_batch_size": 2, "points": 1_024},
)
_SMALL_SUPPORTS = Case({"dataset": "synth-fsis"}, {"support_size": 64})
# So many steps cost what RefT's cost at the embedded sizes (measured in CPU seconds).
_EQUAL_COMPUTE = {"refine_steps": 145, "tune_steps": 145}
_INCREMENTAL = Case(_IFSIS, {"head": "cosine", "trainable": "projections"})


def _plain() -> dict[str, Preset]:
    """Return the presets of the row without references."""
    return {"embedded": Preset({}, (_INCREMENTAL,)), "paper": Preset(_FULL, (_INCREMENTAL, _FULL_ON_SMALL))}


def _referring(distillation: bool = True, **everywhere: Any) -> dict[str, Preset]:
    """Return the presets of a row with references; episodes of base classes in ``fsis`` only."""
    incremental = Case(_IFSIS, {"distillation": distillation})

    def preset(settings: Mapping[str, Any], episode: int, *further: Case) -> Preset:
        cases = (Case(_FSIS, {"episode_classes": episode}), _INCREMENTAL, incremental, *further)
        return Preset({**settings, **everywhere}, cases)

    return {
        "embedded": preset({}, 4),
        "paper": preset({**_FULL, **_FULL_REFERENCES}, 20, _FULL_ON_SMALL, _SMALL_SUPPORTS),
    }


@hookimpl
def benchsuite_methods() -> list[MethodSpec]:
    """Return the rows of this paper."""

    def row(
        name: str, title: str, role: Role, cls: str, presets: dict[str, Preset], tasks: tuple[str, ...] = _TASKS
    ) -> MethodSpec:
        plain = cls == "Mask2FormerFineTuned"
        return MethodSpec(
            name=name,
            title=title,
            role=role,
            tasks=tasks,
            load=f"benchsuite_reft.method:{cls}",
            config=f"benchsuite_reft.config:{'Mask2FormerConfig' if plain else 'RefTConfig'}",
            presets=presets,
            **_SHARED,
        )

    return [
        row("mask2former-ft", "Mask2Former, fine-tuned on the shots", "baseline", "Mask2FormerFineTuned", _plain()),
        row(
            "mask2former-ft-equal-compute",
            "the same with more steps: RefT's compute",
            "baseline",
            "Mask2FormerFineTuned",
            {"embedded": Preset(_EQUAL_COMPUTE)},
            ("fsis",),
        ),
        row("reft", "RefT: class centres and linked queries", "method", "RefTFineTuned", _referring()),
        row(
            "reft-link-logits",
            "RefT with class logits from the likeness to support queries",
            "extension",
            "RefTFineTuned",
            _referring(link_logits=True),
            ("fsis",),
        ),
        row(
            "reft-other-supports",
            "RefT, shown supports of other classes when it is tested",
            "control",
            "OtherSupports",
            _referring(),
            ("fsis",),
        ),
        row(
            "reft-no-distillation",
            "RefT without the distillation of base classes",
            "ablation",
            "RefTFineTuned",
            _referring(distillation=False),
            ("ifsis",),
        ),
    ]
