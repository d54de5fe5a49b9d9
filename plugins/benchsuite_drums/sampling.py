"""Playing on: tokens drawn one by one for many prompts at once, with the keys and values of the past kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchsuite.core import RunContext
from benchsuite.tasks.drum_generation.contract import END
from benchsuite_drums.tokenizer import Tokenizer


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

    When the context is full, its older half is forgotten and the rest is read again. Prompts of different lengths are
    padded on the left, where attention does not look.
    """
    device = next(model.parameters()).device
    encoded = [tokenizer.encode(prompt)[-context:] for prompt in prompts]
    longest = max(map(len, encoded))
    tokens = torch.zeros(len(prompts), longest, dtype=torch.int64)
    real = torch.zeros(len(prompts), longest, dtype=torch.int64)
    for row, codes in enumerate(encoded):
        tokens[row, longest - len(codes) :] = torch.tensor(codes)
        real[row, longest - len(codes) :] = 1
    tokens, real = tokens.to(device), real.to(device)
    drawn: list[list[int]] = [[] for _ in prompts]
    over = [False] * len(prompts)
    generator = torch.Generator().manual_seed(seed)
    cache, new = None, tokens
    for _ in ctx.steps(max_new_tokens, "playing"):
        if real.shape[1] > context:
            kept = context // 2
            tokens, real = tokens[:, -kept:], real[:, -kept:]
            cache, new = None, tokens
        positions = (real.cumsum(dim=1) - 1).clamp(min=0)[:, -new.shape[1] :]
        out = model(input_ids=new, attention_mask=real, position_ids=positions, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        new = draw(out.logits[:, -1].float().cpu(), temperature, top_p, generator)[:, None].to(device)  # (B, 1)
        tokens, real = torch.cat([tokens, new], dim=1), torch.cat([real, torch.ones_like(new)], dim=1)
        for row, code in enumerate(new[:, 0].tolist()):
            if not over[row]:
                drawn[row].append(code)
                over[row] = END in tokenizer.decode(drawn[row][-tokenizer.tail :])
        if all(over):
            break
    return [_up_to_end(tokenizer.decode(codes)) for codes in drawn]


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
    model: Any, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], context: int, ctx: RunContext
) -> list[float]:
    """Return -log2 of the probability of each completion given its prompt, both in tokens.

    Every token is predicted from at least half a context (or from the beginning): windows move by half of it.
    """
    device = next(model.parameters()).device
    found = []
    for index in ctx.steps(len(prompts), "likelihood"):
        tokens = torch.tensor([*prompts[index], *completions[index]])
        scored = len(prompts[index])  # tokens before this one are done
        total = 0.0
        for first, last in windows(len(tokens), context):
            if last <= scored:
                continue
            part = tokens[first:last].to(device)
            logits = model(input_ids=part[None, :-1], use_cache=False).logits[0].float()
            surprises = torch.nn.functional.cross_entropy(logits, part[1:], reduction="none").double().cpu()
            total += float(surprises[scored - first - 1 :].sum())
            scored = last
        found.append(total / torch.log(torch.tensor(2.0, dtype=torch.float64)).item())
    return found


def windows(length: int, context: int) -> list[tuple[int, int]]:
    """Return (first, last) of windows of ``context + 1`` tokens, each half a context behind the one before."""
    found, first = [], 0
    while True:
        last = min(first + context + 1, length)
        found.append((first, last))
        if last == length:
            return found
        first += context // 2
