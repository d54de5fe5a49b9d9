"""The opponents in few-shot semantic segmentation: prototypes, a logistic regression an episode, a small HSNet."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("sklearn")

import torch
import torch.nn.functional as F

from benchsuite.core.errors import ConfigError
from benchsuite.tasks.fewshot_semantic_segmentation.backbones import Features
from benchsuite.tasks.fewshot_semantic_segmentation.contract import LabelledEpisode, Picture, TrainingData
from benchsuite.tasks.fewshot_semantic_segmentation.networks import TinyResNet
from benchsuite_baselines.segmentation import METHODS
from benchsuite_baselines.segmentation.config import FrozenPANetConfig, HSNetConfig, PANetConfig, PixelLogisticConfig
from benchsuite_baselines.segmentation.features import levels_of, masks_of
from benchsuite_baselines.segmentation.hsnet import CenterPivotConv, HSNetSegmenter, SmallHSNet
from benchsuite_baselines.segmentation.logistic import PixelLogistic
from benchsuite_baselines.segmentation.prototypes import Embedding, FrozenPANet, PANet, segment


def an_episode(number: int, shots: int = 2) -> LabelledEpisode:
    """A bright square on a dark ground: what the support shows, the query shows elsewhere."""
    rng = np.random.default_rng(number)

    def scene(key: str) -> tuple[Picture, np.ndarray]:
        pixels = rng.integers(0, 60, (64, 64, 3)).astype(np.uint8)
        top, left = rng.integers(4, 28, 2)
        mask = np.zeros((64, 64), dtype=bool)
        mask[top : top + 30, left : left + 30] = True
        pixels[mask] = rng.integers(170, 250, (mask.sum(), 3)).astype(np.uint8)
        return Picture(f"{number}-{key}", pixels), mask

    supports = [scene(str(k)) for k in range(shots)]
    query, answer = scene("query")
    masks = np.stack([mask for _, mask in supports])
    return LabelledEpisode(tuple(p for p, _ in supports), masks, query, (64, 64), answer, number % 2)


class Context(SimpleNamespace):
    device = "cpu"

    def seed_for(self, axis: str, name: str) -> int:
        return 3

    def resumable(self, name: str, total: int, parts: Any, description: str = "") -> range:
        self.parts = parts
        return range(total)


def training_data(score: Any = None) -> TrainingData:
    torch.manual_seed(1)
    return TrainingData(TinyResNet().freeze(), 2, 64, (0, 1), 8, an_episode, score)


def iou(model: Any, numbers: range) -> float:
    episodes = [an_episode(number) for number in numbers]
    found = model.predict(episodes)
    both = sum((mask & e.query_mask).sum() for mask, e in zip(found, episodes, strict=True))
    either = sum((mask | e.query_mask).sum() for mask, e in zip(found, episodes, strict=True))
    return float(both / either)


def test_logits_are_scaled_cosines_with_two_prototypes() -> None:
    torch.manual_seed(0)
    query, supports, masks = torch.randn(2, 5, 4, 4), torch.randn(2, 3, 5, 4, 4), torch.rand(2, 3, 4, 4)
    logits = segment(query, supports, masks, 20.0)
    for b in range(2):
        for place, weights in enumerate((1 - masks[b], masks[b])):
            shots = [(supports[b, k] * weights[k]).sum((1, 2)) / (weights[k].sum() + 1e-5) for k in range(3)]
            prototype = sum(shots) / 3
            expected = 20 * F.cosine_similarity(query[b], prototype[:, None, None], dim=0)
            torch.testing.assert_close(logits[b, place], expected, atol=1e-4, rtol=1e-4)


def test_masks_become_shares_of_foreground() -> None:
    episode = an_episode(0)
    found = masks_of([episode], torch.zeros(1, 3, 16, 16))
    assert found.shape == (1, 2, 16, 16)
    assert found[0, 0, 5, 6].item() == pytest.approx(episode.support_masks[0][20:24, 24:28].mean())


def test_all_levels_are_joined_as_unit_vectors() -> None:
    features = Features(TinyResNet().freeze())
    found = levels_of(features, [an_episode(0).query], "all", False)
    assert found.shape == (1, 64 + 96 + 128, 16, 16)
    torch.testing.assert_close(found[:, :64].norm(dim=1), torch.ones(1, 16, 16))
    one = levels_of(features, [an_episode(0).query], "l3", True)
    assert one.shape == (1, 96, 8, 8)
    assert one.min() == 0


def test_panet_learns() -> None:
    data = training_data()
    config = PANetConfig(steps=25, batch_size=4, width=16)
    ctx = Context()
    trained = PANet(config).fit(data, ctx)
    untrained = PANet(replace(config, lr=1e-12)).fit(data, Context())
    assert iou(trained, range(100, 106)) > iou(untrained, range(100, 106)) + 0.02
    assert ctx.parts.keys() == {"model", "optimizer", "schedule", "best"}
    assert trained.parameters == sum(p.numel() for p in Embedding(288, 16).parameters())


def test_embedding_has_the_size_of_the_prototype() -> None:
    assert sum(p.numel() for p in Embedding(288, 64).parameters()) == 92_608  # 93 k in the sheet's table


def test_alignment_adds_its_loss() -> None:
    data = training_data()
    episodes = [an_episode(number) for number in range(3)]
    features = Features(data.backbone)
    torch.manual_seed(0)
    embedding = Embedding(288, 8).eval()
    losses = [
        PANet(PANetConfig(width=8, alignment=weight))._loss(embedding, features, episodes, torch.device("cpu")).item()
        for weight in (0.0, 1.0, 2.0)
    ]
    assert losses[1] - losses[0] > 0.01
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-4)


def test_frozen_prototypes_need_no_training() -> None:
    model = FrozenPANet(FrozenPANetConfig()).fit(training_data(), Context())  # type: ignore[arg-type]
    assert model.parameters == 0
    assert [mask.dtype for mask in model.predict([an_episode(1)])] == [np.dtype(bool)]


def test_logistic_regression_finds_what_it_was_shown() -> None:
    model = PixelLogistic(PixelLogisticConfig()).fit(training_data(), Context())  # type: ignore[arg-type]
    assert iou(model, range(100, 104)) > 0.6


@pytest.mark.parametrize("value", [False, True])
def test_logistic_regression_needs_two_classes(value: bool) -> None:
    model = PixelLogistic(PixelLogisticConfig()).fit(training_data(), Context())  # type: ignore[arg-type]
    episode = replace(an_episode(1), support_masks=np.full((2, 64, 64), value))
    assert (model.predict([episode])[0] == value).all()


def test_selection_keeps_the_best_state() -> None:
    scores = iter([0.8, 0.1])
    states = []

    def score(model: Any) -> float:
        states.append(model._embedding[0].weight.detach().clone())
        return next(scores)

    model = PANet(PANetConfig(steps=4, batch_size=4, width=8)).fit(training_data(score), Context())
    assert len(states) == 2
    assert torch.equal(model._embedding[0].weight, states[0])  # type: ignore[attr-defined]


def test_a_centre_pivot_convolution_equals_a_plain_loop() -> None:
    torch.manual_seed(0)
    conv = CenterPivotConv(2, 4, 2)
    x = torch.randn(1, 2, 4, 4, 6, 6)
    added = torch.zeros(1, 4, 4, 4, 3, 3)
    for u in range(3):
        for v in range(3):
            added[..., u, v] += conv.of_query(x[..., 2 * u, 2 * v])
    for h in range(4):
        for w in range(4):
            added[:, :, h, w] += conv.of_support(x[:, :, h, w])
    torch.testing.assert_close(conv(x), conv.norm(added).relu())


def test_small_hsnet_learns_and_votes() -> None:
    data = training_data()
    model = SmallHSNet(HSNetConfig(steps=30, batch_size=4, lr=0.005)).fit(data, Context())
    assert iou(model, range(100, 104)) > 0.5

    class Fixed(HSNetSegmenter):
        def logits(self, episodes: Any, shot: int) -> torch.Tensor:
            found = torch.zeros(1, 2, 2, 2)
            found[0, 1] = torch.tensor([[1.0, -1.0], [1.0 if shot < 2 else -1.0, -1.0]])
            return found

    episode = replace(an_episode(1, shots=5), output_size=(2, 2))
    voted = Fixed(model._network, model._features).predict([episode])[0]  # type: ignore[attr-defined]
    assert voted.tolist() == [[True, False], [False, False]]  # five, none, two and no votes: at least half of five


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: FrozenPANetConfig(scale=0), "scale"),
        (lambda: PANetConfig(steps=0), "steps"),
        (lambda: PixelLogisticConfig(strength=0), "strength"),
        (lambda: HSNetConfig(lr=0), "lr"),
    ],
)
def test_settings_that_make_no_sense_are_told(make: Any, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        make()


def test_rows_are_opponents_of_the_task() -> None:
    assert [row.name for row in METHODS] == ["panet", "panet-frozen", "pixel-logistic", "hsnet-small"]
    assert {row.role for row in METHODS} == {"baseline"}
