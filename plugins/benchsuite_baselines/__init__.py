"""Well-kept libraries and standard methods as opponents: rows that belong to no paper of the suite.

One package a field: its ``__init__`` lists the rows, the methods themselves are loaded when they run.
"""

from __future__ import annotations

from benchsuite.core import MethodSpec, hookimpl
from benchsuite_baselines import cardio, detection3d, distributed, fairness, fewshot, segmentation

_FIELDS = (cardio, detection3d, distributed, fairness, fewshot, segmentation)


@hookimpl
def benchsuite_methods() -> list[MethodSpec]:
    """Return the rows of all fields."""
    return [row for field in _FIELDS for row in field.METHODS]
