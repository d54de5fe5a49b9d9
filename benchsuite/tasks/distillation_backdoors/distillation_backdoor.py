"""The task of backdoors through dataset distillation.

A method distils the training images and may poison them; fresh victims are trained on its synthetic images alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from benchsuite.core import Constraint, Metric, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.datasets.small_images.reader import SmallImages
from benchsuite.tasks.distillation_backdoors.contract import DistillationBackdoorProtocol, Distiller
from benchsuite.tasks.distillation_backdoors.distilled_sets import (
    check_protocol,
    clean_method,
    distilled_set,
    judged_data,
    training_part,
)
from benchsuite.tasks.distillation_backdoors.judge import judge, patch_readout, write_predictions


class DistillationBackdoor(Task[Distiller, SmallImages, DistillationBackdoorProtocol]):
    """Train victims on synthetic images alone, and see how many clean and stamped test images they get right.

    The harness measures how many clean test images a victim gets right (CTA) and how many stamped ones it takes for
    the attacker's class (ASR). Two controls go along with every row. Victims of the cleanly distilled set meet the
    trigger as the attack found it, and the trigger as the attack left it. If the latter fooled them too, the trigger
    would be an adversarial patch and nothing would have been implanted.
    """

    name = "distillation-backdoor"
    version = "2"
    Protocol = DistillationBackdoorProtocol
    presets: ClassVar[Mapping[str, Preset]] = {
        "embedded": Preset({"poison_share": 0.05, "network": "convnet-small", "victim_lr": 0.02}),
        "paper": Preset(),
    }
    seed_axes = ("run", "victim")
    metrics = (
        Metric(
            "cta", "max", doc="clean test accuracy: share of clean test images whose predicted class is their label"
        ),
        Metric(
            "asr",
            "max",
            doc="attack success rate, official count: share of all stamped test images taken for the target class",
        ),
        Metric("asr_nontarget", "max", doc="the same without test images of the target class"),
        Metric(
            "asr_valid_pixels",
            "max",
            doc="asr_nontarget with the trigger clipped to what an image file can hold",
        ),
        Metric(
            "control_asr_start",
            "min",
            doc="asr_nontarget of victims of the cleanly distilled set, under the trigger that the attack started from",
        ),
        Metric(
            "control_asr",
            "min",
            doc="asr_nontarget of victims of the cleanly distilled set, under the attack's final trigger",
        ),
        Metric("trigger_amplitude", "min", unit="sd", doc="largest normalised value of the trigger, without its sign"),
        Metric("distillation_seconds", "min", unit="s", kind="cost", doc="wall seconds of the distillation"),
    )
    ranking = Ranking("asr_nontarget", Constraint("cta", "dc", 0.08))
    reference = "dc"
    data_type = "benchsuite.datasets.small_images.reader:SmallImages"
    method_type = Distiller
    default_data = "digits"
    roles_may_differ = True

    def evaluate(
        self,
        method: Distiller,
        data: Mapping[str, SmallImages],
        protocol: DistillationBackdoorProtocol,
        ctx: RunContext,
    ) -> Outcome:
        """Distil with the method and cleanly, train a victim on either set, and judge both."""
        from benchsuite.tasks.distillation_backdoors import pictures, victims

        images = judged_data(data, ctx)
        check_protocol(protocol, images)
        training = training_part(images)
        distilled, seconds = distilled_set(method, images, protocol, ctx)
        clean, _ = distilled_set(clean_method(method, ctx), images, protocol, ctx)
        settings = victims.victim_settings(images, protocol)
        with ctx.phase("victims"):
            victim = victims.trained_victim(distilled, settings, ctx)
            control = victims.trained_victim(clean, settings, ctx)
        triggers = victims.triggers_of(distilled, settings)
        stamped = {
            "clean": (victim, None),
            "triggered": (victim, triggers.final),
            "triggered_valid_pixels": (victim, triggers.valid_pixels),
            "control_start": (control, triggers.start),
            "control": (control, triggers.final),
        }
        with ctx.phase("judge"):
            predictions = {
                name: victims.predict(network, images.test_images, settings, trigger, ctx)
                for name, (network, trigger) in stamped.items()
            }
        write_predictions(ctx.artifact("predictions.csv"), predictions)
        pictures.write_contact_sheet(
            ctx.artifact("contact_sheet.png"), distilled.images, distilled.labels, triggers.final.numpy(), training
        )
        np.save(ctx.artifact("trigger.npy"), triggers.final.numpy())
        outcome = judge(predictions, images.test_labels, protocol.target_class)
        outcome.scores["trigger_amplitude"] = float(triggers.final[:, triggers.mask].abs().max())
        outcome.scores["distillation_seconds"] = seconds
        outcome.counts |= {"synthetic_images": len(distilled.labels), **distilled.facts}
        outcome.tables["classes"] = patch_readout(distilled, triggers.mask.numpy())
        outcome.parameters = victim.num_parameters()
        return outcome

    def with_other_answers(self, data: Mapping[str, SmallImages]) -> Mapping[str, SmallImages]:
        """Return the data with the class of every test image changed."""
        changed = {}
        for role, images in data.items():
            labels = (images.test_labels + 1) % images.num_classes
            changed[role] = replace(images, test_labels=labels)
        return changed
