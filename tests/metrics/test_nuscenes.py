"""The nuScenes detection metric: the sheet's numbers, a plain second computation, and the devkit."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from plain_nuscenes import plain_scores

from benchsuite.metrics import nuscenes
from benchsuite.metrics.nuscenes import (
    RANGES,
    Racks,
    SampleBoxes,
    counted,
    evaluate,
    mean_resistance,
    relative_resistance,
    resistance_ability,
)

CLASSES = tuple(RANGES)
ATTRIBUTES = ("pedestrian.moving", "pedestrian.standing", "vehicle.moving")
NO_RACKS = Racks(np.zeros(0, int), np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3, 3)))


def boxes(samples, centres, labels, scores=None, **others) -> SampleBoxes:
    n = len(samples)
    given = {
        "samples": np.asarray(samples, dtype=np.int64),
        "centres": np.asarray(centres, dtype=np.float64).reshape(n, -1),
        "sizes": np.ones((n, 3)),
        "yaws": np.zeros(n),
        "velocities": np.zeros((n, 2)),
        "labels": np.asarray(labels, dtype=np.int64),
        "attributes": np.zeros(n, dtype=np.int64),
        "points": np.full(n, 5),
        "scores": np.full(n, -1.0) if scores is None else np.asarray(scores, dtype=np.float64),
        **others,
    }
    if given["centres"].shape[1] != 3:
        given["centres"] = np.column_stack([given["centres"], np.zeros((n, 3 - given["centres"].shape[1]))])
    return SampleBoxes(**given)


def random_case(seed: int, samples=6, true=14, found=30, classes=10, near=0.8) -> tuple[SampleBoxes, SampleBoxes]:
    """Return true and found boxes, many of these near a true one, with ties and unknown velocities and attributes."""
    rng = np.random.default_rng(seed)

    def some(n, scored):
        return SampleBoxes(
            rng.integers(samples, size=n),
            rng.uniform(-25, 25, (n, 3)),
            rng.uniform(0.5, 5, (n, 3)),
            rng.uniform(-7, 7, n),
            np.where(rng.random((n, 1)) < 0.2, np.nan, rng.normal(0, 3, (n, 2)))
            if not scored
            else rng.normal(0, 3, (n, 2)),
            rng.integers(classes, size=n),
            rng.integers(-1, 3, size=n),
            np.full(n, -1 if scored else 3),
            np.round(rng.random(n), 1) if scored else np.full(n, -1.0),  # one decimal: many are equal
        )

    truth, guesses = some(samples * true, False), some(samples * found, True)
    copied = rng.random(len(guesses)) < near
    source = rng.integers(len(truth), size=int(copied.sum()))
    changed = {}
    for name, spread in (("samples", 0), ("labels", 0), ("centres", 1.0), ("sizes", 0.2), ("yaws", 0.5)):
        values = getattr(guesses, name).copy()
        values[copied] = getattr(truth, name)[source]
        if spread:
            values[copied] += rng.normal(0, spread, values[copied].shape)
        changed[name] = values
    changed["sizes"] = np.maximum(changed["sizes"], 0.1)
    guesses = replace(guesses, **changed)
    order = np.argsort(guesses.samples, kind="stable")  # as a results file has them: sample by sample
    return truth[np.argsort(truth.samples, kind="stable")], guesses[order]


CASES = {
    "many near": {},
    "far": {"near": 0.0},
    "few": {"samples": 2, "true": 3, "found": 4},
    "crowded": {"samples": 2, "true": 60, "found": 200, "classes": 2},
    "classes without truth": {"classes": 4},
    "one class": {"classes": 1, "samples": 3},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_it_equals_a_plain_computation(case, seed):
    truth, found = random_case(seed, **CASES[case])
    scores = evaluate(truth, found, CLASSES)
    ap, errors, nds = plain_scores(truth, found, CLASSES)
    assert scores.mean_average_precision == pytest.approx(ap, abs=1e-9)
    assert {name: scores.mean_error(name) for name in errors} == pytest.approx(errors, abs=1e-9)
    assert scores.nds == pytest.approx(nds, abs=1e-9)


def devkit_scores(truth: SampleBoxes, found: SampleBoxes):
    """Return the devkit's metrics; skips where it is not installed."""
    reason = "nuscenes-devkit is not installed: pip install --no-deps nuscenes-devkit, and what it imports"
    algo = pytest.importorskip("nuscenes.eval.detection.algo", reason=reason)
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.constants import TP_METRICS
    from nuscenes.eval.detection.data_classes import DetectionBox, DetectionMetrics

    config = config_factory("detection_cvpr_2019")

    def theirs(mine: SampleBoxes):
        given = EvalBoxes()
        for sample in range(100):
            given.add_boxes(str(sample), [])
        for i in range(len(mine)):
            attribute = mine.attributes[i]
            box = DetectionBox(
                sample_token=str(mine.samples[i]),
                translation=tuple(mine.centres[i]),
                size=tuple(mine.sizes[i]),
                rotation=(np.cos(mine.yaws[i] / 2), 0, 0, np.sin(mine.yaws[i] / 2)),
                velocity=tuple(mine.velocities[i]),
                num_pts=int(mine.points[i]),
                detection_name=CLASSES[mine.labels[i]],
                detection_score=float(mine.scores[i]),
                attribute_name=ATTRIBUTES[attribute] if attribute >= 0 else "",
            )
            given.add_boxes(box.sample_token, [box])
        return given

    true, guesses = theirs(truth), theirs(found)
    metrics = DetectionMetrics(config)
    undefined = {"traffic_cone": ("attr_err", "vel_err", "orient_err"), "barrier": ("attr_err", "vel_err")}
    for name in config.class_names:
        for distance in config.dist_ths:
            data = algo.accumulate(true, guesses, name, config.dist_fcn_callable, distance)
            metrics.add_label_ap(name, distance, algo.calc_ap(data, config.min_recall, config.min_precision))
            if distance == config.dist_th_tp:
                for error in TP_METRICS:
                    value = algo.calc_tp(data, config.min_recall, error)
                    metrics.add_label_tp(name, error, np.nan if error in undefined.get(name, ()) else value)
    return metrics


def assert_equal_to_devkit(truth: SampleBoxes, found: SampleBoxes) -> None:
    theirs, mine = devkit_scores(truth, found), evaluate(truth, found, CLASSES)
    assert mine.mean_average_precision == pytest.approx(theirs.mean_ap, abs=1e-9)
    names = {"translation": "trans_err", "scale": "scale_err", "orientation": "orient_err"}
    names |= {"velocity": "vel_err", "attribute": "attr_err"}
    for name, their_name in names.items():
        assert mine.mean_error(name) == pytest.approx(theirs.tp_errors[their_name], abs=1e-9), name
    assert mine.nds == pytest.approx(theirs.nd_score, abs=1e-9)
    for label, name in enumerate(CLASSES):
        for place, distance in enumerate(nuscenes.DISTANCES):
            mine_ap = mine.average_precisions[label][place]
            assert mine_ap == pytest.approx(theirs.get_label_ap(name, distance), abs=1e-9)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(100, 104))
def test_it_equals_the_devkit(case, seed):
    assert_equal_to_devkit(*random_case(seed, **CASES[case]))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_it_equals_the_devkit_two_thousand_times(case):
    for seed in range(1000, 1334):
        assert_equal_to_devkit(*random_case(seed, **CASES[case]))


@pytest.mark.parametrize(
    "nasty", ["no found", "no true", "all NaN velocities", "all scores equal", "zero scores", "NaN found"]
)
def test_it_equals_the_devkit_on_nasty_cases(nasty):
    truth, found = random_case(7)
    if nasty == "no found":
        found = found[np.zeros(len(found), dtype=bool)]
    elif nasty == "no true":
        truth = truth[np.zeros(len(truth), dtype=bool)]
    elif nasty == "all NaN velocities":
        truth = replace(truth, velocities=np.full_like(truth.velocities, np.nan), attributes=np.full(len(truth), -1))
    elif nasty == "all scores equal":
        found = replace(found, scores=np.full(len(found), 0.5))
    elif nasty == "zero scores":
        found = replace(found, scores=np.where(found.scores < 0.6, 0.0, found.scores))
    else:
        found = replace(found, velocities=np.where(found.yaws[:, None] > 0, np.nan, found.velocities))
    assert_equal_to_devkit(truth, found)


def test_perfect_boxes_score_one():
    truth, _ = random_case(0, true=60)
    truth = replace(truth, velocities=np.zeros((len(truth), 2)), attributes=np.zeros(len(truth), dtype=np.int64))
    scores = evaluate(truth, replace(truth, scores=np.linspace(0.1, 1, len(truth))), CLASSES)
    assert scores.mean_average_precision == pytest.approx(1.0, abs=1e-9)
    assert scores.nds == pytest.approx(1.0, abs=1e-9)
    assert scores.nds3 == pytest.approx(1.0, abs=1e-9)


def test_half_the_boxes_found():
    """The sheet's: of two boxes one is found, so precision 1 counts at the recalls .11 to .50: 40 of 90."""
    truth = boxes([0, 0], [[0, 0], [10, 0]], [0, 0])
    found = boxes([0], [[0, 0]], [0], [0.9])
    scores = evaluate(truth, found, CLASSES)
    assert scores.average_precisions[0] == pytest.approx([40 / 90] * 4, abs=1e-12)
    assert evaluate(truth[np.array([0])], found, CLASSES).average_precisions[0] == pytest.approx([1.0] * 4)


def test_a_class_without_truth_counts_as_nothing_found():
    truth = boxes([0], [[0, 0]], [0])
    scores = evaluate(truth, boxes([0], [[0, 0]], [1], [1.0]), CLASSES)
    assert scores.mean_average_precision == 0
    assert all(scores.mean_error(error) == 1.0 for error in nuscenes.ERRORS)
    assert scores.nds == 0


def test_of_equal_scores_the_later_is_taken_first():
    truth = boxes([0], [[0, 0]], [0])
    early_right = boxes([0, 0], [[0, 0], [9, 9]], [0, 0], [0.5, 0.5])
    late_right = early_right[np.array([1, 0])]
    low, high = (evaluate(truth, found, CLASSES).average_precisions[0][0] for found in (early_right, late_right))
    assert low == pytest.approx(0.2)  # precision rises linearly to one half
    assert high == pytest.approx((89 * 0.9 + 0.4) / 90 / 0.9)  # at recall 1 the lower precision counts


def test_the_better_box_takes_the_nearest_and_distance_is_strict():
    truth = boxes([0, 0], [[0, 0], [1, 0]], [0, 0])
    found = boxes([0, 0], [[0.6, 0], [0.9, 0]], [0, 0], [0.9, 0.8])
    first = evaluate(truth, found, CLASSES).average_precisions[0]
    # The second finds its neighbour taken and the other 0.9 m away; at recall .5 the lower precision counts.
    assert first[0] == pytest.approx((39 * 0.9 + 0.4) / 90 / 0.9)
    assert first[1] == pytest.approx(1.0)
    on_the_edge = boxes([0], [[0.5, 0]], [0], [1.0])
    only = boxes([0], [[0, 0]], [0])
    assert evaluate(only, on_the_edge, CLASSES).average_precisions[0] == pytest.approx([0, 1, 1, 1])


def test_barriers_look_the_same_from_behind_and_cars_do_not():
    for name, expected in (("barrier", 0.0), ("car", np.pi)):
        truth = boxes([0], [[0, 0]], [CLASSES.index(name)])
        found = boxes([0], [[0, 0]], [CLASSES.index(name)], [1.0], yaws=np.array([np.pi]))
        scores = evaluate(truth, found, CLASSES)
        assert scores.errors["orientation"][CLASSES.index(name)] == pytest.approx(expected)
        assert scores.errors["orientation_half_turn"][CLASSES.index(name)] == pytest.approx(0.0)


def test_a_part_of_the_classes_has_no_nds():
    truth, found = random_case(3, classes=4)
    part = evaluate(truth, found, CLASSES[:4])
    assert part.nds is None
    assert len(part.average_precisions) == 4
    whole = evaluate(truth, found, CLASSES)
    assert whole.mean_average_precision == pytest.approx(0.4 * part.mean_average_precision)


def test_what_counts():
    names = ("car", "traffic_cone", "bicycle", "pedestrian")
    labels = [CLASSES.index(name) for name in names]
    ego = np.array([[100.0, 100.0]])
    given = boxes(
        [0] * 6, [[149.99, 100], [130, 100], [105, 100], [105, 100], [100, 139.9], [105, 103]], [*labels, 3, 7]
    )
    given = replace(given, labels=np.array([*labels[:3], labels[3], labels[0], labels[2]]))
    turned = np.array([[[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]])
    racks = Racks(np.array([0]), np.array([[105.0, 101, 0]]), np.array([[4.0, 1, 2]]), turned)
    # the rack's long side lies along y: the bicycle at (105, 100) is in it, the one at (105, 103.0) on its edge
    assert counted(given, CLASSES, ego, racks).tolist() == [True, False, False, True, True, False]
    assert counted(given, CLASSES, ego, NO_RACKS).tolist() == [True, False, True, True, True, True]
    assert not counted(replace(given, points=np.zeros(6, dtype=np.int64)), CLASSES, ego, NO_RACKS).any()


def test_blocks_change_nothing(monkeypatch):
    truth, found = random_case(5)
    whole = evaluate(truth, found, CLASSES)
    monkeypatch.setattr(nuscenes, "_BLOCK", 7)
    parts = evaluate(truth, found, CLASSES)
    for field in fields(whole):
        assert getattr(parts, field.name) == getattr(whole, field.name)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"centres": np.full((1, 3), np.nan)}, "centres holds NaN"),
        ({"sizes": np.zeros((1, 3))}, "sizes must be positive"),
        ({"velocities": np.zeros((1, 3))}, r"velocities has shape \(1, 3\)"),
        ({"scores": np.array([np.nan])}, "scores hold NaN"),
    ],
)
def test_boxes_that_are_none(wrong, message):
    right = boxes([0], [[0, 0]], [0], [1.0])
    with pytest.raises(ValueError, match=message):
        evaluate(right, replace(right, **wrong), CLASSES)


def test_resistance():
    assert resistance_ability([0.6, 0.4, 0.2], 0.8) == pytest.approx(0.5)
    assert resistance_ability([0.0], 0.0) is None
    assert mean_resistance([0.5, 1.0]) == 0.75
    assert relative_resistance([0.6, 0.6], [0.5, 0.5]) == pytest.approx(0.2)
    assert relative_resistance([0.6], [0.0]) is None
    with pytest.raises(ValueError, match="2 severities beside 1"):
        relative_resistance([0.6, 0.6], [0.5])
