"""3-D detection as nuScenes judges it: average precision by distance of centres, five errors, and the NDS.

A found box is right if its centre lies near that of a true box of its class, seen from above. So precision does not
depend on size and direction; five *true positive errors* do: of place, size, direction, velocity and attribute. The
*nuScenes detection score* (NDS) adds both up.

Conventions
-----------
Boxes of all samples (keyframes) stand in flat arrays, in metres, radians and metres a second, in the global frame.
Their order matters where scores are equal: what comes later is taken first. Labels are places in ``classes``,
attributes any whole numbers with -1 for none.

Metrics
-------
* `evaluate`: average precision of each class at 0.5, 1, 2 and 4 m, its errors at 2 m, and what follows from them: mAP,
  mATE, mASE, mAOE, mAVE, mAAE, NDS.
* `resistance_ability`, `relative_resistance`: what is left of a score under corruptions, by itself and beside a
  baseline (MultiCorrupt).

Sources: H. Caesar et al., nuScenes: A multimodal dataset for autonomous driving, CVPR 2020, section 3.1, and
nuscenes-devkit 1.2.0 with its configuration ``detection_cvpr_2019``, which tests hold this against. T. Beemelmanns
et al., MultiCorrupt, 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RANGES: Mapping[str, float] = {
    **dict.fromkeys(("car", "truck", "bus", "trailer", "construction_vehicle"), 50.0),
    **dict.fromkeys(("pedestrian", "motorcycle", "bicycle"), 40.0),
    **dict.fromkeys(("traffic_cone", "barrier"), 30.0),
}
"""The ten classes, and from how many metres on they do not count."""

DISTANCES = (0.5, 1.0, 2.0, 4.0)
"""Metres within which a centre must lie."""

ERRORS = ("translation", "scale", "orientation", "velocity", "attribute")
"""The true positive errors: metres, 1 - IoU, radians, metres a second, share of wrong attributes."""

MOST_BOXES = 500

_ERROR_DISTANCE = 2.0
_RECALLS = np.linspace(0.0, 1.0, 101)
_FIRST = 11  # the first recall that counts: above 0.1
_LEAST_PRECISION = 0.1
_MAP_WEIGHT = 5.0
_UNDEFINED = {"traffic_cone": ("orientation", "velocity", "attribute"), "barrier": ("velocity", "attribute")}
_IN_RACKS = ("bicycle", "motorcycle")
_BLOCK = 1 << 21
_HALF_TURN = "orientation_half_turn"
_CURVES = (*ERRORS, _HALF_TURN)


@dataclass(frozen=True, eq=False)
class SampleBoxes:
    """Boxes of all samples, true or found.

    Attributes
    ----------
    samples
        (n,) int64: place of the sample that each belongs to.
    centres
        (n, 3) float64.
    sizes
        (n, 3) float64, positive, in the same order of sides for true and found boxes.
    yaws
        (n,) float64.
    velocities
        (n, 2) float64; NaN where unknown: such matches do not count in the error.
    labels
        (n,) int64.
    attributes
        (n,) int64; true boxes with -1 do not count in the error.
    points
        (n,) int64 of true boxes: those with none are left out. -1 of found ones.
    scores
        (n,) float64 of found boxes; anything of true ones.
    """

    samples: NDArray[np.int64]
    centres: Floats
    sizes: Floats
    yaws: Floats
    velocities: Floats
    labels: NDArray[np.int64]
    attributes: NDArray[np.int64]
    points: NDArray[np.int64]
    scores: Floats

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> SampleBoxes:
        """Return the chosen boxes."""
        return SampleBoxes(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True, eq=False)
class Racks:
    """Bicycle racks of all samples.

    Attributes
    ----------
    samples
        (k,) int64.
    centres
        (k, 3) float64.
    sizes
        (k, 3) float64: along the rack's own axes.
    rotations
        (k, 3, 3) float64: the rack's axes, in columns.
    """

    samples: NDArray[np.int64]
    centres: Floats
    sizes: Floats
    rotations: Floats


@dataclass(frozen=True)
class DetectionScores:
    """What was found, judged.

    Attributes
    ----------
    classes
        Names.
    average_precisions
        Of each class, at each of `DISTANCES`.
    errors
        Name of each error to its value of each class; None where the class has none (the velocity of barriers). Besides
        `ERRORS` there is ``orientation_half_turn``, which does not tell front from back.
    objects
        True boxes of each class that count.
    """

    classes: tuple[str, ...]
    average_precisions: tuple[tuple[float, ...], ...]
    errors: Mapping[str, tuple[float | None, ...]]
    objects: tuple[int, ...]

    @property
    def mean_average_precision(self) -> float:
        """Mean over distances, then over classes; one without true boxes counts as 0."""
        return float(np.mean([np.mean(one) for one in self.average_precisions]))

    def mean_error(self, error: str) -> float | None:
        """Return the mean over the classes that have this error; None if none has."""
        known = [value for value in self.errors[error] if value is not None]
        return float(np.mean(known)) if known else None

    @property
    def nds(self) -> float | None:
        """The nuScenes detection score; None for a part of its ten classes."""
        if set(self.classes) != set(RANGES):
            return None
        return self._weighted(ERRORS)

    @property
    def nds3(self) -> float:
        """As the NDS, of three errors: place, size, and direction without telling front from back."""
        return self._weighted(("translation", "scale", _HALF_TURN))

    def _weighted(self, errors: Sequence[str]) -> float:
        found = [self.mean_error(error) for error in errors]
        right = [max(0.0, 1.0 - error) for error in found if error is not None]
        return (_MAP_WEIGHT * self.mean_average_precision + sum(right)) / (_MAP_WEIGHT + len(right))


def validate(boxes: SampleBoxes, what: str) -> None:
    """Raise ValueError with a reason if arrays do not fit together or hold what no box can have."""
    n = len(boxes.samples)
    shapes = {"centres": (n, 3), "sizes": (n, 3), "velocities": (n, 2)}
    for field in fields(boxes):
        shape = getattr(boxes, field.name).shape
        if shape != shapes.get(field.name, (n,)):
            raise ValueError(f"{what}: {field.name} has shape {shape}, needs {shapes.get(field.name, (n,))}")
    for name in ("centres", "sizes", "yaws"):
        if not np.isfinite(getattr(boxes, name)).all():
            raise ValueError(f"{what}: {name} holds NaN or infinity")
    if not (boxes.sizes > 0).all():
        raise ValueError(f"{what}: sizes must be positive, in metres")
    if np.isnan(boxes.scores).any():
        raise ValueError(f"{what}: scores hold NaN")


def counted(boxes: SampleBoxes, classes: Sequence[str], ego: Floats, racks: Racks) -> NDArray[np.bool_]:
    """Return which boxes count: near enough to the car, with a point in them, and no bicycle in a rack.

    Parameters
    ----------
    boxes
        True or found.
    classes
        Names of the labels.
    ego
        (S, 2) float64: x and y of the car in each sample.
    racks
        Of all samples.
    """
    ranges = np.array([RANGES[name] for name in classes])
    apart = boxes.centres[:, :2] - ego[boxes.samples]
    kept = np.sqrt((apart**2).sum(axis=1)) < ranges[boxes.labels]
    kept &= boxes.points != 0
    parked = kept & np.isin(boxes.labels, [i for i, name in enumerate(classes) if name in _IN_RACKS])
    for sample, centre, size, rotation in zip(*(getattr(racks, f.name) for f in fields(racks)), strict=True):
        (near,) = np.nonzero(parked & (boxes.samples == sample))
        inside = np.abs((boxes.centres[near] - centre) @ rotation) <= size / 2  # (m, 3), along the rack's axes
        kept[near[inside.all(axis=1)]] = False
    return kept


def evaluate(truth: SampleBoxes, found: SampleBoxes, classes: Sequence[str]) -> DetectionScores:
    """Return the scores of found boxes; what does not count (see `counted`) was left out before.

    Parameters
    ----------
    truth, found
        Boxes of the same samples.
    classes
        Names of the labels: the ten, or a part of them.

    Raises
    ------
    ValueError
        For boxes that are none; see `validate`.
    """
    validate(truth, "true boxes")
    validate(found, "found boxes")
    precisions, errors, objects = [], [], []
    for label, name in enumerate(classes):
        true = truth[truth.labels == label]
        places = np.flatnonzero(found.labels == label)
        best_first = places[np.lexsort((places, found.scores[places]))[::-1]]  # of equal scores the last first
        one, curves = _class_scores(true, found[best_first], name)
        precisions.append(one)
        errors.append(curves)
        objects.append(len(true))
    return DetectionScores(
        tuple(classes),
        tuple(precisions),
        {error: tuple(of_class[error] for of_class in errors) for error in _CURVES},
        tuple(objects),
    )


def _class_scores(
    truth: SampleBoxes, found: SampleBoxes, name: str
) -> tuple[tuple[float, ...], dict[str, float | None]]:
    """Return average precision at each distance and the errors of one class; found boxes come best first."""
    undefined = _UNDEFINED.get(name, ())
    pairs = _pairs(truth, found)
    precisions = []
    errors: dict[str, float | None] = {error: None if error in undefined else 1.0 for error in ERRORS}
    errors[_HALF_TURN] = errors["orientation"]
    for distance in DISTANCES:
        matched = _match(pairs, distance, len(truth), len(found))
        right = matched >= 0
        if not right.any():
            precisions.append(0.0)
            continue
        hits = np.cumsum(right).astype(float)
        recall = hits / len(truth)
        precision = np.interp(_RECALLS, recall, hits / np.arange(1, len(found) + 1), right=0)
        precisions.append(float(np.mean(np.maximum(precision[_FIRST:] - _LEAST_PRECISION, 0))) / (1 - _LEAST_PRECISION))
        if distance == _ERROR_DISTANCE:
            confidence = np.interp(_RECALLS, recall, found.scores, right=0)
            for error, values in _errors(truth[matched[right]], found[right], name).items():
                if errors[error] is not None:
                    errors[error] = _mean_error(values, found.scores[right], confidence)
    return tuple(precisions), errors


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Found and true boxes of one class that are near each other.

    Attributes
    ----------
    found, true
        (p,) int64: places, by rank of the found box in its sample, then by found box, then by distance.
    distances
        (p,) float64.
    ranks
        (p,) int64: how many better boxes the found one's sample has.
    """

    found: NDArray[np.int64]
    true: NDArray[np.int64]
    distances: Floats
    ranks: NDArray[np.int64]


def _pairs(truth: SampleBoxes, found: SampleBoxes) -> _Pairs:
    by_sample = np.argsort(truth.samples, kind="stable")
    samples = truth.samples[by_sample]
    first = np.searchsorted(samples, found.samples, side="left")
    counts = np.searchsorted(samples, found.samples, side="right") - first  # true boxes in each found one's sample
    near = []
    for start, end in _blocks(counts):  # all pairs at once would take gigabytes
        some = counts[start:end]
        mine = np.repeat(np.arange(start, end), some)
        steps = np.arange(len(mine)) - np.repeat(np.cumsum(some) - some, some)
        true = by_sample[first[mine] + steps]
        apart = found.centres[mine, :2] - truth.centres[true, :2]
        distances = np.sqrt((apart**2).sum(axis=1))
        kept = distances < max(DISTANCES)
        near.append((mine[kept], true[kept], distances[kept]))
    mine, true, distances = (np.concatenate(parts) for parts in zip(*near, strict=True))
    ranks = _ranks(found.samples)[mine]
    order = np.lexsort((true, distances, mine, ranks))
    return _Pairs(mine[order], true[order], distances[order], ranks[order])


def _blocks(counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return where blocks of about `_BLOCK` pairs begin and end, by the number of pairs of each found box."""
    until = np.cumsum(counts)
    inner = np.searchsorted(until, np.arange(_BLOCK, counts.sum(), _BLOCK))
    edges = np.unique([0, *inner.tolist(), len(counts)]).tolist()
    return list(pairwise(edges)) or [(0, 0)]


def _ranks(samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each place how often its value stands before it."""
    order = np.argsort(samples, kind="stable")
    ordered = samples[order]
    ranks = np.empty(len(samples), dtype=np.int64)
    ranks[order] = np.arange(len(samples)) - np.searchsorted(ordered, ordered, side="left")
    return ranks


def _match(pairs: _Pairs, distance: float, n_true: int, n_found: int) -> NDArray[np.int64]:
    """Return for each found box the true one it takes, or -1: best first, each the nearest that is still free.

    Samples do not touch each other, so the boxes of one rank in all samples choose at once.
    """
    near = pairs.distances < distance
    found, true, ranks = pairs.found[near], pairs.true[near], pairs.ranks[near]
    matched = np.full(n_found, -1, dtype=np.int64)
    free = np.ones(n_true, dtype=bool)
    bounds = np.flatnonzero(np.diff(ranks, prepend=-1, append=-1))
    for start, end in pairwise(bounds):
        chosen = start + np.flatnonzero(free[true[start:end]])
        if len(chosen):
            chosen = chosen[np.diff(found[chosen], prepend=-1) != 0]  # the nearest stands first
            matched[found[chosen]] = true[chosen]
            free[true[chosen]] = False
    return matched


def _errors(truth: SampleBoxes, found: SampleBoxes, name: str) -> dict[str, Floats]:
    """Return the errors of matched boxes, each (m,); NaN where one does not count."""
    common = np.minimum(truth.sizes, found.sizes).prod(axis=1)
    union = truth.sizes.prod(axis=1) + found.sizes.prod(axis=1) - common
    turn = truth.yaws - found.yaws
    half_turn = np.abs(_wrapped(turn, np.pi))
    wrong = (truth.attributes != found.attributes).astype(float)
    return {
        "translation": np.linalg.norm(truth.centres[:, :2] - found.centres[:, :2], axis=1),
        "scale": 1 - common / union,
        "orientation": half_turn if name == "barrier" else np.abs(_wrapped(turn, 2 * np.pi)),
        "velocity": np.linalg.norm(truth.velocities - found.velocities, axis=1),
        "attribute": np.where(truth.attributes < 0, np.nan, wrong),
        _HALF_TURN: half_turn,
    }


def _wrapped(angles: Floats, period: float) -> Floats:
    """Return angles within half a period of zero."""
    return np.asarray((angles + period / 2) % period - period / 2)


def _mean_error(values: Floats, scores: Floats, confidence: Floats) -> float:
    """Return the mean over recalls of the running mean of an error, from 0.1 to the highest recall that is reached.

    Parameters
    ----------
    values, scores
        (m,) of the matches, best first.
    confidence
        (101,) score at each recall, 0 beyond the last.
    """
    known = ~np.isnan(values)
    if known.any():
        counts = np.cumsum(known)
        running = np.divide(np.nancumsum(values), counts, out=np.zeros(len(values)), where=counts > 0)
    else:
        running = np.ones(len(values))
    reached = np.flatnonzero(confidence)
    last = int(reached[-1]) if len(reached) else 0
    if last < _FIRST:
        return 1.0
    curve = np.interp(confidence[::-1], scores[::-1], running[::-1])[::-1]
    return float(np.mean(curve[_FIRST : last + 1]))


def resistance_ability(corrupted: Sequence[float], clean: float) -> float | None:
    """Return RA: the mean over severities of a score, as a share of that without corruption; None if that is 0."""
    return float(np.mean(corrupted)) / clean if clean else None


def mean_resistance(abilities: Sequence[float]) -> float:
    """Return mRA: the mean of RA over corruptions."""
    return float(np.mean(abilities))


def relative_resistance(corrupted: Sequence[float], baseline: Sequence[float]) -> float | None:
    """Return RRA: how much more is left than of a baseline, summed over severities; None if nothing is left of that."""
    if len(corrupted) != len(baseline):
        raise ValueError(f"{len(corrupted)} severities beside {len(baseline)} of the baseline: they must be the same")
    return float(np.sum(corrupted)) / float(np.sum(baseline)) - 1.0 if np.sum(baseline) else None
