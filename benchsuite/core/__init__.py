"""The vocabulary of the suite: what a task, a data set, a method and a result are.

No torch, no task and no plugin on this floor. Importing it imports no numpy and no pydantic either:
the result schema is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchsuite.core.claim import Claim
from benchsuite.core.config import Case, Preset
from benchsuite.core.context import RunContext
from benchsuite.core.dataset import DatasetSpec
from benchsuite.core.errors import (
    ConfigError,
    DataError,
    DatasetNotFound,
    Incompatible,
    InvalidPrediction,
    MissingDependency,
    UnknownName,
    UserError,
)
from benchsuite.core.hookspecs import hookimpl
from benchsuite.core.method import Method, MethodSpec, Paper, Resources, Role
from benchsuite.core.metric import Metric
from benchsuite.core.task import Constraint, Outcome, Presentation, Publication, Ranking, Ratio, Task, TaskSpec

if TYPE_CHECKING:
    from benchsuite.core.result import Result, RunSpec

__all__ = [
    "Case",
    "Claim",
    "ConfigError",
    "Constraint",
    "DataError",
    "DatasetNotFound",
    "DatasetSpec",
    "Incompatible",
    "InvalidPrediction",
    "Method",
    "MethodSpec",
    "Metric",
    "MissingDependency",
    "Outcome",
    "Paper",
    "Presentation",
    "Preset",
    "Publication",
    "Ranking",
    "Ratio",
    "Resources",
    "Result",
    "Role",
    "RunContext",
    "RunSpec",
    "Task",
    "TaskSpec",
    "UnknownName",
    "UserError",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name in {"Result", "RunSpec"}:
        from benchsuite.core import result

        return getattr(result, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
