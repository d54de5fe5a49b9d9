"""The tasks on data-parallel training."""

from __future__ import annotations

from benchsuite.core import TaskSpec

_INSTALL = "pip install 'benchsuite[distributed]'"

TASKS = (
    TaskSpec(
        name="distributed-training",
        title="Data-parallel training with less communication",
        load="benchsuite.tasks.distributed_training.distributed_training:DistributedTraining",
        requires=("numpy", "torch"),
        install=_INSTALL,
        scaffold="benchsuite.tasks.distributed_training:scaffold.txt",
    ),
    TaskSpec(
        name="distributed-training-simulated",
        title="Data-parallel training on many workers, simulated",
        load="benchsuite.tasks.distributed_training.distributed_training_simulated:DistributedTrainingSimulated",
        requires=("numpy", "torch", "altair", "vl_convert"),
        install=_INSTALL,
        scaffold="benchsuite.tasks.distributed_training:simulated_scaffold.txt",
    ),
)
