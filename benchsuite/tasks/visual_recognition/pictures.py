"""Sheets of examples: what the test pictures show, and what was predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.tasks.visual_recognition.contract import IGNORED, Pictures

__all__ = ["draw_boxes", "draw_classes", "draw_maps"]

_SIDE = 144
_MARGIN = 6
_LINE = 16
_COLUMNS = 6
_MOST_CLASSIFIED, _MOST_ROWS = 24, 8
_LEAST_SCORE = 0.3
_RIGHT, _WRONG = (20, 120, 60), (200, 40, 40)
_COLOURS = np.array(
    [
        *((0, 0, 0), (230, 60, 60), (50, 120, 230), (40, 170, 80), (240, 160, 20), (160, 70, 200), (20, 180, 190)),
        *((250, 120, 180), (140, 110, 60), (120, 200, 60), (90, 90, 200)),
    ]
)

Shown = tuple[Any, str, tuple[int, int, int]]
"""A panel: picture, a line below it, the colour of the line."""


def draw_classes(
    path: Path, pictures: Pictures, labels: NDArray[np.int64], best: NDArray[np.int64], classes: Sequence[str]
) -> None:
    """Write a PNG of up to 24 pictures, evenly taken: below each the predicted class, and the true one if another."""
    panels: list[Shown] = []
    for place in _evenly(len(pictures), _MOST_CLASSIFIED):
        true, found = int(labels[place]), int(best[place, 0])
        text = classes[found] if found == true else f"{classes[found]}, not {classes[true]}"
        panels.append((_scaled(pictures[place]), text, _RIGHT if found == true else _WRONG))
    _sheet(path, panels, _COLUMNS)


def draw_maps(
    path: Path,
    pictures: Pictures,
    label_map: Callable[[int], NDArray[np.uint8]],
    predicted: Callable[[str, tuple[int, ...]], NDArray[np.uint8]],
    classes: Sequence[str],
) -> None:
    """Write a PNG of up to 8 pictures, evenly taken: picture, true label map, predicted one."""
    panels: list[Shown] = []
    for place in _evenly(len(pictures), _MOST_ROWS):
        truth = label_map(place)
        found = predicted(pictures.names[place], truth.shape)
        counted = truth != IGNORED
        share = float((found == truth)[counted].mean()) if counted.any() else 0.0
        panels.append((_scaled(pictures[place]), pictures.names[place], (0, 0, 0)))
        panels.append((_scaled(_coloured(truth)), "true", (0, 0, 0)))
        panels.append((_scaled(_coloured(found)), f"predicted, {100 * share:.0f} % right", (0, 0, 0)))
    _sheet(path, panels, _COLUMNS)


def draw_boxes(
    path: Path,
    pictures: Pictures,
    ids: Sequence[int],
    true: Sequence[Sequence[tuple[Sequence[float], str]]],
    detections: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
) -> None:
    """Write a PNG of up to 8 pictures, evenly taken: with the true boxes, and with those of a score of at least .3."""
    by_picture: dict[int, list[Mapping[str, Any]]] = {}
    for detection in detections:
        by_picture.setdefault(detection["image_id"], []).append(detection)
    panels: list[Shown] = []
    for place in _evenly(len(pictures), _MOST_ROWS):
        found = [
            (one["bbox"], f"{names[one['category_id']]} {one['score']:.2f}")
            for one in by_picture.get(ids[place], ())
            if one["score"] >= _LEAST_SCORE
        ]
        pixels = pictures[place]
        panels.append((_boxed(pixels, true[place], _RIGHT), f"true: {len(true[place])}", (0, 0, 0)))
        panels.append((_boxed(pixels, found, _WRONG), f"found: {len(found)}", (0, 0, 0)))
    _sheet(path, panels, _COLUMNS)


def _evenly(count: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int)).tolist()


def _coloured(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a label map in colours: 0 is black, what is ignored is white."""
    places = np.where(labels == 0, 0, (labels.astype(int) - 1) % (len(_COLOURS) - 1) + 1)
    return np.where((labels == IGNORED)[..., None], 255, _COLOURS[places]).astype(np.uint8)


def _scaled(pixels: NDArray[np.uint8]) -> Any:
    """Return a picture that fits into a panel."""
    from PIL import Image

    scale = _SIDE / max(pixels.shape[:2])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.NEAREST)


def _boxed(
    pixels: NDArray[np.uint8], boxes: Sequence[tuple[Sequence[float], str]], colour: tuple[int, int, int]
) -> Any:
    from PIL import ImageDraw

    panel = _scaled(pixels)
    pen, scale = ImageDraw.Draw(panel), _SIDE / max(pixels.shape[:2])
    for (x, y, width, height), label in boxes:
        left, top = x * scale, y * scale
        pen.rectangle((left, top, left + max(width * scale, 1), top + max(height * scale, 1)), outline=colour, width=2)
        pen.text((left + 2, top), label, fill="white", stroke_width=2, stroke_fill="black")
    return panel


def _sheet(path: Path, panels: Sequence[Shown], columns: int) -> None:
    """Write panels row by row."""
    from PIL import Image, ImageDraw

    rows = -(-len(panels) // columns)
    wide, high = _SIDE + _MARGIN, _SIDE + _LINE + _MARGIN
    sheet = Image.new("RGB", (min(columns, len(panels)) * wide + _MARGIN, rows * high + _MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (picture, text, colour) in enumerate(panels):
        row, column = divmod(number, columns)
        x, y = _MARGIN + column * wide, _MARGIN + row * high
        sheet.paste(picture, (x, y))
        shown = text.encode("ascii", "replace").decode()
        pen.text((x, y + _SIDE + 1), shown if len(shown) <= 24 else shown[:23] + "...", fill=colour)
    sheet.save(path, optimize=True)
