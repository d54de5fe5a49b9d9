"""Pictures with a class, a box and a mask for every object: generated shapes, and a real picture of nuclei."""

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
NUCLEI: dict[str, Any] = {"tile": 64}
_TYPE: dict[str, Any] = {
    "version": "1",
    "data_type": "benchsuite.datasets.shapes.generated:ShapeScenes",
    "embedded": True,
}
_SHARED: dict[str, Any] = {**_TYPE, "licence": "Apache-2.0", "requires": ("numpy",)}

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
    DatasetSpec(
        name="nuclei",
        title="A real fluorescence picture of 125 nuclei with their masks, shipped with stardist, in tiles of 64 x 64",
        load="benchsuite.datasets.shapes.nuclei:load_nuclei",
        homepage="https://github.com/stardist/stardist",
        licence="BSD-3-Clause (the package); the picture is of the Data Science Bowl 2018",
        citation="J. C. Caicedo et al.: Nucleus segmentation across imaging experiments, Nature Methods 2019",
        parameters=NUCLEI,
        requires=("numpy", "PIL", "stardist"),
        install="pip install --no-deps stardist",
        **_TYPE,
    ),
)
