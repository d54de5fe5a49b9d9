"""Episodes as a method sees them: pictures and masks brought to the size of the protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from benchsuite.datasets.class_masks.images import ClassMasks, check_size
from benchsuite.tasks.fewshot_semantic_segmentation.contract import Episode, LabelledEpisode, Picture
from benchsuite.tasks.fewshot_semantic_segmentation.episodes import Draw

__all__ = ["Loader", "Truth", "nearest", "squashed"]

_KEPT_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class Truth:
    """The answer of an episode, bool of its output size each: where the class is, and what counts nowhere."""

    target: NDArray[np.bool_]
    ignored: NDArray[np.bool_]


def squashed(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) as (size, size, 3), without regard to its proportions: bilinear, as PIL does it."""
    from PIL import Image

    if pixels.shape[:2] == (size, size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))


def nearest(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Return a mask (H, W) as (size, size): the nearest pixels, as torch's ``interpolate`` takes them."""
    rows, columns = (
        np.minimum((np.arange(size, dtype=np.float32) * np.float32(side / size)).astype(np.int64), side - 1)
        for side in mask.shape
    )
    return mask[rows[:, None], columns]


class Loader:
    """Reads what drawn episodes are about.

    Parameters
    ----------
    data
        Of the run.
    size
        Side of pictures and masks in pixels.
    original_size
        Ask for predictions of the query's own size.
    """

    def __init__(self, data: ClassMasks, size: int, original_size: bool) -> None:
        self._data, self._size, self._original = data, size, original_size
        count = max(64, _KEPT_BYTES // (3 * size * size))
        self.picture: Callable[[str], tuple[Picture, tuple[int, int]]] = lru_cache(maxsize=count)(self._picture)
        self._masks = lru_cache(maxsize=count)(self._read_masks)

    def _picture(self, image: str) -> tuple[Picture, tuple[int, int]]:
        """Return a squashed picture and its own height and width."""
        pixels = self._data.picture(image)
        return Picture(image, squashed(pixels, self._size)), (pixels.shape[0], pixels.shape[1])

    def _read_masks(self, image: str, label: int) -> Truth:
        """Return where a class is and what is ignored, squashed."""
        truth = self._own_masks(image, label)
        return Truth(nearest(truth.target, self._size), nearest(truth.ignored, self._size))

    def _own_masks(self, image: str, label: int) -> Truth:
        target, ignored = self._data.mask(image, label)
        check_size(target.shape, self.picture(image)[1], image)
        return Truth(target, ignored)

    def episode(self, draw: Draw) -> Episode:
        """Return an episode to answer."""
        label = draw.label if draw.shown is None else draw.shown
        query, own_size = self.picture(draw.query)
        return Episode(
            supports=tuple(self.picture(image)[0] for image in draw.supports),
            support_masks=np.stack([self._masks(image, label).target for image in draw.supports]),
            query=query,
            output_size=own_size if self._original else (self._size, self._size),
        )

    def labelled(self, draw: Draw) -> LabelledEpisode:
        """Return an episode to learn from."""
        asked = self.episode(draw)
        return LabelledEpisode(
            asked.supports,
            asked.support_masks,
            asked.query,
            (self._size, self._size),
            self._masks(draw.query, draw.label).target,
            draw.label,
        )

    def truth(self, draw: Draw) -> Truth:
        """Return the answer of an episode."""
        found = self._own_masks(draw.query, draw.label) if self._original else self._masks(draw.query, draw.label)
        if self._data.relabelled:
            return Truth(~found.target & ~found.ignored, found.ignored)
        return found
