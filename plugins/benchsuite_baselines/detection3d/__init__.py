"""3-D detection: clusters of LiDAR points, and a centre heatmap on features of both sensors seen from above."""

from __future__ import annotations

from benchsuite.core import Case, MethodSpec, Preset

_STILL = tuple(Case({"dataset": name}, {"still": True}) for name in ("cuboids-a", "cuboids-b", "cuboids-c"))

METHODS = (
    MethodSpec(
        name="lidar-clusters",
        version="1",
        title="Clusters of LiDAR points, told apart by a random forest of scikit-learn",
        role="baseline",
        tasks=("detection3d",),
        load="benchsuite_baselines.detection3d.clusters:LidarClusters",
        config="benchsuite_baselines.detection3d.config:LidarClustersConfig",
        presets={"embedded": Preset(), "paper": Preset({"most_frames": 4000})},
        requires=("numpy", "scipy", "sklearn", "PIL"),
        install="pip install 'benchsuite[vision]'",
        card="benchsuite_baselines:README.md",
    ),
    MethodSpec(
        name="center-heatmap",
        version="1",
        title="Centre heatmap (as CenterPoint's) on camera and LiDAR features fused seen from above",
        role="baseline",
        tasks=("detection3d",),
        load="benchsuite_baselines.detection3d.center_heatmap:CenterHeatmap",
        config="benchsuite_baselines.detection3d.heatmap_config:CenterHeatmapConfig",
        presets={"embedded": Preset({}, _STILL)},
        requires=("torch", "PIL"),
        install="pip install 'benchsuite[vision]'",
        saves_model=True,
        card="benchsuite_baselines:README.md",
    ),
)
