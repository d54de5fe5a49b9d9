"""Drum generation: two bars of drums in, fourteen out."""

from __future__ import annotations

from benchsuite.core import Presentation, Publication, Ratio, TaskSpec

TASKS = (
    TaskSpec(
        name="drum-generation",
        title="Continuation of drum grooves",
        load="benchsuite.tasks.drum_generation.task:DrumGeneration",
        requires=("numpy", "rapidfuzz", "pretty_midi", "matplotlib", "scipy", "sklearn"),
        install="pip install 'benchsuite[drums]'",
        scaffold="benchsuite.tasks.drum_generation:scaffold.txt",
        shown=Presentation(
            headline=("stability_w1", "stability_w1_floor", "new_bar_rate", "bits_per_character"),
            names={
                "stability_w1": "W1 of stability to human",
                "stability_w1_floor": "human halves (floor)",
                "stability_w1_official": "W1 of stability, official bars",
                "bits_per_character": "bits/character",
                "new_bar_rate": "new valid bars",
                "hit_rate_l1": "L1 of hit rates",
            },
            items={
                "bits_per_character": Ratio(
                    table="grooves", cluster="groove", numerator={"bits": 1}, denominator={"characters": 1}
                )
            },
        ),
        published=Publication(seeds={"run": 21}),
    ),
)
