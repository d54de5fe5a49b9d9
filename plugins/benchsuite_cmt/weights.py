"""Checkpoints in the layout of the released ones: {"meta", "state_dict", "optimizer"}, or a bare state dict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchsuite.core import ConfigError
from benchsuite_cmt.model import CMT

__all__ = ["load_backbone", "load_official", "official_name", "official_state", "save_official"]

_STAGE = r"image_encoder\.backbone\.stages\.(\d)\.(\d+)"
_HEAD = "pts_bbox_head."

# Our name -> the released one, which counts some places from 1.
_NAMES: tuple[tuple[str, Any], ...] = (
    (r"image_encoder\.backbone\.stem\.(\d)\.", lambda i: f"img_backbone.stem.stem_{i + 1}/"),
    (_STAGE + r"\.layers\.(\d)\.", lambda s, b, i: f"{_block(s, b)}.layers.{i}.OSA{s + 2}_{b + 1}_{i}/"),
    (_STAGE + r"\.concat\.", lambda s, b: f"{_block(s, b)}.concat.OSA{s + 2}_{b + 1}_concat/"),
    (_STAGE + r"\.gate\.", lambda s, b: f"{_block(s, b)}.ese.fc."),
    (r"image_encoder\.backbone\.", lambda: "img_backbone."),
    (r"image_encoder\.neck\.laterals\.(\d)\.", lambda i: f"img_neck.lateral_convs.{i}.conv."),
    (r"image_encoder\.neck\.smooth\.", lambda: "img_neck.fpn_convs.0.conv."),
    (r"bev_encoder\.voxels\.entry\.conv\.", lambda: "pts_middle_encoder.conv_input.0."),
    (r"bev_encoder\.voxels\.entry\.norm\.", lambda: "pts_middle_encoder.conv_input.1."),
    (r"bev_encoder\.voxels\.blocks\.(\d)\.(\d)\.", lambda s, b: f"{_encoder(s)}.{b}."),
    (r"bev_encoder\.voxels\.downs\.(\d)\.conv\.", lambda s: f"{_encoder(s)}.2.0."),
    (r"bev_encoder\.voxels\.downs\.(\d)\.norm\.", lambda s: f"{_encoder(s)}.2.1."),
    (r"bev_encoder\.voxels\.out\.conv\.", lambda: "pts_middle_encoder.conv_out.0."),
    (r"bev_encoder\.voxels\.out\.norm\.", lambda: "pts_middle_encoder.conv_out.1."),
    (r"bev_encoder\.backbone\.", lambda: "pts_backbone."),
    (r"bev_encoder\.neck\.", lambda: "pts_neck."),
    (r"shared\.0\.", lambda: f"{_HEAD}shared_conv.conv."),
    (r"shared\.1\.", lambda: f"{_HEAD}shared_conv.bn."),
    (r"decoder\.layers\.(\d)\.self_attention\.", lambda i: f"{_layer(i)}.attentions.0.attn."),
    (r"decoder\.layers\.(\d)\.cross_attention\.", lambda i: f"{_layer(i)}.attentions.1.attn."),
    (r"decoder\.layers\.(\d)\.feed_forward\.0\.", lambda i: f"{_layer(i)}.ffns.0.layers.0.0."),
    (r"decoder\.layers\.(\d)\.feed_forward\.2\.", lambda i: f"{_layer(i)}.ffns.0.layers.1."),
    (r"decoder\.layers\.(\d)\.norms\.", lambda i: f"{_layer(i)}.norms."),
    (r"decoder\.norm\.", lambda: f"{_HEAD}transformer.decoder.post_norm."),
    (r"references$", lambda: f"{_HEAD}reference_points.weight"),
    (r"bev_embedding\.", lambda: f"{_HEAD}bev_embedding."),
    (r"ray_embedding\.", lambda: f"{_HEAD}rv_embedding."),
    (r"branches\.", lambda: f"{_HEAD}task_heads.0."),
)
_ENDINGS = (
    (r"\.attn\.in_(weight|bias)$", r".attn.in_proj_\1"),
    (r"\.attn\.out\.", ".attn.out_proj."),
    (r"/0\.", "/conv."),
    (r"/1\.", "/norm."),
)


def _block(stage: int, block: int) -> str:
    return f"img_backbone.stage{stage + 2}.OSA{stage + 2}_{block + 1}"


def _encoder(stage: int) -> str:
    return f"pts_middle_encoder.encoder_layers.encoder_layer{stage + 1}"


def _layer(place: int) -> str:
    return f"{_HEAD}transformer.decoder.layers.{place}"


def official_name(name: str) -> str:
    """Return the released name of a tensor of `CMT`; parts that have no released counterpart keep theirs."""
    for pattern, released in _NAMES:
        match = re.match(pattern, name)
        if match:
            name = released(*map(int, match.groups())) + name[match.end() :]
            break
    for pattern, ending in _ENDINGS:
        name = re.sub(pattern, ending, name)
    return name


def official_state(model: CMT) -> dict[str, Tensor]:
    """Return a model's state under the released names."""
    return {official_name(name): value for name, value in model.state_dict().items()}


def save_official(model: CMT, path: Path) -> None:
    """Write a model's state as the released checkpoints are written."""
    state = {name: value.detach().cpu().clone() for name, value in official_state(model).items()}
    torch.save({"meta": {}, "state_dict": state}, path)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise ConfigError(f"{path.name} is not a checkpoint that can be read safely: {reason}") from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise ConfigError(f"{path.name} is no checkpoint: it holds no mapping of names to tensors")
    return dict(found)


def load_official(model: CMT, path: Path) -> None:
    """Load a checkpoint in the released layout, strictly.

    Raises
    ------
    ConfigError
        If the file is no checkpoint (nothing in it is executed), or its names, shapes or types are not the model's.
    """
    state = _read(path)
    names = {official_name(name): name for name in model.state_dict()}
    _fill(model, state, names, path, "set the architecture, the modality and the classes that it was trained with")


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Load an image backbone from a checkpoint of another detector; what is not of its backbone is left out.

    Raises
    ------
    ConfigError
        As `load_official`.
    """
    state = _read(path)
    prefix = next((p for p in ("img_backbone.", "backbone.") if any(name.startswith(p) for name in state)), "")
    known = {
        official_name(f"image_encoder.backbone.{name}").removeprefix("img_backbone."): name
        for name in backbone.state_dict()
    }
    taken = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    counted = {name: value for name, value in taken.items() if name in known}
    for name, ours in known.items():  # older files do not count batches
        if ours.endswith("num_batches_tracked") and name not in counted:
            counted[name] = torch.tensor(0)
    _fill(backbone, counted, known, path, "set the architecture whose backbone it is")


def _fill(module: nn.Module, state: Mapping[str, Tensor], names: Mapping[str, str], path: Path, advice: str) -> None:
    missing = [name for name in names if name not in state]
    unknown = [name for name in state if name not in names]
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has the unknown {unknown[0]}"
        raise ConfigError(f"{path.name} is no checkpoint of this network: it {what}: {advice}")
    own = module.state_dict()
    for name, value in state.items():
        wanted = own[names[name]]
        if value.shape != wanted.shape or value.dtype != wanted.dtype:
            raise ConfigError(
                f"{path.name}: {name} is {value.dtype} {tuple(value.shape)}, needs {wanted.dtype}"
                f" {tuple(wanted.shape)}: {advice}"
            )
        if not torch.isfinite(value).all():
            raise ConfigError(f"{path.name}: {name} is not finite: the training that saved it went wrong")
    module.load_state_dict({names[name]: value for name, value in state.items()})
