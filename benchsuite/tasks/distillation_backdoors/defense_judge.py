"""The judge of defenses: an attacked victim, what the defender sees of it, and what its verdict is worth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Outcome, RunContext
from benchsuite.core.errors import InvalidPrediction
from benchsuite.datasets.small_images.reader import SmallImages
from benchsuite.metrics import classification
from benchsuite.tasks.distillation_backdoors.contract import DistilledSet, Integers
from benchsuite.tasks.distillation_backdoors.defense_contract import BackdoorDefenseProtocol, Case, Level, Verdict

if TYPE_CHECKING:
    import torch

    from benchsuite.tasks.distillation_backdoors.networks import BackdoorNetwork


class AttackedVictim:
    """One attacked victim: what the defender sees of it, and what only the judge knows."""

    def __init__(
        self, images: SmallImages, protocol: BackdoorDefenseProtocol, distilled: DistilledSet, ctx: RunContext
    ) -> None:
        from benchsuite.tasks.distillation_backdoors import victims

        self._images, self._protocol, self._distilled, self._ctx = images, protocol, distilled, ctx
        self._settings = victims.victim_settings(images, protocol)
        self._victim = victims.trained_victim(distilled, self._settings, ctx)
        own, others = shared_out(len(images.test_labels))
        self._own = own[: protocol.clean_images]
        rng = np.random.default_rng(ctx.seed_for("run", "suspects"))
        judged = rng.permutation(others)[: protocol.suspects]
        self._labels = images.test_labels[judged]
        self.tampered = rng.permutation(len(judged)) < len(judged) // 2
        self._suspects = self._stamped(images.test_images[judged])

    def case(self) -> Case:
        """Return what the defender sees."""
        import torch

        from benchsuite.tasks.distillation_backdoors.triggers import normalised

        images, own, device = self._images, self._own, self._ctx.device
        return Case(
            network=self._victim,
            images=torch.from_numpy(self._distilled.images).to(device),
            labels=torch.from_numpy(self._distilled.labels).to(device),
            clean_images=normalised(torch.from_numpy(images.test_images[own]), images.mean, images.std).to(device),
            clean_labels=torch.from_numpy(images.test_labels[own]).to(device),
            suspects=self._suspects,
            mean=images.mean,
            std=images.std,
            num_classes=images.num_classes,
        )

    def judge(self, verdict: Verdict) -> Outcome:
        """Return all metrics of a verdict."""
        touched = self._touched(verdict.level)
        before = self._predicted(self._victim)
        refused = np.zeros(len(self.tampered), dtype=bool)
        after: NDArray[np.int64] | None = before
        undefined = {}
        if verdict.level == "inputs":
            refused = verdict.flagged
        elif verdict.level == "images":
            after = self._predicted_without(verdict.flagged)
        reason = "the defense rates classes: it changes neither inputs nor set"
        if verdict.level == "images":
            reason = "the defense flags all images of a class: nothing is left to train on"
        if verdict.level == "classes" or after is None:
            after = None
            undefined = {"cta_after": reason, "asr_after": reason}
        scores: dict[str, float | None] = {
            "auroc": classification.auroc(verdict.scores, touched.astype(np.int64)),
            "flagged_touched": float(verdict.flagged[touched].mean()),
            "flagged_untouched": float(verdict.flagged[~touched].mean()),
            "cta_before": self._clean_accuracy(before, np.zeros_like(refused)),
            "asr_before": self._success(before, np.zeros_like(refused)),
            "cta_after": None if after is None else self._clean_accuracy(after, refused),
            "asr_after": None if after is None else self._success(after, refused),
        }
        for name in ("asr_before", "asr_after"):
            if scores[name] is None:
                undefined.setdefault(name, "every stamped suspect is of the target class")
        counts = {"items": len(touched), "items_touched": int(touched.sum()), "flagged": int(verdict.flagged.sum())}
        return Outcome(scores, undefined, counts, parameters=self._victim.num_parameters())

    def _touched(self, level: Level) -> NDArray[np.bool_]:
        if level == "inputs":
            return self.tampered
        classes = self._distilled.labels if level == "images" else np.arange(self._images.num_classes)
        return np.equal(classes, self._protocol.target_class)

    def _stamped(self, images: NDArray[np.uint8]) -> torch.Tensor:
        import torch

        from benchsuite.tasks.distillation_backdoors import victims
        from benchsuite.tasks.distillation_backdoors.triggers import normalised, stamp

        triggers = victims.triggers_of(self._distilled, self._settings)
        suspects = normalised(torch.from_numpy(images), self._images.mean, self._images.std)
        suspects[self.tampered] = stamp(suspects[self.tampered], triggers.final, triggers.mask)
        return suspects.to(self._ctx.device)

    def _predicted(self, network: BackdoorNetwork) -> NDArray[np.int64]:
        import torch

        with torch.no_grad():
            logits: NDArray[np.float32] = network(self._suspects).cpu().numpy()
        predicted: NDArray[np.int64] = np.argmax(logits, axis=1).astype(np.int64)
        return predicted

    def _predicted_without(self, flagged: NDArray[np.bool_]) -> NDArray[np.int64] | None:
        from benchsuite.tasks.distillation_backdoors import victims

        kept, distilled = ~flagged, self._distilled
        if not np.isin(np.unique(distilled.labels), distilled.labels[kept]).all():
            return None
        schedule = distilled.schedule
        if schedule is not None:
            schedule = replace(schedule, batches=schedule.batches[kept])
        cleansed = replace(distilled, images=distilled.images[kept], labels=distilled.labels[kept], schedule=schedule)
        return self._predicted(victims.trained_victim(cleansed, self._settings, self._ctx))

    def _clean_accuracy(self, predicted: Integers, refused: NDArray[np.bool_]) -> float:
        clean = ~self.tampered
        return float(((predicted == self._labels) & ~refused)[clean].mean())

    def _success(self, predicted: Integers, refused: NDArray[np.bool_]) -> float | None:
        target = self._protocol.target_class
        counted = np.where(refused, -1, predicted)[self.tampered]
        others = self._labels[self.tampered] != target
        return float((counted[others] == target).mean()) if others.any() else None


def shared_out(test_images: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the indices of test images that may be the defender's, and of those that may be judged."""
    order = np.random.default_rng(0).permutation(test_images)
    return order[: test_images // 2], order[test_images // 2 :]


def check_verdict(verdict: Verdict, suspects: int, synthetic: int, num_classes: int) -> None:
    """Check what a defense says.

    Raises
    ------
    InvalidPrediction
        For an unknown level, a wrong shape or type, or a score that is not finite.
    """
    lengths = {"inputs": suspects, "images": synthetic, "classes": num_classes}
    if verdict.level not in lengths:
        raise InvalidPrediction(f"a verdict is about inputs, images or classes, not {verdict.level!r}")
    expected = (lengths[verdict.level],)
    if verdict.scores.shape != expected or verdict.flagged.shape != expected:
        raise InvalidPrediction(
            f"a verdict on {verdict.level} needs scores and flags of shape {expected}, not {verdict.scores.shape}"
            f" and {verdict.flagged.shape}"
        )
    if verdict.flagged.dtype != np.bool_ or not np.isfinite(verdict.scores).all():
        raise InvalidPrediction("a verdict needs finite scores and boolean flags")
