"""Values of JSON files in the COCO format: taken exactly as they are meant, or refused.

What a function here returns is the only thing that is used afterwards. Everything raises `ValueError` with a reason
that fits into a line; the caller adds the file and the id.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.datasets.json_values import field, number, numbers, shown, whole

_CROWD: tuple[tuple[Any, int], ...] = ((0, 0), (1, 1), ("0", 0), ("1", 1))


def name_of(value: Any, place: int) -> str:
    """Return how to call an entry that may lack its id."""
    return shown(value["id"]) if isinstance(value, dict) and "id" in value else f"number {place + 1} in the file"


def crowd(value: Any) -> int:
    """Return 0 or 1; false and true, and the digits as text, mean the same."""
    for known, meant in _CROWD:
        if value == known:
            return meant
    raise ValueError(f"is {shown(value)}: write 0 or 1")


def box(value: Any, height: int, width: int, slack: float) -> list[float]:
    """Return x, y, width and height in pixels, within the image but for some pixels of ``slack``."""
    found = numbers(value)
    if len(found) != 4:
        raise ValueError(f"is {shown(value)}: it needs a bbox of four numbers")
    x, y, w, h = found
    if w < 0 or h < 0:
        raise ValueError(f"is {shown(value)}: width and height must not be negative")
    if min(x, y) < -slack or x + w > width + slack or y + h > height + slack:
        raise ValueError(
            f"is {shown(value)}, beyond its image of {width} x {height}: give x, y, width, height in pixels"
        )
    return found


def detection(
    found: Mapping[str, Any], sizes: Mapping[int, tuple[int, int]], categories: Collection[int]
) -> tuple[int, int, float]:
    """Return image, category and score of a detection in COCO's results format.

    ``sizes`` are those of the test images, by id; ``categories`` the ids of the data.
    """
    image, category = (field(found, key, whole) for key in ("image_id", "category_id"))
    if image not in sizes:
        raise ValueError(f"image {image} is no test picture: there is no such image")
    if category not in categories:
        raise ValueError(f"category {category} is none of the data: give their ids, not places in a list")
    score = field(found, "score", number)
    if not 0 <= score <= 1:
        raise ValueError(f"score is {shown(score)}: scores lie in [0, 1]")
    return image, category, float(score)


def run_lengths(code: Any, height: int, width: int) -> list[int]:
    """Return the run lengths of a run-length code, columns first, beginning with the background.

    Parameters
    ----------
    code
        ``size`` (height, width) and ``counts``: a list of run lengths or their compressed text.
    height, width
        Of the image.
    """
    if "counts" not in code or "size" not in code:
        raise ValueError("is a run-length mask without size or counts")
    size = code["size"]
    if not isinstance(size, list) or [whole(side) for side in size] != [height, width]:
        raise ValueError(f"has the size {shown(size)}, its image [{height}, {width}] (height, width)")
    counts = code["counts"]
    if isinstance(counts, list):
        found = [whole(count) if type(count) is not str else whole(None) for count in counts]
    elif type(counts) is str and counts.isascii():
        found = _decompressed(counts)
    else:
        raise ValueError(f"has the counts {shown(counts)}: a list of run lengths or their compressed text")
    if sum(found) != height * width:
        raise ValueError(f"has run lengths of {shown(sum(found))} pixels, its image {height * width}")
    return found


def _decompressed(text: str) -> list[int]:
    """Return the numbers of a compressed text: six bits a character, from the third number on as differences."""
    found: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"has the counts {shown(text)}, which are no run-length code")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        if len(found) > 2:
            value += found[-2]
        if value < 0:
            raise ValueError(f"has the counts {shown(text)}, which are no run-length code (a negative length)")
        found.append(value)
        value = shift = 0
    if shift:
        raise ValueError(f"has the counts {shown(text)}, a run-length code that is cut short")
    return found


def polygons(value: Any, height: int, width: int, slack: float) -> list[list[float]]:
    """Return polygons of at least three points, within the image but for some pixels of ``slack``."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"is {shown(value)}: it needs polygons of at least three points (x, y, x, y, ...)")
    for polygon in value:
        points = numbers(polygon)
        if len(points) < 6 or len(points) % 2:
            raise ValueError(f"is {shown(value)}: it needs polygons of at least three points (x, y, x, y, ...)")
        low = min(points)
        if low < -slack or max(points[::2]) > width + slack or max(points[1::2]) > height + slack:
            raise ValueError(
                f"has points beyond its image of {width} x {height}: give x, y in pixels (x, y, x, y, ...)"
            )
    return value


def extent(polygon_points: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """Return the box (x, y, w, h) around polygons."""
    x, y = min(min(p[::2]) for p in polygon_points), min(min(p[1::2]) for p in polygon_points)
    right, bottom = max(max(p[::2]) for p in polygon_points), max(max(p[1::2]) for p in polygon_points)
    return x, y, right - x, bottom - y


Box = Sequence[float]


def apart(first: Box, second: Box, slack: float) -> bool:
    """Return whether two boxes (x, y, w, h) do not even touch, give or take ``slack`` pixels."""
    return any(
        first[i] > second[i] + second[i + 2] + slack or second[i] > first[i] + first[i + 2] + slack for i in (0, 1)
    )


def other_reading(given: Sequence[tuple[Box, Box, tuple[int, int]]]) -> tuple[int, str] | None:
    """Return what most boxes seem to be where they are not x, y, width and height, and the place of the first.

    Parameters
    ----------
    given
        Boxes as given, those around their masks, and height and width of their images.
    """
    if not given:
        return None
    boxes, around = (np.array([entry[i] for entry in given], dtype=np.float64) for i in (0, 1))
    height, width = np.array([entry[2] for entry in given], dtype=np.float64).T
    x, y, w, h = boxes.T
    readings = {
        "two corners (x, y, x, y)": (x, y, w - x, h - y),
        "centre, width and height": (x - w / 2, y - h / 2, w, h),
        "y, x, height and width": (y, x, h, w),
        "fractions of the image": (x * width, y * height, w * width, h * height),
    }
    right = _fits(boxes, around)
    for name, reading in readings.items():
        (places,) = np.nonzero(_fits(np.stack(reading, axis=1), around) & ~right)
        if 2 * len(places) > len(given):
            return int(places[0]), name
    return None


def _fits(boxes: NDArray[np.float64], around: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return for boxes (N, 4) of x, y, width and height whether all edges lie within a pixel and a half of others'."""
    first, last = abs(boxes[:, :2] - around[:, :2]), abs((boxes - around)[:, :2] + (boxes - around)[:, 2:])
    return np.asarray((np.maximum(first, last) <= 1.5).all(axis=1))
