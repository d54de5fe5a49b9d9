"""Polygons filled as OpenCV's ``fillPoly`` does: whole-numbered corners, outlines included, overlaps cancel.

Only what few-shot segmentation compares with needs this; `reader.decode_mask` gives the masks of COCO's own tools.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["fill_even_odd"]

_ONE = 1 << 16

Edge = tuple[int, int, int, int]
"""x and y of the first end, x and y of the second."""


def fill_even_odd(polygons: Sequence[Sequence[float]], height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask of all polygons of a class, (height, width) bool.

    A pixel is inside if an odd number of polygons hold it, or it lies on an outline.

    Parameters
    ----------
    polygons
        Each [x, y, x, y, ...] in pixels; coordinates are cut to whole numbers, as the official code does.
    height, width
        Of the image.
    """
    mask = np.zeros((height, width), dtype=bool)
    edges: list[Edge] = []
    for polygon in polygons:
        corners = np.trunc(np.asarray(polygon, dtype=np.float64)).astype(np.int64).reshape(-1, 2)
        joined = np.concatenate([np.roll(corners, 1, axis=0), corners], axis=1)
        edges += [(x0, y0, x1, y1) for x0, y0, x1, y1 in joined.tolist()]
    clipped = [_clip(edge, height, width) for edge in edges]
    _fill_inside(mask, edges, [edge for edge, _ in clipped])
    for edge, visible in clipped:
        if visible:
            _draw_line(mask, edge)
    return mask


def _fill_inside(mask: NDArray[np.bool_], edges: Sequence[Edge], clipped: Sequence[Edge]) -> None:
    """Fill what lies between the first and second, third and fourth ... crossing of each row.

    Rows go by the whole edge, slopes by its visible part.
    """
    height = mask.shape[0]
    whole = np.array(edges, dtype=np.int64).reshape(-1, 4)
    part = np.array(clipped, dtype=np.int64).reshape(-1, 4)
    part = np.where((part[:, 1] == part[:, 3])[:, None], whole, part)
    whole, part = (found[whole[:, 1] != whole[:, 3]] for found in (whole, part))
    top, bottom = np.minimum(whole[:, 1], whole[:, 3]), np.maximum(whole[:, 1], whole[:, 3])
    run, rise = (part[:, 2] - part[:, 0]) * _ONE, part[:, 3] - part[:, 1]
    slope = np.sign(run) * np.sign(rise) * (np.abs(run) // np.abs(rise))  # 16 bits of fraction, cut as in C
    upper = np.where(whole[:, 1] < whole[:, 3], 0, 2)
    x, y = (np.take_along_axis(part, (upper + axis)[:, None], axis=1)[:, 0] for axis in (0, 1))
    for row in range(max(0, int(top.min(initial=height))), min(height, int(bottom.max(initial=0)))):
        active = (top <= row) & (row < bottom)
        crossing = np.sort(x[active] * _ONE + (row - y[active]) * slope[active])
        for left, right in crossing.reshape(-1, 2).tolist():
            mask[row, max(-(-left // _ONE), 0) : max(right // _ONE + 1, 0)] = True


def _draw_line(mask: NDArray[np.bool_], edge: Edge) -> None:
    """Draw Bresenham's line with both ends, from left to right."""
    x0, y0, x1, y1 = edge
    if x1 < x0:
        x0, y0, x1, y1 = x1, y1, x0, y0
    length = max(x1 - x0, abs(y1 - y0))
    steps = np.arange(length + 1)
    if x1 - x0 >= abs(y1 - y0):
        mask[y0 + _minor(steps, y1 - y0, length), x0 + steps] = True
    else:
        mask[y0 + steps * np.sign(y1 - y0), x0 + _minor(steps, x1 - x0, length)] = True


def _minor(steps: NDArray[np.int64], rise: int, length: int) -> NDArray[np.int64]:
    """Return the coordinate that moves less: the whole number nearest to the line, halves towards the start."""
    if length == 0:
        return steps
    return np.asarray(np.sign(rise) * ((2 * steps * abs(rise) + length - 1) // (2 * length)))


def _clip(edge: Edge, height: int, width: int) -> tuple[Edge, bool]:
    """Return the part of an edge that lies in the image, ends cut to whole numbers, and whether there is one."""
    x0, y0, x1, y1 = edge
    first, second = _beyond(x0, y0, height, width), _beyond(x1, y1, height, width)
    if first & second:
        return edge, False
    if first & 12:
        row = 0 if first & 4 else height - 1
        x0, y0 = x0 + int((row - y0) * (x1 - x0) / (y1 - y0)), row
        first = _beyond(x0, y0, height, width)
    if second & 12:
        row = 0 if second & 4 else height - 1
        x1, y1 = x1 + int((row - y1) * (x1 - x0) / (y1 - y0)), row
        second = _beyond(x1, y1, height, width)
    if first & second:
        return (x0, y0, x1, y1), False
    if first:
        column = 0 if first == 1 else width - 1
        x0, y0 = column, y0 + int((column - x0) * (y1 - y0) / (x1 - x0))
    if second:
        column = 0 if second == 1 else width - 1
        x1, y1 = column, y1 + int((column - x1) * (y1 - y0) / (x1 - x0))
    return (x0, y0, x1, y1), True


def _beyond(x: int, y: int, height: int, width: int) -> int:
    """Return on which sides a point lies outside: 1 left, 2 right, 4 above, 8 below."""
    return (x < 0) + 2 * (x >= width) + 4 * (y < 0) + 8 * (y >= height)
