"""CCI (IEEE JBHI 2022): contrastive causal intervention for quasi-periodic cardiovascular signals."""

from __future__ import annotations

from typing import Any

from benchsuite.core import Case, MethodSpec, Paper, Preset, Role, hookimpl

_PAPER = Paper(
    title="A Causal Intervention Scheme for Semantic Segmentation of Quasi-periodic Cardiovascular Signals",
    authors="Xingyao Wang, Yuwen Li, Hongxiang Gao, Xianghong Cheng, Jianqing Li, Chengyu Liu",
    venue="IEEE Journal of Biomedical and Health Informatics",
    year=2022,
    url="https://arxiv.org/abs/2209.09018",
)
_SHARED: dict[str, Any] = {
    "version": "2",
    "paper": _PAPER,
    "requires": ("torch", "scipy"),
    "install": "pip install 'benchsuite[cardio]'",
    "saves_model": True,
    "claims": "benchsuite_cci:claims.toml",
    "reported": "benchsuite_cci:reported.csv",
    "card": "benchsuite_cci:README.md",
}
_BOTH = ("qrs-detection", "heart-sound-segmentation")
# The full scale that the sheet proposes [inferred]: the paper's own was not available.
_FULL: dict[str, Any] = {
    "widths": (32, 64, 128, 256),
    "rate": 250,
    "ecg_crop": 2496,
    "ecg_batch": 64,
    "pcg_crop": 496,
    "pcg_batch": 64,
    "steps": 10_000,
    "lr": 0.001,
    "schedule": "cosine",
}
_SOUNDS = {"task": "heart-sound-segmentation"}


def _presets(settings: dict[str, Any], for_sounds: dict[str, Any] | None = None) -> dict[str, Preset]:
    cases = (Case(_SOUNDS, for_sounds),) if for_sounds else ()
    return {"embedded": Preset(settings, cases), "paper": Preset({**settings, **_FULL}, cases)}


@hookimpl
def benchsuite_methods() -> list[MethodSpec]:
    """Return the rows of this paper."""

    def row(
        name: str, title: str, role: Role, cls: str, presets: dict[str, Preset], tasks: tuple[str, ...] = _BOTH
    ) -> MethodSpec:
        return MethodSpec(
            name=name,
            title=title,
            role=role,
            tasks=tasks,
            load=f"benchsuite_cci.method:{cls}",
            config=f"benchsuite_cci.config:{'UNetConfig' if cls == 'PlainUNet' else 'CCIConfig'}",
            presets=presets,
            **_SHARED,
        )

    sounds = {"contrast_weight": 0.1, "temperature": 0.5}
    viterbi = {"decoding": "duration-viterbi"}
    return [
        row("unet1d", "1-D U-Net, trained plainly", "baseline", "PlainUNet", _presets({})),
        row("unet1d-3x", "the same with three times the steps (equal compute)", "baseline", "PlainUNet", _triple()),
        row("cci", "contrastive causal intervention", "method", "CCI", _presets({}, sounds)),
        row(
            "cci-interventions", "interventions without contrast", "ablation", "CCI", _presets({"contrast_weight": 0.0})
        ),
        row(
            "cci-contrast",
            "contrast only: the classifier sees no intervened signal",
            "ablation",
            "CCI",
            _presets({"ce_on_interventions": False}, sounds),
        ),
        row(
            "cci-viterbi",
            "CCI, decoded with the durations of the training states",
            "extension",
            "CCI",
            _presets({**sounds, **viterbi}),
            ("heart-sound-segmentation",),
        ),
    ]


def _triple() -> dict[str, Preset]:
    presets = _presets({"steps": 360})
    return {**presets, "paper": Preset({**_FULL, "steps": 3 * _FULL["steps"]})}
