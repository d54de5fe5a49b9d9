"""Drums: stability by rapidfuzz beside a plain table of edits, reading MIDI events beside mido, in the same process.

python benchmarks/bench_drums.py
"""

from __future__ import annotations

import io
import itertools
import time

import mido
import numpy as np

from benchsuite.datasets.drums.drumroll import bars_of
from benchsuite.datasets.drums.generated import load_generated
from benchsuite.datasets.drums.midi import write_midi
from benchsuite.datasets.drums.midi_events import read_events
from benchsuite.metrics.drum_grooves import bar_text, stability

GROOVES, FILES, ROUNDS = 3, 20, 3


def seconds(call) -> float:
    """Return the least CPU time of several calls."""
    best = float("inf")
    for _ in range(ROUNDS):
        before = time.process_time()
        call()
        best = min(best, time.process_time() - before)
    return best


def plain(bars) -> list[int]:
    """Return stabilities by the textbook's table, row by row."""
    steps = []
    for a, b in itertools.pairwise(map(bar_text, bars)):
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, start=1):
            before, row[0] = row[0], i
            for j, y in enumerate(b, start=1):
                before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
        steps.append(row[-1])
    return [min(left, right) for left, right in itertools.pairwise(steps)]


def by_mido(content: bytes) -> list[tuple[int, int]]:
    """Return tick and note of every note-on."""
    tick, notes = 0, []
    for message in mido.merge_tracks(mido.MidiFile(file=io.BytesIO(content)).tracks):
        tick += message.time
        if message.type == "note_on" and message.velocity:
            notes.append((tick, message.note))
    return notes


def main() -> None:
    """Print CPU seconds and the ratios."""
    recordings = load_generated(None, 0).of("test")
    grooves = [bars_of(list(recording.lines)) for recording in recordings[:GROOVES]]
    assert [stability(bars) for bars in grooves] == [plain(bars) for bars in grooves]
    ours, theirs = (seconds(lambda f=f: [f(bars) for bars in grooves]) for f in (stability, plain))
    print(f"stability of {GROOVES} grooves: ours {ours:.5f} s, plain {theirs:.3f} s, {theirs / ours:.0f} times as fast")
    files = [write_midi(recording.lines) for recording in recordings[:FILES]]
    for content in files:
        assert np.array_equal([(t, n) for t, _, n in read_events(content, "x").notes], by_mido(content))
    ours = seconds(lambda: [read_events(content, "x") for content in files])
    theirs = seconds(lambda: [by_mido(content) for content in files])
    print(f"events of {FILES} files: ours {ours:.4f} s, mido {theirs:.3f} s, {theirs / ours:.0f} times as fast")


if __name__ == "__main__":
    main()
