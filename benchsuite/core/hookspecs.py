"""The whole extension surface: what a plugin can add, and what it can watch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from benchsuite.core.dataset import DatasetSpec
    from benchsuite.core.method import MethodSpec
    from benchsuite.core.result import Result, RunSpec
    from benchsuite.core.task import TaskSpec

PROJECT = "benchsuite"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def benchsuite_tasks() -> Iterable[TaskSpec]:  # type: ignore[empty-body]
    """Return the tasks that this plugin adds."""


@hookspec
def benchsuite_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
    """Return the data sets that this plugin adds."""


@hookspec
def benchsuite_methods() -> Iterable[MethodSpec]:  # type: ignore[empty-body]
    """Return the methods that this plugin adds."""


@hookspec
def benchsuite_run_started(run: RunSpec) -> None:
    """Called in the parent process just before a run starts."""


@hookspec
def benchsuite_run_finished(result: Result) -> None:
    """Called in the parent process when a run's result is stored, whatever its status."""
