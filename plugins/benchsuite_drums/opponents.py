"""Drummers that are no neural networks: a repeater, a Markov chain of lines, people, and a coin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import RunContext
from benchsuite.tasks.drum_generation.contract import (
    BAR_LINES,
    BARS,
    END,
    PROMPT_BARS,
    SEPARATOR,
    WIDTH,
    DrumComposer,
    Drummer,
    Record,
    TrainingGrooves,
)
from benchsuite_drums.config import MarkovConfig
from benchsuite_drums.tokenizer import LineTokenizer

_TO_PLAY = BARS - PROMPT_BARS


@dataclass(frozen=True)
class NoSettings:
    """Nothing to set."""


def completion_of(bars: Sequence[str]) -> str:
    """Return the completion of bars that are texts of 16 lines."""
    return f"{SEPARATOR}\n".join(bars) + END


class RepeatBar(DrumComposer):
    """Plays the second bar of the prompt until the end."""

    Config: ClassVar[type] = NoSettings

    def fit(self, grooves: TrainingGrooves, ctx: RunContext) -> Drummer:
        """Learn nothing."""
        return _Repeater()


class _Repeater(Drummer):
    def play(self, prompts: Sequence[str], ctx: RunContext) -> list[str]:
        bars = [prompt.split(f"{SEPARATOR}\n")[PROMPT_BARS - 1] for prompt in prompts]
        return [completion_of([bar] * _TO_PLAY) for bar in bars]


class CoinFlip(DrumComposer):
    """Throws a coin for every family on every sixteenth."""

    Config: ClassVar[type] = NoSettings

    def fit(self, grooves: TrainingGrooves, ctx: RunContext) -> Drummer:
        """Learn nothing."""
        return _Coin()


class _Coin(Drummer):
    def play(self, prompts: Sequence[str], ctx: RunContext) -> list[str]:
        rng = np.random.default_rng(ctx.seed_for("run", "coin"))
        return [completion_of([coin_bar(rng) for _ in range(_TO_PLAY)]) for _ in prompts]


def coin_bar(rng: np.random.Generator) -> str:
    """Return 16 lines in which every cell is a hit with probability 1/2."""
    hits = rng.random((BAR_LINES, WIDTH)) < 0.5
    return "".join("".join("o" if hit else "-" for hit in line) + "\n" for line in hits)


class Human(DrumComposer):
    """Goes on as people did in the validation recordings, whatever the prompt: how far people are from people."""

    Config: ClassVar[type] = NoSettings

    def fit(self, grooves: TrainingGrooves, ctx: RunContext) -> Drummer:
        """Keep the validation recordings."""
        return _People([record.completion for record in grooves.validation])


class _People(Drummer):
    def __init__(self, completions: Sequence[str]) -> None:
        self.completions = completions

    def play(self, prompts: Sequence[str], ctx: RunContext) -> list[str]:
        """Return completions in an order of chance; each is used once before any is used again."""
        rng = np.random.default_rng(ctx.seed_for("run", "people"))
        rounds = -(-len(prompts) // len(self.completions))
        order = np.concatenate([rng.permutation(len(self.completions)) for _ in range(rounds)])
        return [self.completions[index] for index in order[: len(prompts)]]


class LineMarkov(DrumComposer):
    """The next line depends on the last ones as far as these were seen in training: Witten and Bell's back-off."""

    Config: ClassVar[type] = MarkovConfig
    config: MarkovConfig

    def fit(self, grooves: TrainingGrooves, ctx: RunContext) -> Drummer:
        """Count what follows what."""
        return LineMarkovDrummer(grooves.train, self.config)


class LineMarkovDrummer(Drummer):
    """Looks up in the training records what stood behind contexts of up to ``order`` lines."""

    def __init__(self, records: Sequence[Record], config: MarkovConfig) -> None:
        self.config, self.tokenizer = config, LineTokenizer()
        texts = [self.tokenizer.encode(record.prompt + record.completion) for record in records]
        # One after another, with a symbol that nothing equals before each.
        self._codes = np.concatenate([np.array([-1, *text]) for text in texts])
        self._places = np.flatnonzero(self._codes >= 0)

    def probabilities(self, past: Sequence[int]) -> NDArray[np.float64]:
        """Return the probability of every next symbol, (66,).

        p(s | h) = (c(h s) + t(h) p(s | h')) / (c(h) + t(h)): t(h) counts the different symbols seen after h, h' is h
        without its oldest line; below the empty context all symbols are alike. Source: Witten and Bell, 1991.
        """
        found = np.full(self.tokenizer.size, 1 / self.tokenizer.size)
        places = self._places  # of what stood behind the context
        for length in range(min(self.config.order, len(past)) + 1):
            if length:
                places = places[self._codes[places - length] == past[-length]]
            if not len(places):
                break
            counts = np.bincount(self._codes[places], minlength=len(found))
            kinds = np.count_nonzero(counts)
            found = (counts + kinds * found) / (counts.sum() + kinds)
        return found

    def play(self, prompts: Sequence[str], ctx: RunContext) -> list[str]:
        """See `Drummer.play`: at most as many lines as fourteen bars with separators have."""
        rng = np.random.default_rng(ctx.seed_for("run", "sampling"))
        end = self.tokenizer.size - 1
        played = []
        for prompt in prompts:
            past = self.tokenizer.encode(prompt)
            first = len(past)
            while len(past) - first < _TO_PLAY * (BAR_LINES + 1):
                weights = self.probabilities(past) ** (1 / self.config.temperature)
                past.append(int(rng.choice(len(weights), p=weights / weights.sum())))
                if past[-1] == end:
                    break
            played.append(self.tokenizer.decode(past[first:]))
        return played

    def bits(self, records: Sequence[Record], ctx: RunContext) -> list[float]:
        """See `Drummer.bits`."""
        found = []
        for record in records:
            codes = self.tokenizer.encode(record.prompt + record.completion)
            first = len(self.tokenizer.encode(record.prompt))
            total = -sum(np.log2(self.probabilities(codes[:n])[codes[n]]) for n in range(first, len(codes)))
            found.append(float(total))
        return found
