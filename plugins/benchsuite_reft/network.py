"""What both segmentation networks offer, and the class heads that go on them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Reweight = Callable[[list[Tensor]], list[Tensor]]


@dataclass(frozen=True)
class Decoded:
    """Object queries of B images after each of P predictions (before the first and after every decoder layer).

    Attributes
    ----------
    states
        (P, B, N, d) normalised queries.
    mask_logits
        P tensors (B, N, h, w).
    projected
        Outputs of the input projections (B, d, h, w), one a level, coarse to fine.
    objectness
        (B, h, w) logits of "an object's centre is here" for networks that select their queries, else None.
    cells
        (B, N) flat indices of the selected cells, or None.
    """

    states: Tensor
    mask_logits: tuple[Tensor, ...]
    projected: tuple[Tensor, ...]
    objectness: Tensor | None = None
    cells: Tensor | None = None


class Network(nn.Module):
    """A mask transformer without its class head's input: images to object queries and masks.

    Attributes
    ----------
    width, heads, levels, queries
        Hidden width d, attention heads, feature levels that the decoder attends to, and object queries N.
    """

    width: int
    heads: int
    levels: int
    queries: int

    @abstractmethod
    def forward(self, images: Tensor, reweight: Reweight | None = None, cells: Tensor | None = None) -> Decoded:
        """Decode images (B, 3, H, W) in one pass of the backbone.

        Parameters
        ----------
        images
            float32, normalised; H and W are multiples of the coarsest stride.
        reweight
            Applied to the feature levels (coarse to fine) before anything is decoded from them.
        cells
            Take these query cells instead of selecting them (networks with learned queries ignore it).
        """

    @property
    @abstractmethod
    def head(self) -> nn.Module:
        """The class head: (..., d) to (..., C + 1) logits, the last for no object."""

    @abstractmethod
    def replace_head(self, head: nn.Module) -> None:
        """Put another class head in place."""

    @property
    @abstractmethod
    def backbone(self) -> nn.Module:
        """The part that learns at the backbone's rate."""

    @property
    @abstractmethod
    def input_projections(self) -> nn.Module:
        """The layers between backbone and decoder that incremental tuning trains."""


class CosineHead(nn.Module):
    """Cosine classifier with a linear no-object logit; known classes' rows can be kept apart from new ones.

    ``scale * <q / |q|, w_c / |w_c|>``; rows of ``known`` classes precede those of ``novel`` ones.
    """

    def __init__(self, width: int, known: int, novel: int = 0, scale: float = 20.0) -> None:
        super().__init__()
        self.scale = scale
        self.known = nn.Parameter(torch.randn(known, width) * 0.01)
        self.novel = nn.Parameter(torch.randn(novel, width) * 0.01)
        self.no_object = nn.Linear(width, 1)

    def forward(self, states: Tensor) -> Tensor:
        """Return logits (..., C + 1) of states (..., d)."""
        rows = F.normalize(torch.cat([self.known, self.novel]), dim=-1, eps=1e-12)
        classes = self.scale * F.normalize(states, dim=-1, eps=1e-12) @ rows.T
        return torch.cat([classes, self.no_object(states)], dim=-1)


def linear_head(width: int, classes: int) -> nn.Linear:
    """Return a linear head of ``classes`` and no object, with small random rows."""
    head = nn.Linear(width, classes + 1)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head


@torch.no_grad()
def to_cosine(head: nn.Linear, scale: float = 20.0) -> CosineHead:
    """Return the cosine head with the class directions and the no-object logit of a linear one."""
    cosine = CosineHead(head.in_features, head.out_features - 1, scale=scale).to(head.weight.device)
    cosine.known.copy_(head.weight[:-1])
    cosine.no_object.weight.copy_(head.weight[-1:])
    cosine.no_object.bias.copy_(head.bias[-1:])
    return cosine


@torch.no_grad()
def with_novel_rows(head: nn.Module, kept: Sequence[int], novel: int, rows: Tensor | None = None) -> nn.Module:
    """Return the head with ``novel`` classes after those of its classes that are ``kept``.

    Parameters
    ----------
    head
        A linear or a cosine head; the rows of kept classes and of no object are copied.
    kept
        Labels of the head.
    novel
        How many classes to add.
    rows
        (novel, d) directions to start from instead of small random rows.
    """
    if isinstance(head, CosineHead):
        known = torch.cat([head.known, head.novel])[list(kept)]
        cosine = CosineHead(known.shape[1], len(known), novel, head.scale).to(known.device)
        cosine.known.copy_(known)
        cosine.no_object.load_state_dict(head.no_object.state_dict())
        if rows is not None:
            cosine.novel.copy_(rows)
        return cosine
    assert isinstance(head, nn.Linear)
    grown = linear_head(head.in_features, len(kept) + novel).to(head.weight.device)
    places = [*range(len(kept)), len(kept) + novel]
    grown.weight[places] = head.weight[[*kept, -1]]
    grown.bias[places] = head.bias[[*kept, -1]]
    if rows is not None:
        length = head.weight[:-1].norm(dim=1).mean()
        grown.weight[len(kept) : -1] = length * F.normalize(rows, dim=-1)
    return grown
