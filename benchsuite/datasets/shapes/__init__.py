"""Generated pictures of shapes: one generator gives exact labels, boxes and masks."""

from __future__ import annotations

from typing import Any

from benchsuite.core import DatasetSpec

SHAPES: dict[str, Any] = {
    "size": 64,
    "train": 1600,
    "test": 800,
    "objects": [1, 1],
    "radius": [9, 18],
    "noise": 14.0,
}
SCENES: dict[str, Any] = {
    "size": 96,
    "train": 800,
    "test": 300,
    "objects": [1, 4],
    "radius": [9, 18],
    "noise": 14.0,
}
_SHARED: dict[str, Any] = {
    "version": "1",
    "data_type": "benchsuite.datasets.shapes.generated:ShapeScenes",
    "embedded": True,
    "licence": "Apache-2.0",
    "requires": ("numpy",),
}

DATASETS = (
    DatasetSpec(
        name="shapes",
        title="Generated pictures of one shape out of ten, 64 x 64: class, box and mask are exact",
        load="benchsuite.datasets.shapes.generated:load_shapes",
        parameters=SHAPES,
        **_SHARED,
    ),
    DatasetSpec(
        name="shape-scenes",
        title="Generated pictures of one to four shapes out of ten, 96 x 96: classes, boxes and masks are exact",
        load="benchsuite.datasets.shapes.generated:load_scenes",
        parameters=SCENES,
        **_SHARED,
    ),
)
