"""Set prediction losses: Hungarian matching of queries and objects, masks compared on sampled points.

Weights and numbers of points are those of the published Mask2Former configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchsuite_reft.network import Decoded

_CLASS_WEIGHT, _MASK_WEIGHT, _DICE_WEIGHT = 2.0, 5.0, 5.0
_NO_OBJECT_WEIGHT = 0.1
_OVERSAMPLED, _UNCERTAIN = 3, 0.75
_LARGE = 1e6  # stands for a cost that is not finite


@dataclass(frozen=True)
class Target:
    """The labelled objects of one image: labels (G,) int64 and masks (G, H, W) bool."""

    labels: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Matching:
    """Pairs of queries and objects: index tensors (M,) over predictions, images, queries and objects."""

    prediction: Tensor
    image: Tensor
    query: Tensor
    object: Tensor

    def of(self, prediction: int) -> Matching:
        """Return the pairs of one prediction."""
        chosen = self.prediction == prediction
        return Matching(self.prediction[chosen], self.image[chosen], self.query[chosen], self.object[chosen])


@dataclass(frozen=True)
class Normaliser:
    """What sums over a whole batch are divided by, so that parts of a batch add up to it."""

    objects: float
    queries: float

    @classmethod
    def of(cls, targets: Sequence[Target], queries: int) -> Normaliser:
        """Return the numbers of matched objects and of weighted queries, each at least one."""
        matched = sum(min(len(target.labels), queries) for target in targets)
        unmatched = len(targets) * queries - matched
        return cls(max(matched, 1), max(matched + _NO_OBJECT_WEIGHT * unmatched, 1.0))


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Return bilinear samples (M, n, P) of maps (M, n, h, w) at points (M, P, 2), x and y in [0, 1]."""
    return F.grid_sample(maps, 2 * points[:, None] - 1, align_corners=False)[:, :, 0]


def pairwise_costs(class_logits: Tensor, mask_values: Tensor, labels: Tensor, true_values: Tensor) -> Tensor:
    """Return matching costs (..., N, G).

    Parameters
    ----------
    class_logits
        (..., N, C + 1).
    mask_values, true_values
        (..., N, P) logits and (G, P) values in [0, 1] at the same points.
    labels
        (G,) int64.
    """
    points = mask_values.shape[-1]
    likely = class_logits.softmax(dim=-1)[..., labels]
    inside, outside = F.softplus(-mask_values), F.softplus(mask_values)
    cross_entropy = (inside @ true_values.T + outside @ (1 - true_values).T) / points
    probability = mask_values.sigmoid()
    overlap = 2 * probability @ true_values.T
    dice = 1 - (overlap + 1) / (probability.sum(dim=-1, keepdim=True) + true_values.sum(dim=1) + 1)
    return -_CLASS_WEIGHT * likely + _MASK_WEIGHT * cross_entropy + _DICE_WEIGHT * dice


@torch.no_grad()
def match(
    class_logits: Tensor,
    mask_logits: Tensor,
    targets: Sequence[Target],
    points: int,
    generators: Sequence[torch.Generator],
) -> Matching:
    """Match queries to objects at the lowest total cost, for every prediction of every image.

    Parameters
    ----------
    class_logits, mask_logits
        (P, B, N, C + 1) and (B, P, N, h, w).
    targets
        The objects of each of B images.
    points
        Masks are compared at so many uniform random points, the same for all queries of an image.
    generators
        A CPU generator an image, so that its points do not depend on the images beside it.
    """
    found: list[tuple[int, int, int, int]] = []
    for image, target in enumerate(targets):
        if len(target.labels) == 0:
            continue
        where = torch.rand(1, points, 2, generator=generators[image]).to(mask_logits.device)
        predicted = sample_points(mask_logits[image].flatten(0, 1)[None].float(), where)[0]
        true = sample_points(target.masks[None].float(), where)[0]
        cost = pairwise_costs(
            class_logits[:, image].float(), predicted.unflatten(0, mask_logits.shape[1:3]), target.labels, true
        )
        finite = torch.nan_to_num(cost, nan=_LARGE, posinf=_LARGE, neginf=-_LARGE).cpu().numpy()
        for prediction, matrix in enumerate(finite):
            pairs = zip(*linear_sum_assignment(matrix), strict=True)
            found += [(prediction, image, int(query), int(number)) for query, number in pairs]
    columns = torch.tensor(found, dtype=torch.int64, device=mask_logits.device).reshape(-1, 4)
    return Matching(*columns.unbind(dim=1))


def class_loss(class_logits: Tensor, matching: Matching, targets: Sequence[Target], normaliser: Normaliser) -> Tensor:
    """Return the cross-entropy of all queries (P, B, N, C + 1), summed over predictions.

    Queries without an object count as no object at a tenth of the weight.
    """
    classes = class_logits.shape[-1]
    wanted = class_logits.new_full(class_logits.shape[:-1], classes - 1, dtype=torch.long)
    labels = torch.cat([target.labels for target in targets])
    wanted[matching.prediction, matching.image, matching.query] = labels[_places(matching, targets)]
    weight = class_logits.new_ones(classes)
    weight[-1] = _NO_OBJECT_WEIGHT
    total = F.cross_entropy(class_logits.flatten(0, 2).float(), wanted.flatten(), weight, reduction="sum")
    return total / normaliser.queries


def mask_losses(
    mask_logits: Tensor,
    matching: Matching,
    targets: Sequence[Target],
    normaliser: Normaliser,
    points: int,
    generators: Sequence[torch.Generator],
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy and the Dice loss of matched masks on uncertain and random points.

    ``mask_logits`` is (B, P, N, h, w); both losses are summed over predictions. Points come from a generator an image.
    """
    if len(matching.image) == 0:
        nothing = 0.0 * mask_logits.sum()
        return nothing, nothing
    predicted = mask_logits[matching.image, matching.prediction, matching.query].float()  # (M, h, w)
    true = torch.cat([target.masks for target in targets])[_places(matching, targets)].float()  # (M, H, W)
    where = uncertain_points(predicted.detach(), matching.image, points, generators)
    values, wanted = sample_points(predicted[:, None], where)[:, 0], sample_points(true[:, None], where)[:, 0]
    cross_entropy = F.binary_cross_entropy_with_logits(values, wanted, reduction="none").mean(dim=1).sum()
    probability = values.sigmoid()
    dice = 1 - (2 * (probability * wanted).sum(dim=1) + 1) / (probability.sum(dim=1) + wanted.sum(dim=1) + 1)
    return cross_entropy / normaliser.objects, dice.sum() / normaliser.objects


def uncertain_points(mask_logits: Tensor, images: Tensor, points: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Return (M, points, 2): of three times as many random points the least certain three quarters, and random ones.

    Parameters
    ----------
    mask_logits
        (M, h, w).
    images
        (M,) int64, the image of each mask.
    points
        How many to return for each mask.
    generators
        A CPU generator an image.
    """
    drawn = _random_points(images, _OVERSAMPLED * points, generators).to(mask_logits.device)
    uncertain = int(_UNCERTAIN * points)
    order = (-sample_points(mask_logits[:, None], drawn)[:, 0].abs()).topk(uncertain, dim=1).indices
    chosen = drawn.gather(1, order[:, :, None].expand(-1, -1, 2))
    rest = _random_points(images, points - uncertain, generators).to(mask_logits.device)
    return torch.cat([chosen, rest], dim=1)


def _random_points(images: Tensor, points: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Return (M, points, 2) in [0, 1] for masks of ``images`` (M,), each from the generator of its image."""
    found, of_image = torch.empty(len(images), points, 2), images.cpu()
    for number, generator in enumerate(generators):
        own = of_image == number
        if own.any():
            found[own] = torch.rand(int(own.sum()), points, 2, generator=generator)
    return found


def objectness_loss(objectness: Tensor, targets: Sequence[Target], normaliser: Normaliser) -> Tensor:
    """Return a focal loss of "an object's centre is in this cell": (B, h, w) logits against the objects' centroids."""
    wanted = torch.zeros_like(objectness)
    for number, target in enumerate(targets):
        rows, columns = _centroid_cells(target.masks, objectness.shape[1:])
        wanted[number, rows, columns] = 1.0
    probability = objectness.sigmoid()
    error = torch.where(wanted > 0, 1 - probability, probability)
    loss = error.square() * F.binary_cross_entropy_with_logits(objectness, wanted, reduction="none")
    return loss.sum() / normaliser.objects


def set_loss(
    class_logits: Tensor,
    decoded: Decoded,
    targets: Sequence[Target],
    normaliser: Normaliser,
    points: int,
    generators: Sequence[torch.Generator],
) -> tuple[Tensor, Matching]:
    """Return the loss summed over all predictions, and the matching of the last.

    Parameters
    ----------
    class_logits
        (P, B, N, C + 1).
    decoded
        Masks and objectness of the same B images.
    targets, normaliser
        Their objects, and the sizes of the batch that they belong to.
    points
        How many points masks are compared on.
    generators
        A CPU generator an image.
    """
    stacked = torch.stack(decoded.mask_logits, dim=1)
    matching = match(class_logits, stacked.detach(), targets, points, generators)
    cross_entropy, dice = mask_losses(stacked, matching, targets, normaliser, points, generators)
    of_class = class_loss(class_logits, matching, targets, normaliser)
    total = _CLASS_WEIGHT * of_class + _MASK_WEIGHT * cross_entropy + _DICE_WEIGHT * dice
    if decoded.objectness is not None:
        total = total + objectness_loss(decoded.objectness, targets, normaliser)
    return total, matching.of(len(class_logits) - 1)


def _places(matching: Matching, targets: Sequence[Target]) -> Tensor:
    """Return where the matched objects are in the concatenated objects of all images."""
    counts = [0, *(len(target.labels) for target in targets)]
    return torch.tensor(counts[:-1], device=matching.image.device).cumsum(0)[matching.image] + matching.object


def _centroid_cells(masks: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Return the rows and columns of the cells of a grid of ``size`` that hold the centroids of masks (G, H, W)."""
    present = masks[masks.flatten(1).any(dim=1)].float()
    area = present.sum(dim=(1, 2))
    cells = []
    for axis, length, count in ((1, masks.shape[1], size[0]), (2, masks.shape[2], size[1])):
        place = torch.arange(length, device=masks.device, dtype=torch.float32) + 0.5
        mean = (present.sum(dim=3 - axis) * place).sum(dim=1) / area
        cells.append((mean * count / length).long().clamp(max=count - 1))
    return cells[0], cells[1]
