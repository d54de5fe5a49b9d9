"""CMT: sizes and names of the published networks, closed forms of its parts, its losses and its augmentation."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F
from torch import Tensor

from benchsuite.core.errors import ConfigError
from benchsuite_cmt.architecture import RELEASED, SMALL, Architecture
from benchsuite_cmt.augmenting import (
    facing_forward,
    mirror_views,
    mirrored,
    moved,
    random_fit,
    random_movement,
    within,
    without_cameras,
    without_lidar,
    without_sensor,
)
from benchsuite_cmt.boxes import decode, detections, encode
from benchsuite_cmt.config import CMTConfig
from benchsuite_cmt.decoder import Attention, Decoder
from benchsuite_cmt.denoising import NoiseRule, denoising_mask, noisy_queries
from benchsuite_cmt.encoding import (
    bev_centres,
    depth_bins,
    frequencies,
    inverse_sigmoid,
    plane_features,
    query_rays,
    token_rays,
)
from benchsuite_cmt.examples import Batch, Example, ImageFit, collate, fitted, normalised
from benchsuite_cmt.image import CPFPN, VoVNet99, grid_mask
from benchsuite_cmt.lidar import SECOND, SparseEncoder, SparsePlan, voxelise
from benchsuite_cmt.losses import denoising_loss, focal_cost, focal_loss, match, matched_loss, matching_costs
from benchsuite_cmt.model import CMT, Branch, Outputs, Sensors
from benchsuite_cmt.objects import ObjectStore, boxes_overlap, paste_objects, points_inside, store_objects
from benchsuite_cmt.schedule import Cycle, make_optimizer
from benchsuite_cmt.small import raster
from benchsuite_cmt.sparse import SparseConv, VoxelNorm, densify, strided_rulebook, submanifold_rulebook
from benchsuite_cmt.training import noise_rule, training_loss
from benchsuite_cmt.weights import load_backbone, load_official, official_state, save_official

PARAMETERS = {
    "voxel0075_vov_1600x640": (86_607_380, 997),
    "voxel0100_r50_800x320": (40_919_572, 689),
    "lidar_voxel0075": (16_769_492, 361),
    "camera_vov_1600x640": (78_156_100, 781),
}
RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
TINY = replace(SMALL, width=16, heads=2, feed_forward=16, queries=9, depths=4, branch_width=8)


def numbers(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def camera(yaw: float, focal: float = 30.0, size: tuple[int, int] = (32, 64)) -> np.ndarray[Any, Any]:
    """Return lidar_to_camera of a camera at the origin that looks along ``yaw`` in a frame of x forward, z up."""
    c, s = math.cos(yaw), math.sin(yaw)
    found = np.eye(4)
    found[:3, :3] = [[s, -c, 0], [0, 0, -1], [c, s, 0]]
    return found


def intrinsic(size: tuple[int, int] = (32, 64), focal: float = 30.0) -> np.ndarray[Any, Any]:
    return np.array([[focal, 0, (size[1] - 1) / 2], [0, focal, (size[0] - 1) / 2], [0, 0, 1.0]])


def example(seed: int = 0, boxes: int = 3) -> Example:
    """Return a sample of the small world: four cameras all around, points, boxes."""
    generator = np.random.default_rng(seed)
    centres = np.column_stack([generator.uniform(-12, 12, (boxes, 2)), generator.uniform(-1, 0, boxes)])
    sizes, yaws = generator.uniform(0.8, 4, (boxes, 3)), generator.uniform(-1, 1, (boxes, 1))
    return Example(
        np.column_stack([generator.uniform(-15, 15, (200, 2)), generator.uniform(-1.7, 0.9, (200, 3))]).astype(
            np.float32
        ),
        list(generator.integers(0, 255, (4, 32, 64, 3), dtype=np.uint8)),
        np.stack([intrinsic()] * 4),
        np.stack([camera(yaw) for yaw in (0, math.pi / 2, math.pi, -math.pi / 2)]),
        np.concatenate([centres, sizes, yaws, np.zeros((boxes, 2))], axis=1),
        generator.integers(0, 4, boxes),
    )


def batch(sizes: Architecture = TINY, samples: int = 2, boxes: int = 3) -> Batch:
    return collate([example(seed, boxes) for seed in range(samples)], sizes, "cpu")


# --- published sizes and checkpoints (section 5, acceptance 1) ---


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_networks_have_the_published_numbers(name: str) -> None:
    with torch.device("meta"):
        model = CMT(RELEASED[name])
    assert (numbers(model), len(official_state(model))) == PARAMETERS[name]


def test_parts_have_the_published_numbers() -> None:
    with torch.device("meta"):
        vov, r50 = CMT(RELEASED["voxel0075_vov_1600x640"]), CMT(RELEASED["voxel0100_r50_800x320"])
        lidar, images = CMT(RELEASED["lidar_voxel0075"]), CMT(RELEASED["camera_vov_1600x640"])
    encoder: Any = vov.image_encoder
    assert numbers(encoder["backbone"]) == 69_523_520
    assert numbers(encoder["neck"]) == 1_049_344
    encoder = r50.image_encoder
    assert numbers(encoder["backbone"]) == 23_508_032
    assert numbers(encoder["neck"]) == 1_377_024
    bev: Any = r50.bev_encoder
    assert [numbers(bev[part]) for part in ("voxels", "backbone", "neck")] == [2_694_352, 4_280_832, 295_936]
    assert numbers(r50.shared) == 1_180_160
    assert numbers(r50.decoder.layers[0]) == 1_053_440
    assert numbers(r50.decoder) == 6 * 1_053_440 + 512
    assert numbers(r50.bev_embedding) == 197_120
    assert numbers(r50.ray_embedding) == 460_032
    assert numbers(r50.branches) == 602_232
    head_of = {"fusion": (r50, 8_763_396), "lidar": (lidar, 9_498_372), "camera": (images, 7_583_236)}
    for model, expected in head_of.values():
        outside = sum(numbers(m) for n, m in model.named_children() if n in ("image_encoder", "bev_encoder"))
        assert numbers(model) - outside == expected


@pytest.mark.real_data
@pytest.mark.parametrize("name", PARAMETERS)
def test_state_has_the_released_names_shapes_and_types(name: str, real_data: Path) -> None:
    prefix = "cmt_" if name.startswith(("voxel", "lidar", "camera")) else ""
    path = real_data.parent / f"papers/{prefix}{name}_state_dict.csv"
    with path.open() as file:
        expected = {row["key"]: (row["shape"], row["dtype"]) for row in csv.DictReader(file)}
    with torch.device("meta"):
        state = official_state(CMT(RELEASED[name]))
    found = {
        k: ("x".join(map(str, v.shape)) or "scalar", str(v.dtype).removeprefix("torch.")) for k, v in state.items()
    }
    assert found == expected


def test_checkpoints_make_the_round_trip_and_are_refused_in_one_line(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, second = CMT(TINY), CMT(TINY)
    save_official(first, tmp_path / "model.pth")
    load_official(second, tmp_path / "model.pth")
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())
    state = official_state(first)
    bare = tmp_path / "bare.pth"
    torch.save(state, bare)
    load_official(second, bare)
    faults: dict[str, dict[str, Any]] = {
        "lacks": {k: v for k, v in state.items() if not k.endswith("reference_points.weight")},
        "unknown": {**state, "pts_bbox_head.more": torch.zeros(1)},
        "needs": {**state, "pts_bbox_head.reference_points.weight": torch.zeros(10, 3)},
        "not finite": {**state, "pts_bbox_head.reference_points.weight": torch.full((9, 3), math.nan)},
        "no mapping": {"a": 1},
    }
    for word, wrong in faults.items():
        torch.save(wrong, bare)
        with pytest.raises(ConfigError, match=word) as caught:
            load_official(second, bare)
        assert "\n" not in str(caught.value)


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("was_here"),))


def test_checkpoints_that_carry_code_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Harmful()}, tmp_path / "bad.pth")
    with pytest.raises(ConfigError, match="read safely"):
        load_official(CMT(TINY), tmp_path / "bad.pth")
    assert not (tmp_path / "was_here").exists()


def test_backbone_weights_of_other_detectors_load(tmp_path: Path) -> None:
    model = CMT(replace(RELEASED["voxel0100_r50_800x320"], lidar=False))
    encoder: Any = model.image_encoder
    state = {f"backbone.{k}": v + 1 for k, v in encoder["backbone"].state_dict().items() if v.ndim}
    torch.save({"state_dict": state | {"roi_head.fc.weight": torch.zeros(2)}}, tmp_path / "nuim_r50.pth")
    load_backbone(encoder["backbone"], tmp_path / "nuim_r50.pth")
    assert torch.equal(encoder["backbone"].conv1.weight, state["backbone.conv1.weight"])
    state.pop("backbone.conv1.weight")
    torch.save(state, tmp_path / "nuim_r50.pth")
    with pytest.raises(ConfigError, match=r"lacks conv1\.weight"):
        load_backbone(encoder["backbone"], tmp_path / "nuim_r50.pth")


# --- coordinates encoding (acceptance 2 to 5) ---


def test_plane_features_put_y_first_and_have_no_temperature() -> None:
    found = plane_features(torch.tensor([0.25, 0.0]), frequencies(8, "released"))
    assert found[:8].tolist() == pytest.approx([0, 1] * 4, abs=1e-6)
    assert found[8:10].tolist() == pytest.approx([1, 0], abs=1e-6)
    cycles = frequencies(8, "released")
    assert (1 / cycles).tolist() == pytest.approx([1, 1, 1.25, 1.25, 1.5, 1.5, 1.75, 1.75])
    assert found[10].item() == pytest.approx(math.sin(2 * math.pi * 0.25 / 1.25))
    geometric = frequencies(64, "geometric")
    assert (geometric[0].item(), geometric[-1].item()) == pytest.approx((0.5, 8))


def test_depth_bins_are_the_published_ones() -> None:
    bins = depth_bins(64, 54.0)
    assert bins[0].item() == 1.0
    assert (bins[1] - bins[0]).item() == pytest.approx(0.828125)
    assert bins[-1].item() == pytest.approx(53.171875)


def test_bev_cells_are_told_by_their_centres_row_by_row() -> None:
    found = bev_centres(2, 4)
    assert found[1].tolist() == pytest.approx([0.375, 0.25])
    assert found[4].tolist() == pytest.approx([0.125, 0.75])


def rig() -> Tensor:
    found = np.stack([np.eye(4)] * 3)
    for view, yaw in enumerate((0.1, 2.0, -1.7)):
        turned = camera(yaw)
        turned[:3, 3] = (0.3, -0.4, 0.2)
        found[view, :3, :3] = intrinsic((320, 800), 600.0)
        found[view] = found[view] @ turned
    return torch.from_numpy(found).float()[None]


def test_points_on_a_token_s_ray_are_projected_onto_its_pixel() -> None:
    depths = depth_bins(64, 54.0)
    rays = token_rays(rig(), (320, 800), 20, 50, depths, RANGE)
    assert rays.shape == (1, 3, 1000, 192)
    low, high = torch.tensor(RANGE[:3]), torch.tensor(RANGE[3:])
    points = rays.unflatten(-1, (64, 3)) * (high - low) + low
    projected = torch.einsum("vij,vnkj->vnki", rig()[0], F.pad(points[0], (0, 1), value=1.0))
    pixels = projected[..., :2] / projected[..., 2:3]
    v, u = torch.meshgrid(torch.arange(20) * 16.0, torch.arange(50) * 16.0, indexing="ij")
    expected = torch.stack([u, v], dim=-1).flatten(0, 1)[None, :, None].expand_as(pixels)
    assert (pixels - expected).abs().max() < 1e-3 * 5  # float32 at hundreds of pixels
    assert torch.allclose(projected[..., 2], depths.expand_as(projected[..., 2]), atol=1e-3)


def test_a_query_on_a_token_s_ray_has_the_token_s_features() -> None:
    depths = depth_bins(64, 54.0)
    rays = token_rays(rig(), (320, 800), 20, 50, depths, RANGE)
    low, high = torch.tensor(RANGE[:3]), torch.tensor(RANGE[3:])
    token, step = 7 * 50 + 23, 12
    point = rays[0, 1, token].view(64, 3)[step] * (high - low) + low
    found, visible = query_rays(point[None, None], rig(), (320, 800), depths, RANGE)
    assert visible[0, :, 0].tolist() == [False, True, False]
    assert torch.allclose(found[0, 1, 0], rays[0, 1, token], atol=1e-4)


def test_a_point_that_two_cameras_see_gets_both_parts() -> None:
    torch.manual_seed(0)
    model = CMT(replace(TINY, layers=1))
    references = torch.tensor([[[0.75, 0.5, 0.6]]])
    one = torch.from_numpy(example().lidar_to_image.astype(np.float32))[None, :1]
    bev = model.query_positions(references, None, None)
    single = model.query_positions(references, one, (32, 64)) - bev
    double = model.query_positions(references, torch.cat([one, one], dim=1), (32, 64)) - bev
    behind = model.query_positions(torch.tensor([[[0.2, 0.5, 0.6]]]), one, (32, 64))
    assert single.abs().sum() > 0
    assert torch.allclose(double, 2 * single, atol=1e-5)
    assert torch.equal(behind, model.query_positions(torch.tensor([[[0.2, 0.5, 0.6]]]), None, None))


def test_order_of_cameras_does_not_matter() -> None:
    torch.manual_seed(0)
    model = CMT(TINY).eval()
    sensors = batch().sensors
    order = [2, 0, 3, 1]
    assert sensors.images is not None
    assert sensors.lidar_to_image is not None
    other = Sensors(sensors.points, sensors.images[:, order], sensors.lidar_to_image[:, order])
    with torch.no_grad():
        first, second = model(sensors), model(other)
    assert torch.allclose(first.logits, second.logits, atol=1e-5)
    assert torch.allclose(first.codes, second.codes, atol=1e-4)


@pytest.mark.parametrize("kernel", [1, 3])
def test_order_of_queries_matters_to_the_lidar_configuration_only(kernel: int) -> None:
    torch.manual_seed(0)
    model = CMT(replace(TINY, kernel=kernel)).eval()
    sensors, order = batch().sensors, torch.randperm(9, generator=seeded(1))
    with torch.no_grad():
        first = model(sensors)
        model.references.copy_(model.references[order])
        second = model(sensors)
    same = torch.allclose(first.logits[:, :, order], second.logits, atol=1e-5)
    assert same == (kernel == 1)


def test_lidar_head_has_no_ray_part_and_camera_head_both() -> None:
    lidar, cameras = CMT(replace(TINY, camera=False)), CMT(replace(TINY, lidar=False))
    assert not hasattr(lidar, "ray_embedding")
    assert hasattr(cameras, "ray_embedding")
    assert hasattr(cameras, "bev_embedding")
    assert lidar(batch(replace(TINY, camera=False)).sensors).logits.shape == (2, 2, 9, 4)
    assert cameras(batch(replace(TINY, lidar=False)).sensors).logits.shape == (2, 2, 9, 4)


# --- decoder and heads ---


def test_values_carry_no_position() -> None:
    torch.manual_seed(0)
    layer = Decoder(8, 2, 16, 1, 0.0).layers[0].eval()
    content, tokens = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    same = torch.ones(1, 5, 8)  # one embedding for all tokens changes no weight of attention, and no value
    position = torch.randn(1, 3, 8)
    plain = layer(content, position, tokens, tokens, None)
    shifted = layer(content, position, tokens + same, tokens, None)
    assert torch.allclose(plain, shifted, atol=1e-5)
    assert not torch.allclose(layer(content, position, tokens, tokens + same, None), plain, atol=1e-3)


def test_attention_equals_the_library_s() -> None:
    torch.manual_seed(0)
    ours, theirs = Attention(8, 2, 0.0), torch.nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.load_state_dict(
        {
            **{"in_proj_weight": ours.in_weight, "in_proj_bias": ours.in_bias},
            **{"out_proj.weight": ours.out.weight, "out_proj.bias": ours.out.bias},
        }
    )
    q, k, v = (torch.randn(2, n, 8) for n in (3, 5, 5))
    blocked = torch.rand(3, 5, generator=seeded(2)) < 0.4
    expected = theirs(q, k, v, attn_mask=blocked)[0]
    assert torch.allclose(ours(q, k, v, blocked), expected, atol=1e-6)


def test_one_norm_serves_the_output_of_every_layer() -> None:
    torch.manual_seed(0)
    decoder = Decoder(8, 2, 16, 3, 0.0)
    with torch.no_grad():
        decoder.norm.weight.fill_(0.0)
        decoder.norm.bias.fill_(7.0)
    found = decoder(torch.randn(1, 4, 8), torch.randn(1, 5, 8), torch.randn(1, 5, 8))
    assert found.shape == (3, 1, 4, 8)
    assert (found == 7).all()


def test_each_layer_has_weights_of_its_own_in_a_branch() -> None:
    torch.manual_seed(0)
    branch = Branch(replace(TINY, layers=2), 3)
    x = torch.randn(2, 1, 5, 16)
    found = branch(x)
    assert found.shape == (2, 1, 5, 3)
    conv, norm, out = branch[0], branch[1], branch[3]
    for layer in range(2):
        hidden = F.conv1d(x[layer].transpose(1, 2), conv.weight[8 * layer : 8 * layer + 8])
        hidden = F.layer_norm(hidden.transpose(1, 2), (8,), eps=1e-6)
        part = slice(8 * layer, 8 * layer + 8)
        hidden = F.relu(hidden * norm.weight[part] + norm.bias[part])
        rows = slice(3 * layer, 3 * layer + 3)
        expected = F.conv1d(hidden.transpose(1, 2), out.weight[rows], out.bias[rows]).transpose(1, 2)
        assert torch.allclose(found[layer], expected, atol=1e-5)


def test_class_bias_starts_at_the_published_value() -> None:
    model = CMT(TINY)
    assert torch.allclose(model.branches["cls_logits"][3].bias, torch.tensor(-2.19))  # type: ignore[index]
    assert (model.branches["center"][3].bias == 0).all()  # type: ignore[index]


@pytest.mark.parametrize("code", ["released", "plain"])
def test_outputs_start_from_the_references(code: Any) -> None:
    torch.manual_seed(0)
    model = CMT(replace(TINY, code=code))
    with torch.no_grad():
        for branch in model.branches.values():
            branch[3].weight.zero_()  # type: ignore[index]
            branch[3].bias.zero_()  # type: ignore[index]
    references = torch.rand(1, 9, 3, generator=seeded(3)) * 0.9 + 0.05
    codes = model.heads(torch.randn(2, 1, 9, 16), references).codes
    assert torch.allclose(codes[..., :2], model.metres(references)[..., :2].expand(2, 1, 9, 2), atol=1e-4)
    if code == "released":  # the branch named height learns a length
        assert torch.allclose(codes[..., 2], (references[..., 2] * 8 - 5).expand(2, 1, 9), atol=1e-4)
        assert (codes[..., 3:] == 0).all()
    else:
        assert torch.allclose(codes[..., 4], model.metres(references)[..., 2].expand(2, 1, 9), atol=1e-4)
        assert (codes[..., [2, 3, 5, 6, 7, 8, 9]] == 0).all()


@pytest.mark.parametrize(
    ("without", "parameters"), [({}, 289_108), ({"camera": False}, 195_268), ({"lidar": False}, 228_884)]
)
def test_embedded_networks_have_their_sizes(without: Any, parameters: int) -> None:
    # The sheet's 289,433 / 224,325 / 229,144 count auxiliary heads (325 / 65 / 260) and an unused ray network (28,992).
    model = CMT(replace(SMALL, velocity=False, **without))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert float(model._depths[-1]) == pytest.approx(18.8125)  # type: ignore[operator]
    assert model.branches["center"][3].weight.abs().max() <= 32**-0.5  # type: ignore[index,union-attr]


def test_embedded_references_form_a_grid() -> None:
    metres = CMT(SMALL).metres(CMT(SMALL).references)
    assert metres[0].tolist() == pytest.approx([-13.333, -13.333, -0.95], abs=1e-3)
    assert metres[1].tolist() == pytest.approx([-8, -13.333, -0.95], abs=1e-3)


# --- box code and decoding (acceptance 6) ---


def boxes_of(count: int, seed: int = 0) -> Tensor:
    generator = seeded(seed)
    found = torch.randn(count, 9, generator=generator)
    found[:, :2] *= 15
    found[:, 3:6] = found[:, 3:6].exp()
    found[:, 6] = (torch.rand(count, generator=generator) * 2 - 1) * math.pi
    return found


def test_decoding_a_code_returns_its_box() -> None:
    boxes = boxes_of(50)
    assert torch.allclose(decode(encode(boxes)), boxes, atol=1e-5)


def test_code_keeps_the_released_channels() -> None:
    code = encode(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.5, 7.0, 8.0]]))[0]
    expected = [1, 2, math.log(4), math.log(5), 3, math.log(6), math.sin(0.5), math.cos(0.5), 7, 8]
    assert code.tolist() == pytest.approx(expected, abs=1e-6)


def test_detections_are_the_best_pairs_without_suppression() -> None:
    logits = torch.full((1, 3, 2), -3.0)
    logits[0, 0, 1], logits[0, 0, 0], logits[0, 2, 0] = 3.0, 2.0, 1.0
    codes = encode(torch.zeros(1, 3, 9) + torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 0.0]))
    found = detections(logits, codes, most=3)[0]
    assert found.labels.tolist() == [1, 0, 0]
    assert torch.equal(found.boxes[0], found.boxes[1])
    assert found.scores.tolist() == pytest.approx(torch.tensor([3.0, 2.0, 1.0]).sigmoid().tolist())
    codes[0, 2, 0] = 62.0
    assert len(detections(logits, codes, most=3)[0].scores) == 2


# --- denoising (acceptance 7) ---


def test_denoising_mask_is_the_published_one() -> None:
    blocked = denoising_mask(2, 3, 5)
    assert blocked.shape == (11, 11)
    assert blocked[6:, :6].all()
    assert not blocked[6:, 6:].any()
    assert blocked[:3].nonzero()[:, 1].unique().tolist() == [3, 4, 5]
    assert blocked[3:6].nonzero()[:, 1].unique().tolist() == [0, 1, 2]
    assert int(blocked.sum()) == 48


def test_noisy_queries_stay_in_their_boxes_and_far_ones_are_background() -> None:
    boxes, labels = [boxes_of(3) * 0.3, boxes_of(1, 4) * 0.3], [torch.tensor([1, 2, 3]), torch.tensor([0])]
    boxes = [torch.cat([b[:, :3], b[:, 3:6].abs() + 0.5, b[:, 6:]], dim=1) for b in boxes]
    rule = NoiseRule()
    noisy = noisy_queries(boxes, labels, rule, RANGE, 10, 900, seeded())
    assert noisy is not None
    assert noisy.references.shape == (2, 30, 3)
    assert noisy.used.sum() == 40
    low, high = torch.tensor(RANGE[:3]), torch.tensor(RANGE[3:])
    apart = (noisy.references * (high - low) + low - noisy.boxes[..., :3]) / (noisy.boxes[..., 3:6] / 2)
    used = noisy.used
    assert apart[used].abs().max() <= 1 + 1e-4
    assert apart[used].abs().max() > 0.8
    far = apart.norm(dim=-1) > rule.negative
    assert (noisy.labels[used & far] == 10).all()
    assert (noisy.labels[used & ~far] < 10).all()
    assert 0 < int((used & far).sum()) < 40
    assert (noisy.references[~used] == 0).all()
    assert noisy_queries([boxes_of(0)], [torch.zeros(0, dtype=torch.int64)], rule, RANGE, 10, 900, seeded()) is None


def test_embedded_noise_is_in_metres_and_all_positive() -> None:
    boxes = torch.tensor([[0.0, 0, -1, 0.1, 0.1, 0.1, 0, 0, 0]]).repeat(20, 1)
    noisy = noisy_queries(
        [boxes], [torch.zeros(20, dtype=torch.int64)], noise_rule(CMTConfig()), SMALL.point_range, 4, 90, seeded()
    )
    assert noisy is not None
    moved_by = noisy.references[0] * torch.tensor([32, 32, 2.8]) + torch.tensor([-16, -16, -1.8]) - boxes[0, :3]
    assert moved_by.abs().amax(0)[:2].min() > 2
    assert moved_by.abs().amax(0)[2] <= 0.5 + 1e-5
    assert (noisy.labels == 0).all()
    assert noisy.references.shape[1] == 80


def test_noisy_queries_do_not_change_what_the_others_find() -> None:
    torch.manual_seed(0)
    model = CMT(TINY).eval()
    data = batch()
    noisy = noisy_queries(data.boxes, data.labels, NoiseRule(2), TINY.point_range, 4, 9, seeded())
    assert noisy is not None
    with torch.no_grad():
        tokens, places = model.tokens(data.sensors)
        alone = model.decode(data.sensors, tokens, places)
        both = model.decode(data.sensors, tokens, places, noisy.references, noisy.blocked)
    assert torch.allclose(both.split(noisy.references.shape[1])[1].logits, alone.logits, atol=1e-5)


# --- losses (acceptance 8, 9) ---


def test_focal_cost_at_a_logit_of_zero() -> None:
    assert focal_cost(torch.zeros(1)).item() == pytest.approx(-0.0866434, abs=1e-7)
    costs = matching_costs(torch.zeros(1, 1, 3), torch.zeros(1, 1, 10), torch.tensor([1]), torch.zeros(1, 10))
    assert costs.item() == pytest.approx(-0.1732868, abs=1e-7)


def test_box_cost_weighs_eight_numbers() -> None:
    codes, target = torch.zeros(1, 1, 10), torch.arange(1.0, 11.0)[None]
    costs = matching_costs(torch.zeros(1, 1, 3), codes, torch.tensor([1]), target)
    assert costs.item() == pytest.approx(0.25 * (2 * 1 + 2 * 2 + 3 + 4 + 5 + 6 + 7 + 8) - 0.1732868, abs=1e-5)


def test_focal_loss_equals_its_closed_form() -> None:
    logits = torch.tensor([[0.7, -1.2], [0.1, 0.3], [0.0, 0.0]])
    p = logits.sigmoid()
    expected = 0.25 * (1 - p[0, 0]) ** 2 * -p[0, 0].log()
    for row, column in ((0, 1), (1, 0), (1, 1)):
        expected = expected + 0.75 * p[row, column] ** 2 * -(1 - p[row, column]).log()
    assert focal_loss(logits, torch.tensor([0, 2, -1])).item() == pytest.approx(expected.item(), rel=1e-5)


def outputs_of(codes: Tensor, classes: int = 4) -> Outputs:
    return Outputs(torch.zeros(*codes.shape[:3], classes), codes)


def test_losses_without_boxes_are_finite_and_boxes_cost_nothing() -> None:
    outputs = outputs_of(torch.randn(2, 1, 5, 10))
    of_classes, of_boxes = matched_loss(outputs, [torch.zeros(0, 9)], [torch.zeros(0, dtype=torch.int64)])
    assert of_boxes.item() == 0
    wanted = 2.0 * 2 * 5 * 4 * 0.75 * 0.25 * math.log(2) / max(1, 0.1 * 5)
    assert of_classes.item() == pytest.approx(wanted, rel=1e-5)


def test_matched_loss_is_normalised_as_published() -> None:
    boxes, labels = boxes_of(2), torch.tensor([0, 3])
    codes = encode(boxes)[None, None].repeat(1, 1, 3, 1)[:, :, :5].clone()
    codes[0, 0, 0, 0] += 1.0  # of weight 2
    codes[0, 0, 0, 9] += 1.0  # of weight .2
    codes[0, 0, 2:] += 50
    of_classes, of_boxes = matched_loss(outputs_of(codes), [boxes], [labels])
    assert of_boxes.item() == pytest.approx(0.25 * 2.2 / 2, rel=1e-4)
    named, other = 0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)
    queries = codes.shape[2]
    expected = 2 * (2 * named + (queries * 4 - 2) * other) / (2 + 0.1 * (queries - 2))
    assert of_classes.item() == pytest.approx(expected, rel=1e-5)


def test_boxes_without_a_velocity_are_left_out_of_the_box_loss() -> None:
    boxes = boxes_of(1)
    boxes[0, 7] = math.nan
    of_boxes = matched_loss(outputs_of(torch.randn(1, 1, 3, 10)), [boxes], [torch.tensor([0])])[1]
    assert of_boxes.item() == 0


def test_matching_is_one_to_one_and_cheapest() -> None:
    costs = torch.tensor([[[1.0, 2.0], [0.0, 5.0], [9.0, 9.0]]])
    rows, columns = match(costs)[0]
    assert dict(zip(columns.tolist(), rows.tolist(), strict=True)) == {0: 1, 1: 0}


def test_noisy_queries_are_normalised_by_the_ball() -> None:
    boxes = torch.tensor([[0.0, 0, -1, 2, 2, 2, 0, 0, 0]])
    noisy = noisy_queries([boxes], [torch.tensor([2])], NoiseRule(12), RANGE, 4, 90, seeded(5))
    assert noisy is not None
    codes = encode(noisy.boxes)[None].clone()
    codes[..., 4] += 1.0
    of_classes, of_boxes = denoising_loss(outputs_of(codes), noisy)
    assert of_boxes.item() == pytest.approx(0.25)  # negatives regress the clean box too
    named, other = 0.25 * 0.25 * math.log(2), 0.75 * 0.25 * math.log(2)
    positive = int((noisy.labels == 2).sum())
    assert 0 < positive < 12
    expected = 2 * (positive * named + (48 - positive) * other) / max(1, 12 * 3.14159 / 6 * 0.75**3)
    assert of_classes.item() == pytest.approx(expected, rel=1e-5)


# --- LiDAR branch ---


def test_voxels_are_means_of_their_first_points() -> None:
    cloud = torch.zeros(14, 5)
    cloud[:12, 0] = torch.linspace(0.01, 0.12, 12) * 0.1
    cloud[:12, 3] = torch.arange(12.0)
    cloud[12] = torch.tensor([60.0, 0, 0, 0, 0])  # outside
    cloud[13] = torch.tensor([50.0, 0, 0, 0, 0])  # in the range, beyond a tensor of 1024 cells
    found = voxelise([cloud], RANGE, (0.1, 0.1, 0.2), (41, 1024, 1024), 100)
    assert found.coordinates.tolist() == [[0, 25, 540, 540]]
    assert found.features[0, 3].item() == pytest.approx(4.5)
    wide = voxelise([cloud, cloud[:1]], RANGE, (0.075, 0.075, 0.2), (41, 1440, 1440), 100)
    assert wide.coordinates[:, 0].tolist() == [0, 0, 1]
    first = voxelise(
        [torch.tensor([[9.0, 0, 0, 1, 0], [-9, 0, 0, 2, 0], [9, 0, 0, 1, 0]])],
        RANGE,
        (0.1, 0.1, 0.2),
        (41, 1024, 1024),
        1,
    )
    assert first.features[:, 3].tolist() == [1.0]


def random_voxels(count: int, shape: tuple[int, int, int], samples: int = 2, seed: int = 0) -> Tensor:
    generator = seeded(seed)
    columns = [torch.randint(0, n, (count,), generator=generator) for n in (samples, *shape)]
    return torch.stack(columns, dim=1).unique(dim=0)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((3, 3, 3), (2, 2, 2), (1, 1, 1)), ((3, 3, 3), (2, 2, 2), (0, 1, 1)), ((3, 1, 1), (2, 1, 1), (0, 0, 0))],
)
def test_strided_convolution_equals_the_dense_one(kernel: Any, stride: Any, padding: Any) -> None:
    shape = (7, 8, 9)
    cells = random_voxels(60, shape)
    cells = cells[torch.randperm(len(cells), generator=seeded(1))]
    torch.manual_seed(0)
    conv = SparseConv(3, 4, kernel).double()
    features = torch.randn(len(cells), 3, dtype=torch.float64, requires_grad=True)
    book = strided_rulebook(cells, shape, kernel, stride, padding)
    ours = densify(conv(features, book), book.coordinates, 2, book.shape)
    weight = conv.weight.permute(0, 4, 1, 2, 3)
    dense = F.conv3d(densify(features, cells, 2, shape), weight, stride=stride, padding=padding)
    assert torch.allclose(ours, dense, atol=1e-12)
    push = torch.randn_like(dense)
    mine = torch.autograd.grad((ours * push).sum(), [features, conv.weight], retain_graph=True)
    theirs = torch.autograd.grad((dense * push).sum(), [features, conv.weight])
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(mine, theirs, strict=True))


def test_submanifold_convolution_equals_the_dense_one_where_there_are_voxels() -> None:
    shape = (5, 6, 7)
    cells = random_voxels(90, shape)
    cells = cells[torch.randperm(len(cells), generator=seeded(1))]
    torch.manual_seed(0)
    conv = SparseConv(3, 4).double()
    features = torch.randn(len(cells), 3, dtype=torch.float64, requires_grad=True)
    ours = conv(features, submanifold_rulebook(cells, shape))
    weight = conv.weight.permute(0, 4, 1, 2, 3)
    dense = F.conv3d(densify(features, cells, 2, shape), weight, padding=1)
    there = dense.permute(0, 2, 3, 4, 1)[tuple(cells.t())]
    assert torch.allclose(ours, there, atol=1e-12)
    push = torch.randn_like(there)
    mine = torch.autograd.grad((ours * push).sum(), [features, conv.weight], retain_graph=True)
    theirs = torch.autograd.grad((there * push).sum(), [features, conv.weight])
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(mine, theirs, strict=True))


def test_sparse_encoder_halves_z_to_two_planes() -> None:
    cells = random_voxels(200, (41, 64, 64), samples=1)
    plan = SparsePlan.of(cells, (41, 64, 64))
    assert [book.shape[0] for book in plan.submanifold] == [41, 21, 11, 5]
    assert plan.strided[-1].shape == (2, 8, 8)
    encoder = SparseEncoder().eval()
    assert encoder(torch.randn(len(cells), 5), plan, 1).shape == (1, 256, 8, 8)


def test_a_lone_voxel_keeps_the_statistics() -> None:
    norm = VoxelNorm(3).train()
    before = norm.running_mean.clone()  # type: ignore[union-attr]
    assert torch.isfinite(norm(torch.ones(1, 3))).all()
    assert torch.equal(norm.running_mean, before)  # type: ignore[arg-type]


def test_second_halves_once() -> None:
    fine, coarse = SECOND()(torch.rand(1, 256, 8, 8))
    assert (fine.shape, coarse.shape) == ((1, 128, 8, 8), (1, 256, 4, 4))


def test_raster_has_mean_offsets_and_counts() -> None:
    cloud = torch.tensor([[0.5, 0.5, -1.6, 0, 0], [0.7, 0.5, -1.6, 0, 0], [99, 0, 0, 0, 0]])
    found = raster([cloud, cloud[:1]], SMALL.point_range, SMALL.voxel_size, SMALL.grid)
    assert found.shape == (2, 16, 32, 32)
    assert found[0, :4, 16, 16].tolist() == pytest.approx([0.1, 0.0, -0.2143, math.log(3)], abs=1e-3)
    assert found[1, 3, 16, 16].item() == pytest.approx(math.log(2))
    assert (found[0] != 0).sum() == 3


# --- image branch ---


def test_image_backbone_keeps_its_statistics_in_training() -> None:
    model = VoVNet99().train()
    assert not any(m.training for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert all(p.requires_grad for p in model.parameters())


def test_neck_adds_the_coarse_level_and_returns_the_fine_one() -> None:
    torch.manual_seed(0)
    neck = CPFPN((4, 6), 5)
    fine, coarse = torch.randn(1, 4, 6, 8), torch.randn(1, 6, 3, 4)
    up = neck.laterals[1](coarse).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(neck((fine, coarse)), neck.smooth(neck.laterals[0](fine) + up), atol=1e-6)


def test_grid_mask_blackens_the_same_pixels_of_all_views() -> None:
    images = torch.ones(3, 3, 40, 60)
    found = [grid_mask(images, seeded(seed)) for seed in range(40)]
    touched = [f for f in found if (f == 0).any()]
    assert 20 <= len(touched) <= 36
    assert all(torch.equal(f[0], f[2]) for f in found)


# --- sensors ---


def test_removed_sensors_are_zero_before_normalisation() -> None:
    sample = example()
    dark, blind = without_cameras(sample), without_lidar(sample)
    pictures = collate([dark], SMALL, "cpu").sensors.images
    assert pictures is not None
    assert pictures[0, 0, :, 0, 0].tolist() == pytest.approx([-103.53 / 57.375, -116.28 / 57.12, -123.675 / 58.395])
    assert (blind.points == 0).all()
    assert np.array_equal(dark.points, sample.points)
    assert all(np.array_equal(a, b) for a, b in zip(blind.images, sample.images, strict=True))


def test_pictures_go_to_the_network_blue_first() -> None:
    red = torch.tensor([[[200, 10, 20]]], dtype=torch.uint8)
    expected = [(20 - 103.53) / 57.375, (10 - 116.28) / 57.12, (200 - 123.675) / 58.395]
    assert normalised(red)[:, 0, 0].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("draw", "lidar", "cameras"), [(0.4, True, True), (0.6, False, True), (0.8, True, False)])
def test_one_sample_in_four_loses_each_sensor(draw: float, lidar: bool, cameras: bool) -> None:
    found = without_sensor(example(), draw)
    assert bool(np.any(found.points)) == lidar
    assert bool(np.any(found.images[0])) == cameras


@pytest.mark.parametrize("removed", [without_cameras, without_lidar])
def test_removed_sensors_leave_finite_boxes(removed: Any) -> None:
    torch.manual_seed(0)
    model = CMT(TINY).eval()
    with torch.no_grad():
        outputs = model(collate([removed(example())], TINY, "cpu").sensors)
    assert torch.isfinite(decode(outputs.codes)).all()
    assert torch.isfinite(outputs.logits).all()


# --- augmentation ---


def pixels_of(sample: Example) -> np.ndarray[Any, Any]:
    points = np.column_stack([sample.boxes[:, :3], np.ones(len(sample.boxes))])
    projected = np.einsum("vij,nj->vni", sample.lidar_to_image, points)
    return np.concatenate([projected[..., :2] / projected[..., 2:3], projected[..., 2:3]], axis=-1)


def test_movements_of_the_world_keep_pixels_and_points_in_boxes() -> None:
    sample = example()
    sample.boxes[:, 7:] = [[1.0, 2.0]] * 3
    inside = [points_inside(sample.points, box) for box in sample.boxes]
    for seed in range(8):
        matrix = random_movement(np.random.default_rng(seed))
        found = moved(sample, matrix)
        assert np.allclose(pixels_of(found), pixels_of(sample), atol=1e-6)
        scale = np.linalg.norm(matrix[:3, 2])
        assert np.allclose(found.boxes[:, 3:6], sample.boxes[:, 3:6] * scale)
        assert np.allclose(np.hypot(*found.boxes[:, 7:].T), np.hypot(1, 2) * scale)
        for box, before in zip(found.boxes, inside, strict=True):
            assert (points_inside(found.points, box) == before).mean() > 0.995


def test_yaw_follows_rotations_and_mirrorings() -> None:
    sample = example()
    turn = np.eye(4)
    turn[:2, :2] = [[0, -1], [1, 0]]
    apart = moved(sample, turn).boxes[:, 6] - sample.boxes[:, 6] - math.pi / 2
    assert np.allclose(np.cos(apart), 1)
    flipped = moved(sample, np.diag([1.0, -1, 1, 1])).boxes[:, 6]
    assert np.allclose(flipped, -sample.boxes[:, 6])


@pytest.mark.parametrize("mirror", [False, True])
def test_fitted_pictures_have_fitting_intrinsics(mirror: bool) -> None:
    sample = example()
    image = np.zeros((32, 64, 3), np.uint8)
    image[20, 40] = 255
    sample.images = [image] * 4
    fit = ImageFit(1.0, 8, 12, (20, 48), mirror)
    found = fitted(sample, fit)
    row, column = np.argwhere(found.images[0][..., 0])[0]
    u, v, _ = fit.matrix() @ [40, 20, 1]
    assert (row, column) == (8, 15 if mirror else 32)
    assert v == 8
    assert u == (16 if mirror else 32)  # the released matrix is one pixel off where it mirrors
    assert np.allclose(found.intrinsics[0], fit.matrix() @ sample.intrinsics[0])


def test_pictures_of_evaluation_keep_the_lowest_rows() -> None:
    fit = ImageFit.for_test((900, 1600), (640, 1600))
    assert (fit.factor, fit.left, fit.top) == (1.0, 0, 260)
    fit = ImageFit.for_test((900, 1600), (320, 800))
    assert (fit.factor, fit.left, fit.top) == (0.5, 0, 130)
    drawn = [random_fit(np.random.default_rng(s), (900, 1600), (320, 800), (0.47, 0.625)) for s in range(50)]
    assert all(0.47 <= f.factor <= 0.625 and f.top == int(900 * f.factor) - 320 for f in drawn)
    assert {f.mirrored for f in drawn} == {True, False}


def test_symmetric_rigs_are_mirrored_exactly() -> None:
    sample = example()
    assert mirror_views(sample.lidar_to_image, 64, 1) == (0, 3, 2, 1)
    assert mirror_views(sample.lidar_to_image, 64, 0) == (2, 1, 0, 3)
    skew = sample.lidar_to_image.copy()
    skew[1, 0] += 5
    assert mirror_views(skew, 64, 1) is None
    found = mirrored(sample, 1, (0, 3, 2, 1))
    assert np.array_equal(found.images[1], sample.images[3][:, ::-1])
    before, after = pixels_of(sample), pixels_of(found)
    assert np.allclose(after[1, :, 0], 63 - before[3, :, 0])
    assert np.allclose(after[1, :, 1:], before[3, :, 1:])


def test_boxes_without_a_front_face_forward_in_every_mirrored_world() -> None:
    sample = example()
    sample.boxes[:, 6] = [0.4, -0.5, 0.0]
    across, along = mirrored(sample, 0, (2, 1, 0, 3)), mirrored(sample, 1, (0, 3, 2, 1))
    assert along.boxes[:, 6] == pytest.approx([-0.4, 0.5, 0.0])
    assert np.cos(across.boxes[:, 6]) == pytest.approx(-np.cos(sample.boxes[:, 6]))
    assert facing_forward(across).boxes[:, 6] == pytest.approx([-0.4, 0.5, 0.0])
    assert facing_forward(along).boxes == pytest.approx(along.boxes)


def test_range_filter_keeps_a_point() -> None:
    sample = example()
    assert len(within(sample, (90, 90, 0, 91, 91, 1)).points) == 1
    assert len(within(sample, (90, 90, 0, 91, 91, 1)).boxes) == 0
    assert len(within(sample, SMALL.point_range).boxes) == 3


def test_overlap_of_boxes_seen_from_above() -> None:
    base = np.array([[0.0, 0, 0, 4, 2, 1, 0, 0, 0]])
    others = np.array(
        [
            [0, 1.9, 5, 4, 2, 1, 0, 0, 0],
            [0, 2.1, 0, 4, 2, 1, 0, 0, 0],
            [2.8, 1.8, 0, 2, 0.1, 1, -math.pi / 4, 0, 0],
            [2.0, 1.0, 0, 2, 0.1, 1, -math.pi / 4, 0, 0],
        ]
    )
    assert boxes_overlap(base, others)[0].tolist() == [True, False, False, True]
    assert boxes_overlap(others, base)[:, 0].tolist() == [True, False, False, True]


def test_objects_of_other_frames_are_pasted_where_there_is_room(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    box = np.array([8.0, 0.5, -1, 4, 2, 1.6, 0, 0, 0])
    other = example(boxes=0)
    cloud = np.column_stack([generator.uniform(6.5, 9.5, 40), generator.uniform(-0.3, 1.3, 40), np.full((40, 3), -1.0)])
    other.points = np.concatenate([other.points, cloud.astype(np.float32)])
    other.boxes, other.labels = box[None], np.array([0])
    other.images = [np.full((32, 64, 3), 250, np.uint8)] * 4
    store_objects([other], tmp_path)
    store = ObjectStore.read(tmp_path)
    assert [one.label for one in store.by_class[0]] == [0]
    sample = example(boxes=0)
    sample.images = [np.zeros((32, 64, 3), np.uint8)] * 4
    found = paste_objects(sample, store, generator)
    assert len(found.boxes) == 1
    assert points_inside(found.points, box).sum() == points_inside(other.points, box).sum()
    assert found.images[0].max() == 125
    assert sample.images[0].max() == 0
    assert found.images[2].max() == 0
    full = paste_objects(found, store, generator)
    assert len(full.boxes) == 1  # the place is taken


# --- optimiser ---


def test_cycle_rises_to_its_peak_and_beta_falls() -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = make_optimizer(model, 1e-4, 0.01, embedded=False)
    cycle = Cycle(optimizer, 1000, peak=8.0)
    assert cycle.factors(0) == pytest.approx((1, 1))
    assert cycle.factors(400) == pytest.approx((8, 0.85 / 0.95))
    assert cycle.factors(200)[0] == pytest.approx(4.5)
    assert cycle.factors(1000) == pytest.approx((1e-4, 1))
    cycle.set(400)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(8e-4)
    assert optimizer.param_groups[0]["betas"][0] == pytest.approx(0.9 * 0.8947, abs=1e-4)


def test_parts_of_the_network_learn_at_their_own_rates() -> None:
    with torch.device("meta"):
        model = CMT(replace(RELEASED["voxel0100_r50_800x320"]))
    optimizer = make_optimizer(model, 1.4e-4, 0.01, embedded=False)
    rates = {
        (round(g["lr"] / 1.4e-4, 6), round(g["weight_decay"] / 0.01, 6)): sum(p.numel() for p in g["params"])
        for g in optimizer.param_groups
    }
    assert rates == {(0.01, 5.0): 23_508_032, (0.1, 1.0): 1_377_024, (1.0, 1.0): 40_919_572 - 23_508_032 - 1_377_024}
    small = make_optimizer(CMT(TINY), 1e-3, 0.01, embedded=True)
    slow = next(g for g in small.param_groups if g["lr"] == pytest.approx(1e-4))
    assert [p.shape for p in slow["params"]] == [(9, 3)]
    assert slow["weight_decay"] == 0


def test_a_few_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    model, data = CMT(TINY), batch()
    optimizer = make_optimizer(model, 3e-3, 0.01, embedded=True)
    losses = []
    for _ in range(50):
        loss = torch.stack(training_loss(model, data, noise_rule(CMTConfig()), seeded(1))).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without


def test_references_survive_the_logit() -> None:
    x = torch.tensor([0.0, 0.3, 1.0])
    assert inverse_sigmoid(x).sigmoid().tolist() == pytest.approx([0, 0.3, 1], abs=2e-5)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"architecture": "vov"}, "choose small"),
        ({"masking": 0.7}, "masking"),
        ({"steps": 0}, "epochs"),
        ({"lr": 0.0}, "positive"),
        ({"warm_up": 1.0}, "warm_up"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        CMTConfig(**settings)
