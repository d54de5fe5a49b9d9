"""Tasks: the protocol that every method of a field is judged by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from benchsuite.core.config import Preset
from benchsuite.core.context import RunContext
from benchsuite.core.method import Method
from benchsuite.core.metric import Metric

MethodType = TypeVar("MethodType", bound=Method)
DataType = TypeVar("DataType")
ProtocolType = TypeVar("ProtocolType")


@dataclass(frozen=True)
class NoProtocol:
    """The protocol of a task that leaves nothing open."""


@dataclass(frozen=True)
class Constraint:
    """Rank only rows whose ``metric`` is good enough.

    Attributes
    ----------
    relative_to, margin
        No worse than that of the row of this method, but for ``margin``. While that row is missing nobody is ranked.
    at_least, at_most
        Or within fixed bounds.
    """

    metric: str
    relative_to: str = ""
    margin: float = 0.0
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if bool(self.relative_to) == (self.at_least is not None or self.at_most is not None):
            raise ValueError(f"constraint on {self.metric!r}: name relative_to, or at_least and at_most")


@dataclass(frozen=True)
class Ranking:
    """The metric to rank by, among the rows that meet the constraint (all rows without one).

    Attributes
    ----------
    otherwise
        The metric that ranks where ``metric`` is undefined in every row (NDS on data with a part of the classes).
    """

    metric: str
    constraint: Constraint | None = None
    otherwise: str = ""


@dataclass(frozen=True)
class Ratio:
    """A metric that is a ratio of sums over items, so that an interval over items can be given.

    Attributes
    ----------
    table
        Name of the result's table that has a record an item, with ``cluster`` and the columns that are summed.
    cluster
        Column that says which items belong together (patient, image, scene); they are drawn together.
    numerator, denominator
        Column to its weight in the sum: F1 is ``{"tp": 2}`` over ``{"tp": 2, "fp": 1, "fn": 1}``.
    """

    table: str
    cluster: str
    numerator: Mapping[str, float]
    denominator: Mapping[str, float]


@dataclass(frozen=True)
class Presentation:
    """How tables show the metrics of a task. No number depends on it.

    Attributes
    ----------
    headline
        At most four metrics that short tables show; none: the ranking's, and its constraint's.
    names
        Metric to its name as the field writes it (``{"nap": "nAP"}``).
    exact
        Metrics that are counted, not estimated (bytes by a formula): where all seeds agree, they differ for certain.
    cost
        What short tables show of the costs: ``fit_seconds``, ``peak_memory``, ``parameters``, or a metric.
    items
        Metric to the sums over items that it is made of.
    """

    headline: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    exact: tuple[str, ...] = ()
    cost: str = "fit_seconds"
    items: Mapping[str, Ratio] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.headline) > 4:
            raise ValueError(f"{len(self.headline)} headline metrics, at most four fit into a table that people read")


@dataclass(frozen=True)
class Publication:
    """What a published row consists of. No number depends on it: a changed plan leaves what is measured as it is.

    Attributes
    ----------
    seeds
        How many seeds of each axis a row needs.
    protocols
        Changes of the preset's protocol; a method is published at each, and each is a table of its own. The default
        is the preset's protocol alone.
    data
        Data sets, one for all roles each, on which it is published; the default is the task's own data alone.
    without
        By method, those of ``protocols`` at which it is not published since it takes too long there: said here, before
        anything is measured, and not chosen afterwards.
    """

    seeds: Mapping[str, int] = field(default_factory=lambda: {"run": 3})
    protocols: tuple[Mapping[str, Any], ...] = ({},)
    data: tuple[str, ...] = ()
    without: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)

    def changes(self, method: str) -> tuple[Mapping[str, Any], ...]:
        """Return the protocols at which a method is published, as changes of the preset's."""
        return tuple(change for change in self.protocols if change not in self.without.get(method, ()))


@dataclass(frozen=True)
class TaskSpec:
    """A task as data. Holds strings and numbers only, so that listing imports no task code.

    Parameters
    ----------
    name, title
        Its name, the same as `Task.name`, and one line for people.
    load
        ``"module:Class"`` of the `Task`.
    requires, install
        Import names of the libraries that the task needs, and the command that installs them.
    scaffold
        ``"package:file"`` of the source that ``benchsuite plugin new`` starts a method from; without it a new method
        starts as a subclass of the task's reference.
    uses
        Names of the registered methods that the task asks for through ``ctx.method``; ``"{field}"`` stands for the one
        that the protocol names.
    shown
        How tables show its metrics.
    published
        The seeds and protocols of a published row.
    """

    name: str
    title: str
    load: str
    requires: tuple[str, ...] = ()
    install: str = ""
    scaffold: str = ""
    uses: tuple[str, ...] = ()
    shown: Presentation = Presentation()
    published: Publication = Publication()


@dataclass
class Outcome:
    """What an evaluation measured.

    Attributes
    ----------
    scores
        Metric name to value; every metric of the task must be present. None: undefined.
    undefined
        For each None score, why.
    counts
        Whole numbers worth keeping (test nodes, detections, events).
    tables
        Named lists of flat records: one row an item (record, class).
    parameters
        Number of trainable parameters of the model that made the predictions, or None.
    """

    scores: dict[str, float | None]
    undefined: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    parameters: int | None = None


class Task(ABC, Generic[MethodType, DataType, ProtocolType]):
    """One protocol: it owns the data split, hides the answers, and judges.

    Generic in the abstract class of its methods, the type of its data and its protocol.

    Class attributes
    ----------------
    name, version
        Identity; bump ``version`` whenever numbers can change. (The title stands in the `TaskSpec`.)
    Protocol
        Frozen dataclass of what belongs to neither method nor data (shots, teacher, noise level).
    presets
        Named protocols, matching the presets of methods. ``embedded`` is the default.
    seed_axes
        Ordered, outermost first. Statistics average inner axes inside the outermost one.
    metrics, ranking
        What is measured and which of it ranks.
    reference
        Name of the opponent that runs along whenever a method is run.
    data_type, method_type
        ``"module:Class"`` of the data it takes; the abstract class its methods implement.
    also_takes
        ``"module:Class"`` of further types of data that it takes in the same roles.
    default_data
        Name of the embedded data set that runs without ``--dataset``.
    roles_may_differ
        True if training and test data may be two data sets; else a request that names two is refused.
    optional_roles
        Further roles that a request may fill (``--dataset ROLE=NAME``), with the ``"module:Class"`` of their data.
    judges_folders
        True if `score` takes a folder of predictions as well as a file.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    Protocol: ClassVar[type] = NoProtocol
    presets: ClassVar[Mapping[str, Preset]] = {"embedded": Preset()}
    seed_axes: ClassVar[tuple[str, ...]] = ("run",)
    metrics: ClassVar[tuple[Metric, ...]]
    ranking: ClassVar[Ranking]
    reference: ClassVar[str]
    data_type: ClassVar[str]
    also_takes: ClassVar[tuple[str, ...]] = ()
    method_type: ClassVar[type[Method]]
    default_data: ClassVar[str]
    roles_may_differ: ClassVar[bool] = False
    optional_roles: ClassVar[Mapping[str, str]] = {}
    judges_folders: ClassVar[bool] = False

    @classmethod
    def data_roles(cls, dataset: str) -> dict[str, str]:
        """Return the data set of each role when the user asks for ``dataset``.

        The default is one data set for both; a task that trains on generated and tests on real data
        says so here, and sets ``roles_may_differ``.
        """
        return {"train": dataset, "test": dataset}

    @classmethod
    def data_types(cls, role: str = "test") -> tuple[str, ...]:
        """Return ``"module:Class"`` of each type of data that a role may be filled with."""
        if role in cls.optional_roles:
            return (cls.optional_roles[role],)
        return (cls.data_type, *cls.also_takes)

    @abstractmethod
    def evaluate(
        self, method: MethodType, data: Mapping[str, DataType], protocol: ProtocolType, ctx: RunContext
    ) -> Outcome:
        """Run the protocol once.

        Parameters
        ----------
        method
            An unfitted method of ``method_type``.
        data
            The loaded data object of each role ("train", "test", and the optional ones that were asked for); the same
            object if it is one data set.
        protocol
            An instance of ``Protocol``.
        ctx
            Seeds, device, timers, cache.
        """

    def with_other_answers(self, data: Mapping[str, DataType]) -> Mapping[str, DataType]:
        """Return the data with every hidden answer changed and everything a method may see unchanged.

        The conformance checks compare a method's predictions on both. Tasks whose answers are separate
        from what they hand out override this. A task that splits data by a seed takes a further argument ``seeds``
        (axis to seed of the run), here and in `score`: without it neither can know what is hidden.
        """
        raise NotImplementedError

    def score(self, predictions: Path, data: Mapping[str, DataType], protocol: ProtocolType) -> Outcome:
        """Judge predictions made elsewhere. Tasks that can, override this; see `with_other_answers` for ``seeds``."""
        raise NotImplementedError

    @classmethod
    def metric_names(cls) -> Iterable[str]:
        """Return the names of the metrics in table order."""
        return [metric.name for metric in cls.metrics]
