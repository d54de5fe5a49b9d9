"""Backbones by name: the EMO networks and whatever timm has, as classifiers and as maps for dense predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from benchsuite.core import ConfigError
from benchsuite.core.errors import did_you_mean
from benchsuite_emo.model import EMO_VARIANTS, EMOFeatures, build_emo

__all__ = ["DENSE_STRIDES", "build_classifier", "build_features", "unstride_stem"]

DENSE_STRIDES = (4, 8, 16, 32)
"""Strides of the maps that a dense head may ask for."""

Changes = dict[str, Any]


class TimmFeatures(nn.Module):
    """The maps of a timm model at wanted strides.

    Attributes
    ----------
    channels, strides
        Of each of the maps.
    """

    def __init__(self, name: str, strides: Sequence[int]) -> None:
        super().__init__()
        try:
            reductions = _timm_model(name, features_only=True).feature_info.reduction()
        except (RuntimeError, AttributeError, AssertionError) as error:
            raise ConfigError(f"backbone {name} of timm has no maps for dense heads: {error}") from error
        missing = [stride for stride in strides if stride not in reductions]
        if missing:
            raise ConfigError(f"backbone {name} has no map of stride {missing[0]}: it has {sorted(set(reductions))}")
        last = {stride: place for place, stride in enumerate(reductions)}
        self.network = _timm_model(name, features_only=True, out_indices=tuple(last[stride] for stride in strides))
        self.channels = tuple(self.network.feature_info.channels())
        self.strides = tuple(self.network.feature_info.reduction())

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the wanted maps of pictures (B, 3, H, W)."""
        return list(self.network(x))


def build_classifier(name: str, classes: int, changes: Changes) -> nn.Module:
    """Return a network from pictures to logits (B, classes).

    Parameters
    ----------
    name
        A variant of EMO or a model of timm, with random weights.
    classes
        Number of classes.
    changes
        Sizes of an EMO that differ from its variant's; timm's models have none.

    Raises
    ------
    ConfigError
        For a name that neither has.
    """
    if name in EMO_VARIANTS:
        return build_emo(name, classes, **changes)
    _refuse_changes(name, changes)
    return _timm_model(name, num_classes=classes)


def build_features(name: str, strides: Sequence[int], changes: Changes) -> EMOFeatures | TimmFeatures:
    """Return a network from pictures to maps at ``strides``; see `build_classifier`."""
    if name in EMO_VARIANTS:
        return EMOFeatures(build_emo(name, 0, **changes), [stride.bit_length() - 2 for stride in strides])
    _refuse_changes(name, changes)
    return TimmFeatures(name, strides)


def unstride_stem(network: nn.Module) -> None:
    """Let the first convolution with a stride keep the size, so that all maps are twice as large.

    Weights are unchanged. A network that is told to fit small pictures sees them as if they were larger.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            module.stride = (1, 1)
            return
    raise ConfigError("stem_stride=1: this backbone has no convolution of stride 2")


def _refuse_changes(name: str, changes: Changes) -> None:
    if changes:
        raise ConfigError(f"{sorted(changes)[0]} is a setting of EMO networks only: backbone {name} has none")


def _timm_model(name: str, **options: Any) -> Any:
    import timm

    if not timm.is_model(name):
        known = [*EMO_VARIANTS, *timm.list_models()]
        hint = did_you_mean(name, known)
        raise ConfigError(f"there is no backbone {name!r}{hint if len(hint) < 200 else ''}")
    return timm.create_model(name, pretrained=False, **options)
