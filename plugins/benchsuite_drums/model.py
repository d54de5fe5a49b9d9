"""The language models: a tiny GPT-2, or any causal language model in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from benchsuite.core import ConfigError
from benchsuite_drums.config import LanguageModelConfig
from benchsuite_drums.tokenizer import CharacterTokenizer, GivenTokenizer, LineTokenizer, Tokenizer


class Logits(nn.Module):
    """A causal language model as a function of tokens to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:  # (B, T) -> (B, T, V)
        """Return the logits of every next token."""
        logits: Tensor = self.model(input_ids=tokens, use_cache=False).logits
        return logits


def tokenizer_of(c: LanguageModelConfig) -> Tokenizer:
    """Return the tokenizer that the settings name."""
    if c.model:
        return GivenTokenizer(_folder(c.model))
    return LineTokenizer() if c.vocabulary == "lines" else CharacterTokenizer()


def tiny_gpt2(c: LanguageModelConfig, size: int) -> nn.Module:
    """Return a GPT-2 with random weights and without dropout; ``size`` different tokens."""
    shape = GPT2Config(
        vocab_size=size,
        n_positions=c.context,
        n_embd=c.width,
        n_layer=c.layers,
        n_head=c.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    model: nn.Module = GPT2LMHeadModel(shape)
    return model


def given_model(c: LanguageModelConfig) -> nn.Module:
    """Return the model of a folder, with its weights or (``pretraining=none``) random ones.

    Raises
    ------
    ConfigError
        One line: no folder, or no causal language model in it. Nothing is downloaded, no code of the folder runs.
    """
    folder = _folder(c.model)
    try:
        if c.pretraining == "none":
            shape = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model: nn.Module = AutoModelForCausalLM.from_config(shape)
        else:
            model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers fails in many ways
        text = " ".join(str(error).split())[:120]
        raise ConfigError(f"model={folder}: holds no causal language model ({type(error).__name__}: {text})") from None
    return model.float()


def _folder(given: str) -> str:
    if not Path(given).is_dir():
        raise ConfigError(f"model={given}: there is no such folder")
    return given


def context_of(model: Any, c: LanguageModelConfig) -> int:
    """Return how many tokens a model sees: the setting, or what a given model has positions for if that is less."""
    positions = getattr(model.config, "max_position_embeddings", None)
    return min(c.context, positions) if positions else c.context


def parameters_of(model: nn.Module) -> int:
    """Return the number of trainable parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def save_model(model: nn.Module, path: Path) -> None:
    """Save the weights as a plain state dict."""
    torch.save({name: value.detach().cpu().clone() for name, value in model.state_dict().items()}, path)


def load_model(model: nn.Module, path: Path) -> None:
    """Load a state dict that `save_model` wrote, strictly.

    Raises
    ------
    ConfigError
        One line, if the file is none or fits another model.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except Exception as error:  # torch fails in many ways
        text = " ".join(str(error).split())[:120]
        raise ConfigError(f"{path}: are no weights of this model ({type(error).__name__}: {text})") from None
