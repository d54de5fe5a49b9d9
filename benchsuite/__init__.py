"""A benchmark suite for ten papers: one protocol, official metrics, fair baselines, honest tables."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_results", "run"]


def __getattr__(name: str) -> Any:
    if name in {"run", "load_results"}:
        from benchsuite.harness import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
