"""Drumroll text: one line a sixteenth note, one column a drum family, ``o`` a hit, ``-`` a rest.

A text is always 16 bars: 16 x 4 x numerator lines. A *record* is what language models learn: silent bars at the
beginning gone, ``SEP`` after every 16 lines, cut into a prompt of two bars and a completion that ends with ``END``.

Source: midi_to_text.py and text_to_data.py of the repository zharry29/drums-with-llm (formats; not their code).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchsuite.core.errors import DataError

BARS = 16
BAR_LINES = 16
PROMPT_BARS = 2
SEPARATOR, END = "SEP", "END"
FAMILIES = ("crash", "ride", "snare", "kick", "hi-hat", "tom")
CRASH, RIDE, SNARE, KICK, HI_HAT, TOM = range(6)
WIDTH = len(FAMILIES)
SILENT = "-" * WIDTH
PEDAL_HI_HAT = 44
# Roland TD-11's notes of each family; 44, 54, 56 and 39 belong to none.
ROLAND: Mapping[int, int] = {
    **dict.fromkeys((49, 52, 55, 57), CRASH),
    **dict.fromkeys((51, 53, 59), RIDE),
    **dict.fromkeys((37, 38, 40), SNARE),
    **dict.fromkeys((36,), KICK),
    **dict.fromkeys((22, 26, 42, 46), HI_HAT),
    **dict.fromkeys((43, 45, 47, 48, 50, 58), TOM),
}
# The note that stands for a family when a text is played.
NOTES = (49, 51, 38, 36, 42, 50)
LINE = re.compile(f"[o-]{{{WIDTH}}}")
_SHORTEST = 128  # a record has more lines than that


@dataclass(frozen=True)
class Record:
    """What a language model sees of a recording.

    Attributes
    ----------
    name
        Of the recording.
    prompt
        Two bars of lines, each bar followed by a line ``SEP``; ends with a line end.
    completion
        The other bars, ``SEP`` between them, then ``END`` without a line end.
    """

    name: str
    prompt: str
    completion: str

    @property
    def lines(self) -> list[str]:
        """Return the lines of prompt and completion without separators."""
        return played_lines(self.prompt + self.completion)


def line_of_tick(tick: int, ticks_per_beat: int) -> int:
    """Return the sixteenth that a tick belongs to: the nearest, and the later one of two.

    floor((tick + T / 8) / (T / 4)) in whole numbers, T being the ticks of a quarter note.
    """
    return (8 * tick + ticks_per_beat) // (2 * ticks_per_beat)


def text_of(lines: Sequence[str]) -> str:
    """Return a text: every line ended by a line feed."""
    return "".join(line + "\n" for line in lines)


def lines_of_text(text: str, what: str) -> list[str]:
    """Return the lines of a drumroll text, which must be one.

    Raises
    ------
    DataError
        One line: no line at all, or the number of the first line that is not six of ``o`` and ``-``.
    """
    lines = text.splitlines()
    if not lines:
        raise DataError(f"{what}: is empty, needs lines of {WIDTH} columns of o and -")
    for number, line in enumerate(lines, start=1):
        if not LINE.fullmatch(line):
            shown = line if len(line) <= 20 else line[:17] + "..."
            raise DataError(f"{what}: line {number}: {shown!r} is not {WIDTH} columns of o and -")
    return lines


def stripped(lines: Sequence[str]) -> list[str]:
    """Return the lines without silent bars at the beginning.

    While the first four lines are silent, 16 lines go: what the official code takes for a silent bar.
    """
    kept = list(lines)
    while kept and kept[:4] == [SILENT] * 4:
        kept = kept[BAR_LINES:]
    return kept


def record_of(name: str, lines: Sequence[str]) -> Record | None:
    """Return the record of a text, or None if no more than eight bars are left of it.

    Trailing silent bars stay. The line ends at both sides of the completion go, and ``END`` stands on a line of
    its own, as in the released files.
    """
    kept = stripped(lines)
    if len(kept) <= _SHORTEST:
        return None
    bars = [kept[first : first + BAR_LINES] for first in range(0, len(kept), BAR_LINES)]
    texts = [text_of([*bar, SEPARATOR]) if len(bar) == BAR_LINES else text_of(bar) for bar in bars]
    completion = "".join(texts[PROMPT_BARS:]).strip("SEP\n")
    return Record(name, "".join(texts[:PROMPT_BARS]), f"{completion}\n{END}")


def played_lines(text: str) -> list[str]:
    """Return the lines of a generated text: up to ``END``, without separators; lines may be anything.

    What a broken-off last line holds counts as a line.
    """
    return text.partition(END)[0].replace(SEPARATOR + "\n", "").splitlines()


def bars_of(lines: Sequence[str], bars: int = BARS) -> list[tuple[str, ...]]:
    """Return the lines 16 by 16, at most ``bars`` of them; the last one may be shorter."""
    return [tuple(lines[first : first + BAR_LINES]) for first in range(0, min(len(lines), bars * BAR_LINES), BAR_LINES)]
