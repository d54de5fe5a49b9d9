"""EMO (2023): mobile backbones of one block, attention and a depth-wise convolution inside an inverted residual."""

from __future__ import annotations

from typing import Any

from benchsuite.core import Case, MethodSpec, Paper, Preset, Role, hookimpl

_PAPER = Paper(
    title="Rethinking Mobile Block for Efficient Attention-based Models",
    authors="Jiangning Zhang, Xiangtai Li, Jian Li, Liang Liu, Zhucun Xue, Boshen Zhang, Zhengkai Jiang, Tianxin Huang,"
    " Yabiao Wang, Chengjie Wang",
    venue="ICCV",
    year=2023,
    url="https://arxiv.org/abs/2301.01146",
)
_CLASSIFY, _SEGMENT, _DETECT = TASKS = ("image-classification", "semantic-segmentation", "object-detection")
_SHARED: dict[str, Any] = {
    "version": "1",
    "tasks": TASKS,
    "load": "benchsuite_emo.method:BackboneMethod",
    "config": "benchsuite_emo.config:EMOConfig",
    "requires": ("torch", "torchvision", "timm"),
    "install": "pip install 'benchsuite[mobile]'",
    "saves_model": True,
    "claims": "benchsuite_emo:claims.toml",
    "reported": "benchsuite_emo:reported.csv",
    "card": "benchsuite_emo:README.md",
}

# Chosen on the validation split, see the card. Every row has the same steps, batches and heads; rates differ.
_EMBEDDED = (
    Case({"dataset": "digits"}, {"steps": 120, "batch_size": 64}),
    Case({"dataset": "shapes"}, {"steps": 900}),
    Case({"dataset": "glyph-pairs"}, {"steps": 250, "batch_size": 64, "label_smoothing": 0.0}),
    Case({"task": _SEGMENT}, {"steps": 500, "batch_size": 16, "lr": 0.008, "head_width": 32, "class_balance": 0.5}),
    Case(
        {"task": _DETECT},
        {
            **{"batch_size": 16, "lr": 0.003},
            **{"detection_head": "retinanet", "head_width": 32, "further_levels": 0, "stacked": 1},
        },
    ),
)
# The best of the rates that were looked at for each row alike, where that is not the shared one.
_RATES = {
    "emo_nano": {"shapes": 0.008, _SEGMENT: 0.016, _DETECT: 0.006},
    "mobilenetv3_small_050": {"digits": 0.008, _SEGMENT: 0.016, _DETECT: 0.006},
    "starnet_s050": {"shapes": 0.016},
}

# As published. Data sets of other sizes take the same recipe in small batches: a check that it runs, no published
# setting.
_RECIPE: dict[str, Any] = {
    "steps": 0,
    "epochs": 300,
    "batch_size": 2048,
    "lr": 0.006,
    "warm_up": 0,
    "warm_up_epochs": 20,
    "ema": 0.9998,
    "augment": "published",
    "evaluate_every": 5,
    "amp": True,
    "engine": "runner",
    "workers": 8,
}
_DENSE: dict[str, Any] = {"ema": 0.0, "clip": 0.0, "decay": "no-norms", "amp": False, "needs_pretrained": True}
_ADE = {
    **_DENSE,
    **{"steps": 80_000, "epochs": 0, "batch_size": 32, "lr": 0.00012, "weight_decay": 0.01, "schedule": "poly"},
    **{"segmentation_head": "deeplabv3", "warm_up_epochs": 0, "sync_norms": True},
}
_COCO = {
    **_DENSE,
    **{"detection_head": "ssdlite", "head_width": 0, "further_levels": 4},
    **{"epochs": 120, "repeats": 5, "batch_size": 192, "lr": 0.0012, "schedule": "cosine-scaled", "warm_up": 500},
    **{"warm_up_epochs": 0, "warm_up_start": 0.001, "norm_eval": True},
}
_RETINA = {
    **{"detection_head": "retinanet", "further_levels": 2, "frozen_stages": 2, "epochs": 12, "repeats": 1},
    **{"batch_size": 32, "lr": 0.0002},
}
_SMALL = ("shapes", "shape-scenes", "glyph-pairs", "digits", "mnist-5k", "fashion-mnist", "cifar10", "svhn", "stl10")


def _paper(backbone: str) -> Preset:
    cases = [
        Case({"task": _SEGMENT}, _ADE),
        Case({"task": _DETECT}, _COCO),
        Case({"task": _DETECT, "keep_ratio": True}, _RETINA),
        *(Case({"dataset": name}, {"batch_size": 8, "workers": 0}) for name in (*_SMALL, "noisy-digits")),
    ]
    if backbone == "emo_5m":
        cases += [Case({"task": _SEGMENT}, {"window": 16}), Case({"task": _DETECT, "keep_ratio": True}, {"window": 10})]
    if not backbone.startswith("emo_"):
        cases += [Case({"task": name}, {"needs_pretrained": False}) for name in (_SEGMENT, _DETECT)]
        cases += [Case({"task": _DETECT, "keep_ratio": True}, {"frozen_stages": 0})]
    return Preset({**_RECIPE, "backbone": backbone}, tuple(cases))


def _row(name: str, title: str, role: Role, backbone: str, full: str = "", **settings: Any) -> MethodSpec:
    own = tuple(
        Case({"task" if where in TASKS else "dataset": where}, {"lr": rate})
        for where, rate in _RATES.get(backbone, {}).items()
    )
    presets = {"embedded": Preset({"backbone": backbone, **settings}, _EMBEDDED + own)}
    if full:
        presets["paper"] = _paper(full)
    paper = _PAPER if backbone.startswith("emo_") else None
    return MethodSpec(name=name, title=title, role=role, presets=presets, paper=paper, **_SHARED)


# Opponents from timm, by the name of their row: the same heads and training.
_PEERS = {
    "mobilenetv3": "mobilenetv3_small_050",
    "starnet": "starnet_s050",
    "mobilenetv4": "mobilenetv4_conv_small_035",
    "repvit": "repvit_m0_9",
    "edgenext": "edgenext_xx_small",
    "mobilevit": "mobilevit_xxs",
}
_FULL = {name: f"emo_{name[4:]}" for name in ("emo-1m", "emo-2m", "emo-5m", "emo-6m")}


@hookimpl
def benchsuite_methods() -> list[MethodSpec]:
    """Return the rows of this paper, and timm's backbones under the same heads and training."""
    nano, without = "emo_nano", "EMO-nano without"
    return [
        _row("emo-nano", "EMO-nano: the paper's blocks at 56 thousand parameters", "method", nano),
        _row("emo-nano-no-attention", f"{without} attention", "ablation", nano, attention=False),
        _row("emo-nano-no-dwconv", f"{without} depth-wise convolutions", "ablation", nano, depthwise=False),
        *(_row(name, f"EMO-{name[4:].upper()} as published", "method", full, full) for name, full in _FULL.items()),
        *(_row(name, f"{model} of timm", "baseline", model, model) for name, model in _PEERS.items()),
    ]
