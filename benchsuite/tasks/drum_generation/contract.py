"""What a drummer may import: the notation, its training records, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchsuite.core import Method, RunContext
from benchsuite.datasets.drums.drumroll import (
    BAR_LINES,
    BARS,
    END,
    FAMILIES,
    LINE,
    PROMPT_BARS,
    SEPARATOR,
    SILENT,
    WIDTH,
    Record,
    lines_of_text,
    played_lines,
    record_of,
    text_of,
)
from benchsuite.datasets.drums.midi import read_midi, write_midi

__all__ = [
    "BARS",
    "BAR_LINES",
    "END",
    "FAMILIES",
    "LINE",
    "PROMPT_BARS",
    "SEPARATOR",
    "SILENT",
    "WIDTH",
    "DrumComposer",
    "DrumGenerationProtocol",
    "Drummer",
    "Record",
    "TrainingGrooves",
    "lines_of_text",
    "played_lines",
    "read_midi",
    "record_of",
    "text_of",
    "write_midi",
]


@dataclass(frozen=True)
class DrumGenerationProtocol:
    """What belongs to neither drummer nor data.

    Attributes
    ----------
    metres
        ``all``, as published: grooves in 3/4 and 5/4 are learned from too, cut into 16 lines though these are no bars
        of theirs. ``four-four``: they are left out.
    soundfont
        A file that the audio is played with, through FluidSynth; empty: pretty_midi's own synthesiser. No number
        depends on it.
    """

    metres: Literal["all", "four-four"] = "all"
    soundfont: str = ""

    @property
    def dormant(self) -> tuple[str, ...]:
        """Names of the fields that change no number."""
        return ("soundfont",)


@dataclass(frozen=True)
class TrainingGrooves:
    """What may be learned from.

    Attributes
    ----------
    train
        To learn from.
    validation
        To look at while learning; recordings of other people's or other days' playing than those that are judged.
    """

    train: Sequence[Record]
    validation: Sequence[Record]


class Drummer(ABC):
    """A composer that has learned.

    Attributes
    ----------
    parameters
        Number of trainable parameters, or None.
    """

    parameters: int | None = None

    @abstractmethod
    def play(self, prompts: Sequence[str], ctx: RunContext) -> list[str]:
        """Return one completion for each prompt.

        Parameters
        ----------
        prompts
            Two bars of drumroll lines with ``SEP`` after each, as in `Record.prompt`.
        ctx
            Take seeds from ``ctx.seed_for("run", ...)`` and draw steps from ``ctx.steps``.

        Returns
        -------
        list of str
            Lines of up to fourteen bars with ``SEP`` between bars, ended by ``END``, as in `Record.completion`. Any
            text is judged; what is no line of a drumroll counts as such.
        """

    def bits(self, records: Sequence[Record], ctx: RunContext) -> list[float] | None:
        """Return for each record -log2 of the probability of its completion given its prompt.

        None if the drummer has no probabilities. Asked for after everything was played.
        """
        return None


class DrumComposer(Method):
    """A way to learn how drums go on."""

    @abstractmethod
    def fit(self, grooves: TrainingGrooves, ctx: RunContext) -> Drummer:
        """Return a drummer that has learned from the grooves.

        Parameters
        ----------
        grooves
            Records of the training recordings.
        ctx
            Take seeds from ``ctx.seed_for("run", ...)`` and draw steps from ``ctx.resumable``.
        """
