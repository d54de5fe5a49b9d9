"""Playing on: tokens drawn one by one for many prompts at once, with the keys and values of the past kept."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from benchsuite.core import RunContext
from benchsuite.tasks.drum_generation.contract import END, Record
from benchsuite_drums.tokenizer import BAR_END, Tokenizer

# What newer models call the keys and values of the past.
_PAST = "cache"


@torch.no_grad()
def continue_texts(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    ctx: RunContext,
    *,
    context: int,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    seed: int,
) -> list[str]:
    """Return a continuation of each prompt, up to and with its first ``END``.

    When the context is full, the oldest bars are forgotten and the rest is read again, from the beginning of a bar.
    Texts of different lengths are padded on the left, where attention does not look.
    """
    device = next(model.parameters()).device
    of_forward = inspect.signature(model.forward).parameters
    texts = [_Text(*tokenizer.encode_bars(prompt)) for prompt in prompts]
    generator = torch.Generator().manual_seed(seed)
    tokens, real = _padded([text.remembered(context) for text in texts], device)
    cache, new = DynamicCache(), tokens
    for _ in ctx.steps(max_new_tokens, "playing"):
        if real.shape[1] > context:
            tokens, real = _padded([text.remembered(context) for text in texts], device)
            cache, new = DynamicCache(), tokens
        positions = (real.cumsum(dim=1) - 1).clamp(min=0)[:, -new.shape[1] :]
        past = {_PAST if _PAST in of_forward else "past_key_values": cache}
        out = model(input_ids=new, attention_mask=real, position_ids=positions, use_cache=True, **past)
        new = draw(out.logits[:, -1].float().cpu(), temperature, top_p, generator)[:, None].to(device)  # (B, 1)
        real = torch.cat([real, torch.ones_like(new)], dim=1)
        for text, code in zip(texts, new[:, 0].tolist(), strict=True):
            text.add(code, tokenizer)
        if all(text.over for text in texts):
            break
    return [_up_to_end(tokenizer.decode(text.drawn)) for text in texts]


class _Text:
    """A text while it is written: its tokens, where its bars begin, and whether it is over."""

    def __init__(self, prompt: list[int], starts: list[int]) -> None:
        self.tokens, self.starts, self.over = list(prompt), list(starts), False
        self._prompt, self._length = len(prompt), len(prompt)
        if self.starts:
            self.starts.append(len(prompt))

    @property
    def drawn(self) -> list[int]:
        """Return what was written until it was over."""
        return self.tokens[self._prompt : self._length]

    def add(self, code: int, tokenizer: Tokenizer) -> None:
        """Write a token."""
        self.tokens.append(code)
        if self.over:
            return
        self._length = len(self.tokens)
        recent = tokenizer.decode(self.drawn[-tokenizer.tail :])
        self.over = END in recent
        if recent.endswith(BAR_END):
            self.starts.append(self._length)

    def remembered(self, context: int) -> list[int]:
        """Return the last tokens, with room for more."""
        return self.tokens[first_remembered(self.starts, len(self.tokens), context) :]


def first_remembered(starts: Sequence[int], length: int, context: int) -> int:
    """Return where to go on reading a text of so many tokens so that a quarter of the context is left for new ones.

    At the beginning of a bar; where no bar begins late enough, half a context is kept.
    """
    room = context - context // 4
    if length <= room:
        return 0
    late = [start for start in starts if length - room <= start < length]
    return late[0] if late else length - context // 2


def _padded(texts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return tokens (B, T), padded on the left, and which of them are real."""
    longest = max(map(len, texts))
    tokens = torch.zeros(len(texts), longest, dtype=torch.int64)
    real = torch.zeros(len(texts), longest, dtype=torch.int64)
    for row, codes in enumerate(texts):
        tokens[row, longest - len(codes) :] = torch.tensor(codes)
        real[row, longest - len(codes) :] = 1
    return tokens.to(device), real.to(device)


def _up_to_end(text: str) -> str:
    before, end, _ = text.partition(END)
    return before + end


def draw(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> Tensor:
    """Return a token for each row of logits (B, V), drawn from the softmax of logits over temperature.

    ``top_p`` keeps the fewest tokens whose probabilities add up to it.
    """
    probabilities = torch.softmax(logits / temperature, dim=1)
    if top_p < 1:
        ordered, places = probabilities.sort(dim=1, descending=True)
        ordered[ordered.cumsum(dim=1) - ordered >= top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter(1, places, ordered)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


@torch.no_grad()
def completion_bits(
    model: Any, tokenizer: Tokenizer, records: Sequence[Record], context: int, ctx: RunContext
) -> list[float]:
    """Return -log2 of the probability of each record's completion given its prompt.

    Windows of a context move on as far as `first_remembered` says, and each token is predicted once.
    """
    device = next(model.parameters()).device
    found = []
    for index in ctx.steps(len(records), "likelihood"):
        record = records[index]
        tokens, starts = tokenizer.encode_bars(record.prompt + record.completion)
        scored = len(tokenizer.encode_bars(record.prompt)[0])  # tokens before this one are done
        total = 0.0
        while scored < len(tokens):
            first = first_remembered(starts, scored, context)
            last = min(first + context + 1, len(tokens))
            part = torch.tensor(tokens[first:last], device=device)
            logits = model(input_ids=part[None, :-1], use_cache=False).logits[0].float()
            surprises = F.cross_entropy(logits, part[1:], reduction="none").double().cpu()
            total += float(surprises[scored - first - 1 :].sum())
            scored = last
        found.append(total / math.log(2))
    return found
