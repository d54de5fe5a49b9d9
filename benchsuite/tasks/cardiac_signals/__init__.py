"""Heart beats in electrocardiograms, and heart sounds in phonocardiograms."""

from __future__ import annotations

from benchsuite.core import Presentation, Publication, Ratio, TaskSpec

_INSTALL = "pip install 'benchsuite[cardio]'"

TASKS = (
    TaskSpec(
        name="qrs-detection",
        title="QRS detection in electrocardiograms",
        load="benchsuite.tasks.cardiac_signals.qrs_detection:QrsDetection",
        requires=("numpy", "scipy", "matplotlib"),
        install=_INSTALL,
        scaffold="benchsuite.tasks.cardiac_signals:qrs_scaffold.txt",
        shown=Presentation(
            headline=("f1_75ms", "f1_150ms"),
            names={
                "f1_75ms": "F1 at 75 ms",
                "f1_150ms": "F1 at 150 ms",
                "sensitivity_75ms": "Se at 75 ms",
                "positive_predictivity_75ms": "+P at 75 ms",
                "macro_f1_75ms": "macro F1 at 75 ms",
                "sensitivity_150ms": "Se at 150 ms",
                "positive_predictivity_150ms": "+P at 150 ms",
                "macro_f1_150ms": "macro F1 at 150 ms",
                "cpsc2019_qrs_accuracy": "CPSC QRS accuracy",
                "cpsc2019_heart_rate_score": "CPSC HR score",
            },
            items={
                "f1_75ms": Ratio(
                    table="records",
                    cluster="patient",
                    numerator={"tp_75ms": 2},
                    denominator={"tp_75ms": 2, "fp_75ms": 1, "fn_75ms": 1},
                )
            },
        ),
        published=Publication(seeds={"run": 8}),
    ),
    TaskSpec(
        name="heart-sound-segmentation",
        title="Segmentation of heart sounds in phonocardiograms",
        load="benchsuite.tasks.cardiac_signals.heart_sound_segmentation:HeartSoundSegmentation",
        requires=("numpy", "scipy", "matplotlib"),
        install=_INSTALL,
        scaffold="benchsuite.tasks.cardiac_signals:heart_sound_scaffold.txt",
        shown=Presentation(
            headline=("f1_60ms", "f1_100ms", "frame_accuracy"),
            names={
                "f1_60ms": "F1 at 60 ms",
                "f1_100ms": "F1 at 100 ms",
                "f1_s1_60ms": "S1 F1 at 60 ms",
                "f1_s2_60ms": "S2 F1 at 60 ms",
                "f1_s1_100ms": "S1 F1 at 100 ms",
                "f1_s2_100ms": "S2 F1 at 100 ms",
                "macro_f1_60ms": "macro F1 at 60 ms",
            },
            items={
                "f1_60ms": Ratio(
                    table="records",
                    cluster="patient",
                    numerator={"tp_60ms": 2},
                    denominator={"tp_60ms": 2, "fp_60ms": 1, "fn_60ms": 1},
                )
            },
        ),
        published=Publication(seeds={"run": 8}),
    ),
)
