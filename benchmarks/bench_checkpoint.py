"""Seconds that keeping the state of a training takes, beside the training that it interrupts.

Run with ``pytest benchmarks/bench_checkpoint.py -s``. Every training saves every 20 steps here; by default it saves
every ten minutes, and the share of that is what users pay.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from benchsuite.core.registry import get_registry, load_object
from benchsuite.harness.checkpoint import DEFAULT_MINUTES, EVERY_STEPS, Checkpoint, Position
from benchsuite.harness.measure import make_context, measure
from benchsuite.harness.plan import Request, plan
from benchsuite.harness.settings import SeedChoice, assignments_of

# task, method, settings that keep it short
TRAININGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "RefT's stages": ("fsis", "reft", {"base_steps": 160, "refine_steps": 40, "tune_steps": 40}),
    "CCI": ("qrs-detection", "cci", {"steps": 160}),
    "DOORPING": ("distillation-backdoor", "doorping", {"iterations": 60, "trigger_steps": 10}),
    "RELIANT": ("fair-distillation", "reliant", {}),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_saving(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, method, settings = TRAININGS[name]
    seconds: list[float] = []
    sizes: list[int] = []
    save = Checkpoint.save

    def timed(checkpoint: Checkpoint, position: Position) -> None:
        begun = time.perf_counter()
        save(checkpoint, position)
        seconds.append(time.perf_counter() - begun)
        sizes.append(checkpoint.path.stat().st_size)

    monkeypatch.setattr(Checkpoint, "save", timed)
    monkeypatch.setenv(EVERY_STEPS, "20")
    registry = get_registry()
    request = Request(
        tasks=[task], methods=[method], settings=assignments_of(settings), seeds=[SeedChoice((0,))], reference=False
    )
    (planned,) = plan(request, registry).runs
    ctx = make_context(
        planned.run,
        load_object(registry.task(task).load),
        tmp_path,
        artifact_folder=tmp_path / "artifacts",
        cache_root=tmp_path / "cache",
        shared_digest=planned.shared_digest,
        uses=frozenset(planned.uses),
        checkpoint_folder=tmp_path / "kept",
    )
    begun = time.perf_counter()
    measure(planned.run, registry, ctx, {})
    whole = time.perf_counter() - begun
    one, largest = sum(seconds) / len(seconds), max(sizes) / 1e6
    print(
        f"\n{name}: {len(seconds)} saves of at most {largest:.1f} MB in {whole:.0f} s, {1e3 * one:.0f} ms each:"
        f" {100 * sum(seconds) / whole:.1f} % at a save every 20 steps,"
        f" {100 * one / (60 * DEFAULT_MINUTES):.3f} % at one every {DEFAULT_MINUTES:.0f} minutes"
    )
    assert seconds
