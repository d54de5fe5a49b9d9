"""Where a training goes on after a kill: its state, kept beside the run or the cached step that it belongs to.

A file holds the number of the next step, the state of every part that the training names, and every global random
state. It is written atomically and read without executing anything.
"""

from __future__ import annotations

import io
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from benchsuite.harness.store import write_atomic

EVERY_STEPS = "BENCHSUITE_CHECKPOINT_STEPS"  # a save every so many steps, instead of every so many minutes
EVERY_MINUTES = "BENCHSUITE_CHECKPOINT_MINUTES"
DEFAULT_MINUTES = 10.0


class Interrupted(SystemExit):
    """The run was told to end (SIGTERM); its state is kept."""


@dataclass(frozen=True)
class Position:
    """Where a training stands: its next step, and the seconds that it has taken so far."""

    step: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


class Checkpoint:
    """The kept state of one training.

    Parameters
    ----------
    path
        The file.
    parts
        What makes up the training's state: anything with ``state_dict`` and ``load_state_dict`` (modules, optimisers,
        schedules, averages), torch or numpy generators, tensors, arrays, and lists or dictionaries of tensors, numbers
        and texts. Each is restored in place.
    """

    def __init__(self, path: Path, parts: Mapping[str, Any]) -> None:
        self.path = path
        self.parts = parts
        steps, minutes = os.environ.get(EVERY_STEPS), os.environ.get(EVERY_MINUTES)
        self._every_steps = int(steps) if steps else None
        self._every_s = 60.0 * (float(minutes) if minutes else DEFAULT_MINUTES)
        self._saved_at = time.monotonic()

    def restore(self) -> Position:
        """Bring every part and the global random states to where they were; the start if nothing is kept."""
        import torch

        try:
            kept = torch.load(self.path, weights_only=True)
        except FileNotFoundError:
            return Position()
        if kept["parts"].keys() != self.parts.keys():
            raise ValueError(f"the checkpoint {self.path.name} is of other parts: {', '.join(kept['parts'])}")
        for name, part in self.parts.items():
            _restore_part(part, kept["parts"][name])
        _restore_random_states(kept["random"])
        return Position(kept["step"], kept["wall_s"], kept["cpu_s"])

    def due(self, step: int) -> bool:
        """Return whether it is time to save before ``step``."""
        if self._every_steps is not None:
            return step % self._every_steps == 0
        return time.monotonic() - self._saved_at > self._every_s

    def save(self, position: Position) -> None:
        """Keep the state, replacing what was kept before."""
        import torch

        content = io.BytesIO()
        kept = {
            **vars(position),
            "parts": {name: _state_of(name, part) for name, part in self.parts.items()},
            "random": _random_states(),
        }
        torch.save(kept, content)
        while True:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_atomic(self.path, content.getvalue())
                break
            except FileNotFoundError:  # the same run ended on another node, and took the folder with it
                continue
        self._saved_at = time.monotonic()


def _state_of(name: str, part: Any) -> Any:
    import numpy as np
    import torch

    if isinstance(part, torch.Generator):
        return part.get_state()
    if isinstance(part, np.random.Generator):
        return json.dumps(part.bit_generator.state)
    if isinstance(part, torch.Tensor):
        return part.detach()
    if isinstance(part, np.ndarray):
        return torch.from_numpy(part.copy())
    if isinstance(part, list | dict):
        return part
    if hasattr(part, "state_dict") and hasattr(part, "load_state_dict"):
        return part.state_dict()
    raise TypeError(f"{name!r} is a {type(part).__name__}, of which no state can be kept: see RunContext.resumable")


def _restore_part(part: Any, state: Any) -> None:
    import numpy as np
    import torch

    if isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, np.random.Generator):
        part.bit_generator.state = json.loads(state)
    elif isinstance(part, torch.Tensor):
        with torch.no_grad():
            part.copy_(state)
    elif isinstance(part, np.ndarray):
        part[...] = state.numpy()
    elif isinstance(part, list):
        part[:] = state
    elif isinstance(part, dict):
        part.clear()
        part.update(state)
    else:
        part.load_state_dict(state)


def _random_states() -> dict[str, Any]:
    import numpy as np
    import torch

    legacy: Any = np.random.get_state(legacy=True)
    name, keys, *rest = legacy
    return {
        "python": json.dumps(random.getstate()),
        "numpy": json.dumps([name, keys.tolist(), *rest]),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def _restore_random_states(states: Mapping[str, Any]) -> None:
    import numpy as np
    import torch

    version, numbers, gauss = json.loads(states["python"])
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = json.loads(states["numpy"])
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])


class TermSignal:
    """Notices SIGTERM while a training runs, so that its state is kept before the process ends.

    Only in the main thread of a worker; elsewhere the signal keeps its meaning.
    """

    def __init__(self) -> None:
        self.received = False
        self._before: Any = None
        self._installed = False

    def __enter__(self) -> TermSignal:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self._before = signal.signal(signal.SIGTERM, self._note)
            self._installed = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        if self._installed:
            signal.signal(signal.SIGTERM, self._before)
            if self.received and kind is GeneratorExit:  # the loop was left before its state could be kept
                os.kill(os.getpid(), signal.SIGTERM)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = True
        print("benchsuite: told to end; keeping the state of the training first", file=sys.stderr, flush=True)
