"""BAGUA (VLDB 2022): data-parallel training with system relaxations."""

from __future__ import annotations

from typing import Any

from benchsuite.core import MethodSpec, Paper, Preset, Resources, Role, hookimpl

_PAPER = Paper(
    title="BAGUA: Scaling up Distributed Learning with System Relaxations",
    authors="Shaoduo Gan, Xiangru Lian, Rui Wang, Jianbin Chang, Chengjun Liu, Hongmei Shi, Shengzhuo Zhang,"
    " Xianghong Li, Tengxu Sun, Jiawei Jiang, Binhang Yuan, Sen Yang, Ji Liu, Ce Zhang",
    venue="PVLDB 15(4)",
    year=2022,
    url="https://arxiv.org/abs/2107.01499",
)
_SHARED: dict[str, Any] = {
    "tasks": ("distributed-training", "distributed-training-simulated"),
    "paper": _PAPER,
    "requires": ("torch",),
    "install": "pip install 'benchsuite[distributed]'",
    "resources": Resources(cpus=2, exclusive=True),
    "claims": "benchsuite_bagua:claims.toml",
    "reported": "benchsuite_bagua:reported.csv",
    "card": "benchsuite_bagua:README.md",
}
# A warm-up of a fifth of all 150 steps, as the official tutorial advises. With the official eps of 1e-8 training
# diverges on the digits, compressed or not: a tenth of the second moments is frozen at 0 (dead units).
_ADAM = {"warmup_steps": 30, "eps": 1e-4}


def _row(
    name: str,
    title: str,
    cls: str,
    config: str = "",
    role: Role = "method",
    embedded: dict[str, Any] | None = None,
    deterministic: bool = True,
    paper: bool = False,
    version: str = "1",
    **settings: Any,
) -> MethodSpec:
    presets = {"embedded": Preset({**settings, **(embedded or {})})}
    if paper:
        presets["paper"] = Preset(settings)
    return MethodSpec(
        name=name,
        title=title,
        version=version,
        role=role,
        load=f"benchsuite_bagua.method:{cls}",
        config=f"benchsuite_bagua.config:{config or cls}Config",
        presets=presets,
        deterministic=deterministic,
        **_SHARED,
    )


@hookimpl
def benchsuite_methods() -> list[MethodSpec]:
    """Return the rows of this paper."""
    return [
        _row("gradient-allreduce", "mean gradients, full precision", "GradientAllReduce"),
        # What the published VGG16 runs used; their model is the only one of theirs that is here.
        _row("bytegrad", "mean gradients in 8 bits", "ByteGrad", paper=True),
        _row("qadam", "Adam, momenta in 8 bits after a warm-up", "QuantizedAdam", "QAdam", embedded=_ADAM),
        _row(
            "qadam-fixed",
            "QAdam, its dropped step and growing step size mended",
            "QuantizedAdam",
            "QAdam",
            "ablation",
            _ADAM,
            mode="fixed",
        ),
        _row(
            "onebit-adam",
            "QAdam with signs and error feedback: 1-bit Adam",
            "QuantizedAdam",
            "QAdam",
            "extension",
            _ADAM,
            mode="fixed",
            compressor="one-bit",
            error_feedback=True,
        ),
        _row("decentralized", "weights averaged with all ranks", "Decentralized"),
        # Version 2: receives are posted before sends, which makes both faster over gloo.
        _row(
            "decentralized-shift-one",
            "weights averaged with one changing peer",
            "Decentralized",
            version="2",
            peers="shift_one",
        ),
        _row(
            "low-precision-decentralized",
            "differences of weights in 8 bits on a ring",
            "LowPrecisionDecentralized",
            version="2",
        ),
        _row(
            "async-model-average",
            "weights averaged in the background",
            "AsyncModelAverage",
            "Async",
            embedded={"sync_interval_ms": 20.0},
            deterministic=False,
        ),
        _row(
            "local-sgd", "weights averaged with all ranks every 4 steps", "Decentralized", role="extension", interval=4
        ),
    ]
