"""A contact sheet of images with the objects that are there and those that were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.datasets.coco.reader import ImageSet, Record, decode_mask

_COLUMNS = 4
_MOST_IMAGES = 12
_SIDE = 192
_LEAST_SCORE = 0.3
_MARGIN = 8
_LINE = 16
_COLOURS = ((230, 60, 60), (50, 120, 230), (40, 170, 80), (240, 160, 20), (160, 70, 200), (20, 180, 190))

Labelled = tuple[NDArray[np.bool_], int, str]


def draw_sheet(
    path: Path,
    images: ImageSet,
    results: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
    classes: frozenset[int],
) -> None:
    """Write a PNG of the first images that show objects of ``classes``: the truth above, what was found below.

    Found objects are those of at least 0.3 score, at most as many as a reader can take in.
    """
    from PIL import Image

    shown = [r for r in images if any(a["category_id"] in classes for a in r.annotations)][:_MOST_IMAGES]
    if not shown:
        return
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for result in results:
        by_image.setdefault(result["image_id"], []).append(result)
    pairs = [(_truth(r, names, classes), _found(r, by_image.get(r.image_id, ()), names)) for r in shown]
    rows = -(-len(shown) // _COLUMNS)
    tile_height = 2 * (_SIDE + _LINE) + _MARGIN
    width, height = _COLUMNS * (_SIDE + _MARGIN) + _MARGIN, rows * (tile_height + _MARGIN) + _MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    for number, (record, (truth, found)) in enumerate(zip(shown, pairs, strict=True)):
        row, column = divmod(number, _COLUMNS)
        x, y = _MARGIN + column * (_SIDE + _MARGIN), _MARGIN + row * (tile_height + _MARGIN)
        sheet.paste(_panel(record, truth, "true"), (x, y))
        sheet.paste(_panel(record, found, "found"), (x, y + _SIDE + _LINE + _MARGIN // 2))
    sheet.save(path, optimize=True)


def _truth(record: Record, names: Mapping[int, str], classes: frozenset[int]) -> list[Labelled]:
    return [(i.mask, i.category_id, names[i.category_id]) for i in record.instances() if i.category_id in classes]


def _found(record: Record, results: Sequence[Mapping[str, Any]], names: Mapping[int, str]) -> list[Labelled]:
    best = [r for r in results if r["score"] >= _LEAST_SCORE][:6]
    return [
        (
            decode_mask(r["segmentation"], record.height, record.width),
            r["category_id"],
            f"{names[r['category_id']]} {r['score']:.2f}",
        )
        for r in best
    ]


def _panel(record: Record, objects: Sequence[Labelled], verb: str) -> Any:
    """Return one image with coloured masks and a line of text."""
    from PIL import Image, ImageDraw

    pixels = record.pixels().astype(np.float64)
    for mask, category, _ in objects:
        pixels[mask] = 0.5 * pixels[mask] + 0.5 * np.array(_COLOURS[category % len(_COLOURS)])
    scale = _SIDE / max(record.height, record.width)
    size = (max(1, round(record.width * scale)), max(1, round(record.height * scale)))
    image = Image.fromarray(pixels.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    panel = Image.new("RGB", (_SIDE, _SIDE + _LINE), "white")
    panel.paste(image, (0, 0))
    draw = ImageDraw.Draw(panel)
    for mask, _, label in objects:
        rows, columns = np.nonzero(mask)
        if len(rows):
            draw.text(
                (columns.min() * scale, rows.min() * scale), label, fill="white", stroke_width=2, stroke_fill="black"
            )
    draw.text((0, _SIDE + 2), f"{verb}: {len(objects)}", fill="black")
    return panel
