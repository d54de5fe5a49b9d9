"""Mask2Former of the transformers library at full size, with the references at its seams.

The class centres act between the deformable encoder and the feature pyramid's last step, by a hook on the encoder, so
that mask features are made from re-weighted ones. The library's own class stays as it is, and with it the names of its
parameters: public checkpoints load.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig, SwinConfig

from benchsuite_reft.network import Decoded, Network, Reweight

_STAGES = ["stage1", "stage2", "stage3", "stage4"]
_SWIN: dict[str, dict[str, Any]] = {
    "swin-tiny": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "swin-small": {"embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "swin-base": {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12},
}
_RESNET = {"resnet50": [3, 4, 6, 3], "resnet101": [3, 4, 23, 3]}


def backbone_config(name: str) -> ResNetConfig | SwinConfig:
    """Return the configuration of a backbone with maps of strides 4, 8, 16 and 32."""
    outputs: dict[str, Any] = {"out_features": _STAGES}
    if name in _RESNET:
        return ResNetConfig(depths=_RESNET[name], **outputs)
    return SwinConfig(**_SWIN[name], drop_path_rate=0.3, **outputs)


class HFMask2Former(Network):
    """The library's Mask2Former behind the interface of `Network`.

    Parameters
    ----------
    backbone
        ``resnet50``, ``resnet101``, ``swin-tiny``, ``swin-small`` or ``swin-base``.
    classes
        C of the class head.
    sizes
        Settings of the library's configuration that differ from its defaults (the published sizes).
    """

    def __init__(self, backbone: str, classes: int, sizes: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        settings: dict[str, Any] = {"num_labels": classes, **(sizes or {})}
        config = Mask2FormerConfig(backbone_config=backbone_config(backbone), **settings)
        self.body = Mask2FormerForUniversalSegmentation(config)
        # The library makes this parameter by a constructor that does not know the default device.
        pixels = self.body.model.pixel_level_module.decoder
        pixels.level_embed = nn.Parameter(pixels.level_embed.detach().to(torch.empty(0).device))
        self.width, self.heads, self.levels = config.hidden_dim, config.num_attention_heads, 3
        self.queries = config.num_queries

    @property
    def head(self) -> nn.Module:
        """See `Network.head`."""
        return self.body.class_predictor

    def replace_head(self, head: nn.Module) -> None:
        """See `Network.replace_head`."""
        self.body.class_predictor = head

    @property
    def backbone(self) -> nn.Module:
        """See `Network.backbone`."""
        return self.body.model.pixel_level_module.encoder

    @property
    def input_projections(self) -> nn.Module:
        """See `Network.input_projections`."""
        return self.body.model.pixel_level_module.decoder.input_projections

    def forward(self, images: Tensor, reweight: Reweight | None = None, cells: Tensor | None = None) -> Decoded:
        """See `Network.forward`; the queries are learned, ``cells`` are ignored."""
        pixels = self.body.model.pixel_level_module
        projected: list[Tensor] = []
        hooks = [
            layer.register_forward_hook(lambda _module, _inputs, output: projected.append(output))
            for layer in self.input_projections.children()
        ]
        if reweight is not None:
            hooks.append(pixels.decoder.encoder.register_forward_hook(_reweighting(reweight), with_kwargs=True))
        try:
            features = pixels(images, output_hidden_states=True)
        finally:
            for hook in hooks:
                hook.remove()
        decoded = self.body.model.transformer_module(
            multi_scale_features=features.decoder_hidden_states, mask_features=features.decoder_last_hidden_state
        )
        states = torch.stack(decoded.intermediate_hidden_states).transpose(1, 2)  # the library has queries first
        return Decoded(states, tuple(decoded.masks_queries_logits), tuple(projected))


def _reweighting(reweight: Reweight) -> Any:
    """Return a hook that re-weights the flattened levels (B, sum of hw, d) in the encoder's output."""

    def hook(_module: nn.Module, _inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        shapes = named["spatial_shapes_list"]
        flat = output.last_hidden_state
        parts = flat.split([height * width for height, width in shapes], dim=1)
        levels = [part.transpose(1, 2).unflatten(2, tuple(shape)) for part, shape in zip(parts, shapes, strict=True)]
        output.last_hidden_state = torch.cat([level.flatten(2).transpose(1, 2) for level in reweight(levels)], dim=1)
        return output

    return hook


def freeze_batch_norm(network: nn.Module) -> None:
    """Keep statistics and scales of batch norms as they were loaded."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)
