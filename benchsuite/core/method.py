"""Methods: what a plugin brings."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from benchsuite.core.config import Preset
from benchsuite.core.errors import ConfigError

Role = Literal["method", "baseline", "ablation", "control", "extension"]


@dataclass(frozen=True)
class NoSettings:
    """The configuration of a method that has nothing to set."""


class Method(ABC):  # noqa: B024 - tasks add the abstract methods
    """Base of every method. A task derives an abstract class from it; a plugin implements that.

    The constructor stores the configuration and does nothing else, so that an unfitted method
    pickles and a task can build several (ranks, repeats).

    Attributes
    ----------
    name
        The name it is registered under; the harness sets it.
    """

    Config: ClassVar[type] = NoSettings
    name: str = ""

    def __init__(self, config: Any) -> None:
        self.config = config

    def forward_examples(self) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        """Yield ``(module, inputs)`` pairs whose forward pass can be traced on a fake device.

        Modules and tensors are built on the current default device of torch. Optional: the default
        yields nothing, which a conformance check reports as "nothing to trace".
        """
        return iter(())


@dataclass(frozen=True)
class Resources:
    """What a run needs.

    Parameters
    ----------
    cpus
        How many of the CPUs that ``--workers`` grants.
    gpus
        How many GPUs it must have: whole ones, or a share of one, as 0.5 for runs of which two fit on a device (their
        memory is not parted: they have to leave each other room). 0: it runs on the CPU too, and takes one GPU where
        the device is a GPU.
    memory_mb
        Megabytes (10^6 bytes) of main memory; 0: not said, and runs are not held back for it.
    exclusive
        It has the machine to itself (timings need it); on a GPU with ``gpus=0``, all GPUs too.

    Raises
    ------
    ConfigError
        For numbers that cannot be meant.
    """

    cpus: int = 1
    gpus: float = 0
    exclusive: bool = False
    memory_mb: float = 0

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise ConfigError(f"resources: cpus={self.cpus!r}: give 1 or more")
        if not (0 <= self.gpus < 1 or (1 <= self.gpus < float("inf") and self.gpus == int(self.gpus))):
            raise ConfigError(f"resources: gpus={self.gpus!r}: give whole GPUs, or a share of one between 0 and 1")
        if not 0 <= self.memory_mb < float("inf"):
            raise ConfigError(f"resources: memory_mb={self.memory_mb!r}: give megabytes, 0 or more")


@dataclass(frozen=True)
class Paper:
    """Where a method was published."""

    title: str
    authors: str
    venue: str
    year: int
    url: str = ""


@dataclass(frozen=True)
class MethodSpec:
    """One row of the suite. Holds strings only, so that listing imports no plugin code.

    Parameters
    ----------
    name, version
        Identity; bump ``version`` when numbers can change on purpose.
    tasks
        Names of the tasks the method runs on.
    load
        ``"module:Class"`` of the `Method`.
    config
        ``"module:Class"`` of its settings, the very class of ``Method.Config``, in a module without heavy
        imports: runs are then planned without loading the method. Optional.
    role
        ``method``, ``baseline``, ``ablation``, ``control`` or ``extension``.
    title, paper
        One line for people, and where the method was published.
    resources
        What a run needs of the machine, e.g. GPUs.
    presets
        Named configurations; ``embedded`` (the default: two cores, minutes) must be among them,
        ``paper`` is the published setting.
    requires, install
        Import names of the libraries that the method needs, and the command that installs them.
    deterministic
        True if the same seeds give the same quality scores bit for bit on the CPU.
    uses
        Names of other registered methods that it asks for, or lets its task ask for, through ``ctx.method``: their code
        is then part of what its results depend on.
    saves_model
        True if it keeps its trained model with ``--artifacts model`` and loads one with ``--weights``.
    reported, claims
        ``"package:file"`` of the paper's own numbers (CSV) and of its claims (TOML).
    card
        ``"package:file"`` of the method card.
    """

    name: str
    version: str
    tasks: tuple[str, ...]
    load: str
    role: Role = "method"
    title: str = ""
    config: str = ""
    paper: Paper | None = None
    presets: Mapping[str, Preset] = field(default_factory=lambda: {"embedded": Preset()})
    requires: tuple[str, ...] = ()
    install: str = ""
    resources: Resources = Resources()
    deterministic: bool = True
    saves_model: bool = False
    uses: tuple[str, ...] = ()
    reported: str = ""
    claims: str = ""
    card: str = ""
