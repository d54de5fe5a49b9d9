"""The settings of RefT's rows. No torch here: a run is planned before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from benchsuite.core import ConfigError

NetworkName = Literal["mini", "resnet50", "resnet101", "swin-tiny", "swin-small", "swin-base"]


Stage = TypeVar("Stage")


@dataclass(frozen=True)
class BaseStageConfig:
    """All that the training on the base classes depends on, and nothing else: every row shares it.

    Attributes
    ----------
    network
        ``mini`` is a small network of this package, the others are Mask2Former of transformers with that backbone.
    image_size, jitter
        Side of the square training crop in px; images are scaled to fit it, times a factor drawn from ``jitter``.
    base_steps, batch_size, lr
        Length, images a step and learning rate.
    micro_batch
        So many images at a time go through the network; gradients of a batch are added up.
    backbone_rate
        The backbone's learning rate in units of the others'.
    schedule
        ``one-cycle`` warms up over 10 %; ``step`` warms up over 10 steps and drops tenfold at ``drops`` (shares of the
        stage; tuning drops at 80 %).
    points
        Masks are compared on so many points.
    amp
        Train in bfloat16 on a GPU.
    """

    network: NetworkName = "mini"
    image_size: int = 64
    jitter: tuple[float, float] = (1.0, 1.0)
    base_steps: int = 350
    batch_size: int = 16
    micro_batch: int = 16
    lr: float = 0.0015
    backbone_rate: float = 1.0
    weight_decay: float = 0.02
    clip: float = 1.0
    schedule: Literal["one-cycle", "step"] = "one-cycle"
    drops: tuple[float, ...] = (0.889, 0.963)
    points: int = 256
    amp: bool = False


@dataclass(frozen=True)
class RefineStageConfig(BaseStageConfig):
    """All that the refining stage depends on: the base stage's settings, more steps, and the head of the later stages.

    Attributes
    ----------
    refine_steps, refine_lr
        Length and learning rate; batches are the base stage's.
    head
        Class head after the base stage.
    """

    refine_steps: int = 100
    refine_lr: float = 0.0006
    head: Literal["linear", "cosine"] = "linear"


@dataclass(frozen=True)
class ReferenceConfig:
    """What training with references depends on beside a stage's own settings.

    Attributes
    ----------
    mode
        Class centres ``gate`` features or are ``add``-ed to them.
    temperature
        tau of the dynamic weights of class centres.
    queries_per_shot
        Object queries kept of each support image.
    tokens
        Link to ``all`` of them or to the ``mean`` of each class.
    link_logits
        Add logits of likeness to each class's tokens (not in the readable paper).
    support_size
        Side of the square that support images are scaled to, px.
    support_classes
        Classes with a support instance in a step of the refining stage: those present first, then random ones.
    episode_classes
        Draw so many base classes in each step of the refining stage; other objects lose their label. 0: all.
    micro_supports
        Keep no activations of support images: so many at a time go through the network, and once more in the backward
        pass. 0: all at once, their activations are kept.
    detach_support
        Pass no gradient to the support branch.
    reference_rate
        Learning rate of the reference modules in units of the others'.
    """

    mode: Literal["gate", "add"] = "gate"
    temperature: float = 0.1
    queries_per_shot: int = 1
    tokens: Literal["all", "mean"] = "all"
    link_logits: bool = False
    support_size: int = 64
    support_classes: int = 20
    episode_classes: int = 0
    micro_supports: int = 0
    detach_support: bool = False
    reference_rate: float = 3.0


@dataclass(frozen=True)
class RefTRefineStageConfig(ReferenceConfig, RefineStageConfig):
    """All that RefT's refining stage depends on."""


@dataclass(frozen=True)
class Mask2FormerConfig(RefineStageConfig):
    """Settings of a fine-tuned Mask2Former; the defaults are those of the embedded preset.

    Training has three stages: ``base_steps`` on the base classes, shared by all rows; ``refine_steps`` more of the
    same, in which RefT has its references; ``tune_steps`` on the shots (0: 100 a shot, from 500 to 3,000).

    Attributes
    ----------
    short_side, long_side
        Test images are scaled to this short side, or to this long side if they would exceed it.
    trainable
        What tuning changes: everything, or the input projections, the new rows of the head and the references.
    imprint
        Start the rows of new classes at the mean of their shots' object queries.
    segment
        The base stage leaves a resumable state every so many steps.
    """

    short_side: int = 64
    long_side: int = 64
    tune_steps: int = 80
    tune_batch_size: int = 12
    tune_lr: float = 0.001
    trainable: Literal["all", "projections"] = "all"
    imprint: bool = False
    segment: int = 100_000

    def __post_init__(self) -> None:
        for name in ("image_size", "short_side", "long_side", "base_steps", "batch_size", "tune_batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        for name in ("micro_batch", "points", "segment"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        for name in ("refine_steps", "tune_steps", "weight_decay"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative")
        for name in ("lr", "refine_lr", "tune_lr", "backbone_rate", "clip"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive")
        if self.image_size % 32:
            raise ConfigError("image_size must be a multiple of 32, the coarsest stride")
        if not 0 < self.jitter[0] <= self.jitter[1]:
            raise ConfigError("jitter needs two scales, the smaller first")


@dataclass(frozen=True)
class RefTConfig(ReferenceConfig, Mask2FormerConfig):
    """Settings of RefT.

    Attributes
    ----------
    support_shots
        Support instances a class in a step of tuning.
    stored_shots
        Support instances a base class behind the centres and tokens kept for the incremental setting.
    distillation
        In the incremental setting, keep base beliefs and features near the teacher's.
    enhancement
        beta: how much more base objects weigh in the distillation.
    """

    support_shots: int = 2
    stored_shots: int = 5
    distillation: bool = False
    enhancement: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("queries_per_shot", "support_size", "support_classes", "support_shots", "stored_shots"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        if self.support_size % 32:
            raise ConfigError("support_size must be a multiple of 32, the coarsest stride")
        if self.temperature <= 0 or self.reference_rate <= 0:
            raise ConfigError("temperature and reference_rate must be positive")
        for name in ("episode_classes", "micro_supports", "enhancement"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative")


def stage_of(config: Any, stage: type[Stage]) -> Stage:
    """Return the settings of one stage: whatever the stage has a field for."""
    return stage(**{field.name: getattr(config, field.name) for field in fields(stage)})  # type: ignore[arg-type]
