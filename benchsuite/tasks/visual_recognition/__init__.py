"""Visual recognition with one backbone: classification, semantic segmentation and detection, with what they cost."""

from __future__ import annotations

from benchsuite.core import Presentation, TaskSpec

_PACKAGE = "benchsuite.tasks.visual_recognition"
_INSTALL = "pip install 'benchsuite[vision]'"
_COSTS = {
    "macs": "MACs",
    "latency_ms": "latency",
    "latency_cpu_ms": "latency (CPU time)",
    "latency_relative": "latency / yardstick",
    "latency_deployed_ms": "latency, deployed",
    "images_per_second": "images/s",
}
_EXACT = ("macs",)

TASKS = (
    TaskSpec(
        name="image-classification",
        title="Image classification with mobile backbones",
        load=f"{_PACKAGE}.image_classification:ImageClassification",
        requires=("numpy", "PIL", "torch", "hotcoco"),
        install=_INSTALL,
        scaffold=f"{_PACKAGE}:classification_scaffold.txt",
        shown=Presentation(
            headline=("top1", "top5", "macs", "latency_relative"),
            names={"top1": "Top-1", "top5": "Top-5", **_COSTS},
            exact=_EXACT,
            cost="parameters",
        ),
    ),
    TaskSpec(
        name="semantic-segmentation",
        title="Semantic segmentation with mobile backbones",
        load=f"{_PACKAGE}.semantic_segmentation:SemanticSegmentation",
        requires=("numpy", "PIL", "torch", "hotcoco"),
        install=_INSTALL,
        scaffold=f"{_PACKAGE}:segmentation_scaffold.txt",
        shown=Presentation(
            headline=("miou", "macc", "aacc", "macs"),
            names={"miou": "mIoU", "macc": "mAcc", "aacc": "aAcc", **_COSTS},
            exact=_EXACT,
            cost="parameters",
        ),
    ),
    TaskSpec(
        name="object-detection",
        title="Object detection with mobile backbones",
        load=f"{_PACKAGE}.object_detection:ObjectDetection",
        requires=("numpy", "PIL", "torch", "hotcoco"),
        install=_INSTALL,
        scaffold=f"{_PACKAGE}:detection_scaffold.txt",
        shown=Presentation(
            headline=("ap", "ap50", "ap75", "macs"),
            names={
                **{"ap": "AP", "ap50": "AP50", "ap75": "AP75"},
                **{f"ap_{size}": f"AP {size}" for size in ("small", "medium", "large")},
                **_COSTS,
            },
            exact=_EXACT,
            cost="parameters",
        ),
    ),
)
