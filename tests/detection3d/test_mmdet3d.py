"""Parts of CMT and of its opponent held against mmdet3d 1.4, mmdet and spconv: runs in `tox -e detection3d`."""

from __future__ import annotations

import importlib.machinery
import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mmdet3d", reason="mmdet3d has an environment of its own: tox -e detection3d")

import mmcv
import mmdet.models
import mmdet3d.models
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import LiDARInstance3DBoxes

from benchsuite_baselines.detection3d.heatmap import Grid, bump_radius, decode, heatmap_loss, targets_of
from benchsuite_cmt.architecture import RELEASED
from benchsuite_cmt.augmenting import moved
from benchsuite_cmt.compiled_ops import has_compiled_ops
from benchsuite_cmt.examples import Example
from benchsuite_cmt.image import ResNet50
from benchsuite_cmt.lidar import SECOND, SECONDFPN, SparseEncoder, voxelise
from benchsuite_cmt.losses import focal_cost, focal_loss
from benchsuite_cmt.model import CMT
from benchsuite_cmt.objects import corners_of
from benchsuite_cmt.spconv_engine import SpconvEncoder, patched_spconv
from benchsuite_cmt.weights import official_name

GRID = (41, 128, 128)
RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_operations_are_not_compiled_and_say_so() -> None:
    compiled = importlib.machinery.PathFinder.find_spec("mmcv._ext", mmcv.__path__) is not None
    assert has_compiled_ops() == compiled
    if compiled:
        pytest.skip("mmcv's operations are compiled here")
    from mmcv.ops import nms

    with pytest.raises(NotImplementedError, match="not compiled"):
        nms(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([0.5]), 0.5)


# --- LiDAR branch ---


def their_encoder() -> Any:
    return MODELS.build(
        {
            **{"type": "SparseEncoder", "in_channels": 5, "sparse_shape": list(GRID), "output_channels": 128},
            **{"order": ("conv", "norm", "act"), "block_type": "basicblock"},
            "encoder_channels": ((16, 16, 32), (32, 32, 64), (64, 64, 128), (128, 128)),
            "encoder_paddings": ((0, 0, 1), (0, 0, 1), (0, 0, (0, 1, 1)), (0, 0)),
        }
    )


def released(ours: torch.nn.Module, prefix: str, cut: str, like: Any) -> OrderedDict[str, Any]:
    """Return a state under released names, with the version of the weights' layout that mmdet3d looks for."""
    found = OrderedDict((official_name(f"{prefix}.{k}").removeprefix(cut), v) for k, v in ours.state_dict().items())
    found._metadata = like.state_dict()._metadata  # type: ignore[attr-defined]
    return found


def voxels(count: int = 3000) -> tuple[torch.Tensor, torch.Tensor]:
    columns = [torch.randint(0, n, (count,), generator=seeded(i)) for i, n in enumerate((2, 41, 48, 128))]
    cells = torch.stack(columns, dim=1).unique(dim=0)
    cells = cells[torch.randperm(len(cells), generator=seeded(9))]
    return torch.randn(len(cells), 5, generator=seeded(5)), cells


@pytest.mark.parametrize("training", [False, True])
def test_sparse_encoder_equals_theirs_on_both_engines(training: bool) -> None:
    patched_spconv()
    torch.manual_seed(0)
    ours, theirs, fast = SparseEncoder(), their_encoder(), SpconvEncoder()
    state = released(ours, "bev_encoder.voxels", "pts_middle_encoder.", theirs)
    assert {k: v.shape for k, v in theirs.state_dict().items()} == {k: v.shape for k, v in state.items()}
    theirs.load_state_dict(state)
    fast.load_state_dict(ours.state_dict())
    features, cells = voxels()
    outputs = []
    for model in (ours, theirs, fast):
        model.train(training)
        found = model(features, cells.int(), 2) if model is theirs else model(features, model.plan(cells, GRID), 2)
        push = torch.randn(found.shape, generator=seeded(3))
        (found * push).sum().backward()
        outputs.append(found.detach())
    scale = outputs[0].abs().max()
    assert all((outputs[0] - other).abs().max() < 1e-4 * scale for other in outputs[1:])
    if not training:
        gradients = {
            official_name(f"bev_encoder.voxels.{k}").removeprefix("pts_middle_encoder."): p.grad
            for k, p in ours.named_parameters()
        }
        for name, parameter in theirs.named_parameters():
            mine, other = gradients[name], parameter.grad
            assert mine is not None
            assert (mine - other).norm() < 1e-3 * other.norm().clamp(min=1e-6), name


def test_second_and_its_pyramid_equal_theirs() -> None:
    torch.manual_seed(0)
    ours, neck = SECOND(), SECONDFPN()
    norm = {"type": "BN", "eps": 1e-3, "momentum": 0.01}
    theirs = MODELS.build(
        {
            **{"type": "SECOND", "in_channels": 256, "out_channels": [128, 256], "layer_nums": [5, 5]},
            **{"layer_strides": [1, 2], "norm_cfg": norm, "conv_cfg": {"type": "Conv2d", "bias": False}},
        }
    )
    their_neck = MODELS.build(
        {
            **{"type": "SECONDFPN", "in_channels": [128, 256], "out_channels": [256, 256], "upsample_strides": [1, 2]},
            **{"norm_cfg": norm, "upsample_cfg": {"type": "deconv", "bias": False}, "use_conv_for_no_stride": True},
        }
    )
    assert sum(p.numel() for m in (theirs, their_neck) for p in m.parameters()) == 4_576_768
    theirs.load_state_dict(ours.state_dict())
    their_neck.load_state_dict(neck.state_dict())
    x = torch.randn(2, 256, 16, 16, generator=seeded())
    mine, other = neck(ours(x)), their_neck(theirs(x))[0]
    assert torch.allclose(mine, other, atol=1e-5)


def test_voxels_equal_spconv_s_and_their_means() -> None:
    from spconv.pytorch.utils import PointToVoxel

    patched_spconv()
    size = (0.5, 0.5, 0.5)
    maker = PointToVoxel(list(size), list(RANGE), 5, 100_000, 10)
    cloud = torch.rand(20_000, 5, generator=seeded()) * torch.tensor([30.0, 30, 8, 255, 0.5]) + torch.tensor(
        [-15.0, -15, -5, 0, 0]
    )
    cloud = cloud[((cloud[:, :3] - torch.tensor(RANGE[:3])) / 0.5 % 1).sub(0.5).abs().amax(1) < 0.499]  # no ties
    theirs, cells, counts = maker(cloud)
    vfe = MODELS.build({"type": "HardSimpleVFE", "num_features": 5})
    means = vfe(theirs, counts, None)
    found = voxelise([cloud], RANGE, size, (16, 216, 216), 100_000)
    order = [tuple(c) for c in found.coordinates[:, 1:].tolist()]
    place = {c: i for i, c in enumerate(order)}
    assert sorted(place) == sorted(tuple(c) for c in cells.tolist())
    rows = torch.tensor([place[tuple(c)] for c in cells.tolist()])
    assert torch.allclose(found.features[rows], means, atol=1e-3)


# --- image branch ---


def test_resnet_equals_theirs() -> None:
    torch.manual_seed(0)
    ours = ResNet50().train()
    theirs = mmdet.models.ResNet(depth=50, out_indices=(2, 3), style="pytorch", norm_eval=True)
    theirs.load_state_dict(ours.state_dict())
    theirs.train()
    images = torch.randn(1, 3, 64, 96, generator=seeded())
    with torch.no_grad():
        for mine, other in zip(ours(images), theirs(images), strict=True):
            assert torch.allclose(mine, other, atol=1e-4 * float(other.abs().max()))


# --- boxes and losses ---


def boxes_of(count: int = 20) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    sizes = rng.uniform(0.5, 5, (count, 3))
    return np.concatenate(
        [rng.uniform(-30, 30, (count, 3)), sizes, rng.uniform(-3, 3, (count, 1)), rng.normal(size=(count, 2))], axis=1
    )


def their_boxes(boxes: np.ndarray[Any, Any]) -> Any:
    return LiDARInstance3DBoxes(torch.from_numpy(boxes).float(), box_dim=9, origin=(0.5, 0.5, 0.5))


def as_ours(boxes: Any) -> np.ndarray[Any, Any]:
    return torch.cat([boxes.gravity_center, boxes.tensor[:, 3:]], dim=1).numpy()


def test_corners_equal_theirs() -> None:
    mine, other = corners_of(boxes_of()), their_boxes(boxes_of()).corners.numpy()
    for a, b in zip(mine, other, strict=True):
        assert np.allclose(sorted(map(tuple, a.round(3))), sorted(map(tuple, b.astype(float).round(3))), atol=2e-3)


@pytest.mark.parametrize("what", ["rotate", "scale", "translate", "flip y", "flip x"])
def test_movements_of_the_world_equal_theirs(what: str) -> None:
    boxes, matrix, theirs = boxes_of(), np.eye(4), their_boxes(boxes_of())
    points = np.random.default_rng(1).uniform(-20, 20, (30, 5)).astype(np.float32)
    if what == "rotate":
        angle = 0.6
        matrix[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        turned, _ = theirs.rotate(angle, torch.from_numpy(points[:, :3]).clone().numpy())
    elif what == "scale":
        matrix[:3, :3] *= 1.07
        theirs.scale(1.07)
    elif what == "translate":
        matrix[:3, 3] = [1, -2, 0.3]
        theirs.translate(torch.tensor([1, -2, 0.3]))
    else:
        axis = "yx".index(what[-1])
        matrix[1 - axis, 1 - axis] = -1
        theirs.flip("horizontal" if axis == 0 else "vertical")
    blank = Example(points, [], np.zeros((0, 3, 3)), np.zeros((0, 4, 4)), boxes, np.zeros(len(boxes), int))
    found, other = moved(blank, matrix).boxes, as_ours(theirs)
    assert np.allclose(found[:, :6], other[:, :6], atol=1e-4)
    assert np.allclose(np.exp(1j * found[:, 6]), np.exp(1j * other[:, 6]), atol=1e-4)
    assert np.allclose(found[:, 7:], other[:, 7:], atol=1e-4)
    if what == "rotate":
        assert np.allclose(moved(blank, matrix).points[:, :3], turned, atol=1e-4)


def test_focal_loss_and_cost_equal_theirs() -> None:
    from mmdet.models.losses.focal_loss import py_focal_loss_with_prob, py_sigmoid_focal_loss
    from mmdet.models.task_modules.assigners import FocalLossCost

    logits = torch.randn(30, 10, generator=seeded()) * 3
    labels = torch.randint(0, 11, (30,), generator=seeded(1))
    target = torch.nn.functional.one_hot(labels, 11)[:, :10]
    theirs = py_sigmoid_focal_loss(logits, target, gamma=2.0, alpha=0.25, reduction="sum")
    assert focal_loss(logits, labels).item() == pytest.approx(theirs.item(), rel=1e-5)
    assert py_focal_loss_with_prob is not None
    wanted = torch.tensor([1, 4, 7])
    cost = FocalLossCost(weight=2.0)._focal_loss_cost(logits, wanted)
    assert torch.allclose(2 * focal_cost(logits)[:, wanted], cost, atol=1e-5)


# --- the opponent ---


def test_bumps_equal_centerpoint_s() -> None:
    from mmdet3d.models.utils import draw_heatmap_gaussian, gaussian_radius

    for rows, columns in ((2.0, 4.0), (0.4, 0.4), (7.3, 1.9)):
        theirs = gaussian_radius((torch.tensor(rows), torch.tensor(columns)), min_overlap=0.1)
        assert bump_radius(rows, columns) == pytest.approx(float(theirs), rel=1e-4)
    grid = Grid((-16.0, -16.0), (1.0, 1.0), (32, 32))
    boxes = torch.tensor([[3.3, -2.8, -1, 9.0, 8, 1.6, 0.2, 0, 0], [4.1, -2.2, -1, 8.0, 9, 1, 0, 0, 0]])
    found = targets_of([boxes], [torch.tensor([0, 0])], 1, grid, 2).heat[0, 0]
    expected = torch.zeros(32, 32)
    for box in boxes:
        radius = max(2, int(gaussian_radius((box[4], box[3]), min_overlap=0.1)))
        draw_heatmap_gaussian(expected, (box[:2] + 16).int(), radius)
    assert torch.allclose(found, expected, atol=1e-6)


def test_heat_loss_and_decoding_equal_centerpoint_s() -> None:
    from mmdet.models.losses import GaussianFocalLoss
    from mmdet3d.models.task_modules import CenterPointBBoxCoder

    grid = Grid((-16.0, -16.0), (2.0, 2.0), (16, 16))
    boxes = torch.tensor([[3.3, -2.8, -1, 4.0, 2, 1.6, 0.2, 1, 2], [-9.1, 7.2, -1, 1.0, 1, 1, 0, 0, 0]])
    targets = targets_of([boxes], [torch.tensor([0, 2])], 3, grid, 1)
    logits, codes = torch.randn(1, 3, 16, 16, generator=seeded()), torch.randn(1, 10, 16, 16, generator=seeded(1))
    with_codes = heatmap_loss(logits, codes, targets)
    exact = codes.clone()
    sample, row, column = targets.places.unbind(1)
    exact[sample, :, row, column] = targets.codes
    heat = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    theirs = GaussianFocalLoss(reduction="mean")(heat, targets.heat, avg_factor=2)
    assert heatmap_loss(logits, exact, targets).item() == pytest.approx(theirs.item(), rel=1e-4)
    assert with_codes > heatmap_loss(logits, exact, targets)

    peaks = logits.sigmoid()
    kept = peaks * (torch.nn.functional.max_pool2d(peaks, 3, 1, 1) == peaks)
    coder = CenterPointBBoxCoder(
        pc_range=[-16.0, -16.0],
        out_size_factor=1,
        voxel_size=[2.0, 2.0],
        max_num=20,
        code_size=9,
        post_center_range=[-1e3, -1e3, -1e3, 1e3, 1e3, 1e3],
    )
    parts = [codes[:, 6:7], codes[:, 7:8], codes[:, 2:3], codes[:, 3:6].exp(), codes[:, 8:], codes[:, :2]]
    sine, cosine, height, size, velocity, offset = parts
    other = coder.decode(kept, sine, cosine, height, size, velocity, reg=offset)[0]
    mine = decode(logits, codes, grid, 20)[0]
    assert torch.allclose(mine[0], other["bboxes"], atol=1e-4)
    assert torch.allclose(mine[1], other["scores"])
    assert torch.equal(mine[2], other["labels"].long())


# --- mmdet3d builds it ---


def test_mmdet3d_builds_trains_and_runs_the_network() -> None:
    from mmdet3d.structures import Det3DDataSample
    from mmengine.structures import InstanceData

    import benchsuite_cmt.registries

    assert benchsuite_cmt.registries.MODELS is MODELS
    assert mmdet3d.models.SECOND is not None
    model = MODELS.build({"type": "BenchsuiteCMT", "architecture": "lidar_voxel0075"})
    assert sum(p.numel() for p in model.parameters()) == 16_769_492
    small = CMT.__new__(CMT)  # the smallest grid that the encoder takes, so that the test takes seconds
    from dataclasses import replace

    sizes = replace(
        RELEASED["lidar_voxel0075"],
        point_range=(-6.4, -6.4, -5, 6.4, 6.4, 3),
        voxel_size=(0.2, 0.2, 0.2),
        grid=(41, 64, 64),
        queries=50,
        layers=2,
    )
    CMT.__init__(small, sizes)
    model.network = small
    cloud = torch.rand(400, 5, generator=seeded()) * torch.tensor([12.0, 12, 7, 255, 0]) - torch.tensor(
        [6.0, 6, 5, 0, 0]
    )
    sample = Det3DDataSample(metainfo={"lidar2img": np.zeros((0, 4, 4))})
    boxes = LiDARInstance3DBoxes(torch.tensor([[1.0, 2, -1, 4, 2, 1.6, 0.3, 1, math.nan]]), box_dim=9)
    sample.gt_instances_3d = InstanceData(bboxes_3d=boxes, labels_3d=torch.tensor([3]))
    model.train()
    losses = model({"points": [cloud]}, [sample], mode="loss")
    assert set(losses) == {"loss_cls", "loss_bbox", "dn_loss_cls", "dn_loss_bbox"}
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    model.eval()
    with torch.no_grad():
        found = model({"points": [cloud]}, [sample], mode="predict")[0].pred_instances_3d
    assert found.bboxes_3d.tensor.shape[1] == 9
    assert len(found.scores_3d) == len(found.labels_3d) > 0
