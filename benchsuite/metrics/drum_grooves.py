"""Structure of drum grooves written as text: how bars repeat and vary, without listening.

A groove is repetition with variation. Grooves are lists of lines (strings), one a sixteenth note; a bar is a tuple of
16 lines (the last one of a broken-off text may be shorter). Lines may be anything, as models write them.

* stability: edits from a bar to the more similar of its neighbours
* two clusters of stability: bars of the groove, and fills
* distance between pooled stabilities of two drummers, overlap of histograms
* repetition, copying, hits by family, back beat
* MusPy's drum metrics

Source of stability and clusters: Zhang and Callison-Burch, "Language Models are Drummers" (2023), analysis.py of its
repository. An undefined value is None.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

Bar = tuple[str, ...]
LINES, FAMILIES = 16, 6
_SNARE, _TOM = 2, 5
_BACK_BEAT = (4, 12)


def bar_text(bar: Bar) -> str:
    """Return a bar as its distances are counted: every line keeps its line feed, and line feeds join them.

    So an empty line stands between two lines: 127 characters for a whole bar of six columns.
    """
    return "\n".join(f"{line}\n" for line in bar)


def stability(bars: Sequence[Bar]) -> list[int]:
    """Return for every inner bar its Levenshtein distance (unit costs) to the nearer neighbour, in edits.

    ``n - 2`` values for ``n`` bars; none for fewer than three bars. Edits may shift lines: this is not the Hamming
    distance.
    """
    texts = [bar_text(bar) for bar in bars]
    steps = [Levenshtein.distance(before, after) for before, after in itertools.pairwise(texts)]
    return [min(left, right) for left, right in itertools.pairwise(steps)]


def two_clusters(values: Sequence[float]) -> tuple[float, float, float] | None:
    """Return gap, spread and midpoint of the best two clusters on a line.

    The split of the sorted values with the smallest sum of squares; 2-means from chance beginnings often stops at a
    worse one (see `official_clusters`).

    Returns
    -------
    gap
        Distance of the two centres.
    spread
        Mean distance of a value from its own centre.
    midpoint
        Half way between the centres.
    None for fewer than two values; equal values have one centre twice.
    """
    if len(values) < 2:
        return None
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    best: tuple[float, float, float, float] | None = None
    for cut in range(1, len(ordered)):
        low, high = ordered[:cut], ordered[cut:]
        a, b = low.mean(), high.mean()
        squares = ((low - a) ** 2).sum() + ((high - b) ** 2).sum()
        if best is None or squares < best[0] - 1e-9:
            spread = (np.abs(low - a).sum() + np.abs(high - b).sum()) / len(ordered)
            best = (float(squares), float(b - a), float(spread), float((a + b) / 2))
    assert best is not None
    return best[1:]


def official_clusters(values: Sequence[float]) -> tuple[float, float] | None:
    """Return gap and spread as the official code finds them: scikit-learn's 2-means, one k-means++ start of seed 0.

    On the human test recordings that is a gap of 10.345 where the best clusters have 10.007. None for fewer than two
    values.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if len(values) < 2:
        return None
    points = np.asarray(values, dtype=np.float64)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal values have one centre twice
        found = KMeans(n_clusters=2, n_init=1, random_state=0).fit(points)
    centres = found.cluster_centers_[:, 0]
    spread = np.abs(points[:, 0] - centres[found.labels_]).mean()
    return float(abs(centres[0] - centres[1])), float(spread)


def wasserstein(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the first Wasserstein distance of two samples: the area between their distribution functions.

    None if one of them is empty.
    """
    if not len(first) or not len(second):
        return None
    a, b = np.sort(np.asarray(first, dtype=np.float64)), np.sort(np.asarray(second, dtype=np.float64))
    places = np.sort(np.concatenate([a, b]))
    below_a = np.searchsorted(a, places[:-1], side="right") / len(a)
    below_b = np.searchsorted(b, places[:-1], side="right") / len(b)
    return float((np.abs(below_a - below_b) * np.diff(places)).sum())


def overlap(first: Sequence[int], second: Sequence[int]) -> float | None:
    """Return the area that the histograms of two samples of whole numbers share, in [0, 1]; None if one is empty."""
    if not len(first) or not len(second):
        return None
    p, q = _histograms(first, second)
    return float(np.minimum(p / p.sum(), q / q.sum()).sum())


def divergence(first: Sequence[int], second: Sequence[int]) -> float | None:
    """Return the Kullback-Leibler divergence in bits of the first histogram from the second.

    Half a count is added to every value that occurs in either, so that it is finite. None if one sample is empty.
    """
    if not len(first) or not len(second):
        return None
    p, q = _histograms(first, second)
    occurs = (p + q) > 0
    p, q = p[occurs] + 0.5, q[occurs] + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log2(p / q)).sum())


def _histograms(first: Sequence[int], second: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    size = max(max(first), max(second)) + 1
    p, q = np.bincount(first, minlength=size), np.bincount(second, minlength=size)
    return p.astype(np.float64), q.astype(np.float64)


def is_silent(bar: Bar) -> bool:
    """Return whether no line of a bar has a hit."""
    return not any("o" in line for line in bar)


def hits_of(bar: Bar) -> NDArray[np.bool_]:
    """Return the hits of a bar, (lines, 6); columns beyond the sixth do not count, missing ones are rests."""
    found = np.zeros((len(bar), FAMILIES), dtype=bool)
    for number, line in enumerate(bar):
        for column, cell in enumerate(line[:FAMILIES]):
            found[number, column] = cell == "o"
    return found


def hit_rates(lines: Iterable[str]) -> NDArray[np.float64] | None:
    """Return the share of lines with a hit in each family, (6,); None without a line."""
    hits = hits_of(tuple(lines))
    return hits.mean(axis=0) if len(hits) else None


def onset_density(lines: Sequence[str]) -> float | None:
    """Return the share of lines with any hit; None without a line."""
    return sum("o" in line for line in lines) / len(lines) if lines else None


def has_back_beat(bar: Bar) -> bool:
    """Return whether the snare plays on beats two and four of a bar of four."""
    return all(len(bar) > line and bar[line][_SNARE : _SNARE + 1] == "o" for line in _BACK_BEAT)


def has_tom(bar: Bar) -> bool:
    """Return whether a tom plays in a bar."""
    return any(line[_TOM : _TOM + 1] == "o" for line in bar)


def fills(bars: Sequence[Bar]) -> list[bool]:
    """Return for every bar whether it is a fill: a tom plays, or its stability is in the upper cluster.

    The upper cluster begins at the midpoint of the two centres of this groove; a groove whose stabilities are all
    equal has none. First and last bar have no stability.
    """
    values = stability(bars)
    clusters = two_clusters(values)
    upper = [False, *(clusters is not None and clusters[0] > 0 and v >= clusters[2] for v in values), False]
    return [has_tom(bar) or (number < len(upper) and upper[number]) for number, bar in enumerate(bars)]


def identical_neighbours(bars: Sequence[Bar]) -> tuple[int, int]:
    """Return how many pairs of neighbours that both sound are equal, and how many such pairs there are."""
    pairs = [(a, b) for a, b in itertools.pairwise(bars) if not is_silent(a) and not is_silent(b)]
    return sum(a == b for a, b in pairs), len(pairs)


def unique_ratio(bars: Sequence[Bar]) -> float | None:
    """Return the share of different bars among those that sound; None if none does."""
    sounding = [bar for bar in bars if not is_silent(bar)]
    return len(set(sounding)) / len(sounding) if sounding else None


def drum_in_pattern_rate(lines: Sequence[str], metre: str) -> float | None:
    """Return MusPy's share of notes on the pattern of a metre: quarters of a beat (duple) or thirds (triple).

    On a grid of sixteenths, which is read at 24 ticks a beat, duple is 1 by construction. None without a note.
    """
    ticks = [6 * (number % 4) for number, line in enumerate(lines) for cell in line[:FAMILIES] if cell == "o"]
    if not ticks:
        return None
    pattern = {"duple": range(0, 24, 6), "triple": range(0, 24, 8)}[metre]
    return sum(tick in pattern for tick in ticks) / len(ticks)


def drum_pattern_consistency(lines: Sequence[str]) -> float | None:
    """Return the larger of MusPy's two in-pattern rates; None without a note."""
    rates = [drum_in_pattern_rate(lines, metre) for metre in ("duple", "triple")]
    return None if None in rates else max(rate for rate in rates if rate is not None)


def groove_consistency(bars: Sequence[Bar]) -> float | None:
    """Return 1 minus the mean Hamming distance of neighbouring bars' onset vectors (Wu and Yang 2020, as MusPy has it).

    MusPy reads a song up to its last note: bars behind it do not count, and a song of one bar has no value (None).
    """
    while bars and is_silent(bars[-1]):
        bars = bars[:-1]
    if len(bars) < 2:
        return None
    onsets = np.zeros((len(bars), LINES), dtype=bool)
    for number, bar in enumerate(bars):
        onsets[number, : len(bar)] = hits_of(bar).any(axis=1)
    return float(1 - (onsets[:-1] != onsets[1:]).mean())
