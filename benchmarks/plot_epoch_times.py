"""Simulated epoch times of every row on BERT-Large and 16 machines: a table, and a picture against bandwidth.

python benchmarks/plot_epoch_times.py [FILE.svg]
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchsuite.core.registry import get_registry, load_object
from benchsuite.tasks.distributed_training.cost_model import BERT_LARGE, Network
from benchsuite.tasks.distributed_training.pictures import draw_epoch_times, mean_epoch_seconds

WORKERS, STEPS = 16, 150
SAME_CURVES = ("ddp-bf16", "decentralized", "gradient-allreduce", "qadam-fixed")  # as ddp-fp16, ddp, ddp, qadam
NETWORKS = ((1, 0), (4, 0), (10, 0), (100, 0), (100, 1), (100, 5))


def main() -> None:
    """Print seconds of an epoch, and draw them if a file is named."""
    exchanges = {}
    for spec in get_registry().methods_for("distributed-training-simulated"):
        method = load_object(spec.load)(load_object(spec.config)(**spec.presets["embedded"].settings))
        exchanges[spec.name] = [method.exchange(BERT_LARGE.elements, WORKERS, step) for step in range(STEPS)]
    print("| row | " + " | ".join(f"{gbps} Gbit/s, {ms} ms" for gbps, ms in NETWORKS) + " |")
    for name, steps in exchanges.items():
        seconds = [mean_epoch_seconds(BERT_LARGE, steps, Network(gbps, ms)) for gbps, ms in NETWORKS]
        print(f"| `{name}` | " + " | ".join(f"{value:.0f}" for value in seconds) + " |")
    if len(sys.argv) > 1:
        drawn = {name: steps for name, steps in exchanges.items() if name not in SAME_CURVES}
        draw_epoch_times(Path(sys.argv[1]), BERT_LARGE, drawn, latency_ms=0, beside_published=False)


if __name__ == "__main__":
    main()
