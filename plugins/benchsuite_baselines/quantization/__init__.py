"""Mixed-precision quantisation: full precision, Brevitas with learned scales, torchao's integers."""

from __future__ import annotations

from typing import Any

from benchsuite.core import Case, MethodSpec, Preset

_SHARED: dict[str, Any] = {
    "version": "1",
    "role": "baseline",
    "tasks": ("mixed-precision-quantization",),
    "install": "pip install 'benchsuite[quantization]'",
    "card": "benchsuite_baselines:README.md",
}
_CIFAR: dict[str, Any] = {"batch_size": 128, "epochs": 200, "optimizer": "sgd", "lr": 0.04, "weight_decay": 0.0001}
_IMAGENET: dict[str, Any] = {"batch_size": 512, "epochs": 120, "optimizer": "adam", "lr": 0.0005, "weight_decay": 0.0}


def _row(name: str, title: str, cls: str, config: str, library: str = "", **settings: Any) -> MethodSpec:
    trains = library == "brevitas" or settings.get("training", False)
    full = Preset({**_CIFAR, **settings}, (Case({"dataset": "imagenet"}, _IMAGENET),)) if trains else Preset(settings)
    return MethodSpec(
        name=name,
        title=title,
        load=f"benchsuite_baselines.quantization.method:{cls}",
        config=f"benchsuite_baselines.quantization.config:{config}",
        requires=("torch", *((library,) if library else ())),
        presets={"embedded": Preset(settings), "paper": full},
        **_SHARED,
    )


def _torchao(name: str, title: str, **settings: Any) -> MethodSpec:
    return _row(name, title, "Torchao", "TorchaoConfig", "torchao", **settings)


METHODS = (
    _row("full-precision", "The network as it was trained, over every budget", "KeepFullPrecision",
         "FullPrecisionConfig"),
    _row("brevitas-lsq", "Brevitas: the same bits everywhere, learned scales of weights and inputs", "BrevitasUniform",
         "BrevitasConfig", "brevitas"),
    _torchao("torchao-int8", "torchao: weights rounded to 8 bits, over small budgets", bits=8),
    _torchao("torchao-int4", "torchao: weights rounded to 4 bits, over small budgets", bits=4),
    _torchao("torchao-qat-int8", "torchao: trained with weights of 8 bits, over small budgets", bits=8, training=True),
    _torchao("torchao-qat-int4", "torchao: trained with weights of 4 bits, over small budgets", bits=4, training=True),
)  # fmt: skip
