"""Importing this module makes EMO known to timm (``timm.create_model("emo_1m")``) and, where it is, mmengine's MODELS.

``MODELS.build({"type": "EMO", "variant": "emo_1m", "out_indices": (1, 2, 3, 4)})`` is a backbone for dense heads.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

from timm.models import register_model
from timm.models._features import FeatureInfo
from torch import nn

from benchsuite.core import ConfigError
from benchsuite_emo.model import EMO_VARIANTS, EMOFeatures, build_emo

__all__ = ["emo_backbone"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class _TimmFeatures(EMOFeatures):
    """Maps with timm's description of them."""

    def __init__(self, network: Any, out_indices: Sequence[int]) -> None:
        super().__init__(network, out_indices)
        widths = (network.shape.stem, *network.shape.widths)
        described = [
            {"num_chs": width, "reduction": 2 ** (i + 1), "module": f"stage{i}"} for i, width in enumerate(widths)
        ]
        self.feature_info = FeatureInfo(described, self.out_indices)


def _entry(variant: str) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise ConfigError(f"{variant} has no weights to download: give checkpoint_path=FILE (the released net.pth)")
        for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            options.pop(name, None)
        channels = options.pop("in_chans", 3)
        if channels != 3:
            raise ConfigError(f"{variant} takes pictures of 3 channels, not {channels}")
        if "drop_path_rate" in options:
            options["drop_path"] = options.pop("drop_path_rate")
        if options.pop("features_only", False):
            options.pop("num_classes", None)
            indices = options.pop("out_indices", (0, 1, 2, 3, 4))
            return _TimmFeatures(build_emo(variant, 0, **options), indices)
        network = build_emo(variant, options.pop("num_classes", 1000), **options)
        network.default_cfg = network.pretrained_cfg = {
            **{"input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": "bicubic", "mean": _MEAN, "std": _STD},
            **{"num_classes": 1000, "classifier": "head", "first_conv": "stage0.0.convs.0.0"},
        }
        return network

    create.__name__, create.__module__ = variant, __name__
    create.__doc__ = f"Return {variant} for timm's ``create_model``."
    return create


def emo_backbone(variant: str = "emo_1m", out_indices: Sequence[int] = (1, 2, 3, 4), **changes: Any) -> EMOFeatures:
    """Return the maps of a variant; ``changes`` are sizes (``window=16``)."""
    return EMOFeatures(build_emo(variant, 0, **changes), out_indices)


for _name in EMO_VARIANTS:
    globals()[_name] = register_model(_entry(_name))

if importlib.util.find_spec("mmengine") is not None:
    from mmengine.registry import MODELS

    MODELS.register_module(name="EMO", module=emo_backbone, force=True)
