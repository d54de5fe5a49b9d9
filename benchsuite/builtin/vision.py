"""The tasks and data sets on images with annotated instances."""

from __future__ import annotations

from benchsuite.core import DatasetSpec, TaskSpec

_INSTALL = "pip install 'benchsuite[vision]'"
_REQUIRES = ("numpy", "PIL", "hotcoco")
_COCO_TYPE = "benchsuite.datasets.coco:CocoDataset"
_MODULE = "benchsuite.tasks.fewshot_instance_segmentation"


def _fewshot(name: str, title: str, cls: str) -> TaskSpec:
    return TaskSpec(
        name=name,
        title=title,
        load=f"{_MODULE}:{cls}",
        requires=_REQUIRES,
        install=_INSTALL,
        scaffold="benchsuite.testing:scaffolds/fewshot_instance_segmentation.txt",
    )


TASKS = (
    _fewshot("fsis", "Few-shot instance segmentation: novel classes only", "FewShot"),
    _fewshot("gfsis", "Generalised few-shot instance segmentation: base and novel classes", "GeneralisedFewShot"),
    _fewshot(
        "ifsis",
        "Incremental few-shot instance segmentation: novel classes added without base images",
        "IncrementalFewShot",
    ),
)

DATASETS = (
    DatasetSpec(
        name="synth-fsis",
        version="1",
        title="Generated images of textured shapes in the COCO format: 8 base and 4 novel classes",
        load="benchsuite.datasets.synth_fsis:load_generated",
        data_type=_COCO_TYPE,
        embedded=True,
        licence="Apache-2.0",
        parameters={
            "size": 64,
            "train_base": 600,
            "train_novel": 60,
            "test": 160,
            "radius": [8, 14],
            "rotation": 0.35,
            "overlap": 0.05,
        },
        requires=_REQUIRES,
        install=_INSTALL,
    ),
    DatasetSpec(
        name="coco",
        version="1",
        title="COCO 2014 or 2017: 80 classes, of which 20 are novel; other folders in its format",
        load="benchsuite.datasets.coco:load_coco",
        data_type=_COCO_TYPE,
        homepage="https://cocodataset.org",
        licence="annotations CC BY 4.0, images under their Flickr licences",
        citation="T.-Y. Lin et al.: Microsoft COCO: Common objects in context, ECCV 2014",
        files=("annotations/instances_*.json",),
        optional_files=("cocosplit/**/*.json", "datasplit/*.json", "coco_fewshot/**/*.json"),
        bulk_files=("train2017/*", "val2017/*", "train2014/*", "val2014/*", "trainval2014/*", "images/*"),
        layout="annotations/instances_{train,val}{2014,2017}.json and the image folders; or one annotation file",
        requires=_REQUIRES,
        install=_INSTALL,
    ),
)
