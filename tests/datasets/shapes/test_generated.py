"""Generated shapes: exact answers, draws, and what tells a class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchsuite.datasets.shapes import SCENES, SHAPES
from benchsuite.datasets.shapes.generated import CLASSES, ShapeScenes, generate, load_shapes, outline

SMALL: dict[str, Any] = {"train": 40, "test": 20}


def _made(draw: int = 0, **changes: Any) -> ShapeScenes:
    return generate("shape-scenes", {**SCENES, **SMALL, **changes}, draw)


@pytest.fixture(scope="module")
def scenes() -> ShapeScenes:
    return _made()


def test_types_and_sizes(scenes: ShapeScenes) -> None:
    part = scenes.train
    assert part.images.shape == (40, 96, 96, 3)
    assert part.images.dtype == part.label_maps.dtype == np.uint8
    assert {found.dtype for found in part.boxes} == {np.dtype(np.float32)}
    assert {found.dtype for found in part.labels} == {np.dtype(np.int64)}
    assert len(scenes.classes) == 10


def test_boxes_and_areas_are_those_of_the_masks(scenes: ShapeScenes) -> None:
    for part in (scenes.train, scenes.test):
        for labels, boxes, areas, image in zip(part.labels, part.boxes, part.areas, part.label_maps, strict=True):
            assert 1 <= len(labels) == len(boxes) == len(areas) <= 4
            assert int((image > 0).sum()) == areas.sum()
            for label, (x1, y1, x2, y2), area in zip(labels, boxes.astype(int), areas, strict=True):
                inside = image[y1:y2, x1:x2] == label + 1
                assert inside.sum() == area
                assert inside[0].any()
                assert inside[-1].any()
                assert inside[:, 0].any()
                assert inside[:, -1].any()


def test_shapes_keep_off_the_edge_and_off_each_other(scenes: ShapeScenes) -> None:
    maps = scenes.train.label_maps
    assert not maps[:, 0].any()
    assert not maps[:, :, -1].any()
    for image in maps:
        for shifted in (image[1:], image[:, 1:]):
            first = image[: shifted.shape[0], : shifted.shape[1]]
            assert not ((first > 0) & (shifted > 0) & (first != shifted)).any()


def test_draws_differ_and_repeat(scenes: ShapeScenes) -> None:
    assert np.array_equal(_made().train.images, scenes.train.images)
    assert _made().test.digest == scenes.test.digest
    assert _made(1).train.digest != scenes.train.digest
    even = _made(train=20, test=20)
    assert not np.array_equal(even.train.images, even.test.images)


def test_single_shapes_show_every_class_equally_often() -> None:
    data = generate("shapes", {**SHAPES, **SMALL}, 3)
    assert all(len(found) == 1 for found in data.train.labels)
    assert np.bincount(np.concatenate(data.train.labels)).tolist() == [4] * 10
    assert data.train.images.shape[1:] == (64, 64, 3)


def test_shapes_are_brighter_than_the_ground() -> None:
    part = generate("shapes", {**SHAPES, **SMALL}, 0).train
    for image, labels in zip(part.images, part.label_maps, strict=True):
        assert image[labels > 0].mean() > image[labels == 0].mean() + 40


def test_colour_and_place_tell_no_class() -> None:
    """Mean colour and centre of the shape, in a linear classifier, do no better than chance allows."""
    from sklearn.linear_model import LogisticRegression

    part = generate("shapes", {**SHAPES, "train": 1000, "test": 10}, 0).train
    features = []
    for image, labels in zip(part.images, part.label_maps, strict=True):
        mask = labels > 0
        features.append([*image[mask].mean(axis=0) / 255, *(np.argwhere(mask).mean(axis=0) / 64)])
    x, y = np.array(features), np.concatenate(part.labels)
    right = LogisticRegression(max_iter=300).fit(x[:700], y[:700]).score(x[700:], y[700:])
    assert right < 0.2


@pytest.mark.parametrize("label", range(len(CLASSES)), ids=CLASSES)
def test_outlines_lie_within_their_circle_and_differ(label: int) -> None:
    centre, radius = np.array([50.0, 50.0]), 40.0
    mask = outline(label, 100, centre, radius, 0.3)
    rows, columns = np.nonzero(mask)
    reach = np.hypot(rows + 0.5 - 50, columns + 0.5 - 50).max()
    assert 0.8 * radius < reach <= 1.1 * radius
    assert 0.1 < mask.sum() / (np.pi * radius**2) < 0.85
    others = [outline(other, 100, centre, radius, 0.3) for other in range(len(CLASSES)) if other != label]
    assert min(int((mask ^ other).sum()) for other in others) > 300


def test_areas_of_outlines_are_those_of_their_formulas() -> None:
    centre, radius = np.array([150.0, 150.0]), 100.0
    found = {name: outline(i, 300, centre, radius, 0.0).sum() / radius**2 for i, name in enumerate(CLASSES)}
    assert found["circle"] == pytest.approx(np.pi * 0.81, rel=0.01)
    assert found["ring"] == pytest.approx(np.pi * (1 - 0.55**2), rel=0.01)
    assert found["half-disk"] == pytest.approx(np.pi / 2, rel=0.01)
    assert found["square"] == pytest.approx(1.4**2, rel=0.02)
    assert found["bar"] == pytest.approx(1.9 * 0.6, rel=0.02)
    assert found["triangle"] == pytest.approx(3 * np.sqrt(3) * 0.5**2, rel=0.02)
    assert found["cross"] == pytest.approx(4 * 0.28 * (2 * 0.9 - 0.28), rel=0.02)
    assert found["star"] == pytest.approx(10 * 0.5 * 0.42 * np.sin(np.pi / 5), rel=0.02)
    assert found["corner"] == pytest.approx(1.5**2 - 0.95**2, rel=0.02)


def test_the_published_sizes() -> None:
    data = load_shapes(None, 0)
    assert data.summary() == {"classes": 10, "training pictures": 1600, "test pictures": 800, "objects": 2400}
