"""Few-shot semantic segmentation: prototypes, a logistic regression an episode, and a small HSNet."""

from __future__ import annotations

from typing import Any

from benchsuite.core import Case, MethodSpec, Preset

_SHARED: dict[str, Any] = {
    "version": "1",
    "role": "baseline",
    "tasks": ("fss",),
    "install": "pip install 'benchsuite[vision]'",
    "card": "benchsuite_baselines:README.md",
}
_TORCH = ("torch", "torchvision")
# As many episodes as MSHNet's published training: 300 epochs of 11,250.
_FULL = {"width": 256, "steps": 306_818, "batch_size": 11}
_FULL_ON_SMALL = tuple(Case({"dataset": name}, {"batch_size": 2}) for name in ("synth-fss", "synth-fss-weak"))


def _row(name: str, title: str, place: str, config: str, presets: dict[str, Preset], *more: str) -> MethodSpec:
    return MethodSpec(
        name=name,
        title=title,
        load=f"benchsuite_baselines.segmentation.{place}",
        config=f"benchsuite_baselines.segmentation.config:{config}",
        presets=presets,
        requires=(*_TORCH, *more),
        **_SHARED,
    )


_PLAIN = {"embedded": Preset(), "paper": Preset()}

METHODS = (
    _row("panet", "PANet: the nearest prototype in a learned embedding of the frozen features",
         "prototypes:PANet", "PANetConfig", {"embedded": Preset(), "paper": Preset(_FULL, _FULL_ON_SMALL)}),
    _row("panet-frozen", "PANet without learning: the nearest prototype of the frozen features",
         "prototypes:FrozenPANet", "FrozenPANetConfig", _PLAIN),
    _row("pixel-logistic", "scikit-learn's logistic regression on the support's frozen features, an episode at a time",
         "logistic:PixelLogistic", "PixelLogisticConfig", _PLAIN, "sklearn"),
    _row("hsnet-small", "HSNet, small: 4-D correlations and centre-pivot convolutions",
         "hsnet:SmallHSNet", "HSNetConfig", {"embedded": Preset()}),
)  # fmt: skip
