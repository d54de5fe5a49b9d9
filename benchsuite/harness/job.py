"""What the parent process hands to the process of one run, as JSON."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from benchsuite.core.result import Identity


class Job(BaseModel):
    """One run to make: its identity, and everything that is not part of it."""

    id: int
    identity: Identity
    shared_digest: str
    device: str
    gpus: list[str] = []  # the devices that it may see, as CUDA_VISIBLE_DEVICES names them
    data_roots: dict[str, str]
    readers: dict[str, str] = {}  # real data set to what its reader is: code, and libraries
    uses: list[str] = []
    weights: str | None = None
    store: str
    cache: str
    timeout: float | None = None
    force: bool = False
    artifacts: list[str] = []
    warm_up: tuple[float, int] = (0.0, 0)  # seconds, on so many CPUs, before anything is timed
    environment: dict[str, Any]


class Report(BaseModel):
    """How a run ended, told to the parent: where its result is, or why there is none."""

    id: int
    path: str | None = None
    stored_before: bool = False
    problem: str | None = None
    lost: bool = False  # its node ended: nothing is known of the run itself
    log: str | None = None
