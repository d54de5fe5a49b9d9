"""Few-shot semantic segmentation: K support images show what to find in a query image."""

from __future__ import annotations

from benchsuite.core import Presentation, Publication, TaskSpec

TASKS = (
    TaskSpec(
        name="fss",
        title="Few-shot semantic segmentation",
        load="benchsuite.tasks.fewshot_semantic_segmentation.task:FewShotSemanticSegmentation",
        requires=("numpy", "PIL", "torch", "torchvision", "hotcoco"),
        install="pip install 'benchsuite[vision]'",
        scaffold="benchsuite.tasks.fewshot_semantic_segmentation:scaffold.txt",
        shown=Presentation(
            headline=("miou", "fb_iou", "miou_wrong_support"),
            names={
                "miou": "mIoU",
                "fb_iou": "FB-IoU",
                "miou_wrong_support": "mIoU, wrong support",
                "support_margin": "half mIoU - wrong support",
            },
        ),
        published=Publication(seeds={"base": 10, "fold": 4}, data=("synth-fss", "synth-fss-weak")),
    ),
)
