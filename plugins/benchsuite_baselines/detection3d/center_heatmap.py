"""The centre-heatmap detector as a method of the task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from benchsuite.core import ConfigError, RunContext
from benchsuite.tasks.detection3d.contract import (
    Boxes,
    Detection3DMethod,
    Detections,
    Detector,
    Frame,
    Frames,
    TrainingScenes,
)
from benchsuite_baselines.detection3d.heatmap import Grid, decode, heatmap_loss, targets_of
from benchsuite_baselines.detection3d.heatmap_config import CenterHeatmapConfig
from benchsuite_baselines.detection3d.network import FusedHeatmap, column_points, raster_of, sampling_places

_MODEL = "model.pt"
_CURVE_POINTS = 60


@dataclass(eq=False)
class _Sample:
    """A frame: cloud (n, 3), pictures uint8 (views, 3, H, W), matrices (views, 4, 4), boxes (m, 9), labels (m,)."""

    cloud: Tensor
    images: Tensor
    rig: Tensor
    boxes: Tensor
    labels: Tensor


def _sample(frame: Frame, size: tuple[int, int], boxes: Boxes | None = None) -> _Sample:
    cloud = np.zeros((0, 3), np.float32) if frame.points is None else frame.points[:, :3]
    pictures, matrices = [], []
    for view in frame.views:
        scale = np.diag([size[1] / view.size[1], size[0] / view.size[0], 1.0])
        pictures.append(_picture(view.image, size))
        matrices.append(np.vstack([scale @ view.lidar_to_image[:3], view.lidar_to_image[3:]]))
    rows, labels = np.zeros((0, 9)), np.zeros(0, np.int64)
    if boxes is not None:
        seen = boxes[boxes.points > 0]
        parts = [seen.centres, seen.sizes, seen.yaws[:, None], np.nan_to_num(seen.velocities)]
        rows, labels = np.concatenate(parts, axis=1), seen.labels
    return _Sample(
        torch.from_numpy(np.ascontiguousarray(cloud)),
        torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(np.stack(matrices)).float(),
        torch.from_numpy(rows).float(),
        torch.from_numpy(labels),
    )


def _picture(image: NDArray[np.uint8] | None, size: tuple[int, int]) -> NDArray[np.uint8]:
    if image is None:
        return np.zeros((*size, 3), np.uint8)
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def _partners(rig: Tensor, width: int, axis: int) -> list[int] | None:
    """Return which camera sees, mirrored, what each one sees, if the rig is symmetric at a plane of x (0) or y (1)."""
    mirror, flip = torch.eye(4), torch.eye(4)
    mirror[axis, axis], flip[0, 0], flip[0, 2] = -1, -1, width - 1
    apart = (flip @ rig @ mirror)[None] - rig[:, None]
    least, found = apart.abs().amax((2, 3)).min(1)
    return found.tolist() if float(least.max()) <= 1e-4 * float(rig.abs().max()) else None


def _mirrored(sample: _Sample, axis: int, partners: Sequence[int], still: bool) -> _Sample:
    signs = torch.ones(3)
    signs[axis] = -1
    boxes = sample.boxes.clone()
    boxes[:, :3] *= signs
    half_turn = axis == 0 and not still  # it is nothing to still boxes
    boxes[:, 6] = torch.pi - boxes[:, 6] if half_turn else -boxes[:, 6]
    boxes[:, 7 + axis] *= -1
    return _Sample(sample.cloud * signs, sample.images[list(partners)].flip(-1), sample.rig, boxes, sample.labels)


class CenterHeatmap(Detection3DMethod):
    """Finds centres as peaks of a map seen from above, and reads the boxes off at the peaks."""

    Config: ClassVar[type] = CenterHeatmapConfig
    config: CenterHeatmapConfig

    def fit(self, scenes: TrainingScenes, ctx: RunContext) -> Detector:
        """See `Detection3DMethod.fit`."""
        c = self.config
        torch.manual_seed(ctx.seed_for("run", "start"))
        model = FusedHeatmap(c.width, len(scenes.classes), c.levels).to(ctx.device)
        detector = _HeatmapDetector(model, c, scenes.extent)
        if ctx.weights is not None:
            _load(model, ctx.weights)
        else:
            detector.table = self._train(detector, scenes, ctx)
        if "model" in ctx.wanted_artifacts:
            torch.save({k: v.detach().cpu() for k, v in model.state_dict().items()}, ctx.artifact(_MODEL))
        return detector

    def _train(self, detector: _HeatmapDetector, scenes: TrainingScenes, ctx: RunContext) -> list[dict[str, Any]]:
        c, model = self.config, detector.model
        samples = [_sample(scenes.frames[i], c.image_size, scenes.boxes[i]) for i in range(len(scenes.frames))]
        partners = [_partners(samples[0].rig, c.image_size[1], axis) for axis in (0, 1)]
        optimizer = torch.optim.AdamW(model.parameters(), c.lr, weight_decay=c.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, c.lr, total_steps=c.steps, pct_start=0.2)
        generator = torch.Generator().manual_seed(ctx.seed_for("run", "batches"))
        curve: list[float] = []
        parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "order": generator, "curve": curve}
        for _ in ctx.resumable("training", c.steps, parts):
            model.train()
            batch = [self._drawn(samples, partners, generator) for _ in range(c.batch_size)]
            targets = targets_of(
                [s.boxes for s in batch], [s.labels for s in batch], len(scenes.classes), detector.grid, c.least_radius
            )
            logits, codes = detector.outputs(batch, ctx.device)
            loss = heatmap_loss(logits.cpu(), codes.cpu(), targets)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), c.clip)
            optimizer.step()
            schedule.step()
            curve.append(float(loss.detach()))
        every = max(1, len(curve) // _CURVE_POINTS)
        return [{"step": step, "loss": loss} for step, loss in enumerate(curve) if step % every == 0]

    def _drawn(
        self, samples: Sequence[_Sample], partners: Sequence[list[int] | None], generator: torch.Generator
    ) -> _Sample:
        """Return a random sample, mirrored at random where the rig allows it."""
        found = samples[int(torch.randint(len(samples), (), generator=generator))]
        for axis, pair in enumerate(partners):
            if torch.rand((), generator=generator) < 0.5 and pair is not None:
                found = _mirrored(found, axis, pair, self.config.still)
        return found

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield the network on two samples of four cameras."""
        c = self.config
        cells = c.cells // 2
        places = torch.rand(1, 4, 3 * cells * cells, 2)
        model = FusedHeatmap(c.width, 4, c.levels).eval()
        yield (
            model,
            (torch.rand(2, 4 * c.levels, c.cells, c.cells), torch.rand(2, 4, 3, *c.image_size), places, places[..., 0]),
        )


class _HeatmapDetector(Detector):
    """A trained network; a sensor that delivers nothing is an empty raster, or black pictures."""

    def __init__(self, model: FusedHeatmap, config: CenterHeatmapConfig, extent: Sequence[float]) -> None:
        self.model, self.config, self.extent = model, config, extent
        self.parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        cells = config.cells // 2
        side = ((extent[3] - extent[0]) / cells, (extent[4] - extent[1]) / cells)
        self.grid = Grid((extent[0], extent[1]), side, (cells, cells))
        self._points = column_points(extent, cells)

    def outputs(self, batch: Sequence[_Sample], device: str) -> tuple[Tensor, Tensor]:
        """Return logits and codes of samples."""
        rigs = torch.stack([s.rig for s in batch])
        rigs = rigs[:1] if all(torch.equal(r, rigs[0]) for r in rigs) else rigs
        places, seen = sampling_places(self._points, rigs, self.config.image_size)
        raster = raster_of([s.cloud for s in batch], self.extent, self.config.cells, self.config.levels)
        images = torch.stack([s.images for s in batch]).to(device).float() / 255
        return self.model(raster.to(device), images, places.to(device), seen.to(device))

    @torch.no_grad()
    def detect(self, frames: Frames, ctx: RunContext) -> list[Detections]:
        """See `Detector.detect`."""
        self.model.eval()
        found: list[Detections] = []
        size = self.config.batch_size
        for start in range(0, len(frames), size):
            batch = [_sample(frame, self.config.image_size) for frame in frames[start : start + size]]
            logits, codes = (part.cpu() for part in self.outputs(batch, ctx.device))
            found += [_as_detections(*one) for one in decode(logits, codes, self.grid, self.config.most)]
        return found


def _as_detections(boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
    rows = boxes.double().numpy()
    return Detections(
        rows[:, :3], rows[:, 3:6], rows[:, 6], rows[:, 7:9], scores.double().numpy(), labels.numpy().astype(np.int64)
    )


def _load(model: nn.Module, path: Path) -> None:
    """Load a state that a run of this method kept."""
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:120]
        raise ConfigError(f"{path.name} is no state of this network that can be read safely: {reason}") from error
