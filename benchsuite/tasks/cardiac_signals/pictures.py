"""Pictures of signals with the events that are there and those that were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
