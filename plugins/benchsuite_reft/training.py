"""Optimiser steps and stages: base classes, refinement with references, tuning on shots.

What a step sees is drawn from a generator seeded by the stage and the number of the step alone. So a stage that was
cut into resumable segments trains exactly like one in a piece, and a row with references sees the very images of one
without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn

from benchsuite_reft.config import BaseStageConfig, ReferenceConfig, RefTConfig
from benchsuite_reft.distillation import (
    Belief,
    DistillationNormaliser,
    base_masks,
    cell_weights,
    class_distillation,
    distillation_loss,
    feature_distillation,
)
from benchsuite_reft.images import Pictures, View, jittered, normalised, targets_of
from benchsuite_reft.losses import Matching, Normaliser, Target, set_loss
from benchsuite_reft.model import Prediction, RefT, only_active
from benchsuite_reft.references import References

_WARM_UP_SHARE, _WARM_UP_FACTOR, _WARM_UP_STEPS = 0.1, 1 / 25, 10
_SEED_STRIDE = 1_000_003
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d, nn.Embedding)
_UNDECAYED = ("embed", "relative_position_bias_table")  # parameters of this name, whatever module they belong to


@dataclass(frozen=True)
class Stage:
    """The length, rates and seed of one stage. ``drops`` are the steps at which a step schedule drops tenfold."""

    steps: int
    batch_size: int
    lr: float
    seed: int
    drops: tuple[int, ...] = ()


@dataclass(frozen=True)
class Step:
    """What one optimiser step sees.

    Attributes
    ----------
    views
        Images to segment.
    supports
        Views of one object each; none for the plain network.
    stored
        Further references that are kept as vectors.
    active
        Labels that take part in the softmax; None: all.
    """

    views: list[View]
    supports: list[View] = field(default_factory=list)
    stored: References | None = None
    active: list[int] | None = None


Draw = Callable[[int, torch.Generator], Step]


class Teacher(Protocol):
    """What keeps a network near an earlier one."""

    def believe(self, images: Tensor) -> Belief:
        """Return what the earlier network predicts."""

    def normaliser(self, beliefs: Sequence[Belief], targets: Sequence[Sequence[Target]]) -> DistillationNormaliser:
        """Return what the loss of a batch is divided by, from all of its parts."""

    def loss(
        self,
        belief: Belief,
        after: Prediction,
        matching: Matching,
        targets: Sequence[Target],
        normaliser: DistillationNormaliser,
    ) -> Tensor:
        """Return what a part of a batch adds to the loss of having moved away."""


# --- drawing ---------------------------------------------------------------------------------------------------------


def step_generator(seed: int, number: int) -> torch.Generator:
    """Return the generator of one step."""
    return torch.Generator().manual_seed(seed * _SEED_STRIDE + number)


def batch_numbers(count: int, batch_size: int, number: int, seed: int) -> list[int]:
    """Return the images of batch ``number``: every epoch of ``count`` images is a permutation of its own."""
    places = range(number * batch_size, (number + 1) * batch_size)
    epochs = {place // count for place in places}
    orders = {e: torch.randperm(count, generator=step_generator(seed, -1 - e)) for e in sorted(epochs)}
    return [int(orders[place // count][place % count]) for place in places]


def draw_images(
    pictures: Pictures, config: BaseStageConfig, stage: Stage, number: int, g: torch.Generator
) -> list[View]:
    """Return the scaled and flipped images of a step."""
    views = []
    for index in batch_numbers(len(pictures), stage.batch_size, number, stage.seed):
        if config.jitter == (1.0, 1.0):
            view = pictures.fitted(index, config.image_size)
        else:
            view = jittered(pictures.original(index), config.image_size, config.jitter, g)
        views.append(_maybe_flipped(view, g))
    return views


def draw_supports(
    pictures: Pictures,
    instances: Mapping[int, Sequence[tuple[int, int]]],
    labels: Sequence[int],
    shots: int,
    size: int,
    generator: torch.Generator,
) -> list[View]:
    """Return up to ``shots`` random instances of each of ``labels``, flipped at random."""
    views = []
    for label in labels:
        for place in torch.randperm(len(instances[label]), generator=generator)[:shots].tolist():
            image, number = instances[label][place]
            views.append(_maybe_flipped(pictures.fitted(image, size).of(number), generator))
    return views


def support_labels(
    views: Sequence[View], available: Sequence[int], count: int, generator: torch.Generator
) -> list[int]:
    """Return the classes of a step's support set: all that are present, then random ones up to ``count``."""
    present = {int(label) for view in views for label in view.labels} & set(available)
    order = [available[i] for i in torch.randperm(len(available), generator=generator).tolist()]
    absent = [label for label in order if label not in present]
    return sorted([*present, *absent[: max(count - len(present), 0)]])


def _maybe_flipped(view: View, generator: torch.Generator) -> View:
    return view.flipped() if torch.rand((), generator=generator) < 0.5 else view


# --- one step --------------------------------------------------------------------------------------------------------


def gradient_step(
    model: RefT,
    step: Step,
    config: BaseStageConfig,
    device: torch.device,
    generator: torch.Generator,
    teacher: Teacher | None = None,
) -> float:
    """Add the gradients of one batch to the parameters and return the loss.

    Losses are divided by sums over the whole batch, and each image has random points of its own: micro-batches of any
    size add up to the same gradient. They leave theirs at the centres and tokens of the support set, which then flow on
    together. The support set passes through the network once, with ``micro_supports`` twice.
    """
    detach = getattr(config, "detach_support", False)
    with torch.set_grad_enabled(not detach), _precision(config, device):
        made = _support_references(model, step, config, device)
    leaves = None if made is None else _map(made, lambda x: x.detach().requires_grad_(x.requires_grad))
    references = leaves if step.stored is None or leaves is None else step.stored + leaves
    targets = targets_of(step.views, device)
    normaliser = Normaliser.of(targets, model.network.queries)
    generators = _generators(len(step.views), generator)
    parts = [slice(first, first + config.micro_batch) for first in range(0, len(step.views), config.micro_batch)]
    beliefs = [] if teacher is None else _beliefs(teacher, step, parts, config, device)
    distilled = None if teacher is None else teacher.normaliser(beliefs, [targets[part] for part in parts])
    total = 0.0
    for number, part in enumerate(parts):
        images = normalised([view.image for view in step.views[part]], device)
        with _precision(config, device):
            after = model(images, references, beliefs[number].cells if beliefs else None)
            logits = only_active(after.class_logits, step.active)
            loss, matching = set_loss(logits, after.decoded, targets[part], normaliser, config.points, generators[part])
            if teacher is not None and distilled is not None:
                loss = loss + teacher.loss(beliefs[number], after, matching, targets[part], distilled)
        loss.backward()
        total += float(loss.detach())
    if made is not None and leaves is not None:
        pairs = [(a, b) for a, b in zip(_tensors(made), _tensors(leaves), strict=True) if b.grad is not None]
        if pairs:
            torch.autograd.backward([a for a, _ in pairs], [b.grad for _, b in pairs])
    return total


def _generators(count: int, generator: torch.Generator) -> list[torch.Generator]:
    """Return a generator for each image of a batch."""
    seeds = torch.randint(2**62, (count,), generator=generator).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _beliefs(
    teacher: Teacher, step: Step, parts: Sequence[slice], config: BaseStageConfig, device: torch.device
) -> list[Belief]:
    """Return what a teacher makes of each part of a batch: the weights of cells are known only when all are seen."""
    with _precision(config, device):
        return [teacher.believe(normalised([view.image for view in step.views[part]], device)) for part in parts]


def _support_references(model: RefT, step: Step, config: BaseStageConfig, device: torch.device) -> References | None:
    if not step.supports or not isinstance(config, ReferenceConfig):
        return None
    images = normalised([view.image for view in step.supports], device)
    masks = torch.cat([view.masks for view in step.supports]).to(device)
    labels = torch.cat([view.labels for view in step.supports]).to(device)
    return model.references(images, masks, labels, sorted(set(labels.tolist())), config.micro_supports)


def _tensors(references: References) -> list[Tensor]:
    return [*references.centres, references.tokens]


def _map(references: References, change: Callable[[Tensor], Tensor]) -> References:
    return References(
        tuple(change(level) for level in references.centres), change(references.tokens), references.token_labels
    )


def _precision(config: BaseStageConfig, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=config.amp and device.type == "cuda")


# --- a stage ---------------------------------------------------------------------------------------------------------


def rate_factor(config: BaseStageConfig, stage: Stage, number: int) -> float:
    """Return the learning rate of step ``number`` in units of the stage's."""
    if config.schedule == "step":
        warm = min(1.0, (number + 1) / _WARM_UP_STEPS)
        return warm * math.prod(0.1 for drop in stage.drops if number >= drop)
    warm_up = _WARM_UP_SHARE * stage.steps
    if number < warm_up:
        return _WARM_UP_FACTOR + (1 - _WARM_UP_FACTOR) * (number + 1) / (warm_up + 1)
    return 0.5 * (1 + math.cos(math.pi * (number - warm_up) / max(stage.steps - warm_up, 1)))


def build_optimizer(model: RefT, config: BaseStageConfig) -> torch.optim.AdamW:
    """Return AdamW: own rates for backbone and references; norms, embeddings and Swin's position biases do not decay.

    Groups carry their rate relative to the stage's as ``rate``.
    """
    rates = {id(p): config.backbone_rate for p in model.network.backbone.parameters()}
    if isinstance(config, ReferenceConfig):
        rates |= {id(p): config.reference_rate for module in model.reference_modules for p in module.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                fixed = isinstance(module, _NORMS) or any(part in name for part in _UNDECAYED)
                key = (rates.get(id(parameter), 1.0), 0.0 if fixed else config.weight_decay)
                groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [{"params": found, "rate": rate, "weight_decay": decay} for (rate, decay), found in groups.items()],
        lr=0.0,
        fused=True,
    )


def train(
    model: RefT,
    optimizer: torch.optim.Optimizer,
    draw: Draw,
    config: BaseStageConfig,
    stage: Stage,
    numbers: Iterable[int],
    device: torch.device,
    teacher: Teacher | None = None,
) -> int:
    """Take the steps ``numbers`` of a stage; return the number after the last one (0 if none was left to take).

    Parameters
    ----------
    model, optimizer
        In training mode; the optimiser of `build_optimizer`.
    draw
        What step ``number`` sees, drawn with the generator it is given.
    config, stage
        Rates, clipping, micro-batches.
    numbers
        The numbers of the steps, from ``ctx.resumable``.
    device
        Where the model is.
    teacher
        Of incremental tuning.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    reached = 0
    for number in numbers:
        factor = rate_factor(config, stage, number)
        for group in optimizer.param_groups:
            group["lr"] = stage.lr * group["rate"] * factor
        generator = step_generator(stage.seed, number)
        optimizer.zero_grad()
        gradient_step(model, draw(number, generator), config, device, generator, teacher)
        nn.utils.clip_grad_norm_(trained, config.clip)
        optimizer.step()
        reached = number + 1
    return reached


# --- drawing for each stage ------------------------------------------------------------------------------------------


def base_draw(pictures: Pictures, config: BaseStageConfig, stage: Stage) -> Draw:
    """Return what steps on the base classes see; references and episodes only with a `ReferenceConfig`."""
    labels = sorted(set(pictures.labels.values()))
    instances = pictures.instances_by_label() if isinstance(config, ReferenceConfig) else {}
    available = [label for label in labels if instances.get(label)]

    def draw(number: int, generator: torch.Generator) -> Step:
        views = draw_images(pictures, config, stage, number, generator)
        if not isinstance(config, ReferenceConfig):
            return Step(views)
        if 0 < config.episode_classes < len(available):
            order = torch.randperm(len(available), generator=generator)[: config.episode_classes].tolist()
            drawn = sorted(available[i] for i in order)
            views = [view.only(drawn) for view in views]
        else:
            drawn = support_labels(views, available, config.support_classes, generator)
        supports = draw_supports(pictures, instances, drawn, 1, config.support_size, generator)
        return Step(views, supports, active=drawn if config.link_logits else None)

    return draw


def tune_draw(pictures: Pictures, config: BaseStageConfig, stage: Stage, stored: References | None = None) -> Draw:
    """Return what steps on the shots see: with references, some shots of every class are the support set."""
    instances = pictures.instances_by_label()
    labels = [label for label in sorted(instances) if instances[label]]

    def draw(number: int, generator: torch.Generator) -> Step:
        views = draw_images(pictures, config, stage, number, generator)
        if not isinstance(config, RefTConfig):
            return Step(views)
        supports = draw_supports(pictures, instances, labels, config.support_shots, config.support_size, generator)
        return Step(views, supports, stored)

    return draw


# --- incremental tuning ----------------------------------------------------------------------------------------------


class BaseTeacher:
    """The network after base training, which tuning must not forget.

    Parameters
    ----------
    model
        A copy of the network after base training; it is frozen here.
    references
        Those of the base classes, or None.
    base_classes
        B; labels from there on are novel.
    enhancement
        beta.
    """

    def __init__(self, model: RefT, references: References | None, base_classes: int, enhancement: float) -> None:
        self.model = model.eval().requires_grad_(False)
        self.references = references
        self.base_classes = base_classes
        self.enhancement = enhancement

    @torch.no_grad()
    def believe(self, images: Tensor) -> Belief:
        """See `Teacher.believe`: the last prediction's classes and base objects, and the projected features."""
        found: Prediction = self.model(images, self.references)
        logits, decoded = found.class_logits[-1], found.decoded
        return Belief(logits, base_masks(logits, decoded.mask_logits[-1]), decoded.projected, decoded.cells)

    def normaliser(self, beliefs: Sequence[Belief], targets: Sequence[Sequence[Target]]) -> DistillationNormaliser:
        """See `Teacher.normaliser`: queries that no object is matched to, and weights of cells."""
        queries = [
            max(belief.class_logits.shape[1] - len(target.labels), 0)
            for belief, part in zip(beliefs, targets, strict=True)
            for target in part
        ]
        weights = [self._cell_weights(belief, part) for belief, part in zip(beliefs, targets, strict=True)]
        cells = [sum(float(weight.sum()) for weight in level) for level in zip(*weights, strict=True)]
        return DistillationNormaliser(max(sum(queries), 1), tuple(max(total, 1.0) for total in cells))

    def loss(
        self,
        belief: Belief,
        after: Prediction,
        matching: Matching,
        targets: Sequence[Target],
        normaliser: DistillationNormaliser,
    ) -> Tensor:
        """See `Teacher.loss`: beliefs of the last prediction's queries and projected features."""
        keep = torch.ones(after.class_logits.shape[1:3], dtype=torch.bool, device=after.class_logits.device)
        keep[matching.image, matching.query] = False
        of_classes = class_distillation(
            belief.class_logits.flatten(0, 1),
            after.class_logits[-1].flatten(0, 1),
            keep.flatten(),
            normaliser.queries,
            self.enhancement,
        )
        of_features = feature_distillation(
            belief.projected, after.decoded.projected, self._cell_weights(belief, targets), normaliser.cells
        )
        return distillation_loss(of_classes, of_features)

    def _cell_weights(self, belief: Belief, targets: Sequence[Target]) -> tuple[Tensor, ...]:
        novel = torch.stack([target.masks.any(dim=0) for target in targets]).float()
        return cell_weights(novel, belief.base, belief.projected, self.enhancement)


def restrict_to_projections(model: RefT) -> None:
    """Let tuning change only the input projections, new and no-object rows of a cosine head, and the references."""
    model.requires_grad_(False)
    model.network.input_projections.requires_grad_(True)
    for module in model.reference_modules:
        module.requires_grad_(True)
    model.network.head.requires_grad_(True)
    if hasattr(model.network.head, "known"):
        model.network.head.known.requires_grad_(False)


def segments(steps: int, length: int) -> list[tuple[int, int]]:
    """Return the first and last-plus-one step of each resumable segment of a stage; an empty stage is one segment."""
    edges = [*range(0, steps, length), steps]
    return list(pairwise(edges)) or [(0, 0)]
