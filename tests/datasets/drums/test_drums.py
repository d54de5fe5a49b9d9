"""Drumroll texts and MIDI files: against mido and pretty_midi, the published counts, and broken files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pretty_midi")

import mido
import pretty_midi

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets.drums.drumroll import (
    END,
    FAMILIES,
    ROLAND,
    SEPARATOR,
    SILENT,
    bars_of,
    line_of_tick,
    lines_of_text,
    played_lines,
    record_of,
    stripped,
    text_of,
)
from benchsuite.datasets.drums.generated import load_generated
from benchsuite.datasets.drums.midi import OtherMetre, notes_of, read_midi, write_midi
from benchsuite.datasets.drums.midi_events import metre, read_events, strike, write_track
from benchsuite.datasets.drums.recordings import load_folder, load_groove, read_mapping

LINES = st.lists(st.text("o-", min_size=6, max_size=6), min_size=256, max_size=256)
HEADER = "drummer,session,id,style,bpm,beat_type,time_signature,midi_filename,audio_filename,duration,split"


def midi(*notes: tuple[int, int], signature: tuple[int, int] | None = (4, 4), ticks: int = 480) -> bytes:
    """Return a file with notes (tick, note) of 10 ticks."""
    events = [(0, metre(*signature))] if signature else []
    for tick, note in notes:
        events += strike(tick, 10, 9, note, 90)
    return write_track(events, ticks)


# --- quantisation and mapping ---------------------------------------------------------------------------


def test_ticks_belong_to_the_nearest_sixteenth_and_the_later_of_two() -> None:
    ticks = (0, 59, 60, 179, 180, 30_659, 30_660)
    assert [line_of_tick(tick, 480) for tick in ticks] == [0, 0, 1, 1, 2, 255, 256]
    for resolution in (24, 96, 220, 480, 960):
        for tick in range(0, 4 * resolution):
            assert line_of_tick(tick, resolution) == int((tick + resolution / 8) // (resolution / 4))


def test_the_first_note_behind_bar_16_and_all_after_it_are_left_out() -> None:
    roll = read_midi(midi((30_659, 36), (30_660, 36), (40_000, 38)), "x")
    assert roll.lines[255] == "---o--"
    assert (roll.hits, dict(roll.left_out)) == (1, {"after bar 16": 2})


def test_families_are_the_published_ones() -> None:
    expected = {
        0: {49, 55, 57, 52}, 1: {51, 53, 59}, 2: {38, 40, 37}, 3: {36},
        4: {42, 46, 22, 26}, 5: {50, 48, 47, 45, 43, 58},
    }  # fmt: skip
    for note in range(128):
        roll = read_midi(midi((0, note)), "x")
        columns = [column for column, notes in expected.items() if note in notes]
        assert roll.lines[0] == "".join("o" if column in columns else "-" for column in range(6))
        assert sum(roll.left_out.values()) == (not columns)
    assert {column: {n for n, c in ROLAND.items() if c == column} for column in range(6)} == expected
    assert read_midi(midi((0, 44), (0, 54)), "x").left_out == {"pedal hi-hat": 1, "unmapped": 1}


def test_metres() -> None:
    assert len(read_midi(midi((0, 36), signature=(3, 4)), "x").lines) == 192
    assert len(read_midi(midi((0, 36), signature=(5, 4)), "x").lines) == 320
    assert read_midi(midi((0, 36), signature=None), "x").numerator == 4
    with pytest.raises(OtherMetre, match="x: is in 6/8"):
        read_midi(midi((0, 36), signature=(6, 8)), "x")


def test_other_channels_are_counted_not_taken() -> None:
    content = write_track([*strike(0, 9, 0, 36, 90), *strike(0, 9, 9, 38, 90)], 480)
    roll = read_midi(content, "x")
    assert roll.lines[0] == "--o---"
    assert roll.left_out == {"other channel": 1}


# --- MIDI files -------------------------------------------------------------------------------------------


def events_by_mido(content: bytes) -> tuple[int, Any, list[tuple[int, int, int]]]:
    """Return what `read_events` should, by mido."""
    file = mido.MidiFile(file=io.BytesIO(content))
    tick, found, notes = 0, None, []
    for message in mido.merge_tracks(file.tracks):
        tick += message.time
        if message.type == "time_signature":
            found = (message.numerator, message.denominator)
        if message.type == "note_on" and message.velocity:
            notes.append((tick, message.channel, message.note))
    return file.ticks_per_beat, found, notes


TIMES, DATA = st.integers(0, 300_000), st.integers(0, 127)
MESSAGES = st.one_of(
    st.builds(
        mido.Message,
        st.sampled_from(["note_on", "note_off"]),
        channel=st.sampled_from([0, 9]),
        note=DATA,
        velocity=DATA,
        time=TIMES,
    ),
    st.builds(mido.Message, st.just("control_change"), value=DATA, time=TIMES),
    st.builds(mido.Message, st.just("pitchwheel"), pitch=st.integers(-8192, 8191), time=TIMES),
    st.builds(mido.Message, st.just("program_change"), program=DATA, time=TIMES),
    st.builds(mido.Message, st.just("sysex"), data=st.lists(DATA), time=TIMES),
    st.builds(
        mido.MetaMessage,
        st.just("time_signature"),
        numerator=st.integers(1, 9),
        denominator=st.sampled_from([1, 2, 4, 8]),
        time=TIMES,
    ),
    st.builds(mido.MetaMessage, st.just("text"), text=st.text("ab", max_size=300), time=TIMES),
)


@given(st.lists(st.lists(MESSAGES, max_size=12), min_size=1, max_size=3), st.integers(1, 960))
@settings(max_examples=60)
def test_events_equal_midos(tracks: list[list[Any]], ticks: int) -> None:
    file = mido.MidiFile(type=0 if len(tracks) == 1 else 1, ticks_per_beat=ticks)
    for messages in tracks:
        file.tracks.append(mido.MidiTrack([message.copy() for message in messages]))
    content = io.BytesIO()
    file.save(file=content)
    expected_ticks, expected_metre, expected_notes = events_by_mido(content.getvalue())
    found = read_events(content.getvalue(), "x")
    assert (found.ticks_per_beat, found.metre) == (expected_ticks, expected_metre)
    assert found.notes == expected_notes


def test_running_status_is_read() -> None:
    track = bytes.fromhex("00 99 24 40  78 26 40  78 24 00  00 ff 2f 00")
    content = b"MThd" + bytes.fromhex("00000006 0000 0001 01e0") + b"MTrk" + len(track).to_bytes(4, "big") + track
    assert read_events(content, "x").notes == [(0, 9, 36), (120, 9, 38)]


@given(LINES)
@settings(max_examples=15)
def test_text_to_midi_to_text_is_the_identity(lines: list[str]) -> None:
    content = write_midi(lines)
    assert list(read_midi(content, "x").lines) == lines
    song = pretty_midi.PrettyMIDI(io.BytesIO(content))
    notes = song.instruments[0].notes if song.instruments else []
    found = sorted((song.time_to_tick(note.start), note.pitch, note.velocity) for note in notes)
    assert found == sorted((tick, note, 100) for tick, note in notes_of(lines))


def test_other_metres_survive_the_round_trip() -> None:
    lines = ["---o--", *[SILENT] * 190, "o-----"]
    assert list(read_midi(write_midi(lines, numerator=3), "x").lines) == lines


def test_every_note_has_an_end_and_its_families_note() -> None:
    content = write_midi(["oooooo", SILENT, "-o----"])
    file = mido.MidiFile(file=io.BytesIO(content))
    kinds = [m.type for m in mido.merge_tracks(file.tracks) if m.type.startswith("note") and m.velocity]
    ends = [
        m for m in mido.merge_tracks(file.tracks) if m.type == "note_off" or (m.type == "note_on" and not m.velocity)
    ]
    assert (len(kinds), len(ends), file.ticks_per_beat) == (7, 7, 480)
    assert notes_of(["oooooo", SILENT, "-o----"]) == [(0, n) for n in (49, 51, 38, 36, 42, 50)] + [(240, 51)]


GOOD = midi((0, 36), (120, 38))
BROKEN = {
    "is empty": b"",
    "does not begin with MThd": b"RIFF" + GOOD,
    "broken MIDI header": GOOD[:10],
    "without a track": b"MThd" + bytes.fromhex("00000006 0001 0000 01e0"),
    "0 of 1 tracks": GOOD[:14],
    "cut short inside track 1": GOOD[:-3],
    "type 2": GOOD[:9] + b"\2" + GOOD[10:],
    "timed in seconds": GOOD[:12] + b"\xe7\x28" + GOOD[14:],
    "is no event": b"MThd" + bytes.fromhex("00000006 0000 0001 01e0") + b"MTrk" + bytes.fromhex("00000002 0012"),
    "inside an event": b"MThd" + bytes.fromhex("00000006 0000 0001 01e0") + b"MTrk" + bytes.fromhex("00000003 009924"),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_files_give_one_line(message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_midi(BROKEN[message], "file.mid")
    assert str(caught.value).startswith("file.mid")
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=60), st.integers(0, len(GOOD)))
@settings(max_examples=150)
def test_damaged_files_give_a_roll_or_one_line(noise: bytes, place: int) -> None:
    content = GOOD[:place] + noise + GOOD[place + len(noise) :]
    try:
        roll = read_midi(content, "x")
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert len(roll.lines) == 64 * roll.numerator


# --- texts and records ------------------------------------------------------------------------------------


def test_a_record_is_two_bars_and_the_rest() -> None:
    lines = ["---o--" if number % 16 == 0 else SILENT for number in range(256)]
    record = record_of("x", lines)
    assert record is not None
    bar = "---o--\n" + f"{SILENT}\n" * 15
    assert record.prompt == (bar + "SEP\n") * 2
    assert record.completion == (bar + "SEP\n") * 13 + bar + "END"
    assert (record.prompt.count("\n"), record.completion.count("\n") + 1) == (34, 238)
    assert record.lines == lines
    assert len(record.prompt + record.completion) == 1855


def test_silent_beginnings_go_bar_by_bar_and_short_records_with_them() -> None:
    bar, rest = ["---o--"] * 16, [SILENT] * 16
    assert stripped(rest * 3 + bar) == bar
    late = [SILENT] * 3 + ["---o--"] * 13  # three silent lines are not four
    assert stripped(late) == late
    assert stripped([SILENT] * 4 + ["---o--"] * 12) == []  # hits in a bar that begins silent go too
    assert record_of("x", rest * 8 + bar * 8) is None
    assert record_of("x", rest * 7 + bar * 9) is not None


def test_generated_text_loses_separators_and_what_follows_the_end() -> None:
    assert played_lines("o-----\nSEP\nzz\n" + END + "x\ny") == ["o-----", "zz"]
    assert bars_of(["a"] * 300)[-1] == ("a",) * 16
    assert len(bars_of(["a"] * 300)) == 16
    assert [len(bar) for bar in bars_of(["a"] * 17)] == [16, 1]


@pytest.mark.parametrize(
    ("text", "message"), [("", "is empty"), ("------\n-------\n", "line 2: '-------'"), ("oooXoo", "line 1")]
)
def test_texts_of_other_columns_are_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        lines_of_text(text, "x")


# --- data sets --------------------------------------------------------------------------------------------


def test_generated_grooves_have_patterns_of_their_own() -> None:
    data, again, other = load_generated(None, 3), load_generated(None, 3), load_generated(None, 4)
    assert data == again != other
    assert [len(data.of(part)) for part in ("train", "validation", "test")] == [160, 24, 36]
    assert data.left_out["notes: pedal hi-hat"] > 0
    records = [record_of(recording.name, recording.lines) for recording in data.recordings]
    assert all(record is not None for record in records)
    firsts = {part: {r.lines[16:32] for r in data.of(part)} for part in ("train", "test")}
    assert not firsts["train"] & firsts["test"]


def tree(root: Path, rows: list[str], files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    root.mkdir(parents=True, exist_ok=True)
    (root / "info.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return root


def row(name: str, split: str = "train", session: str = "drummer1/session1", kind: str = "beat") -> str:
    return f"drummer1,{session},x,rock/a,100,{kind},4-4,drummer1/session1/{name}.mid,,1.0,{split}"


def test_both_layouts_of_groove_are_read(tmp_path: Path) -> None:
    rows = [row("1_a"), row("2_b", "test"), row("3_c", kind="fill"), row("4_d", session="drummer1/eval_session")]
    rows.append(row("5_e", "validation"))
    six = midi((0, 36), signature=(6, 8))
    data = load_groove(
        tree(tmp_path, rows, {"drummer1/session1/1_a.mid": GOOD, "test/1_2_b.mid": GOOD, "dev/1_5_e.mid": six}), 0
    )
    assert [(r.name, r.part, r.style) for r in data.recordings] == [
        ("1_1_a", "train", "rock"),
        ("1_2_b", "test", "rock"),
    ]
    assert data.left_out == {
        "recordings of fills": 1,
        "recordings of other sessions": 1,
        "recordings in other metres": 1,
    }


def test_broken_folders_give_one_line(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match="--data-root"):
        load_groove(None, 0)
    with pytest.raises(DatasetNotFound, match=r"holds no info.csv"):
        load_groove(tmp_path, 0)
    with pytest.raises(DataError, match=r"info.csv: line 2: there is neither .*1_a.mid nor train/1_1_a.mid"):
        load_groove(tree(tmp_path / "a", [row("1_a")], {}), 0)
    with pytest.raises(DataError, match=r"line 2: split is 'dev'"):
        load_groove(tree(tmp_path / "b", [row("1_a", "dev")], {}), 0)
    with pytest.raises(DataError, match="1_1_a: is no MIDI file"):
        load_groove(tree(tmp_path / "c", [row("1_a")], {"train/1_1_a.mid": b"RIFF"}), 0)
    with pytest.raises(DataError, match="names no beat"):
        load_groove(tree(tmp_path / "d", [row("1_a", kind="fill")], {}), 0)
    with pytest.raises(DataError, match=r"needs a \.mid file below"):
        load_groove(tree(tmp_path / "e", [row("../../../1_a")], {}), 0)


def test_folders_of_ones_own_with_a_mapping(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match=r"holds no train/\*.mid"):
        load_folder(tmp_path, 0)
    for part in ("train", "validation", "test"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "same.mid").write_bytes(midi((0, 60)))
    assert load_folder(tmp_path, 0).left_out == {"notes: unmapped": 3}
    (tmp_path / "mapping.csv").write_text("note,family\n60,kick\n")
    data = load_folder(tmp_path, 0)
    assert [r.name for r in data.recordings] == ["train/same", "validation/same", "test/same"]
    assert data.recordings[0].lines[0] == "---o--"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("60,drum", "unknown"),
        ("128,kick", "outside"),
        ("60,kick\n60,tom", "twice"),
        ("", "has 0 rows"),
        ("a,kick", "whole"),
    ],
)
def test_broken_mappings_give_one_line(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "mapping.csv").write_text(f"note,family\n{rows}\n")
    with pytest.raises(DataError, match=message):
        read_mapping(tmp_path / "mapping.csv")
    assert len(FAMILIES) == 6


# --- the real recordings ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def groove(real_data: Path) -> Any:
    return load_groove(real_data / "groove_midi", 0)


@pytest.mark.real_data
def test_published_counts(groove: Any) -> None:
    assert len(groove.recordings) == 457
    assert groove.left_out["recordings in other metres"] == 6
    assert groove.left_out["recordings of fills"] == 647
    assert groove.left_out["recordings of other sessions"] == 40
    parts = ("train", "validation", "test")
    records = {part: [record_of(r.name, r.lines) for r in groove.of(part)] for part in parts}
    kept = {part: [record for record in found if record is not None] for part, found in records.items()}
    assert [len(records[part]) for part in parts] == [373, 47, 37]
    assert [len(kept[part]) for part in parts] == [372, 47, 37]
    assert [sum(len(r.prompt + r.completion) for r in kept[part]) for part in parts] == [677_764, 84_981, 67_127]
    (short,) = [r.name for r in groove.of("train") if record_of(r.name, r.lines) is None]
    assert short.startswith("7_22_rock_118")
    metres = [(r.part, r.numerator) for r in groove.recordings if r.numerator != 4]
    assert sorted(metres) == [("train", 3)] * 4 + [("train", 5)] + [("validation", 3)]
    late = [r.name for r in groove.recordings if list(r.lines[:4]) == [SILENT] * 4]
    assert len([name for name in late if name != short]) == 113
    assert max(len(r.prompt + r.completion) for found in kept.values() for r in found) == 2319


@pytest.mark.real_data
def test_punk_has_316_notes_that_pretty_midi_reads_back(groove: Any) -> None:
    (punk,) = [r for r in groove.recordings if r.name.startswith("1_35_punk")]
    song = pretty_midi.PrettyMIDI(io.BytesIO(write_midi(punk.lines)))
    assert len(song.instruments[0].notes) == len(notes_of(punk.lines)) == 316


@pytest.mark.real_data
def test_hit_rates_of_people(groove: Any) -> None:
    lines = [line for recording in groove.of("test") for line in record_of(recording.name, recording.lines).lines]
    rates = np.mean([[cell == "o" for cell in line] for line in lines], axis=0)
    unstripped = np.mean([[c == "o" for c in line] for r in groove.of("test") for line in r.lines], axis=0)
    expected = [0.008, 0.089, 0.230, 0.191, 0.261, 0.046]
    assert any(np.allclose(found, expected, atol=6e-4) for found in (rates, unstripped))


@pytest.mark.real_data
def test_a_real_file_reads_as_by_mido(real_data: Path) -> None:
    for path in sorted((real_data / "groove_midi/test").glob("1_*.mid"))[:3]:
        found = read_events(path.read_bytes(), path.name)
        assert (found.ticks_per_beat, found.metre, found.notes) == events_by_mido(path.read_bytes())


def test_text_of_ends_every_line() -> None:
    assert text_of(["a", "b"]) == "a\nb\n"
    assert SEPARATOR == "SEP"
