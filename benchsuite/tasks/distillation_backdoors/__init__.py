"""Backdoors through dataset distillation, and their detection."""

from __future__ import annotations

from benchsuite.core import TaskSpec

_INSTALL = "pip install 'benchsuite[distillation]'"

TASKS = (
    TaskSpec(
        name="distillation-backdoor",
        title="Backdoors through dataset distillation",
        load="benchsuite.tasks.distillation_backdoors.distillation_backdoor:DistillationBackdoor",
        requires=("numpy", "torch", "PIL"),
        install=_INSTALL,
        scaffold="benchsuite.tasks.distillation_backdoors:scaffold.txt",
        uses=("dc",),
    ),
    TaskSpec(
        name="backdoor-defense",
        title="Detection of backdoors in distilled sets, in models trained on them, and at their inputs",
        load="benchsuite.tasks.distillation_backdoors.backdoor_defense:BackdoorDefense",
        requires=("numpy", "torch", "PIL"),
        install=_INSTALL,
        scaffold="benchsuite.tasks.distillation_backdoors:defense_scaffold.txt",
        uses=("{attack}",),
    ),
)
