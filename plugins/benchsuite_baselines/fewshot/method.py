"""Mask R-CNN of torchvision: trained on the base classes, then fine-tuned as a whole on the shots."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN as Network
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.resnet import resnet18

from benchsuite.core import RunContext
from benchsuite.tasks.fewshot_instance_segmentation.contract import (
    BaseData,
    Detection,
    FewShotData,
    FewShotSegmenter,
    ImageSet,
    Record,
    Segmenter,
    State,
)
from benchsuite_baselines.fewshot.config import MaskRCNNConfig

_MODEL = "model.safetensors"
_WARM_UP, _DROPS = 0.1, (0.67, 0.89)
_CHANNELS = 64

Target = dict[str, Tensor]


class MaskRCNN(FewShotSegmenter):
    """Two stages, all parameters trained in both; rows of new classes start at random, known ones are kept."""

    Config: ClassVar[type] = MaskRCNNConfig
    config: MaskRCNNConfig

    def learn_base(self, data: BaseData, ctx: RunContext) -> State:
        """See `FewShotSegmenter.learn_base`."""
        config, seed = self.config, ctx.seed_for("base", "base training")
        labels = _base_labels(data)

        def build(folder: Path) -> None:
            torch.manual_seed(seed)
            model = build_network(config, len(labels)).to(ctx.device)
            length = _Length(config.base_steps, config.batch_size, config.lr)
            _train(model, data.images, labels, config, length, np.random.default_rng(seed), ctx, "base classes")
            save_file({k: v.cpu().contiguous() for k, v in model.state_dict().items()}, folder / _MODEL)

        fields = ("network", "short_side", "long_side", "base_steps", "batch_size", "optimizer", "lr", "weight_decay")
        inputs = {name: getattr(config, name) for name in fields}
        inputs |= {"base": data.images.digest, "classes": list(data.base_classes), "seed": seed}
        state = load_file(ctx.cached("mask-rcnn-base", inputs, build) / _MODEL)
        return {name: tensor.numpy() for name, tensor in state.items()}

    def tune(self, state: State, data: FewShotData, ctx: RunContext) -> Segmenter:
        """See `FewShotSegmenter.tune`."""
        config, base = self.config, _base_labels(data)
        kept = [c for c in data.base_classes if c in data.head_classes]
        head = {c: label for label, c in enumerate([*kept, *data.novel_classes], start=1)}
        model = build_network(config, len(base))
        model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()})
        seed = ctx.seed_for("shots", "tuning")
        torch.manual_seed(seed)
        replace_classes(model, [base[c] for c in kept], len(data.novel_classes))
        model.to(ctx.device)
        shots = max(sum(a["category_id"] == c for r in data.shots for a in r.annotations) for c in data.novel_classes)
        total = config.tune_steps or min(max(100 * shots, 500), 3000)
        length = _Length(total, min(config.tune_batch_size, len(data.shots)), config.tune_lr)
        _train(model, data.shots, head, config, length, np.random.default_rng(seed), ctx, "tuning")
        return MaskRCNNSegmenter(model.eval(), {label: category for category, label in head.items()})

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield the parts of the network whose shapes do not depend on what they find."""
        model = build_network(self.config, 4)
        width = model.backbone.out_channels
        yield model.backbone, (torch.randn(2, 3, 64, 64),)
        yield nn.Sequential(model.roi_heads.box_head, model.roi_heads.box_predictor), (torch.randn(5, width, 7, 7),)
        yield nn.Sequential(model.roi_heads.mask_head, model.roi_heads.mask_predictor), (torch.randn(5, width, 14, 14),)


def build_network(config: MaskRCNNConfig, classes: int) -> Network:
    """Return an untrained network of ``classes`` and background."""
    sizes = {"min_size": config.short_side, "max_size": config.long_side}
    if config.network == "resnet50":
        return maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=classes + 1, **sizes)
    body = resnet18(weights=None, norm_layer=partial(nn.GroupNorm, 8))
    layers = {f"layer{stage}": str(stage - 1) for stage in (1, 2, 3, 4)}
    backbone = BackboneWithFPN(body, layers, [64, 128, 256, 512], _CHANNELS)
    return Network(
        backbone,
        rpn_anchor_generator=AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 5),
        box_head=TwoMLPHead(_CHANNELS * 7 * 7, 256),
        box_predictor=FastRCNNPredictor(256, classes + 1),
        mask_head=MaskRCNNHeads(_CHANNELS, (_CHANNELS, _CHANNELS), 1),
        mask_predictor=MaskRCNNPredictor(_CHANNELS, _CHANNELS, classes + 1),
        rpn_pre_nms_top_n_train=300,
        rpn_pre_nms_top_n_test=300,
        rpn_post_nms_top_n_train=50,
        rpn_post_nms_top_n_test=30,
        rpn_batch_size_per_image=64,
        box_batch_size_per_image=32,
        box_detections_per_img=20,
        **sizes,
    )


@torch.no_grad()
def replace_classes(model: Network, kept: Sequence[int], novel: int) -> None:
    """Give the network the classes ``kept`` (labels from 1) followed by ``novel`` new ones.

    Background and kept classes keep their rows in all three predictors.
    """
    heads, rows, classes = model.roi_heads, [0, *kept], 1 + len(kept) + novel
    before = copy.deepcopy((heads.box_predictor, heads.mask_predictor))
    heads.box_predictor = FastRCNNPredictor(before[0].cls_score.in_features, classes)
    mask = before[1]
    heads.mask_predictor = MaskRCNNPredictor(mask.conv5_mask.in_channels, mask.conv5_mask.out_channels, classes)
    heads.mask_predictor.conv5_mask.load_state_dict(mask.conv5_mask.state_dict())
    for new, old, values in (
        (heads.box_predictor.cls_score, before[0].cls_score, 1),
        (heads.box_predictor.bbox_pred, before[0].bbox_pred, 4),
        (heads.mask_predictor.mask_fcn_logits, mask.mask_fcn_logits, 1),
    ):
        for name in ("weight", "bias"):
            target, source = (getattr(layer, name).unflatten(0, (-1, values)) for layer in (new, old))
            target[: len(rows)] = source[rows]


@dataclass(frozen=True)
class _Length:
    """The steps of a stage, its images a step and its largest learning rate."""

    steps: int
    batch_size: int
    rate: float


def _base_labels(data: BaseData | FewShotData) -> dict[int, int]:
    return {category: label for label, category in enumerate(data.base_classes, start=1)}


def _train(
    model: Network,
    images: ImageSet,
    labels: Mapping[int, int],
    config: MaskRCNNConfig,
    length: _Length,
    rng: np.random.Generator,
    ctx: RunContext,
    name: str,
) -> None:
    model.train()
    device = next(model.parameters()).device
    parameters = [p for p in model.parameters() if p.requires_grad]
    if config.optimizer == "adamw":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            parameters, length.rate, weight_decay=config.weight_decay, fused=True
        )
    else:
        optimizer = torch.optim.SGD(parameters, length.rate, momentum=0.9, weight_decay=config.weight_decay)
    order: list[int] = []
    parts = {"model": model, "optimizer": optimizer, "rng": rng, "order": order}
    for step in ctx.resumable(name, length.steps, parts):
        for group in optimizer.param_groups:
            group["lr"] = length.rate * _rate_factor(config, step, length.steps)
        while len(order) < length.batch_size:
            order += rng.permutation(len(images)).tolist()
        chosen = order[: length.batch_size]
        del order[: length.batch_size]
        examples = [_example(images[number], labels, bool(rng.random() < 0.5), device) for number in chosen]
        losses = model([image for image, _ in examples], [target for _, target in examples])
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()


def _rate_factor(config: MaskRCNNConfig, step: int, total: int) -> float:
    warm_up = _WARM_UP * total if config.optimizer == "adamw" else min(1000.0, _WARM_UP * total)
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    if config.optimizer == "adamw":
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(total - warm_up, 1)))
    return math.prod(0.1 for drop in _DROPS if step >= drop * total)


def _example(record: Record, labels: Mapping[int, int], flip: bool, device: torch.device) -> tuple[Tensor, Target]:
    """Return an image (3, H, W) in [0, 1] and its labelled objects that cover a pixel."""
    objects = [i for i in record.instances() if i.category_id in labels and not i.iscrowd and i.mask.any()]
    image = torch.from_numpy(np.ascontiguousarray(record.pixels().transpose(2, 0, 1))).float() / 255
    masks = torch.from_numpy(np.stack([i.mask for i in objects])) if objects else torch.zeros(0, *image.shape[1:])
    if flip:
        image, masks = image.flip(2), masks.flip(2)
    target = {
        "boxes": torch.tensor([_corners(mask.numpy()) for mask in masks], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([labels[i.category_id] for i in objects], dtype=torch.int64),
        "masks": masks.to(torch.uint8),
    }
    return image.to(device), {name: value.to(device) for name, value in target.items()}


def _corners(mask: np.ndarray) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


class MaskRCNNSegmenter(Segmenter):
    """A trained network; ``categories`` maps its labels to category ids."""

    def __init__(self, model: Network, categories: Mapping[int, int]) -> None:
        self.model = model
        self.categories = categories
        self.parameters = sum(p.numel() for p in model.parameters())

    @torch.no_grad()
    def predict(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """See `Segmenter.predict`."""
        device = next(self.model.parameters()).device
        batch = [torch.from_numpy(np.ascontiguousarray(i.transpose(2, 0, 1))).to(device).float() / 255 for i in images]
        return [self._detections(found) for found in self.model(batch)]

    def _detections(self, found: Mapping[str, Tensor]) -> list[Detection]:
        masks = (found["masks"][:, 0] > 0.5).cpu().numpy()
        detections = []
        for label, score, mask, box in zip(found["labels"], found["scores"], masks, found["boxes"], strict=True):
            if mask.any():
                left, top, right, bottom = box.tolist()
                area = (left, top, max(right - left, 0.0), max(bottom - top, 0.0))
                detections.append(Detection(self.categories[int(label)], float(score), mask, area))
        return detections
