"""Learning rates and momenta, step by step, and what each part of the network gets of them (section 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

__all__ = ["Cycle", "make_optimizer"]


def _between(start: float, end: float, share: float) -> float:
    """Return a value on half a cosine from start to end."""
    return end + 0.5 * (start - end) * (math.cos(math.pi * share) + 1)


@dataclass
class Cycle:
    """One cycle: the rate rises to ``peak`` times its base and falls to ``final`` times; beta 1 falls and comes back.

    Attributes
    ----------
    optimizer
        Its groups carry ``base`` (rate) in ``initial_lr``.
    total
        Number of steps.
    peak, final, warm_up
        Factors of the base rate, and the share of the steps in which it rises.
    momentum
        Factor of beta 1 at the peak.
    """

    optimizer: Optimizer
    total: int
    peak: float
    final: float = 1e-4
    warm_up: float = 0.4
    momentum: float = 0.85 / 0.95

    def factors(self, step: int) -> tuple[float, float]:
        """Return the factors of the rate and of beta 1 at a step."""
        up = max(int(self.warm_up * self.total), 1)
        if step < up:
            share = step / up
            return _between(1.0, self.peak, share), _between(1.0, self.momentum, share)
        share = (step - up) / max(self.total - up, 1)
        return _between(self.peak, self.final, share), _between(self.momentum, 1.0, share)

    def set(self, step: int) -> None:
        """Set rates and momenta for a step."""
        rate, momentum = self.factors(step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate
            group["betas"] = (group["initial_beta"] * momentum, group["betas"][1])


@dataclass(frozen=True)
class _Share:
    """What a part of the network gets of rate and weight decay."""

    rate: float
    decay: float


_PARTS = {"image_encoder.backbone": _Share(0.01, 5.0), "image_encoder.neck": _Share(0.1, 1.0)}


def make_optimizer(model: nn.Module, lr: float, weight_decay: float, embedded: bool, beta: float = 0.9) -> Optimizer:
    """Return AdamW with the rates of the parts of a model.

    ``embedded``: the references learn ten times slower, and decay spares vectors. Else as released: the image backbone
    learns a hundred times slower and decays five times as much, the neck learns ten times slower, all else alike.
    """
    groups: dict[tuple[float, float], list[Any]] = {}
    for full_name, parameter in model.named_parameters():
        name = full_name.removeprefix("model.")
        if not parameter.requires_grad:
            continue
        if embedded:
            share = _Share(0.1 if name == "references" else 1.0, float(parameter.ndim > 1 and name != "references"))
        else:
            share = next((share for part, share in _PARTS.items() if name.startswith(part)), _Share(1.0, 1.0))
        groups.setdefault((share.rate, share.decay), []).append(parameter)
    described = [
        {"params": members, "initial_lr": lr * rate, "lr": lr * rate, "weight_decay": weight_decay * decay}
        for (rate, decay), members in groups.items()
    ]
    optimizer = AdamW(described, lr=lr, betas=(beta, 0.999), weight_decay=weight_decay, fused=True)
    for group in optimizer.param_groups:
        group["initial_beta"] = beta
    return optimizer
