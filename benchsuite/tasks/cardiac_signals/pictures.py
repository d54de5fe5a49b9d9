"""Pictures of recordings with the events that are there and those that were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.core import Outcome
from benchsuite.datasets.ecg.reader import EcgRecord
from benchsuite.datasets.pcg.reader import FRAMES_PER_SECOND, UNLABELLED, PcgRecord, centres_of, runs_of
from benchsuite.tasks.cardiac_signals.heart_sound_contract import States
from benchsuite.tasks.cardiac_signals.heart_sound_judge import NAMES, SHORTEST_SOUND
from benchsuite.tasks.cardiac_signals.qrs_contract import Integers, QrsProtocol
from benchsuite.tasks.cardiac_signals.recordings import lead_signal, representative

_COLOURS = ("tab:blue", "tab:orange")
_REACH = 1.0  # of the middle range, on either side of it


@dataclass(frozen=True)
class Strip:
    """A stretch of one recording: ``time`` and event times in seconds, one entry a kind of event.

    ``unjudged`` are (from, to) in seconds: stretches that no score looks at.
    """

    title: str
    time: NDArray[Any]
    signal: NDArray[Any]
    unit: str
    true: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    found: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    unjudged: Sequence[tuple[float, float]] = ()


def draw_detections(
    path: Path, records: Sequence[EcgRecord], detections: Sequence[Integers], outcome: Outcome, protocol: QrsProtocol
) -> None:
    """Draw ten seconds of the worst, a middling and the best record, with their beats and the detections."""
    rows = outcome.tables["records"]
    strips = []
    for i in representative([row["f1_75ms"] for row in rows]):
        record = records[i]
        start = 0 if not record.learning_s else min(int(record.learning_s * record.fs), record.signals.shape[1] // 2)
        stop = min(start + int(10 * record.fs), record.signals.shape[1])
        strips.append(
            Strip(
                title=f"{record.name}: F1 at 75 ms {_percent(rows[i]['f1_75ms'])}",
                time=np.arange(start, stop) / record.fs,
                signal=lead_signal(record, protocol)[start:stop],
                unit="mV",
                true={"beats": record.beats[(record.beats >= start) & (record.beats < stop)] / record.fs},
                found={"beats": detections[i][(detections[i] >= start) & (detections[i] < stop)] / record.fs},
                unjudged=_unjudged(record, start, stop),
            )
        )
    draw_strips(path, strips)


def draw_segmentation(path: Path, records: Sequence[PcgRecord], found: Sequence[States], outcome: Outcome) -> None:
    """Draw eight annotated seconds of the worst, a middling and the best record, with true sounds and those found."""
    rows = outcome.tables["records"]
    strips = []
    for i in representative([row["f1_60ms"] for row in rows]):
        record = records[i]
        first = int(np.flatnonzero(record.states != UNLABELLED)[0])
        last = min(first + 8 * FRAMES_PER_SECOND, len(record.states))
        start, stop = int(first / FRAMES_PER_SECOND * record.fs), int(last / FRAMES_PER_SECOND * record.fs)
        strips.append(
            Strip(
                title=f"{record.name}: F1 at 60 ms {_percent(rows[i]['f1_60ms'])}",
                time=np.arange(start, min(stop, len(record.signal))) / record.fs,
                signal=record.signal[start:stop],
                unit="a.u.",
                true=_seconds(record.events, first, last),
                found=_seconds(centres_of(found[i], SHORTEST_SOUND), first, last),
                unjudged=[
                    ((first + begin) / FRAMES_PER_SECOND, (first + end + 1) / FRAMES_PER_SECOND)
                    for begin, end in runs_of(record.states[first:last], UNLABELLED).tolist()
                ],
            )
        )
    draw_strips(path, strips)


def _percent(share: float | None) -> str:
    return "undefined" if share is None else f"{100 * share:.1f} %"


def _unjudged(record: EcgRecord, start: int, stop: int) -> list[tuple[float, float]]:
    """Return what of a stretch lies outside the scored part of the record, in seconds."""
    first, last = record.scored
    pieces = [(start, min(first, stop)), (max(last, start), stop)]
    return [(begin / record.fs, end / record.fs) for begin, end in pieces if end > begin]


def _seconds(events: Mapping[int, NDArray[np.float64]], first: int, last: int) -> dict[str, NDArray[np.float64]]:
    """Return the sounds between two frames, by the name of their kind."""
    return {
        NAMES[sound].upper(): (times[(times >= first) & (times < last)] + 0.5) / FRAMES_PER_SECOND
        for sound, times in events.items()
    }


def draw_strips(path: Path, strips: Sequence[Strip]) -> None:
    """Write a PNG: each strip with reference events as triangles above and detections as triangles below.

    A spike far beyond the rest of the signal is cut off, and what is not judged is shaded.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(12, 2.4 * len(strips) + 0.6), layout="constrained")
    axes = figure.subplots(len(strips), 1, squeeze=False)[:, 0]
    for axis, strip in zip(axes, strips, strict=True):
        for start, stop in strip.unjudged:
            axis.axvspan(start, stop, color="0.93", linewidth=0)
        low, high = _visible_range(strip.signal)
        axis.plot(strip.time, strip.signal.clip(low, high), color="0.35", linewidth=0.8)
        span = max(high - low, 1e-6)
        for place, marker, verb, events in (
            (high + 0.1 * span, "v", "true", strip.true),
            (low - 0.1 * span, "^", "found", strip.found),
        ):
            for colour, (kind, times) in zip(_COLOURS, events.items(), strict=False):
                axis.plot(times, [place] * len(times), marker, color=colour, label=f"{verb} {kind}")
        axis.set_ylim(low - 0.25 * span, high + 0.25 * span)
        axis.set_xlim(strip.time[0], strip.time[-1])
        axis.set_title(strip.title, fontsize=10, loc="left")
        axis.set_ylabel(strip.unit)
    axes[-1].set_xlabel("seconds")
    handles, labels = axes[0].get_legend_handles_labels()
    if any(strip.unjudged for strip in strips):
        handles, labels = [*handles, Patch(color="0.93")], [*labels, "not judged"]
    figure.legend(handles, labels, loc="outside upper right", ncols=5, fontsize=9, frameon=False)
    figure.savefig(path, dpi=90)


def _visible_range(signal: NDArray[Any]) -> tuple[float, float]:
    """Return the least and the largest value shown: all but what lies far outside the middle 99 %."""
    low, high = np.percentile(signal, (0.5, 99.5))
    beyond = _REACH * (high - low)
    return max(float(signal.min()), float(low - beyond)), min(float(signal.max()), float(high + beyond))
