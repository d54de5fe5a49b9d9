"""Clusters of LiDAR points above the ground; random forests say what each is, and where its box lies."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from benchsuite.core import RunContext
from benchsuite.tasks.detection3d.contract import (
    MOST_BOXES,
    POINT_COLUMNS,
    Boxes,
    CameraView,
    Detection3DMethod,
    Detections,
    Detector,
    Frame,
    Frames,
    TrainingScenes,
)
from benchsuite_baselines.detection3d.config import LidarClustersConfig

Floats = NDArray[np.float64]

_INTENSITY, _LAG = POINT_COLUMNS.index("intensity"), POINT_COLUMNS.index("lag")
_TOUCHING = np.ones((3, 3))
_MARGIN = 0.5  # metres around a true box in which a cluster's middle may lie
_GROUND_SAMPLES = 50
_FEATURES = 12


class LidarClusters(Detection3DMethod):
    """Learns from the clusters of the training keyframes which box each belongs to."""

    Config: ClassVar[type] = LidarClustersConfig

    def fit(self, scenes: TrainingScenes, ctx: RunContext) -> Detector:
        """See `Detection3DMethod.fit`."""
        c = self.config
        count = min(len(scenes.frames), c.most_frames)
        places = np.unique(np.linspace(0, len(scenes.frames) - 1, count).round().astype(int))
        ground = _ground(scenes.frames)
        features, labels, targets = [], [], []
        for step in ctx.steps(len(places), "clusters"):
            found = clusters_of(scenes.frames[int(places[step])], ground, scenes.extent, c)
            boxes = scenes.boxes[int(places[step])]
            owners = _owners(found.middles, boxes)
            features.append(found.features)
            labels.append(np.where(owners >= 0, boxes.labels[owners] if len(boxes) else 0, len(scenes.classes)))
            owned = owners >= 0
            targets.append(_targets(found.middles[owned], boxes[owners[owned]]))
        known, what = np.concatenate(features), np.concatenate(labels)
        seed = ctx.seed_for("run", "forest")
        settings: dict[str, Any] = {"n_estimators": c.trees, "min_samples_leaf": c.least_leaf, "n_jobs": 1}
        objects = what < len(scenes.classes)
        if not objects.any():
            return ClusterDetector(None, None, ground, scenes, c)
        classifier = RandomForestClassifier(random_state=seed, **settings).fit(known, what)
        regressor = RandomForestRegressor(random_state=seed, **settings)
        regressor.fit(known[objects], np.concatenate(targets))
        return ClusterDetector(classifier, regressor, ground, scenes, c)


class ClusterDetector(Detector):
    """Forests that know clusters. Without LiDAR there are none, so nothing is found."""

    def __init__(
        self, classifier: Any, regressor: Any, ground: float, scenes: TrainingScenes, config: LidarClustersConfig
    ) -> None:
        self._classifier, self._regressor, self._ground, self._config = classifier, regressor, ground, config
        self._classes, self._extent = len(scenes.classes), scenes.extent

    def detect(self, frames: Frames, ctx: RunContext) -> list[Detections]:
        """See `Detector.detect`."""
        nothing = Clusters(np.zeros((0, 2)), np.zeros((0, _FEATURES)))
        found = [
            nothing if frame.points is None else clusters_of(frame, self._ground, self._extent, self._config)
            for frame in frames
        ]
        features = np.concatenate([one.features for one in found])
        if self._classifier is None or not len(features):
            return [_boxes(np.zeros((0, 2)), np.zeros((0, 8)), np.zeros(0), np.zeros(0, dtype=np.int64)) for _ in found]
        chances = np.zeros((len(features), self._classes + 1))
        chances[:, self._classifier.classes_] = self._classifier.predict_proba(features)
        ends = np.cumsum([len(one.middles) for one in found])[:-1]
        parts = (np.split(values, ends) for values in (chances[:, :-1], self._regressor.predict(features)))
        return [self._best(one.middles, *values) for one, *values in zip(found, *parts, strict=True)]

    def _best(self, middles: Floats, chances: Floats, shapes: Floats) -> Detections:
        """Return each cluster's likely classes as boxes, the most likely of a keyframe first."""
        clusters, labels = np.nonzero(chances >= self._config.least_score)
        best = np.argsort(-chances[clusters, labels], kind="stable")[:MOST_BOXES]
        clusters, labels = clusters[best], labels[best]
        return _boxes(middles[clusters], shapes[clusters], chances[clusters, labels], labels)


class Clusters:
    """Clusters of a keyframe: ``middles`` (k, 2) seen from above, ``features`` (k, 12)."""

    def __init__(self, middles: Floats, features: Floats) -> None:
        self.middles, self.features = middles, features


def clusters_of(frame: Frame, ground: float, extent: tuple[float, ...], config: LidarClustersConfig) -> Clusters:
    """Return the clusters of a keyframe's own sweep."""
    points = frame.points if frame.points is not None else np.zeros((0, len(POINT_COLUMNS)), dtype=np.float32)
    low, high = np.array(extent[:2]), np.array(extent[3:5])
    above = points[:, 2] - ground
    kept = (points[:, _LAG] == 0) & (above > config.clearance) & (above < config.height)
    kept &= ((points[:, :2] >= low) & (points[:, :2] < high)).all(axis=1)
    points = points[kept].astype(np.float64)
    cells = ((points[:, :2] - low) / config.cell).astype(int)
    occupied = np.zeros(np.ceil((high - low) / config.cell).astype(int) + 1, dtype=bool)
    occupied[cells[:, 0], cells[:, 1]] = True
    labelled, count = ndimage.label(occupied, _TOUCHING)
    owner = labelled[cells[:, 0], cells[:, 1]] - 1
    colours = _colours(points, frame.views)
    members = [np.flatnonzero(owner == k) for k in range(count)]
    members = [one for one in members if len(one) >= config.least_points]
    middles = np.array([points[one, :2].mean(axis=0) for one in members]).reshape(-1, 2)
    features = [_features(points[one], colours[one], ground) for one in members]
    return Clusters(middles, np.array(features).reshape(-1, _FEATURES))


def _features(points: Floats, colours: Floats, ground: float) -> list[float]:
    middle = points[:, :2].mean(axis=0)
    distance = float(np.hypot(*middle))
    turned = (points[:, :2] - middle) @ _radial(middle[None])[0]
    along, across = np.ptp(turned, axis=0)
    spread = np.linalg.eigvalsh(np.cov(turned.T) + 1e-9 * np.eye(2)) if len(points) > 1 else np.zeros(2)
    seen = ~np.isnan(colours[:, 0])
    colour = colours[seen].mean(axis=0) if seen.any() else np.full(3, -1.0)
    return [
        distance,
        np.log(len(points)),
        np.log(len(points)) + 2 * np.log(max(distance, 1.0)),
        along,
        across,
        *np.sqrt(np.maximum(spread, 0)),
        points[:, 2].max() - ground,
        points[:, _INTENSITY].mean(),
        *colour,
    ]


def _radial(middles: Floats) -> Floats:
    """Return for places (k, 2) the axes (k, 2, 2), in columns: away from the car, and to the left of that."""
    away = middles / np.maximum(np.linalg.norm(middles, axis=1, keepdims=True), 1e-9)
    return np.stack([away, np.stack([-away[:, 1], away[:, 0]], axis=1)], axis=2)


def _colours(points: Floats, views: tuple[CameraView, ...]) -> Floats:
    """Return the mean colour (n, 3) that cameras see at each point; NaN where none does."""
    total, seen = np.zeros((len(points), 3)), np.zeros((len(points), 1))
    padded = np.column_stack([points[:, :3], np.ones(len(points))])
    for view in views:
        if view.image is None:
            continue
        u, v, depth, _ = (padded @ view.lidar_to_image.T).T
        depth = np.where(depth > 0.1, depth, np.nan)
        columns, rows = np.nan_to_num(np.round([u / depth, v / depth]), nan=-1.0).astype(int)
        inside = (columns >= 0) & (columns < view.size[1]) & (rows >= 0) & (rows < view.size[0])
        total[inside] += view.image[rows[inside], columns[inside]]
        seen[inside] += 1
    return np.where(seen > 0, total / np.maximum(seen, 1), np.nan)


def _ground(frames: Frames) -> float:
    """Return the height of the ground: what most of the lower points share."""
    places = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), _GROUND_SAMPLES)).round().astype(int))
    heights = [frame.points[:, 2] for p in places if (frame := frames[int(p)]).points is not None]
    counts, edges = np.histogram(np.concatenate(heights), bins=np.arange(-5.0, 1.0, 0.1))
    return float(edges[counts.argmax()] + 0.05)


def _owners(middles: Floats, boxes: Boxes) -> NDArray[np.int64]:
    """Return for each cluster the nearest box that its middle lies in, give or take half a metre; -1 for none."""
    if not len(middles) or not len(boxes):
        return np.full(len(middles), -1)
    apart = middles[:, None] - boxes.centres[None, :, :2]  # (k, n, 2)
    cosine, sine = np.cos(boxes.yaws), np.sin(boxes.yaws)
    along = np.abs(apart[..., 0] * cosine + apart[..., 1] * sine)
    across = np.abs(apart[..., 1] * cosine - apart[..., 0] * sine)
    inside = (along < boxes.sizes[:, 0] / 2 + _MARGIN) & (across < boxes.sizes[:, 1] / 2 + _MARGIN)
    distances = np.where(inside, np.hypot(along, across), np.inf)
    return np.where(inside.any(axis=1), distances.argmin(axis=1), -1)


def _targets(middles: Floats, boxes: Boxes) -> Floats:
    """Return (k, 8): where the centre lies from a cluster, its height, log sizes, cosine and sine of twice the yaw."""
    offsets = np.einsum("ki,kij->kj", boxes.centres[:, :2] - middles, _radial(middles))
    twice = 2 * boxes.yaws
    return np.column_stack([offsets, boxes.centres[:, 2], np.log(boxes.sizes), np.cos(twice), np.sin(twice)])


def _boxes(middles: Floats, shapes: Floats, scores: Floats, labels: NDArray[np.int64]) -> Detections:
    """Return boxes from what `_targets` means."""
    xy = middles + np.einsum("kij,kj->ki", _radial(middles), shapes[:, :2])
    return Detections(
        centres=np.column_stack([xy, shapes[:, 2]]),
        sizes=np.exp(shapes[:, 3:6]),
        yaws=np.arctan2(shapes[:, 7], shapes[:, 6]) / 2,
        velocities=np.zeros((len(labels), 2)),
        scores=scores,
        labels=labels.astype(np.int64),
    )
