"""Events of Standard MIDI Files: what a drumroll needs, read and written fast.

A reading of the whole Groove MIDI Dataset takes mido half a minute of CPU, and every run begins with one. Tests hold
the events against mido's. Source: Standard MIDI Files 1.0 (MIDI Manufacturers Association).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from benchsuite.core.errors import DataError

_DATA_BYTES = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}
_META, _END_OF_TRACK, _TIME_SIGNATURE = 0xFF, 0x2F, 0x58
_SYSEX = (0xF0, 0xF7)


@dataclass(frozen=True)
class MidiEvents:
    """What sounds, and in which metre.

    Attributes
    ----------
    ticks_per_beat
        Of a quarter note.
    metre
        Numerator and denominator of the last time signature, or None if there is none.
    notes
        (tick, channel, note) of every note-on with a velocity, by time; at one tick in the order of tracks.
    """

    ticks_per_beat: int
    metre: tuple[int, int] | None
    notes: list[tuple[int, int, int]]


def read_events(content: bytes, what: str) -> MidiEvents:
    """Return the note-ons and the metre of a Standard MIDI File of type 0 or 1.

    Raises
    ------
    DataError
        If the content is empty, no such file, cut short, without a track, or timed in seconds. One line.
    """
    if not content:
        raise DataError(f"{what}: is empty, needs a MIDI file")
    if content[:4] != b"MThd":
        raise DataError(f"{what}: is no MIDI file, it does not begin with MThd")
    length = int.from_bytes(content[4:8], "big")
    if length < 6 or len(content) < 8 + length:
        raise DataError(f"{what}: has a broken MIDI header")
    kind, count, division = (int.from_bytes(content[at : at + 2], "big") for at in (8, 10, 12))
    if kind not in (0, 1):
        raise DataError(f"{what}: is a MIDI file of type {kind}, needs type 0 or 1")
    if count == 0:
        raise DataError(f"{what}: is a MIDI file without a track")
    if division == 0 or division & 0x8000:
        raise DataError(f"{what}: is timed in seconds, needs ticks of a quarter note")
    tracks: list[list[tuple[int, int, int]]] = []
    metres: list[tuple[int, tuple[int, int]]] = []
    at = 8 + length
    while len(tracks) < count:
        if at + 8 > len(content):
            raise DataError(f"{what}: is cut short, {len(tracks)} of {count} tracks are there")
        size = int.from_bytes(content[at + 4 : at + 8], "big")
        body = content[at + 8 : at + 8 + size]
        if len(body) < size:
            raise DataError(f"{what}: is cut short inside track {len(tracks) + 1}")
        if content[at : at + 4] == b"MTrk":  # the standard has readers skip other chunks
            notes, signatures = _track(body, f"{what}: track {len(tracks) + 1}")
            tracks.append(notes)
            metres += signatures
        at += 8 + size
    last = max(reversed(metres), key=lambda found: found[0], default=None)
    merged = tracks[0] if len(tracks) == 1 else list(heapq.merge(*tracks, key=lambda note: note[0]))
    return MidiEvents(division, last and last[1], merged)


def _track(body: bytes, what: str) -> tuple[list[tuple[int, int, int]], list[tuple[int, tuple[int, int]]]]:
    """Return the note-ons and the (tick, metre) of a track."""
    notes, metres = [], []
    at = tick = status = 0
    try:
        while at < len(body):
            delta, at = _number(body, at)
            tick += delta
            if body[at] & 0x80:
                status = body[at]
                at += 1
            if status in (_META, *_SYSEX):
                meta = body[at] if status == _META else 0
                size, at = _number(body, at + (status == _META))
                if at + size > len(body):
                    raise IndexError
                if status == _META and meta == _TIME_SIGNATURE and size >= 2:
                    metres.append((tick, (body[at], 1 << body[at + 1])))
                at += size
                if status == _META and meta == _END_OF_TRACK:
                    break
                status = 0  # running status ends here
                continue
            if status >> 4 not in _DATA_BYTES:
                raise DataError(f"{what}: byte {at} is no event")
            if status >> 4 == 0x9:
                note, velocity = body[at], body[at + 1]
                if (note | velocity) & 0x80:
                    raise DataError(f"{what}: byte {at} is no note and velocity of 0 to 127")
                if velocity:
                    notes.append((tick, status & 0x0F, note))
            at += _DATA_BYTES[status >> 4]
            if at > len(body):
                raise IndexError
    except IndexError:
        raise DataError(f"{what}: is cut short inside an event") from None
    return notes, metres


def _number(body: bytes, at: int) -> tuple[int, int]:
    """Return a variable-length quantity and where it ends."""
    value = body[at] & 0x7F
    while body[at] & 0x80:
        at += 1
        value = value << 7 | body[at] & 0x7F
    return value, at + 1


def write_track(events: Iterable[tuple[int, bytes]], ticks_per_beat: int) -> bytes:
    """Return a file of type 0 of events with the ticks at which they happen; equal ticks keep their order."""
    body, before = bytearray(), 0
    for tick, message in sorted(events, key=lambda event: event[0]):
        body += _quantity(tick - before) + message
        before = tick
    body += bytes((0, _META, _END_OF_TRACK, 0))
    header = b"MThd" + (6).to_bytes(4, "big") + b"".join(n.to_bytes(2, "big") for n in (0, 1, ticks_per_beat))
    return header + b"MTrk" + len(body).to_bytes(4, "big") + bytes(body)


def _quantity(value: int) -> bytes:
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(value & 0x7F | 0x80)
    return bytes(reversed(parts))


def metre(numerator: int, denominator: int) -> bytes:
    """Return a time signature; the denominator is a power of two."""
    return bytes((_META, _TIME_SIGNATURE, 4, numerator, denominator.bit_length() - 1, 24, 8))


def tempo(bpm: float) -> bytes:
    """Return a tempo in quarter notes a minute."""
    return bytes((_META, 0x51, 3)) + round(60_000_000 / bpm).to_bytes(3, "big")


def strike(tick: int, length: int, channel: int, note: int, velocity: int) -> list[tuple[int, bytes]]:
    """Return a note and its end."""
    return [(tick, bytes((0x90 | channel, note, velocity))), (tick + length, bytes((0x80 | channel, note, 64)))]
