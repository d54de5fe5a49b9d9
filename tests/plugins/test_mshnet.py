"""MSHNet: sizes and names of the published model, closed forms of its similarities, its losses, its training."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("torchvision")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchsuite.core.errors import ConfigError
from benchsuite.core.registry import get_registry
from benchsuite.leaderboard.claims import parse_claims, read_resource
from benchsuite.tasks.fewshot_semantic_segmentation.contract import LabelledEpisode, Picture, TrainingData
from benchsuite.tasks.fewshot_semantic_segmentation.networks import TinyResNet, build_backbone
from benchsuite_mshnet.config import MSHNetConfig
from benchsuite_mshnet.method import MSHNetMethod, MSHNetSegmenter, training_loss
from benchsuite_mshnet.model import Learner, MSHNet, Output, SymmetricMerge, loss_of
from benchsuite_mshnet.similarity import chained_masks, cosine_map, foreground, gps_map, prototype
from benchsuite_mshnet.weights import load_official, official_state, parameters_of, save_official

FULL: dict[str, Any] = {
    "gps_width": 128,
    "cosine_width": 256,
    "merge_width": 512,
    "head_width": 128,
    "dropout": 0.2,
}
LEVELS = {
    "resnet50": ((4, 6, 3), (512, 1024, 2048)),
    "resnet101": ((4, 23, 3), (512, 1024, 2048)),
    "vgg16": ((3, 3, 1), (512, 512, 512)),
}
SMALL = ((1, 2, 1), (6, 8, 10))
TINY = MSHNetConfig(gps_width=4, cosine_width=8, merge_width=8, head_width=4, dropout=0.0)


def learner(config: MSHNetConfig = TINY, seed: int = 0) -> Learner:
    """Return an untrained learner whose batch norms know its features: with running variances of 1 all signals fade."""
    torch.manual_seed(seed)
    model = Learner(config, *SMALL)
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(*episode_maps(seed=9, batch=4))
    for norm in norms:
        norm.momentum = 0.1
    return model


def episode_maps(seed: int = 0, batch: int = 2, shots: int = 2) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return random maps of 16, 8 and 4 px and square masks of 64 px."""
    generator = torch.Generator().manual_seed(seed)
    query, supports = [], []
    for count, channels, side in zip(*SMALL, (16, 8, 4), strict=True):
        for _ in range(count):
            query.append(torch.randn(batch, channels, side, side, generator=generator))
            supports.append(torch.randn(batch, shots, channels, side, side, generator=generator))
    masks = torch.zeros(batch, shots, 64, 64)
    for b in range(batch):
        for k in range(shots):
            masks[b, k, 5 + 8 * b : 40, 10 : 30 + 9 * k] = 1
    return query, supports, masks


# --- sizes and names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "similarities", "expected"),
    [
        ("resnet50", "both", 29_626_952),
        ("resnet50", "cosine", 26_808_776),
        ("resnet50", "gps", 25_880_392),
        ("resnet101", "both", 29_633_480),
        ("resnet101", "cosine", 26_813_128),
        ("resnet101", "gps", 25_882_568),
        ("vgg16", "both", 29_624_648 - 7_168 + 6 * 512),  # as constructed, with widths derived from the backbone
    ],
)
def test_learner_has_the_published_size(backbone: str, similarities: Any, expected: int) -> None:
    with torch.device("meta"):
        model = Learner(MSHNetConfig(similarities=similarities, **FULL), *LEVELS[backbone])
    assert parameters_of(model) == expected
    if similarities == "both":
        assert sum(buffer.numel() for buffer in model.buffers()) == 18_985


@pytest.mark.parametrize(
    ("blocks", "channels", "expected"), [((4, 6, 3), (8, 12, 16), 467_992), ((2, 2, 2), (64, 96, 128), 468_160)]
)
def test_an_eighth_of_the_widths_has_its_size(blocks: Any, channels: Any, expected: int) -> None:
    with torch.device("meta"):
        assert parameters_of(Learner(MSHNetConfig(), blocks, channels)) == expected


def test_parts_have_their_published_sizes() -> None:
    with torch.device("meta"):
        model = Learner(MSHNetConfig(**FULL), *LEVELS["resnet50"])
    sizes = {
        "gps": 7_168, "gps_blocks": 446_336, "cosine_blocks": 1_777_408, "gps_shots.0": 755_200,
        "cosine_shots.1": 590_592, "merges.2": 1_313_088, "fuse43": 7_344_128, "fuse432": 9_573_376,
        "out": 1_313_024, "head": 297_218, "heads.0": 297_218,
    }  # fmt: skip
    assert {name: parameters_of(model.get_submodule(name)) for name in sizes} == sizes


@pytest.mark.real_data
@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
def test_checkpoint_has_the_released_layout(backbone: str, real_data: Path) -> None:
    path = real_data.parent / f"papers/mshnet_{backbone}_state_dict.csv"
    with path.open() as file:
        expected = {row["key"]: row["shape"] for row in csv.DictReader(file)}
    with torch.device("meta"):
        state = official_state(MSHNet(MSHNetConfig(**FULL), build_backbone(backbone)))
    assert len(state) == {"resnet50": 652, "resnet101": 958}[backbone]
    assert {name: "x".join(map(str, value.shape)) or "scalar" for name, value in state.items()} == expected


def test_released_names_stand_for_the_right_parts() -> None:
    with torch.device("meta"):
        model = MSHNet(MSHNetConfig(**FULL), build_backbone("resnet50"))
    state = official_state(model)
    assert sum(name.startswith("merge.") for name in state) == 332
    assert sum(name.startswith("backbone.") for name in state) == 320
    shapes = {
        "merge.query_sup_corrConv.0.conv2.weight": (1, 4096, 1, 1),  # l4 comes first
        "merge.qs_layer_corrConv.1.conv0.weight": (128, 6, 1, 1),
        "merge.sim_layer_corrConv.0.conv0.weight": (256, 3, 1, 1),
        "merge.sqShotConv3.conv3.0.weight": (128, 384, 3, 3),
        "merge.conv4.chATT.mlp.1.weight": (64, 256),
        "merge.conv2.conv2.weight": (256, 128, 1, 1),  # conv1 takes the cosine, conv2 the GPS features
        "merge.conv43.conv1.weight": (512, 256, 1, 1),
        "merge.conv432.convout.bn0.running_var": (512,),
        "merge.decoder1.conv0.0.weight": (256, 512, 1, 1),
        "merge.decoderOut.2.bias": (2,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert "merge.decoder4.0.bias" not in state


def test_released_names_stand_for_the_right_parts_of_every_level() -> None:
    with torch.device("meta"):
        model = MSHNet(TINY, TinyResNet().freeze())
    released = dict(zip(official_state(model), model.state_dict(), strict=True))
    for place, level in enumerate((4, 3, 2)):
        assert released[f"merge.sqShotConv{level}.conv0.0.weight"] == f"learner.gps_shots.{place}.conv0.0.weight"
        assert released[f"merge.conv{level}.merge.bn0.bias"] == f"learner.merges.{place}.merge.bn0.bias"
        assert released[f"merge.decoder{level}.2.bias"] == f"learner.heads.{place}.2.bias"
        assert released[f"merge.sim_layer_corrConv.{place}.bn1.bias"] == f"learner.cosine_blocks.{place}.bn1.bias"


def test_backbones_have_their_sizes_and_taps() -> None:
    with torch.device("meta"):
        r50, r101, vgg = (build_backbone(name) for name in ("resnet50", "resnet101", "vgg16"))
        maps = r50(torch.zeros(1, 97, 97, 3, dtype=torch.uint8))
        of_vgg = vgg(torch.zeros(1, 97, 97, 3, dtype=torch.uint8))
    without_fc = [sum(p.numel() for n, p in b.named_parameters() if not n.startswith("fc.")) for b in (r50, r101)]
    assert without_fc == [23_508_032, 42_500_160]
    assert sum(p.numel() for p in vgg.parameters()) == 14_714_688
    assert [tuple(found.shape[1:]) for found in maps] == [(512, 13, 13)] * 4 + [(1024, 7, 7)] * 6 + [(2048, 4, 4)] * 3
    assert [found.shape[1] for found in of_vgg] == [512] * 7
    assert (r50.blocks, r101.blocks, vgg.blocks) == ((4, 6, 3), (4, 23, 3), (3, 3, 1))
    assert sum(p.numel() for p in TinyResNet().parameters()) == 228_232


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_maps_are_those_of_torchvision_before_the_last_relu(name: str) -> None:
    """Hooks on torchvision's own forward pass see the same values after the ReLU, and ours has negative ones."""
    backbone = build_backbone(name)
    images = torch.rand(1, 3, 64, 64)
    seen: list[Tensor] = []
    ours = backbone.maps(images)
    assert any((found < 0).any() for found in ours)
    if name == "resnet50":
        for stage in (backbone.layer2, backbone.layer3, backbone.layer4):
            for block in stage:
                block.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
        nn.Module.train(backbone, False)
        type(backbone).__mro__[2].forward(backbone, images)
        expected, found = seen, [m.relu() for m in ours]
    else:
        expected, found = [], ours
        x = images
        for place, layer in enumerate(backbone.features):
            x = F.relu(x) if isinstance(layer, nn.ReLU) else layer(x)
            if place in (17, 19, 21, 24, 26, 28, 30):
                expected.append(x)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("size", "maps", "logits"), [(473, (60, 30, 15), 120), (97, (13, 7, 4), 26)])
def test_logits_have_twice_the_size_of_the_first_map(size: int, maps: Sequence[int], logits: int) -> None:
    with torch.device("meta"):
        model = Learner(MSHNetConfig(**FULL), *LEVELS["resnet50"]).eval()
        merged = [torch.empty(1, 256, side, side) for side in reversed(maps)]
        assert model.decode(*merged).logits.shape == (1, 2, logits, logits)
        found = build_backbone("resnet50")(torch.zeros(1, size, size, 3, dtype=torch.uint8))
    assert sorted({m.shape[2] for m in found}, reverse=True) == list(maps)


@pytest.mark.parametrize(("shots", "expected"), [(1, 131.9), (5, 160.1)])
def test_learner_costs_what_was_published(shots: int, expected: float) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    blocks, channels = LEVELS["resnet50"]
    with torch.device("meta"):
        model = Learner(MSHNetConfig(**FULL), blocks, channels).eval()
        maps = [torch.empty(1, shots, n, side, side) for n, side in zip(reversed(blocks), (15, 30, 60), strict=True)]
        with FlopCounterMode(display=False) as counter:
            merged = [
                model.merges[i](
                    model._over_shots(model.cosine_blocks[i], model.cosine_shots[i], maps[i]),
                    model._over_shots(model.gps_blocks[i], model.gps_shots[i], maps[i]),
                )
                for i in range(3)
            ]
            model.decode(*merged)
    assert counter.get_total_flops() / 1e9 == pytest.approx(expected, rel=0.01)


# --- similarities ---------------------------------------------------------------------------------------


def plain_similarities(
    model: Learner, query: list[Tensor], supports: list[Tensor], masks: Tensor
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Return cosine and GPS maps, one sample, shot and block after the other, as the sheet writes them down."""
    cosines, gps = [], []
    for b in range(masks.shape[0]):
        for k in range(masks.shape[1]):
            soft = masks[b, k][None, None]
            width = query[0].shape[3]
            soft = F.interpolate(soft, (2 * width, 2 * width), mode="bilinear", align_corners=True)
            place = 0
            for level, count in enumerate(model.blocks):
                for _ in range(count):
                    q, s = query[place][b], supports[place][b, k]
                    if soft.shape[2:] != s.shape[1:]:
                        soft = F.interpolate(soft, s.shape[1:], mode="bilinear", align_corners=True)
                    m = soft.flatten()
                    if (m > 0).any():
                        kept = m >= m[m > 0].mean()
                        vectors = (s.flatten(1) * m)[:, kept]
                    else:
                        vectors = torch.zeros(s.shape[0], 1)
                    unit = [v / (v.norm(dim=0) + 1e-5) for v in (q.flatten(1), vectors)]
                    cosines.append((unit[0].T @ unit[1]).clamp(min=0).mean(dim=1).view(q.shape[1:]))
                    p = vectors.mean(dim=1)
                    left = torch.zeros_like(q) if p.sum() == 0 else q
                    pair = torch.cat([left, p[:, None, None].expand_as(q)])
                    gps.append(torch.sigmoid(F.conv2d(pair[None], model.gps[2 - level].weight))[0, 0])
                    place += 1
    per_support = sum(model.blocks)

    def parted(found: list[Tensor]) -> list[list[Tensor]]:
        return [found[i : i + per_support] for i in range(0, len(found), per_support)]

    return parted(cosines), parted(gps)


@pytest.mark.parametrize("empty", [False, True])
def test_similarities_equal_a_plain_loop(empty: bool) -> None:
    model = learner()
    query, supports, masks = episode_maps()
    if empty:
        masks[1, 0] = 0
    cosine, gps = model.similarities(query, supports, masks)
    expected_cosine, expected_gps = plain_similarities(model, query, supports, masks)
    for found, expected in ((cosine, expected_cosine), (gps, expected_gps)):
        for b in range(2):
            for k in range(2):
                blocks = [found[i][b, k, n] for i in (2, 1, 0) for n in range(found[i].shape[2])]
                for one, other in zip(blocks, expected[2 * b + k], strict=True):
                    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_equal_constant_maps_have_a_cosine_of_one() -> None:
    constant = torch.tensor([3.0, -1.0, 2.0])[None, :, None, None].expand(1, 3, 5, 5)
    found = foreground(torch.ones(1, 1, 5, 5))
    cosine = cosine_map(constant, found.of(constant[:, None]), found)
    assert torch.allclose(cosine, torch.ones(1, 1, 5, 5), atol=2e-5)
    assert (cosine < 1).all()  # the norms have an epsilon
    opposite = cosine_map(-constant, found.of(constant[:, None]), found)
    assert (opposite == 0).all()
    across = torch.tensor([1.0, 3.0, 0.0])[None, :, None, None].expand(1, 3, 5, 5)
    assert cosine_map(across, found.of(constant[:, None]), found).abs().max() < 1e-6


def test_cosine_averages_over_the_foreground_after_the_relu() -> None:
    query = torch.tensor([1.0, 0.0])[None, :, None, None]
    support = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).T.reshape(1, 1, 2, 2, 2)
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])[None, None]
    found = foreground(mask)
    cosine = cosine_map(query, found.of(support), found)
    assert cosine.item() == pytest.approx(1 / 3, abs=1e-4)  # one of three; not its maximum, not a mean with -1


def test_gps_is_a_sigmoid_of_raw_features() -> None:
    query = torch.randn(1, 3, 4, 4)
    prototypes = torch.tensor([[[1.0, 2.0, -5.0]]])
    assert (gps_map(query, prototypes, torch.zeros(6)) == 0.5).all()
    weight = torch.zeros(6)
    weight[0] = 1
    torch.testing.assert_close(gps_map(query, prototypes, weight)[0, 0], query[0, 0].sigmoid())
    weight = torch.tensor([0.0, 0, 0, 0, 1, 0])
    torch.testing.assert_close(gps_map(query, prototypes, weight)[0, 0], torch.full((4, 4), 2.0).sigmoid())


def test_a_prototype_that_sums_to_zero_hides_the_query() -> None:
    query, weight = torch.randn(1, 2, 3, 3), torch.tensor([1.0, 2.0, 1.0, -1.0])
    hidden = gps_map(query, torch.tensor([[[2.0, -2.0]]]), weight)
    torch.testing.assert_close(hidden, torch.full((1, 1, 3, 3), 4.0).sigmoid())


def test_an_empty_support_mask_gives_no_similarity() -> None:
    model = learner()
    query, supports, masks = episode_maps()
    cosine, gps = model.similarities(query, supports, torch.zeros_like(masks))
    assert all((found == 0).all() for found in cosine)
    assert all((found == 0.5).all() for found in gps)


def test_scaled_supports_leave_the_cosine_and_scale_the_prototype() -> None:
    query, supports, _ = episode_maps()
    found = foreground(torch.rand(2, 2, 16, 16))
    one, ten = found.of(supports[0]), found.of(10 * supports[0])
    torch.testing.assert_close(cosine_map(query[0], one, found), cosine_map(query[0], ten, found), atol=1e-4, rtol=0)
    torch.testing.assert_close(10 * prototype(one, found), prototype(ten, found))


def test_prototype_divides_by_the_number_not_by_the_mask() -> None:
    support = torch.tensor([[4.0, 8.0]]).view(1, 1, 1, 1, 2)
    found = foreground(torch.tensor([[0.5, 0.5]])[None, None])
    assert prototype(found.of(support), found).item() == pytest.approx((0.5 * 4 + 0.5 * 8) / 2)


def test_foreground_lies_above_the_mean_of_the_positive_values() -> None:
    mask = torch.tensor([0.0, 0.0, 0.2, 0.5, 0.9, 1.0]).view(1, 1, 1, 6)  # mean of the positive ones .65, of all .433
    found = foreground(mask)
    assert found.positions[0, 0].tolist() == [4, 5]
    assert found.weights[0, 0].tolist() == [0.5, 0.5]
    equal = foreground(torch.full((1, 1, 1, 7), 0.3))
    assert equal.positions.shape[2] == 7  # the mean of equal values may exceed them by rounding


def test_masks_are_resized_in_a_chain() -> None:
    mask = (torch.rand(3, 97, 97) > 0.6).float()
    found = chained_masks(mask, [(13, 13), (13, 13), (7, 7), (4, 4)])

    def step(x: Tensor, side: int) -> Tensor:
        return F.interpolate(x[:, None], (side, side), mode="bilinear", align_corners=True)[:, 0]

    first = step(step(mask, 26), 13)
    torch.testing.assert_close(found[0], first)
    torch.testing.assert_close(found[1], first)
    torch.testing.assert_close(found[2], step(first, 7))
    torch.testing.assert_close(found[3], step(step(first, 7), 4))
    assert not torch.allclose(found[3], step(mask, 4))


def test_similarities_move_with_the_query_and_not_with_the_support() -> None:
    model = learner()
    query, supports, masks = episode_maps(shots=1)
    order = torch.randperm(256)

    def permuted(x: Tensor) -> Tensor:
        return x.flatten(-2)[..., order].unflatten(-1, (16, 16))

    found = foreground(torch.rand(2, 1, 16, 16))
    cosine = cosine_map(query[0], found.of(supports[0]), found)
    moved = cosine_map(permuted(query[0]), found.of(supports[0]), found)
    torch.testing.assert_close(moved, permuted(cosine))
    soft = torch.rand(2, 1, 16, 16)
    one, other = foreground(soft), foreground(permuted(soft))
    torch.testing.assert_close(
        cosine_map(query[0], one.of(supports[0]), one),
        cosine_map(query[0], other.of(permuted(supports[0])), other),
        atol=1e-6,
        rtol=1e-5,
    )
    assert model.similarities(query, supports, masks)[0][0].shape == (2, 1, 1, 4, 4)


# --- shots ----------------------------------------------------------------------------------------------


def test_order_of_shots_does_not_matter() -> None:
    model = learner().eval()
    query, supports, masks = episode_maps(shots=3)
    one = model(query, supports, masks).logits
    order = [2, 0, 1]
    other = model(query, [s[:, order] for s in supports], masks[:, order]).logits
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    alone = model(query, [s[:, :1] for s in supports], masks[:, :1]).logits
    assert (one - alone).abs().max() > 1e-2  # every shot counts


def test_equal_supports_count_as_one() -> None:
    model = learner().eval()
    query, supports, masks = episode_maps(shots=1)
    one = model(query, supports, masks).logits
    many = model(query, [s.expand(-1, 5, -1, -1, -1) for s in supports], masks.expand(-1, 5, -1, -1)).logits
    torch.testing.assert_close(one, many, atol=1e-5, rtol=1e-5)


def test_two_shot_training_runs_and_averages_out_of_place() -> None:
    """The loss equals the mean of the shots' features, each with batch statistics of its own."""
    model = learner().train()
    query, supports, masks = episode_maps(shots=2)
    answers = torch.rand(2, 64, 64) > 0.5
    loss = loss_of(model(query, supports, masks), answers, 0.3)
    other = learner().train()
    cosine, gps = other.similarities(query, supports, masks)
    merged = []
    for i, merge in enumerate(other.merges):
        features = []
        for maps, block, shot in (
            (cosine[i], other.cosine_blocks[i], other.cosine_shots[i]),
            (gps[i], other.gps_blocks[i], other.gps_shots[i]),
        ):
            features.append(shot((block(maps[:, 0]) + block(maps[:, 1])) / 2))
        merged.append(merge(*features))
    torch.testing.assert_close(loss, loss_of(other.decode(*merged), answers, 0.3))
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_backbone_neither_learns_nor_changes() -> None:
    torch.manual_seed(0)
    model = MSHNet(TINY, TinyResNet().freeze()).train()
    assert not model.backbone.training
    assert model.learner.training
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    output = model(images, images[:, None], torch.ones(2, 1, 64, 64))
    loss_of(output, torch.rand(2, 64, 64) > 0.5, 0.3).backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.backbone.state_dict().items())


# --- parts and losses -----------------------------------------------------------------------------------


def test_zeroed_heads_have_the_loss_of_guessing() -> None:
    model = learner()
    for head in (*model.heads, model.head):
        nn.init.zeros_(head[2].weight)
        nn.init.zeros_(head[2].bias)
    query, supports, masks = episode_maps()
    answers = torch.rand(2, 64, 64) > 0.5
    assert loss_of(model.train()(query, supports, masks), answers, 0.3).item() == pytest.approx(1.316980, abs=1e-5)
    assert loss_of(model.eval()(query, supports, masks), answers, 0.3).item() == pytest.approx(0.693147, abs=1e-5)
    assert pytest.approx(1.316980, abs=1e-6) == 1.9 * math.log(2)


def test_auxiliary_losses_stand_at_the_size_of_l2() -> None:
    logits = torch.randn(1, 2, 8, 8)
    heads = tuple(torch.randn(1, 2, side, side) for side in (2, 2, 4))
    answers = torch.rand(1, 32, 32) > 0.5

    def cross_entropy(x: Tensor, side: int) -> Tensor:
        wanted = answers[:, :: 32 // side, :: 32 // side].long()
        return F.cross_entropy(F.interpolate(x, (side, side), mode="bilinear", align_corners=True), wanted)

    expected = cross_entropy(logits, 8) + 0.3 * sum(cross_entropy(head, 4) for head in heads)
    torch.testing.assert_close(loss_of(Output(logits, heads), answers, 0.3), expected)


def test_the_head_of_l4_sees_it_at_the_size_of_l3() -> None:
    model = learner().train()
    query, supports, masks = episode_maps()
    assert [head.shape[2] for head in model(query, supports, masks).auxiliary] == [8, 8, 16]
    assert model.eval()(query, supports, masks).auxiliary == ()


def test_fusion_goes_from_coarse_to_fine() -> None:
    model = learner().eval()
    x4, x3, x2 = (torch.randn(1, 8, side, side) for side in (4, 8, 16))

    def up(x: Tensor, side: int) -> Tensor:
        return F.interpolate(x, (side, side), mode="bilinear", align_corners=True)

    x43 = model.fuse43(up(x4, 8), x3)
    expected = model.head(up(model.out(model.fuse432(up(x43, 16), x2)), 32))
    torch.testing.assert_close(model.decode(x4, x3, x2).logits, expected)


def test_symmetric_merge_adds_and_gates() -> None:
    torch.manual_seed(0)
    merge = SymmetricMerge(8, 4, 8, 0.0).eval()
    cosine, gps = torch.randn(2, 8, 5, 5), torch.randn(2, 4, 5, 5)
    x = merge.merge(merge.conv1(cosine) + merge.conv2(gps))
    first, second = merge.gate.mlp[1], merge.gate.mlp[3]

    def mlp(v: Tensor) -> Tensor:
        return second(first(v).relu())

    attention = (mlp(x.mean(dim=(2, 3))) + mlp(x.amax(dim=(2, 3)))).sigmoid()
    torch.testing.assert_close(merge(cosine, gps), merge.merge2(x * attention[:, :, None, None]))


def test_refinement_adds_its_block() -> None:
    out = learner().eval().out
    x = torch.randn(1, 8, 6, 6)
    y = out.conv0(x)
    torch.testing.assert_close(out(x), out.conv2(y + out.conv1(y)))


def test_dropout_is_applied_where_it_stands() -> None:
    model = learner(MSHNetConfig(gps_width=4, cosine_width=8, merge_width=8, head_width=4, dropout=0.9)).eval()
    x4, x8 = torch.randn(1, 4, 8, 8), torch.randn(1, 8, 8, 8)
    for part, inputs in ((model.gps_shots[0], (x4,)), (model.merges[0], (x8, x4)), (model.fuse43, (x8, x8))):
        before = part(*inputs)
        part.drop.train()
        assert ((part(*inputs) == 0).all(dim=(2, 3)).sum() > (before == 0).all(dim=(2, 3)).sum()).item()


def test_pyramid_block_sees_the_same_input_three_times() -> None:
    block = learner().eval().gps_shots[0]
    x = torch.randn(1, 4, 16, 16)
    joined = torch.cat([block.conv0(x), block.conv1(x), block.conv2(x)], dim=1)
    torch.testing.assert_close(block(x), block.conv3(joined))
    assert [block.conv1[0].dilation, block.conv2[0].dilation] == [(2, 2), (4, 4)]
    assert learner(replace(TINY, dropout=0.3)).gps_shots[0].drop.p == 0.3


@pytest.mark.parametrize(
    ("similarities", "used"), [("both", (True, True)), ("cosine", (True, False)), ("gps", (False, True))]
)
def test_an_ablation_is_blind_to_the_other_similarity(similarities: Any, used: tuple[bool, bool]) -> None:
    model = learner(replace(TINY, similarities=similarities)).eval()
    cosine, gps = model.similarities(*episode_maps())
    assert (bool(cosine), bool(gps)) == used
    names = " ".join(model.state_dict())
    assert ("cosine_blocks" in names, "gps_blocks" in names) == used


def test_dropout_stands_at_three_kinds_of_places() -> None:
    model = learner(MSHNetConfig(gps_width=4, cosine_width=8, merge_width=8, head_width=4, dropout=0.2))
    dropped = {name for name, part in model.named_modules() if isinstance(part, nn.Dropout2d) and part.p == 0.2}
    assert dropped == {
        *(f"gps_shots.{level}.drop" for level in range(3)),
        *(f"merges.{level}.drop" for level in range(3)),
        "fuse43.drop",
    }


# --- the method -----------------------------------------------------------------------------------------


def picture(seed: int) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    return Picture(f"p{seed}", pixels)


def an_episode(number: int, shots: int = 2) -> LabelledEpisode:
    masks = np.zeros((shots, 64, 64), dtype=bool)
    masks[:, 8:40, 8 : 30 + number % 7] = True
    supports = tuple(picture(100 + number + k) for k in range(shots))
    return LabelledEpisode(supports, masks, picture(number), (64, 64), masks[0], number % 3)


class Context(SimpleNamespace):
    device, weights, wanted_artifacts, max_steps = "cpu", None, frozenset(), None

    def seed_for(self, axis: str, name: str) -> int:
        return 3

    def resumable(self, name: str, total: int, parts: Any, description: str = "") -> range:
        self.parts = parts
        return range(total)

    def artifact(self, name: str) -> Path:
        return Path(self.folder) / name


def training_data(score: Callable[..., float] | None = None, shots: int = 2) -> TrainingData:
    torch.manual_seed(1)
    return TrainingData(
        backbone=TinyResNet().freeze(),
        shots=shots,
        size=64,
        classes=(0, 1, 2),
        episodes_per_epoch=4,
        episode=lambda number: an_episode(number, shots),
        score=score,
    )


SHORT = MSHNetConfig(gps_width=4, cosine_width=8, merge_width=8, head_width=4, steps=4, batch_size=2, lr=0.01)


def test_training_lowers_the_loss_and_leaves_the_backbone() -> None:
    data = training_data()
    config = replace(SHORT, steps=30, dropout=0.0)
    torch.manual_seed(3)
    start = MSHNetSegmenter(MSHNet(config, data.backbone))
    start.model.train()
    before = training_loss(start, data.batch(0, 4), config).item()
    trained = MSHNetMethod(config).fit(data, Context())
    trained.model.train()
    assert training_loss(trained, data.batch(0, 4), config).item() < 0.8 * before
    assert trained.parameters == parameters_of(trained.model.learner)


def test_training_takes_the_shots_that_it_is_told() -> None:
    segmenter = MSHNetSegmenter(MSHNet(SHORT, TinyResNet().freeze()))
    episodes = [an_episode(1), an_episode(2)]
    assert segmenter.tensors(episodes, 1)[2].shape == (2, 1, 64, 64)
    assert segmenter.tensors(episodes, 0)[2].shape == (2, 2, 64, 64)
    assert torch.isfinite(training_loss(segmenter, episodes, MSHNetConfig(training_shots=0)))


def test_selection_keeps_the_best_epoch() -> None:
    scores = iter([0.9, 0.1])
    states: list[Tensor] = []

    def score(model: MSHNetSegmenter) -> float:
        states.append(model.model.learner.head[2].weight.detach().clone())
        return next(scores)

    found = MSHNetMethod(SHORT).fit(training_data(score), Context())
    assert len(states) == 2  # four steps of two episodes, four episodes an epoch
    assert torch.equal(found.model.learner.head[2].weight, states[0])
    assert not torch.equal(states[0], states[1])


def test_everything_that_training_changes_is_kept() -> None:
    ctx = Context()
    MSHNetMethod(SHORT).fit(training_data(), ctx)
    assert ctx.parts.keys() == {"model", "optimizer", "schedule", "best"}


def test_published_schedule_decays_at_every_fifth_epoch() -> None:
    from benchsuite_mshnet.method import _schedule

    config = MSHNetConfig(schedule="exponential", lr=0.025)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], config.lr)
    schedule = _schedule(config, optimizer, 120, an_epoch=10)
    rates = []
    for _ in range(120):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:50] == [0.025] * 50
    assert rates[50] == pytest.approx(0.0225)
    assert rates[100] == pytest.approx(0.02025)


def test_prediction_is_the_larger_logit_at_the_size_asked_for() -> None:
    torch.manual_seed(0)
    segmenter = MSHNetSegmenter(MSHNet(TINY, TinyResNet().freeze()))
    episode = an_episode(1)
    segmenter.model.eval()
    with torch.no_grad():
        logits = segmenter.model.learner(*segmenter.tensors([episode])).logits
        wanted = F.interpolate(logits, (64, 64), mode="bilinear", align_corners=True).argmax(dim=1)[0].bool()
    assert np.array_equal(segmenter.predict([episode])[0], wanted.numpy())
    other = LabelledEpisode(
        episode.supports, episode.support_masks, episode.query, (30, 50), episode.query_mask, episode.label
    )
    assert segmenter.predict([other])[0].shape == (30, 50)


def test_saved_model_predicts_the_same(tmp_path: Path) -> None:
    ctx = Context(folder=tmp_path, wanted_artifacts=frozenset({"model"}))
    trained = MSHNetMethod(SHORT).fit(training_data(), ctx)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert {name.partition(".")[0] for name in state} == {"backbone", "merge"}
    torch.manual_seed(77)
    data = TrainingData(TinyResNet().freeze(), 2, 64, (0,), 4, an_episode)  # another backbone: the file's is used
    again = MSHNetMethod(SHORT).fit(data, Context(weights=tmp_path / "model.pt"))
    episodes = [an_episode(5), an_episode(6)]
    for one, other in zip(trained.predict(episodes), again.predict(episodes), strict=True):
        assert np.array_equal(one, other)


def _lost(state: dict[str, Tensor]) -> None:
    del state["merge.decoder1.conv0.0.weight"]


def _more(state: dict[str, Tensor]) -> None:
    state["merge.extra"] = torch.zeros(1)


def _wide(state: dict[str, Tensor]) -> None:
    state["merge.decoderOut.2.bias"] = torch.zeros(3)


def _half(state: dict[str, Tensor]) -> None:
    state["merge.decoderOut.2.bias"] = torch.zeros(2, dtype=torch.float16)


def _nan(state: dict[str, Tensor]) -> None:
    state["merge.decoderOut.2.bias"] = torch.full((2,), math.nan)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_lost, r"lacks merge\.decoder1"),
        (_more, r"unknown merge\.extra"),
        (_wide, r"\(3,\), needs"),
        (_half, "float16"),
        (_nan, "not finite"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_told(tmp_path: Path, harm: Callable[..., None], words: str) -> None:
    model = MSHNet(TINY, TinyResNet().freeze())
    save_official(model, tmp_path / "x.pth")
    state = torch.load(tmp_path / "x.pth", weights_only=True)
    harm(state)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ConfigError, match=words) as error:
        load_official(model, tmp_path / "x.pth")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"cosine_width": 30}, "multiple of 4"),
        ({"steps": 0}, "epochs"),
        ({"dropout": 1.0}, "dropout"),
        ({"lr": 0.0}, "lr"),
        ({"gps_width": 0}, "gps_width"),
    ],
)
def test_settings_that_make_no_sense_are_told(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        MSHNetConfig(**settings)


def test_rows_differ_in_their_similarities_alone() -> None:
    registry = get_registry()
    rows = {name: registry.method(name) for name in ("mshnet", "mshnet-cosine-only", "mshnet-gps-only")}
    chosen = {name: dict(spec.presets["paper"].settings) for name, spec in rows.items()}
    assert [settings.pop("similarities") for settings in chosen.values()] == ["both", "cosine", "gps"]
    assert chosen["mshnet"] == chosen["mshnet-cosine-only"] == chosen["mshnet-gps-only"]
    full = rows["mshnet"].presets["paper"].resolve({"task": "fss", "dataset": "pascal-5i", "backbone": "resnet50"})
    assert (full["lr"], full["batch_size"], full["epochs"], full["dropout"]) == (0.025, 11, 300, 0.2)
    assert rows["mshnet"].presets["paper"].resolve({"backbone": "resnet101"})["batch_size"] == 14


def test_claims_are_about_the_rows_that_there_are() -> None:
    registry = get_registry()
    claims = parse_claims(read_resource("benchsuite_mshnet:claims.toml"), "claims")
    assert {claim.id for claim in claims} == {
        "mshnet-beats-learned-prototypes",
        "both-similarities-beat-cosine",
        "mshnet-uses-its-supports",
    }
    for claim in claims:
        assert claim.method in registry.methods
        assert not claim.against or claim.against in registry.methods
