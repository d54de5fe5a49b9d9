"""Step times of data-parallel training over virtual links of 100 Mbit/s, beside DDP in the same run.

Needs Linux, root, and the tools ip, tc and unshare. python benchmarks/bench_throttled_training.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist

import benchsuite
from benchsuite.core.result import parse_result
from benchsuite.tasks.distributed_training import namespaces
from benchsuite.tasks.distributed_training.ranks import run_ranks

MBIT = 100
ROWS = ("ddp", "ddp-fp16", "bytegrad", "decentralized-shift-one", "low-precision-decentralized")


def all_reduce_ms(rank: int, folder: Path, tell) -> float:
    """Return the least milliseconds of an all-reduce of 4 MiB."""
    namespaces.enter(folder, rank, MBIT)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting-point'}", rank=rank, world_size=2)
    tensor = torch.ones(2**20)
    best = float("inf")
    for _ in range(5):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(tensor)
        best = min(best, time.perf_counter() - start)
    return 1000 * best


def main() -> None:
    """Print milliseconds, ratios, and what the kernel counted beside what was counted here."""
    if reason := namespaces.unavailable():
        raise SystemExit(f"not possible here: {reason}")
    with tempfile.TemporaryDirectory() as name, namespaces.switch(Path(name), MBIT) as plug_in:
        ms = max(run_ranks(all_reduce_ms, [(rank, Path(name)) for rank in range(2)], Path(name), on_start=plug_in))
    print(f"all-reduce of 4 MiB: {ms:.1f} ms")
    settings = {"task.network": "veth", "task.bandwidth_mbit": MBIT, "task.steps": 35}
    with tempfile.TemporaryDirectory() as out:
        benchsuite.run("distributed-training", ROWS, settings=settings, device="cpu", out=out)
        files = Path(out).glob("**/result.json")
        results = {result.run.method: result for file in files if (result := parse_result(file.read_bytes(), file))}
    step_ms = {row: 1000 / results[row].scores["steps_per_s"] for row in ROWS}
    for row in ROWS:
        counts = [rank["link_bytes"] / rank["sent_bytes"] for rank in results[row].tables["ranks"]]
        print(
            f"{row}: {step_ms[row]:.1f} ms a step, {step_ms['ddp'] / step_ms[row]:.2f} times as fast as DDP;"
            f" the kernel counted {100 * (max(counts) - 1):.2f} % more than the payload"
        )


if __name__ == "__main__":
    main()
