"""Backdoors through dataset distillation, and their detection."""

from __future__ import annotations

from benchsuite.core import Presentation, Publication, TaskSpec

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
        shown=Presentation(
            headline=("asr_nontarget", "cta", "control_asr"),
            names={
                "asr": "ASR",
                "asr_nontarget": "ASR (others)",
                "cta": "CTA",
                "control_asr": "control ASR",
                "control_asr_start": "control ASR, start",
                "asr_valid_pixels": "ASR, valid pixels",
            },
            cost="distillation_seconds",
        ),
        published=Publication(seeds={"run": 7, "victim": 1}),
    ),
    TaskSpec(
        name="backdoor-defense",
        title="Detection of backdoors in distilled sets, in models trained on them, and at their inputs",
        load="benchsuite.tasks.distillation_backdoors.backdoor_defense:BackdoorDefense",
        requires=("numpy", "torch", "PIL"),
        install=_INSTALL,
        scaffold="benchsuite.tasks.distillation_backdoors:defense_scaffold.txt",
        uses=("{attack}",),
        shown=Presentation(
            headline=("auroc", "flagged_touched", "flagged_untouched"),
            names={
                "auroc": "AUROC",
                "cta_before": "CTA before",
                "asr_before": "ASR before",
                "cta_after": "CTA after",
                "asr_after": "ASR after",
            },
        ),
        published=Publication(seeds={"run": 7, "victim": 1}),
    ),
)
