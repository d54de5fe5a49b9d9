"""The settings of CMT's rows. No torch here: a run is planned before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchsuite.core import ConfigError
from benchsuite_cmt.architecture import RELEASED

Modality = Literal["fusion", "lidar", "camera"]


@dataclass(frozen=True)
class CMTConfig:
    """Settings; the defaults are those of the embedded preset.

    Attributes
    ----------
    architecture
        ``small``, or a released one: ``voxel0075_vov_1600x640``, ``voxel0100_r50_800x320``, ``lidar_voxel0075``,
        ``camera_vov_1600x640``.
    modality
        Of the small one: both sensors, or one.
    masking
        Share of training samples without cameras, and as large a share without LiDAR: .25 as published, 0 for none.
    masking_from
        Share of the steps before masking begins (0 as published). What comes before is trained once for all rows that
        share it.
    steps, epochs
        Length of the training: ``steps``, or if these are 0 so many passes over the (resampled) frames.
    batch_size, lr, weight_decay, clip
        AdamW; ``lr`` is where the cycle starts, ``clip`` bounds the norm of gradients.
    peak, final, warm_up
        Factors of ``lr`` at the cycle's peak and end, and the share of the steps in which it rises.
    denoising_groups
        At most so many noisy copies of each box; 0 for none.
    noise
        ``box``: uniform within half the box's size, far ones are background (as published). ``metres``: uniform within
        ``noise_metres`` in x and y, half a metre in z, none is background.
    noise_metres
        See ``noise``.
    auxiliary
        Weight of two heads on the tokens that only training has; 0, as published, for none.
    augment
        ``mirror``: x and y, where the rig is symmetric. ``published``: movements of the world, and of pictures.
        ``published-camera``: those of the camera configuration. ``none``.
    still
        Whether boxes neither move nor have a front, as the cuboids'. The small network then learns no velocities, and
        boxes face forward (yaw within a quarter turn) after a mirroring too: else each would be shown as often turned
        round, and nothing tells when.
    sample_objects
        Whether objects of other frames are pasted in; in all but the last ``plain_epochs`` passes.
    plain_epochs
        See ``sample_objects``.
    balance
        Resample frames so that classes have equal shares (CBGS).
    grid_mask
        Whether pictures lose a random grid in training.
    pretrained, needs_pretrained
        Weights that the image backbone starts from; whether a whole run is refused without them.
    sparse
        What convolves voxels: this plugin's own code (``torch``), or ``spconv``.
    amp
        Mixed precision on a GPU.
    workers
        Processes that prepare batches.
    """

    architecture: str = "small"
    modality: Modality = "fusion"
    masking: float = 0.0
    masking_from: float = 0.4
    steps: int = 900
    epochs: int = 0
    batch_size: int = 16
    lr: float = 8e-5
    weight_decay: float = 0.01
    clip: float = 10.0
    peak: float = 25.0
    final: float = 0.025
    warm_up: float = 0.2
    denoising_groups: int = 4
    noise: Literal["box", "metres"] = "metres"
    noise_metres: float = 3.0
    auxiliary: float = 0.0
    augment: Literal["none", "mirror", "published", "published-camera"] = "mirror"
    still: bool = False
    sample_objects: bool = False
    plain_epochs: int = 5
    balance: bool = False
    grid_mask: bool = False
    pretrained: str = ""
    needs_pretrained: bool = False
    sparse: Literal["torch", "spconv"] = "torch"
    amp: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        if self.architecture != "small" and self.architecture not in RELEASED:
            raise ConfigError(
                f"there is no architecture {self.architecture!r}: choose small, {', '.join(sorted(RELEASED))}"
            )
        if not 0 <= self.masking <= 0.5 or not 0 <= self.masking_from <= 1:
            raise ConfigError("masking must be in [0, .5] (it is the share of each sensor), masking_from in [0, 1]")
        if self.batch_size < 1 or min(self.steps, self.epochs, self.plain_epochs, self.workers) < 0:
            raise ConfigError("batch_size must be at least 1; steps, epochs, plain_epochs, workers not negative")
        if not (self.steps or self.epochs):
            raise ConfigError("give steps, or epochs with steps=0")
        if min(self.lr, self.peak, self.final, self.clip) <= 0 or self.weight_decay < 0:
            raise ConfigError("lr, peak, final and clip must be positive, weight_decay must not be negative")
        if self.auxiliary < 0:
            raise ConfigError("auxiliary must not be negative")
        if not 0 < self.warm_up < 1 or self.denoising_groups < 0 or self.noise_metres <= 0:
            raise ConfigError("warm_up must be in (0, 1), denoising_groups not negative, noise_metres positive")
