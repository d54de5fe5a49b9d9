"""The settings of the centre-heatmap detector. No torch here: a run is planned before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass

from benchsuite.core import ConfigError


@dataclass(frozen=True)
class CenterHeatmapConfig:
    """Settings.

    Attributes
    ----------
    width
        Channels of the maps.
    cells, levels
        Cells a side of the raster of points (the map of outputs has half of them), and its levels in height.
    image_size
        Height and width that pictures are resized to.
    least_radius
        Of the bump of a centre in the heatmap, in cells.
    steps, batch_size, lr, weight_decay, clip
        AdamW under a one-cycle schedule with its peak at ``lr``.
    still
        Whether boxes have no front, as the cuboids': they face forward (yaw within a quarter turn) when mirrored too.
    most
        Boxes a frame.
    """

    width: int = 64
    cells: int = 32
    levels: int = 4
    image_size: tuple[int, int] = (32, 64)
    least_radius: int = 1
    steps: int = 900
    batch_size: int = 16
    lr: float = 0.002
    weight_decay: float = 0.01
    clip: float = 10.0
    still: bool = False
    most: int = 100

    def __post_init__(self) -> None:
        if min(self.width, self.cells, self.levels, self.steps, self.batch_size, self.most) < 1 or self.cells % 2:
            raise ConfigError("width, cells (even), levels, steps, batch_size and most must be at least 1")
        if len(self.image_size) != 2 or min(self.image_size) < 8:
            raise ConfigError("image_size must be height and width, each at least 8")
        if min(self.lr, self.clip) <= 0 or self.weight_decay < 0 or self.least_radius < 0:
            raise ConfigError("lr and clip must be positive, weight_decay and least_radius not negative")
        if not 1 <= self.most <= 500:
            raise ConfigError("most must be from 1 to 500")
