"""Language models as drummers (2023): drumroll written by models that have read English."""

from __future__ import annotations

from typing import Any

from benchsuite.core import MethodSpec, Paper, Preset, Role, hookimpl

_PAPER = Paper(
    title="Language Models are Drummers: Drum Composition with Natural Language Pre-Training",
    authors="Li Zhang, Chris Callison-Burch",
    venue="AAAI workshop on Creative AI across Modalities",
    year=2023,
    url="https://arxiv.org/abs/2301.01162",
)
_SHARED: dict[str, Any] = {
    "version": "1",
    "tasks": ("drum-generation",),
    "paper": _PAPER,
    "install": "pip install 'benchsuite[drums]'",
    "claims": "benchsuite_drums:claims.toml",
    "reported": "benchsuite_drums:reported.csv",
    "card": "benchsuite_drums:README.md",
}
# GPT-2's size stands in for GPT-3's, which cannot be had; four epochs, a thousand tokens, as published.
_FULL: dict[str, Any] = {
    "layers": 12,
    "width": 768,
    "heads": 12,
    "context": 1024,
    "steps": 0,
    "epochs": 4,
    "batch_size": 1,
    "lr": 5e-5,
    "max_new_tokens": 1000,
}
# Each row has the rate that was best for it on the validation split.
_SCRATCH: dict[str, Any] = {"pretraining": "none", "lr": 0.0015}


def _language_model(name: str, title: str, role: Role, **settings: Any) -> MethodSpec:
    return MethodSpec(
        name=name,
        title=title,
        role=role,
        load="benchsuite_drums.method:LanguageModel",
        config="benchsuite_drums.config:LanguageModelConfig",
        presets={"embedded": Preset(settings), "paper": Preset({**settings, **_FULL})},
        requires=("torch", "transformers"),
        saves_model=True,
        **_SHARED,
    )


def _opponent(name: str, title: str, role: Role, cls: str, config: str) -> MethodSpec:
    load = f"benchsuite_drums.opponents:{cls}"
    return MethodSpec(name=name, title=title, role=role, load=load, config=config, requires=("numpy",), **_SHARED)


@hookimpl
def benchsuite_methods() -> list[MethodSpec]:
    """Return the rows of this paper."""
    none = ""
    markov = "benchsuite_drums.config:MarkovConfig"
    return [
        _language_model("gpt2-pretrained", "Tiny GPT-2 that has read English", "method"),
        _language_model("gpt2-scratch", "The same from random weights", "baseline", **_SCRATCH),
        _language_model(
            "gpt2-scratch-equal-compute",
            "The same with the steps of pre-training added",
            "control",
            **_SCRATCH,
            steps=400,
        ),
        _language_model(
            "line-gpt",
            "GPT-2 whose tokens are lines of drumroll: no language",
            "extension",
            vocabulary="lines",
            pretraining="none",
        ),
        _opponent("repeat-bar", "Plays the second bar again and again", "baseline", "RepeatBar", none),
        _opponent("line-markov", "Markov chain of lines with back-off", "baseline", "LineMarkov", markov),
        _opponent("human", "People, from the validation recordings", "control", "Human", none),
        _opponent("coin-flip", "A coin for every cell", "control", "CoinFlip", none),
    ]
