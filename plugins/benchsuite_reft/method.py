"""The rows of RefT: a fine-tuned Mask2Former, with and without references."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from benchsuite.core import RunContext
from benchsuite.tasks.fewshot_instance_segmentation.contract import (
    BaseData,
    Detection,
    FewShotData,
    FewShotSegmenter,
    Segmenter,
    State,
)
from benchsuite_reft.config import (
    BaseStageConfig,
    Mask2FormerConfig,
    ReferenceConfig,
    RefineStageConfig,
    RefTConfig,
    RefTRefineStageConfig,
    stage_of,
)
from benchsuite_reft.images import Pictures, View, inference_view, normalised
from benchsuite_reft.inference import instances_of
from benchsuite_reft.mini import MiniMask2Former
from benchsuite_reft.model import ReferenceOptions, RefT
from benchsuite_reft.network import Network, to_cosine, with_novel_rows
from benchsuite_reft.references import References, Shots
from benchsuite_reft.training import (
    BaseTeacher,
    Draw,
    Stage,
    base_draw,
    build_optimizer,
    draw_supports,
    restrict_to_projections,
    segments,
    step_generator,
    train,
    tune_draw,
)
from benchsuite_reft.weights import (
    file_digest,
    is_tuned,
    load_facts,
    load_model,
    load_network,
    load_state,
    optimizer_state,
    references_state,
    restore_optimizer,
    restore_references,
    save_state,
    saved_labels,
    tuned_facts,
)

_MODEL, _OPTIMIZER, _REFERENCES = "model.safetensors", "optimizer.safetensors", "references.safetensors"
_STEPS = "steps"
_SUPPORT_CHUNK = 32
_TUNE_DROP = 0.8
_OF_MODEL, _OF_STORED = "model.", "stored."  # in the state that learning the base classes leaves


@dataclasses.dataclass
class _Labels:
    """Contiguous labels of category ids: base classes first, then novel ones if the head has both."""

    base: dict[int, int]
    head: dict[int, int]

    @classmethod
    def of(cls, data: BaseData | FewShotData) -> _Labels:
        base = {category: label for label, category in enumerate(data.base_classes)}
        ordered = [c for c in data.base_classes if c in data.head_classes]
        ordered += [c for c in data.head_classes if c not in base]
        return cls(base, {category: label for label, category in enumerate(ordered)})


class Mask2FormerFineTuned(FewShotSegmenter):
    """Mask2Former trained on the base classes and fine-tuned on the shots, without references.

    With ``--weights`` a Mask2Former checkpoint takes the place of the first base stage; a model that a run of this row
    saved takes the place of all training.
    """

    Config: ClassVar[type] = Mask2FormerConfig
    config: Mask2FormerConfig
    shows_other_supports: ClassVar[bool] = False

    def learn_base(self, data: BaseData, ctx: RunContext) -> State:
        """See `FewShotSegmenter.learn_base`."""
        return BaseTraining(self.config, data, ctx).state()

    def tune(self, state: State, data: FewShotData, ctx: RunContext) -> Segmenter:
        """See `FewShotSegmenter.tune`."""
        return Tuning(self.config, data, ctx, self.shows_other_supports).segmenter(state)

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield the network at its configured size on two small images."""
        size = self.config.image_size if self.config.network == "mini" else 64
        yield build_model(self.config, 4), (torch.randn(2, 3, size, size),)


class RefTFineTuned(Mask2FormerFineTuned):
    """RefT: the same network with class centres and linked queries."""

    Config: ClassVar[type] = RefTConfig
    config: RefTConfig

    def forward_examples(self) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
        """Yield the support branch, and the network with references, on two small images."""
        size = self.config.image_size if self.config.network == "mini" else 64
        model = build_model(self.config, 4)
        images, masks = torch.randn(2, 3, size, size), torch.ones(2, size, size, dtype=torch.bool)
        yield _SupportBranch(model), (images, masks)
        d = model.network.width
        centres = tuple(torch.randn(4, d) for _ in range(model.network.levels))
        yield model, (images, References(centres, torch.randn(8, d), torch.arange(8) // 2))


class OtherSupports(RefTFineTuned):
    """RefT tuned on the shots and then shown supports instead of as many base classes, as many shots: a control."""

    shows_other_supports: ClassVar[bool] = True


class _SupportBranch(nn.Module):
    def __init__(self, model: RefT) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        return self.model.support(images, masks).tokens


def build_network(config: BaseStageConfig, classes: int) -> Network:
    """Return an untrained network with a linear head of ``classes`` and no object."""
    if config.network == "mini":
        return MiniMask2Former(classes)
    from benchsuite_reft.hf import HFMask2Former

    return HFMask2Former(config.network, classes)


def build_model(config: BaseStageConfig, classes: int) -> RefT:
    """Return the network of a stage, with new references if the stage has them."""
    return RefT(build_network(config, classes), _options(config))


def _options(config: BaseStageConfig) -> ReferenceOptions | None:
    if not isinstance(config, ReferenceConfig):
        return None
    return ReferenceOptions(config.mode, config.temperature, config.queries_per_shot, config.tokens, config.link_logits)


def _with_cosine_head(network: Network) -> Network:
    assert isinstance(network.head, nn.Linear)
    network.replace_head(to_cosine(network.head))
    return network


class BaseTraining:
    """The stages on the base classes, each from what the one before left."""

    def __init__(self, config: Mask2FormerConfig, data: BaseData, ctx: RunContext) -> None:
        self.config, self.data, self.ctx = config, data, ctx
        self.device = torch.device(ctx.device)
        self.labels = _Labels.of(data)
        self.seed = ctx.seed_for("base", "base training")
        self.weights, self.facts = ({}, {}) if ctx.weights is None else load_state(ctx.weights)
        self._pictures: Pictures | None = None

    @property
    def pictures(self) -> Pictures:
        """The base images with the objects of base classes."""
        if self._pictures is None:
            self._pictures = Pictures(self.data.images, self.labels.base)
        return self._pictures

    def state(self) -> State:
        """Return the trained model, and references of base classes whose images tuning will not see."""
        if is_tuned(self.facts):  # the saved model holds all of it
            return {}
        return state_of(*self._refined_model())

    def _base_stage(self) -> Path:
        """Return the folder of the network trained on the base classes: the same for every row."""
        config = stage_of(self.config, BaseStageConfig)
        inputs = self._inputs(config)
        stage = Stage(config.base_steps, config.batch_size, config.lr, self.seed, _at(config.drops, config.base_steps))

        def start() -> RefT:
            torch.manual_seed(self.seed)
            return build_model(config, len(self.labels.base))

        return self._cached_training("mask2former-base", inputs, stage, config, start, frozen_norm=False)

    def _inputs(self, config: BaseStageConfig) -> dict[str, Any]:
        """Return what a stage depends on: its settings, as far as it sees them, and its data."""
        return {
            **dataclasses.asdict(config),
            "base": self.data.images.digest,
            "classes": list(self.data.base_classes),
            "seed": self.seed,
        }

    def _checkpoint(self, config: BaseStageConfig) -> Network:
        """Return the network of a Mask2Former checkpoint."""
        assert self.ctx.weights is not None
        network = build_network(config, len(self.labels.base))
        body = getattr(network, "body", network)
        ordered = sorted([*self.data.base_classes, *self.data.novel_classes])
        places = [ordered.index(category) for category in self.data.base_classes]
        for note in load_network(body, self.weights, places, self.ctx.weights.name):
            self.ctx.log.warning(note)
        return network

    def _refined_model(self) -> tuple[RefT, References | None]:
        """Return the row's model after the refining stage, and base references if its head needs stored ones."""
        referring = isinstance(self.config, ReferenceConfig)
        config: RefineStageConfig = stage_of(self.config, RefTRefineStageConfig if referring else RefineStageConfig)
        trained = None if self.ctx.weights is not None else self._base_stage()
        origin = {"weights": file_digest(self.ctx.weights)} if self.ctx.weights else {"trained": self.seed}
        inputs = {**self._inputs(config), **origin}
        seed = self.seed + 1
        drops = _at(config.drops, config.refine_steps)
        stage = Stage(config.refine_steps, config.batch_size, config.refine_lr, seed, drops)

        def start() -> RefT:
            torch.manual_seed(seed)
            if trained is None:
                network = self._checkpoint(config)
            else:
                network = build_network(config, len(self.labels.base))
                load_model(RefT(network, None), load_state(trained / _MODEL)[0], "the base stage")
            if config.head == "cosine":
                network = _with_cosine_head(network)
            return RefT(network, _options(config))

        name = "reft-base" if referring else "mask2former-refined"
        folder = self._cached_training(name, inputs, stage, config, start, frozen_norm=True)
        model = start()
        load_model(model, load_state(folder / _MODEL)[0], "the refining stage")
        model.to(self.device)
        return model, self._stored_references(model, {**inputs, "stage": name})

    def _stored_references(self, model: RefT, inputs: Mapping[str, Any]) -> References | None:
        """Return centres and tokens of base classes in the head that have no shots: vectors, no images."""
        if not isinstance(self.config, RefTConfig) or self.data.setting != "ifsis":
            return None
        config = self.config

        def build(folder: Path) -> None:
            supports = base_supports(self.pictures, config, self.seed, len(self.labels.base), config.stored_shots)
            save_state(references_state(references_of(model, supports, self.device)), folder / _REFERENCES)

        folder = self.ctx.cached("reft-base-references", {**inputs, "shots": config.stored_shots}, build)
        return restore_references(load_state(folder / _REFERENCES)[0])

    def _cached_training(
        self,
        name: str,
        inputs: Mapping[str, Any],
        stage: Stage,
        config: BaseStageConfig,
        start: Callable[[], RefT],
        frozen_norm: bool,
    ) -> Path:
        """Train through resumable segments; return the folder of the last.

        Parameters
        ----------
        name, inputs
            Of the cache entry.
        stage, config
            What to train.
        start
            Returns the model as the first segment finds it.
        frozen_norm
            Keep the statistics of batch norms.
        """
        folder: Path | None = None
        for first, end in segments(stage.steps, self.config.segment):

            def build(target: Path, first: int = first, end: int = end, before: Path | None = folder) -> None:
                model = start().to(self.device)
                _train_mode(model, config, frozen_norm or self.ctx.weights is not None)
                optimizer = build_optimizer(model, config)
                if before is not None:
                    load_model(model, load_state(before / _MODEL)[0], "an earlier segment")
                    restore_optimizer(optimizer, load_state(before / _OPTIMIZER)[0])
                draw = base_draw(self.pictures, config, stage)
                steps = self.ctx.resumable(name, end - first, {"model": model, "optimizer": optimizer})
                last = train(model, optimizer, draw, config, stage, (first + n for n in steps), self.device)
                save_state(model.state_dict(), target / _MODEL, {_STEPS: str(last or end)})
                if end < stage.steps:
                    save_state(optimizer_state(optimizer), target / _OPTIMIZER)

            folder = self.ctx.cached(name, {**inputs, "until": end}, build)
            if int(load_facts(folder / _MODEL)[_STEPS]) < end:  # cut short: so is the stage
                break
        assert folder is not None
        return folder


def state_of(model: RefT, stored: References | None) -> State:
    """Return a model and the references of the classes that it knows, as arrays."""
    kept = {} if stored is None else references_state(stored)
    tensors = {_OF_MODEL + k: v for k, v in model.state_dict().items()}
    tensors |= {_OF_STORED + k: v for k, v in kept.items()}
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


class Tuning:
    """The stage on the shots, from what the base classes left, or what the novel classes before left."""

    def __init__(
        self, config: Mask2FormerConfig, data: FewShotData, ctx: RunContext, shows_other_supports: bool
    ) -> None:
        self.config, self.data, self.ctx = config, data, ctx
        self.device = torch.device(ctx.device)
        self.labels = _Labels.of(data)
        self.shots = Pictures(data.shots, self.labels.head)
        self.instances = self.shots.instances_by_label()
        self.shots_a_class = max((len(found) for found in self.instances.values()), default=1)
        # Classes that are added one by one see their shots in orders, and start from noise, of their own.
        self.seed = ctx.seed_for("shots", f"tuning beyond {len(data.base_classes)} classes")
        self.weights, self.facts = ({}, {}) if ctx.weights is None else load_state(ctx.weights)
        self.shows_other_supports = shows_other_supports

    def segmenter(self, state: State) -> Segmenter:
        """Tune what is not given and return the finished model with its references."""
        if is_tuned(self.facts):
            if saved_labels(self.facts).keys() > self.labels.head.keys():
                return _Skipped()
            model, stored = self._saved_model()
        else:
            model, stored = self._base_model(state)
            self._tune(model, stored)
        if "model" in self.ctx.wanted_artifacts:
            kept = {} if stored is None else {_OF_STORED + k: v for k, v in references_state(stored).items()}
            path = self.ctx.artifact(_MODEL)
            save_state({**model.state_dict(), **kept}, path, tuned_facts(self.labels.head))
        supports = self._other_supports() if self.shows_other_supports else self._all_shots()
        references = None if model.options is None else references_of(model, supports, self.device)
        if references is not None and stored is not None:
            references = stored + references
        return RefTSegmenter(model, references, self.labels.head, self.config)

    def _base_model(self, state: State) -> tuple[RefT, References | None]:
        """Return the model and the stored references that learning the base classes left."""
        network = build_network(self.config, len(self.labels.base))
        if self.config.head == "cosine":
            network = _with_cosine_head(network)
        model = RefT(network, _options(self.config))
        tensors = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
        load_model(model, _part(tensors, _OF_MODEL), "the base classes")
        kept = _part(tensors, _OF_STORED)
        return model.to(self.device), self._placed(restore_references(kept)) if kept else None

    def _saved_model(self) -> tuple[RefT, References | None]:
        assert self.ctx.weights is not None
        model = self._with_head(build_model(self.config, len(self.labels.base)))
        kept = _part(self.weights, _OF_STORED)
        load_model(
            model, {k: v for k, v in self.weights.items() if not k.startswith(_OF_STORED)}, self.ctx.weights.name
        )
        model.to(self.device)
        return model, self._placed(restore_references(kept)) if kept else None

    def _with_head(self, model: RefT, tokens: References | None = None) -> RefT:
        """Give the model the head of the shots' stage."""
        novel = [label for category, label in self.labels.head.items() if category not in self.labels.base]
        if self.config.head == "cosine" and isinstance(model.network.head, nn.Linear):
            model.network.replace_head(to_cosine(model.network.head))
        rows = None
        if tokens is not None:
            found = [tokens.tokens[tokens.token_labels == label] for label in novel]
            rows = torch.stack([t.mean(dim=0) for t in found])
        kept = [label for category, label in self.labels.base.items() if category in self.labels.head]
        model.network.replace_head(with_novel_rows(model.network.head, kept, len(novel), rows))
        return model

    def _tune(self, model: RefT, stored: References | None) -> None:
        config = self.config
        teacher = None
        if isinstance(config, RefTConfig) and config.distillation:
            teacher = BaseTeacher(copy.deepcopy(model), stored, len(self.labels.base), config.enhancement)
        torch.manual_seed(self.seed)
        self._with_head(model, references_of(model, self._all_shots(), self.device) if config.imprint else None)
        steps = config.tune_steps or min(max(100 * self.shots_a_class, 500), 3000)
        batch_size = min(config.tune_batch_size, max(len(self.shots), 1))
        stage = Stage(steps, batch_size, config.tune_lr, self.seed, _at((_TUNE_DROP,), steps))
        _train_mode(model, config, frozen_norm=True)
        if config.trainable == "projections":
            restrict_to_projections(model)
        draw: Draw = tune_draw(self.shots, config, stage, stored)
        optimizer = build_optimizer(model, config)
        numbers = self.ctx.resumable("tuning", steps, {"model": model, "optimizer": optimizer})
        train(model, optimizer, draw, config, stage, numbers, self.device, teacher)

    def _all_shots(self) -> list[View]:
        size = getattr(self.config, "support_size", self.config.image_size)
        places = [place for label in sorted(self.instances) for place in self.instances[label]]
        return [self.shots.fitted(image, size).of(number) for image, number in places]

    def _other_supports(self) -> list[View]:
        """Return supports of as many base classes as the head has, as many shots of each."""
        assert isinstance(self.config, RefTConfig)
        assert self.data.base_images is not None
        pictures = Pictures(self.data.base_images, self.labels.base)
        seed = self.ctx.seed_for("base", "base training")
        return base_supports(pictures, self.config, seed, len(self.labels.head), self.shots_a_class)

    def _placed(self, references: References) -> References:
        return References(
            tuple(level.to(self.device) for level in references.centres),
            references.tokens.to(self.device),
            references.token_labels.to(self.device),
        )


def base_supports(pictures: Pictures, config: RefTConfig, seed: int, classes: int, shots: int) -> list[View]:
    """Return random instances of the base classes, as supports with base labels."""
    generator = step_generator(seed, -1)
    instances = pictures.instances_by_label()
    available = [label for label in sorted(instances) if instances[label]]
    drawn = [available[i] for i in torch.randperm(len(available), generator=generator)[:classes].tolist()]
    return draw_supports(pictures, instances, sorted(drawn), shots, config.support_size, generator)


@torch.no_grad()
def references_of(model: RefT, supports: Sequence[View], device: torch.device) -> References:
    """Return the references of a whole support set, which passes through the network once."""
    was_training = model.training
    model.eval()
    parts = []
    for first in range(0, len(supports), _SUPPORT_CHUNK):
        chunk = supports[first : first + _SUPPORT_CHUNK]
        masks = torch.cat([view.masks for view in chunk]).to(device)
        parts.append(model.support(normalised([view.image for view in chunk], device), masks))
    model.train(was_training)
    shots = Shots.joined(parts)
    labels = torch.cat([view.labels for view in supports]).to(device)
    tokens = model.options.tokens if model.options else "all"
    return shots.by_class(labels, sorted(set(labels.tolist())), tokens)


def _train_mode(model: RefT, config: BaseStageConfig, frozen_norm: bool) -> None:
    model.train()
    if config.network != "mini" and frozen_norm:
        from benchsuite_reft.hf import freeze_batch_norm

        freeze_batch_norm(model)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


class _Skipped(Segmenter):
    """The model after one of several classes that arrive one by one: a saved model knows all of them already."""

    def state(self) -> State:
        """Return nothing: what is saved takes the place of all training."""
        return {}


class RefTSegmenter(Segmenter):
    """A trained model with the references of its support set, which are computed once.

    Parameters
    ----------
    model
        Trained.
    references
        None for the plain network.
    labels
        Category id to label.
    config
        Sizes of test images.
    """

    def __init__(
        self, model: RefT, references: References | None, labels: Mapping[int, int], config: Mask2FormerConfig
    ) -> None:
        self.model = model
        self.references = references
        self.categories = {label: category for category, label in labels.items()}
        self.config = config
        self.parameters = sum(p.numel() for p in model.parameters())

    @torch.no_grad()
    def predict(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """See `Segmenter.predict`: one pass of the network an image, all classes at once."""
        self.model.eval()
        views = [inference_view(image, self.config.short_side, self.config.long_side) for image in images]
        found: list[list[Detection]] = [[] for _ in images]
        for numbers in _batches([tuple(view.shape) for view, _ in views], self.config.micro_batch):
            self._predict_batch(numbers, images, views, found)
        return found

    def state(self) -> State:
        """See `Segmenter.state`: rows of all classes are known ones then, and references are kept as vectors."""
        model = copy.deepcopy(self.model)
        model.network.replace_head(with_novel_rows(model.network.head, range(len(self.categories)), 0))
        return state_of(model, self.references)

    def _predict_batch(
        self,
        numbers: Sequence[int],
        images: Sequence[np.ndarray],
        views: Sequence[tuple[Tensor, tuple[int, int]]],
        found: list[list[Detection]],
    ) -> None:
        device = next(self.model.parameters()).device
        batch = normalised([views[number][0] for number in numbers], device)
        prediction = self.model(batch, self.references)
        padded = (batch.shape[2], batch.shape[3])
        for row, number in enumerate(numbers):
            height, width = images[number].shape[:2]
            instances = instances_of(
                prediction.class_logits[-1, row],
                prediction.decoded.mask_logits[-1][row],
                padded,
                views[number][1],
                (height, width),
            )
            found[number] = [Detection(self.categories[i.label], i.score, i.mask, i.box) for i in instances]


def _batches(shapes: Sequence[tuple[int, ...]], size: int) -> Iterator[list[int]]:
    """Yield the numbers of images of equal shape, a few at a time, in order of first appearance."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, shape in enumerate(shapes):
        groups.setdefault(shape, []).append(number)
    for members in groups.values():
        for first in range(0, len(members), size):
            yield members[first : first + size]


def _at(shares: Sequence[float], steps: int) -> tuple[int, ...]:
    return tuple(round(share * steps) for share in shares)
