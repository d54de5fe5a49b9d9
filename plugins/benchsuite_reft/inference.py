"""From predictions to scored instances, as Mask2Former's own inference makes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_DETECTIONS = 100


@dataclass(frozen=True)
class Instance:
    """One predicted object.

    ``label`` is contiguous, ``score`` in [0, 1], ``mask`` (H, W) bool and not empty, ``box`` its tight box: left, top,
    width and height in px.
    """

    label: int
    score: float
    mask: np.ndarray
    box: tuple[float, float, float, float]


def instances_of(
    class_logits: Tensor,
    mask_logits: Tensor,
    padded: tuple[int, int],
    inner: tuple[int, int],
    original: tuple[int, int],
) -> list[Instance]:
    """Return the up to 100 likeliest (query, class) pairs of one image, best first; empty masks are left out.

    Parameters
    ----------
    class_logits, mask_logits
        (N, C + 1) and (N, h, w) of the last prediction.
    padded, inner, original
        Height and width that the network saw, without its padding, and of the image itself.
    """
    probability = class_logits.float().softmax(dim=1)[:, :-1]
    classes = probability.shape[1]
    order = probability.flatten().argsort(descending=True, stable=True)[:_DETECTIONS]
    queries, chosen = torch.unique(order // classes, return_inverse=True)
    masks = F.interpolate(mask_logits[queries][None].float(), padded, mode="bilinear", align_corners=False)
    masks = masks[:, :, : inner[0], : inner[1]]
    if inner != original:
        masks = F.interpolate(masks, original, mode="bilinear", align_corners=False)
    inside = masks[0] > 0
    quality = (masks[0].sigmoid() * inside).sum(dim=(1, 2)) / (inside.sum(dim=(1, 2)) + 1e-6)
    scores = (probability.flatten()[order] * quality[chosen]).cpu().numpy()
    labels, rows, binary = (order % classes).cpu().numpy(), chosen.cpu().numpy(), inside.cpu().numpy()
    ranked = np.argsort(-scores, kind="stable")
    return [
        Instance(int(labels[i]), float(min(scores[i], 1.0)), binary[rows[i]], tight_box(binary[rows[i]]))
        for i in ranked
        if binary[rows[i]].any()
    ]


def tight_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Return left, top, width and height (px) of the tight box of a mask (H, W) that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = float(columns[0]), float(rows[0])
    return left, top, float(columns[-1]) - left + 1, float(rows[-1]) - top + 1
