"""Procedural categories: ten families of textures at six spatial frequencies, each with a palette of two hues."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

__all__ = ["FAMILIES", "Category", "categories", "draw"]

Grid = NDArray[np.float64]
_TURN = 2 * np.pi


def _stripes(rng: Generator, u: Grid, v: Grid) -> Grid:
    return _wave(u)


def _checker(rng: Generator, u: Grid, v: Grid) -> Grid:
    return _step(np.sin(u) * np.sin(v))


def _dots(rng: Generator, u: Grid, v: Grid) -> Grid:
    return _step(np.cos(u) + np.cos(v) - 0.6)


def _hexagonal(rng: Generator, u: Grid, v: Grid) -> Grid:
    waves = [np.cos(u * np.cos(a) + v * np.sin(a)) for a in (0.0, _TURN / 3, 2 * _TURN / 3)]
    return np.clip(0.5 + sum(waves) / 3, 0, 1)


def _zigzag(rng: Generator, u: Grid, v: Grid) -> Grid:
    return _wave(u + 1.6 * np.abs(v / np.pi % 2 - 1))


def _band_noise(rng: Generator, u: Grid, v: Grid) -> Grid:
    return _normalised(_filtered(rng, u, v, lambda along, across: np.hypot(along, across)))


def _oriented_noise(rng: Generator, u: Grid, v: Grid) -> Grid:
    return _normalised(_filtered(rng, u, v, lambda along, across: np.abs(along) + 4 * np.abs(across)))


def _bricks(rng: Generator, u: Grid, v: Grid) -> Grid:
    row = np.floor(v / np.pi)
    across = (u / _TURN + 0.5 * (row % 2)) % 1
    return np.where((across < 0.16) | (v / np.pi % 1 < 0.25), 0.0, 1.0)


def _spots(rng: Generator, u: Grid, v: Grid) -> Grid:
    return _step(_filtered(rng, u, v, lambda along, across: np.hypot(along, across)))


def _crosses(rng: Generator, u: Grid, v: Grid) -> Grid:
    x, y = np.abs(u / _TURN % 1 - 0.5), np.abs(v / _TURN % 1 - 0.5)
    return np.where((np.minimum(x, y) < 0.1) & (np.maximum(x, y) < 0.36), 1.0, 0.0)


FAMILIES: Mapping[str, Callable[[Generator, Grid, Grid], Grid]] = {
    "stripes": _stripes,
    "checker": _checker,
    "dots": _dots,
    "hexagonal": _hexagonal,
    "zigzag": _zigzag,
    "band-noise": _band_noise,
    "oriented-noise": _oriented_noise,
    "bricks": _bricks,
    "spots": _spots,
    "crosses": _crosses,
}
"""Name to a function of phases ``u`` and ``v`` (radians at the texture's frequency, rotated) that gives [0, 1]."""


@dataclass(frozen=True)
class Category:
    """What all pictures of a category have in common.

    Attributes
    ----------
    family
        One of `FAMILIES`.
    frequency
        Radians a pixel.
    orientation
        Radians.
    hues
        Of the dark and the bright part, in [0, 1).
    """

    family: str
    frequency: float
    orientation: float
    hues: tuple[float, float]

    @property
    def name(self) -> str:
        """``family`` and frequency."""
        return f"{self.family}-{self.frequency:.2f}"


def categories(rng: Generator, frequencies: Sequence[float]) -> tuple[Category, ...]:
    """Return every family at every frequency, each with an orientation and a palette of its own, in a drawn order."""
    found = []
    for family in FAMILIES:
        for frequency in frequencies:
            first = rng.random()
            hues = (first, (first + rng.uniform(0.2, 0.8)) % 1)
            found.append(Category(family, frequency, rng.uniform(0, np.pi), hues))
    return tuple(found[i] for i in rng.permutation(len(found)))


def draw(rng: Generator, category: Category, size: int, parameters: Mapping[str, Any]) -> Grid:
    """Return a picture full of a category's texture, (size, size, 3) in [0, 1].

    Frequency, orientation and hues vary as ``parameters`` say; phase, saturation and values are drawn anew.
    """
    jitter = parameters["frequency_jitter"]
    frequency = category.frequency * rng.uniform(1 - jitter, 1 + jitter)
    spread = np.deg2rad(parameters["orientation"])
    angle = category.orientation + rng.uniform(-spread, spread)
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float64)
    u = frequency * (np.cos(angle) * columns + np.sin(angle) * rows) + rng.uniform(0, _TURN)
    v = frequency * (-np.sin(angle) * columns + np.cos(angle) * rows) + rng.uniform(0, _TURN)
    share = FAMILIES[category.family](rng, u, v)[..., None]
    dark, bright = _palette(rng, category.hues, parameters["hue_jitter"])
    return np.asarray(dark * (1 - share) + bright * share)


def _palette(rng: Generator, hues: tuple[float, float], jitter: float) -> tuple[Grid, Grid]:
    first, second = (hue + rng.uniform(-jitter, jitter) for hue in hues)
    return (
        _rgb(first, rng.uniform(0.35, 1.0), rng.uniform(0.15, 0.55)),
        _rgb(second, rng.uniform(0.35, 1.0), rng.uniform(0.6, 1.0)),
    )


def _rgb(hue: float, saturation: float, value: float) -> Grid:
    """Return red, green and blue in [0, 1] of a colour by hue (a turn is 1), saturation and value."""
    parts = (hue * 6 + np.array([5.0, 3.0, 1.0])) % 6
    return np.asarray(value * (1 - saturation * np.clip(np.minimum(parts, 4 - parts), 0, 1)))


def _wave(phase: Grid) -> Grid:
    return np.asarray(0.5 + 0.5 * np.sin(phase))


def _step(values: Grid) -> Grid:
    return np.where(values > 0, 1.0, 0.0)


def _normalised(values: Grid) -> Grid:
    return np.clip(0.5 + 0.25 * values / max(float(values.std()), 1e-9), 0, 1)


def _filtered(rng: Generator, u: Grid, v: Grid, measure: Callable[[Grid, Grid], Grid]) -> Grid:
    """Return noise whose frequencies, measured along and across the texture, lie near 1 radian a unit of phase."""
    frequency = np.hypot(u[0, 1] - u[0, 0], v[0, 1] - v[0, 0])
    angle = np.arctan2(v[0, 0] - v[0, 1], u[0, 1] - u[0, 0])
    down, right = np.meshgrid(*(2 * np.pi * np.fft.fftfreq(side) for side in u.shape), indexing="ij")
    along = (np.cos(angle) * right + np.sin(angle) * down) / frequency
    across = (-np.sin(angle) * right + np.cos(angle) * down) / frequency
    band = np.exp(-0.5 * ((measure(along, across) - 1) / 0.2) ** 2)
    return np.real(np.fft.ifft2(np.fft.fft2(rng.normal(size=u.shape)) * band))
