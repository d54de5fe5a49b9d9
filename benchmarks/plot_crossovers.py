"""Which row is fastest on BERT-Large at every bandwidth and latency, on 16, 128 and 1,024 machines: tables, a picture.

python benchmarks/plot_crossovers.py [FILE.svg]

Rows stand in the order in which they relax: where several are as fast as each other (to 1 %), the one that relaxes
least is named. Asynchronous averaging is left out: nobody waits in it, so that it is at the computing time everywhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchsuite.core.registry import get_registry, load_object
from benchsuite.tasks.distributed_training.cost_model import BERT_LARGE, Exchange, fastest
from benchsuite.tasks.distributed_training.pictures import draw_crossovers

WORKERS, STEPS, WITHIN = (16, 128, 1024), 150, 0.01
ROWS = (
    "ddp",
    "ddp-fp16",
    "bytegrad",
    "qadam",
    "onebit-adam",
    "decentralized",
    "decentralized-shift-one",
    "low-precision-decentralized",
    "local-sgd",
)
BANDWIDTHS_GBPS = (0.1, 1, 4, 10, 25, 100, 400)
LATENCIES_MS = (0, 0.1, 1, 5, 50)


def exchanges_of(row: str, workers: int) -> list[Exchange]:
    """Return what the steps of a row exchange."""
    spec = get_registry().method(row)
    method = load_object(spec.load)(load_object(spec.config)(**spec.presets["embedded"].settings))
    return [method.exchange(BERT_LARGE.elements, workers, step) for step in range(STEPS)]


def main() -> None:
    """Print who is fastest, and draw it if a file is named."""
    methods = {workers: {row: exchanges_of(row, workers) for row in ROWS} for workers in WORKERS}
    for workers, exchanges in methods.items():
        print(f"| {workers} workers | " + " | ".join(f"{gbps:g} Gbit/s" for gbps in BANDWIDTHS_GBPS) + " |")
        rows = fastest(exchanges, BERT_LARGE, BANDWIDTHS_GBPS, LATENCIES_MS, WITHIN)
        for latency, names in zip(LATENCIES_MS, rows, strict=True):
            print(f"| {latency:g} ms | " + " | ".join(f"`{name}`" for name in names) + " |")
    if len(sys.argv) > 1:
        draw_crossovers(Path(sys.argv[1]), BERT_LARGE, methods, WITHIN)


if __name__ == "__main__":
    main()
