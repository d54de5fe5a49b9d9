"""The settings of the opponents in 3-D detection. No heavy import here."""

from __future__ import annotations

from dataclasses import dataclass

from benchsuite.core import ConfigError


@dataclass(frozen=True)
class LidarClustersConfig:
    """Settings of clusters of LiDAR points.

    Attributes
    ----------
    cell
        Side in metres of the cells of a map seen from above; cells with points that touch are one cluster.
    clearance, height
        Points count from so many metres above the ground, up to so many.
    least_points
        Smaller clusters are left out.
    most_frames
        Of the training keyframes so many, evenly spread, are learned from.
    trees, least_leaf
        Trees of each forest, and the least number of clusters in a leaf.
    least_score
        Boxes with a smaller score are left out.
    """

    cell: float = 0.5
    clearance: float = 0.2
    height: float = 4.5
    least_points: int = 2
    most_frames: int = 1000
    trees: int = 100
    least_leaf: int = 3
    least_score: float = 0.02

    def __post_init__(self) -> None:
        if self.cell <= 0 or not 0 < self.clearance < self.height:
            raise ConfigError("cell must be positive, and clearance between 0 and height")
        if min(self.least_points, self.most_frames, self.trees, self.least_leaf) < 1:
            raise ConfigError("least_points, most_frames, trees and least_leaf must be at least 1")
        if not 0 <= self.least_score < 1:
            raise ConfigError("least_score lies in [0, 1)")
