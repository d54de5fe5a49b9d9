"""Heads on backbones: published sizes, anchors, matching, losses and suppression against plain loops."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("timm")

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchsuite.core.errors import ConfigError
from benchsuite_emo.boxes import decode, encode, intersection_over_union, match, retina_anchors, ssd_anchors, suppressed
from benchsuite_emo.config import EMOConfig
from benchsuite_emo.deploying import deployed
from benchsuite_emo.detection import RetinaNet, SSDLite, focal_loss
from benchsuite_emo.method import detector_of, segmenter_of
from benchsuite_emo.segmentation import class_weights, pixel_cross_entropy

HEADS = {
    "ssdlite": (2_311_980, 3_342_716, 6_076_540),
    "retinanet": (10_479_244, 11_555_644, 14_440_508),
    "deeplabv3": (5_653_188, 6_967_156, 10_355_828),
    "pspnet": (4_374_724, 5_557_620, 8_585_844),
    "semantic-fpn": (5_280_302, 6_282_974, 8_969_182),
}
NANO_SSD = EMOConfig(head_width=16, further_levels=2)
NANO_RETINA = EMOConfig(detection_head="retinanet", head_width=16, further_levels=1, stacked=1)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("head", HEADS)
def test_heads_have_the_published_sizes(head: str) -> None:
    for variant, expected in zip(("emo_1m", "emo_2m", "emo_5m"), HEADS[head], strict=True):
        if head in ("ssdlite", "retinanet"):
            further = 4 if head == "ssdlite" else 2
            c = EMOConfig(backbone=variant, detection_head=head, further_levels=further)  # type: ignore[arg-type]
            assert count(detector_of(c, 80)) == expected
        else:
            assert count(segmenter_of(EMOConfig(backbone=variant, segmentation_head=head), 150)) == expected  # type: ignore[arg-type]


def test_ssd_has_3234_anchors_at_320() -> None:
    maps = [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]
    found = ssd_anchors(maps, 320)
    assert sum(map(len, found)) == 3_234
    large = math.sqrt(48 * 100)
    sides = [(48, 48), (large, large)]
    sides += [(48 / math.sqrt(ratio), 48 * math.sqrt(ratio)) for ratio in (1 / 2, 2, 1 / 3, 3)]
    expected = [[8 - w / 2, 8 - h / 2, 8 + w / 2, 8 + h / 2] for w, h in sides]
    assert torch.allclose(found[0][:6], torch.tensor(expected))
    assert found[0][0].tolist() == [-16, -16, 32, 32]
    centres = (found[3][:, :2] + found[3][:, 2:]) / 2
    assert torch.allclose(centres[6 * 5], torch.tensor([2.5 * 107, 1.5 * 107]))
    assert torch.allclose(found[5][0], torch.tensor([8.0, 8.0, 312.0, 312.0]))
    assert [float(level[0, 2] - level[0, 0]) for level in found] == [48, 100, 150, 202, 253, 304]


def test_retina_has_nine_anchors_a_cell_on_multiples_of_the_stride() -> None:
    found = retina_anchors([(3, 2), (2, 1)], [8, 16])
    assert [len(level) for level in found] == [54, 18]
    cell = found[0][9 * 5 : 9 * 6]  # row 2, column 1
    assert torch.allclose((cell[:, :2] + cell[:, 2:]) / 2, torch.tensor([8.0, 16.0]))
    sides = cell[:, 2:] - cell[:, :2]
    assert torch.allclose(sides[:, 1] / sides[:, 0], torch.tensor([0.5] * 3 + [1.0] * 3 + [2.0] * 3))
    assert torch.allclose(sides.prod(dim=1).sqrt(), torch.tensor([32 * 2 ** (i / 3) for i in range(3)] * 3))


boxes_of = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=6
).map(lambda found: torch.tensor([[x, y, x + w, y + h] for x, y, w, h in found], dtype=torch.float32))


@settings(max_examples=40, deadline=None)
@given(boxes_of, boxes_of)
def test_overlaps_and_codes(first: Tensor, second: Tensor) -> None:
    found = intersection_over_union(first, second)
    for i, a in enumerate(first.tolist()):
        for j, b in enumerate(second.tolist()):
            common = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
            whole = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
            assert found[i, j] == pytest.approx(common / whole, abs=1e-6)
    n = min(len(first), len(second))
    stds = (0.1, 0.1, 0.2, 0.2)
    codes = encode(first[:n], second[:n], stds)
    assert torch.allclose(decode(first[:n], codes, stds), second[:n], atol=1e-3)
    wide = (second[0, 2] - second[0, 0]) / (first[0, 2] - first[0, 0])
    assert codes[0, 2] == pytest.approx(math.log(wide) / 0.2, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(boxes_of, boxes_of, st.sampled_from([(0.5, 0.5, False), (0.5, 0.4, True)]))
def test_matching_is_that_of_a_plain_loop(anchors: Tensor, objects: Tensor, rule: tuple[float, float, bool]) -> None:
    positive, negative, all_best = rule
    overlaps = intersection_over_union(anchors, objects).tolist()
    expected = []
    for row in overlaps:
        best = max(row)
        expected.append(row.index(best) if best >= positive else -1 if best < negative else -2)
    for place in range(len(objects)):
        column = [row[place] for row in overlaps]
        if max(column) > 0:
            for anchor, value in enumerate(column):
                if value == max(column) and (all_best or anchor == column.index(max(column))):
                    expected[anchor] = place
    assert match(anchors, objects, positive, negative, all_best).tolist() == expected


def test_between_the_bounds_an_anchor_is_neither() -> None:
    anchors, objects = torch.tensor([[0.0, 0, 20, 9], [0, 0, 20, 19]]), torch.tensor([[0.0, 0, 20, 20]])
    assert match(anchors, objects, 0.5, 0.4, True).tolist() == [-2, 0]
    assert match(anchors, objects, 0.5, 0.5, True).tolist() == [-1, 0]


def test_without_objects_all_is_background() -> None:
    anchors = torch.tensor([[0.0, 0, 4, 4]])
    assert match(anchors, torch.zeros(0, 4), 0.5, 0.4, True).tolist() == [-1]


@settings(max_examples=40, deadline=None)
@given(boxes_of, st.integers(0, 2**31))
def test_suppression_is_that_of_a_plain_loop(boxes: Tensor, seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.permutation(len(boxes)) / len(boxes)
    labels = generator.integers(0, 2, len(boxes))
    overlaps = intersection_over_union(boxes, boxes).numpy()
    kept: list[int] = []
    for place in np.argsort(-scores):
        if all(labels[other] != labels[place] or overlaps[other, place] <= 0.45 for other in kept):
            kept.append(int(place))
    found = suppressed(boxes, torch.from_numpy(scores).float(), torch.from_numpy(labels), 0.45, 3)
    assert found.tolist() == kept[:3]


def test_the_ssd_loss_takes_the_three_hardest_backgrounds() -> None:
    torch.manual_seed(0)
    network = detector_of(NANO_SSD, 4)
    assert isinstance(network, SSDLite)
    logits = torch.randn(9, 5)
    matched = torch.tensor([-1, 0, -1, -1, -1, -1, -2, -1, -1])
    found = network.class_loss(logits, matched, torch.tensor([2]))
    background = sorted((-logits[i].log_softmax(0)[4] for i in range(9) if matched[i] == -1), reverse=True)
    assert found == pytest.approx(float(-logits[1].log_softmax(0)[2] + sum(background[:3])), rel=1e-5)


def test_the_focal_loss_is_its_formula() -> None:
    torch.manual_seed(0)
    logits, wanted = torch.randn(6, 3), (torch.rand(6, 3) > 0.7).float()
    total = 0.0
    for x, y in zip(logits.flatten().tolist(), wanted.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        total += -0.25 * (1 - p) ** 2 * math.log(p) if y else -0.75 * p**2 * math.log(1 - p)
    assert float(focal_loss(logits, wanted)) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("config", [NANO_SSD, NANO_RETINA])
def test_the_loss_of_a_batch_is_that_of_plain_loops(config: EMOConfig) -> None:
    torch.manual_seed(0)
    network = detector_of(config, 4).eval()
    images = torch.randn(2, 3, 96, 96)
    boxes = [torch.tensor([[10.0, 12, 50, 60], [40, 40, 90, 95]]), torch.zeros(0, 4)]
    labels = [torch.tensor([3, 0]), torch.zeros(0, dtype=torch.int64)]
    maps = network.levels(images)
    logits, codes = (torch.cat(part, dim=1) for part in network.heads(maps))
    anchors = torch.cat(network._anchors(maps, images))
    rules, total, count = network.RULES, 0.0, 0
    for place in range(2):
        matched = match(anchors, boxes[place], rules.positive, rules.negative, rules.all_best)
        positive = (matched >= 0).nonzero()[:, 0].tolist()
        count += len(positive)
        for anchor in positive:
            target = boxes[place][matched[anchor]][None]
            apart = (codes[place, anchor] - encode(anchors[anchor][None], target, rules.stds)[0]).abs()
            smooth = torch.where(apart < 1, apart**2 / 2, apart - 0.5)
            total += float((smooth if config.detection_head == "ssdlite" else apart).sum())
        if config.detection_head == "ssdlite":
            background = -logits[place].log_softmax(-1)[matched == -1][:, 4]
            total += float(background.sort(descending=True).values[: 3 * len(positive)].sum())
            total += sum(float(-logits[place, a].log_softmax(-1)[labels[place][matched[a]]]) for a in positive)
        else:
            wanted = torch.zeros_like(logits[place])
            for anchor in positive:
                wanted[anchor, labels[place][matched[anchor]]] = 1
            total += float(focal_loss(logits[place][matched != -2], wanted[matched != -2]))
    assert count > 0
    assert float(network.loss(images, boxes, labels)) == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("config", [NANO_SSD, NANO_RETINA])
def test_perfect_outputs_become_the_objects(config: EMOConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = detector_of(config, 4).eval()
    images, objects = torch.randn(1, 3, 96, 96), torch.tensor([[10.0, 12, 50, 60], [40, 40, 80, 90]])
    labels = [3, 1]
    maps = network.levels(images)
    sizes = [len(level) for level in network._anchors(maps, images)]
    anchors = torch.cat(network._anchors(maps, images))
    matched = match(anchors, objects, 0.5, 0.5, False)
    logits = torch.full((1, len(anchors), network.classes + (config.detection_head == "ssdlite")), -9.0)  # type: ignore[operator]
    if config.detection_head == "ssdlite":
        logits[..., -1] = 9.0
    codes = torch.zeros(1, len(anchors), 4)
    for anchor in (matched >= 0).nonzero()[:, 0].tolist():
        logits[0, anchor] = -9.0
        logits[0, anchor, labels[matched[anchor]]] = 9.0
        codes[0, anchor] = encode(anchors[anchor][None], objects[matched[anchor]][None], network.RULES.stds)[0]
    monkeypatch.setattr(network, "heads", lambda maps: (list(logits.split(sizes, 1)), list(codes.split(sizes, 1))))
    found = network.detect(images, [(96, 70)])[0]
    assert sorted(found.labels.tolist()) == [1, 3]
    order = found.labels.argsort(descending=True)
    expected = torch.tensor([[10.0, 12, 50, 60], [40, 40, 70, 90]])  # cut at the picture's width without padding
    assert torch.allclose(found.boxes[order], expected, atol=1e-3)
    assert (found.scores > 0.9).all()


def test_pixels_that_do_not_count_teach_nothing() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 4, 6), torch.randint(0, 5, (2, 4, 6))
    labels[0, :2] = 255
    values = [
        float(-logits[b, :, r, c].log_softmax(0)[labels[b, r, c]])
        for b in range(2)
        for r in range(4)
        for c in range(6)
        if labels[b, r, c] != 255
    ]
    assert float(pixel_cross_entropy(logits, labels)) == pytest.approx(np.mean(values), rel=1e-5)
    assert float(pixel_cross_entropy(logits, torch.full_like(labels, 255))) == 0
    small = torch.randn(1, 5, 2, 3)
    large = F.interpolate(small, (4, 6), mode="bilinear", align_corners=False)
    assert torch.equal(pixel_cross_entropy(small, labels[1:]), pixel_cross_entropy(large, labels[1:]))


def test_pixels_of_rare_classes_count_more_where_asked() -> None:
    maps = [np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)]
    maps[0][0, :2], maps[1][0, 0] = 2, 1  # 14, 1 and 2 of 17 pixels; class 3 never occurs
    for balance in (1.0, 0.5):
        expected = [(17 / 14) ** balance, 17**balance, (17 / 2) ** balance, 0]
        assert class_weights(maps, 4, balance).tolist() == pytest.approx(expected, rel=1e-6)
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, 6), torch.randint(0, 3, (2, 4, 6))
    weights = torch.tensor([0.25, 2.0, 1.0])
    assert float(pixel_cross_entropy(logits, labels, weights)) == pytest.approx(
        float(F.cross_entropy(logits, labels, weights)), rel=1e-6
    )
    assert torch.allclose(
        pixel_cross_entropy(logits, labels, torch.full((3,), 7.0)), pixel_cross_entropy(logits, labels)
    )
    assert float(pixel_cross_entropy(logits, torch.full_like(labels, 255), weights)) == 0
    with pytest.raises(ConfigError, match="class_balance"):
        EMOConfig(class_balance=1.5)


@pytest.mark.parametrize("head", ["deeplabv3", "pspnet", "semantic-fpn"])
def test_segmentation_losses_add_the_auxiliary_one(head: Any) -> None:
    torch.manual_seed(0)
    network = segmenter_of(EMOConfig(segmentation_head=head, head_width=8), 5).eval()
    images, labels = torch.randn(2, 3, 64, 96), torch.randint(0, 5, (2, 64, 96))
    maps = network.backbone(images)
    logits = network.classify(network.head(maps))
    assert torch.equal(logits, network(images))
    assert logits.shape[2:] == ((16, 24) if head == "semantic-fpn" else (2, 3))
    expected = pixel_cross_entropy(logits, labels)
    if head == "semantic-fpn":
        assert network.auxiliary is None
    else:
        assert network.auxiliary is not None
        expected = expected + 0.4 * pixel_cross_entropy(network.auxiliary(maps[2]), labels)
    assert torch.allclose(network.loss(images, labels), expected)
    weights = torch.tensor([0.1, 1.0, 2.0, 3.0, 4.0])
    weighted = pixel_cross_entropy(logits, labels, weights)
    if network.auxiliary is not None:
        weighted = weighted + 0.4 * pixel_cross_entropy(network.auxiliary(maps[2]), labels, weights)
    assert torch.allclose(network.loss(images, labels, weights), weighted)


@pytest.mark.parametrize("backbone", ["emo_nano", "mobilenetv3_small_050"])
@torch.no_grad()
def test_dense_networks_deploy(backbone: str) -> None:
    torch.manual_seed(0)
    c = EMOConfig(backbone=backbone, head_width=16, further_levels=2)
    networks = [detector_of(c, 4), segmenter_of(c, 5)]
    networks += [segmenter_of(EMOConfig(backbone=backbone, head_width=8, segmentation_head="pspnet"), 5)]
    for network in networks:
        for value in network.eval().buffers():
            if value.is_floating_point():
                value.add_(0.1)
        images = torch.randn(2, 3, 96, 96)
        first, second = network(images), deployed(network)(images)
        parts = [(first, second)] if isinstance(first, Tensor) else zip(chain(*first), chain(*second), strict=True)
        for one, other in parts:
            assert (one - other).abs().max() < 1e-4 * max(1.0, float(one.abs().max()))


def test_a_retina_net_shares_its_heads_and_starts_at_one_per_cent() -> None:
    network = detector_of(NANO_RETINA, 4).eval()
    assert isinstance(network, RetinaNet)
    logits, _ = network(torch.zeros(1, 3, 96, 96))
    assert float(network.scores(torch.cat(logits, 1)).mean()) == pytest.approx(0.01, abs=0.003)


def test_odd_settings_are_refused() -> None:
    for changes, message in (
        ({"batch_size": 1}, "batch_size is 1"),
        ({"further_levels": 5}, "at most 4"),
        ({"steps": 0}, "give steps"),
        ({"ema": 1.0}, r"in \[0, 1\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            EMOConfig(**changes)  # type: ignore[arg-type]
