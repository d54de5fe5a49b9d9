"""The sparse encoder on spconv, where that is installed: the same weights, names and results as `SparseEncoder`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchsuite.core import ConfigError
from benchsuite_cmt.lidar import SparseEncoder, SparsePlan
from benchsuite_cmt.model import CMT
from benchsuite_cmt.sparse import Rulebook

__all__ = ["SpconvEncoder", "patched_spconv", "use_spconv"]


def patched_spconv() -> Any:
    """Return ``spconv.pytorch``, whose CPU gradients ask for a CUDA stream where there is none.

    Raises
    ------
    ConfigError
        If spconv is not installed.
    """
    try:
        import spconv.pytorch as spconv
        from spconv.pytorch import ops
    except ImportError as error:
        raise ConfigError(
            "sparse=spconv needs spconv 2.3: see the detection3d environment, or --set sparse=torch"
        ) from error
    if not torch.cuda.is_available():
        ops.get_current_stream = lambda: 0
    return spconv


class SpconvEncoder(SparseEncoder):
    """`SparseEncoder` whose convolutions are spconv's, on coordinates instead of rulebooks."""

    def plan(self, coordinates: Tensor, grid: tuple[int, int, int]) -> SparsePlan:
        """Return coordinates and grid: spconv finds the pairs itself."""
        nothing = coordinates.new_zeros(0)
        return SparsePlan((Rulebook(nothing, nothing, (), coordinates, grid),), ())

    def forward(self, features: Tensor, plan: SparsePlan, samples: int) -> Tensor:
        """See `SparseEncoder.forward`."""
        spconv = patched_spconv()
        first = plan.submanifold[0]
        x = spconv.SparseConvTensor(features, first.coordinates.int(), list(first.shape), samples)
        x = self._layer(spconv, self.entry, x, "0")
        for place, stage in enumerate(self.blocks):
            for block in stage:
                inner = _activated(self._conv(spconv, block.conv1, x, str(place)), block.bn1)
                found = self._conv(spconv, block.conv2, inner, str(place))
                x = found.replace_feature(torch.relu(block.bn2(found.features) + x.features))
            if place < len(self.downs):
                x = self._layer(spconv, self.downs[place], x, "", ((2, 2, 2), self.PADDINGS[place]))
        x = self._layer(spconv, self.out, x, "", ((2, 1, 1), (0, 0, 0)))
        return x.dense().flatten(1, 2)

    def _layer(self, spconv: Any, layer: Any, x: Any, key: str, strided: Any = None) -> Any:
        return _activated(self._conv(spconv, layer.conv, x, key, strided), layer.norm)

    def _conv(self, spconv: Any, conv: nn.Module, x: Any, key: str, strided: Any = None) -> Any:
        """Run one convolution: spconv's module is made once, and borrows the weight."""
        weight: Any = conv.weight
        made = conv.__dict__.get("_spconv")
        if made is None:
            outputs, *kernel, inputs = weight.shape
            if strided is None:
                made = spconv.SubMConv3d(inputs, outputs, kernel, padding=1, bias=False, indice_key=key)
            else:
                made = spconv.SparseConv3d(inputs, outputs, kernel, *strided, bias=False)
            del made.weight
            conv.__dict__["_spconv"] = made
        made.weight = weight
        made.train(conv.training)
        return made(x)


def _activated(x: Any, norm: nn.Module) -> Any:
    return x.replace_feature(torch.relu(norm(x.features)))


def use_spconv(model: CMT) -> None:
    """Let a model convolve its voxels with spconv."""
    patched_spconv()
    encoder: Any = model.bev_encoder
    fast = SpconvEncoder()
    fast.load_state_dict(encoder["voxels"].state_dict())
    encoder["voxels"] = fast
