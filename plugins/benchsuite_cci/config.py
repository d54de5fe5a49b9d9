"""The settings of CCI's rows. No torch here: a run is planned before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchsuite.core import ConfigError


@dataclass(frozen=True)
class UNetConfig:
    """Settings of a 1-D U-Net and its training.

    ``widths`` are the channels of its levels, top first. ``rate`` is the sampling rate of the ECG that it sees (Hz),
    ``ecg_crop`` the length of its training crops in samples of that rate, ``pcg_crop`` in 20 ms frames.
    """

    widths: tuple[int, ...] = (8, 16, 24, 32)
    rate: int = 100
    steps: int = 120
    lr: float = 0.003
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    ecg_crop: int = 512
    ecg_batch: int = 12
    pcg_crop: int = 384
    pcg_batch: int = 16
    qrs_weight: float = 2.0
    decoding: Literal["argmax", "duration-viterbi"] = "argmax"

    def __post_init__(self) -> None:
        for name in ("rate", "steps", "ecg_crop", "ecg_batch", "pcg_crop", "pcg_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        if not self.widths or min(self.widths) < 1:
            raise ConfigError("widths needs at least one level of at least one channel")
        deepest = 2 ** (len(self.widths) - 1)
        for name in ("ecg_crop", "pcg_crop"):
            if getattr(self, name) % deepest:
                raise ConfigError(f"{name} must be a multiple of {deepest}: widths has {len(self.widths)} levels")


@dataclass(frozen=True)
class CCIConfig(UNetConfig):
    """Settings of contrastive causal intervention.

    ``contrast_weight`` is lambda, ``temperature`` tau. ``morphology`` and ``rhythm`` switch the two interventions,
    ``ce_on_interventions`` whether the classifier is trained on intervened signals too.
    """

    contrast_weight: float = 0.3
    temperature: float = 0.1
    anchors: int = 256
    morphology: bool = True
    rhythm: bool = True
    ce_on_interventions: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.contrast_weight < 0:
            raise ConfigError("contrast_weight must not be negative")
        if self.temperature <= 0:
            raise ConfigError("temperature must be positive")
        if self.anchors < 2:
            raise ConfigError("anchors must be at least 2")
        if not (self.morphology or self.rhythm):
            raise ConfigError("switch on morphology or rhythm: without either use the method 'unet1d'")
