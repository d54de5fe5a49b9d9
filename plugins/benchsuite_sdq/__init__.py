"""SDQ (2022): stochastic differentiable quantisation, a mixed-precision strategy found in one training."""

from __future__ import annotations

from typing import Any

from benchsuite.core import Case, MethodSpec, Paper, Preset, Role, hookimpl

_PAPER = Paper(
    title="SDQ: Stochastic Differentiable Quantization with Mixed Precision",
    authors="Xijie Huang, Zhiqiang Shen, Shichao Li, Zechun Liu, Xianghong Hu, Jeffry Wicaksana, Eric Xing,"
    " Kwang-Ting Cheng",
    venue="ICML",
    year=2022,
    url="https://arxiv.org/abs/2206.04459",
)
_SHARED: dict[str, Any] = {
    "version": "1",
    "tasks": ("mixed-precision-quantization",),
    "load": "benchsuite_sdq.method:SDQ",
    "config": "benchsuite_sdq.config:SDQConfig",
    "requires": ("torch",),
    "install": "pip install 'benchsuite[quantization]'",
    "claims": "benchsuite_sdq:claims.toml",
    "reported": "benchsuite_sdq:reported.csv",
    "card": "benchsuite_sdq:README.md",
}

# Ours [inferred]: the paper's recipes were not to be had.
_CIFAR: dict[str, Any] = {
    **{"batch_size": 128, "search_steps": 39_000, "search_optimizer": "sgd", "search_lr": 0.01, "beta_lr": 0.01},
    **{"epochs": 200, "optimizer": "sgd", "lr": 0.04, "weight_decay": 0.0001},
    **{"lambda_q": 0.00001, "activation": "pact"},
}
_IMAGENET: dict[str, Any] = {
    **{"batch_size": 512, "search_steps": 150_000, "search_optimizer": "adam", "search_lr": 0.0005},
    **{"epochs": 120, "optimizer": "adam", "lr": 0.0005, "lambda_q": 0.00000002},
}
# Chosen on the validation split, see the card; all rows have the same. The pressure on bits goes with the number of
# weights: a search of fewer than 300 steps would only count them.
_EMBEDDED: dict[str, Any] = {"lambda_e": 0.001}
_PRESSURE = (
    Case({"model": "mlp-narrow"}, {"lambda_q": 0.001}),
    Case({"model": "cnn"}, {"lambda_q": 0.00005}),
    Case({"model": "resnet20"}, {"lambda_q": 0.00001}),
)


def _row(name: str, title: str, role: Role, **settings: Any) -> MethodSpec:
    paper = _PAPER if role in ("method", "ablation") else None
    presets = {
        "embedded": Preset({**_EMBEDDED, **settings}, _PRESSURE),
        "paper": Preset({**_CIFAR, **settings}, (Case({"dataset": "imagenet"}, _IMAGENET),)),
    }
    return MethodSpec(name=name, title=title, role=role, presets=presets, paper=paper, **_SHARED)


@hookimpl
def benchsuite_methods() -> list[MethodSpec]:
    """Return the rows of this paper, and other strategies under the same phase 2."""
    sized = "of the budget's size, same phase 2"
    return [
        _row("sdq", "SDQ: bits by stochastic differentiable quantisation", "method"),
        _row("sdq-no-kd", "SDQ without distillation: labels instead", "ablation", distillation=False),
        _row("sdq-no-ebr", "SDQ without entropy-aware bin regularisation", "ablation", lambda_e=0.0),
        _row("sdq-interpolation", "SDQ blending bitwidths instead of drawing", "ablation", estimator="interpolation"),
        _row("uniform-dorefa", "The same bits everywhere, same phase 2", "baseline", allocation="uniform"),
        _row("hessian-sensitivity", f"Bits by Hessian traces, {sized}", "baseline", allocation="sensitivity"),
        *(
            _row(f"random-strategy-{draw}", f"Random bits {sized} ({draw})", "control", allocation="random", draw=draw)
            for draw in (1, 2, 3)
        ),
        _row("reversed-strategy", f"SDQ's bits with ranks turned round, {sized}", "control", allocation="reversed"),
        _row("oracle-strategy", "The best of all maximal strategies, on held-out training pictures", "control",
             allocation="oracle"),
    ]  # fmt: skip
