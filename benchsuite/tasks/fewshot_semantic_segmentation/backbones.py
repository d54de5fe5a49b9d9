"""The backbone of a run: read from a file, or pre-trained on the pool of the data; and its features of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchsuite.core import ConfigError, DataError, RunContext
from benchsuite.datasets.class_masks.images import Pool
from benchsuite.tasks.fewshot_semantic_segmentation.contract import FewShotMasksProtocol, Picture
from benchsuite.tasks.fewshot_semantic_segmentation.networks import (
    Backbone,
    FrozenVGG,
    TinyResNet,
    build_backbone,
    load_strictly,
    normalised,
    read_state,
)

__all__ = ["Features", "load_backbone", "load_imagenet", "pool_accuracy"]

_CACHE_BYTES = 512 * 2**20
LEAST_POOL_ACCURACY = 0.35
"""Below it the features of the tiny backbone say too little for a learner (sheet of MSHNet, section 10)."""

# Pre-training of the tiny backbone.
_STEPS, _BATCH, _RATE = 140, 32, 4e-3
_CALIBRATED = 64


def load_backbone(
    protocol: FewShotMasksProtocol, pool: Pool | None, ctx: RunContext
) -> tuple[Backbone, dict[str, Any]]:
    """Return the frozen backbone of a run on its device, and where its weights come from.

    Raises
    ------
    ConfigError
        If a large backbone has no file of weights, and the run is not truncated; or the file does not fit.
    DataError
        If the tiny backbone has no pool to be pre-trained on.
    """
    facts: dict[str, Any] = {"backbone": protocol.backbone, "weights": "random", "sha256": "", "pool_accuracy": None}
    backbone: Backbone
    if protocol.backbone == "tiny":
        if pool is None:
            raise DataError(
                "there is no pool of further categories to pre-train the tiny backbone on:"
                " set task.backbone=resnet50 and task.backbone_file=FILE"
            )
        backbone, accuracy = _pre_trained(pool, ctx)
        facts |= {"weights": f"pre-trained on {len(pool.names)} categories", "pool_accuracy": accuracy}
        if accuracy < LEAST_POOL_ACCURACY:
            ctx.log.warning("the backbone tells only %.1f %% of its pool: methods may not learn", 100 * accuracy)
    else:
        torch.manual_seed(ctx.seed_for("base", "backbone"))
        backbone = build_backbone(protocol.backbone)
        if protocol.backbone_file:
            path = Path(protocol.backbone_file).expanduser()
            load_imagenet(backbone, path)
            facts |= {"weights": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        elif ctx.weights is None:
            if ctx.max_steps is None:
                raise ConfigError(
                    f"{protocol.backbone} needs its ImageNet weights: set task.backbone_file=FILE (torchvision's state"
                    " dict), or --weights FILE of a model with its backbone"
                )
            ctx.log.warning("%s has random weights: this truncated run measures nothing", protocol.backbone)
    return backbone.freeze().to(ctx.device), facts


def load_imagenet(backbone: Backbone, path: Path) -> None:
    """Load a state dict in torchvision's layout.

    Raises
    ------
    ConfigError
        If the file is no plain state dict (nothing in it is executed), or not of this network.
    """
    state = read_state(path)
    if isinstance(backbone, FrozenVGG):
        state = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    load_strictly(backbone, state, path)


def _pre_trained(pool: Pool, ctx: RunContext) -> tuple[TinyResNet, float]:
    """Return the tiny backbone of this base seed and its accuracy on pool pictures that it has not seen."""
    pictures, labels = Pool.read(pool.train)
    held_out, answers = Pool.read(pool.test)
    seed = ctx.seed_for("base", "backbone")
    content = hashlib.sha256()
    for array in (pictures, labels, held_out, answers):
        content.update(np.ascontiguousarray(array).tobytes())

    def build(folder: Path) -> None:
        torch.manual_seed(seed)
        model = TinyResNet(len(pool.names)).to(ctx.device)
        _pre_train(model, pictures, labels, seed, ctx)
        accuracy = pool_accuracy(model, held_out, answers)
        torch.save(
            {"model": model.state_dict(), "accuracy": torch.tensor(accuracy, dtype=torch.float64)},
            folder / "backbone.pt",
        )

    inputs = {"pool": content.hexdigest(), "seed": seed, "steps": _STEPS, "batch": _BATCH, "rate": _RATE}
    folder = ctx.cached("fss-backbone", inputs, build)
    saved = torch.load(folder / "backbone.pt", map_location="cpu", weights_only=True)
    model = TinyResNet(len(pool.names))
    model.load_state_dict(saved["model"])
    return model, float(saved["accuracy"])


def _pre_train(
    model: TinyResNet, pictures: NDArray[np.uint8], labels: NDArray[np.int64], seed: int, ctx: RunContext
) -> None:
    """Classify the pool: AdamW, one cycle."""
    images, answers = torch.from_numpy(pictures), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_STEPS)
    order = torch.Generator().manual_seed(seed)
    nn.Module.train(model, True)
    for _ in ctx.resumable(
        "backbone", _STEPS, {"model": model, "optimizer": optimizer, "schedule": schedule, "order": order}
    ):
        chosen = torch.randperm(len(images), generator=order)[:_BATCH]
        loss = F.cross_entropy(model.logits(normalised(images[chosen].to(ctx.device))), answers[chosen].to(ctx.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.freeze()
    some = images[:: max(1, len(images) // _CALIBRATED)]  # of all categories
    model.calibrate(normalised(some.to(ctx.device)))


@torch.no_grad()
def pool_accuracy(model: TinyResNet, pictures: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Return the share of pictures whose category a pre-trained backbone names."""
    device = next(model.parameters()).device
    right = 0
    for first in range(0, len(pictures), 64):
        images = torch.from_numpy(pictures[first : first + 64]).to(device)
        right += int((model.logits(normalised(images)).argmax(dim=1).cpu().numpy() == labels[first : first + 64]).sum())
    return right / len(pictures)


class Features:
    """Maps of pictures by a backbone; those of small pictures are kept.

    On the CPU each picture goes through the network by itself, so that its maps do not depend on what is beside it.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._kept: dict[str, list[Tensor]] = {}
        self._room = _CACHE_BYTES

    def __call__(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """Return the maps, low to high, of B pictures: (B, C, h, w) each."""
        found = [self._kept.get(picture.key) for picture in pictures]
        new = {p.key: p for p, maps in zip(pictures, found, strict=True) if maps is None}
        computed = dict(self._computed(list(new.values())))
        each = [computed[p.key] if maps is None else maps for p, maps in zip(pictures, found, strict=True)]
        return [torch.stack(maps) for maps in zip(*each, strict=True)]

    def _computed(self, pictures: Sequence[Picture]) -> Iterator[tuple[str, list[Tensor]]]:
        device = next(self.backbone.parameters()).device
        together = 1 if device.type == "cpu" else 8
        for first in range(0, len(pictures), together):
            part = pictures[first : first + together]
            images = torch.from_numpy(np.stack([picture.pixels for picture in part])).to(device)
            maps = self.backbone(images)
            for place, picture in enumerate(part):
                own = [found[place] for found in maps]
                size = sum(found.numel() * found.element_size() for found in own)
                if size <= self._room and picture.pixels.shape[0] <= 128:
                    self._room -= size
                    self._kept[picture.key] = own
                yield picture.key, own
