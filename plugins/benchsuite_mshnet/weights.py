"""Checkpoints in the layout of the released ones: a plain state dict of ``backbone.*`` and ``merge.*``."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from benchsuite.core import ConfigError
from benchsuite.tasks.fewshot_semantic_segmentation.networks import read_state
from benchsuite_mshnet.model import MSHNet

__all__ = ["load_official", "official_state", "save_official"]

# Our name -> the released one. "%" is the place in a list of levels l4, l3, l2, and "@" the level's number.
_NAMES = (
    (r"learner\.gps\.(\d)\.weight", "merge.query_sup_corrConv.%.conv2.weight"),
    (r"learner\.gps_blocks\.(\d)", "merge.qs_layer_corrConv.%"),
    (r"learner\.cosine_blocks\.(\d)", "merge.sim_layer_corrConv.%"),
    (r"learner\.gps_shots\.(\d)", "merge.sqShotConv@"),
    (r"learner\.cosine_shots\.(\d)", "merge.simShotConv@"),
    (r"learner\.merges\.(\d)\.gate", "merge.conv@.chATT"),
    (r"learner\.merges\.(\d)", "merge.conv@"),
    (r"learner\.fuse43\b", "merge.conv43"),
    (r"learner\.fuse432\b", "merge.conv432"),
    (r"learner\.out\b", "merge.decoder1"),
    (r"learner\.heads\.(\d)", "merge.decoder@"),
    (r"learner\.head\b", "merge.decoderOut"),
)


def official_name(name: str) -> str:
    """Return the released name of a tensor of `MSHNet`."""
    for pattern, released in _NAMES:
        match = re.match(pattern, name)
        if match:
            place = int(match[1]) if match.groups() else 0
            return released.replace("%", str(place)).replace("@", str(4 - place)) + name[match.end() :]
    return name


def official_state(model: MSHNet) -> dict[str, Tensor]:
    """Return a model's state under the released names."""
    return {official_name(name): value for name, value in model.state_dict().items()}


def save_official(model: MSHNet, path: Path) -> None:
    """Write a model's state as the released checkpoints are written."""
    torch.save({name: value.detach().cpu().clone() for name, value in official_state(model).items()}, path)


def load_official(model: MSHNet, path: Path) -> None:
    """Load a checkpoint in the released layout.

    Raises
    ------
    ConfigError
        If the file is no plain state dict (nothing in it is executed), or its names, shapes or types are not the
        model's.
    """
    state = read_state(path)
    names = {official_name(name): name for name in model.state_dict()}
    missing = [name for name in names if name not in state]
    unknown = [name for name in state if name not in names]
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has the unknown {unknown[0]}"
        raise ConfigError(
            f"{path.name} is no checkpoint of this MSHNet: it {what}: set the backbone, the similarities and the widths"
            " that it was trained with"
        )
    own = model.state_dict()
    for name, value in state.items():
        _check(path, name, value, own[names[name]])
    model.load_state_dict({names[name]: value for name, value in state.items()})


def _check(path: Path, name: str, value: Tensor, own: Tensor) -> None:
    if value.shape != own.shape or value.dtype != own.dtype:
        raise ConfigError(
            f"{path.name}: {name} is {value.dtype} {tuple(value.shape)}, needs {own.dtype} {tuple(own.shape)}:"
            " set the backbone and the widths that it was trained with"
        )
    if not torch.isfinite(value).all():
        raise ConfigError(f"{path.name}: {name} is not finite: the training that saved it went wrong")


def parameters_of(module: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
