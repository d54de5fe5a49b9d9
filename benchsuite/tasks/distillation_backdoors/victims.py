"""Victims: fresh networks trained on a distilled set and nothing else, and what they say about test images."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchsuite.core import RunContext
from benchsuite.datasets.small_images.reader import SmallImages
from benchsuite.tasks.distillation_backdoors.contract import DistillationBackdoorProtocol, DistilledSet, StepSchedule
from benchsuite.tasks.distillation_backdoors.networks import (
    Architecture,
    BackdoorNetwork,
    build_network,
    channels_fastest,
    seeded_network,
)
from benchsuite.tasks.distillation_backdoors.triggers import normalised, patch_mask, stamp, valid_range, white_patch

MOMENTUM, WEIGHT_DECAY, BATCH = 0.9, 5e-4, 256
_JUDGED_AT_ONCE = 512


@dataclass(frozen=True)
class VictimSettings:
    """Architecture and training of victims, and how images are stamped for them.

    ``epochs`` is the index of the last pass over the set; the learning rate falls to a tenth, with a new
    optimiser, after the pass with index ``epochs // 2 + 1``.
    """

    architecture: Architecture
    channels: int
    size: int
    num_classes: int
    epochs: int
    lr: float
    trigger_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def victim_settings(images: SmallImages, protocol: DistillationBackdoorProtocol) -> VictimSettings:
    """Return everything about victims that does not depend on the set they are trained on."""
    return VictimSettings(
        architecture=protocol.network if protocol.victim == "same" else protocol.victim,
        channels=images.shape[0],
        size=images.shape[1],
        num_classes=images.num_classes,
        epochs=protocol.victim_epochs,
        lr=protocol.victim_lr,
        trigger_size=protocol.trigger_size,
        mean=images.mean,
        std=images.std,
    )


@dataclass(frozen=True, eq=False)
class Triggers:
    """The triggers that victims meet, (C, H, W) each, and the mask of the patch, (H, W) bool."""

    final: Tensor
    start: Tensor
    valid_pixels: Tensor
    mask: Tensor


def triggers_of(distilled: DistilledSet, settings: VictimSettings) -> Triggers:
    """Return the triggers of a distilled set; a white patch where there is none."""
    white = white_patch(settings.trigger_size, settings.size, settings.mean, settings.std)
    final = white if distilled.trigger is None else torch.from_numpy(distilled.trigger)
    start = final if distilled.start_trigger is None else torch.from_numpy(distilled.start_trigger)
    black, light = valid_range(settings.mean, settings.std)
    clipped = torch.maximum(torch.minimum(final, light), black)
    return Triggers(final, start, clipped, patch_mask(settings.trigger_size, settings.size))


def trained_victim(distilled: DistilledSet, settings: VictimSettings, ctx: RunContext) -> BackdoorNetwork:
    """Return the victim of this seed, in evaluation mode, trained once for all methods that hand over this set."""
    inputs = {"set": _set_hash(distilled), "seed": ctx.seed_for("victim", "victim"), **asdict(settings)}
    shape = (settings.channels, settings.num_classes, settings.size)

    def build(folder: Path) -> None:
        network = train_victim(distilled, settings, ctx)
        torch.save(network.cpu().state_dict(), folder / "victim.pt")

    folder = ctx.cached("victim", inputs, build)
    network = build_network(settings.architecture, *shape)
    network.load_state_dict(torch.load(folder / "victim.pt", weights_only=True))
    victim: BackdoorNetwork = network.to(ctx.device).eval()
    return victim


def train_victim(distilled: DistilledSet, settings: VictimSettings, ctx: RunContext) -> BackdoorNetwork:
    """Train a victim from fresh weights, or as the set prescribes."""
    seed = ctx.seed_for("victim", "victim")
    shape = (settings.channels, settings.num_classes, settings.size)
    network: BackdoorNetwork = seeded_network(settings.architecture, *shape, seed).to(ctx.device)
    images = torch.from_numpy(distilled.images).to(ctx.device)
    labels = torch.from_numpy(distilled.labels).to(ctx.device)
    if distilled.schedule is not None:
        _follow(network, images, labels, distilled.schedule, ctx)
        return network
    network = channels_fastest(network)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(network.parameters(), lr=settings.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    parts = {"network": network, "optimizer": optimizer, "order": generator}
    for epoch in ctx.resumable("victim", settings.epochs + 1, parts):
        for batch in torch.randperm(len(images), generator=generator).to(ctx.device).split(BATCH):
            loss = F.cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch == settings.epochs // 2 + 1:
            start_anew(optimizer, settings.lr * 0.1)
    return network


def start_anew(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Make an optimiser as good as new: without momenta, at another learning rate."""
    optimizer.state.clear()
    for group in optimizer.param_groups:
        group["lr"] = lr


def _follow(network: BackdoorNetwork, images: Tensor, labels: Tensor, schedule: StepSchedule, ctx: RunContext) -> None:
    """Take the prescribed gradient steps, from the prescribed weights if they are this network's."""
    weights = torch.tensor(schedule.initial_weights, device=images.device)  # a copy: it is trained in place
    if len(weights) == network.num_parameters():
        torch.nn.utils.vector_to_parameters(weights, network.parameters())
    batches = torch.from_numpy(schedule.batches).to(images.device)
    num_batches = int(batches.max()) + 1
    for step in ctx.steps(len(schedule.step_sizes), "victim"):
        batch = batches == step % num_batches
        loss = F.cross_entropy(network(images[batch]), labels[batch])
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter -= float(schedule.step_sizes[step]) * gradient


def predict(
    network: BackdoorNetwork,
    images: NDArray[np.uint8],
    settings: VictimSettings,
    trigger: Tensor | None,
    ctx: RunContext,
) -> NDArray[np.int64]:
    """Return the predicted class of every image, stamped with the trigger if there is one; ties go to the lowest."""
    mask = patch_mask(settings.trigger_size, settings.size).to(ctx.device)
    predicted = []
    for start in range(0, len(images), _JUDGED_AT_ONCE):
        batch = normalised(
            torch.from_numpy(images[start : start + _JUDGED_AT_ONCE]).to(ctx.device), settings.mean, settings.std
        )
        if trigger is not None:
            batch = stamp(batch, trigger.to(ctx.device), mask)
        with torch.no_grad():
            logits = network(batch)
        predicted.append(logits.cpu().numpy().argmax(axis=1))
    return np.concatenate(predicted).astype(np.int64)


def _set_hash(distilled: DistilledSet) -> str:
    digest = hashlib.sha256()
    arrays: list[NDArray[Any]] = [distilled.images, distilled.labels]
    if distilled.schedule is not None:
        arrays += list(vars(distilled.schedule).values())
    for array in arrays:
        digest.update(repr((array.shape, str(array.dtype))).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
