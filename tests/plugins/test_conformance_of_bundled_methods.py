"""Every method in this repository passes the checks that strangers' methods have to pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchsuite.core.errors import MissingDependency
from benchsuite.core.registry import get_registry, require


def usable_methods() -> list[str]:
    """Return the registered methods whose libraries are installed."""
    registry = get_registry()
    usable = []
    for name, spec in sorted(registry.methods.items()):
        try:
            require(name, [*spec.requires, *(r for task in spec.tasks for r in registry.task(task).requires)], "")
        except MissingDependency:
            continue
        usable.append(name)
    return usable


@pytest.mark.benchsuite_method(*usable_methods())
def test_conformance(conformance_check: Callable[[], None]) -> None:
    conformance_check()
