"""The suite's own tasks and data sets, registered through the same hooks as anybody else's.

Each package below ``tasks`` and ``datasets`` says in its own ``__init__`` what it offers.
"""

from __future__ import annotations

from benchsuite.core import DatasetSpec, TaskSpec, hookimpl
from benchsuite.datasets import (
    class_masks,
    coco,
    driving_scenes,
    drums,
    ecg,
    fairness_graphs,
    image_folders,
    label_maps,
    pcg,
    shapes,
    small_images,
    tabular_digits,
)
from benchsuite.tasks import (
    cardiac_signals,
    detection3d,
    distillation_backdoors,
    distributed_training,
    drum_generation,
    fair_distillation,
    fewshot_instance_segmentation,
    fewshot_semantic_segmentation,
    visual_recognition,
)

_TASKS = (
    cardiac_signals,
    detection3d,
    distillation_backdoors,
    distributed_training,
    drum_generation,
    fair_distillation,
    fewshot_instance_segmentation,
    fewshot_semantic_segmentation,
    visual_recognition,
)
_DATASETS = (
    class_masks,
    coco,
    driving_scenes,
    drums,
    ecg,
    fairness_graphs,
    image_folders,
    label_maps,
    pcg,
    shapes,
    small_images,
    tabular_digits,
)


@hookimpl
def benchsuite_tasks() -> list[TaskSpec]:
    """Return the tasks of the suite."""
    return [spec for package in _TASKS for spec in package.TASKS]


@hookimpl
def benchsuite_datasets() -> list[DatasetSpec]:
    """Return the data sets of the suite."""
    return [spec for package in _DATASETS for spec in package.DATASETS]
