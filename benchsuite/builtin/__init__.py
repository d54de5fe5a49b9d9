"""The suite's own tasks and data sets, registered through the same hooks as anybody else's.

One module a field, holding nothing but data.
"""

from __future__ import annotations

from benchsuite.builtin import cardio, distillation, distributed, graphs, vision
from benchsuite.core import DatasetSpec, TaskSpec, hookimpl

_FIELDS = (graphs, cardio, distillation, vision, distributed)


@hookimpl
def benchsuite_tasks() -> list[TaskSpec]:
    """Return the tasks of the suite."""
    return [spec for field in _FIELDS for spec in field.TASKS]


@hookimpl
def benchsuite_datasets() -> list[DatasetSpec]:
    """Return the data sets of the suite."""
    return [spec for field in _FIELDS for spec in field.DATASETS]
