"""The rows of this plugin as methods of the three tasks: networks by their settings, training, prediction."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchsuite.core import ConfigError, RunContext
from benchsuite.tasks.visual_recognition.contract import (
    ClassificationData,
    DetectionData,
    Found,
    ImageClassifier,
    ObjectDetector,
    SegmentationData,
    SemanticSegmenter,
    Trained,
    TrainedDetector,
)
from benchsuite_emo.backbones import build_classifier, build_features, unstride_stem
from benchsuite_emo.batches import ClassificationBatches, DetectionBatches, Order, SegmentationBatches
from benchsuite_emo.config import EMOConfig
from benchsuite_emo.deploying import compiled, deployed
from benchsuite_emo.detection import DetectionNetwork, RetinaNet, SSDLite
from benchsuite_emo.engines import Batches, run_training
from benchsuite_emo.model import EMO, EMO_VARIANTS, EMOFeatures
from benchsuite_emo.optimising import Objective, Training, decay_groups
from benchsuite_emo.schedule import Rates
from benchsuite_emo.segmentation import SegmentationNetwork, class_weights
from benchsuite_emo.weights import load_backbone, load_whole, save_state

__all__ = ["BackboneMethod", "classifier_of", "detector_of", "segmenter_of"]

_MODEL = "model.pt"
_CURVE_POINTS = 50
_PUBLISHED_WIDTHS = {"deeplabv3": 256, "pspnet": 256, "semantic-fpn": 128, "ssdlite": 512, "retinanet": 256}


class BackboneMethod(ImageClassifier, SemanticSegmenter, ObjectDetector):
    """A backbone, an EMO or one of timm's, with the same head, training and budget in all rows."""

    Config: ClassVar[type] = EMOConfig
    config: EMOConfig

    def fit_classifier(self, data: ClassificationData, ctx: RunContext) -> Trained:
        """See `ImageClassifier.fit_classifier`."""
        c = self.config
        _seed(ctx)
        network = classifier_of(c, len(data.classes))
        self._start(network, network, ctx)
        order = self._order(len(data.pictures), ctx)
        batches = ClassificationBatches(data, order, c.augment)
        objective = _ClassificationLoss(c.label_smoothing, ctx)
        curve = self._learn(network, network, objective, batches, order, data, ctx)
        return Trained(network, self._deployed(network, ctx), curve)

    def fit_segmenter(self, data: SegmentationData, ctx: RunContext) -> Trained:
        """See `SemanticSegmenter.fit_segmenter`."""
        _seed(ctx)
        network = segmenter_of(self.config, len(data.classes))
        self._start(network, network.backbone, ctx)
        order = self._order(len(data.pictures), ctx)
        batches = SegmentationBatches(data, order, self.config.augment)
        objective = partial(_network_loss, weights=self._class_weights(data, ctx))
        curve = self._learn(network, network.backbone, objective, batches, order, data, ctx)
        return Trained(network, self._deployed(network, ctx), curve)

    def fit_detector(self, data: DetectionData, ctx: RunContext) -> TrainedDetector:
        """See `ObjectDetector.fit_detector`."""
        if self.config.detection_head == "ssdlite" and data.keep_ratio:
            raise ConfigError("ssdlite sees squares: --set task.keep_ratio=false, or --set detection_head=retinanet")
        _seed(ctx)
        network = detector_of(self.config, len(data.classes))
        backbone: nn.Module = network.backbone
        self._start(network, backbone, ctx)
        order = self._order(len(data.pictures), ctx)
        batches = DetectionBatches(data, order, self.config.augment)
        curve = self._learn(network, backbone, _network_loss, batches, order, data, ctx)
        return BackboneDetector(network, self._deployed(network, ctx), curve)

    def _start(self, network: nn.Module, backbone: nn.Module, ctx: RunContext) -> None:
        """Put a network on its device with given weights, if there are any."""
        c = self.config
        network.to(ctx.device)
        if ctx.weights is not None:
            load_whole(network, ctx.weights)
        elif c.pretrained:
            emo = backbone.network if isinstance(backbone, EMOFeatures) else backbone
            if not isinstance(emo, EMO):
                raise ConfigError(
                    f"pretrained is for EMO backbones, {c.backbone} is one of timm's: --weights FILE instead"
                )
            ctx.log.info("%d tensors taken from %s", load_backbone(emo, Path(c.pretrained)), c.pretrained)
        elif c.needs_pretrained:
            if ctx.max_steps is None:
                raise ConfigError(
                    f"this recipe starts from {c.backbone}'s ImageNet weights: --set pretrained=FILE (or --max-steps N"
                    " for a truncated run with random ones)"
                )
            ctx.log.warning("no pretrained weights given: this truncated run starts from random ones")

    def _class_weights(self, data: SegmentationData, ctx: RunContext) -> Tensor | None:
        if not self.config.class_balance:
            return None
        label_maps = (data.prepared_map(place) for place in range(len(data.pictures)))
        return class_weights(label_maps, len(data.classes), self.config.class_balance).to(ctx.device)

    def _learn(
        self,
        network: nn.Module,
        backbone: nn.Module,
        objective: Objective,
        batches: Batches,
        order: Order,
        data: Any,
        ctx: RunContext,
    ) -> list[dict[str, Any]]:
        """Train unless weights were given, keep the model if that was asked for, return the curve of the loss."""
        c, curve = self.config, []
        if ctx.weights is None:
            total = c.steps or c.epochs * order.steps
            steady = _frozen(backbone, c.frozen_stages) + (_norms(backbone) if c.norm_eval else [])
            training = Training(
                network,
                objective,
                rates_of(c, total, order.steps),
                decay_groups(network, c.weight_decay, c.decay),
                clip=c.clip,
                ema=c.ema,
                steady=steady,
                score=None if data.score is None else lambda: float(data.score(self._judged(network))),
                look_every=c.evaluate_every * order.steps,
            )
            run_training(training, batches, ctx, c.engine, c.workers, c.amp, c.sync_norms)
            every = max(1, len(training.curve) // _CURVE_POINTS)
            curve = [{"step": step, "loss": loss} for step, loss in enumerate(training.curve) if step % every == 0]
        network.eval()
        if "model" in ctx.wanted_artifacts:
            save_state(network, ctx.artifact(_MODEL))
        return curve

    def _judged(self, network: nn.Module) -> Trained:
        network.eval()
        return BackboneDetector(network) if isinstance(network, DetectionNetwork) else Trained(network)

    def _deployed(self, network: nn.Module, ctx: RunContext) -> Any:
        found = deployed(network)
        return compiled(found, ctx.device) if self.config.compile else found

    def _order(self, pictures: int, ctx: RunContext) -> Order:
        c = self.config
        rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        return Order(pictures, c.batch_size, ctx.seed_for("run", "order"), c.repeats, rank, ranks)

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield the three networks on two pictures."""
        for build in (classifier_of, segmenter_of, detector_of):
            yield _blank(partial(build, self.config, 10)).eval(), (torch.rand(2, 3, 64, 64),)


class BackboneDetector(TrainedDetector):
    """A detection network with its anchors, decoding and suppression."""

    def __init__(self, network: DetectionNetwork, deployed: Any = None, table: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(network, deployed, table)
        self._detector = network

    def detect(self, images: Tensor, sizes: NDArray[np.int64]) -> list[Found]:
        """See `TrainedDetector.detect`."""
        found = self._detector.detect(images, np.asarray(sizes).tolist())
        return [
            Found(
                one.boxes.float().cpu().numpy(),
                one.scores.float().clamp(0, 1).cpu().numpy(),
                one.labels.cpu().numpy().astype(np.int64),
            )
            for one in found
        ]


def _changes(c: EMOConfig) -> dict[str, Any]:
    """Return the sizes of an EMO that the settings change."""
    found: dict[str, Any] = {}
    if not c.attention:
        found["attention"] = (False,) * 4
    if not c.depthwise:
        found["depthwise"] = False
    if c.window:
        found["window"] = c.window
    if c.drop_path >= 0 and c.backbone in EMO_VARIANTS:
        found["drop_path"] = c.drop_path
    return found


def _width(c: EMOConfig, head: str) -> int:
    return c.head_width or _PUBLISHED_WIDTHS[head]


def classifier_of(c: EMOConfig, classes: int) -> nn.Module:
    """Return a classifier with random weights."""
    network = build_classifier(c.backbone, classes, _changes(c))
    if c.stem_stride == 1:
        unstride_stem(network)
    return network


def segmenter_of(c: EMOConfig, classes: int) -> SegmentationNetwork:
    """Return a segmentation network with random weights."""
    backbone = build_features(c.backbone, SegmentationNetwork.STRIDES, _changes(c))
    return SegmentationNetwork(backbone, c.segmentation_head, _width(c, c.segmentation_head), classes)


def detector_of(c: EMOConfig, classes: int) -> DetectionNetwork:
    """Return a detection network with random weights."""
    width = _width(c, c.detection_head)
    if c.detection_head == "ssdlite":
        backbone = build_features(c.backbone, SSDLite.STRIDES, _changes(c))
        return SSDLite(backbone, width, classes, c.further_levels)
    backbone = build_features(c.backbone, RetinaNet.STRIDES, _changes(c))
    return RetinaNet(backbone, width, classes, c.further_levels, c.stacked)


def rates_of(c: EMOConfig, total: int, a_pass: int) -> Rates:
    """Return the rates of a training of ``total`` steps, ``a_pass`` of which make a pass over the pictures."""
    warm_up = c.warm_up or c.warm_up_epochs * a_pass
    return Rates(c.schedule, c.lr, total, min(c.min_lr, c.lr), warm_up, c.warm_up_start)


def _blank(build: Callable[[], nn.Module]) -> nn.Module:
    """Return a network whose tensors have no values, on the current default device.

    Some of timm's initialisations read what they draw, which no fake device can do: they run on the CPU.
    """
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    device = torch.get_default_device()
    with unset_fake_temporarily(), torch.device("cpu"):
        network = build()
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype, device=device)))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.zeros(buffer.shape, dtype=buffer.dtype, device=device))
    return network


def _seed(ctx: RunContext) -> None:
    torch.manual_seed(ctx.seed_for("run", "start"))


def _frozen(backbone: nn.Module, count: int) -> list[nn.Module]:
    """Let the first stages of an EMO learn nothing, and return them."""
    if not count:
        return []
    emo = backbone.network if isinstance(backbone, EMOFeatures) else backbone
    if not isinstance(emo, EMO):
        raise ConfigError("frozen_stages is for EMO backbones")
    stages = [getattr(emo, f"stage{number}") for number in range(min(count, 5))]
    for stage in stages:
        stage.requires_grad_(False)
    return stages


def _norms(backbone: nn.Module) -> list[nn.Module]:
    return [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]


class _ClassificationLoss:
    """Cross-entropy with label smoothing; logits that are not finite teach nothing, as in the official code."""

    def __init__(self, smoothing: float, ctx: RunContext) -> None:
        self.smoothing, self.ctx = smoothing, ctx

    def __call__(self, network: nn.Module, batch: Any) -> Tensor:
        images, labels = batch
        logits = network(images).float()
        if not torch.isfinite(logits).all():
            self.ctx.log.warning("logits are not finite: this step has no loss, statistics of batch norms are mended")
            _mend(network.buffers())
            return sum((p.sum() * 0 for p in network.parameters() if p.requires_grad), logits.new_zeros(()))
        return F.cross_entropy(logits, labels, label_smoothing=self.smoothing)


@torch.no_grad()
def _mend(buffers: Iterable[Tensor]) -> None:
    for buffer in buffers:
        if buffer.is_floating_point():
            buffer.copy_(torch.nan_to_num(buffer, 0.0, 1.0, -1.0))


def _network_loss(network: nn.Module, batch: Any, **further: Any) -> Tensor:
    """Return the loss of a dense network, which knows its own."""
    found: Tensor = network.loss(*batch, **further)
    return found
