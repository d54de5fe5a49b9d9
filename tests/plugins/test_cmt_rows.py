"""CMT's rows and the centre heatmap: what is trained when, what is shared, what the opponent's parts do."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("PIL")

import torch
from driving import streets, world
from support import context

from benchsuite.core.errors import ConfigError
from benchsuite.core.registry import get_registry
from benchsuite.leaderboard.claims import parse_claims, read_resource
from benchsuite.tasks.detection3d.contract import Frames, TrainingScenes
from benchsuite.tasks.detection3d.sensors import FULL, NO_CAMERAS, NO_LIDAR, FrameReader
from benchsuite_baselines.detection3d.center_heatmap import CenterHeatmap, _sample
from benchsuite_baselines.detection3d.heatmap import CODE, Grid, bump_radius, decode, heatmap_loss, targets_of
from benchsuite_baselines.detection3d.heatmap_config import CenterHeatmapConfig
from benchsuite_baselines.detection3d.network import FusedHeatmap, column_points, raster_of, sampling_places
from benchsuite_cmt.architecture import RELEASED
from benchsuite_cmt.auxiliary import Auxiliary
from benchsuite_cmt.batches import Batches, balanced, head_classes
from benchsuite_cmt.config import CMTConfig
from benchsuite_cmt.examples import HEAD_CLASSES
from benchsuite_cmt.method import CMTDetector, CMTMethod, sizes_of
from benchsuite_cmt.model import CMT

ROWS = {"cmt", "cmt-vanilla", "cmt-lidar", "cmt-camera"}


def scenes_of(data: Any) -> TrainingScenes:
    frames = data.parts["train"]
    return TrainingScenes(
        dataset=data.name,
        classes=data.classes,
        channels=data.channels,
        extent=data.extent,
        frames=FrameReader.frames(frames, FULL, 2),
        boxes=[frame.boxes for frame in frames],
        scenes=[frame.scene for frame in frames],
        digest=data.name,
    )


def batches_of(**changes: Any) -> Batches:
    scenes, config = scenes_of(world()), CMTConfig(**{"batch_size": 4, "steps": 20, **changes})
    sizes, known = sizes_of(config, scenes)
    return Batches(scenes, sizes, config, head_classes(scenes.classes, known), 7)


@pytest.fixture
def ctx(tmp_path: Path) -> Any:
    return context(tmp_path, seeds={"run": 100})


def trained(ctx: Any, **changes: Any) -> dict[str, torch.Tensor]:
    method = CMTMethod(CMTConfig(**{"batch_size": 3, "steps": 5, "auxiliary": 1.0, **changes}))
    detector: Any = method.fit(scenes_of(world()), ctx)
    return detector.model.state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


# --- training ---


def test_masking_begins_late_and_removes_one_sample_in_four() -> None:
    batches = batches_of(masking=0.25, masking_from=0.4, steps=200, batch_size=8)
    lost: dict[bool, list[tuple[bool, bool]]] = {False: [], True: []}
    for step in (*range(60, 80), *range(80, 180)):
        batch = batches.batch(step, "cpu")
        pairs = zip(batch.lidar_seen.tolist(), batch.cameras_seen.tolist(), strict=True)
        lost[step >= 80] += list(pairs)
    assert all(lidar and cameras for lidar, cameras in lost[False])
    without_lidar = np.mean([not lidar for lidar, _ in lost[True]])
    without_cameras = np.mean([not cameras for _, cameras in lost[True]])
    assert 0.19 < without_lidar < 0.31
    assert 0.19 < without_cameras < 0.31
    assert all(lidar or cameras for lidar, cameras in lost[True])


def test_still_boxes_face_forward() -> None:
    def yaws(still: bool) -> Any:
        batches = batches_of(augment="mirror", still=still)
        return torch.cat([boxes[:, 6] for step in range(5) for boxes in batches.batch(step, "cpu").boxes])

    assert yaws(still=True).abs().max() <= 0.6 + 1e-6
    assert yaws(still=False).abs().max() > 2


def test_batches_depend_on_seed_and_step_alone() -> None:
    first, second = batches_of(masking=0.25), batches_of(masking=0.25)
    for step in (15, 3):
        one, two = first.batch(step, "cpu"), second.batch(step, "cpu")
        assert torch.equal(one.sensors.images, two.sensors.images)  # type: ignore[arg-type]
        assert all(torch.equal(a, b) for a, b in zip(one.boxes, two.boxes, strict=True))
    seen = [plan.place for step in range(7) for plan in first.plan(step)]
    assert len(set(seen[:27])) == 27  # a pass shows every frame once


def test_rows_share_what_comes_before_masking(ctx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchsuite_cmt import training

    steps: list[int] = []
    plain = training._Learner.step

    def counted(self: Any, batches: Any, batch: Any, step: int, clip: float) -> None:
        steps.append(step)
        plain(self, batches, batch, step, clip)

    monkeypatch.setattr(training._Learner, "step", counted)
    vanilla = trained(ctx, masking_from=0.4)
    assert steps == [0, 1, 2, 3, 4]
    masked = trained(ctx, masking=0.25, masking_from=0.4)
    assert steps[5:] == [2, 3, 4]
    assert not same(vanilla, masked)
    assert same(trained(ctx, masking_from=0.4), vanilla)
    assert steps[8:] == [2, 3, 4]


def test_a_shared_beginning_changes_nothing(ctx: Any) -> None:
    assert same(trained(ctx, masking_from=0.0), trained(ctx, masking_from=0.4))


def test_single_sensors_train_without_a_shared_beginning(ctx: Any) -> None:
    state = trained(ctx, modality="lidar", steps=2)
    assert not any(name.startswith(("image_encoder", "ray_embedding")) for name in state)
    state = trained(ctx, modality="camera", steps=2)
    assert not any(name.startswith("bev_encoder") for name in state)


def test_detections_are_finite_whatever_fails(ctx: Any) -> None:
    method = CMTMethod(CMTConfig(batch_size=3, steps=2))
    detector = method.fit(scenes_of(world()), ctx)
    judged = world().parts["test"]
    for condition in (FULL, NO_LIDAR, NO_CAMERAS):
        found = detector.detect(FrameReader.frames(judged, condition, 0), ctx)
        assert len(found) == len(judged)
        for one in found:
            assert np.isfinite(one.centres).all()
            assert (one.sizes > 0).all()
            assert one.labels.min() >= 0
            assert one.labels.max() < 4
            assert (np.diff(one.scores) <= 0).all()


def test_weights_replace_the_training(tmp_path: Path) -> None:
    first = context(tmp_path / "one", seeds={"run": 100}, wanted_artifacts=frozenset({"model"}))
    before = trained(first, steps=2)
    kept = next((tmp_path / "one").rglob("model.pth"))
    after = trained(context(tmp_path / "two", seeds={"run": 101}, weights=kept))
    assert same(before, after)


def test_streets_have_the_head_s_order_of_classes() -> None:
    scenes = scenes_of(streets())
    sizes, known = sizes_of(CMTConfig(), scenes)
    assert known == HEAD_CLASSES
    assert sizes.classes == 10
    head = head_classes(scenes.classes, known)
    assert [HEAD_CLASSES[place] for place in head] == list(scenes.classes)
    assert head != sorted(head)
    with pytest.raises(ConfigError, match="no class 'tram'"):
        head_classes(("tram",), known)


def test_published_augmentation_and_pasting_run_on_streets(ctx: Any, tmp_path: Path) -> None:
    from benchsuite_cmt.examples import example_of
    from benchsuite_cmt.objects import ObjectStore, store_objects

    scenes = scenes_of(streets())
    config = CMTConfig(augment="published", masking=0.25, masking_from=0.0, batch_size=2, steps=4, plain_epochs=0)
    sizes, known = sizes_of(config, scenes)
    head = head_classes(scenes.classes, known)
    examples = [example_of(scenes.frames[i], scenes.boxes[i], head) for i in range(len(scenes.frames))]
    store_objects(examples, tmp_path)
    store = ObjectStore.read(tmp_path)
    assert store.by_class
    batches = Batches(scenes, sizes, config, head, 1, store)
    assert all(plan.pasted for plan in batches.plan(0))
    batch = batches.batch(0, "cpu")
    assert batch.sensors.images is not None
    assert batch.sensors.images.shape == (2, 6, 3, 32, 64)
    assert batch.sensors.lidar_to_image is not None
    assert batch.sensors.lidar_to_image.shape == (2, 6, 4, 4)
    assert all(torch.isfinite(boxes).all() for boxes in batch.boxes)


def test_objects_are_not_pasted_in_the_last_passes(tmp_path: Path) -> None:
    batches = batches_of(steps=0, epochs=6, plain_epochs=5, batch_size=10)
    batches.store = object()  # type: ignore[assignment]
    assert [batches.plan(step)[0].pasted for step in (0, 2, 3, 17)] == [True, True, False, False]


def test_balanced_draws_give_every_class_the_same_share() -> None:
    frames = streets().parts["train"]
    places = balanced([frame.boxes for frame in frames], 10, np.random.default_rng(0))
    shown = [set(frame.boxes.labels[frame.boxes.points > 0]) for frame in frames]
    share = -(-sum(map(len, shown)) // 10)
    assert len(places) == share * len(set.union(*shown))
    assert len(balanced([frames[0].boxes], 10, np.random.default_rng(0))) == len(shown[0])  # one frame is enough


def test_a_whole_published_run_needs_its_backbone(tmp_path: Path) -> None:
    config = CMTConfig(architecture="voxel0100_r50_800x320", needs_pretrained=True)
    with pytest.raises(ConfigError, match="--set pretrained=FILE"):
        CMTMethod(config)._start(CMT(sizes_of(CMTConfig(), scenes_of(world()))[0]), context(tmp_path, seeds={"run": 0}))


def test_auxiliary_heads_count_the_sensors_that_deliver() -> None:
    batches = batches_of()
    batch = batches.batch(0, "cpu")
    torch.manual_seed(0)
    heads = Auxiliary(batches.sizes, 1.0)
    bev, maps = torch.randn(4, 64, 16, 16), torch.randn(4, 4, 64, 4, 8)
    whole = heads.loss(bev, maps, batch)
    blind = replace(batch, lidar_seen=torch.zeros(4, dtype=torch.bool), cameras_seen=torch.zeros(4, dtype=torch.bool))
    assert whole > 0.5
    assert heads.loss(bev, maps, blind) == 0
    assert torch.allclose(Auxiliary(batches.sizes, 2.0).loss(None, None, batch), torch.zeros(()))


# --- the published size on the real keyframe ---


@pytest.mark.slow
@pytest.mark.real_data
def test_published_network_takes_two_steps_on_the_real_keyframe(real_data: Path, evaluate: Any) -> None:
    found = evaluate(
        "detection3d",
        "cmt",
        {"task.conditions": "full"},
        preset="paper",
        max_steps=2,
        datasets=["nuscenes-infos"],
        data_roots=[str(real_data / "nuscenes_sample")],
    )
    assert found.outcome.parameters == 40_919_572
    assert found.outcome.counts["keyframes"] == 1
    assert len(found.outcome.tables["training"]) == 2
    assert (found.artifacts / "boxes.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.real_data
def test_published_network_runs_on_the_real_keyframe_without_sensors_too(real_data: Path) -> None:
    from benchsuite.datasets.driving_scenes.infos import load_infos

    judged = load_infos(real_data / "nuscenes_sample", 0).parts["test"]
    config = CMTConfig(architecture="voxel0100_r50_800x320")
    torch.manual_seed(0)
    detector = CMTDetector(CMT(RELEASED[config.architecture]), range(10), (), config)
    for condition in (FULL, NO_LIDAR, NO_CAMERAS):
        found = detector.detect(FrameReader.frames(judged, condition, 0), None)  # type: ignore[arg-type]
        assert 0 < len(found[0].scores) <= 300
        assert np.isfinite(found[0].centres).all()


# --- the opponent ---


def boxes_of(count: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    cells = rng.permutation(64)[:count]
    centres = np.column_stack([cells % 8 * 4 - 14.3, cells // 8 * 4 - 14.1, rng.uniform(-1.5, 0, count)])
    rows = [centres, rng.uniform(0.8, 4, (count, 3)), rng.uniform(-3, 3, (count, 1)), rng.normal(size=(count, 2))]
    return torch.from_numpy(np.concatenate(rows, axis=1)).float()


def test_centres_survive_the_heatmap() -> None:
    grid, boxes = Grid((-16.0, -16.0), (2.0, 2.0), (16, 16)), boxes_of(12)
    labels = torch.arange(12) % 3
    targets = targets_of([boxes], [labels], 3, grid, 1)
    codes = torch.zeros(1, CODE, 16, 16)
    sample, row, column = targets.places.unbind(1)
    codes[sample, :, row, column] = targets.codes
    found, scores, names = decode(torch.logit(targets.heat.clamp(1e-4, 1 - 1e-4)), codes, grid, 13)[0]
    order = [int((found[:12, :2] - box[:2]).norm(dim=1).argmin()) for box in boxes]
    assert sorted(order) == list(range(12))
    assert torch.allclose(found[order], boxes, atol=1e-4)
    assert torch.equal(names[order], labels)
    assert scores[12] < 0.5 < scores[11]


def test_the_slope_of_a_peak_is_no_detection() -> None:
    heat = torch.full((1, 1, 8, 8), 1e-4)
    heat[0, 0, 2, 2], heat[0, 0, 2, 3], heat[0, 0, 3, 3], heat[0, 0, 6, 6] = 0.9, 0.8, 0.7, 0.3
    grid = Grid((0.0, 0.0), (1.0, 1.0), (8, 8))
    boxes, scores, _ = decode(torch.logit(heat), torch.zeros(1, CODE, 8, 8), grid, 2)[0]
    assert scores.tolist() == pytest.approx([0.9, 0.3])
    assert boxes[:, :2].tolist() == [[2.0, 2.0], [6.0, 6.0]]


def test_bump_radius_is_centernet_s() -> None:
    assert bump_radius(2.0, 4.0, 0.1) == pytest.approx(min(_roots(2.0, 4.0, 0.1)))


def _roots(height: float, width: float, overlap: float) -> tuple[float, float, float]:
    """Return the roots of the three quadratics as CornerNet's code takes them."""
    b1, c1 = height + width, width * height * (1 - overlap) / (1 + overlap)
    b2, c2 = 2 * (height + width), (1 - overlap) * width * height
    b3, c3 = -2 * overlap * (height + width), (overlap - 1) * width * height
    first = (b1 + math.sqrt(b1**2 - 4 * c1)) / 2
    second = (b2 + math.sqrt(b2**2 - 16 * c2)) / 2
    third = (b3 + math.sqrt(b3**2 - 4 * 4 * overlap * c3)) / 2
    return first, second, third


def test_heat_loss_is_least_at_the_targets() -> None:
    grid, boxes = Grid((-16.0, -16.0), (2.0, 2.0), (16, 16)), boxes_of(5)
    targets = targets_of([boxes], [torch.arange(5) % 3], 3, grid, 1)
    codes = torch.zeros(1, CODE, 16, 16)
    sample, row, column = targets.places.unbind(1)
    codes[sample, :, row, column] = targets.codes
    right = heatmap_loss(torch.where(targets.heat == 1, 9.0, -9.0), codes, targets)
    assert right < 1e-2
    codes[sample, 9, row, column] += 1
    assert heatmap_loss(torch.where(targets.heat == 1, 9.0, -9.0), codes, targets) == pytest.approx(
        float(right) + 0.25 * 0.2, abs=1e-3
    )


def test_columns_are_looked_for_in_the_pictures() -> None:
    frame = scenes_of(world()).frames[0]
    rig = torch.from_numpy(np.stack([view.lidar_to_image for view in frame.views])).float()[None]
    points = column_points(scenes_of(world()).extent, 16)
    assert points.shape == (3 * 256, 3)
    assert points[1, :2].tolist() == pytest.approx([-13, -15])
    places, seen = sampling_places(points, rig, (32, 64))
    assert places.shape == (1, 4, 768, 2)
    assert 0.7 < seen.sum(1).clamp(max=1).mean() <= 1
    ahead = int(((points[:, :2] - torch.tensor([9.0, 1.0])).norm(dim=1)).argmin())
    assert seen[0, :, ahead].tolist() == [1, 0, 0, 0]


def test_the_opponent_uses_both_sensors() -> None:
    torch.manual_seed(0)
    model = FusedHeatmap(16, 4, 4).eval()
    images, lidar = torch.rand(1, 4, 3, 32, 64), torch.rand(1, 16, 32, 32)
    places, seen = torch.rand(1, 4, 768, 2), torch.ones(1, 4, 768)
    with torch.no_grad():
        whole = model(lidar, images, places, seen)[0]
        assert not torch.allclose(model(lidar, 0 * images, places, seen)[0], whole)
        assert not torch.allclose(model(0 * lidar, images, places, seen)[0], whole)
        assert torch.allclose(model(lidar, images, places, 0 * seen)[0], model(lidar, 0 * images, places, 0 * seen)[0])


def test_the_opponent_shows_still_boxes_facing_forward() -> None:
    scenes = scenes_of(world())
    first = _sample(scenes.frames[0], (32, 64), scenes.boxes[0])
    partners = [[2, 1, 0, 3], [0, 3, 2, 1]]

    def yaws(still: bool) -> Any:
        method, generator = CenterHeatmap(CenterHeatmapConfig(still=still)), torch.Generator().manual_seed(0)
        return torch.cat([method._drawn([first], partners, generator).boxes[:, 6] for _ in range(20)])

    assert yaws(still=True).abs().max() <= 0.6 + 1e-6
    assert yaws(still=False).abs().max() > 2


def test_raster_is_empty_without_points() -> None:
    found = raster_of([torch.zeros(0, 3), torch.tensor([[0.5, 0.5, -1.6]])], scenes_of(world()).extent, 32, 4)
    assert found.shape == (2, 16, 32, 32)
    assert (found[0] == 0).all()
    assert found[1, 3, 16, 16].item() == pytest.approx(math.log(2))


def test_the_opponent_trains_and_detects(ctx: Any) -> None:
    method = CenterHeatmap(CenterHeatmapConfig(steps=3, batch_size=3))
    detector = method.fit(scenes_of(world()), ctx)
    judged = world().parts["test"]
    for condition in (FULL, NO_LIDAR, NO_CAMERAS):
        found = detector.detect(FrameReader.frames(judged, condition, 0), ctx)
        assert len(found) == len(judged)
        assert all(np.isfinite(one.centres).all() and (one.sizes > 0).all() for one in found)


# --- rows and claims ---


def test_rows_and_claims_name_what_there_is() -> None:
    registry = get_registry()
    assert set(registry.methods) >= {*ROWS, "center-heatmap"}
    for name in ROWS:
        spec = registry.method(name)
        assert set(spec.presets) == {"embedded", "paper"}
    claims = parse_claims(read_resource("benchsuite_cmt:claims.toml"), "claims.toml")
    assert len(claims) == 5
    assert all(claim.method in registry.methods and claim.against in registry.methods for claim in claims)


def test_frames_of_a_slice_are_a_list() -> None:
    frames = scenes_of(world()).frames
    assert isinstance(frames, Frames)
    assert len(frames[2:5]) == 3
