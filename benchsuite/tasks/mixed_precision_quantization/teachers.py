"""The full-precision network of a seed: trained by the task, or read from a file, and the same for every row."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchsuite.core import ConfigError, RunContext
from benchsuite.core.errors import DataError
from benchsuite.tasks.mixed_precision_quantization.contract import (
    FullPrecision,
    Layer,
    QuantizationData,
    QuantizationProtocol,
)
from benchsuite.tasks.mixed_precision_quantization.networks import build_network, layers_of

__all__ = ["full_precision", "inventory", "predicted"]

_BATCH = 128
_MODEL = "network.pt"
_MOMENTUM = 0.9


def full_precision(data: QuantizationData, protocol: QuantizationProtocol, ctx: RunContext) -> FullPrecision:
    """Return the network of this seed: trained once and shared by every row, or read from ``protocol.pretrained``."""
    if protocol.pretrained:
        state, digest = _read_state(Path(protocol.pretrained))
    else:
        state, digest = _trained(data, protocol, ctx)
    network = _empty(data, protocol)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{protocol.pretrained}: does not fit {protocol.model}: {reason}") from None
    network = network.to(ctx.device).eval()
    calibrating = range(min(protocol.calibration, len(data)))
    layers = inventory(network, (data.prepared(calibrating[i : i + _BATCH]) for i in calibrating[::_BATCH]))
    return FullPrecision(layers, digest, lambda: copy.deepcopy(network))


def inventory(network: nn.Module, batches: Iterable[Tensor]) -> tuple[Layer, ...]:
    """Return the layers of a network in the order of their first use.

    Parameters
    ----------
    network
        In evaluation mode.
    batches
        Pictures (B, C, H, W): the first batch is counted, all give the range of inputs.

    Raises
    ------
    ConfigError
        If the network has no layer, or one that it does not use.
    """
    modules = layers_of(network)
    device = next(network.parameters()).device
    counts: dict[str, list[int]] = {}
    ranges: dict[str, tuple[float, float]] = {}
    counting = True

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = inputs[0]
            if counting:
                weight: Any = module.weight
                entry = counts.setdefault(name, [0, 0])
                entry[0] += weight.numel() * (output[0].numel() // weight.shape[0])  # places: H W, or tokens
                entry[1] += x[0].numel()
            low, high = ranges.get(name, (math.inf, -math.inf))
            ranges[name] = (min(low, float(x.min())), max(high, float(x.max())))

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    try:
        with torch.no_grad():
            for batch in batches:
                network(batch.to(device))
                counting = False
    finally:
        for handle in handles:
            handle.remove()
    idle = sorted(set(modules) - set(counts))
    if idle or not counts:
        raise ConfigError(f"layers {', '.join(idle) or 'none'}: a network must use all that it has, and have one")
    return tuple(
        Layer(name, tuple(modules[name].weight.shape), modules[name].weight.numel(), macs, values, *ranges[name])
        for name, (macs, values) in counts.items()
    )


def predicted(network: nn.Module, batches: Any, count: int, device: str) -> Tensor:
    """Return the logits of all pictures (N, C), float32 on the CPU."""
    found = []
    with torch.no_grad():
        for first in range(0, count, _BATCH):
            places = range(first, min(first + _BATCH, count))
            found.append(network(batches.prepared(places).to(device)).float().cpu())
    return torch.cat(found)


def _empty(data: QuantizationData, protocol: QuantizationProtocol) -> nn.Module:
    return build_network(protocol.model, data.channels, data.classes, protocol.size)


def _trained(data: QuantizationData, protocol: QuantizationProtocol, ctx: RunContext) -> tuple[dict[str, Tensor], str]:
    """Return the state of the trained network, and what identifies it."""
    seed = ctx.seed_for("run", "teacher")
    told = {
        name: value
        for name, value in vars(protocol).items()
        if name.startswith("teacher_") or name in ("model", "size", "crop", "augment")
    }
    inputs = {"data": data.digest, "seed": seed, "max_steps": ctx.max_steps, **told}

    def build(folder: Path) -> None:
        torch.manual_seed(seed)
        network = _empty(data, protocol).to(ctx.device)
        _train(network, data, protocol, seed, ctx)
        torch.save(network.cpu().state_dict(), folder / _MODEL)

    folder = ctx.cached("full-precision", inputs, build)
    state = torch.load(folder / _MODEL, weights_only=True)
    return state, _digest(state)


def _train(
    network: nn.Module, data: QuantizationData, protocol: QuantizationProtocol, seed: int, ctx: RunContext
) -> None:
    """Train with cross-entropy; an epoch takes every picture once, but for an incomplete last batch."""
    batch = min(protocol.teacher_batch, len(data))
    a_pass = len(data) // batch
    total = protocol.teacher_epochs * a_pass
    order = torch.Generator().manual_seed(seed)
    lr, decay = protocol.teacher_lr, protocol.teacher_weight_decay
    optimizer: torch.optim.Optimizer
    if protocol.teacher_optimizer == "adam":
        optimizer = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=decay)
    else:
        optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=_MOMENTUM, weight_decay=decay)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    labels = torch.from_numpy(data.labels)
    shuffled = torch.zeros(len(data), dtype=torch.int64)
    network.train()
    parts = {"network": network, "optimizer": optimizer, "rates": rates, "order": order, "shuffled": shuffled}
    for step in ctx.resumable("full-precision", total, parts):
        if step % a_pass == 0:
            shuffled.copy_(torch.randperm(len(data), generator=order))
        places = shuffled[step % a_pass * batch :][:batch]
        logits = network(data.augmented(places.tolist(), order).to(ctx.device))
        loss = F.cross_entropy(logits, labels[places].to(ctx.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()


def _read_state(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return a state dict from a file in which nothing is executed."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file: give a state dict of the full-precision network") from None
    except Exception as error:  # damaged files fail in many ways
        raise DataError(f"{path}: is no state dict of tensors ({type(error).__name__})") from None
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise DataError(f"{path}: is no state dict of tensors")
    state = {name: value.detach() for name, value in found.items()}
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    return state, _digest(state)


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + np.ascontiguousarray(state[name].numpy()).tobytes())
    return digest.hexdigest()
