"""What tests of several folders share: contexts outside a run, a kill, and random cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings

from benchsuite.harness.context import HarnessContext


class Killed(BaseException):
    """Stands for a process that is gone at once."""


def context(folder: Path, cls: type[HarnessContext] = HarnessContext, **changes: Any) -> Any:
    """Return a context of seed 0 with all its folders in one, as a run has it."""
    values: dict[str, Any] = {
        "seeds": {"run": 0},
        "seed_axes": ("run",),
        "workdir": folder,
        "artifact_folder": folder / "artifacts",
        "cache_root": folder / "cache",
        "shared_digest": "d",
        "checkpoint_folder": folder / "checkpoints",
    }
    return cls(**(values | changes))


@dataclass
class Killable(HarnessContext):
    """Ends a training by name when it reaches a step, and notes the steps that it took."""

    kill: tuple[str, int] | None = None
    taken: dict[str, list[int]] = field(default_factory=dict)

    def resumable(self, name: str, total: int, parts: Any, description: str = "") -> Iterator[int]:
        """Take the steps up to that one."""
        for step in super().resumable(name, total, parts, description):
            if (name, step) == self.kill:
                raise Killed
            self.taken.setdefault(name, []).append(step)
            yield step


class WatchedContext(HarnessContext):
    """Keeps the epochs of its last training."""

    epochs: list[int]

    def resumable(self, name: str, total: int, parts: Any, description: str = "") -> Iterator[int]:
        """Note every step that is taken."""
        self.epochs = []
        for epoch in super().resumable(name, total, parts, description):
            self.epochs.append(epoch)
            yield epoch


def watched(folder: Path) -> Any:
    """Return such a context that keeps the epochs of its last training."""
    return context(folder, WatchedContext)


def write_class_folders(root: Path, size: tuple[int, int], counts: dict[str, int]) -> None:
    """Write random pictures of two classes in ImageNet's layout, the second class brighter by 100."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, count in counts.items():
        for label, brighter in (("n01", 0), ("n02", 100)):
            folder = root / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 128, size=(*size, 3)) + brighter
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.JPEG")


def forall(cases: int, strategy: Any, check: Callable[[Any], None]) -> None:
    """Run ``check`` on that many drawn cases."""
    limits = settings(max_examples=cases, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    limits(given(strategy)(check))()


def paths_of(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every part of a JSON value."""
    found = [prefix] if prefix else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        found += paths_of(part, (*prefix, key))
    return found
