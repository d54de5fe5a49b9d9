"""Event matching: 100,000 beats, our maximum matching against wfdb's greedy one, in the same process.

python benchmarks/bench_events.py
"""

from __future__ import annotations

import time

import numpy as np
from wfdb.processing import compare_annotations

from benchsuite.metrics.events import count_events

ROUNDS = 5


def seconds(call) -> float:
    """Return the least CPU time of several calls."""
    best = float("inf")
    for _ in range(ROUNDS):
        before = time.process_time()
        call()
        best = min(best, time.process_time() - before)
    return best


def main() -> None:
    """Print CPU seconds and the ratio."""
    rng = np.random.default_rng(0)
    crowds = (("beats further apart than twice the window", 200), ("crowded beats", 40), ("five in every window", 15))
    for name, low in crowds:
        reference = np.cumsum(rng.integers(low, 2 * low, 100_000))
        estimate = np.unique(reference + rng.integers(-70, 70, 100_000))
        ours = seconds(lambda r=reference, e=estimate: count_events(r, e, 54))
        theirs = seconds(lambda r=reference, e=estimate: compare_annotations(r, e, 55))
        print(f"{name}: ours {ours:.3f} s, wfdb {theirs:.3f} s, ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
