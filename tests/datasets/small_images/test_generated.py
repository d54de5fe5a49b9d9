"""Pairs of glyphs and noisy digits: what tells their classes, and what does not."""

from __future__ import annotations

import numpy as np
import pytest

from benchsuite.datasets.small_images import GLYPH_PAIRS, NOISY_DIGITS
from benchsuite.datasets.small_images.generated import alphabet, load_glyph_pairs, load_noisy_digits
from benchsuite.datasets.small_images.reader import SmallImages, load_digits


@pytest.fixture(scope="module")
def pairs() -> SmallImages:
    return load_glyph_pairs(None, 0)


def _glyphs(image: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return place and cells of both glyphs of a picture (3, S, S), found again by matching the alphabet."""
    scale = GLYPH_PAIRS["cell_pixels"]
    masks = alphabet().repeat(scale, axis=1).repeat(scale, axis=2).astype(float)
    side = masks.shape[1]
    light = image.mean(axis=0)
    bright = (light > (light.min() + light.max()) / 2).astype(float)
    windows = np.lib.stride_tricks.sliding_window_view(bright, (side, side))
    match = np.stack([(windows * m).sum(axis=(2, 3)) - (windows * (1 - m)).sum(axis=(2, 3)) for m in masks])
    found = []
    for _ in range(2):
        glyph, row, column = np.unravel_index(match.argmax(), match.shape)
        found.append((np.array([row, column]), np.array(glyph)))
        low = np.maximum(np.array([row, column]) - side, 0)
        match[:, low[0] : row + side, low[1] : column + side] = -np.inf
    return found


def test_types_and_sizes(pairs: SmallImages) -> None:
    assert pairs.train_images.shape == (12_000, 3, 64, 64)
    assert pairs.num_classes == 2
    assert np.bincount(pairs.train_labels).tolist() == [6000, 6000]
    assert np.bincount(pairs.test_labels).tolist() == [500, 500]


def test_class_1_shows_one_glyph_twice_and_class_0_two_and_they_lie_far_apart(pairs: SmallImages) -> None:
    for image, label in zip(pairs.test_images[:60], pairs.test_labels[:60], strict=True):
        (first, one), (second, other) = _glyphs(image)
        assert (one == other) == bool(label)
        assert np.hypot(*(first - second)) >= GLYPH_PAIRS["distance"]


def test_glyphs_differ_enough() -> None:
    glyphs = alphabet()
    assert glyphs.shape == (2, 4, 4)
    assert (glyphs.sum(axis=(1, 2)) == 8).all()
    apart = [(a != b).sum() for i, a in enumerate(glyphs) for b in glyphs[:i]]
    assert min(apart) >= 6


def test_mean_colours_tell_no_class(pairs: SmallImages) -> None:
    means = pairs.train_images.mean(axis=(2, 3))
    same, other = means[pairs.train_labels == 1], means[pairs.train_labels == 0]
    spread = means.std(axis=0) * np.sqrt(2 / 6000)
    assert (np.abs(same.mean(axis=0) - other.mean(axis=0)) < 4 * spread).all()


def test_draws_differ_and_repeat(pairs: SmallImages) -> None:
    assert load_glyph_pairs(None, 0).training_hash() == pairs.training_hash()
    assert load_glyph_pairs(None, 1).training_hash() != pairs.training_hash()


def test_noisy_digits_are_the_digits_with_noise_of_that_size() -> None:
    clean, noisy = load_digits(None, 0), load_noisy_digits(None, 0)
    assert np.array_equal(clean.train_labels, noisy.train_labels)
    assert np.array_equal(clean.test_labels, noisy.test_labels)
    middle = (clean.train_images > 100) & (clean.train_images < 150)  # where nothing is clipped
    apart = (noisy.train_images.astype(float) - clean.train_images)[middle] / 255
    assert abs(apart.mean()) < 0.01
    assert apart.std() == pytest.approx(NOISY_DIGITS["sigma"], rel=0.02)
    assert load_noisy_digits(None, 0).training_hash() == noisy.training_hash()
    assert load_noisy_digits(None, 1).training_hash() != noisy.training_hash()
    assert noisy.mean[0] == pytest.approx(noisy.train_images.mean() / 255, abs=1e-4)
