"""Checkpoints: the released layout (names are our own, so nothing is renamed), and what runs of this suite save."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchsuite.core import ConfigError
from benchsuite_emo.model import EMO

__all__ = ["load_backbone", "load_whole", "official_state", "read_state", "save_state"]

_OF_THE_TAIL = ("norm.norm.", "head.", "pre_head.")


def read_state(path: Path) -> dict[str, Any]:
    """Return what a file holds; nothing in it is executed.

    Raises
    ------
    ConfigError
        If there is no such file, or it is not a mapping of names.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise ConfigError(f"{path.name} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(found, Mapping):
        raise ConfigError(f"{path.name} is no checkpoint: it holds a {type(found).__name__}, not names and tensors")
    return dict(found)


def official_state(path: Path, averaged: bool = True) -> dict[str, Tensor]:
    """Return the network's state of a released file: flat, or a kept training with ``net`` and ``net_E``.

    Parameters
    ----------
    path
        The file.
    averaged
        Of a kept training: its averaged weights (``net_E``) or the last ones (``net``).

    Raises
    ------
    ConfigError
        If there are no tensors, or the kept training lacks the wanted weights.
    """
    found = read_state(path)
    if "net" in found or "net_E" in found:
        wanted = "net_E" if averaged else "net"
        if not isinstance(found.get(wanted), Mapping):
            raise ConfigError(f"{path.name} is a kept training without {wanted!r}")
        found = dict(found[wanted])
    wrong = next((name for name, value in found.items() if not isinstance(value, Tensor)), None)
    if wrong is not None or not found:
        raise ConfigError(
            f"{path.name} is no state dict: {wrong!r} is not a tensor" if wrong else f"{path.name} is empty"
        )
    return found


def load_whole(network: nn.Module, path: Path) -> None:
    """Load every tensor of a network, strictly.

    Raises
    ------
    ConfigError
        If names, shapes or types are not the network's, or a value is not finite.
    """
    state, own = official_state(path), network.state_dict()
    missing = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own]
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has the unknown {unknown[0]}"
        raise ConfigError(
            f"{path.name} is no checkpoint of this network: it {what}: set the backbone, the head and the number of"
            " classes that it was trained with"
        )
    for name, value in state.items():
        _check(path, name, value, own[name])
    network.load_state_dict(state)


def load_backbone(network: EMO, path: Path) -> int:
    """Load what a released classifier and this backbone have in common, and return the number of tensors.

    The tail (norm and head) of the file is left out where the backbone has none. A head with fewer rows than there are
    classes is left out, one with more is cut to the first.

    Raises
    ------
    ConfigError
        If a tensor of the backbone is missing, or has another shape or type.
    """
    state, own = official_state(path), network.state_dict()
    if "head.weight" in own and "head.weight" in state:
        rows = len(own["head.weight"])
        for name in ("head.weight", "head.bias"):
            value = state.pop(name)
            state |= {name: value[:rows]} if len(value) >= rows else {}
    missing = [name for name in own if name not in state and not name.startswith("head.")]
    unknown = [name for name in state if name not in own and not name.startswith(_OF_THE_TAIL)]
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has the unknown {unknown[0]}"
        raise ConfigError(f"{path.name} does not fit this backbone: it {what}: set the backbone that it is of")
    taken = {name: value for name, value in state.items() if name in own}
    for name, value in taken.items():
        _check(path, name, value, own[name])
    network.load_state_dict(own | taken)
    return len(taken)


def save_state(network: nn.Module, path: Path) -> None:
    """Write a plain state dict."""
    torch.save({name: value.detach().cpu().clone() for name, value in network.state_dict().items()}, path)


def _check(path: Path, name: str, value: Tensor, own: Tensor) -> None:
    if value.shape != own.shape or value.dtype != own.dtype:
        raise ConfigError(
            f"{path.name}: {name} is {value.dtype} {tuple(value.shape)}, needs {own.dtype} {tuple(own.shape)}: set the"
            " backbone and the head that it was trained with"
        )
    if not torch.isfinite(value).all():
        raise ConfigError(f"{path.name}: {name} is not finite: the training that saved it went wrong")
