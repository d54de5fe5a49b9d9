"""Sheets for people: what stands around the car and what was found, seen from above and by the cameras."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.datasets.driving_scenes.geometry import Floats, corners, inverse, moved, placed
from benchsuite.datasets.driving_scenes.scenes import Boxes, DrivingScenes, Keyframe
from benchsuite.tasks.detection3d.contract import CameraView, Frame
from benchsuite.tasks.detection3d.judge import Found
from benchsuite.tasks.detection3d.sensors import Condition, FrameReader, shown

__all__ = ["draw_sheet", "lines_in_view"]

_TRUE, _FOUND, _POINT = (30, 160, 60), (220, 40, 40), (150, 150, 150)
_EXAMPLES = 2
_LEAST_SCORE = 0.2
_SIDE = 420
_VIEW = 300
_MARGIN, _LINE = 6, 14
_NEAREST = 0.3  # metres before a camera from which on edges are drawn
_EDGES = (
    *((i, (i + 1) % 4) for i in range(4)),
    *((i + 4, (i + 1) % 4 + 4) for i in range(4)),
    *((i, i + 4) for i in range(4)),
)


def draw_sheet(
    path: Path, condition: Condition, keyframes: Sequence[Keyframe], found: Sequence[Found], scenes: DrivingScenes
) -> None:
    """Write a PNG of two keyframes under a condition: from above, and by every camera; true boxes green, found red.

    Found boxes with a score of at least 0.2 are shown.
    """
    from PIL import Image, ImageDraw

    frames = FrameReader.frames(keyframes, condition, 0)
    places = np.unique(np.linspace(0, len(keyframes) - 1, min(_EXAMPLES, len(keyframes))).round().astype(int)).tolist()
    rows = [_panels(frames[place], keyframes[place], found[place], scenes) for place in places]
    width = max(sum(panel.width + _MARGIN for panel in row) for row in rows) + _MARGIN
    sheet = Image.new("RGB", (width, len(rows) * (_SIDE + _LINE + _MARGIN) + _MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (row, place) in enumerate(zip(rows, places, strict=True)):
        x, y = _MARGIN, _MARGIN + number * (_SIDE + _LINE + _MARGIN)
        text = f"{shown(condition)}: {keyframes[place].token}; true green, found red"
        pen.text((x, y), text.encode("ascii", "replace").decode(), fill="black")
        for panel in row:
            sheet.paste(panel, (x, y + _LINE))
            x += panel.width + _MARGIN
    sheet.save(path)


def _panels(frame: Frame, key: Keyframe, found: Found, scenes: DrivingScenes) -> list[Any]:
    """Return a keyframe from above, then its cameras in two rows."""
    from PIL import Image

    to_lidar = inverse(key.ego_to_global @ key.lidar_to_ego)
    guessed = moved(found.boxes[found.scores >= _LEAST_SCORE], to_lidar)
    true = key.boxes[key.boxes.points != 0]
    from_above = _from_above(frame.points, true, guessed, scenes.extent)
    columns = -(-len(frame.views) // 2)
    height = (_SIDE - _MARGIN) // 2
    views = [_view(view, true, guessed, height) for view in frame.views]
    wide = max(view.width for view in views)
    grid = Image.new("RGB", (columns * (wide + _MARGIN), _SIDE), "white")
    for number, view in enumerate(views):
        grid.paste(view, ((number % columns) * (wide + _MARGIN), (number // columns) * (height + _MARGIN)))
    return [from_above, grid]


def _from_above(points: NDArray[np.float32] | None, true: Boxes, found: Boxes, extent: Sequence[float]) -> Any:
    """Return points and boxes seen from above: the LiDAR's y axis points up."""
    from PIL import Image, ImageDraw

    low, high = np.array(extent[:2]), np.array(extent[3:5])
    scale = _SIDE / float((high - low).max())

    def pixels(xy: NDArray[Any]) -> NDArray[Any]:
        return np.stack([(xy[..., 0] - low[0]) * scale, (high[1] - xy[..., 1]) * scale], axis=-1)

    canvas = np.full((_SIDE, _SIDE, 3), 255, dtype=np.uint8)
    if points is not None:
        columns, rows = pixels(points[:, :2]).astype(int).T
        inside = (columns >= 0) & (columns < _SIDE) & (rows >= 0) & (rows < _SIDE)
        canvas[rows[inside], columns[inside]] = _POINT
    panel = Image.fromarray(canvas)
    pen = ImageDraw.Draw(panel)
    pen.rectangle((0, 0, _SIDE - 1, _SIDE - 1), outline="black")
    for boxes, colour in ((true, _TRUE), (found, _FOUND)):
        for around in pixels(corners(boxes)[:, :4, :2]):
            pen.polygon([tuple(corner) for corner in around.tolist()], outline=colour)
            front, middle = around[:2].mean(axis=0), around.mean(axis=0)
            pen.line([*middle.tolist(), *front.tolist()], fill=colour)
    return panel


def _view(view: CameraView, true: Boxes, found: Boxes, height: int) -> Any:
    """Return a camera's picture with boxes, at a height in pixels; black if the camera delivers nothing."""
    from PIL import Image, ImageDraw

    scale = height / view.size[0]
    size = max(1, round(view.size[1] * scale)), height
    if view.image is None:
        picture = Image.new("RGB", size)
    else:
        small = height > view.size[0]  # enlarged by whole pixels: sharp, and a twentieth of the file
        how = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
        picture = Image.fromarray(view.image).resize(size, how)
    pen = ImageDraw.Draw(picture)
    for boxes, colour in ((true, _TRUE), (found, _FOUND)):
        for line in (lines_in_view(boxes, view) + 0.5) * scale:  # (0, 0) is the middle of the first pixel
            pen.line(line.ravel().tolist(), fill=colour, width=1)
    pen.text((3, 2), view.channel, fill="white", stroke_width=1, stroke_fill="black")
    return picture


def lines_in_view(boxes: Boxes, view: CameraView) -> Floats:
    """Return the edges of boxes that a camera sees: (m, 2, 2) pixels of both ends, cut where they pass behind it."""
    ends = placed(corners(boxes).reshape(-1, 3), view.lidar_to_camera).reshape(-1, 8, 3)
    lines = ends[:, np.array(_EDGES)].reshape(-1, 2, 3)  # (12 n, 2, 3)
    lines = lines[(lines[..., 2] > _NEAREST).any(axis=1)]
    depths = lines[..., 2]
    across = depths[:, 1] - depths[:, 0]
    share = (_NEAREST - depths[:, 0]) / np.where(across == 0, 1.0, across)
    cut = lines[:, 0] + share[:, None] * (lines[:, 1] - lines[:, 0])
    lines = np.where((depths <= _NEAREST)[..., None], cut[:, None], lines)
    pixels = lines @ view.intrinsic.T
    pixels = pixels[..., :2] / pixels[..., 2:]
    height, width = view.size
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    seen = (high[:, 0] >= 0) & (low[:, 0] < width) & (high[:, 1] >= 0) & (low[:, 1] < height)
    return np.clip(pixels[seen], -4 * max(view.size), 5 * max(view.size))
