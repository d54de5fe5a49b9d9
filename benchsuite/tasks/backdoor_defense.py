"""Detection of backdoors that came through dataset distillation.

The harness distils a set with the attack that the protocol names (``dc`` is no attack) and trains a victim on it. A
defense receives the set, the victim and some clean labelled images, and rates how suspicious something is: inputs
of the victim, images of the set, or classes. It is judged by how well its ratings separate what the attack has
touched from the rest, by what its own threshold flags, and by what is left of the attack once the flagged inputs
are refused, or the victim is trained again without the flagged images.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import ConfigError, Method, Metric, Outcome, Preset, Ranking, RunContext, Task
from benchsuite.core.errors import InvalidPrediction
from benchsuite.datasets.small_images import SmallImages
from benchsuite.metrics import classification
from benchsuite.tasks.distillation_backdoor import (
    DistillationBackdoorProtocol,
    DistilledSet,
    Distiller,
    check_protocol,
    distilled_set,
    judged_data,
    victim_settings,
)

if TYPE_CHECKING:
    import torch

    from benchsuite.tasks.backdoor_networks import BackdoorNetwork

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Level = Literal["inputs", "images", "classes"]


@dataclass(frozen=True)
class BackdoorDefenseProtocol(DistillationBackdoorProtocol):
    """What belongs to neither defense nor data: the attack, and what the defender and the judge hold.

    Attributes
    ----------
    attack
        Name of the registered method that distils the set; ``dc`` and ``dd`` poison nothing.
    clean_images
        Labelled test images that the defender holds, at most half of all; none of them is judged.
    suspects
        Inputs to rate, at most the other test images; half of them are stamped with the trigger.
    """

    attack: str = "doorping"
    clean_images: int = 3000
    suspects: int = 400

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("clean_images", "suspects"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be 2 or more, not {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Case:
    """What a defense receives. All images are normalised float32 tensors on the run's device.

    Attributes
    ----------
    network
        The victim, in evaluation mode: logits by calling it, penultimate features by ``features_of``.
    images, labels
        (n, C, H, W) and (n,) int64: the distilled set.
    clean_images, clean_labels
        (M, C, H, W) and (M,) int64: real images that nobody tampered with.
    suspects
        (S, C, H, W): inputs of the victim, some of them stamped.
    mean, std
        What images were normalised by, one value a channel.
    num_classes
        Number of classes.
    """

    network: BackdoorNetwork
    images: torch.Tensor
    labels: torch.Tensor
    clean_images: torch.Tensor
    clean_labels: torch.Tensor
    suspects: torch.Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a defense says.

    Attributes
    ----------
    level
        What was rated: ``inputs`` (the suspects), ``images`` (of the distilled set) or ``classes``.
    scores
        (n,) finite, one an item; larger is more suspicious.
    flagged
        (n,) bool: what the defense's own threshold takes for tampered.
    """

    level: Level
    scores: NDArray[np.float64]
    flagged: NDArray[np.bool_]


class Defense(Method):
    """A way to detect a backdoor."""

    @abstractmethod
    def inspect(self, case: Case, ctx: RunContext) -> Verdict:
        """Rate inputs, distilled images or classes.

        Parameters
        ----------
        case
            Set, victim, clean images, suspects. Neither trigger nor target class is known.
        ctx
            Take seeds from ``ctx.seed_for("victim", ...)``.
        """


class BackdoorDefense(Task):
    """See the module's description."""

    name = "backdoor-defense"
    title = "Detection of backdoors that came through dataset distillation"
    version = "1"
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
    published_seeds: ClassVar[Mapping[str, int]] = {"run": 3, "victim": 2}
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
    data_type = "benchsuite.datasets.small_images:SmallImages"
    method_type = Defense
    default_data = "digits"

    def evaluate(self, method: Method, data: Mapping[str, Any], protocol: Any, ctx: RunContext) -> Outcome:
        """Attack, hand the case to the defense, and judge what it says."""
        assert isinstance(method, Defense)
        images = judged_data(data, ctx)
        check_protocol(protocol, images)
        distilled = attacked_set(images, protocol, ctx)
        scene = _Scene(images, protocol, distilled, ctx)
        with ctx.phase("fit"):
            verdict = method.inspect(scene.case(), ctx)
        _check_verdict(verdict, len(scene.tampered), len(distilled.labels), images.num_classes)
        np.savetxt(
            ctx.artifact("predictions.csv"),
            np.column_stack([np.arange(len(verdict.scores)), verdict.scores, verdict.flagged]),
            fmt=["%d", "%.12g", "%d"], delimiter=",", header="item,score,flagged", comments="",
        )  # fmt: skip
        return scene.judge(verdict)

    def with_other_answers(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the data with the class of every judged test image changed; the defender's own stay."""
        changed = {}
        for role, images in data.items():
            labels = images.test_labels.copy()
            _, judged = _shared_out(len(labels))
            labels[judged] = (labels[judged] + 1) % images.num_classes
            changed[role] = replace(images, test_labels=labels)
        return changed


def _shared_out(test_images: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the indices of test images that may be the defender's, and of those that may be judged."""
    order = np.random.default_rng(0).permutation(test_images)
    return order[: test_images // 2], order[test_images // 2 :]


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


class _Scene:
    """One attacked victim: what the defender sees of it, and what only the judge knows."""

    def __init__(
        self, images: SmallImages, protocol: BackdoorDefenseProtocol, distilled: DistilledSet, ctx: RunContext
    ) -> None:
        from benchsuite.tasks import _victims

        self._images, self._protocol, self._distilled, self._ctx = images, protocol, distilled, ctx
        self._settings = victim_settings(images, protocol)
        self._victim = _victims.trained_victim(distilled, self._settings, ctx)
        own, others = _shared_out(len(images.test_labels))
        self._own = own[: protocol.clean_images]
        rng = np.random.default_rng(ctx.seed_for("run", "suspects"))
        judged = rng.permutation(others)[: protocol.suspects]
        self._labels = images.test_labels[judged]
        self.tampered = rng.permutation(len(judged)) < len(judged) // 2
        self._suspects = self._stamped(images.test_images[judged])

    def case(self) -> Case:
        """Return what the defender sees."""
        import torch

        from benchsuite.tasks.backdoor_triggers import normalised

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
        target = self._protocol.target_class
        if level == "inputs":
            return self.tampered
        if level == "images":
            return self._distilled.labels == target
        return np.arange(self._images.num_classes) == target

    def _stamped(self, images: NDArray[np.uint8]) -> torch.Tensor:
        import torch

        from benchsuite.tasks import _victims
        from benchsuite.tasks.backdoor_triggers import normalised, stamp

        triggers = _victims.triggers_of(self._distilled, self._settings)
        suspects = normalised(torch.from_numpy(images), self._images.mean, self._images.std)
        suspects[self.tampered] = stamp(suspects[self.tampered], triggers.final, triggers.mask)
        return suspects.to(self._ctx.device)

    def _predicted(self, network: BackdoorNetwork) -> NDArray[np.int64]:
        import torch

        with torch.no_grad():
            return network(self._suspects).cpu().numpy().argmax(axis=1).astype(np.int64)

    def _predicted_without(self, flagged: NDArray[np.bool_]) -> NDArray[np.int64] | None:
        from benchsuite.tasks import _victims

        kept, distilled = ~flagged, self._distilled
        if not np.isin(np.unique(distilled.labels), distilled.labels[kept]).all():
            return None
        schedule = distilled.schedule
        if schedule is not None:
            schedule = replace(schedule, batches=schedule.batches[kept])
        cleansed = replace(distilled, images=distilled.images[kept], labels=distilled.labels[kept], schedule=schedule)
        return self._predicted(_victims.trained_victim(cleansed, self._settings, self._ctx))

    def _clean_accuracy(self, predicted: Integers, refused: NDArray[np.bool_]) -> float:
        clean = ~self.tampered
        return float(((predicted == self._labels) & ~refused)[clean].mean())

    def _success(self, predicted: Integers, refused: NDArray[np.bool_]) -> float | None:
        target = self._protocol.target_class
        counted = np.where(refused, -1, predicted)[self.tampered]
        others = self._labels[self.tampered] != target
        return float((counted[others] == target).mean()) if others.any() else None


def _check_verdict(verdict: Verdict, suspects: int, synthetic: int, num_classes: int) -> None:
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
