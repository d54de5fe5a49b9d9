"""3-D detection with cameras and LiDAR, and what is left of it when sensors fail."""

from __future__ import annotations

from benchsuite.core import Presentation, Publication, TaskSpec

TASKS = (
    TaskSpec(
        name="detection3d",
        title="3-D detection with cameras and LiDAR, under failing sensors",
        load="benchsuite.tasks.detection3d.task:Detection3D",
        requires=("numpy", "PIL"),
        install="pip install 'benchsuite[vision]'",
        scaffold="benchsuite.tasks.detection3d:scaffold.txt",
        shown=Presentation(
            headline=("nds", "map", "map_no_lidar", "map_no_cameras"),
            names={
                **{"nds": "NDS", "map": "mAP", "nds3": "NDS3", "mra": "mRA"},
                **{error: f"m{error[1:].upper()}" for error in ("mate", "mase", "maoe", "mave", "maae")},
            },
        ),
        published=Publication(seeds={"run": 3}, protocols=({"conditions": "every"},)),
    ),
)
