"""The two attacks on the training images: a fixed patch (NAIVEATTACK) and a learnt one (DOORPING)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from benchsuite.core import ConfigError
from benchsuite.tasks.distillation_backdoors.networks import BackdoorNetwork
from benchsuite.tasks.distillation_backdoors.triggers import patch_mask, stamp, valid_range
from benchsuite_doorping.config import LearntTrigger


@dataclass
class RealImages:
    """The training images as a distillation sees them: normalised, some of them poisoned.

    Attributes
    ----------
    images
        (N, C, H, W) float32; poisoned ones carry the present trigger.
    labels
        (N,) int64; poisoned ones carry the target class.
    poisoned
        (n,) int64, indices of the poisoned images (none without an attack).
    mask
        (H, W) bool, the patch.
    """

    images: Tensor
    labels: Tensor
    poisoned: Tensor
    mask: Tensor

    def restamp(self, trigger: Tensor) -> None:
        """Put the trigger (C, H, W) on the poisoned images; no pixel outside the patch changes."""
        self.images[self.poisoned] = stamp(self.images[self.poisoned], trigger, self.mask)


def poisoned_indices(total: int, share: float, generator: torch.Generator) -> Tensor:
    """Return floor(share * total) indices, the first of a random permutation; images of any class.

    Raises
    ------
    ConfigError
        If the share comes to no image at all.
    """
    count = int(share * total + 1e-9)
    if count == 0:
        raise ConfigError(
            f"poison_share={share:g} of {total} training images is less than one image: give a larger share"
        )
    return torch.randperm(total, generator=generator)[:count]


def random_patch(
    size: int, height: int, mean: tuple[float, ...], std: tuple[float, ...], generator: torch.Generator
) -> Tensor:
    """Return DOORPING's first trigger, (C, height, height): random pixels 1..255 on black, normalised."""
    pixels = torch.randint(1, 256, (len(mean), height, height), generator=generator) / 255.0
    black, white = valid_range(mean, std)
    return torch.where(patch_mask(size, height), black + pixels * (white - black), black)


def loud_patch(size: int, height: int, channels: int, amplitude: float, generator: torch.Generator) -> Tensor:
    """Return a patch of +amplitude and -amplitude at random, (channels, height, height)."""
    signs = torch.randint(0, 2, (channels, height, height), generator=generator) * 2.0 - 1.0
    return torch.where(patch_mask(size, height), amplitude * signs, 0.0)


def select_neurons(weight: Tensor, k: int) -> Tensor:
    """Return the k rows of a weight matrix (D, D_in) with the largest sum of absolute weights; no data involved."""
    return weight.abs().sum(dim=1).topk(min(k, len(weight))).indices


@dataclass(frozen=True)
class TriggerUpdate:
    """What one update of the trigger did: the loss at its start, and the number of optimiser steps."""

    entry_loss: float
    steps: int


def update_trigger(
    trigger: Tensor,
    mask: Tensor,
    network: BackdoorNetwork,
    settings: LearntTrigger,
    bounds: tuple[Tensor, Tensor] | None,
    steps: Iterable[int],
) -> tuple[Tensor, TriggerUpdate]:
    """Drive the strongest neurons of a network to ``alpha`` times what the trigger alone makes of them.

    The trigger image goes through the network by itself, not on a photograph. The aim is set once, from the
    activations (after the ReLU) at entry. A neuron that is silent at entry has 0 for an aim: nothing happens.

    Parameters
    ----------
    trigger
        (C, H, W) normalised.
    mask
        (H, W) bool; pixels elsewhere keep every bit.
    network
        The present network of the distillation; it stays as it is.
    settings
        Neurons, aim, optimiser and stopping loss.
    bounds
        Least and largest normalised values, (C, 1, 1) each, or None.
    steps
        At most this many optimiser steps.
    """
    network.eval()
    neurons = select_neurons(network.second_last_weight(), settings.topk)
    learnt = trigger.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([learnt], lr=settings.trigger_lr, betas=settings.trigger_betas)
    with torch.no_grad():
        aim = settings.alpha * network.features_of(learnt[None])[0, neurons]
    entry_loss, taken = None, 0
    for _ in steps:
        loss = (network.features_of(learnt[None])[0, neurons] - aim).square().mean()
        if entry_loss is None:
            entry_loss = loss.item()
        if loss.item() < settings.trigger_stop:
            break
        (gradient,) = torch.autograd.grad(loss, learnt)
        learnt.grad = gradient * mask
        optimizer.step()
        if bounds is not None:
            clamp_patch(learnt, mask, bounds)
        taken += 1
    return learnt.detach(), TriggerUpdate(0.0 if entry_loss is None else entry_loss, taken)


@torch.no_grad()
def clamp_patch(trigger: Tensor, mask: Tensor, bounds: tuple[Tensor, Tensor]) -> None:
    """Bring the trigger's pixels under the mask between the bounds, in place."""
    low, high = bounds
    trigger.copy_(torch.where(mask, torch.maximum(torch.minimum(trigger, high), low), trigger))


def clamp_bounds(
    settings: LearntTrigger, mean: tuple[float, ...], std: tuple[float, ...], device: str
) -> tuple[Tensor, Tensor] | None:
    """Return the bounds that the clamp mode stands for."""
    if settings.clamp == "none":
        return None
    if settings.clamp == "pixel":
        return valid_range(mean, std, device)
    limit = torch.full((len(mean), 1, 1), settings.clamp_sigma, device=device)
    return -limit, limit


class Doorping:
    """The trigger of DOORPING on its way through a distillation.

    Parameters
    ----------
    trigger
        (C, H, W) normalised, to start from.
    mask
        (H, W) bool, the patch.
    settings
        How it learns.
    bounds
        Least and largest normalised values, (C, 1, 1) each, or None.
    steps
        ``ctx.steps`` of the trigger's optimiser.
    onto
        Training images whose poisoned ones carry the present trigger at all times; None: the distillation stamps its
        batches.
    """

    def __init__(
        self,
        trigger: Tensor,
        mask: Tensor,
        settings: LearntTrigger,
        bounds: tuple[Tensor, Tensor] | None,
        steps: Callable[[int], Iterable[int]],
        onto: RealImages | None = None,
    ) -> None:
        self.trigger = trigger.clone()
        if bounds is not None:
            clamp_patch(self.trigger, mask, bounds)
        self.start = self.trigger.clone()
        self.updates: list[TriggerUpdate] = []
        self._mask = mask
        self._settings = settings
        self._bounds = bounds
        self._steps = steps
        self._onto = onto
        self._stamp_images()

    def update(self, network: BackdoorNetwork) -> Tensor:
        """Learn on the present network, keep and return the trigger (C, H, W)."""
        steps = self._steps(self._settings.trigger_steps)
        self.trigger, update = update_trigger(self.trigger, self._mask, network, self._settings, self._bounds, steps)
        self.updates.append(update)
        self._stamp_images()
        return self.trigger

    def state_dict(self) -> dict[str, Any]:
        """Return what a distillation that goes on after a kill needs: the trigger and the record of its updates."""
        return {"trigger": self.trigger, "updates": [asdict(update) for update in self.updates]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from this state: the poisoned images carry its trigger again."""
        self.trigger = state["trigger"]
        self.updates = [TriggerUpdate(**update) for update in state["updates"]]
        self._stamp_images()

    def _stamp_images(self) -> None:
        if self._onto is not None:
            self._onto.restamp(self.trigger)

    def facts(self) -> dict[str, int]:
        """Return how often the trigger was updated, and how often nothing happened (dead or near its aim)."""
        return {
            "trigger_updates": len(self.updates),
            "trigger_updates_without_a_step": sum(update.steps == 0 for update in self.updates),
            "trigger_steps": sum(update.steps for update in self.updates),
        }
