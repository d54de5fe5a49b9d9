"""The nuScenes detection metric on 600 samples with 30 true and 100 found boxes each, beside the devkit's own.

python benchmarks/bench_nuscenes.py
"""

from __future__ import annotations

import importlib.util
import statistics
import time

import numpy as np

from benchsuite.metrics.nuscenes import RANGES, SampleBoxes, evaluate

SAMPLES, TRUE, FOUND, ROUNDS = 600, 30, 100, 5
CLASSES = tuple(RANGES)


def make_data() -> tuple[SampleBoxes, SampleBoxes]:
    """Return true boxes, and found ones of which most lie near a true one of their sample."""
    rng = np.random.default_rng(0)
    n, m = SAMPLES * TRUE, SAMPLES * FOUND
    truth = SampleBoxes(
        samples=np.repeat(np.arange(SAMPLES), TRUE),
        centres=rng.uniform(-30, 30, (n, 3)),
        sizes=rng.uniform(0.5, 5, (n, 3)),
        yaws=rng.uniform(-np.pi, np.pi, n),
        velocities=rng.normal(0, 3, (n, 2)),
        labels=rng.integers(10, size=n),
        attributes=rng.integers(-1, 3, size=n),
        points=np.full(n, 3),
        scores=np.full(n, -1.0),
    )
    samples = np.repeat(np.arange(SAMPLES), FOUND)
    near = truth[samples * TRUE + rng.integers(TRUE, size=m)]
    return truth, SampleBoxes(
        samples=samples,
        centres=near.centres + rng.normal(0, 1.5, (m, 3)),
        sizes=np.maximum(near.sizes + rng.normal(0, 0.3, (m, 3)), 0.1),
        yaws=near.yaws + rng.normal(0, 0.3, m),
        velocities=near.velocities + rng.normal(0, 1, (m, 2)),
        labels=np.where(rng.random(m) < 0.8, near.labels, rng.integers(10, size=m)),
        attributes=rng.integers(-1, 3, size=m),
        points=np.full(m, -1),
        scores=rng.random(m),
    )


def devkit(truth: SampleBoxes, found: SampleBoxes) -> tuple[float, float]:
    """Return the devkit's mAP and the CPU seconds of its accumulate over classes and distances, boxes made before."""
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.algo import accumulate, calc_ap
    from nuscenes.eval.detection.data_classes import DetectionBox

    names = ("pedestrian.moving", "pedestrian.standing", "vehicle.moving", "")
    config = config_factory("detection_cvpr_2019")
    both = []
    for boxes in (truth, found):
        given = EvalBoxes()
        for i in range(len(boxes)):
            token = str(boxes.samples[i])
            half = boxes.yaws[i] / 2
            box = DetectionBox(
                token,
                tuple(boxes.centres[i]),
                tuple(boxes.sizes[i]),
                (np.cos(half), 0, 0, np.sin(half)),
                tuple(boxes.velocities[i]),
                detection_name=CLASSES[boxes.labels[i]],
                detection_score=float(boxes.scores[i]),
                attribute_name=names[boxes.attributes[i]],
            )
            given.add_boxes(token, [box])
        both.append(given)
    start = time.process_time()
    data = [
        accumulate(*both, name, config.dist_fcn_callable, distance)
        for name in config.class_names
        for distance in config.dist_ths
    ]
    seconds = time.process_time() - start
    return float(np.mean([calc_ap(one, config.min_recall, config.min_precision) for one in data])), seconds


def main() -> None:
    truth, found = make_data()
    evaluate(truth, found, CLASSES)
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        scores = evaluate(truth, found, CLASSES)
        times.append(time.process_time() - start)
    mine = statistics.median(times)
    print(f"benchsuite: {mine:.3f} s (median of {ROUNDS}), mAP {scores.mean_average_precision:.6f}")
    if importlib.util.find_spec("nuscenes") is None:
        print("nuscenes-devkit is not installed: nothing to compare with")
        return
    ap, theirs = devkit(truth, found)
    print(f"nuscenes-devkit: {theirs:.2f} s, mAP {ap:.6f}: {theirs / mine:.0f} times as long")


if __name__ == "__main__":
    main()
