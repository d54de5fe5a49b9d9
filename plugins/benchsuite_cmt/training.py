"""One training: loss, steps, what is kept, and the part of it that rows share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchsuite.core import RunContext
from benchsuite_cmt.auxiliary import Auxiliary
from benchsuite_cmt.batches import Batches
from benchsuite_cmt.config import CMTConfig
from benchsuite_cmt.denoising import NoiseRule, noisy_queries
from benchsuite_cmt.examples import Batch
from benchsuite_cmt.image import grid_mask
from benchsuite_cmt.losses import denoising_loss, matched_loss
from benchsuite_cmt.model import CMT
from benchsuite_cmt.schedule import Cycle, make_optimizer

__all__ = ["noise_rule", "train", "training_loss"]

_STATE = "state.pt"
_CURVE_POINTS = 60


def noise_rule(config: CMTConfig) -> NoiseRule:
    """Return how noisy the queries of a training are."""
    if config.noise == "box":
        return NoiseRule(config.denoising_groups)
    wide = config.noise_metres
    return NoiseRule(config.denoising_groups, (wide, wide, 0.5), relative=False, negative=math.inf)


def training_loss(
    model: CMT, batch: Batch, rule: NoiseRule, generator: torch.Generator, auxiliary: Auxiliary | None = None
) -> tuple[Tensor, ...]:
    """Return the losses of a batch: of learned and of noisy queries, all layers, and of auxiliary heads."""
    sizes, sensors = model.sizes, batch.sensors
    noisy = noisy_queries(batch.boxes, batch.labels, rule, sizes.point_range, sizes.classes, sizes.queries, generator)
    bev, maps = model.maps(sensors)
    tokens, places = model.placed(bev, maps, sensors.lidar_to_image, sensors.image_size)
    more = () if auxiliary is None else (auxiliary.loss(bev, maps, batch),)
    if noisy is None:
        return (*matched_loss(model.decode(sensors, tokens, places), batch.boxes, batch.labels), *more)
    outputs = model.decode(sensors, tokens, places, noisy.references, noisy.blocked)
    of_noise, learned = outputs.split(noisy.references.shape[1])
    return (*matched_loss(learned, batch.boxes, batch.labels), *denoising_loss(of_noise, noisy), *more)


@dataclass(eq=False)
class _Learner:
    """A model with its optimiser, and the curve of its loss."""

    model: CMT
    optimizer: torch.optim.Optimizer
    cycle: Cycle
    scaler: torch.amp.GradScaler
    auxiliary: Auxiliary | None
    curve: list[float]

    @classmethod
    def of(cls, model: CMT, config: CMTConfig, total: int, device: str) -> _Learner:
        small = config.architecture == "small"
        auxiliary = Auxiliary(model.sizes, config.auxiliary).to(device) if config.auxiliary else None
        learned = nn.ModuleDict({"model": model} | ({} if auxiliary is None else {"auxiliary": auxiliary}))
        optimizer = make_optimizer(learned, config.lr, config.weight_decay, small)
        cycle = Cycle(optimizer, total, config.peak, config.final, config.warm_up)
        model.mixed = config.amp and torch.device(device).type == "cuda"
        scaler = torch.amp.GradScaler(torch.device(device).type, enabled=model.mixed)
        return cls(model, optimizer, cycle, scaler, auxiliary, [])

    def parts(self) -> Mapping[str, Any]:
        found = {"model": self.model, "optimizer": self.optimizer, "curve": self.curve}
        found |= {"scaler": self.scaler} if self.scaler.is_enabled() else {}
        return found | ({} if self.auxiliary is None else {"auxiliary": self.auxiliary})

    def step(self, batches: Batches, batch: Batch, step: int, clip: float) -> None:
        self.model.train()
        self.cycle.set(step)
        generator = batches.generator(step)
        if batches.config.grid_mask and batch.sensors.images is not None:
            masked = grid_mask(batch.sensors.images.flatten(0, 1), generator).view_as(batch.sensors.images)
            sensors = type(batch.sensors)(batch.sensors.points, masked, batch.sensors.lidar_to_image)
            batch = replace(batch, sensors=sensors)
        losses = training_loss(self.model, batch, noise_rule(batches.config), generator, self.auxiliary)
        loss = torch.stack(losses).sum()
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.curve.append(float(loss.detach()))

    def save(self, path: Path) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "curve": self.curve}
        if self.auxiliary is not None:
            state["auxiliary"] = self.auxiliary.state_dict()
        torch.save(state, path)

    def load(self, path: Path) -> None:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(kept["model"])
        self.optimizer.load_state_dict(kept["optimizer"])
        if self.auxiliary is not None:
            self.auxiliary.load_state_dict(kept["auxiliary"])
        self.curve[:] = kept["curve"]


def train(model: CMT, batches: Batches, digest: str, config: CMTConfig, ctx: RunContext) -> list[dict[str, Any]]:
    """Train a model in place and return the curve of its loss.

    Steps before masking begins are the same for rows that differ in masking alone: they are trained once, and kept in
    the suite's cache.
    """
    learner = _Learner.of(model, config, batches.total, ctx.device)
    shared = batches.mask_from if config.modality == "fusion" and config.architecture == "small" else 0
    if shared:
        inputs = asdict(config) | {"masking": None, "data": digest, "seed": ctx.seed_for("run", "start")}

        def build(folder: Path) -> None:
            _run("before-masking", learner, batches, (0, shared), ctx)
            learner.save(folder / _STATE)

        learner.load(ctx.cached("cmt-before-masking", inputs, build) / _STATE)
    if len(learner.curve) == shared:  # else the run is cut short
        _run("training", learner, batches, (shared, batches.total), ctx)
    every = max(1, len(learner.curve) // _CURVE_POINTS)
    return [{"step": step, "loss": loss} for step, loss in enumerate(learner.curve) if step % every == 0]


def _run(name: str, learner: _Learner, batches: Batches, steps: tuple[int, int], ctx: RunContext) -> None:
    first, end = steps
    load = batches.loaded(end, ctx.device)
    for step in ctx.resumable(name, end - first, learner.parts()):
        with ctx.phase("data"):
            batch = load(first + step)
        learner.step(batches, batch, first + step, batches.config.clip)
