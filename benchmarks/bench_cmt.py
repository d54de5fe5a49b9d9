"""CMT's LiDAR branch beside mmdet3d's on the same input, and the share of loading in a training: CPU seconds.

Sparse encoder (this suite's plain torch, this suite's on spconv, mmdet3d's on spconv), SECOND and its pyramid, with
the same weights; outputs are compared first. Forward, and forward with backward. In turn, so that a busy machine slows
all of them. Without mmdet3d (`tox -e detection3d` has it) the suite's own are timed alone.

python benchmarks/bench_cmt.py [--points FILE.pcd.bin] [--grid 1024] [--repeats 5] [--threads 1] [--loading]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchsuite_cmt.lidar import SECOND, SECONDFPN, SparseEncoder, voxelise
from benchsuite_cmt.weights import official_name

RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
Step = Callable[[], Tensor]


def cloud_of(path: Path | None) -> Tensor:
    """Return a sweep (n, 5): a stored one, or rings on a plane and on walls."""
    if path is not None:
        points = np.fromfile(path, np.float32).reshape(-1, 5)
        return torch.from_numpy(np.column_stack([points[:, :4], np.zeros(len(points), np.float32)]))
    rng = np.random.default_rng(0)
    elevation = np.radians(np.linspace(-30, 10, 32))[:, None]
    azimuth = np.linspace(-np.pi, np.pi, 1085)[None]
    ground = 1.84 / np.maximum(np.tan(-elevation), 1e-3)
    reach = np.minimum(ground, 12 + 25 * np.abs(np.sin(3 * azimuth)) + rng.normal(0, 0.1, azimuth.shape))
    xyz = [reach * np.cos(azimuth), reach * np.sin(azimuth), reach * np.tan(elevation) + 0 * azimuth]
    columns = [c.ravel() for c in xyz]
    return torch.from_numpy(np.column_stack([*columns, rng.uniform(0, 255, columns[0].shape), 0 * columns[0]])).float()


def released(ours: nn.Module, prefix: str, cut: str, like: Any) -> OrderedDict[str, Tensor]:
    found = OrderedDict((official_name(f"{prefix}.{k}").removeprefix(cut), v) for k, v in ours.state_dict().items())
    found._metadata = like.state_dict()._metadata  # type: ignore[attr-defined]
    return found


def their_parts(ours: SparseEncoder, second: SECOND, neck: SECONDFPN, grid: tuple[int, int, int]) -> Any:
    """Return mmdet3d's sparse encoder and its SECOND with pyramid, with the same weights."""
    from benchsuite_cmt.compiled_ops import prepare_mmcv
    from benchsuite_cmt.spconv_engine import patched_spconv

    prepare_mmcv()
    patched_spconv()
    import mmdet3d.models  # noqa: F401
    from mmdet3d.registry import MODELS

    encoder = MODELS.build(
        {
            **{"type": "SparseEncoder", "in_channels": 5, "sparse_shape": list(grid), "output_channels": 128},
            **{"order": ("conv", "norm", "act"), "block_type": "basicblock"},
            "encoder_channels": ((16, 16, 32), (32, 32, 64), (64, 64, 128), (128, 128)),
            "encoder_paddings": ((0, 0, 1), (0, 0, 1), (0, 0, (0, 1, 1)), (0, 0)),
        }
    )
    encoder.load_state_dict(released(ours, "bev_encoder.voxels", "pts_middle_encoder.", encoder))
    norm = {"type": "BN", "eps": 1e-3, "momentum": 0.01}
    their_second = MODELS.build(
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
    their_second.load_state_dict(second.state_dict())
    their_neck.load_state_dict(neck.state_dict())
    return encoder, their_second, their_neck


def in_turn(steps: Mapping[str, Step], repeats: int) -> dict[str, tuple[float, float]]:
    """Return median CPU seconds of forward, and of forward and backward."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            with torch.no_grad():
                start = time.process_time()
                step()
                forward = time.process_time() - start
            start = time.process_time()
            step().sum().backward()
            if turn:  # the first one warms up
                times[name].append((forward, time.process_time() - start))
    return {name: (statistics.median(f for f, _ in t), statistics.median(b for _, b in t)) for name, t in times.items()}


def show(what: str, times: Mapping[str, tuple[float, float]], peer: str) -> None:
    print(f"\n{what:34}{'forward s':>11}{'+backward s':>13}{'as fast as mmdet3d':>26}")
    for name, (forward, both) in times.items():
        relative = f"{times[peer][0] / forward:8.2f} / {times[peer][1] / both:.2f}" if peer in times else ""
        print(f"{name:34}{forward:11.3f}{both:13.3f}{relative:>26}")


def loading(steps: int) -> None:
    """Print the share of preparing batches in a training of the embedded size, on generated frames."""
    from benchsuite.datasets.driving_scenes.generated import load_world_c
    from benchsuite.tasks.detection3d.contract import TrainingScenes
    from benchsuite.tasks.detection3d.sensors import FULL, FrameReader
    from benchsuite_cmt.batches import Batches, head_classes
    from benchsuite_cmt.config import CMTConfig
    from benchsuite_cmt.method import sizes_of
    from benchsuite_cmt.model import CMT
    from benchsuite_cmt.training import _Learner

    data = load_world_c(None, 100)
    learned = data.parts["train"]
    frames = FrameReader.frames(learned, FULL, 0)
    scenes = TrainingScenes(
        data.name,
        data.classes,
        data.channels,
        data.extent,
        frames,
        [f.boxes for f in learned],
        [f.scene for f in learned],
        "",
    )
    config = CMTConfig(masking=0.25)
    sizes, known = sizes_of(config, scenes)
    batches = Batches(scenes, sizes, config, head_classes(scenes.classes, known), 1)
    learner = _Learner.of(CMT(sizes), config, batches.total, "cpu")
    read = time.process_time()
    for place in range(len(learned)):
        batches.source(place)
    read, prepared, learning = time.process_time() - read, 0.0, 0.0
    for step in range(steps):
        start = time.process_time()
        batch = batches.batch(step, "cpu")
        middle = time.process_time()
        learner.step(batches, batch, step, config.clip)
        prepared, learning = prepared + middle - start, learning + time.process_time() - middle
    whole = read + (prepared + learning) / steps * batches.total
    share = (read + prepared / steps * batches.total) / whole
    print(
        f"\nembedded training: reading all frames once {read:.1f} s, a step {1e3 * learning / steps:.0f} ms and"
        f" {1e3 * prepared / steps:.1f} ms for its batch: {batches.total} steps {whole:.0f} s, {share:.1%} loading"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=Path)
    parser.add_argument("--grid", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--loading", action="store_true", help="also the share of loading in the embedded training")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    grid = (41, given.grid, given.grid)
    found = voxelise([cloud_of(given.points)], RANGE, (0.1, 0.1, 0.2), grid, 160_000)
    features, cells = found.features, found.coordinates
    ours, second, neck = SparseEncoder(), SECOND(), SECONDFPN()
    encoders: dict[str, Step] = {"ours, plain torch": lambda: ours(features, ours.plan(cells, grid), 1)}
    bev = torch.randn(1, 256, given.grid // 8, given.grid // 8)
    dense: dict[str, Step] = {"ours": lambda: neck(second(bev))}
    if importlib.util.find_spec("mmdet3d") is not None:
        theirs, their_second, their_neck = their_parts(ours, second, neck, grid)
        from benchsuite_cmt.spconv_engine import SpconvEncoder

        fast = SpconvEncoder()
        fast.load_state_dict(ours.state_dict())
        encoders["ours, spconv"] = lambda: fast(features, fast.plan(cells, grid), 1)
        encoders["mmdet3d, spconv"] = lambda: theirs(features, cells.int(), 1)
        dense["mmdet3d"] = lambda: their_neck(their_second(bev))[0]
        for steps in (encoders, dense):
            outputs = [step().detach() for step in steps.values()]
            apart = max(float((outputs[0] - other).abs().max() / outputs[0].abs().max()) for other in outputs[1:])
            if not apart < 1e-4:
                raise SystemExit(f"outputs are {apart:.2g} apart")
    print(f"torch {torch.__version__}, {given.threads} threads, {len(cells)} voxels in a grid of {grid}")
    show("sparse encoder", in_turn(encoders, given.repeats), "mmdet3d, spconv")
    show("SECOND and its pyramid", in_turn(dense, given.repeats), "mmdet3d")
    if given.loading:
        loading(40)


if __name__ == "__main__":
    main()
