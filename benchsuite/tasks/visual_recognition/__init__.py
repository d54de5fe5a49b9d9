"""Visual recognition with one backbone: classification, semantic segmentation and detection, with what they cost."""

from __future__ import annotations

from benchsuite.core import Presentation, Publication, TaskSpec

_PACKAGE = "benchsuite.tasks.visual_recognition"
_COSTS = {
    "macs": "MACs",
    "latency_ms": "latency",
    "latency_cpu_ms": "latency (CPU time)",
    "latency_relative": "latency / yardstick",
    "latency_deployed_ms": "latency, deployed",
    "images_per_second": "images/s",
}


def _recognition(
    name: str,
    title: str,
    cls: str,
    scaffold: str,
    headline: tuple[str, ...],
    names: dict[str, str],
    published: Publication,
) -> TaskSpec:
    return TaskSpec(
        name=name,
        title=f"{title} with mobile backbones",
        load=f"{_PACKAGE}.{cls}",
        requires=("numpy", "PIL", "torch", "hotcoco"),
        install="pip install 'benchsuite[vision]'",
        scaffold=f"{_PACKAGE}:{scaffold}",
        shown=Presentation(headline=headline, names={**names, **_COSTS}, exact=("macs",), cost="parameters"),
        published=published,
    )


TASKS = (
    _recognition(
        "image-classification",
        "Image classification",
        "image_classification:ImageClassification",
        "classification_scaffold.txt",
        ("top1", "top5", "macs", "latency_relative"),
        {"top1": "Top-1", "top5": "Top-5"},
        Publication(seeds={"run": 6}, data=("shapes", "glyph-pairs", "digits")),
    ),
    _recognition(
        "semantic-segmentation",
        "Semantic segmentation",
        "semantic_segmentation:SemanticSegmentation",
        "segmentation_scaffold.txt",
        ("miou", "macc", "aacc", "macs"),
        {"miou": "mIoU", "macc": "mAcc", "aacc": "aAcc"},
        Publication(seeds={"run": 5}),
    ),
    _recognition(
        "object-detection",
        "Object detection",
        "object_detection:ObjectDetection",
        "detection_scaffold.txt",
        ("ap", "ap50", "ap75", "macs"),
        {
            **{"ap": "AP", "ap50": "AP50", "ap75": "AP75"},
            **{f"ap_{size}": f"AP {size}" for size in ("small", "medium", "large")},
        },
        Publication(seeds={"run": 11}),
    ),
)
