"""Between MIDI files and drumroll lines: ticks are read as they stand, notes written with an end."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pretty_midi

from benchsuite.core.errors import DataError
from benchsuite.datasets.drums.drumroll import (
    BARS,
    LINE,
    NOTES,
    PEDAL_HI_HAT,
    ROLAND,
    SILENT,
    WIDTH,
    line_of_tick,
)
from benchsuite.datasets.drums.midi_events import read_events

DRUM_CHANNEL = 9
TICKS = 480
TICKS_PER_LINE = TICKS // 4
NOTE_TICKS = 60
VELOCITY = 100
TEMPO = 120.0


@dataclass(frozen=True)
class Roll:
    """The drumroll of a file.

    Attributes
    ----------
    lines
        16 bars of lines.
    numerator
        Quarter notes in a bar.
    hits
        Notes that made a hit.
    left_out
        How many notes were not taken, by the reason: ``pedal hi-hat``, ``unmapped``, ``after bar 16``,
        ``other channel``.
    """

    lines: tuple[str, ...]
    numerator: int
    hits: int
    left_out: Mapping[str, int] = field(default_factory=dict)


class OtherMetre(DataError):
    """A metre that is not counted in quarter notes."""


def read_midi(content: bytes, what: str, families: Mapping[int, int] = ROLAND) -> Roll:
    """Return the drumroll of a MIDI file.

    Notes of the drum channel of all tracks count, whether or not they have an end; time is the sum of all delta times.
    A file that names no metre is in 4/4, as MIDI has it. The last metre holds for the whole file.

    Parameters
    ----------
    content
        Of a Standard MIDI File of type 0 or 1.
    what
        The file's name, for messages.
    families
        Note number to column.

    Raises
    ------
    OtherMetre
        If a bar is not counted in quarter notes.
    DataError
        If the content is empty, no such file, cut short, without a track, or timed in seconds. One line.
    """
    events = read_events(content, what)
    numerator, denominator = events.metre or (4, 4)
    if denominator != 4 or numerator < 1:
        raise OtherMetre(f"{what}: is in {numerator}/{denominator}, drumrolls need bars of quarter notes")
    total = BARS * 4 * numerator
    roll = [[False] * WIDTH for _ in range(total)]
    left_out: Counter[str] = Counter()
    hits = 0
    for place, (tick, channel, note) in enumerate(events.notes):
        line = line_of_tick(tick, events.ticks_per_beat)
        if line >= total:
            left_out["after bar 16"] = len(events.notes) - place
            break
        if channel != DRUM_CHANNEL:
            left_out["other channel"] += 1
        elif note in families:
            roll[line][families[note]] = True
            hits += 1
        else:
            left_out["pedal hi-hat" if note == PEDAL_HI_HAT else "unmapped"] += 1
    lines = tuple("".join("o" if hit else "-" for hit in line) for line in roll)
    return Roll(lines, numerator, hits, dict(left_out))


def notes_of(lines: Sequence[str]) -> list[tuple[int, int]]:
    """Return (tick, note) of every hit, 480 ticks a quarter note, line by line and column by column."""
    return [
        (TICKS_PER_LINE * number, NOTES[column])
        for number, line in enumerate(lines)
        for column, cell in enumerate(line)
        if cell == "o"
    ]


def midi_of(lines: Sequence[str], numerator: int = 4, bpm: float = TEMPO) -> pretty_midi.PrettyMIDI:
    """Return a song of one drum track: every hit a note of velocity 100 that ends 60 ticks later.

    Raises
    ------
    DataError
        For a line that is not six of ``o`` and ``-``.
    """
    for number, line in enumerate(lines, start=1):
        if not LINE.fullmatch(line):
            raise DataError(f"line {number} of a drumroll: {line[:20]!r} is not {WIDTH} columns of o and -")
    song = pretty_midi.PrettyMIDI(resolution=TICKS, initial_tempo=bpm)
    song.time_signature_changes.append(pretty_midi.TimeSignature(numerator, 4, 0.0))
    drums = pretty_midi.Instrument(program=0, is_drum=True, name="drums")
    second = 60.0 / bpm / TICKS
    for tick, note in notes_of(lines):
        drums.notes.append(pretty_midi.Note(VELOCITY, note, tick * second, (tick + NOTE_TICKS) * second))
    song.instruments.append(drums)
    return song


def write_midi(lines: Sequence[str], numerator: int = 4, bpm: float = TEMPO) -> bytes:
    """Return a Standard MIDI File of drumroll lines; see `midi_of`. Read again, it gives the lines of 16 bars."""
    file = io.BytesIO()
    midi_of(lines, numerator, bpm).write(file)
    return file.getvalue()


def playable(lines: Sequence[str]) -> list[str]:
    """Return generated lines as they sound: what is no line of a drumroll is a rest."""
    return [line if LINE.fullmatch(line) else SILENT for line in lines]
