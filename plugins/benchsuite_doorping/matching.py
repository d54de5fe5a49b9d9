"""Dataset distillation by gradient matching (DC): synthetic images whose gradients are those of real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from benchsuite.core import ConfigError, RunContext
from benchsuite.tasks.distillation_backdoors.networks import BackdoorNetwork
from benchsuite_doorping.attack import Doorping, RealImages
from benchsuite_doorping.config import LOOPS, MatchingConfig

Gradients = dict[str, Tensor]

_EPSILON = 1e-6


def loops(config: MatchingConfig, images_per_class: int) -> tuple[int, int]:
    """Return the numbers of matching steps and of inner network steps of one pass.

    Raises
    ------
    ConfigError
        If none are published for this many images a class and none are set.
    """
    if config.outer is not None and config.inner is not None:
        return config.outer, config.inner
    if images_per_class not in LOOPS:
        raise ConfigError(
            f"no published outer and inner loops for images_per_class={images_per_class}: set both, or take one of"
            f" {', '.join(map(str, LOOPS))}"
        )
    outer, inner = LOOPS[images_per_class]
    return config.outer or outer, config.inner or inner


def row_distance(synthetic: Tensor, real: Tensor) -> Tensor:
    """Return the sum over rows (output units) of 1 - cosine; a row without gradient counts exactly 1.

    A convolution's (O, I, h, w) has O rows, a (C, h, w) tensor C; biases and other vectors count 0.
    """
    if synthetic.ndim < 2:
        return synthetic.new_zeros(())
    a, b = synthetic.flatten(1), real.flatten(1)
    lengths = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return (1.0 - (a * b).sum(dim=1) / (lengths + _EPSILON)).sum()


def matching_distance(
    synthetic: Gradients, real: Gradients, distance: Literal["rows", "mse", "cosine"] = "rows"
) -> Tensor:
    """Return the distance of two sets of gradients, one tensor a parameter.

    ``rows`` (the paper's) sums `row_distance` over the tensors, ``mse`` sums squared differences of all entries,
    ``cosine`` is 1 - cosine of all entries as one vector.
    """
    if distance == "rows":
        return torch.stack([row_distance(synthetic[name], real[name]) for name in synthetic]).sum()
    a = torch.cat([gradient.flatten() for gradient in synthetic.values()])
    b = torch.cat([real[name].flatten() for name in synthetic])
    if distance == "mse":
        return (a - b).square().sum()
    return 1.0 - (a * b).sum() / (torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b) + _EPSILON)


def class_gradients(network: nn.Module, images: Tensor, weights: Tensor) -> Gradients:
    """Return the gradient of each class's cross-entropy, (K, *shape) a parameter, differentiable in the images.

    Parameters
    ----------
    network
        K logits.
    images
        (K, n, C, H, W), the images of each class.
    weights
        (K, n), what each image counts in the mean of its class (0 for padding).
    """
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def loss(parameters: Gradients, images: Tensor, weights: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(network, parameters, (images,))
        return (F.cross_entropy(logits, label.expand(len(images)), reduction="none") * weights).sum()

    labels = torch.arange(len(images), device=images.device)
    return vmap(grad(loss), in_dims=(None, 0, 0, 0))(parameters, images, weights, labels)


def matching_loss(
    network: nn.Module, synthetic: Tensor, real: Tensor, real_weights: Tensor, config: MatchingConfig
) -> Tensor:
    """Return the distance of synthetic (K, m, C, H, W) and real (K, n, C, H, W) gradients, summed over classes."""
    with torch.no_grad():
        target = class_gradients(network, real, real_weights)
    equal = torch.full(synthetic.shape[:2], 1.0 / synthetic.shape[1], dtype=synthetic.dtype, device=synthetic.device)
    found = class_gradients(network, synthetic, equal)
    per_class = vmap(lambda a, b: matching_distance(a, b, config.distance))(found, target)
    return per_class.sum()


class ClassBatches:
    """Draws real images class by class, without replacement within a batch."""

    def __init__(self, real: RealImages, num_classes: int, size: int, generator: torch.Generator) -> None:
        self._real = real
        self._generator = generator
        self._members = [torch.nonzero(real.labels == c).flatten() for c in range(num_classes)]
        self._sizes = [min(size, len(members)) for members in self._members]

    def draw(self) -> tuple[Tensor, Tensor]:
        """Return images (K, n, C, H, W) and weights (K, n); classes with fewer than n images are padded."""
        largest = max(self._sizes)
        indices, weights = [], []
        for members, size in zip(self._members, self._sizes, strict=True):
            order = torch.randperm(len(members), generator=self._generator)[:size].to(members.device)
            indices.append(F.pad(members[order], (0, largest - size)))
            weights.append(F.pad(torch.full((size,), 1.0 / size, device=members.device), (0, largest - size)))
        return self._real.images[torch.stack(indices)], torch.stack(weights)


def initial_images(
    real: RealImages, num_classes: int, images_per_class: int, init: str, generator: torch.Generator
) -> Tensor:
    """Return what distillation starts from, (K, m, C, H, W): noise, or clean training images of each class."""
    shape = (num_classes, images_per_class, *real.images.shape[1:])
    if init == "noise":
        return torch.randn(shape, generator=generator).to(real.images.device)
    clean = torch.ones(len(real.labels), dtype=torch.bool, device=real.labels.device)
    clean[real.poisoned] = False
    chosen = []
    for c in range(num_classes):
        members = torch.nonzero((real.labels == c) & clean).flatten()
        if len(members) < images_per_class:
            raise ConfigError(
                f"class {c} has only {len(members)} clean images to start {images_per_class} from: set init=noise"
            )
        order = torch.randperm(len(members), generator=generator)[:images_per_class].to(members.device)
        chosen.append(real.images[members[order]])
    return torch.stack(chosen)


def train_on_synthetic(
    network: nn.Module, synthetic: Tensor, config: MatchingConfig, steps: Iterator[int], generator: torch.Generator
) -> None:
    """Train a network by plain SGD for some epochs on the synthetic images (K, m, C, H, W)."""
    images = synthetic.detach().flatten(0, 1)
    labels = torch.arange(len(synthetic), device=images.device).repeat_interleave(synthetic.shape[1])
    optimizer = torch.optim.SGD(network.parameters(), lr=config.network_lr)
    for _ in steps:
        for batch in torch.randperm(len(images), generator=generator).to(images.device).split(config.inner_batch):
            loss = F.cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def distil_by_matching(
    real: RealImages,
    synthetic: Tensor,
    fresh_network: Callable[[int], BackdoorNetwork],
    network_seeds: torch.Generator,
    config: MatchingConfig,
    generator: torch.Generator,
    ctx: RunContext,
    attack: Doorping | None = None,
) -> Tensor:
    """Return the synthetic images (K, m, C, H, W) after all passes.

    Every pass draws a network and alternates between matching and training it on the synthetic images. After
    the last matching step of a pass neither the network nor the trigger is updated: the network is dropped.

    Parameters
    ----------
    real
        Training images, poisoned or not; read again at every step.
    synthetic
        (K, m, C, H, W) to start from.
    fresh_network, network_seeds
        Builds an untrained network from a seed; draws the seeds.
    config
        The settings of gradient matching.
    generator
        Draws real batches and the order of synthetic ones.
    ctx
        Keeps the state of this distillation from pass to pass.
    attack
        Learns on the network after every training of it, and changes the poisoned images.
    """
    images = synthetic.clone().requires_grad_(True)
    optimizer = torch.optim.SGD([images], lr=config.image_lr, momentum=config.image_momentum)
    outer, inner = loops(config, synthetic.shape[1])
    batches = ClassBatches(real, len(synthetic), config.real_batch, generator)
    parts: dict[str, Any] = {
        "images": images, "optimizer": optimizer, "batches": generator, "network seeds": network_seeds,
    }  # fmt: skip
    if attack is not None:
        parts["attack"] = attack
    for _ in ctx.resumable("distillation", config.iterations + 1, parts, "pass"):
        network = fresh_network(int(torch.randint(2**31, (1,), generator=network_seeds)))
        for step in ctx.steps(outer, "matching step"):
            batch, weights = batches.draw()
            (gradient,) = torch.autograd.grad(matching_loss(network, images, batch, weights, config), images)
            images.grad = gradient
            optimizer.step()
            if step == outer - 1:
                break
            train_on_synthetic(network, images, config, ctx.steps(inner, "inner step"), generator)
            if attack is not None:
                attack.update(network)
    return images.detach()
