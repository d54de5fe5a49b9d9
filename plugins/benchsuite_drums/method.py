"""Language models as drummers: pre-trained on English or not, fine-tuned on drumroll, sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from benchsuite.core import ConfigError, RunContext
from benchsuite.tasks.drum_generation.contract import DrumComposer, Drummer, Record, TrainingGrooves
from benchsuite_drums.config import LanguageModelConfig
from benchsuite_drums.model import (
    Logits,
    context_of,
    given_model,
    load_model,
    parameters_of,
    save_model,
    tiny_gpt2,
    tokenizer_of,
)
from benchsuite_drums.sampling import completion_bits, continue_texts
from benchsuite_drums.tokenizer import Tokenizer
from benchsuite_drums.training import documents_of, english_model, train

_MODEL = "model.pt"
_LARGE = 512


class LanguageModel(DrumComposer):
    """A causal language model that learns to write drumroll."""

    Config: ClassVar[type] = LanguageModelConfig
    config: LanguageModelConfig

    def fit(self, grooves: TrainingGrooves, ctx: RunContext) -> Drummer:
        """See `DrumComposer.fit`."""
        c = self.config
        tokenizer = tokenizer_of(c)
        model = self._start(tokenizer, ctx).to(ctx.device)
        context = context_of(model, c)
        if ctx.weights is not None:
            load_model(model, ctx.weights)
            model.eval()
        else:
            documents = documents_of(grooves.train, tokenizer, c.prompt_weight)
            steps = c.steps or c.epochs * -(-len(documents) // c.batch_size)
            order = ctx.seed_for("run", "order")
            train(model, documents, c, ctx, name="drums", steps=steps, lr=c.lr, context=context, seed=order)
        if "model" in ctx.wanted_artifacts:
            save_model(model, ctx.artifact(_MODEL))
        return LanguageModelDrummer(model, tokenizer, c, context)

    def _start(self, tokenizer: Tokenizer, ctx: RunContext) -> nn.Module:
        """Return the model before it sees a drum."""
        c = self.config
        torch.manual_seed(ctx.seed_for("run", "start"))
        if c.model:
            return given_model(c)
        if c.pretraining == "none" or ctx.weights is not None:
            return tiny_gpt2(c, tokenizer.size)
        if c.width >= _LARGE:
            if ctx.max_steps is None:
                raise ConfigError("a whole run at this size starts from a pre-trained model: set model=FOLDER")
            ctx.log.warning("cut short: random weights take the place of a pre-trained model")
            return tiny_gpt2(c, tokenizer.size)
        return english_model(c, ctx)

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield the tiny GPT-2 on two texts."""
        size = 66 if self.config.vocabulary == "lines" else 128
        yield Logits(tiny_gpt2(self.config, size)), (torch.zeros(2, 24, dtype=torch.int64),)


class LanguageModelDrummer(Drummer):
    """A fine-tuned model with the settings of sampling."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, c: LanguageModelConfig, context: int) -> None:
        self.model, self.tokenizer, self.config, self.context = model, tokenizer, c, context
        self.parameters = parameters_of(model)

    def play(self, prompts: Sequence[str], ctx: RunContext) -> list[str]:
        """See `Drummer.play`."""
        c = self.config
        return continue_texts(
            self.model,
            self.tokenizer,
            prompts,
            ctx,
            context=self.context,
            temperature=c.temperature,
            top_p=c.top_p,
            max_new_tokens=c.max_new_tokens,
            seed=ctx.seed_for("run", "sampling"),
        )

    def bits(self, records: Sequence[Record], ctx: RunContext) -> list[float] | None:
        """See `Drummer.bits`; a run that was cut short has none."""
        found = completion_bits(self.model, self.tokenizer, records, self.context, ctx)
        return found if len(found) == len(records) else None
