"""Training a frame classifier on views of crops: the signal alone, or with its two interventions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchsuite.core import RunContext
from benchsuite_cci.config import CCIConfig, UNetConfig
from benchsuite_cci.contrast import balanced_pairs, pair_loss
from benchsuite_cci.network import Projector, UNet1d

_MULTIPLE = 16  # of the frames that the deepest level needs

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class View:
    """A crop as the network sees it.

    ``signal`` (C, L) is normalised, ``labels`` (L,) int64; ``original`` (L,) int64 is the frame of the plain crop
    that shows the same moment (-1: outside of it).
    """

    signal: Floats
    labels: Integers
    original: Integers


@dataclass(frozen=True)
class Views:
    """A crop and its interventions; None where one is switched off."""

    plain: View
    morphology: View | None = None
    rhythm: View | None = None


Sampler = Callable[[Generator], Views]


def train(
    network: UNet1d,
    sampler: Sampler,
    config: UNetConfig,
    batch: int,
    weights: Tensor | None,
    ctx: RunContext,
) -> None:
    """Train ``network`` in place with L = mean CE over views + lambda * (contrast with each intervened view).

    A training that was killed goes on where it was.

    Parameters
    ----------
    sampler
        Draws the views of one crop.
    weights
        (classes,) weight of each class in the cross-entropy, or None.
    """
    rng = np.random.default_rng(ctx.seed_for("run", "crops"))
    contrast = config if isinstance(config, CCIConfig) else None
    projector = Projector(network.head.in_channels).to(ctx.device) if contrast else None
    parameters = [*network.parameters(), *(projector.parameters() if projector else ())]
    optimiser = torch.optim.Adam(parameters, lr=config.lr)
    schedule = _schedule(optimiser, config)
    network.train()
    parts = {"network": network, "optimiser": optimiser, "schedule": schedule, "crops": rng}
    parts |= {"projector": projector} if projector else {}
    for _ in ctx.resumable("training", config.steps, parts, "training steps"):
        views = [sampler(rng) for _ in range(batch)]
        loss = _loss(network, projector, views, contrast, weights, rng, ctx.device)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval()


def _schedule(optimiser: torch.optim.Optimizer, config: UNetConfig) -> Any:
    if config.schedule == "one-cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=config.lr, total_steps=config.steps + 1)
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=config.steps)


def _loss(
    network: UNet1d,
    projector: nn.Module | None,
    views: list[Views],
    contrast: CCIConfig | None,
    weights: Tensor | None,
    rng: Generator,
    device: str,
) -> Tensor:
    batches = [_Batch([v.plain for v in views], device)]
    for name in ("morphology", "rhythm"):
        present = [view for view in (getattr(v, name) for v in views) if view is not None]
        if present:
            batches.append(_Batch(present, device))
    logits, features = network(torch.cat([b.signals for b in batches]))
    each = list(zip(logits.split(len(views)), features.split(len(views)), strict=True))
    supervised = batches if contrast is None or contrast.ce_on_interventions else batches[:1]
    losses = [
        F.cross_entropy(out, b.labels_on_device, weights, ignore_index=-1)
        for b, (out, _) in zip(supervised, each, strict=False)
    ]
    loss = torch.stack(losses).mean()
    if contrast is None or projector is None or contrast.contrast_weight == 0:
        return loss
    plain = batches[0]
    embedded = [projector(feature) for _, feature in each]
    for b, view in zip(batches[1:], embedded[1:], strict=True):
        pairs = balanced_pairs(b.labels, plain.labels, b.original, contrast.anchors, rng)
        loss = loss + contrast.contrast_weight * pair_loss(view, embedded[0], b.labels, pairs, contrast.temperature)
    return loss


class _Batch:
    """Views stacked: signals (B, C, L) and labels on the device, labels and frames as arrays."""

    def __init__(self, views: list[View], device: str) -> None:
        self.signals = torch.from_numpy(np.stack([v.signal for v in views]).astype(np.float32)).to(device)
        self.labels = np.stack([v.labels for v in views])
        self.labels_on_device = torch.from_numpy(self.labels).to(device)
        self.original = np.stack([v.original for v in views])


def predict(network: UNet1d, signal: Floats, device: str, margin: int = 0) -> NDArray[np.float32]:
    """Return log-probabilities (classes, L) of a normalised signal (C, L), in one pass over the whole of it.

    ``margin`` frames of zeros, the normalised baseline, precede the signal: a network that is trained on crops has
    learned that the first frames of a crop may belong to an event before it, and there is none before a record.
    """
    length = signal.shape[1]
    padded = np.pad(signal, ((0, 0), (margin, -(margin + length) % _MULTIPLE)))
    with torch.no_grad():
        logits, _ = network(torch.from_numpy(padded.astype(np.float32))[None].to(device))
    found: NDArray[np.float32] = logits[0, :, margin : margin + length].log_softmax(dim=0).cpu().numpy()
    return found
