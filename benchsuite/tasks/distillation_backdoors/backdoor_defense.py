"""The task of detecting backdoors that came through dataset distillation.

The harness attacks a victim; a defense rates its inputs, the images of its set, or classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import ClassVar

import numpy as np

from benchsuite.core import ConfigError, Metric, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.datasets.small_images.reader import SmallImages
from benchsuite.tasks.distillation_backdoors.contract import DistillationBackdoorProtocol, DistilledSet, Distiller
from benchsuite.tasks.distillation_backdoors.defense_contract import BackdoorDefenseProtocol, Defense
from benchsuite.tasks.distillation_backdoors.defense_judge import AttackedVictim, check_verdict, shared_out
from benchsuite.tasks.distillation_backdoors.distilled_sets import check_protocol, distilled_set, judged_data


class BackdoorDefense(Task[Defense, SmallImages, BackdoorDefenseProtocol]):
    """Attack a victim, hand it to a defense, and judge the ratings.

    The harness distils a set with the attack that the protocol names (``dc`` is no attack) and trains a victim on it.
    A defense receives the set, the victim and some clean labelled images, and rates how suspicious something is:
    inputs of the victim, images of the set, or classes. It is judged by how well its ratings separate what the attack
    has touched from the rest, by what its own threshold flags, and by what is left of the attack once the flagged
    inputs are refused, or the victim is trained again without the flagged images.
    """

    name = "backdoor-defense"
    version = "2"
    Protocol = BackdoorDefenseProtocol
    presets: ClassVar[Mapping[str, Preset]] = {
        "embedded": Preset(
            {
                "poison_share": 0.05,
                "network": "convnet-small",
                "victim_lr": 0.02,
                "clean_images": 250,
                "suspects": 250,
            }
        ),
        "paper": Preset(),
    }
    seed_axes = ("run", "victim")
    metrics = (
        Metric("auroc", "max", doc="area under the ROC curve of the ratings: touched by the attack or not"),
        Metric("flagged_touched", "max", doc="share of touched items that the defense's own threshold flags"),
        Metric("flagged_untouched", "min", doc="share of other items that it flags"),
        Metric("cta_before", "max", doc="clean accuracy of the victim on the clean suspects"),
        Metric("asr_before", "min", doc="share of stamped suspects of other classes taken for the target class"),
        Metric(
            "cta_after",
            "max",
            doc="cta_before with flagged inputs refused, or of a victim trained without the flagged images",
        ),
        Metric(
            "asr_after",
            "min",
            doc="asr_before with flagged inputs refused, or of a victim trained without the flagged images",
        ),
    )
    ranking = Ranking("auroc")
    reference = "strip"
    data_type = "benchsuite.datasets.small_images.reader:SmallImages"
    method_type = Defense
    default_data = "digits"
    roles_may_differ = True

    def evaluate(
        self, method: Defense, data: Mapping[str, SmallImages], protocol: BackdoorDefenseProtocol, ctx: RunContext
    ) -> Outcome:
        """Attack, hand the case to the defense, and judge what it says."""
        images = judged_data(data, ctx)
        check_protocol(protocol, images)
        distilled = attacked_set(images, protocol, ctx)
        attacked = AttackedVictim(images, protocol, distilled, ctx)
        with ctx.phase("fit"):
            verdict = method.inspect(attacked.case(), ctx)
        check_verdict(verdict, len(attacked.tampered), len(distilled.labels), images.num_classes)
        np.savetxt(
            ctx.artifact("predictions.csv"),
            np.column_stack([np.arange(len(verdict.scores)), verdict.scores, verdict.flagged]),
            fmt=["%d", "%.12g", "%d"], delimiter=",", header="item,score,flagged", comments="",
        )  # fmt: skip
        return attacked.judge(verdict)

    def with_other_answers(self, data: Mapping[str, SmallImages]) -> Mapping[str, SmallImages]:
        """Return the data with the class of every judged test image changed; the defender's own stay."""
        changed = {}
        for role, images in data.items():
            labels = images.test_labels.copy()
            _, judged = shared_out(len(labels))
            labels[judged] = (labels[judged] + 1) % images.num_classes
            changed[role] = replace(images, test_labels=labels)
        return changed


def attacked_set(images: SmallImages, protocol: BackdoorDefenseProtocol, ctx: RunContext) -> DistilledSet:
    """Return the set that the protocol's attack distils, distilled once for all defenses.

    Raises
    ------
    ConfigError
        If the protocol's attack is not one.
    """
    attack = ctx.method(protocol.attack)
    if not isinstance(attack, Distiller):
        raise ConfigError(f"attack={protocol.attack} does not distil: name a method of task 'distillation-backdoor'")
    names = [f.name for f in fields(DistillationBackdoorProtocol)]
    distillation = DistillationBackdoorProtocol(**{name: getattr(protocol, name) for name in names})
    distilled, _ = distilled_set(attack, images, distillation, ctx)
    return distilled
