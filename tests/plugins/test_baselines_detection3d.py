"""Clusters of LiDAR points: what is a cluster, what it is like, and that they find boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from driving import world
from support import context

pytest.importorskip("sklearn")

from benchsuite.core.errors import ConfigError
from benchsuite.tasks.detection3d.contract import Boxes, CameraView, Detection3DProtocol, Frame
from benchsuite.tasks.detection3d.task import Detection3D
from benchsuite_baselines.detection3d import METHODS
from benchsuite_baselines.detection3d.clusters import LidarClusters, _boxes, _owners, _targets, clusters_of
from benchsuite_baselines.detection3d.config import LidarClustersConfig

EXTENT = (-16.0, -16.0, -1.8, 16.0, 16.0, 1.0)


def frame(points: list[list[float]], *views: CameraView) -> Frame:
    rows = np.array([[*p, 7.0, 0.0, 0.0] for p in points], dtype=np.float32)
    return Frame("a", 0.0, views, rows, np.eye(4), np.eye(4))


def test_clusters_are_points_that_touch_above_the_ground() -> None:
    pile = [[5.1, 0.1, -1.0], [5.4, 0.2, -0.5], [5.6, 0.3, -1.2]]
    other = [[-8.0, 4.0, 0.0], [-8.1, 4.1, 0.2]]
    alone, ground, high, old = [9.0, 9.0, 0.0], [5.2, 0.2, -1.78], [-8.0, 4.0, 5.0], [5.2, 0.2, -1.0]
    given = frame([*pile, *other, alone, ground, high, old])
    given.points[-1, 5] = 0.1  # of an earlier sweep
    found = clusters_of(given, -1.8, EXTENT, LidarClustersConfig())
    assert sorted(map(tuple, np.round(found.middles, 3).tolist())) == [(-8.05, 4.05), (5.367, 0.2)]
    nearest = found.features[np.argmin(found.features[:, 0])]
    assert nearest[0] == pytest.approx(np.hypot(5.3667, 0.2), abs=1e-3)
    assert nearest[1] == pytest.approx(np.log(3))
    assert nearest[7] == pytest.approx(1.3, abs=1e-5)  # its top, above the ground
    assert nearest[8] == 7
    assert (nearest[9:] == -1).all()  # no camera sees it


def test_a_clusters_colour_is_what_cameras_see() -> None:
    to_camera = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    image = np.zeros((20, 20, 3), dtype=np.uint8)
    image[:, :10] = (200, 0, 0)  # on the left, where y is positive
    view = CameraView("X", image, (20, 20), np.array([[10.0, 0, 9.5], [0, 10, 9.5], [0, 0, 1]]), to_camera)
    pile = [[5.0, 2.0, 0.0], [5.1, 2.1, 0.1]]
    for views, expected in (((view,), [200, 0, 0]), ((replace(view, image=None),), [-1, -1, -1])):
        (features,) = clusters_of(frame(pile, *views), -1.8, EXTENT, LidarClustersConfig()).features
        assert features[9:] == pytest.approx(expected)


def test_boxes_come_back_from_what_is_learned_of_them() -> None:
    whole = np.zeros(2, dtype=np.int64)
    boxes = Boxes(
        np.array([[6.0, 3, -1], [-9, 1, 0]]),
        np.array([[4.0, 2, 1.5], [1, 1, 2]]),
        np.array([0.4, -0.3]),
        np.zeros((2, 2)),
        whole,
        whole,
        whole,
    )
    middles = np.array([[5.0, 2.5], [-8.7, 1.0], [0.0, 9.0]])
    owners = _owners(middles, boxes)
    assert owners.tolist() == [0, 1, -1]
    found = _boxes(middles[:2], _targets(middles[:2], boxes), np.ones(2), whole)
    assert found.centres == pytest.approx(boxes.centres)
    assert found.sizes == pytest.approx(boxes.sizes)
    assert found.yaws == pytest.approx(boxes.yaws)


def test_it_finds_boxes_and_needs_the_lidar(tmp_path: Path) -> None:
    given = {"train": world(), "test": world()}
    method = LidarClusters(LidarClustersConfig(trees=20))
    first, again = (
        Detection3D().evaluate(method, given, Detection3DProtocol(), context(tmp_path / name)).scores
        for name in ("one", "two")
    )
    assert first["map"] > 0.3
    assert first["map"] > first["map_no_cameras"] > 0
    assert first["map_no_lidar"] == 0
    assert {name: first[name] for name in ("map", "nds3")} == {name: again[name] for name in ("map", "nds3")}


def test_settings_that_cannot_be_meant() -> None:
    for wrong in ({"cell": 0}, {"clearance": 5}, {"trees": 0}, {"least_score": 1}):
        with pytest.raises(ConfigError):
            LidarClustersConfig(**wrong)  # type: ignore[arg-type]
    assert [spec.name for spec in METHODS] == ["lidar-clusters", "center-heatmap"]
