"""Methods: what a plugin brings."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from benchsuite.core.config import Preset

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
    """What a run needs. ``exclusive`` runs have the machine to themselves (timings need it)."""

    cpus: int = 1
    gpus: int = 0
    exclusive: bool = False


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
