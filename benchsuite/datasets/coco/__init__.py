"""Images with annotated instances: COCO, and generated ones in its format."""

from __future__ import annotations

from typing import Any

from benchsuite.core import DatasetSpec

_INSTALL = "pip install 'benchsuite[vision]'"
_REQUIRES = ("numpy", "PIL", "hotcoco")
_COCO_TYPE = "benchsuite.datasets.coco.reader:CocoDataset"

GENERATED_VERSION = "1"
GENERATED_PARAMETERS: dict[str, Any] = {
    "size": 64,
    "train_base": 600,
    "train_novel": 60,
    "test": 160,
    "radius": [8, 14],
    "rotation": 0.35,
    "overlap": 0.05,
}

DATASETS = (
    DatasetSpec(
        name="synth-fsis",
        version=GENERATED_VERSION,
        title="Generated images of textured shapes in the COCO format: 8 base and 4 novel classes",
        load="benchsuite.datasets.coco.generated:load_generated",
        data_type=_COCO_TYPE,
        embedded=True,
        licence="Apache-2.0",
        parameters=GENERATED_PARAMETERS,
        requires=_REQUIRES,
        install=_INSTALL,
    ),
    DatasetSpec(
        name="coco",
        version="2",
        title="COCO 2014 or 2017: 80 classes, of which 20 are novel; other folders in its format",
        load="benchsuite.datasets.coco.reader:load_coco",
        data_type=_COCO_TYPE,
        homepage="https://cocodataset.org",
        licence="annotations CC BY 4.0, images under their Flickr licences",
        citation="T.-Y. Lin et al.: Microsoft COCO: Common objects in context, ECCV 2014",
        files=("annotations/instances_*.json",),
        optional_files=(
            *("cocosplit/**/*.json", "datasplit/*.json", "coco_fewshot/**/*.json"),
            *("splits/coco/*/fold*.pkl", "splits/coco/*/fold*.txt"),
        ),
        bulk_files=tuple(
            f"{folder}/**/*" for folder in ("train2017", "val2017", "train2014", "val2014", "trainval2014", "images")
        ),
        layout="annotations/instances_{train,val}{2014,2017}.json and the image folders; or one annotation file",
        requires=_REQUIRES,
        install=_INSTALL,
    ),
)
