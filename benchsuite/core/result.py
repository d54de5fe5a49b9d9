"""Result schema 1: what is stored of a run.

Pydantic models, because result files also arrive from strangers. Whatever is in a file is data: it is
validated, never executed, and an unknown future schema is refused.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from benchsuite.core.errors import StoreError
from benchsuite.core.metric import Direction, Kind

SCHEMA_VERSION = 1
Status = Literal["ok", "failed", "timeout", "skipped", "truncated"]
_SEPARATORS = frozenset("/\\\0")
FINISHED: frozenset[str] = frozenset({"ok", "truncated"})


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataRef(_Model):
    """Which data: name, reader version, and a hash of the content (of generator and parameters)."""

    name: str
    version: str
    hash: str


class RunSpec(_Model):
    """What is measured. Everything here, and nothing else, goes into the fingerprint."""

    task: str
    task_version: str
    protocol: dict[str, Any]
    data: dict[str, DataRef]
    method: str
    method_version: str
    preset: str
    config: dict[str, Any]
    seeds: dict[str, int]
    threads: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    split: Literal["test", "val"] = "test"
    weights: str | None = None
    max_steps: int | None = None

    @property
    def fingerprint(self) -> str:
        """Sha256 of the canonical JSON: says WHAT was measured."""
        return content_hash(self.model_dump())

    @property
    def row_config(self) -> str:
        """Short hash of what distinguishes rows of one method in one table."""
        return content_hash([self.config, self.device, self.threads, self.weights])[:8]


class MetricInfo(_Model):
    """A metric's definition as it was when the run was made."""

    name: str
    direction: Direction
    unit: str
    kind: Kind
    doc: str = ""
    target: float | None = None


class ConstraintInfo(_Model):
    """See `benchsuite.core.task.Constraint`."""

    metric: str
    relative_to: str = ""
    margin: float = 0.0
    at_least: float | None = None
    at_most: float | None = None


class Definition(_Model):
    """The part of a task's definition that tables need."""

    title: str
    seed_axes: list[str]
    metrics: list[MetricInfo]
    rank_by: str
    rank_otherwise: str = ""
    constraint: ConstraintInfo | None = None
    reference: str


class Timing(_Model):
    """Seconds of one phase; ``shared`` ones were spent by the run that first built a cached step."""

    wall_s: float
    cpu_s: float
    shared: bool = False


class Artifact(_Model):
    """A file kept beside the result: its path relative to the result, and its sha256."""

    path: str
    sha256: str


class Failure(_Model):
    """Why a run did not finish."""

    message: str
    traceback: str = ""


class Measurement(_Model):
    """What came out of a run."""

    status: Status
    scores: dict[str, float | None] = Field(default_factory=dict)
    undefined: dict[str, str] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    artifacts: dict[str, Artifact] = Field(default_factory=dict)
    parameters: int | None = None
    timings: dict[str, Timing] = Field(default_factory=dict)
    peak_gpu_memory_mb: float | None = None
    error: Failure | None = None


class Identity(_Model):
    """Who a run is, known before it is made: what is measured, with which code, and how tables name its row."""

    schema_version: Literal[1] = 1
    run: RunSpec
    fingerprint: str
    source_digest: str
    label: str
    role: str
    deterministic: bool = True
    protocol_changes: dict[str, Any] = Field(default_factory=dict)
    data_labels: dict[str, str] = Field(default_factory=dict)
    definition: Definition


class Carried(_Model):
    """A result kept when the code behind it got another digest: the digest before, and why the numbers still hold."""

    from_digest: str
    proof: str


class Result(Identity, Measurement):
    """One run: what was measured, with which code, where, and what came out."""

    peak_memory_mb: float | None = None
    started: str
    wall_s: float
    environment: dict[str, Any] = Field(default_factory=dict)
    carried: list[Carried] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> Result:
        """Refuse what no table could be made from."""
        names = {metric.name for metric in self.definition.metrics}
        needed = {self.definition.rank_by} | ({self.definition.rank_otherwise} - {""})
        if self.definition.constraint is not None:
            needed.add(self.definition.constraint.metric)
        if not needed <= names:
            raise ValueError(f"the task ranks by {', '.join(sorted(needed - names))}, which is not among its metrics")
        if not self.definition.seed_axes or set(self.definition.seed_axes) != set(self.run.seeds):
            raise ValueError("the seeds do not match the task's seed axes")
        if not {"train", "test"} <= self.run.data.keys():
            raise ValueError("the data roles train and test are not both there")
        return self


def content_hash(value: Any) -> str:
    """Return the sha256 (hex) of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def parse_result(text: bytes | str, where: str | Path) -> Result:
    """Read one result file's content.

    Raises
    ------
    StoreError
        One line that names ``where`` and the first problem: not JSON, another schema, a wrong field.
    """
    try:
        result = Result.model_validate_json(text)
    except ValidationError as error:
        raise StoreError(f"{where}: {_first_problem(text, error)}") from None
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{where}: not a result file ({error})") from None
    if result.fingerprint != result.run.fingerprint:
        raise StoreError(f"{where}: the fingerprint does not match the run it describes")
    if (problem := _escape_of(result)) is not None:
        raise StoreError(f"{where}: {problem}")
    return result


def _escape_of(result: Result) -> str | None:
    """Return how a result would reach outside its folder: names make paths, of result files and of tables."""
    run = result.run
    for name in (run.task, run.method, *(reference.name for reference in run.data.values())):
        if not name or name.startswith(".") or _SEPARATORS & set(name):
            return f"{name!r} cannot name a task, a method or a data set"
    for name, artifact in result.artifacts.items():
        path = PurePosixPath(artifact.path)
        if path.is_absolute() or ".." in path.parts or "\\" in artifact.path or "\0" in artifact.path:
            return f"artifact {name!r} lies outside the result's folder"
    return None


def _first_problem(text: bytes | str, error: ValidationError) -> str:
    try:
        schema = json.loads(text)["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        schema = SCHEMA_VERSION
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        return f"result schema {schema} is newer than this benchsuite reads ({SCHEMA_VERSION}): upgrade benchsuite"
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    problem = f"{place}: {first['msg']}" if place else str(first["msg"])
    return " ".join(problem.split())  # names in a stranger's file may hold line ends
