"""Every method in this repository passes the checks that strangers' methods have to pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchsuite.core.errors import MissingDependency
from benchsuite.core.registry import get_registry, require

# Two steps at the published size take a minute or more (and VGG16 on two ranks 10 GB).
LARGE_AT_FULL_SIZE = {
    *("fsis", "gfsis", "ifsis", "distillation-backdoor", "backdoor-defense", "distributed-training"),
    *("qrs-detection", "heart-sound-segmentation", "drum-generation", "mixed-precision-quantization", "detection3d"),
}
# A method that passes on the first task is checked on these only with --slow: tests of their own cover what they add.
SIBLINGS = {"gfsis": "fsis", "ifsis": "fsis", "heart-sound-segmentation": "qrs-detection"}
# The published networks on the embedded data: the same code as `emo-nano`'s, at minutes a task.
PUBLISHED_NETWORKS = {"emo-1m", "emo-2m", "emo-5m", "emo-6m"}
# Every algorithm runs on real ranks and on the virtual clock; one of them is checked on both.
ON_BOTH = "bytegrad"


def is_slow(item: pytest.Item) -> bool:
    """Return whether a conformance check takes minutes, or repeats what a sibling task shows."""
    method, task, check = item.callspec.params["conformance_check"]
    if check == "paper preset" and task in LARGE_AT_FULL_SIZE:
        return True
    if method in PUBLISHED_NETWORKS:
        return True
    if task == "distributed-training-simulated":
        return method != ON_BOTH
    return SIBLINGS.get(task) in get_registry().method(method).tasks


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
