"""Every method in this repository passes the checks that strangers' methods have to pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchsuite.core.errors import MissingDependency
from benchsuite.core.registry import get_registry, require

# Rows beside the methods proper: they share code with them, or are small.
VARIANTS = ("baseline", "ablation", "control", "extension")


def usable_methods(variants: bool) -> list[str]:
    """Return the registered methods whose libraries are installed: the variants, or the others."""
    registry = get_registry()
    usable = []
    for name, spec in sorted(registry.methods.items()):
        if (spec.role in VARIANTS) != variants:
            continue
        try:
            require(name, [*spec.requires, *(r for task in spec.tasks for r in registry.task(task).requires)], "")
        except MissingDependency:
            continue
        usable.append(name)
    return usable


@pytest.mark.benchsuite_method(*usable_methods(variants=False))
def test_conformance(conformance_check: Callable[[], None]) -> None:
    conformance_check()


@pytest.mark.slow
@pytest.mark.benchsuite_method(*usable_methods(variants=True))
def test_conformance_of_variants(conformance_check: Callable[[], None]) -> None:
    conformance_check()
