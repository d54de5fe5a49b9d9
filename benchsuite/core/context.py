"""What a run may ask of the harness while it is being measured."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from benchsuite.core.method import Method


class RunContext(ABC):
    """The harness as seen from inside a run.

    Attributes
    ----------
    device
        Torch's name of the device to use: ``"cpu"`` or ``"cuda:0"``.
    threads
        Number of intra-op threads. Fixed by the run, never by the load of the machine.
    workdir
        A scratch folder of this run alone.
    split
        ``"test"`` or ``"val"``: which held-out part a task judges on.
    weights
        The file given with ``--weights``, or None.
    wanted_artifacts
        What the user asked to be kept (``--artifacts model``): a method that trains a model saves it then,
        as a plain state dict, and with ``weights`` loads it instead of training.
    max_steps
        Number of steps after which every training of this run is cut short (``--max-steps``), or None. What a whole
        run must have (pre-trained weights), a truncated one may go without.
    deadline
        ``time.monotonic()`` value after which the run is stopped, or None. A task may give up early
        because of it, but must never train less because of it.
    log
        The run's logger.
    """

    device: str
    threads: int
    workdir: Path
    split: Literal["test", "val"]
    weights: Path | None
    wanted_artifacts: frozenset[str]
    max_steps: int | None
    deadline: float | None
    log: logging.Logger

    @abstractmethod
    def seed_for(self, axis: str, name: str) -> int:
        """Return a seed in [0, 2**31) for one purpose (``name``).

        It depends on the value of ``axis`` and of every axis outside it, and on nothing else: two
        methods that ask for the same name get the same seed. Raises KeyError for an unknown axis.
        """

    @abstractmethod
    def draw_of(self, axis: str) -> int:
        """Return which draw of a seed axis this run is, as the user numbers them (``--seeds AXIS=...``), from 0.

        For what is published under numbers of its own; everything random comes from `seed_for`. Raises KeyError for
        an unknown axis.
        """

    @abstractmethod
    def steps(self, total: int, description: str = "steps") -> Iterator[int]:
        """Yield 0 .. total - 1, reporting progress; every optimiser loop draws from this.

        A run that was asked to stop early (``--max-steps``) ends each loop after that many steps and is
        stored as ``truncated``.
        """

    @abstractmethod
    def resumable(self, name: str, total: int, parts: Mapping[str, Any], description: str = "") -> Iterator[int]:
        """Yield the steps of a training as `steps` does, going on where a killed run of the same code left it.

            for step in ctx.resumable("training", total, {"model": model, "optimizer": optimizer, "order": generator}):
                ...

        The state is kept every ten minutes and when the run is told to end (SIGTERM). A run that is started again
        restores it before the first step and ends with the same scores, bit for bit on the CPU.

        Parameters
        ----------
        name
            Of the training, within this run.
        total
            Number of steps from the beginning.
        parts
            Everything that the loop changes and needs: modules, optimisers, schedules and averages (whatever has
            ``state_dict`` and ``load_state_dict``), torch or numpy generators, tensors, arrays, lists or dictionaries
            of tensors, numbers and texts. Restored in place; the global random states are kept besides. Needs torch:
            without it nothing is kept.
        description
            For the progress bar; the name if it is empty.
        """

    @abstractmethod
    def phase(self, name: str) -> AbstractContextManager[None]:
        """Time a block: wall and CPU seconds are added to the result's timing ``name``."""

    @abstractmethod
    def cached(self, name: str, inputs: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """Return a folder of files that depend on ``inputs`` alone, building it if need be.

        ``build`` fills the (empty) folder it is given. It runs under a random state of its own that is
        seeded from the inputs, so a hit and a miss lead to the same scores; its seconds are charged to
        every result that uses the folder. The code of the task and of the plugin's methods for it, the device kind
        and the thread count are part of the key. Safe under concurrent processes and interrupted builds.
        """

    @abstractmethod
    def artifact(self, name: str) -> Path:
        """Return the path under which to write a file that is kept beside the result."""

    @abstractmethod
    def method(self, name: str, **settings: Any) -> Method:
        """Build another registered method of the same task (embedded preset plus ``settings``).

        For tasks whose protocol involves a second method (the clean set under an attack's trigger). The spec of the
        task or of the method must name it in ``uses``.
        """

    @abstractmethod
    def scratch(self, name: str) -> AbstractContextManager[RunContext]:
        """Give a stage a context whose folder, artifacts included, is gone when the block ends.

        Its phases, steps and cached steps count for the run.
        """

    @abstractmethod
    def apart(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``function(ctx, *arguments)`` in a fresh process and return what it returns.

        For settings that forbid a method to carry anything into a stage but what the task hands over. That process
        shares no memory with this one; its context has a scratch folder and cached steps of its own, which end with
        it. Its phases, progress and artifacts count for the run.

        Parameters
        ----------
        name
            Of the stage.
        function
            Of a module's top level; it, its arguments and what it returns must pickle.

        Raises
        ------
        UserError
            What the function raised, if it is one.
        RuntimeError
            For any other failure in that process; its traceback is in the run's log.
        """

    @abstractmethod
    def for_rank(self, rank: int) -> RunContext:
        """Return the context for one process of a parallel run: picklable, with seeds of its own."""
