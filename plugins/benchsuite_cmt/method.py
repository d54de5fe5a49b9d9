"""CMT as a method of the task: training, detection, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from benchsuite.core import ConfigError, RunContext
from benchsuite.tasks.detection3d.contract import Detection3DMethod, Detections, Detector, Frames, TrainingScenes
from benchsuite_cmt import boxes as coding
from benchsuite_cmt.architecture import RELEASED, SMALL, Architecture
from benchsuite_cmt.batches import Batches, head_classes
from benchsuite_cmt.config import CMTConfig
from benchsuite_cmt.examples import HEAD_CLASSES, ImageFit, collate, example_of, fitted
from benchsuite_cmt.lidar import SparsePlan
from benchsuite_cmt.model import CMT, Outputs
from benchsuite_cmt.objects import ObjectStore, store_objects
from benchsuite_cmt.sparse import Rulebook
from benchsuite_cmt.training import train
from benchsuite_cmt.weights import load_backbone, load_official, save_official

__all__ = ["CMTDetector", "CMTMethod", "sizes_of"]

_MODEL = "model.pth"


def sizes_of(config: CMTConfig, scenes: TrainingScenes) -> tuple[Architecture, tuple[str, ...]]:
    """Return the sizes of the network for some scenes, and the classes of its head in their order."""
    if config.architecture != "small":
        return RELEASED[config.architecture], HEAD_CLASSES
    classes = tuple(name for name in HEAD_CLASSES if name in scenes.classes)
    low, high = np.array(scenes.extent[:3]), np.array(scenes.extent[3:])
    cells = np.array(SMALL.grid[::-1])
    size = (high - low) / cells
    sizes = replace(
        SMALL,
        lidar=config.modality != "camera",
        camera=config.modality != "lidar",
        velocity=not config.still,
        classes=len(classes),
        point_range=scenes.extent,
        voxel_size=(float(size[0]), float(size[1]), float(size[2])),
    )
    return sizes, classes


class CMTMethod(Detection3DMethod):
    """Learns to find objects among the tokens of cameras and LiDAR."""

    Config: ClassVar[type] = CMTConfig
    config: CMTConfig

    def fit(self, scenes: TrainingScenes, ctx: RunContext) -> Detector:
        """See `Detection3DMethod.fit`."""
        sizes, known = sizes_of(self.config, scenes)
        head = head_classes(scenes.classes, known)
        torch.manual_seed(ctx.seed_for("run", "start"))
        model = CMT(sizes)
        if self.config.sparse == "spconv" and sizes.lidar and sizes.bev_encoder == "sparse":
            from benchsuite_cmt.spconv_engine import use_spconv

            use_spconv(model)
        model.to(ctx.device)
        curve: Sequence[dict[str, Any]] = ()
        if ctx.weights is not None:
            load_official(model, ctx.weights)
        else:
            self._start(model, ctx)
            batches = Batches(
                scenes, sizes, self.config, head, ctx.seed_for("run", "batches"), self._store(scenes, head, ctx)
            )
            curve = train(model, batches, scenes.digest, self.config, ctx)
        if "model" in ctx.wanted_artifacts:
            save_official(model, ctx.artifact(_MODEL))
        return CMTDetector(model, head, curve, self.config)

    def _start(self, model: CMT, ctx: RunContext) -> None:
        """Load the image backbone's weights, or say that there are none."""
        if self.config.pretrained:
            if self.config.architecture == "small" or not model.sizes.camera:
                raise ConfigError("pretrained is for the published image backbones: this network has none")
            load_backbone(model.image_encoder["backbone"], Path(self.config.pretrained))
        elif self.config.needs_pretrained:
            if ctx.max_steps is None:
                raise ConfigError(
                    "this recipe starts from a pre-trained image backbone: --set pretrained=FILE (nuim_r50.pth, or"
                    " fcos3d_vovnet_imgbackbone-remapped.pth), or --max-steps N for a truncated run with random weights"
                )
            ctx.log.warning("no pre-trained image backbone given: this truncated run starts from random weights")

    def _store(self, scenes: TrainingScenes, head: Sequence[int], ctx: RunContext) -> ObjectStore | None:
        """Return the objects to paste, cut out once and kept in the suite's cache."""
        if not self.config.sample_objects:
            return None
        if self.config.architecture == "small" and len(scenes.classes) < len(HEAD_CLASSES):
            raise ConfigError("sample_objects knows how many of each of nuScenes' ten classes to paste: needs them all")

        def build(folder: Path) -> None:
            store_objects(
                (example_of(scenes.frames[i], scenes.boxes[i], head) for i in range(len(scenes.frames))), folder
            )

        return ObjectStore.read(ctx.cached("cmt-objects", {"data": scenes.digest, "head": list(head)}, build))

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield the network behind the rasters, or behind the rulebooks, of two samples."""
        sizes = SMALL if self.config.architecture == "small" else RELEASED[self.config.architecture]
        if self.config.architecture == "small":
            sizes = replace(sizes, lidar=self.config.modality != "camera", camera=self.config.modality != "lidar")
        rows, columns = sizes.image_size
        rig = torch.eye(4).expand(2, 4, 4, 4) + 0.01
        images = torch.rand(2, 4, 3, rows, columns)
        network = _Traced(CMT(sizes).eval())
        if sizes.bev_encoder == "small":
            yield network, (images, rig, torch.rand(2, 4 * sizes.grid[0], *sizes.grid[1:]), None)
        else:
            yield network, (images, rig, torch.rand(64, 5), _blank_plan(sizes))


class _Traced(nn.Module):
    """A network from where shapes no longer depend on values."""

    def __init__(self, model: CMT) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, rig: Tensor, lidar: Tensor, plan: SparsePlan | None) -> Tensor:
        """Return the logits of the last layer; ``lidar`` is a raster, or the features of the voxels of ``plan``."""
        model, sizes = self.model, self.model.sizes
        bev = maps = None
        if sizes.lidar:
            bev = model.bev_encoder(lidar) if plan is None else model.bev_of_voxels(lidar, plan, len(images))
        if sizes.camera:
            maps = model.image_maps(images)
        tokens, places = model.placed(bev, maps, rig, sizes.image_size)
        references = model.references.expand(len(images), -1, -1)
        position = model.query_positions(references, rig, sizes.image_size)
        return model.heads(model.decoder(position, tokens, places), references).logits[-1]


def _blank_plan(sizes: Architecture) -> SparsePlan:
    """Return a plan of 64 voxels in which every place of a kernel reaches every voxel."""
    voxels = torch.arange(64)
    cells = torch.stack([voxels % 2, voxels * 0, voxels // 2, voxels * 0], dim=1)
    shapes = [sizes.grid]
    for _ in range(3):
        z, y, x = shapes[-1]
        shapes.append(((z + 1) // 2, y // 2, x // 2))
    books = [Rulebook(voxels.repeat(27), voxels.repeat(27), (64,) * 27, cells, shape, 13) for shape in shapes]
    last = (2, shapes[-1][1], shapes[-1][2])
    out = Rulebook(voxels.repeat(3), voxels.repeat(3), (64,) * 3, cells, last)
    strided = [replace(book, centre=-1) for book in books[1:]]
    return SparsePlan(tuple(books), (*strided, out))


class CMTDetector(Detector):
    """A trained network; a sensor that delivers nothing is all zeros."""

    def __init__(self, model: CMT, head: Sequence[int], table: Sequence[dict[str, Any]], config: CMTConfig) -> None:
        self.model, self.table = model.eval(), table
        self.parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self._batch = config.batch_size if config.architecture == "small" else 1
        self._label = np.full(model.sizes.classes, -1)
        self._label[list(head)] = np.arange(len(head))

    @torch.no_grad()
    def detect(self, frames: Frames, ctx: RunContext) -> list[Detections]:
        """See `Detector.detect`."""
        self.model.eval()
        found: list[Detections] = []
        for start in range(0, len(frames), self._batch):
            found += self._detect(frames, range(len(frames))[start : start + self._batch])
        return found

    def _detect(self, frames: Frames, places: Sequence[int]) -> list[Detections]:
        sizes, device = self.model.sizes, str(self.model.references.device)
        examples = []
        for place in places:
            example = example_of(frames[place])
            if sizes.camera:
                example = fitted(example, ImageFit.for_test(example.images[0].shape[:2], sizes.image_size))
            examples.append(example)
        outputs: Outputs = self.model(collate(examples, sizes, device).sensors)
        return [
            _as_detections(one, self._label)
            for one in coding.detections(outputs.logits[-1].float(), outputs.codes[-1].float())
        ]


def _as_detections(found: coding.Detections, label: np.ndarray[Any, np.dtype[np.int64]]) -> Detections:
    labels = label[found.labels.cpu().numpy()]
    kept = labels >= 0
    boxes = found.boxes.cpu().double().numpy()[kept]
    scores = found.scores.cpu().double().numpy()[kept]
    return Detections(boxes[:, :3], boxes[:, 3:6], boxes[:, 6], boxes[:, 7:9], scores, labels[kept])
