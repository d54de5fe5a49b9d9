"""Accuracy of every row against its BitOPs, means over seeds, with the Pareto front: a table, a picture.

python benchmarks/plot_bitops.py RUNS [FILE.svg] [MODEL]

RUNS is a folder of results of `mixed-precision-quantization`; MODEL (mlp) is the network whose table is drawn.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import benchsuite
from benchsuite.tasks.mixed_precision_quantization.pictures import draw_front

TASK = "mixed-precision-quantization"


def main() -> None:
    """Print the rows, cheapest first, and draw them if a file is named."""
    folder, *more = sys.argv[1:]
    model = more[1] if len(more) > 1 else "mlp"
    frame = benchsuite.load_results(folder)
    frame = frame[frame["task"] == TASK]
    frame = frame[frame["protocol"].map(lambda text: json.loads(text)["model"]) == model]
    if frame.empty:
        sys.exit(f"{folder}: no results of {TASK} with the network {model!r}")
    means = (
        frame.groupby("label")[["score_top1", "score_bitops", "score_weight_bits"]].mean().sort_values("score_bitops")
    )
    rows = [
        {"label": label, "top1": float(row["score_top1"]), "bitops": float(row["score_bitops"])}
        for label, row in means.iterrows()
    ]
    counts = frame["label"].value_counts()
    for label, row in means.iterrows():
        costs = f"{row['score_bitops']:10.4f} M {row['score_weight_bits']:6.2f} bits"
        print(f"{label:24} {costs} {100 * row['score_top1']:6.2f} % n {counts[label]}")
    if more:
        print("Pareto front:", ", ".join(draw_front(Path(more[0]), rows)))


if __name__ == "__main__":
    main()
