"""3-D detection: a centre-heatmap detector on features of both sensors, fused seen from above."""

from __future__ import annotations

from benchsuite.core import MethodSpec, Preset

METHODS = (
    MethodSpec(
        name="center-heatmap",
        version="1",
        role="baseline",
        tasks=("detection3d",),
        title="Centre heatmap (as CenterPoint's) on camera and LiDAR features fused seen from above",
        load="benchsuite_baselines.detection3d.method:CenterHeatmap",
        config="benchsuite_baselines.detection3d.config:CenterHeatmapConfig",
        presets={"embedded": Preset()},
        requires=("torch", "PIL"),
        install="pip install 'benchsuite[vision]'",
        saves_model=True,
        card="benchsuite_baselines:README.md",
    ),
)
