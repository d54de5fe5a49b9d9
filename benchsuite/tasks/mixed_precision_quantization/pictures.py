"""Pictures: the bits of every layer of a run and how a search came to them, accuracy of many rows against BitOPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchsuite.tasks.mixed_precision_quantization.contract import FULL_BITS

__all__ = ["draw_front", "draw_strategy"]

_MOST_NAMES = 24


def draw_strategy(path: Path, layers: Sequence[Mapping[str, Any]], search: Sequence[Mapping[str, Any]]) -> None:
    """Write a PNG: bits of each layer above its number of weights, and the bits of every layer during the search.

    Parameters
    ----------
    path
        Of the picture.
    layers
        Records with ``layer``, ``weights``, ``weight_bits``, ``input_bits``.
    search
        Records with ``step``, ``layer`` and ``bits`` (the bits from that step on), or none.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = [str(row["layer"]) for row in layers]
    places = range(len(names))
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    axes[0].bar(places, [row["weight_bits"] for row in layers], color="#3b6ea5", label="weights")
    axes[0].plot(places, [row["input_bits"] for row in layers], "_", color="#c44e52", ms=14, mew=2, label="inputs")
    axes[0].set(xlabel="layer (number of weights)", ylabel="bits", title="Strategy")
    if max(row["weight_bits"] for row in layers) == FULL_BITS:
        axes[0].set_ylim(0, FULL_BITS + 1)
    axes[0].legend()
    if len(names) <= _MOST_NAMES:
        labels = [f"{name}\n{row['weights']:,}" for name, row in zip(names, layers, strict=True)]
        axes[0].set_xticks(list(places), labels, rotation=0 if len(names) <= 8 else 90, fontsize=7)
    for name in names:
        steps = [(row["step"], row["bits"]) for row in search if row["layer"] == name]
        if steps:
            axes[1].step(*zip(*steps, strict=True), where="post", label=name)
    axes[1].set(xlabel="step", ylabel="bits", title="Search" if search else "No search: given bits")
    if search and len(names) <= 12:
        axes[1].legend(fontsize=7)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def draw_front(path: Path, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Draw accuracy against BitOPs with the Pareto front, and return the rows on the front, cheapest first.

    Parameters
    ----------
    path
        Of the picture: PNG or SVG.
    rows
        Records with ``label``, ``top1`` (a fraction) and ``bitops`` (million), one a row of the table.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    front: list[Mapping[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["bitops"], -row["top1"])):
        if not front or row["top1"] > front[-1]["top1"]:
            front.append(row)
    figure, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    axes.plot([row["bitops"] for row in front], [100 * row["top1"] for row in front], "-", color="#c44e52", lw=1)
    axes.plot([row["bitops"] for row in rows], [100 * row["top1"] for row in rows], "o", color="#3b6ea5")
    for row in rows:
        axes.annotate(
            row["label"], (row["bitops"], 100 * row["top1"]), fontsize=7, xytext=(3, 3), textcoords="offset points"
        )
    axes.set(xscale="log", xlabel="BitOPs a picture (million)", ylabel="Top-1 (%)", title="Accuracy against BitOPs")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return [str(row["label"]) for row in front]
