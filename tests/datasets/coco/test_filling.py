"""Polygons filled as OpenCV fills them: by hand, and beside OpenCV where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

from benchsuite.datasets.coco.filling import fill_even_odd


def rows(mask: np.ndarray) -> list[str]:
    return ["".join(".#"[int(value)] for value in row) for row in mask]


def test_outlines_belong_to_the_mask() -> None:
    assert rows(fill_even_odd([[1, 1, 4, 1, 4, 3, 1, 3]], 5, 7)) == [
        ".......",
        ".####..",
        ".####..",
        ".####..",
        ".......",
    ]


def test_corners_are_cut_to_whole_numbers() -> None:
    one = fill_even_odd([[1.9, 1.9, 4.9, 1.9, 4.9, 3.9, 1.9, 3.9]], 5, 7)
    assert np.array_equal(one, fill_even_odd([[1, 1, 4, 1, 4, 3, 1, 3]], 5, 7))


def test_what_two_polygons_cover_is_left_out_but_for_outlines() -> None:
    outer, inner = [0, 0, 8, 0, 8, 8, 0, 8], [2, 2, 6, 2, 6, 6, 2, 6]
    mask = fill_even_odd([outer, inner], 9, 9)
    assert not mask[3:6, 3:6].any()
    assert mask[2, 2:7].all()
    assert mask.sum() == 81 - 9


def test_a_triangle_as_opencv_draws_it() -> None:
    """Taken down from OpenCV 5.0: corners (19, 8), (3, 18), (6, 8) of 20 x 25 pixels."""
    mask = fill_even_odd([[19, 8, 3, 18, 6, 8]], 20, 25)
    lengths = [14, 13, 12, 11, 9, 8, 7, 5, 4, 3, 1]
    assert mask.sum(axis=1).tolist() == [0] * 8 + lengths + [0]
    assert mask[8, 6:20].all()
    assert mask[18, 3]


def test_no_polygon_is_an_empty_mask() -> None:
    assert not fill_even_odd([], 4, 4).any()


def test_what_lies_outside_is_left_out() -> None:
    assert fill_even_odd([[-3, -3, 20, -3, 20, 20, -3, 20]], 6, 5).all()
    assert not fill_even_odd([[10, 10, 14, 10, 12, 14]], 6, 5).any()


@pytest.mark.parametrize("seed", range(40))
def test_equals_opencv(seed: int) -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(5, 60, 2))
    polygons = [
        rng.uniform(0, [width - 1, height - 1], size=(rng.integers(3, 12), 2)).ravel().tolist()
        for _ in range(rng.integers(1, 4))
    ]
    expected = np.zeros((height, width), dtype=np.uint8)
    cv2.fillPoly(expected, [np.array(p).reshape(-1, 2).astype(np.int32) for p in polygons], 1)
    assert np.array_equal(fill_even_odd(polygons, height, width), expected.astype(bool))
