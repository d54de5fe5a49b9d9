"""Real trainings killed without warning, three times at random, end with the scores of one that was left alone."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.slow

EVERY = 20
# task, method, settings that keep the test short, and the training that is killed
TRAININGS = {
    "RefT's base stage": ("fsis", "reft", ("base_steps=160", "refine_steps=30", "tune_steps=30"), "mask2former-base"),
    "CCI": ("qrs-detection", "cci", ("steps=160",), ""),
    "DOORPING": ("distillation-backdoor", "doorping", ("iterations=60", "trigger_steps=10"), ""),
    "RELIANT": ("fair-distillation", "reliant", (), ""),
}


def saved(folder: Path, training: str) -> dict[Path, float]:
    """Return the states that lie below a folder, and when they were written."""
    found = {}
    for place, _, files in os.walk(folder):  # which does not mind folders that vanish
        for path in (Path(place, name) for name in files):
            if "checkpoint" in str(path) and path.match(f"{training}*.pt"):
                with contextlib.suppress(OSError):
                    found[path] = path.stat().st_mtime
    return found


@pytest.mark.parametrize("which", TRAININGS)
def test_three_kills_change_nothing(cli: Any, which: str) -> None:
    task, method, settings, training = TRAININGS[which]
    chosen = [part for text in settings for part in ("--set", f"method.{text}")]
    command = ("run", "--task", task, "--method", method, "--no-reference", *chosen)
    cli.environment |= {"BENCHSUITE_CHECKPOINT_STEPS": str(EVERY), "MARK": uuid.uuid4().hex}

    (whole,) = cli(*command, "--out", "whole", "--json", timeout=900).json()
    cli.environment["BENCHSUITE_CACHE"] = str(cli.folder / "another-cache")
    draws = random.Random(5)
    for _ in range(3):
        running = cli.start(*command, "--out", "killed")
        seen, wanted = saved(cli.folder, training), draws.randint(1, 3)
        while wanted and running.poll() is None:
            time.sleep(0.002)
            now = saved(cli.folder, training)
            wanted -= now != seen
            seen = now
        for process in cli.processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        running.communicate()
        cli.assert_nobody_left()
    (result,) = cli(*command, "--out", "killed", "--json", timeout=900).json()

    assert result["status"] == whole["status"] == "ok"
    costs = {metric["name"] for metric in whole["definition"]["metrics"] if metric["kind"] == "cost"}
    for name in whole["scores"].keys() - costs:
        assert result["scores"][name] == whole["scores"][name], name
    logs = "\n".join(path.read_text() for path in (cli.folder / "killed").rglob("log.txt"))
    steps = [int(step) for step in re.findall(rf"{training}.* goes on at step (\d+)", logs)]
    assert steps, "no training went on"
    assert all(step > 0 for step in steps)
