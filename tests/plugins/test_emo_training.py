"""The training of EMO and its opponents: rates, groups, averages, two engines, batches by number, what is augmented."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
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
from support import Killed, context
from torch import nn

from benchsuite.core.config import build_config
from benchsuite.core.errors import ConfigError
from benchsuite.core.registry import get_registry
from benchsuite.leaderboard.claims import parse_claims, read_resource
from benchsuite.tasks.visual_recognition.contract import (
    ClassificationData,
    DetectionData,
    Objects,
    Pictures,
    SegmentationData,
)
from benchsuite_emo.augmenting import (
    crop_around_objects,
    distorted,
    expanded,
    imagenet_view,
    mirrored_boxes,
    segmentation_view,
    shifted,
)
from benchsuite_emo.batches import ClassificationBatches, DetectionBatches, Order, SegmentationBatches
from benchsuite_emo.config import EMOConfig
from benchsuite_emo.engines import run_training
from benchsuite_emo.method import BackboneMethod, _ClassificationLoss, rates_of, segmenter_of
from benchsuite_emo.model import build_emo
from benchsuite_emo.optimising import Average, Training, decay_groups
from benchsuite_emo.schedule import Rates

IMAGENET = Rates("cosine", 6e-3, 187_500, 1e-6, 12_500, 1e-6)
REFERENCES = {0: 1e-6, 50: 2.4996e-5, 6_250: 3.0005e-3, 12_499: 5.99952e-3, 12_500: 5.934454e-3, 50_000: 5.007557e-3}
REFERENCES |= {93_750: 3.0005e-3, 150_000: 5.738535e-4, 187_499: 1.0000004e-6}
NANO = EMOConfig(steps=6, batch_size=4, augment="none")


@pytest.mark.parametrize("step", REFERENCES)
def test_rates_are_the_published_ones(step: int) -> None:
    assert IMAGENET(step) == pytest.approx(REFERENCES[step], abs=1e-9, rel=0)


def test_rates_of_the_paper_preset_are_these() -> None:
    spec = get_registry().methods["emo-1m"]
    facts = {"task": "image-classification", "dataset": "imagenet"}
    c = build_config(EMOConfig, spec.presets["paper"].resolve(facts), "emo-1m")
    assert rates_of(c, 300 * 625, 625) == IMAGENET
    assert Order(1_281_167, c.batch_size, 0).steps == 625


def test_rates_of_the_dense_recipes() -> None:
    poly = Rates("poly", 1.2e-4, 80_000)
    assert [poly(0), poly(40_000)] == pytest.approx([1.2e-4, 1.2e-4 * 0.5**0.9], rel=1e-12)
    scaled = Rates("cosine-scaled", 2e-4, 44_000, 0.0, 500, 1e-3)
    assert scaled(0) == pytest.approx(2e-7)
    assert scaled(250) == pytest.approx(2e-4 * (1 - 0.5 * 0.999), rel=1e-3)
    assert scaled(22_000) == pytest.approx(1e-4)


def test_groups_of_decay_are_the_published_ones() -> None:
    decaying, spared = decay_groups(build_emo("emo_1m"), 0.05, "matrices")
    assert [len(decaying["params"]), len(spared["params"])] == [60, 94]
    assert [sum(p.numel() for p in group["params"]) for group in (decaying, spared)] == [1_343_120, 18_048]
    assert (decaying["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    network = build_emo("emo_nano", 0)
    named = {id(p): name for name, p in network.named_parameters()}
    decaying, spared = decay_groups(network, 0.01, "no-norms")
    assert all("norm" in named[id(p)] for p in spared["params"])
    assert any(named[id(p)].endswith("v.conv.bias") for p in decaying["params"])


def test_the_loss_smooths_labels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 7), torch.randint(0, 7, (5,))
    network = SimpleNamespace(__call__=None)
    loss = _ClassificationLoss(0.1, context(tmp_path))(lambda images: logits, (network, labels))  # type: ignore[arg-type]
    logs = logits.log_softmax(dim=1)
    expected = np.mean([float(0.9 * -logs[i, labels[i]] + 0.1 * -logs[i].mean()) for i in range(5)])
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_logits_that_are_not_finite_teach_nothing(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3))
    network[2].running_mean[0] = float("nan")
    loss = _ClassificationLoss(0.1, context(tmp_path))(
        network, (torch.full((2, 4), float("inf")), torch.tensor([0, 1]))
    )
    assert float(loss) == 0
    assert torch.isfinite(network[2].running_mean).all()


def test_averages_hold_every_floating_tensor() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    average = Average(network, 0.75)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        network[0].weight.add_(4)
        network[1].running_mean.add_(8)
        network[1].num_batches_tracked.fill_(5)
    average.update(network)
    assert torch.allclose(average.values["0.weight"], start["0.weight"] + 1)
    assert torch.allclose(average.values["1.running_mean"], start["1.running_mean"] + 2)
    assert average.values["1.num_batches_tracked"] == 5


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(2, 12), st.integers(1, 3), st.integers(0, 99))
def test_a_pass_shows_every_picture_once(pictures: int, batch: int, repeats: int, seed: int) -> None:
    order = Order(pictures, batch, seed, repeats)
    for turn in range(2):
        seen = [p for step in range(order.steps) for p in order.places(turn * order.steps + step)]
        assert len(seen) == order.steps * batch
        if pictures * repeats >= batch:
            assert max(np.bincount(seen, minlength=pictures)) <= repeats
    shares = [Order(pictures, batch, seed, repeats, rank, 2).places(1) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == sorted(order.places(1))


def classification(size: int = 32, count: int = 12) -> ClassificationData:
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 3
    pixels = generator.integers(0, 255, (count, size, size, 3), dtype=np.uint8)
    pixels[np.arange(count), :, :, labels] = 255

    def prepared(places: Any) -> torch.Tensor:
        return torch.from_numpy(pixels[list(places)].transpose(0, 3, 1, 2).astype(np.float32)) / 255

    pictures = Pictures(tuple(map(str, range(count))), pixels.__getitem__, "d")
    return ClassificationData(
        dataset="d", pictures=pictures, classes=("a", "b", "c"), mean=(0.0,) * 3, std=(1.0,) * 3, digest="d",
        labels=labels, size=size, prepared=prepared,
    )  # fmt: skip


def training(config: EMOConfig = NANO, **changes: Any) -> tuple[Training, Any]:
    torch.manual_seed(3)
    data = classification()
    network = build_emo("emo_nano", 3, drop_path=0.3)
    rates = rates_of(config, config.steps, 3)
    objective = lambda network, batch: nn.functional.cross_entropy(network(batch[0]), batch[1])  # noqa: E731
    groups = decay_groups(network, 0.05, "matrices")
    order = Order(12, config.batch_size, 1)
    return Training(network, objective, rates, groups, clip=5.0, **changes), ClassificationBatches(data, order, "light")


def run(folder: Path, engine: str = "loop", workers: int = 0, ctx: Any = None, **changes: Any) -> dict[str, Any]:
    found, batches = training(**changes)
    run_training(found, batches, ctx or context(folder), engine, workers, amp=False)
    return {name: value.clone() for name, value in found.network.state_dict().items()}


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_both_engines_take_the_same_steps(tmp_path: Path) -> None:
    pytest.importorskip("mmengine")
    pytest.importorskip("cv2")
    loop = run(tmp_path / "a", ema=0.5)
    assert same(loop, run(tmp_path / "b", "runner", ema=0.5))
    assert not same(loop, run(tmp_path / "c"))


@pytest.mark.parametrize("engine", ["loop", "runner"])
def test_a_killed_training_goes_on(tmp_path: Path, engine: str) -> None:
    if engine == "runner":
        pytest.importorskip("mmengine")
    whole = run(tmp_path / "whole", engine, ema=0.5)
    ctx = context(tmp_path / "killed")
    found, batches = training(ema=0.5)

    def killing(step: int) -> Any:
        if step == 4:
            raise Killed
        return batches(step)

    import benchsuite.harness.context as harness

    due = harness.Checkpoint.due
    harness.Checkpoint.due = lambda self, step: True  # type: ignore[method-assign]
    try:
        with pytest.raises(Killed):
            run_training(found, killing, ctx, engine, 0, amp=False)
    finally:
        harness.Checkpoint.due = due  # type: ignore[method-assign]
    assert same(whole, run(tmp_path / "killed", engine, ema=0.5))


def test_batch_norms_of_several_ranks_are_shared_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = pytest.importorskip("mmengine.runner").Runner
    asked = []
    kept = runner.wrap_model
    monkeypatch.setattr(
        runner, "wrap_model", lambda self, how, model: asked.append(self.cfg.get("sync_bn")) or kept(self, how, model)
    )
    for place, shared in enumerate((False, True)):
        found, batches = training()
        run_training(found, batches, context(tmp_path / str(place)), "runner", 0, amp=False, sync_norms=shared)
    assert asked == [None, "torch"]
    published = get_registry().method("emo-1m").presets["paper"].resolve({"task": "semantic-segmentation"})
    assert published["sync_norms"]
    with pytest.raises(ConfigError, match="sync_norms"):
        EMOConfig(engine="runner", sync_norms=True, norm_eval=True)


def test_processes_prepare_the_same_batches(tmp_path: Path) -> None:
    assert same(run(tmp_path / "a"), run(tmp_path / "b", workers=1))


def test_a_step_lowers_the_loss_and_moves_batch_norms(tmp_path: Path) -> None:
    found, batches = training(EMOConfig(steps=30, batch_size=12))
    before = found.network.state_dict()["stage1.0.norm.running_mean"].clone()
    run_training(found, batches, context(tmp_path), "loop", 0, amp=False)
    assert np.mean(found.curve[-5:]) < 0.7 * found.curve[0]
    assert not torch.equal(before, found.network.state_dict()["stage1.0.norm.running_mean"])


def test_steady_modules_keep_their_statistics(tmp_path: Path) -> None:
    found, batches = training()
    norm = found.network.stage1[0].norm
    found.steady = (norm,)
    before = norm.running_mean.clone()
    run_training(found, batches, context(tmp_path), "loop", 0, amp=False)
    assert torch.equal(before, norm.running_mean)


def test_the_best_model_counts_only_where_it_may_be_looked_for(tmp_path: Path) -> None:
    scores = iter([0.1, 0.9, 0.3, 0.2, 0.4, 0.5])
    states: list[dict[str, Any]] = []

    def score() -> float:
        states.append({name: value.clone() for name, value in found.network.state_dict().items()})
        return next(scores)

    found, batches = training(score=score, look_every=2, ema=0.5)
    run_training(found, batches, context(tmp_path), "loop", 0, amp=False)
    assert len(states) == 6  # the network and its average, three times
    assert same(states[1], found.network.state_dict())


def test_selection_changes_nothing_about_the_training(tmp_path: Path) -> None:
    first, batches = training(ema=0.5)
    run_training(first, batches, context(tmp_path / "a"), "loop", 0, amp=False)
    second, batches = training(score=lambda: 0.5, look_every=2, ema=0.5)
    run_training(second, batches, context(tmp_path / "b"), "loop", 0, amp=False)
    assert first.curve == second.curve


# --- the method ---


def test_weights_are_kept_and_judged_again(tmp_path: Path) -> None:
    data = classification()
    ctx = context(tmp_path / "a", wanted_artifacts=("model",))
    trained = BackboneMethod(NANO).fit_classifier(data, ctx)
    again = BackboneMethod(NANO).fit_classifier(data, context(tmp_path / "b", weights=ctx.artifact("model.pt")))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(trained.network(images), again.network(images))
    assert trained.deployed is not None
    assert (trained.network(images) - trained.deployed(images)).abs().max() < 1e-4


def test_a_recipe_without_its_weights_is_refused_unless_truncated(tmp_path: Path) -> None:
    c = EMOConfig(steps=2, batch_size=2, head_width=8, needs_pretrained=True)
    with pytest.raises(ConfigError, match="--set pretrained=FILE"):
        BackboneMethod(c).fit_segmenter(segmentation(), context(tmp_path))
    trained = BackboneMethod(c).fit_segmenter(segmentation(), context(tmp_path, max_steps=1))
    assert trained.network(torch.zeros(1, 3, 64, 64)).shape[1] == 3


def test_weights_of_classes_reach_the_loss(tmp_path: Path) -> None:
    c = EMOConfig(steps=1, batch_size=4, head_width=8, augment="none", class_balance=1.0)
    data = segmentation()
    common = replace(data, prepared_map=lambda place: np.where(data.prepared_map(place) == 2, 2, 0).astype(np.uint8))
    curve = BackboneMethod(c).fit_segmenter(common, context(tmp_path)).table
    ctx = context(tmp_path)
    torch.manual_seed(ctx.seed_for("run", "start"))
    network = segmenter_of(c, 3).train()
    torch.manual_seed(ctx.seed_for("run", "training"))
    images, labels = SegmentationBatches(common, Order(4, 4, ctx.seed_for("run", "order")), "none")(0)
    logits = F.interpolate(network(images), (64, 64), mode="bilinear", align_corners=False)
    share = float((labels == 2).float().mean())
    weights = torch.tensor([1 / (1 - share), 0, 1 / share])
    assert curve[0]["loss"] == pytest.approx(float(F.cross_entropy(logits, labels, weights).detach()), rel=1e-4)


def test_frozen_stages_and_steady_norms_stay(tmp_path: Path) -> None:
    c = EMOConfig(steps=2, batch_size=2, detection_head="retinanet", head_width=8, further_levels=1, stacked=1)
    c = EMOConfig(**(c.__dict__ | {"frozen_stages": 2, "norm_eval": True}))
    torch.manual_seed(context(tmp_path).seed_for("run", "start"))
    from benchsuite_emo.method import detector_of

    before = {name: value.clone() for name, value in detector_of(c, 2).state_dict().items()}
    after = BackboneMethod(c).fit_detector(detection(), context(tmp_path)).network.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert not any("stage0" in name or "stage1" in name or "running" in name for name in changed)
    assert any("stage2" in name for name in changed)


@pytest.mark.parametrize(
    ("task", "dataset"),
    [
        *(("image-classification", name) for name in ("shapes", "digits", "glyph-pairs")),
        ("semantic-segmentation", "shape-scenes"),
        ("object-detection", "shape-scenes"),
    ],
)
def test_rows_differ_by_what_their_names_say(task: str, dataset: str) -> None:
    methods = get_registry().methods
    settings = {
        name: asdict(EMOConfig(**methods[name].presets["embedded"].resolve({"task": task, "dataset": dataset})))
        for name in ("emo-nano", "emo-nano-no-attention", "emo-nano-no-dwconv", "mobilenetv3", "starnet")
    }
    nano = settings.pop("emo-nano")
    found = {name: {k: v for k, v in other.items() if nano[k] != v} for name, other in settings.items()}
    assert found["emo-nano-no-attention"] == {"attention": False}
    assert found["emo-nano-no-dwconv"] == {"depthwise": False}
    for name, backbone in (("mobilenetv3", "mobilenetv3_small_050"), ("starnet", "starnet_s050")):
        assert found[name]["backbone"] == backbone
        assert set(found[name]) <= {"backbone", "lr"}  # each has the best of the same rates


def test_ablations_reach_the_network() -> None:
    from benchsuite_emo.method import classifier_of

    sizes = {"attention": 48_166, "depthwise": 54_214}
    for name, expected in sizes.items():
        network = classifier_of(EMOConfig(**{name: False}), 10)  # type: ignore[arg-type]
        assert sum(p.numel() for p in network.parameters()) == expected


def test_passes_differ() -> None:
    order = Order(12, 12, 0)
    assert order.places(0) != order.places(1)
    assert order.places(0) == Order(12, 12, 0).places(0)


def test_claims_can_be_read() -> None:
    claims = parse_claims(read_resource("benchsuite_emo:claims.toml"), "claims.toml")
    assert all(claim.smallest_effect or claim.form in ("non-inferiority", "equivalence") for claim in claims)


# --- batches and what they go through ---


def segmentation(height: int = 64, width: int = 64) -> SegmentationData:
    generator = np.random.default_rng(0)
    maps = generator.integers(0, 3, (4, height, width), dtype=np.uint8)
    pixels = np.repeat(maps[..., None] * 100, 3, axis=3)
    return SegmentationData(
        dataset="d", pictures=Pictures(tuple("abcd"), pixels.__getitem__, "d"), classes=("a", "b", "c"),
        mean=(0.0,) * 3, std=(1.0,) * 3, digest="d", label_map=maps.__getitem__, size=(64, 96),
        prepared_map=maps.__getitem__,
        prepared=lambda place: torch.from_numpy(pixels[place].transpose(2, 0, 1).astype(np.float32))[None] / 255,
    )  # fmt: skip


def detection() -> DetectionData:
    pixels = np.zeros((4, 64, 64, 3), np.uint8)
    boxes = np.array([[8, 16, 40, 48], [50, 2, 60, 30], [1, 1, 1, 9]], np.float32)
    pixels[:, 16:48, 8:40] = 200
    objects = Objects(boxes, np.array([1, 0, 0]), np.array([False, True, False]))

    def prepared(places: Any) -> Any:
        planes = torch.from_numpy(pixels[list(places)].transpose(0, 3, 1, 2).astype(np.float32)) / 255
        return planes, np.full((len(places), 2), 64), np.full((len(places), 2), 1.0)

    return DetectionData(
        dataset="d", pictures=Pictures(tuple("abcd"), pixels.__getitem__, "d"), classes=("a", "b"), mean=(0.0,) * 3,
        std=(1.0,) * 3, digest="d",
        objects=lambda place: objects, size=64, max_size=64, keep_ratio=False, prepared=prepared,
    )  # fmt: skip


@pytest.mark.parametrize("augment", ["none", "light", "published"])
def test_maps_move_with_their_pictures(augment: str) -> None:
    batches = SegmentationBatches(segmentation(), Order(4, 4, 0), augment)
    for step in range(6):
        images, labels = batches(step)
        assert images.shape[2:] == labels.shape[1:] == (64, 64)
        if augment != "published":  # colours and sizes stay
            assert torch.equal((images[:, 0] * 2.55).round().long(), labels)
        assert set(labels.unique().tolist()) <= {0, 1, 2, 255}
    first, second = (SegmentationBatches(segmentation(), Order(4, 4, 0), augment)(5)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("augment", ["none", "light", "published"])
def test_boxes_move_with_their_pictures(augment: str) -> None:
    batches, mirrored = DetectionBatches(detection(), Order(4, 4, 0), augment), False
    for step in range(6):
        images, boxes, labels = batches(step)
        for image, found, names in zip(images, boxes, labels, strict=True):
            assert names.tolist() in ([1], [])  # neither the crowd nor the box without an area
            if augment == "published" or not len(found):
                assert (found >= 0).all()
                assert (found <= 64).all()
                continue
            x1, y1, x2, y2 = found[0].int().tolist()
            assert (image[:, y1:y2, x1:x2] > 0.7).all()
            assert float(image.sum()) == pytest.approx(float(image[:, y1:y2, x1:x2].sum()))
            mirrored |= x1 != 8
    assert mirrored == (augment == "light") or augment == "published"


def test_published_boxes_enclose_what_they_did() -> None:
    pixels = np.zeros((80, 100, 3), np.uint8)
    pixels[20:60, 30:70] = 255
    box, label = np.array([[30, 20, 70, 60]], np.float32), np.array([4])
    whole = cut = larger = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        canvas, moved = expanded(pixels, box, (10, 10, 10), generator)
        larger += canvas.shape != pixels.shape
        x1, y1, x2, y2 = moved[0].astype(int)
        assert (canvas[y1:y2, x1:x2] == 255).all()
        part, found, names = crop_around_objects(canvas, moved, label, generator)
        whole += part.shape == canvas.shape
        cut += part.shape != canvas.shape
        x1, y1, x2, y2 = found[0].astype(int)
        assert names.tolist() == [4]
        assert (part[y1:y2, x1:x2] == 255).all()
        assert (part == 255).sum() == (part[y1:y2, x1:x2] == 255).sum()
    assert min(whole, cut, larger) > 5
    assert mirrored_boxes(box, 100)[0].tolist() == [30, 20, 70, 60]


def test_colours_change_but_grey_stays_grey() -> None:
    grey = np.full((4, 4, 3), 120, np.uint8)
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    changed = hues = 0
    for seed in range(40):
        found = distorted(grey, np.random.default_rng(seed)).astype(int)
        assert abs(found.max(axis=2) - found.min(axis=2)).max() <= 1
        changed += found[0, 0, 0] != 120
        hues += distorted(red, np.random.default_rng(seed))[0, 0, 1] > 10
    assert changed > 10
    assert hues > 3


def test_shifts_are_at_most_an_eighth() -> None:
    images = torch.zeros(64, 1, 16, 16)
    images[:, :, 8, 8] = 1
    places = shifted(images, np.random.default_rng(0)).nonzero()[:, 2:]
    assert places.min() == 6
    assert places.max() == 10


def test_imagenet_views_are_seeded_and_leave_random_states_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = imagenet_view(pixels, 32, (0.5,) * 3, (0.2,) * 3, 7)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, imagenet_view(pixels, 32, (0.5,) * 3, (0.2,) * 3, 7))
    assert not torch.equal(first, imagenet_view(pixels, 32, (0.5,) * 3, (0.2,) * 3, 8))
    assert first.shape == (3, 32, 32)


def test_segmentation_views_avoid_a_single_class() -> None:
    labels = np.zeros((64, 256), np.uint8)
    labels[:, 128:] = 1
    pixels = np.repeat(labels[..., None] * 255, 3, axis=2)
    both = 0
    for seed in range(20):
        image, found = segmentation_view(pixels, labels, 64, 256, np.random.default_rng(seed))
        assert image.shape[:2] == found.shape
        assert max(found.shape) <= 64
        both += len(np.unique(found)) == 2
    assert both >= 12
