"""Few-shot instance segmentation with torchvision's Mask R-CNN."""

from __future__ import annotations

from benchsuite.core import Case, MethodSpec, Preset

# The schedule of torchvision's references for 16 images a step; fine-tuning at a twentieth of the rate.
_FULL = {
    "network": "resnet50",
    "short_side": 800,
    "long_side": 1333,
    "base_steps": 90_000,
    "tune_steps": 0,
    "batch_size": 16,
    "tune_batch_size": 16,
    "optimizer": "sgd",
    "lr": 0.02,
    "tune_lr": 0.001,
    "weight_decay": 0.0001,
}
_FULL_ON_SMALL = Case(
    {"dataset": "synth-fsis"}, {"short_side": 64, "long_side": 64, "batch_size": 2, "tune_batch_size": 2}
)

METHODS = (
    MethodSpec(
        name="mask-rcnn",
        title="torchvision's Mask R-CNN, fine-tuned on the shots",
        version="1",
        role="baseline",
        tasks=("fsis",),
        load="benchsuite_baselines.fewshot.method:MaskRCNN",
        config="benchsuite_baselines.fewshot.config:MaskRCNNConfig",
        presets={"embedded": Preset(), "paper": Preset(_FULL, (_FULL_ON_SMALL,))},
        requires=("torch", "torchvision", "safetensors"),
        install="pip install 'benchsuite[vision]'",
        card="benchsuite_baselines:README.md",
    ),
)
