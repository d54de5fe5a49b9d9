"""The settings of DOORPING's rows. No torch here: a run is planned before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""Images a class to the published numbers of matching steps and of inner network steps."""


@dataclass(frozen=True)
class MatchingConfig:
    """Settings of gradient matching (DC); the defaults are the published ones.

    ``iterations`` is the index of the last pass: there are one more, each with a fresh network. ``outer`` and
    ``inner`` left out follow the number of images a class. ``init`` says what the synthetic images start from: noise
    or random training images of their class (never poisoned ones).
    """

    iterations: int = 1000
    outer: int | None = None
    inner: int | None = None
    real_batch: int = 256
    image_lr: float = 0.1
    image_momentum: float = 0.5
    network_lr: float = 0.01
    inner_batch: int = 256
    init: Literal["noise", "real"] = "noise"
    distance: Literal["rows", "mse", "cosine"] = "rows"

    def __post_init__(self) -> None:
        _require_positive(self, "real_batch", "inner_batch", "image_lr", "network_lr")
        for name in ("outer", "inner"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.iterations < 0:
            raise ValueError("iterations must not be negative")


@dataclass(frozen=True)
class BilevelConfig:
    """Settings of bilevel distillation (DD); the defaults are the published ones.

    ``distill_steps`` batches of synthetic images are gone through ``distill_epochs`` times; ``distill_lr`` is the size
    that every step starts with. ``epochs`` counts passes over the training images.
    """

    distill_steps: int = 10
    distill_epochs: int = 3
    distill_lr: float = 0.001
    epochs: int = 400
    batch: int = 1024
    lr: float = 0.01
    decay_epochs: int = 40
    decay_factor: float = 0.5

    def __post_init__(self) -> None:
        _require_positive(
            self, "distill_steps", "distill_epochs", "distill_lr", "epochs", "batch", "lr", "decay_epochs"
        )


@dataclass(frozen=True)
class Poisoning:
    """Which share of the training images is poisoned; left out, the protocol's."""

    poison_share: float | None = None

    def __post_init__(self) -> None:
        if self.poison_share is not None and not 0.0 <= self.poison_share <= 1.0:
            raise ValueError(f"poison_share {self.poison_share:g} is not a share between 0 and 1")


@dataclass(frozen=True)
class StaticPatch(Poisoning):
    """A patch of random signs, ``amplitude`` standard deviations from the mean, that is never changed."""

    amplitude: float = 500.0


@dataclass(frozen=True)
class LearntTrigger(Poisoning):
    """Settings of the trigger's optimisation; the defaults are the published ones.

    ``clamp`` keeps the trigger within what an image can hold (``pixel``), within ``clamp_sigma`` standard deviations
    (``sigma``) or, as published, nowhere (``none``).
    """

    alpha: float = 10.0
    topk: int = 1
    trigger_lr: float = 0.08
    trigger_betas: tuple[float, float] = (0.9, 0.99)
    trigger_steps: int = 1000
    trigger_stop: float = 0.5
    clamp: Literal["none", "pixel", "sigma"] = "none"
    clamp_sigma: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_positive(self, "topk", "trigger_lr", "trigger_steps", "clamp_sigma")


@dataclass(frozen=True)
class NaiveConfig(Poisoning, MatchingConfig):
    """Gradient matching on data poisoned with a white patch."""

    def __post_init__(self) -> None:
        MatchingConfig.__post_init__(self)
        Poisoning.__post_init__(self)


@dataclass(frozen=True)
class StaticPatchConfig(StaticPatch, MatchingConfig):
    """Gradient matching on data poisoned with a loud patch that is not learnt."""

    def __post_init__(self) -> None:
        MatchingConfig.__post_init__(self)
        Poisoning.__post_init__(self)


@dataclass(frozen=True)
class DoorpingConfig(LearntTrigger, MatchingConfig):
    """DOORPING on gradient matching."""

    def __post_init__(self) -> None:
        MatchingConfig.__post_init__(self)
        LearntTrigger.__post_init__(self)


@dataclass(frozen=True)
class BilevelNaiveConfig(Poisoning, BilevelConfig):
    """Bilevel distillation of data poisoned with a white patch."""

    def __post_init__(self) -> None:
        BilevelConfig.__post_init__(self)
        Poisoning.__post_init__(self)


@dataclass(frozen=True)
class BilevelDoorpingConfig(LearntTrigger, BilevelConfig):
    """DOORPING on bilevel distillation."""

    def __post_init__(self) -> None:
        BilevelConfig.__post_init__(self)
        LearntTrigger.__post_init__(self)


def _require_positive(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            raise ValueError(f"{name} must be positive, not {getattr(config, name)}")


@dataclass(frozen=True)
class NeuralCleanseConfig:
    """Settings of Neural Cleanse; the defaults are the published ones."""

    epochs: int = 100
    patience: int = 30
    batch: int = 64
    lr: float = 0.005
    mask_weight: float = 0.01
    threshold: float = 2.0

    def __post_init__(self) -> None:
        _require_positive(self, "epochs", "patience", "batch", "lr")


@dataclass(frozen=True)
class StripConfig:
    """Settings of STRIP. ``threshold_from``: benign entropies give the threshold by a normal fit or by counting."""

    overlays: int = 10
    false_alarms: float = 0.01
    threshold_from: Literal["normal", "empirical"] = "normal"

    def __post_init__(self) -> None:
        _require_positive(self, "overlays")
        if not 0.0 < self.false_alarms < 1.0:
            raise ValueError(f"false_alarms {self.false_alarms:g} is not a share between 0 and 1")


@dataclass(frozen=True)
class SpectralSignaturesConfig:
    """Settings of spectral signatures: 1.5 times the expected share of images is flagged."""

    expected_share: float = 0.1
    multiplier: float = 1.5

    def __post_init__(self) -> None:
        _require_positive(self, "expected_share", "multiplier")


@dataclass(frozen=True)
class ScanConfig:
    """Settings of SCAn; the defaults are those of the authors' defense code.

    ``rounds`` bounds both of its alternating fits; ``tolerance`` is the change of its covariances (Frobenius norms)
    at which the fit of clean images ends. ``threshold`` is e squared.
    """

    rounds: int = 100
    tolerance: float = 0.01
    threshold: float = 7.38905609893065

    def __post_init__(self) -> None:
        _require_positive(self, "rounds", "tolerance")
