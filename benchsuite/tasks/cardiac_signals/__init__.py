"""Heart beats in electrocardiograms, and heart sounds in phonocardiograms."""

from __future__ import annotations

from benchsuite.core import TaskSpec

_INSTALL = "pip install 'benchsuite[cardio]'"

TASKS = (
    TaskSpec(
        name="qrs-detection",
        title="QRS detection in electrocardiograms",
        load="benchsuite.tasks.cardiac_signals.qrs_detection:QrsDetection",
        requires=("numpy", "scipy", "matplotlib"),
        install=_INSTALL,
        scaffold="benchsuite.tasks.cardiac_signals:qrs_scaffold.txt",
    ),
    TaskSpec(
        name="heart-sound-segmentation",
        title="Segmentation of heart sounds in phonocardiograms",
        load="benchsuite.tasks.cardiac_signals.heart_sound_segmentation:HeartSoundSegmentation",
        requires=("numpy", "scipy", "matplotlib"),
        install=_INSTALL,
        scaffold="benchsuite.tasks.cardiac_signals:heart_sound_scaffold.txt",
    ),
)
