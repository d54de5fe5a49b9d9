"""CPU seconds of listing everything, beside those of a peer harness in the same run.

Run with ``pytest benchmarks/bench_listing.py -s``. The peer is benchopt's command line (``pip install
benchopt``); without it that figure is left out.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

PLUGIN = """
from benchsuite.core import MethodSpec

def benchsuite_methods():
    return [MethodSpec({name!r}, "1", ("t",), "x:Y")]
"""


def cpu_seconds(arguments: list[str], path: Path | None = None, runs: int = 7) -> float:
    """Return the median CPU seconds of a command."""
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    seconds = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", *arguments], check=True, capture_output=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(seconds)


def make_plugins(folder: Path, count: int) -> None:
    """Install ``count`` distributions of one method each."""
    for index in range(count):
        name = f"dummy_{index}"
        (folder / f"{name}.py").write_text(PLUGIN.format(name=name))
        meta = folder / f"{name}-1.0.dist-info"
        meta.mkdir()
        (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (meta / "entry_points.txt").write_text(f"[benchsuite]\n{name} = {name}\n")


def test_listing(tmp_path: Path) -> None:
    make_plugins(tmp_path, 200)
    plain = cpu_seconds(["benchsuite.cli", "list"])
    crowded = cpu_seconds(["benchsuite.cli", "list"], tmp_path)
    print(f"\nbenchsuite list: {plain:.3f} s of CPU; with 200 more plugins {crowded:.3f} s (+{crowded - plain:.3f} s)")
    if importlib.util.find_spec("benchopt"):
        peer = cpu_seconds(["benchopt", "--version"])
        print(f"benchopt --version: {peer:.3f} s of CPU; ratio {plain / peer:.2f}")
    assert plain > 0
