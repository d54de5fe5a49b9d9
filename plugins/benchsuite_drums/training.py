"""Next-token training on windows of texts: English first, then drumroll records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchsuite.core import RunContext
from benchsuite.tasks.drum_generation.contract import Record
from benchsuite_drums.config import LanguageModelConfig
from benchsuite_drums.english_text import SHA256, english_text
from benchsuite_drums.model import tiny_gpt2
from benchsuite_drums.tokenizer import CharacterTokenizer, Tokenizer

_FLOOR = 0.1
_STATE = "english.pt"


@dataclass(frozen=True)
class Document:
    """A text to learn from.

    Attributes
    ----------
    tokens
        (T,) int64.
    weights
        (T,) float32 of the loss on each token.
    starts
        Where bars begin; empty: windows may begin anywhere.
    """

    tokens: Tensor
    weights: Tensor
    starts: Sequence[int] = ()

    def first_of_window(self, length: int, order: torch.Generator) -> int:
        """Draw where a window begins: at a bar, no later than the first from which the window reaches the end."""
        if not self.starts:
            last = max(0, len(self.tokens) - length - 1)
            return int(torch.randint(last + 1, (1,), generator=order))
        reaching = sum(start + length + 1 < len(self.tokens) for start in self.starts)
        return self.starts[int(torch.randint(min(reaching + 1, len(self.starts)), (1,), generator=order))]


def documents_of(records: Sequence[Record], tokenizer: Tokenizer, prompt_weight: float) -> list[Document]:
    """Return the records as tokens, with the weight of prompts."""
    found = []
    for record in records:
        tokens, starts = tokenizer.encode_bars(record.prompt + record.completion)
        weights = torch.ones(len(tokens))
        weights[: len(tokenizer.encode_bars(record.prompt)[0])] = prompt_weight
        found.append(Document(torch.tensor(tokens), weights, starts))
    return found


def window(documents: Sequence[Document], length: int, order: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Draw windows: a document each, then where it begins.

    Windows of records begin with a bar, so that positions say where in the bar a token stands. Sampling keeps to that.

    Returns
    -------
    tokens
        (count, length + 1) int64, zero behind the end of a short document.
    weights
        (count, length) float32 of the predicted tokens, zero there.
    """
    tokens = torch.zeros(count, length + 1, dtype=torch.int64)
    weights = torch.zeros(count, length)
    for row, index in enumerate(torch.randint(len(documents), (count,), generator=order).tolist()):
        document = documents[index]
        first = document.first_of_window(length, order)
        part = document.tokens[first : first + length + 1]
        tokens[row, : len(part)] = part
        weights[row, : len(part) - 1] = document.weights[first + 1 : first + len(part)]
    return tokens, weights


def loss_of(model: nn.Module, tokens: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean cross entropy of the next tokens, in nats."""
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits  # (B, T, V)
    each = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    return (each * weights.flatten()).sum() / weights.sum().clamp(min=1e-9)


def train(
    model: nn.Module,
    documents: Sequence[Document],
    c: LanguageModelConfig,
    ctx: RunContext,
    *,
    name: str,
    steps: int,
    lr: float,
    context: int,
    seed: int,
) -> None:
    """AdamW on windows of ``context`` tokens; the order of the data depends on the seed alone."""
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=c.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps, c.warm_up))
    order = torch.Generator().manual_seed(seed)
    model.train()
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "order": order}
    for _ in ctx.resumable(name, steps, parts):
        tokens, weights = window(documents, context, order, c.batch_size)
        loss = loss_of(model, tokens.to(ctx.device), weights.to(ctx.device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


def rate(step: int, steps: int, warm_up: int) -> float:
    """Return the share of the learning rate: a rise over the first steps, then a line down to a tenth at the last."""
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    behind = (step - warm_up) / max(1, steps - 1 - warm_up)
    return 1 - (1 - _FLOOR) * min(1.0, behind)


def english_model(c: LanguageModelConfig, ctx: RunContext) -> nn.Module:
    """Return a tiny GPT-2 that has read English; runs of one seed share it."""
    seeds = {name: ctx.seed_for("run", name) for name in ("start", "english")}
    settings = {k: v for k, v in asdict(c).items() if k in _ENGLISH}

    def build(folder: Path) -> None:
        torch.manual_seed(seeds["start"])
        tokenizer = CharacterTokenizer()
        model = tiny_gpt2(c, tokenizer.size).to(ctx.device)
        codes = torch.tensor(tokenizer.encode(english_text()))
        text = Document(codes, torch.ones(len(codes)))
        train(
            model, [text], c, ctx, name="english", steps=c.english_steps, lr=c.english_lr, context=c.context,
            seed=seeds["english"],
        )  # fmt: skip
        torch.save(model.state_dict(), folder / _STATE)

    folder = ctx.cached("drums-english", {"text": SHA256, **settings, **seeds}, build)
    model = tiny_gpt2(c, CharacterTokenizer.size)
    state: dict[str, Any] = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
    model.load_state_dict(state)
    return model


# Settings that the pre-training depends on.
_ENGLISH = (
    *("layers", "width", "heads", "context", "batch_size", "warm_up", "weight_decay"),
    *("english_steps", "english_lr"),
)
