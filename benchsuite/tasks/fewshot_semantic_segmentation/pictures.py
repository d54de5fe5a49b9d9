"""A sheet of episodes: support with its mask, query, truth, prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.metrics.segmentation_overlap import areas
from benchsuite.tasks.fewshot_semantic_segmentation.episodes import Draw
from benchsuite.tasks.fewshot_semantic_segmentation.loading import Loader, squashed

__all__ = ["draw_sheet"]

_MOST_EPISODES = 10
_SIDE = 128
_MARGIN = 6
_LINE = 16
_SUPPORT, _TRUE, _FOUND = (50, 120, 230), (40, 170, 80), (230, 60, 60)


def draw_sheet(
    path: Path,
    classes: Sequence[str],
    draws: Sequence[Draw],
    masks: Sequence[NDArray[np.bool_]],
    loader: Loader,
) -> None:
    """Write a PNG of up to ten episodes, evenly taken from all: one row each, four panels.

    The first support with its mask in blue, the query, the truth in green, the prediction in red; foreground IoU below.
    """
    from PIL import Image, ImageDraw

    chosen = np.unique(np.linspace(0, len(draws) - 1, min(_MOST_EPISODES, len(draws))).round().astype(int))
    sheet = Image.new(
        "RGB",
        (4 * (_SIDE + _MARGIN) + _MARGIN, len(chosen) * (_SIDE + _LINE + _MARGIN) + _MARGIN + _LINE),
        "white",
    )
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(("support", "query", "truth", "prediction")):
        pen.text((_MARGIN + column * (_SIDE + _MARGIN), 2), title, fill="black")
    for row, number in enumerate(chosen):
        draw, mask = draws[number], masks[number]
        episode, truth = loader.episode(draw), loader.truth(draw)
        (_, both), (_, union) = areas(mask, truth.target, truth.ignored)
        query = episode.query.pixels
        panels = (
            _painted(episode.supports[0].pixels, episode.support_masks[0], _SUPPORT),
            query,
            _painted(query, _squashed_mask(truth.target, query.shape[0]), _TRUE),
            _painted(query, _squashed_mask(mask, query.shape[0]), _FOUND),
        )
        y = _LINE + _MARGIN + row * (_SIDE + _LINE + _MARGIN)
        for column, panel in enumerate(panels):
            picture = Image.fromarray(panel).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
            sheet.paste(picture, (_MARGIN + column * (_SIDE + _MARGIN), y))
        text = f"{classes[draw.label]}, IoU {100 * both / max(union, 1):.0f} %"
        pen.text((_MARGIN, y + _SIDE + 1), text, fill="black")
    sheet.save(path)


def _painted(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return a picture with a mask in half a colour."""
    painted: NDArray[Any] = pixels.astype(np.float64)
    painted[mask] = 0.5 * painted[mask] + 0.5 * np.array(colour)
    return painted.astype(np.uint8)


def _squashed_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    return squashed(np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255, size)[..., 0] >= 128
