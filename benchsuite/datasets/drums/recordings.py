"""Reading folders of drum MIDI files into drumroll texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from benchsuite.core.columns import read_rows
from benchsuite.core.errors import DataError, DatasetNotFound, did_you_mean
from benchsuite.datasets.drums.drumroll import FAMILIES, ROLAND
from benchsuite.datasets.drums.midi import OtherMetre, Roll, read_midi

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

_COLUMNS = ("drummer", "session", "id", "style", "bpm", "beat_type", "time_signature", "midi_filename", "split")
_SESSIONS = ("session1", "session2", "session3")
_FLAT = {"train": "train", "validation": "dev", "test": "test"}


@dataclass(frozen=True)
class Recording:
    """One recorded groove.

    Attributes
    ----------
    name, part, style
        Unique name, the split, and the kind of music ("" if unknown).
    lines
        Drumroll of 16 bars.
    numerator
        Quarter notes in a bar.
    """

    name: str
    part: Part
    style: str
    lines: tuple[str, ...]
    numerator: int = 4


@dataclass(frozen=True)
class DrumRecordings:
    """A set of recordings.

    Attributes
    ----------
    name
        Of the data set.
    recordings
        In the order of their names, each part by itself.
    left_out
        How many recordings or notes were not taken, by the reason.
    """

    name: str
    recordings: tuple[Recording, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def of(self, part: Part) -> list[Recording]:
        """Return the recordings of a split."""
        return [recording for recording in self.recordings if recording.part == part]


@dataclass(frozen=True)
class Source:
    """A MIDI file before it is read."""

    name: str
    part: Part
    style: str
    content: bytes


def read_sources(name: str, sources: Iterable[Source], families: Mapping[int, int] = ROLAND) -> DrumRecordings:
    """Return the recordings of MIDI files; those in other metres are counted and left out.

    Raises
    ------
    DataError
        For a file that cannot be read, or a name that two files have.
    """
    left_out: Counter[str] = Counter()
    recordings: dict[str, Recording] = {}
    for source in sorted(sources, key=lambda source: (PARTS.index(source.part), source.name)):
        if source.name in recordings:
            raise DataError(f"{name}: two recordings are called {source.name}")
        try:
            roll: Roll = read_midi(source.content, source.name, families)
        except OtherMetre:
            left_out["recordings in other metres"] += 1
            continue
        for reason, count in roll.left_out.items():
            left_out[f"notes: {reason}"] += count
        recordings[source.name] = Recording(source.name, source.part, source.style, roll.lines, roll.numerator)
    return DrumRecordings(name, tuple(recordings.values()), dict(sorted(left_out.items())))


def load_groove(root: Path | None, draw: int) -> DrumRecordings:
    """Return the beats of sessions 1 to 3 of the Groove MIDI Dataset; fills and the evaluation session are left out.

    Raises
    ------
    DatasetNotFound
        Without a folder, or without ``info.csv`` in it.
    DataError
        For a broken table, or a file that it names and that is missing or broken.
    """
    if root is None:
        raise DatasetNotFound("give the folder with the Groove MIDI Dataset: --data-root DIR")
    table = root / "info.csv"
    if not table.is_file():
        raise DatasetNotFound(f"{root}: holds no info.csv, the table of the Groove MIDI Dataset")
    sources, skipped = [], Counter[str]()
    for row in read_rows(table, _COLUMNS, others=True):
        cells = row.cells
        part = cells["split"]
        if part not in PARTS:
            raise row.wrong(f"split is {part!r}{did_you_mean(part, PARTS)}")
        if cells["beat_type"] != "beat":
            skipped["recordings of fills"] += 1
            continue
        if PurePosixPath(cells["session"]).name not in _SESSIONS:
            skipped["recordings of other sessions"] += 1
            continue
        listed = PurePosixPath(cells["midi_filename"])
        if listed.is_absolute() or ".." in listed.parts or listed.suffix not in (".mid", ".midi"):
            raise row.wrong(f"midi_filename is {str(listed)!r}, needs a .mid file below the folder")
        flat = f"{cells['drummer'].removeprefix('drummer')}_{listed.name}"
        places = (root / listed, root / _FLAT[part] / flat)
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise row.wrong(f"there is neither {listed} nor {_FLAT[part]}/{flat}")
        sources.append(Source(PurePosixPath(flat).stem, part, cells["style"].partition("/")[0], path.read_bytes()))
    if not sources:
        raise DataError(f"{table}: names no beat of the sessions 1 to 3")
    found = read_sources("groove", sources)
    return DrumRecordings(found.name, found.recordings, {**dict(sorted(skipped.items())), **found.left_out})


def load_folder(root: Path | None, draw: int) -> DrumRecordings:
    """Return the recordings of a folder with the folders train, validation and test.

    ``mapping.csv`` beside them (columns note, family) says what belongs to which drum family; the default is
    Roland's notes.

    Raises
    ------
    DatasetNotFound
        Without a folder, or where a part has no file.
    DataError
        For a broken file, a broken mapping, or files that have the same name.
    """
    if root is None:
        raise DatasetNotFound("give the folder with train/, validation/ and test/ of MIDI files: --data-root DIR")
    sources = []
    for part in PARTS:
        paths = sorted((root / part).glob("*.mid"))
        if not paths:
            raise DatasetNotFound(f"{root}: holds no {part}/*.mid")
        sources += [Source(f"{part}/{path.stem}", part, "", path.read_bytes()) for path in paths]
    mapping = root / "mapping.csv"
    return read_sources("drum-midi", sources, read_mapping(mapping) if mapping.is_file() else ROLAND)


def read_mapping(path: Path) -> dict[int, int]:
    """Return note number to column from a CSV with the columns note and family.

    Raises
    ------
    DataError
        For a note that is none or stands there twice, an unknown family, or no row at all (`read_rows`).
    """
    families: dict[int, int] = {}
    for row in read_rows(path, ["note", "family"]):
        note, family = row.whole("note"), row.cells["family"]
        if not 0 <= note <= 127:
            raise row.wrong(f"note {note} is outside 0 .. 127")
        if note in families:
            raise row.wrong(f"note {note} stands there twice")
        if family not in FAMILIES:
            raise row.wrong(f"family {family!r} is unknown{did_you_mean(family, FAMILIES)}")
        families[note] = FAMILIES.index(family)
    return families
