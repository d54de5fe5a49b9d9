"""Recorded drum grooves as MIDI files: the Groove MIDI Dataset, folders of one's own, and a generated twin."""

from __future__ import annotations

from typing import Any

from benchsuite.core import DatasetSpec

_SHARED: dict[str, Any] = {
    "data_type": "benchsuite.datasets.drums.recordings:DrumRecordings",
    "requires": ("numpy", "pretty_midi"),
    "install": "pip install 'benchsuite[drums]'",
}

# The one copy: the generator reads it, and the data hash covers it.
GENERATED: dict[str, Any] = {
    "recordings": {"train": 160, "validation": 24, "test": 36},
    "bpm": [80, 160],
    "bar_variation": [0.1, 0.9],
    "cell_variation": 2,
    "fill_every": [2, 4, 8],
    "ghost": 0.5,
    "crash_after_fill": 0.6,
    "rest_before": 0.2,
    "stops_early": 0.3,
    "timing_ticks": 25,
    "pedal": 0.3,
}

DATASETS = (
    DatasetSpec(
        name="generated-grooves",
        version="1",
        title="Generated drum grooves: a pattern each, varied from bar to bar, with fills; written and read as MIDI",
        load="benchsuite.datasets.drums.generated:load_generated",
        embedded=True,
        licence="Apache-2.0",
        parameters=GENERATED,
        **_SHARED,
    ),
    DatasetSpec(
        name="groove",
        version="1",
        title="Groove MIDI Dataset 1.0.0: recordings of whole beats by ten drummers, sessions 1 to 3",
        load="benchsuite.datasets.drums.recordings:load_groove",
        homepage="https://magenta.tensorflow.org/datasets/groove",
        licence="CC BY 4.0",
        citation="J. Gillick et al.: Learning to Groove with Inverse Sequence Transformations, ICML 2019",
        files=("info.csv", "**/*.mid"),
        layout="info.csv beside drummerN/SESSION/*.mid as published, or {train,dev,test}/N_NAME.mid",
        **_SHARED,
    ),
    DatasetSpec(
        name="drum-midi",
        version="1",
        title="Drum MIDI files of one's own in folders train, validation and test",
        load="benchsuite.datasets.drums.recordings:load_folder",
        files=("*/*.mid",),
        optional_files=("mapping.csv",),
        layout="train/*.mid, validation/*.mid, test/*.mid; mapping.csv (note, family) if notes are not Roland's",
        **_SHARED,
    ),
)
