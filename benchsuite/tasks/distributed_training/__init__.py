"""The tasks on data-parallel training."""

from __future__ import annotations

from benchsuite.core import Presentation, Publication, TaskSpec

_INSTALL = "pip install 'benchsuite[distributed]'"

TASKS = (
    TaskSpec(
        name="distributed-training",
        title="Data-parallel training with less communication",
        load="benchsuite.tasks.distributed_training.distributed_training:DistributedTraining",
        requires=("numpy", "torch"),
        install=_INSTALL,
        scaffold="benchsuite.tasks.distributed_training:scaffold.txt",
        shown=Presentation(
            headline=("bytes_per_step", "accuracy", "steps_per_s"),
            names={"bytes_per_step": "sent a step", "formula_bytes_per_step": "by formula", "steps_per_s": "steps"},
            exact=("bytes_per_step", "formula_bytes_per_step"),
            cost="peak_memory",
        ),
        # Bytes and accuracy of four ranks: between two, one peer is all peers, and both neighbours on a ring are one.
        # Speed of two: four would share the two cores that the suite is made for.
        published=Publication(seeds={"run": 11}, protocols=({"world_size": 4}, {"world_size": 2})),
    ),
    TaskSpec(
        name="distributed-training-simulated",
        title="Data-parallel training on many workers, simulated",
        load="benchsuite.tasks.distributed_training.distributed_training_simulated:DistributedTrainingSimulated",
        requires=("numpy", "torch", "altair", "vl_convert"),
        install=_INSTALL,
        scaffold="benchsuite.tasks.distributed_training:simulated_scaffold.txt",
        shown=Presentation(
            headline=("epoch_time", "accuracy", "bytes_per_step"),
            names={"bytes_per_step": "sent a step"},
            exact=("bytes_per_step", "epoch_time"),
        ),
        published=Publication(seeds={"run": 14}),
    ),
)
