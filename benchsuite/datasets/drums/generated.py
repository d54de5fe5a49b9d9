"""Made-up grooves: written as MIDI files with human timing, and read by the reader of real ones.

Each recording has a pattern of its own (so the splits share none): a kick, a back beat and a ride or hi-hat ostinato,
some with ghost notes. From bar to bar a few cells change, every second, fourth or eighth bar ends in a fill that leads
into a crash. Some begin with a silent bar, some stop early: as recordings of people do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchsuite.datasets.drums import GENERATED, midi_events
from benchsuite.datasets.drums.drumroll import (
    BAR_LINES,
    BARS,
    CRASH,
    HI_HAT,
    KICK,
    PEDAL_HI_HAT,
    RIDE,
    SNARE,
    TOM,
    WIDTH,
)
from benchsuite.datasets.drums.midi import DRUM_CHANNEL, NOTE_TICKS, TICKS, TICKS_PER_LINE
from benchsuite.datasets.drums.recordings import PARTS, DrumRecordings, Source, read_sources

Grid = NDArray[np.bool_]

# What a player's kit sends for a family.
_NOTES = {CRASH: (49, 55, 57), RIDE: (51, 59), SNARE: (38, 40), KICK: (36,), HI_HAT: (42, 22, 46), TOM: (43, 45, 48)}
_STYLES = ("eighths", "quarters", "sixteenths", "offbeats", "shuffle")
_OSTINATO = {
    "eighths": range(0, 16, 2),
    "quarters": range(0, 16, 4),
    "sixteenths": range(16),
    "offbeats": range(2, 16, 4),
    "shuffle": (0, 3, 4, 7, 8, 11, 12, 15),
}


def load_generated(root: Path | None, draw: int) -> DrumRecordings:
    """Return draw number ``draw`` of the generated recordings."""
    rng = np.random.default_rng([draw, 20])
    sources = []
    for part in PARTS:
        for number in range(GENERATED["recordings"][part]):
            style = _STYLES[int(rng.integers(len(_STYLES)))]
            content = _played(_groove(style, rng), rng)
            sources.append(Source(f"{part}_{number:03d}_{style}", part, style, content))
    return read_sources("generated-grooves", sources)


def _pattern(style: str, rng: np.random.Generator) -> Grid:
    """Return one bar of a groove, (16, 6)."""
    bar = np.zeros((BAR_LINES, WIDTH), dtype=bool)
    cymbal = RIDE if rng.random() < 0.3 else HI_HAT
    bar[list(_OSTINATO[style]), cymbal] = True
    bar[[4, 12], SNARE] = True
    if rng.random() < 0.25:  # half time
        bar[[4, 12], SNARE] = False
        bar[8, SNARE] = True
    bar[0, KICK] = True
    places = rng.choice(np.arange(1, BAR_LINES), size=int(rng.integers(1, 5)), replace=False)
    bar[places, KICK] = True
    if rng.random() < GENERATED["ghost"]:
        bar[rng.choice([1, 3, 6, 7, 9, 10, 11, 14, 15], size=2, replace=False), SNARE] = True
    return bar


def _fill(bar: Grid, rng: np.random.Generator) -> Grid:
    """Return the bar with its last half or quarter played on snare and toms."""
    filled = bar.copy()
    start = int(rng.choice([8, 12]))
    filled[start:, :] = False
    for line in range(start, BAR_LINES):
        if rng.random() < 0.8:
            filled[line, TOM if rng.random() < 0.6 else SNARE] = True
    return filled


def _varied(bar: Grid, rng: np.random.Generator) -> Grid:
    """Return the bar with up to two cells of kick, snare or hi-hat changed."""
    changed = bar.copy()
    for _ in range(int(rng.integers(1, GENERATED["cell_variation"] + 1))):
        line, column = int(rng.integers(BAR_LINES)), int(rng.choice([SNARE, KICK, HI_HAT]))
        changed[line, column] = ~changed[line, column]
    return changed


def _groove(style: str, rng: np.random.Generator) -> Grid:
    """Return 16 bars, (256, 6)."""
    pattern = _pattern(style, rng)
    low, high = GENERATED["bar_variation"]
    restless = rng.uniform(low, high)
    every = int(rng.choice(GENERATED["fill_every"]))
    bars = []
    after_fill = True
    for number in range(1, BARS + 1):
        bar = _varied(pattern, rng) if rng.random() < restless else pattern.copy()
        if after_fill and rng.random() < GENERATED["crash_after_fill"]:
            bar[0, CRASH] = True
        after_fill = number % every == 0
        bars.append(_fill(bar, rng) if after_fill else bar)
    if rng.random() < GENERATED["rest_before"]:
        bars = [np.zeros_like(bars[0]), *bars[:-1]]
    if rng.random() < GENERATED["stops_early"]:
        for bar in bars[int(rng.integers(10, BARS)) :]:
            bar[:] = False
    return np.concatenate(bars)


def _played(groove: Grid, rng: np.random.Generator) -> bytes:
    """Return a MIDI file in which a person plays the groove: early and late, loud and soft, pedals included."""
    bpm = int(rng.integers(GENERATED["bpm"][0], GENERATED["bpm"][1] + 1))
    events = [(0, midi_events.metre(4, 4)), (0, midi_events.tempo(bpm))]
    late = GENERATED["timing_ticks"]
    for line, column in zip(*np.nonzero(groove), strict=True):
        note = int(rng.choice(_NOTES[int(column)]))
        tick = max(0, TICKS_PER_LINE * int(line) + int(rng.integers(-late, late + 1)))
        events += midi_events.strike(tick, NOTE_TICKS, DRUM_CHANNEL, note, int(rng.integers(30, 127)))
    if rng.random() < GENERATED["pedal"]:
        for line in range(4, len(groove), 8):
            events += midi_events.strike(TICKS_PER_LINE * line, NOTE_TICKS, DRUM_CHANNEL, PEDAL_HI_HAT, 40)
    return midi_events.write_track(events, TICKS)
