"""The nuScenes detection metric once more, box by box and as plainly as can be: what the fast one is held to."""

from __future__ import annotations

import math

import numpy as np

PERIOD = {"barrier": math.pi}


def plain_scores(truth, found, classes):
    """Return mAP, the mean errors by name and the NDS of `SampleBoxes`, by loops over boxes."""
    aps, errors = [], {name: [] for name in ("translation", "scale", "orientation", "velocity", "attribute")}
    for label, name in enumerate(classes):
        for distance in (0.5, 1.0, 2.0, 4.0):
            ap, means = _one(truth, found, label, name, distance)
            aps.append(ap)
            if distance == 2.0:
                for error, value in means.items():
                    if name == "traffic_cone" and error in ("orientation", "velocity", "attribute"):
                        continue
                    if name == "barrier" and error in ("velocity", "attribute"):
                        continue
                    errors[error].append(value)
    mean = {error: sum(values) / len(values) for error, values in errors.items()}
    ap = sum(aps) / len(aps)
    return ap, mean, (5 * ap + sum(max(0.0, 1 - value) for value in mean.values())) / 10


def _one(truth, found, label, name, threshold):
    true = [i for i in range(len(truth)) if truth.labels[i] == label]
    mine = [i for i in range(len(found)) if found.labels[i] == label]
    mine = sorted(mine, key=lambda i: (found.scores[i], i), reverse=True)
    taken, hits, matches = set(), [], []
    for i in mine:
        free = [t for t in true if t not in taken and truth.samples[t] == found.samples[i]]
        nearest = min(free, key=lambda t: (_apart(truth.centres[t], found.centres[i]), t), default=None)
        hit = nearest is not None and _apart(truth.centres[nearest], found.centres[i]) < threshold
        hits.append(hit)
        if hit:
            taken.add(nearest)
            matches.append((nearest, i))
    if not matches:
        return 0.0, dict.fromkeys(("translation", "scale", "orientation", "velocity", "attribute"), 1.0)
    recalls = [sum(hits[: k + 1]) / len(true) for k in range(len(hits))]
    precisions = [sum(hits[: k + 1]) / (k + 1) for k in range(len(hits))]
    scores = [float(found.scores[i]) for i in mine]
    grid = np.linspace(0, 1, 101)
    precision = np.interp(grid, recalls, precisions, right=0)
    confidence = np.interp(grid, recalls, scores, right=0)
    ap = sum(max(p - 0.1, 0.0) for p in precision[11:]) / 90 / 0.9
    last = max((k for k in range(101) if confidence[k] != 0), default=0)
    means = {}
    for error in ("translation", "scale", "orientation", "velocity", "attribute"):
        values = [_error(truth, found, t, i, error, PERIOD.get(name, 2 * math.pi)) for t, i in matches]
        running = []
        for k in range(len(values)):
            known = [value for value in values[: k + 1] if not math.isnan(value)]
            running.append(sum(known) / len(known) if known else 0.0)
        if all(math.isnan(value) for value in values):
            running = [1.0] * len(values)
        own = [float(found.scores[i]) for _, i in matches]
        curve = np.interp(confidence[::-1], own[::-1], running[::-1])[::-1]
        means[error] = 1.0 if last < 11 else sum(curve[11 : last + 1]) / (last - 10)
    return ap, means


def _apart(one, other):
    return math.sqrt((one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2)


def _error(truth, found, t, i, error, period):
    if error == "translation":
        return _apart(truth.centres[t], found.centres[i])
    if error == "scale":
        common = math.prod(min(a, b) for a, b in zip(truth.sizes[t], found.sizes[i], strict=True))
        return 1 - common / (math.prod(truth.sizes[t]) + math.prod(found.sizes[i]) - common)
    if error == "orientation":
        turn = (truth.yaws[t] - found.yaws[i]) % period
        return min(turn, period - turn)
    if error == "velocity":
        return math.dist(truth.velocities[t], found.velocities[i])
    if truth.attributes[t] < 0:
        return math.nan
    return float(truth.attributes[t] != found.attributes[i])
