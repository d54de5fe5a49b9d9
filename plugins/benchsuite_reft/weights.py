"""Saved states: safetensors of this package, and Mask2Former checkpoints in the layout of the transformers library."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from benchsuite.core import ConfigError
from benchsuite_reft.model import RefT
from benchsuite_reft.references import References

_STAGE = "stage"
TUNED = "tuned"
_HEAD = "class_predictor."


def save_state(state: Mapping[str, Tensor], path: Path, facts: Mapping[str, str] | None = None) -> None:
    """Write tensors and a few facts about them as safetensors."""
    save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, path, dict(facts or {}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and facts of a safetensors file, or the plain state dict of a torch file.

    Raises
    ------
    ConfigError
        If the file is neither; nothing in it is executed.
    """
    try:
        if _is_safetensors(path):
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"cannot read the weights {path.name}: {error.strerror or error}") from None
    except Exception as error:  # torch raises many kinds for a file that is not what it should be
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"{path.name} is neither a safetensors file nor a plain state dict: {reason}") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"{path.name} holds no plain state dict: give a mapping of names to tensors")
    return dict(state), {}


def load_facts(path: Path) -> dict[str, str]:
    """Return the facts of a state that this package saved, without its tensors."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_tuned(facts: Mapping[str, str]) -> bool:
    """Say whether a state was saved after tuning, so that nothing is left to train."""
    return facts.get(_STAGE) == TUNED


def tuned_facts(labels: Mapping[int, int]) -> dict[str, str]:
    """Return the facts of a tuned state: its stage, and category id to label."""
    return {_STAGE: TUNED, "labels": json.dumps({str(category): label for category, label in labels.items()})}


def saved_labels(facts: Mapping[str, str]) -> dict[int, int]:
    """Return category id to label of a tuned state's head."""
    return {int(category): int(label) for category, label in json.loads(facts["labels"]).items()}


def load_network(
    body: nn.Module, state: Mapping[str, Tensor], base_places: Sequence[int] | None, name: str
) -> list[str]:
    """Load a checkpoint into a network and return notes on what was not taken as it is.

    Parameters
    ----------
    body
        The network; its class head has a row a base class and one for no object.
    state
        Its names must be the network's own. A head of another size is cut to the base classes if ``base_places`` says
        where they are, and left fresh otherwise.
    base_places
        For a head over all classes: the row of each base class.
    name
        Of the file, for messages.

    Raises
    ------
    ConfigError
        If names or shapes do not fit.
    """
    wanted, notes = body.state_dict(), []
    state = {key: value for key, value in state.items() if key in wanted or not key.startswith("criterion.")}
    missing, unknown = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    missing = [key for key in missing if not key.startswith("criterion.")]
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has {unknown[0]} beyond it"
        raise ConfigError(
            f"--weights {name} does not fit this network: it {what} ({len(missing) + len(unknown)} names)"
        )
    loaded = dict(wanted)
    for key, value in state.items():
        if value.shape == wanted[key].shape:
            loaded[key] = value
        elif key.startswith(_HEAD) and base_places is not None and len(value) > max(base_places) + 1:
            loaded[key] = value[[*base_places, len(value) - 1]]
            notes.append(f"{name} classifies {len(value) - 1} classes, novel ones among them: it has seen their labels")
        elif key.startswith("criterion."):
            continue
        elif key.startswith(_HEAD):
            notes.append(f"the class head of {name} has another size: a fresh one is used")
        else:
            shapes = f"{tuple(value.shape)}, not {tuple(wanted[key].shape)}"
            raise ConfigError(f"--weights {name} does not fit this network: {key} is {shapes}")
    body.load_state_dict(loaded)
    return sorted(set(notes))


def load_model(model: RefT, state: Mapping[str, Tensor], name: str) -> None:
    """Load a state that a run of the same row and settings saved."""
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"--weights {name} does not fit this row with these settings: {reason}") from None


def references_state(references: References) -> dict[str, Tensor]:
    """Return references as flat tensors."""
    centres = {f"centres.{level}": centre for level, centre in enumerate(references.centres)}
    return {**centres, "tokens": references.tokens, "token_labels": references.token_labels}


def restore_references(flat: Mapping[str, Tensor]) -> References:
    """Return references saved by `references_state`."""
    centres = sorted(key for key in flat if key.startswith("centres."))
    return References(tuple(flat[key] for key in centres), flat["tokens"], flat["token_labels"])


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's moments as flat tensors."""
    return {
        f"{index}.{name}": value
        for index, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    """Put moments saved by `optimizer_state` back."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _is_safetensors(path: Path) -> bool:
    """Tell by the header: its length in eight bytes, then JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and 0 < struct.unpack("<Q", start[:8])[0] <= path.stat().st_size
