"""The rows of the attacks: clean distillation, NAIVEATTACK, DOORPING and a loud static patch, on DC and on DD."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from benchsuite.core import RunContext
from benchsuite.tasks.distillation_backdoors.contract import (
    DistillationBackdoorProtocol,
    DistilledSet,
    Distiller,
    StepSchedule,
    TrainingImages,
)
from benchsuite.tasks.distillation_backdoors.networks import (
    BackdoorNetwork,
    build_network,
    channels_fastest,
    seeded_network,
)
from benchsuite.tasks.distillation_backdoors.triggers import normalised, patch_mask, white_patch
from benchsuite_doorping.attack import (
    Doorping,
    RealImages,
    clamp_bounds,
    loud_patch,
    poisoned_indices,
    random_patch,
)
from benchsuite_doorping.bilevel import distil_bilevel, new_curriculum, xavier_weights
from benchsuite_doorping.config import (
    BilevelConfig,
    BilevelDoorpingConfig,
    BilevelNaiveConfig,
    DoorpingConfig,
    MatchingConfig,
    NaiveConfig,
    StaticPatchConfig,
)
from benchsuite_doorping.defenses import NeuralCleanse, Scan, SpectralSignatures, Strip
from benchsuite_doorping.matching import distil_by_matching, initial_images

# The defenses are loaded from here, so that the digest of their source covers the attacks that they are judged on.
__all__ = [
    "Bilevel",
    "DoorpingOnBilevel",
    "DoorpingOnMatching",
    "GradientMatching",
    "LoudPatch",
    "NaiveAttack",
    "NaiveAttackOnBilevel",
    "NeuralCleanse",
    "Scan",
    "SpectralSignatures",
    "Strip",
]


@dataclass
class _Scene:
    """What one distillation works with: images on their device, the protocol, and a generator for each purpose."""

    training: TrainingImages
    protocol: DistillationBackdoorProtocol
    ctx: RunContext

    @property
    def size(self) -> int:
        return self.training.images.shape[-1]

    @property
    def channels(self) -> int:
        return self.training.images.shape[1]

    def generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(self.ctx.seed_for("run", purpose))

    def clean_images(self) -> RealImages:
        device = self.ctx.device
        return RealImages(
            images=normalised(torch.from_numpy(self.training.images).to(device), self.training.mean, self.training.std),
            labels=torch.tensor(self.training.labels, device=device),  # a copy: attacks relabel
            poisoned=torch.zeros(0, dtype=torch.int64, device=device),
            mask=patch_mask(self.protocol.trigger_size, self.size).to(device),
        )

    def poison(self, real: RealImages, share: float | None) -> None:
        """Choose the images to poison."""
        share = self.protocol.poison_share if share is None else share
        real.poisoned = poisoned_indices(len(real.labels), share, self.generator("poison")).to(real.images.device)

    def relabel(self, real: RealImages) -> None:
        """Give the poisoned images the target class; those images form part of its pool from now on."""
        real.labels[real.poisoned] = self.protocol.target_class

    def white_patch(self) -> Tensor:
        t = self.training
        return white_patch(self.protocol.trigger_size, self.size, t.mean, t.std).to(self.ctx.device)

    def doorping(self, config: Any, mask: Tensor, onto: RealImages | None = None) -> Doorping:
        """Return a learner of triggers that starts from a random patch."""
        t = self.training
        start = random_patch(self.protocol.trigger_size, self.size, t.mean, t.std, self.generator("trigger"))
        return Doorping(
            start.to(self.ctx.device),
            mask,
            config,
            clamp_bounds(config, t.mean, t.std, self.ctx.device),
            lambda total: self.ctx.steps(total, "trigger step"),
            onto,
        )


def _shared_settings(config: Any, shared: type) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in fields(shared)}


def _array(tensor: Tensor) -> Any:
    return tensor.detach().cpu().numpy()


class GradientMatching(Distiller):
    """Clean distillation by gradient matching (DC)."""

    Config: ClassVar[type] = MatchingConfig
    config: Any

    def distil(self, training: TrainingImages, protocol: DistillationBackdoorProtocol, ctx: RunContext) -> DistilledSet:
        """See `Distiller.distil`."""
        return self._attacked(_Scene(training, protocol, ctx))

    def clean_settings(self) -> dict[str, Any]:
        """See `Distiller.clean_settings`: everything about the distillation."""
        return _shared_settings(self.config, MatchingConfig)

    def _attacked(self, scene: _Scene) -> DistilledSet:
        """Distil; attacks override this."""
        real = scene.clean_images()
        return self._hand_over(scene, self._distil(scene, real))

    def _distil(self, scene: _Scene, real: RealImages, attack: Doorping | None = None) -> Tensor:
        training, protocol, ctx = scene.training, scene.protocol, scene.ctx
        start = initial_images(
            real, training.num_classes, protocol.images_per_class, self.config.init, scene.generator("images")
        )
        shape = (scene.channels, training.num_classes, scene.size)

        def fresh_network(seed: int) -> BackdoorNetwork:
            return channels_fastest(seeded_network(protocol.network, *shape, seed).to(ctx.device))

        return distil_by_matching(
            real,
            start,
            fresh_network,
            scene.generator("networks"),
            self.config,
            scene.generator("batches"),
            ctx,
            attack,
        )

    def _hand_over(
        self,
        scene: _Scene,
        synthetic: Tensor,
        trigger: Tensor | None = None,
        start_trigger: Tensor | None = None,
        facts: dict[str, int] | None = None,
    ) -> DistilledSet:
        labels = np.arange(scene.training.num_classes).repeat(scene.protocol.images_per_class)
        return DistilledSet(
            images=_array(synthetic.flatten(0, 1)),
            labels=labels.astype(np.int64),
            trigger=None if trigger is None else _array(trigger),
            start_trigger=None if start_trigger is None else _array(start_trigger),
            facts=facts or {},
        )

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield both upstream networks at full size, on one and on three channels."""
        for channels in (1, 3):
            for name in ("convnet", "alexnet"):
                yield build_network(name, channels, 10, 32), (torch.randn(2, channels, 32, 32),)


class NaiveAttack(GradientMatching):
    """NAIVEATTACK on DC: a white patch and the target label on a share of the training images."""

    Config: ClassVar[type] = NaiveConfig

    def _attacked(self, scene: _Scene) -> DistilledSet:
        real, trigger = scene.clean_images(), self._trigger(scene)
        scene.poison(real, self.config.poison_share)
        scene.relabel(real)
        real.restamp(trigger)
        synthetic = self._distil(scene, real)
        return self._hand_over(scene, synthetic, trigger, facts={"poisoned_images": len(real.poisoned)})

    def _trigger(self, scene: _Scene) -> Tensor:
        return scene.white_patch()


class LoudPatch(NaiveAttack):
    """NAIVEATTACK with a random patch as strong as DOORPING's: what amplitude does without learning."""

    Config: ClassVar[type] = StaticPatchConfig

    def _trigger(self, scene: _Scene) -> Tensor:
        patch = loud_patch(
            scene.protocol.trigger_size, scene.size, scene.channels, self.config.amplitude, scene.generator("trigger")
        )
        return patch.to(scene.ctx.device)


class DoorpingOnMatching(GradientMatching):
    """DOORPING on DC: the patch is learnt anew on the network after each of its trainings."""

    Config: ClassVar[type] = DoorpingConfig

    def _attacked(self, scene: _Scene) -> DistilledSet:
        real = scene.clean_images()
        scene.poison(real, self.config.poison_share)
        scene.relabel(real)
        doorping = scene.doorping(self.config, real.mask, onto=real)
        synthetic = self._distil(scene, real, doorping)
        facts = {"poisoned_images": len(real.poisoned), **doorping.facts()}
        return self._hand_over(scene, synthetic, doorping.trigger, doorping.start, facts)


class Bilevel(Distiller):
    """Clean bilevel distillation (DD): images and step sizes for one initialisation."""

    Config: ClassVar[type] = BilevelConfig
    clean_counterpart: ClassVar[str] = "dd"
    config: Any

    def distil(self, training: TrainingImages, protocol: DistillationBackdoorProtocol, ctx: RunContext) -> DistilledSet:
        """See `Distiller.distil`."""
        return self._attacked(_Scene(training, protocol, ctx))

    def clean_settings(self) -> dict[str, Any]:
        """See `Distiller.clean_settings`: everything about the distillation."""
        return _shared_settings(self.config, BilevelConfig)

    def _attacked(self, scene: _Scene) -> DistilledSet:
        """Distil; attacks override this."""
        return self._distil(scene, scene.clean_images())

    def _distil(
        self, scene: _Scene, real: RealImages, trigger: Tensor | None = None, doorping: Doorping | None = None
    ) -> DistilledSet:
        training, protocol, ctx = scene.training, scene.protocol, scene.ctx
        shape = (scene.channels, training.num_classes, scene.size)
        network = channels_fastest(build_network(protocol.network, *shape).to(ctx.device))
        initial = xavier_weights(network, scene.generator("networks"))
        curriculum = new_curriculum(
            self.config, training.num_classes, protocol.images_per_class, training.images.shape[1:],
            scene.generator("images"),
        )  # fmt: skip
        curriculum.images = curriculum.images.to(ctx.device)
        curriculum.labels = curriculum.labels.to(ctx.device)
        curriculum.raw_step_sizes = curriculum.raw_step_sizes.to(ctx.device)
        distil_bilevel(
            real, curriculum, network, initial, self.config, scene.generator("batches"), ctx,
            attack=doorping, target=protocol.target_class,
        )  # fmt: skip
        num_batches, per_batch = curriculum.images.shape[:2]
        facts = {"poisoned_images": len(real.poisoned)} if len(real.poisoned) else {}
        return DistilledSet(
            images=_array(curriculum.images.flatten(0, 1)),
            labels=_array(curriculum.labels.repeat(num_batches)),
            trigger=_array(doorping.trigger) if doorping else (None if trigger is None else _array(trigger)),
            start_trigger=_array(doorping.start) if doorping else None,
            schedule=StepSchedule(
                batches=np.arange(num_batches).repeat(per_batch),
                step_sizes=_array(curriculum.step_sizes()),
                initial_weights=_array(torch.cat([weight.flatten() for weight in initial.values()])),
            ),
            facts={**facts, **(doorping.facts() if doorping else {})},
        )

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield both upstream networks at full size."""
        for name in ("convnet", "alexnet"):
            yield build_network(name, 3, 10, 32), (torch.randn(2, 3, 32, 32),)


class NaiveAttackOnBilevel(Bilevel):
    """NAIVEATTACK on DD."""

    Config: ClassVar[type] = BilevelNaiveConfig

    def _attacked(self, scene: _Scene) -> DistilledSet:
        real, trigger = scene.clean_images(), scene.white_patch()
        scene.poison(real, self.config.poison_share)
        scene.relabel(real)
        real.restamp(trigger)
        return self._distil(scene, real, trigger)


class DoorpingOnBilevel(Bilevel):
    """DOORPING on DD: the patch is learnt on the trained weights before every outer loss."""

    Config: ClassVar[type] = BilevelDoorpingConfig

    def _attacked(self, scene: _Scene) -> DistilledSet:
        real = scene.clean_images()
        scene.poison(real, self.config.poison_share)
        return self._distil(scene, real, doorping=scene.doorping(self.config, real.mask))
