"""Events on a time axis: one-to-one matching within a tolerance, and the counting rules built on it."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]

CPSC2019_TOLERANCE_S = 0.075
CPSC2019_MARGIN_S = 0.5
EC57_TOLERANCE_S = 0.15
EC57_LEARNING_S = 300.0


@dataclass(frozen=True)
class EventCounts:
    """True positives, false positives and false negatives; counts of several records add up."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: EventCounts) -> EventCounts:
        return EventCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def sensitivity(self) -> float | None:
        """TP / (TP + FN); None without reference events."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def positive_predictivity(self) -> float | None:
        """TP / (TP + FP); None without detections."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def f1(self) -> float | None:
        """2 TP / (2 TP + FP + FN); None if there is neither a reference event nor a detection."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def tolerance_in_samples(seconds: float, fs: float) -> int:
    """Return the largest whole number of samples within ``seconds``: floor(seconds * fs).

    >>> tolerance_in_samples(0.15, 360)
    54
    """
    return int(np.floor(seconds * fs + 1e-9))


def match_events(reference: ArrayLike, estimate: ArrayLike, tolerance: float) -> Integers:
    """Pair events one to one such that both lie within ``tolerance`` of each other (inclusive).

    The pairing has as many pairs as any can have and, among those, the least total distance. O(n log n) for
    n events, plus the number of pairs within the tolerance.

    Parameters
    ----------
    reference, estimate
        (n,), (m,) times, strictly ascending, in any unit (samples, frames, seconds).
    tolerance
        In the same unit, not negative.

    Returns
    -------
    pairs
        (k, 2) int64: indices into ``reference`` and ``estimate``, both ascending.

    Raises
    ------
    ValueError
        For times that are not finite, unsorted or repeated, or a negative tolerance.
    """
    ref, est = _checked_times(reference, "reference"), _checked_times(estimate, "estimate")
    if not tolerance >= 0:
        raise ValueError(f"the tolerance must not be negative, got {tolerance}")
    # The estimates low[i] .. high[i] - 1 are within reach of reference i.
    low = np.searchsorted(est, ref - tolerance, side="left")
    high = np.searchsorted(est, ref + tolerance, side="right")
    reaching = np.flatnonzero(high > low)
    if len(reaching) == 0:
        return np.empty((0, 2), dtype=np.int64)
    low, high = low[reaching], high[reaching]
    # References that compete for an estimate belong to one group.
    starts = np.flatnonzero(np.concatenate([[True], low[1:] >= high[:-1]]))
    stops = np.append(starts[1:], len(reaching))
    references = stops - starts
    alone = references == 1
    short = ~alone & (np.maximum(references, high[stops - 1] - low[starts]) <= _SHORT)
    times, lone = ref[reaching], starts[alone]
    pairs = [np.column_stack([lone, _nearest(times[lone], est, low[lone], high[lone])])]
    if short.any():
        pairs.append(_match_short_groups(times, est, low, high, starts[short], stops[short], float(tolerance)))
    for start, stop in np.column_stack([starts, stops])[~alone & ~short].tolist():
        group = _match_group(times[start:stop], est, low[start:stop], high[start:stop], float(tolerance))
        pairs.append(group + np.array([start, 0]))
    found = np.concatenate(pairs).astype(np.int64)
    found = found[np.argsort(found[:, 0])]
    return np.column_stack([reaching[found[:, 0]], found[:, 1]])


def _nearest(ref: NDArray[Any], est: NDArray[Any], low: NDArray[np.intp], high: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the nearest of the estimates low .. high - 1 of every reference; the earlier one of two as near."""
    right = np.clip(np.searchsorted(est, ref), low, high - 1)
    left = np.clip(right - 1, low, high - 1)
    return np.where(np.abs(est[left] - ref) <= np.abs(est[right] - ref), left, right)


def _match_group(
    ref: NDArray[Any], est: NDArray[Any], low: NDArray[np.intp], high: NDArray[np.intp], tolerance: float
) -> NDArray[np.intp]:
    """Match references that share estimates, by dynamic programming over the pairs within reach.

    After i references ``best[j]`` is the most that they and the estimates before j can be worth; a pair is worth
    ``prize`` less its distance, and the prize exceeds any sum of distances. Only the band of a reference can change,
    and bands move right: beyond ``edge`` the last value holds. Returns pairs (p, 2), the last one first.
    """
    first, last = int(low[0]), int(high[-1])
    counts = high - low
    prize = (tolerance + 1.0) * (min(len(ref), last - first) + 1)
    columns = np.arange(counts.sum()) + np.repeat(high - np.cumsum(counts), counts)
    worth = (prize - np.abs(np.repeat(ref, counts) - est[columns])).tolist()
    best = [0.0] * (last - first + 1)
    edge = start = 0
    rows: list[tuple[int, list[float], list[float]]] = []  # a band's start, and its values before and after
    for left, right in zip((low - first).tolist(), (high - first).tolist(), strict=True):
        if right > edge:
            best[edge + 1 : right + 1] = [best[edge]] * (right - edge)
            edge = right
        before = best[left : right + 1]
        stop = start + right - left
        diagonal = value = before[0]
        for j, one in enumerate(worth[start:stop], left + 1):
            paired = diagonal + one
            diagonal = best[j]
            if diagonal > value:
                value = diagonal
            if paired > value:
                value = paired
            best[j] = value
        start = stop
        rows.append((left, before, best[left : right + 1]))
    references, estimates = [], []
    end = last - first  # what is left to pair are the estimates before
    for i in range(len(rows) - 1, -1, -1):
        left, before, after = rows[i]
        here = min(end - left, len(after) - 1)
        if here > 0 and after[here] > before[here]:
            end = left + bisect_left(after, after[here]) - 1  # the first that is worth as much
            references.append(i)
            estimates.append(end)
    return np.column_stack([references, np.array(estimates, dtype=np.intp) + first])


_SHORT = 32  # references, and estimates: the most that a group may have to be matched together with others


def _match_short_groups(
    ref: NDArray[Any],
    est: NDArray[Any],
    low: NDArray[np.intp],
    high: NDArray[np.intp],
    starts: NDArray[np.intp],
    stops: NDArray[np.intp],
    tolerance: float,
) -> NDArray[np.intp]:
    """Match many small groups at once: the dynamic programming of `_match_group`, a row of all groups a step.

    Parameters
    ----------
    ref, low, high
        (k,) times of the references, and which estimates each reaches: low .. high - 1.
    est
        (m,) times.
    starts, stops
        (g,) a group has the references starts .. stops - 1.

    Returns
    -------
    pairs
        (p, 2): indices into ``ref`` and ``est``, in no particular order.
    """
    order = np.argsort(starts - stops, kind="stable")  # the longest first: the groups that go on are the first ones
    starts, stops = starts[order], stops[order]
    sizes, first = stops - starts, low[starts]
    width = high[stops - 1] - first
    prize = ((tolerance + 1.0) * (np.minimum(sizes, width) + 1))[:, None]
    columns = np.arange(width.max())
    times = est[np.minimum(first[:, None] + columns, len(est) - 1)]  # (g, w)
    best = [np.zeros((len(starts), len(columns) + 1))]  # after each reference, (groups that go on, w + 1)
    for i in range(int(sizes[0])):
        going = int(np.searchsorted(-sizes, -i))
        rows = starts[:going] + i
        left, right = (bound[rows] - first[:going] for bound in (low, high))
        within = (columns >= left[:, None]) & (columns < right[:, None])
        before = best[-1][:going]
        paired = before[:, :-1] + (prize[:going] - np.abs(ref[rows][:, None] - times[:going]))
        after = before.copy()
        np.maximum(before[:, 1:], paired, out=after[:, 1:], where=within)
        best.append(np.maximum.accumulate(after, axis=1))
    pairs = []
    end = np.full(len(starts), len(columns))  # what is left to pair are the estimates before
    for i in range(len(best) - 2, -1, -1):
        after = best[i + 1]
        here = np.arange(len(after))
        value = after[here, end[here]]
        takes = np.flatnonzero(value > best[i][here, end[here]])
        end[takes] = (after[takes] < value[takes, None]).sum(axis=1) - 1  # the first column of this value, less one
        pairs.append(np.column_stack([starts[takes] + i, first[takes] + end[takes]]))
    return np.concatenate(pairs)


def count_events(reference: ArrayLike, estimate: ArrayLike, tolerance: float) -> EventCounts:
    """Return TP, FP and FN of `match_events`. A beat that is detected twice is one TP and one FP."""
    ref, est = np.asarray(reference), np.asarray(estimate)
    tp = len(match_events(ref, est, tolerance))
    return EventCounts(tp, len(est) - tp, len(ref) - tp)


def ec57_counts(
    reference: ArrayLike,
    estimate: ArrayLike,
    fs: float,
    *,
    tolerance_s: float = EC57_TOLERANCE_S,
    learning_s: float = EC57_LEARNING_S,
    fibrillation: Sequence[tuple[int, int]] = (),
) -> EventCounts:
    """Count QRS detections by the rules of ANSI/AAMI EC57 (the defaults of WFDB's ``bxb``).

    Parameters
    ----------
    reference, estimate
        (n,), (m,) sample indices at ``fs`` Hz, strictly ascending.
    tolerance_s
        Inclusive half-width of the match window, seconds; floored to whole samples.
    learning_s
        Events of both lists before this time are not counted.
    fibrillation
        (start, end) samples of ventricular flutter or fibrillation: an unpaired detection inside is no
        false positive.
    """
    start = int(np.ceil(learning_s * fs))
    ref, est = (times[times >= start] for times in (np.asarray(reference), np.asarray(estimate)))
    pairs = match_events(ref, est, tolerance_in_samples(tolerance_s, fs))
    extra = np.delete(est, pairs[:, 1])
    excused = np.zeros(len(extra), dtype=bool)
    for begin, end in fibrillation:
        excused |= (extra >= begin) & (extra <= end)
    return EventCounts(len(pairs), int((~excused).sum()), len(ref) - len(pairs))


def macro_f1(counts: Iterable[EventCounts]) -> float | None:
    """Return the mean F1 of the records that have one; None if none has."""
    values = [f1 for f1 in (one.f1 for one in counts) if f1 is not None]
    return float(np.mean(values)) if values else None


@dataclass(frozen=True)
class CPSC2019Score:
    """The two scores of the China Physiological Signal Challenge 2019, of a segment or their means, in [0, 1]."""

    qrs_accuracy: float
    heart_rate_score: float


def cpsc2019_segment_score(
    reference: ArrayLike, estimate: ArrayLike, *, fs: float = 500.0, samples: int = 5000, official: bool = False
) -> CPSC2019Score:
    """Score one ten-second segment by the rules of CPSC 2019 (the challenge's ``cpsc2019_score.py``).

    Only reference beats in [0.5 s, end - 0.5 s] count; each is found if a detection lies within 75 ms (inclusive).
    Further detections within 75 ms of it are extra ones, and so are those in [0.5 s + 75 ms, first - 75 ms], between
    beats at least 75 ms from both, and in [last + 75 ms, end - 0.5 s - 75 ms]. The segment is worth 1 without error,
    0.7 with exactly one extra detection, 0.3 with exactly one missed beat, else 0. The heart rate, the mean rate of
    the events in (5.5 s, end - 0.5 s), earns 1 / .75 / .5 / .25 for an error of at most 2 / 5 / 10 / 20 % of the
    reference's; two beats or more are needed for a rate, and a missing one agrees with a missing one only.

    Parameters
    ----------
    reference, estimate
        (n,), (m,) sample indices, strictly ascending.
    fs, samples
        Sampling rate (Hz) and length of the segment.
    official
        True repeats what the challenge's own program does beyond these rules: it never looks for extra detections
        between the first and the second reference beat, nor after an only one, nor in a segment without any; one
        exactly 75 ms from a beat is a hit and an extra one at once (at 500 Hz there is none); and it rounds the
        reference's heart rate to whole beats a minute and cuts that of the answer.

    Raises
    ------
    ValueError
        For times that are not finite, unsorted or repeated.
    """
    ref, est = _checked_times(reference, "reference"), _checked_times(estimate, "estimate")
    margin = CPSC2019_MARGIN_S * fs
    inside = ref[(ref >= margin) & (ref <= samples - margin)]
    reference_rate, rate = _heart_rate(ref, fs, samples), _heart_rate(est, fs, samples)
    if official:
        reference_rate = None if reference_rate is None else float(round(reference_rate))
        rate = None if rate is None else float(int(rate))
    worth = _cpsc2019_worth(inside, est, CPSC2019_TOLERANCE_S * fs, (margin, samples - margin), official)
    return CPSC2019Score(worth, _rate_score(reference_rate, rate))


def cpsc2019_score(
    references: Sequence[ArrayLike],
    estimates: Sequence[ArrayLike],
    *,
    fs: float = 500.0,
    samples: int = 5000,
    official: bool = False,
) -> CPSC2019Score:
    """Return the means of `cpsc2019_segment_score` over segments of one length.

    Parameters
    ----------
    references, estimates
        One list of sample indices a segment.
    fs, samples, official
        As there.

    Raises
    ------
    ValueError
        For lists of different length, or none.
    """
    if len(references) != len(estimates) or not references:
        raise ValueError(f"needs as many estimates as references, got {len(estimates)} for {len(references)}")
    return mean_cpsc2019_score(
        [
            cpsc2019_segment_score(reference, estimate, fs=fs, samples=samples, official=official)
            for reference, estimate in zip(references, estimates, strict=True)
        ]
    )


def mean_cpsc2019_score(segments: Sequence[CPSC2019Score]) -> CPSC2019Score:
    """Return the mean of the scores of one segment or more."""
    return CPSC2019Score(
        float(np.mean([segment.qrs_accuracy for segment in segments])),
        float(np.mean([segment.heart_rate_score for segment in segments])),
    )


def _cpsc2019_worth(
    ref: NDArray[Any], est: NDArray[Any], window: float, borders: tuple[float, float], official: bool
) -> float:
    """Return the worth of one segment, given the reference beats that count; all times in samples."""
    close = np.abs(ref[:, None] - est[None]) <= window
    missed = int((~close.any(axis=1)).sum())
    doubled = int(np.maximum(close.sum(axis=1) - 1, 0).sum())
    apart = est if official else est[~close.any(axis=0)]
    edges = np.concatenate([borders[:1], ref, borders[1:]])
    between = [int(((apart >= a + window) & (apart <= b - window)).sum()) for a, b in itertools.pairwise(edges)]
    if official:
        between[1 if len(ref) else 0] = 0
    errors = (missed, doubled + sum(between))
    return {(0, 0): 1.0, (0, 1): 0.7, (1, 0): 0.3}.get(errors, 0.0)


def _heart_rate(times: NDArray[Any], fs: float, samples: int) -> float | None:
    """Return the mean rate (1/min) of the second half of a segment; None with fewer than two beats."""
    late = times[(times > 5.5 * fs) & (times < samples - CPSC2019_MARGIN_S * fs)]
    return 60.0 * fs / float(np.diff(late).mean()) if len(late) > 1 else None


def _rate_score(reference: float | None, estimate: float | None) -> float:
    if reference is None or estimate is None:
        return float(reference is estimate)
    error = abs(estimate - reference)
    steps = ((0.02, 1.0), (0.05, 0.75), (0.1, 0.5), (0.2, 0.25))
    return next((worth for limit, worth in steps if error <= limit * reference), 0.0)


def _checked_times(times: ArrayLike, name: str) -> NDArray[Any]:
    array = np.asarray(times)
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise ValueError(f"{name} events must be a flat list of numbers, got {array.dtype} of shape {array.shape}")
    if array.dtype.kind == "u":
        array = array.astype(np.int64)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} events must be finite")
    if (np.diff(array) <= 0).any():
        raise ValueError(f"{name} events must be strictly ascending: sort them and drop repeated ones")
    return array
