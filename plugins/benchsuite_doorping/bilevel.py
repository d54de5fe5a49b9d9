"""Bilevel dataset distillation (DD): synthetic images and step sizes, learnt through the training they cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from benchsuite.core import RunContext
from benchsuite.tasks.distillation_backdoors.networks import BackdoorNetwork
from benchsuite_doorping.attack import Doorping, RealImages
from benchsuite_doorping.config import BilevelConfig

Weights = dict[str, Tensor]

_BETAS = (0.5, 0.999)


@dataclass
class Curriculum:
    """What is learnt: batches of images, and the size of every gradient step.

    Attributes
    ----------
    images
        (B, n, C, H, W): one batch a gradient step, gone through again and again.
    labels
        (n,) int64, the same for every batch.
    raw_step_sizes
        (T,); the sizes are their softplus.
    """

    images: Tensor
    labels: Tensor
    raw_step_sizes: Tensor

    def batch_of(self, step: int) -> int:
        """Return the batch that a gradient step takes."""
        return step % len(self.images)

    def step_sizes(self) -> Tensor:
        """Return the sizes of the gradient steps, (T,)."""
        return F.softplus(self.raw_step_sizes)


def raw_step_size(size: float) -> float:
    """Return the value whose softplus is ``size``: log(exp(size) - 1)."""
    return float(torch.tensor(size, dtype=torch.float64).expm1().log())


def new_curriculum(
    config: BilevelConfig, num_classes: int, images_per_class: int, shape: Sequence[int], generator: torch.Generator
) -> Curriculum:
    """Return a curriculum of noise, its classes in order."""
    labels = torch.arange(num_classes).repeat_interleave(images_per_class)
    images = torch.randn((config.distill_steps, len(labels), *shape), generator=generator)
    raw = torch.full((config.distill_steps * config.distill_epochs,), raw_step_size(config.distill_lr))
    return Curriculum(images, labels, raw)


def xavier_weights(network: nn.Module, generator: torch.Generator) -> Weights:
    """Return weights drawn from Xavier's normal distribution with gain 1, and zero biases."""
    weights = {}
    for name, parameter in network.named_parameters():
        value = torch.zeros_like(parameter, device="cpu")
        if parameter.ndim > 1:
            nn.init.xavier_normal_(value, generator=generator)
        weights[name] = value.to(parameter.device)
    return weights


def train_through(
    network: nn.Module, weights: Weights, curriculum: Curriculum, sizes: Tensor, steps: Sequence[int]
) -> list[Weights]:
    """Return the weights before every gradient step and after the last, w_0 .. w_T, without a graph."""
    path = [{name: value.detach() for name, value in weights.items()}]
    for step in steps:
        gradients = _gradients(network, path[-1], curriculum.images[curriculum.batch_of(step)], curriculum.labels)
        size = sizes[step].detach()
        path.append({name: (value - size * gradients[name]).detach() for name, value in path[-1].items()})
    return path


def hypergradient(
    network: nn.Module,
    path: list[Weights],
    curriculum: Curriculum,
    steps: Sequence[int],
    images: Tensor,
    labels: Tensor,
) -> tuple[Tensor, Tensor, float]:
    """Return the exact gradient of the outer loss in the synthetic images and the raw step sizes, and the loss.

    Goes back through the training one step at a time. With v the gradient in the weights after step i, the step
    w - eta g(w, x) passes on v less the products of v with the derivatives of eta g in w, in x and in eta. What
    a batch receives is summed over all the steps that took it.

    Parameters
    ----------
    network
        Architecture.
    path
        What `train_through` returned for ``steps``.
    curriculum, steps
        What was trained on, and the numbers of the gradient steps, in order.
    images, labels
        (M, C, H, W) and (M,): real images of the outer loss.
    """
    last = {name: value.detach().requires_grad_(True) for name, value in path[-1].items()}
    outer_loss = F.cross_entropy(functional_call(network, last, (images,)), labels)
    v = torch.autograd.grad(outer_loss, list(last.values()))
    image_gradient = torch.zeros_like(curriculum.images)
    raw_gradient = torch.zeros_like(curriculum.raw_step_sizes)
    for position in reversed(range(len(steps))):
        step = steps[position]
        batch = curriculum.batch_of(step)
        weights = {name: value.detach().requires_grad_(True) for name, value in path[position].items()}
        synthetic = curriculum.images[batch].detach().requires_grad_(True)
        raw = curriculum.raw_step_sizes[step].detach().requires_grad_(True)
        gradients = _gradients(network, weights, synthetic, curriculum.labels, create_graph=True)
        moved = F.softplus(raw) * torch.stack([(g * w).sum() for g, w in zip(gradients.values(), v, strict=True)]).sum()
        in_images, in_raw, *in_weights = torch.autograd.grad(moved, [synthetic, raw, *weights.values()])
        image_gradient[batch] -= in_images
        raw_gradient[step] -= in_raw
        v = tuple(before - change for before, change in zip(v, in_weights, strict=True))
    return image_gradient, raw_gradient, outer_loss.item()


def distil_bilevel(
    real: RealImages,
    curriculum: Curriculum,
    network: BackdoorNetwork,
    initial: Weights,
    config: BilevelConfig,
    generator: torch.Generator,
    ctx: RunContext,
    attack: Doorping | None = None,
    target: int = 0,
) -> None:
    """Learn the curriculum in place.

    Every pass shuffles the training images. With an attack, ``real.poisoned`` are positions in the shuffled
    stream, so that other images are poisoned in every pass; before each outer loss the attack learns on the trained
    weights and its trigger goes onto the poisoned images of the batch.

    Parameters
    ----------
    real
        Training images.
    curriculum
        What to learn.
    network
        Architecture; its own weights are overwritten.
    initial
        The one set of weights that every training starts from.
    config
        The settings of bilevel distillation.
    generator
        Draws the order of the training images.
    ctx
        Keeps the state of this distillation from outer step to outer step.
    attack
        Learns a trigger on the trained network.
    target
        The class of poisoned images.
    """
    learnt = [curriculum.images, curriculum.raw_step_sizes]
    optimizer = torch.optim.Adam(learnt, lr=config.lr, betas=_BETAS)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, config.decay_epochs, config.decay_factor)
    total = len(real.labels)
    batches_per_pass = -(-total // config.batch)
    poisoned = torch.zeros(total, dtype=torch.bool, device=real.images.device)
    if attack is not None:
        poisoned[real.poisoned] = True
    order = torch.arange(total)
    parts: dict[str, Any] = {
        "images": curriculum.images, "raw step sizes": curriculum.raw_step_sizes, "optimizer": optimizer,
        "schedule": schedule, "batches": generator, "order": order,
    }  # fmt: skip
    if attack is not None:
        parts["attack"] = attack
    for iteration in ctx.resumable("distillation", config.epochs * batches_per_pass, parts, "outer step"):
        position = iteration % batches_per_pass
        if position == 0:
            order.copy_(torch.randperm(total, generator=generator))
        here = slice(position * config.batch, (position + 1) * config.batch)
        chosen = order[here].to(real.images.device)
        images, labels, stamped = real.images[chosen], real.labels[chosen], poisoned[here]
        taken = list(ctx.steps(len(curriculum.raw_step_sizes), "training step"))
        path = train_through(network, initial, curriculum, curriculum.step_sizes(), taken)
        if attack is not None:
            network.load_state_dict(path[-1])
            trigger = attack.update(network)
            images = torch.where(stamped[:, None, None, None] & real.mask, trigger, images)
            labels = torch.where(stamped, target, labels)
        curriculum.images.grad, curriculum.raw_step_sizes.grad, _ = hypergradient(
            network, path, curriculum, taken, images, labels
        )
        optimizer.step()
        if position == batches_per_pass - 1:
            schedule.step()


def _gradients(
    network: nn.Module, weights: Weights, images: Tensor, labels: Tensor, create_graph: bool = False
) -> Weights:
    if not create_graph:
        weights = {name: value.detach().requires_grad_(True) for name, value in weights.items()}
    loss = F.cross_entropy(functional_call(network, weights, (images,)), labels)
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=create_graph)
    return dict(zip(weights, gradients, strict=True))
