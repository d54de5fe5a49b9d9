"""Examples for people: piano rolls beside what people played, MIDI files, and sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchsuite.core import ConfigError, RunContext
from benchsuite.datasets.drums.drumroll import BAR_LINES, BARS, FAMILIES, PROMPT_BARS, Record, bars_of, played_lines
from benchsuite.datasets.drums.midi import midi_of, playable, write_midi
from benchsuite.metrics.drum_grooves import hits_of
from benchsuite.tasks.drum_generation.judge import Played

__all__ = ["draw_rolls", "keep_examples", "sound"]

_EXAMPLES = 3
_AUDIO_BARS = 4
_RATE = 22_050
# For the built-in synthesiser, which plays pitches only: what each family sounds like.
_PITCHES = {49: 84, 51: 79, 38: 57, 36: 36, 42: 91, 50: 48}


def keep_examples(ctx: RunContext, played: Sequence[Played], records: Sequence[Record], soundfont: str) -> None:
    """Keep of three grooves a picture, MIDI files of what was played, and of the first one a few bars of sound."""
    chosen = np.unique(np.linspace(0, len(played) - 1, min(_EXAMPLES, len(played))).round().astype(int))
    pairs = [(played[index], records[index]) for index in chosen]
    draw_rolls(ctx.artifact("grooves.png"), pairs)
    for number, (groove, record) in enumerate(pairs, start=1):
        lines = playable(played_lines(groove.prompt + groove.completion))[: BARS * BAR_LINES]
        ctx.artifact(f"groove-{number}.mid").write_bytes(write_midi(lines))
        ctx.artifact(f"groove-{number}-human.mid").write_bytes(write_midi(record.lines))
    first = playable(played_lines(pairs[0][0].prompt + pairs[0][0].completion))
    sound(ctx.artifact("groove-1.wav"), first[: _AUDIO_BARS * BAR_LINES], soundfont)


def draw_rolls(path: Path, pairs: Sequence[tuple[Played, Record]]) -> None:
    """Write a PNG: for each groove what was played and what people played, the prompt shaded."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 1.7 * 2 * len(pairs)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 * len(pairs), 1, squeeze=False)[:, 0]
    for place, (groove, record) in enumerate(pairs):
        for row, (lines, title) in enumerate(
            ((played_lines(groove.prompt + groove.completion), "played"), (record.lines, "human"))
        ):
            _draw_roll(axes[2 * place + row], lines, f"{record.name}: {title}")
    figure.savefig(path, dpi=80, metadata={"Software": None})


def _draw_roll(axis: Any, lines: Sequence[str], title: str) -> None:
    bars = bars_of(list(lines))
    roll = np.zeros((BARS * BAR_LINES, len(FAMILIES)))
    for number, bar in enumerate(bars):
        roll[number * BAR_LINES : number * BAR_LINES + len(bar)] = hits_of(bar)
    axis.imshow(roll.T, aspect="auto", cmap="Greys", interpolation="nearest", origin="upper")
    axis.axvspan(-0.5, PROMPT_BARS * BAR_LINES - 0.5, color="tab:blue", alpha=0.15)
    axis.set_xticks(np.arange(BARS) * BAR_LINES - 0.5, [str(bar) for bar in range(1, BARS + 1)])
    axis.set_yticks(range(len(FAMILIES)), FAMILIES)
    axis.grid(axis="x", color="tab:blue", linewidth=0.4)
    axis.set_title(title, fontsize=8, loc="left")
    axis.tick_params(labelsize=7)


def sound(path: Path, lines: Sequence[str], soundfont: str = "") -> None:
    """Write drumroll lines as a mono WAV file of 16 bits at 22,050 Hz.

    Parameters
    ----------
    soundfont
        For FluidSynth. Without one pretty_midi's own synthesiser plays, which leaves drums out: each family gets
        a pitch instead.

    Raises
    ------
    ConfigError
        If the soundfont or FluidSynth is missing.
    """
    from scipy.io import wavfile

    song = midi_of(lines)
    if soundfont:
        if not Path(soundfont).is_file():
            raise ConfigError(f"task.soundfont={soundfont}: there is no such file")
        try:
            waves = song.fluidsynth(fs=_RATE, sf2_path=soundfont)
        except ImportError:
            raise ConfigError("task.soundfont needs the library pyfluidsynth and FluidSynth itself") from None
    else:
        for instrument in song.instruments:
            instrument.is_drum = False
            for note in instrument.notes:
                note.pitch = _PITCHES[note.pitch]
        waves = song.synthesize(fs=_RATE)
    peak = float(np.abs(waves).max(initial=0.0))
    samples = waves if peak == 0 else 0.9 * waves / peak
    wavfile.write(path, _RATE, np.round(32767 * samples).astype(np.int16))
