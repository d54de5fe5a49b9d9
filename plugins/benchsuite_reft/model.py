"""RefT around a segmentation network: support branch, class centres, linked queries, class logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchsuite_reft.network import Decoded, Network
from benchsuite_reft.references import (
    DynamicWeighting,
    LinkLogits,
    QueryLink,
    References,
    Shots,
    nearest_queries,
    pool_masks,
    shot_centres,
)

_INACTIVE = -1e4


@dataclass(frozen=True)
class ReferenceOptions:
    """How the two references are made; see `benchsuite_reft.config.RefTConfig`."""

    mode: Literal["gate", "add"] = "gate"
    temperature: float = 0.1
    queries_per_shot: int = 1
    tokens: Literal["all", "mean"] = "all"
    link_logits: bool = False


@dataclass(frozen=True)
class Prediction:
    """Class logits (P, B, N, C + 1) and what they were decoded from."""

    class_logits: Tensor
    decoded: Decoded


class RefT(nn.Module):
    """A segmentation network that refers to support instances twice; without ``options`` it is the plain network.

    Parameters
    ----------
    network
        Its class head classifies the linked queries.
    options
        None leaves both references out.
    """

    def __init__(self, network: Network, options: ReferenceOptions | None) -> None:
        super().__init__()
        self.network = network
        self.options = options
        if options is not None:
            d, heads = network.width, network.heads
            self.weighting = nn.ModuleList(DynamicWeighting(d, heads, options.mode) for _ in range(network.levels))
            self.link = QueryLink(d, heads)
            self.link_logits = LinkLogits(d) if options.link_logits else None

    @property
    def reference_modules(self) -> list[nn.Module]:
        """The modules that the plain network does not have."""
        if self.options is None:
            return []
        return [self.weighting, self.link, *([self.link_logits] if self.link_logits is not None else [])]

    def forward(self, images: Tensor, references: References | None = None, cells: Tensor | None = None) -> Prediction:
        """Predict the objects of images (B, 3, H, W), all classes in one pass.

        Parameters
        ----------
        images
            float32, normalised.
        references
            Of the support set; None for the plain network.
        cells
            See `Network.forward`.
        """
        if self.options is None or references is None:
            decoded = self.network(images, cells=cells)
            return Prediction(self.network.head(decoded.states), decoded)
        centres = references.centres

        def reweight(levels: list[Tensor]) -> list[Tensor]:
            return [block(*pair) for block, *pair in zip(self.weighting, levels, centres, strict=True)]

        decoded = self.network(images, reweight, cells)
        return Prediction(self._class_logits(decoded.states, references), decoded)

    def _class_logits(self, states: Tensor, references: References) -> Tensor:
        predictions, batch = states.shape[:2]
        logits = self.network.head(self.link(states.flatten(0, 1), references.tokens)).unflatten(
            0, (predictions, batch)
        )
        if self.link_logits is None:
            return logits
        classes = logits.shape[-1] - 1
        added = self.link_logits(states, references, classes)
        return torch.cat([logits[..., :classes] + added, logits[..., classes:]], dim=-1)

    def support(self, images: Tensor, masks: Tensor) -> Shots:
        """Pass support images through the network, each re-weighted by the centre of its own instance.

        Parameters
        ----------
        images
            (S, 3, H, W).
        masks
            (S, H, W) bool, one instance an image.
        """
        centres: list[Tensor] = []
        temperature = self.options.temperature if self.options else ReferenceOptions.temperature

        def reweight(levels: list[Tensor]) -> list[Tensor]:
            for level in levels:
                centres.append(shot_centres(level, pool_masks(masks, (level.shape[2], level.shape[3])), temperature))
            if self.options is None:
                return levels
            own = [centre[:, None] for centre in centres]
            return [block(*pair) for block, *pair in zip(self.weighting, levels, own, strict=True)]

        decoded = self.network(images, reweight)
        count = self.options.queries_per_shot if self.options else 1
        tokens = nearest_queries(decoded.states[-1], decoded.mask_logits[-1], masks, count)
        return Shots(tuple(centres), tokens)

    def references(
        self, images: Tensor, masks: Tensor, labels: Tensor, classes: Sequence[int], at_once: int = 0
    ) -> References:
        """Return the references of ``classes`` from support instances with ``labels`` (S,).

        With ``at_once``, so many images pass through the network at a time and no activations are kept: each part
        passes once more when its gradient is computed, so that a support set of any size fits in memory.
        """
        if at_once == 0:
            shots = self.support(images, masks)
        else:
            parts = zip(images.split(at_once), masks.split(at_once), strict=True)
            shots = Shots.joined([checkpoint(self.support, *part, use_reentrant=False) for part in parts])
        return shots.by_class(labels, classes, self.options.tokens if self.options else "all")


def only_active(class_logits: Tensor, active: Sequence[int] | None) -> Tensor:
    """Return logits (..., C + 1) in which only the ``active`` classes and no object can win; None: all."""
    if active is None:
        return class_logits
    inactive = torch.ones(class_logits.shape[-1], dtype=torch.bool, device=class_logits.device)
    inactive[[*active, -1]] = False
    return class_logits.masked_fill(inactive, _INACTIVE)
