"""Settings of the drummers. No torch here: a run is planned before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchsuite.core import ConfigError


@dataclass(frozen=True)
class LanguageModelConfig:
    """Settings of a language model that learns drumroll; the defaults are those of the embedded preset.

    Attributes
    ----------
    model
        Folder of a causal language model in Hugging Face's format, with its own tokenizer: it takes the place of the
        tiny GPT-2 and its pre-training. Empty: the tiny GPT-2.
    vocabulary
        Of the tiny GPT-2: the 128 characters of ASCII, or the 64 lines of drumroll with ``SEP`` and ``END``.
    pretraining
        ``english``: on Python's documentation topics. ``none``: from random weights (also those of ``model``).
    layers, width, heads, context
        Of the tiny GPT-2: its blocks, channels, attention heads and positions.
    english_steps, english_lr
        Length and rate of the pre-training.
    steps, epochs
        Length of the fine-tuning: ``steps``, or if these are 0 so many passes over the records.
    batch_size, lr, warm_up, weight_decay
        AdamW; the rate rises over ``warm_up`` steps and falls on a line to a tenth.
    prompt_weight
        Of the loss on tokens of prompts.
    temperature, top_p
        Of sampling.
    max_new_tokens
        Where a continuation is broken off.
    """

    model: str = ""
    vocabulary: Literal["characters", "lines"] = "characters"
    pretraining: Literal["english", "none"] = "english"
    layers: int = 3
    width: int = 96
    heads: int = 4
    context: int = 384
    english_steps: int = 160
    english_lr: float = 0.003
    steps: int = 240
    epochs: int = 0
    batch_size: int = 4
    lr: float = 0.003
    warm_up: int = 10
    weight_decay: float = 0.01
    prompt_weight: float = 0.01
    temperature: float = 0.9
    top_p: float = 1.0
    max_new_tokens: int = 1700

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "english_steps", "batch_size", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        if self.context < 32:
            raise ConfigError(f"context is {self.context}, at least 32 tokens are needed")
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} is no multiple of heads {self.heads}")
        if min(self.steps, self.epochs, self.warm_up) < 0 or not (self.steps or self.epochs):
            raise ConfigError("give steps, or epochs with steps=0; warm_up must not be negative")
        if not (self.lr > 0 and self.english_lr > 0 and self.temperature > 0 and 0 < self.top_p <= 1):
            raise ConfigError("lr, english_lr and temperature must be above 0, top_p in (0, 1]")
        if not 0 <= self.prompt_weight <= 1 or self.weight_decay < 0:
            raise ConfigError("prompt_weight must be in [0, 1], weight_decay not negative")
        if self.vocabulary == "lines" and (self.pretraining == "english" or self.model):
            raise ConfigError("a vocabulary of drumroll lines has no English: set pretraining=none, and no model")


@dataclass(frozen=True)
class MarkovConfig:
    """Settings of the Markov model of lines.

    Attributes
    ----------
    order
        Number of lines (separators count) that the next one may depend on.
    temperature
        Of sampling.
    """

    order: int = 8
    temperature: float = 0.9

    def __post_init__(self) -> None:
        if self.order < 0 or self.temperature <= 0:
            raise ConfigError("order must not be negative, temperature must be above 0")
