"""Small images that are generated: pairs of glyphs that are equal or not, and digits with noise.

Of a pair only the comparison of two distant places tells the class: each glyph has a shape and a colour of its own, and
glyphs and places are drawn alike in both classes, so that no linear function of sums over a picture tells them apart.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchsuite.datasets.small_images import GLYPH_PAIRS, NOISY_DIGITS
from benchsuite.datasets.small_images.reader import Bytes, Integers, SmallImages, load_digits

_ALPHABET_SEED = 31
_COLOURS = ((220, 90, 90), (90, 210, 90), (90, 110, 230), (215, 205, 80))


def load_noisy_digits(root: Path | None, draw: int) -> SmallImages:
    """Return scikit-learn's digits with Gaussian noise, rounded and clipped to bytes; every draw has its own noise."""
    clean = load_digits(None, 0)
    rng = np.random.default_rng([1206, draw])

    def noisy(images: Bytes) -> Bytes:
        found = images + 255 * rng.normal(0, NOISY_DIGITS["sigma"], size=images.shape)
        return np.clip(np.round(found), 0, 255).astype(np.uint8)

    changed = replace(
        clean, name="noisy-digits", train_images=noisy(clean.train_images), test_images=noisy(clean.test_images)
    )
    scaled = changed.train_images / 255.0
    return replace(changed, mean=(round(float(scaled.mean()), 4),), std=(round(float(scaled.std()), 4),)).validate()


def load_glyph_pairs(root: Path | None, draw: int) -> SmallImages:
    """Return pictures of two glyphs far apart; class 1: they are the same glyph, class 0: they are not."""
    parts = {
        role: _pairs(np.random.default_rng([711, part, draw]), GLYPH_PAIRS[role])
        for part, role in enumerate(("train", "test"))
    }
    return SmallImages("glyph-pairs", *parts["train"], *parts["test"], (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).validate()


def alphabet() -> NDArray[np.bool_]:
    """Return the glyphs, bool (K, cells, cells): half of the cells are filled, any two differ in a third of them."""
    rng = np.random.default_rng(_ALPHABET_SEED)
    cells = GLYPH_PAIRS["cells"]
    found: list[NDArray[np.bool_]] = []
    while len(found) < GLYPH_PAIRS["glyphs"]:
        glyph = (rng.permutation(cells * cells) < cells * cells // 2).reshape(cells, cells)
        if all(3 * (glyph != other).sum() >= cells * cells for other in found):
            found.append(glyph)
    return np.array(found)


def _pairs(rng: Generator, count: int) -> tuple[Bytes, Integers]:
    """Return pictures (N, 3, S, S) and classes, half of each."""
    size, side = GLYPH_PAIRS["size"], GLYPH_PAIRS["cells"] * GLYPH_PAIRS["cell_pixels"]
    glyphs = alphabet().repeat(GLYPH_PAIRS["cell_pixels"], axis=1).repeat(GLYPH_PAIRS["cell_pixels"], axis=2)
    labels = (rng.permutation(count) % 2).astype(np.int64)
    images = np.empty((count, 3, size, size), dtype=np.uint8)
    for number, same in enumerate(labels):
        first = int(rng.integers(len(glyphs)))
        second = first if same else (first + int(rng.integers(1, len(glyphs)))) % len(glyphs)
        pixels = np.full((3, size, size), 60.0)
        for glyph, (row, column) in zip((first, second), _places(rng, size, side), strict=True):
            colour = np.array(_COLOURS[glyph]) + rng.normal(0, GLYPH_PAIRS["tint"], size=3)
            pixels[:, row : row + side, column : column + side][:, glyphs[glyph]] = colour[:, None]
        pixels += rng.normal(0, GLYPH_PAIRS["noise"], size=pixels.shape)
        images[number] = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    return images, labels


def _places(rng: Generator, size: int, side: int) -> list[list[int]]:
    """Return the upper left corners of two glyphs whose centres are at least ``distance`` pixels apart."""
    while True:
        places = rng.integers(0, size - side + 1, size=(2, 2))
        if np.hypot(*(places[0] - places[1])) >= GLYPH_PAIRS["distance"]:
            return [[int(row), int(column)] for row, column in places]
