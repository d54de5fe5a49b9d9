"""A benchmark suite for ten papers: one protocol, official metrics, fair baselines, honest tables."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "claims", "leaderboard", "load_results", "run"]


def __getattr__(name: str) -> Any:
    if name == "leaderboard":
        return importlib.import_module("benchsuite.leaderboard")
    if name in __all__:
        return getattr(importlib.import_module("benchsuite.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
