"""The conformance checks: whether a method obeys the contract of the suite and of its task.

Every check runs the method as users do, with its training loops cut after two steps. A check that has
nothing to look at (no module to trace, no seeds drawn) says so instead of passing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchsuite.core.claim import parse_claims, parse_reported, read_resource
from benchsuite.core.errors import InvalidPrediction, UserError, did_you_mean
from benchsuite.core.method import MethodSpec
from benchsuite.core.registry import Registry, get_registry, load_object, load_task
from benchsuite.core.result import FINISHED, Result, parse_result
from benchsuite.core.task import Task
from benchsuite.harness.checkpoint import EVERY_STEPS, Checkpoint, Position
from benchsuite.harness.environment import HEAVY_LIBRARIES
from benchsuite.harness.execute import SilentReporter, execute
from benchsuite.harness.executor import Options
from benchsuite.harness.judge import score_of_run
from benchsuite.harness.local import ForkServer, LocalExecutor
from benchsuite.harness.measure import make_context, measure
from benchsuite.harness.parts import build_method, load_data, with_seeds
from benchsuite.harness.plan import Plan, PlannedRun, Request, plan
from benchsuite.harness.settings import SeedChoice

Verdict = Literal["passed", "failed", "nothing to check"]

_STEPS = 2
_NO_PREDICTION = b"[]"


@dataclass(frozen=True)
class Finding:
    """What one check found out about one method on one task."""

    check: str
    method: str
    task: str
    verdict: Verdict
    detail: str = ""


class Failed(Exception):
    """A check does not hold; the message says what is wrong."""


class NothingToCheck(Exception):
    """A check has nothing to look at; the message says why."""


class Subject:
    """A method on one of its tasks, and the runs of it that checks share.

    The ``server`` carries its runs; subjects may share one.
    """

    def __init__(self, method: MethodSpec, task: str, registry: Registry, folder: Path, server: ForkServer) -> None:
        self.method = method
        self.task = task
        self.registry = registry
        self.folder = folder
        self.server = server
        self._results: dict[tuple[str, int], tuple[Result, Path]] = {}
        self._evaluation: Evaluation | None = None

    def build(self) -> Any:
        """Return an unfitted method with its embedded preset."""
        return build_method(self.method, self.method.presets["embedded"].resolve({"task": self.task}))

    def planned(self, seed: int = 0, preset: str = "embedded") -> PlannedRun:
        """Return the plan of one short run."""
        request = Request(
            tasks=[self.task],
            methods=[self.method.name],
            preset=preset,
            seeds=[SeedChoice((seed,))],
            max_steps=_STEPS,
            device="cpu",
            reference=False,
        )
        return plan(request, self.registry).runs[0]

    def run(self, preset: str = "embedded", repetition: int = 0) -> tuple[Result, Path]:
        """Return the result of one short run and its file, made through the harness."""
        if (preset, repetition) not in self._results:
            out = self.folder / f"runs-{preset}-{repetition}"
            options = Options(out=out, timeout=900)
            executor = LocalExecutor(server=self.server)
            summary = execute(Plan([self.planned(preset=preset)]), options, SilentReporter(), executor)
            if summary.unstored:
                raise Failed("; ".join(summary.unstored))
            self._results[preset, repetition] = (summary.results[0], summary.paths[0])
        return self._results[preset, repetition]

    def finished(self, **which: Any) -> tuple[Result, Path]:
        """Return a short run that must have finished."""
        result, path = self.run(**which)
        if result.status not in FINISHED:
            raise NothingToCheck(f"the run {result.status}: see the check 'runs'")
        return result, path

    def evaluation(self) -> Evaluation:
        """Return what an evaluation in this process, at seed 0, came to."""
        if self._evaluation is None:
            data = _load(self)
            before = _digest(data)
            predictions = _evaluate(self, data, 0)
            self._evaluation = Evaluation(predictions, _digest(data) == before)
        return self._evaluation


@dataclass(frozen=True)
class Evaluation:
    """The predictions of an evaluation in this process, and whether the data are still what they were."""

    predictions: bytes | None
    data_kept: bool


def check_light_registration(subject: Subject) -> str:
    """Importing the plugin for listing loads no heavy library."""
    owner = subject.registry.owners[subject.method.name]
    script = (
        "import sys\nfrom importlib.metadata import entry_points\n"
        f"(entry,) = entry_points(group='benchsuite', name={owner!r})\nplugin = entry.load()\n"
        "list(plugin.benchsuite_methods())\n"
        f"print([m for m in {HEAVY_LIBRARIES!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"the plugin cannot be imported: {done.stderr.strip().splitlines()[-1]}")
    loaded = json.loads(done.stdout.strip().splitlines()[-1].replace("'", '"'))
    if loaded:
        raise Failed(f"registering imports {', '.join(loaded)}: keep strings in __init__.py, code in method.py")
    return ""


def check_constructor(subject: Subject) -> str:
    """The constructor stores the configuration and does nothing else."""
    method = subject.build()
    extra = sorted(set(vars(method)) - {"config", "name"})
    if extra:
        raise Failed(f"the constructor also makes {', '.join(extra)}: do that when the task calls the method")
    return ""


def check_pickles(subject: Subject) -> str:
    """An unfitted method survives pickling."""
    method = subject.build()
    try:
        again = pickle.loads(pickle.dumps(method))  # bytes of our own, a line ago: no file, nobody else's
    except Exception as error:  # whatever a stranger's class raises
        raise Failed(f"an unfitted method does not pickle: {type(error).__name__}: {error}") from None
    if type(again) is not type(method) or again.config != method.config:
        raise Failed("an unfitted method comes back from pickling with another configuration")
    return ""


def check_runs(subject: Subject) -> str:
    """A short run on the embedded data finishes."""
    result, _ = subject.run()
    if result.status not in FINISHED and not _is_invalid_prediction(result):
        raise Failed(result.error.message if result.error else result.status)
    return f"{result.wall_s:.1f} s"


def check_valid_predictions(subject: Subject) -> str:
    """What the method hands to its task has the right shapes, types and ranges."""
    result, _ = subject.run()
    if _is_invalid_prediction(result):
        raise Failed(result.error.message if result.error else "")
    if result.status not in FINISHED:
        raise NothingToCheck(f"the run {result.status}: see the check 'runs'")
    return ""


def _is_invalid_prediction(result: Result) -> bool:
    return result.error is not None and result.error.message.startswith((InvalidPrediction.__name__, "InvalidOutcome"))


def check_same_seed(subject: Subject) -> str:
    """The same seed gives the same quality scores and predictions, bit for bit."""
    if not subject.method.deterministic:
        raise NothingToCheck("declared not deterministic")
    (one, path_one), (two, path_two) = subject.finished(), subject.finished(repetition=1)
    costs = {metric.name for metric in one.definition.metrics if metric.kind == "cost"}
    different = [n for n in one.scores if n not in costs and one.scores[n] != two.scores[n]]
    if different or _predictions(path_one) != _predictions(path_two):
        what = ", ".join(different) or "predictions"
        raise Failed(f"the same seed gives different {what}: draw seeds from ctx.seed_for")
    return ""


def check_other_seed(subject: Subject) -> str:
    """Another seed trains differently on the same data."""
    one, path_one = subject.finished()
    if one.status != "truncated":
        raise NothingToCheck("trains nothing: it draws no steps from ctx.steps")
    if _predictions(path_one) is None:
        raise NothingToCheck("the task keeps no predictions")
    predictions = subject.evaluation().predictions
    if predictions == _evaluate(subject, _load(subject), 1):
        if len(predictions or b"") <= len(_NO_PREDICTION):
            raise NothingToCheck("predicts nothing after two steps")
        raise Failed("two seeds give the same predictions on the same data: draw seeds from ctx.seed_for")
    return ""


def check_goes_on(subject: Subject) -> str:
    """A training that is killed and started again goes on where it was, and predicts the same."""
    subject.finished()
    if not subject.method.deterministic:
        raise NothingToCheck("declared not deterministic")
    data, whole = _load(subject), subject.evaluation().predictions
    if whole is None:
        raise NothingToCheck("the task keeps no predictions")
    with tempfile.TemporaryDirectory(dir=subject.folder) as name:
        quiet, killed = Path(name, "whole"), Path(name, "killed")
        for folder in (quiet, killed):
            folder.mkdir()
        with _saves() as made:
            unharmed = _evaluate_in(quiet, subject, data, 0, checkpoint_folder=quiet / "kept")
        if not made:
            raise NothingToCheck("keeps no state of its training: a run that is killed starts it again")
        if unharmed != whole and _evaluate(subject, data, 0) != whole:
            raise NothingToCheck("the predictions differ from run to run anyway")
        if unharmed != whole:
            raise Failed("keeping the state of a training changes what it predicts")
        with _saves(limit=max(len(made) - _STEPS, 1)), contextlib.suppress(_Killed):
            _evaluate_in(killed, subject, data, 0, checkpoint_folder=killed / "kept")
        again = _evaluate_in(killed, subject, data, 0, checkpoint_folder=killed / "kept")
    if again != whole:
        raise Failed("a training that goes on ends elsewhere: name all that the loop changes in ctx.resumable")
    return f"{len(made)} states kept"


def check_hidden_answers(subject: Subject) -> str:
    """Changing the answers that the task hides leaves the predictions unchanged."""
    subject.finished()
    if not subject.method.deterministic:
        raise NothingToCheck("declared not deterministic")
    data = _load(subject)
    task = load_object(subject.registry.task(subject.task).load)()
    try:
        poisoned = with_seeds(task.with_other_answers, data, seeds=dict.fromkeys(task.seed_axes, 0))
    except NotImplementedError:
        raise NothingToCheck("the task offers no changed answers") from None
    predictions = subject.evaluation().predictions
    if predictions is None:
        raise NothingToCheck("the task keeps no predictions")
    if predictions == _evaluate(subject, poisoned, 0):
        return ""
    if predictions != _evaluate(subject, data, 0):
        raise NothingToCheck("the predictions differ from run to run anyway")
    raise Failed("the predictions change with answers that the method must not see")


def check_data_kept(subject: Subject) -> str:
    """A run leaves the data it was given as they were: what else learns from them must see the same."""
    subject.finished()
    if not subject.evaluation().data_kept:
        raise Failed("a run changes the data it was given: copy what you write to")
    return ""


def check_fake_cuda(subject: Subject) -> str:
    """Every forward pass of ``forward_examples`` works on a (fake) CUDA device."""
    if "torch" not in subject.method.requires:
        raise NothingToCheck("nothing to trace: does not use torch")
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    count = 0
    try:
        with FakeTensorMode(), torch.device("cuda"):
            for module, inputs in subject.build().forward_examples():
                module(*inputs)
                count += 1
    except Exception as error:  # whatever a stranger's module raises
        text = " ".join(str(error).split())
        raise Failed(f"a forward pass fails on a CUDA device: {type(error).__name__}: {text[:200]}") from None
    if count == 0:
        raise NothingToCheck("nothing to trace: forward_examples() yields nothing")
    return f"{count} modules"


def check_result_round_trip(subject: Subject) -> str:
    """The stored result reads back as it was written."""
    _, path = subject.finished()
    text = path.read_bytes()
    result = parse_result(text, path)
    if parse_result(result.model_dump_json(), path) != result:
        raise Failed("the result changes when it is written and read again")
    return ""


def check_paper_preset(subject: Subject) -> str:
    """The ``paper`` preset takes two optimiser steps."""
    if "paper" not in subject.method.presets:
        raise NothingToCheck("has no paper preset")
    subject.finished()
    try:
        result, _ = subject.run(preset="paper")
    except UserError as error:
        raise Failed(f"the paper preset is refused: {error}") from None
    if result.status not in FINISHED:
        message = result.error.message if result.error else ""
        raise Failed(f"the paper preset {result.status}: {message}")
    return result.status


def check_claims(subject: Subject) -> str:
    """Claims and reported numbers can be read, and name metrics and methods that there are."""
    method = subject.method
    if not method.claims and not method.reported:
        raise NothingToCheck("names no claims and no reported numbers")
    try:
        claims = parse_claims(read_resource(method.claims), method.claims) if method.claims else []
        numbers = parse_reported(read_resource(method.reported), "", method.reported) if method.reported else []
    except UserError as error:
        raise Failed(str(error)) from None
    mine = [claim for claim in claims if claim.task == subject.task]
    metrics = [metric.name for metric in load_object(subject.registry.task(subject.task).load).metrics]
    for claim in mine:
        for metric in (claim.metric, *([claim.cost_metric] if claim.form == "cost" else [])):
            if metric not in metrics:
                hint = did_you_mean(metric, metrics)
                raise Failed(
                    f"{method.claims}: claim {claim.id!r}: task {subject.task!r} has no metric {metric!r}{hint}"
                )
        where = f"{method.claims}: claim {claim.id!r}: "
        for name in filter(None, (claim.method, claim.against)):
            _must_exist("method", name, subject.registry.methods, before=where)
        for name in claim.data:
            _must_exist("data set", name, subject.registry.datasets, before=where)
    return f"{len(mine)} claims, {len(numbers)} reported numbers"


def _must_exist(kind: str, name: str, known: Collection[str], before: str = "", after: str = "") -> None:
    if name not in known:
        raise Failed(f"{before}there is no {kind} {name!r}{after}{did_you_mean(name, sorted(known))}")


def check_task(subject: Subject) -> str:
    """The task is what its spec says: names agree, and reference, metrics, roles and default data exist."""
    spec = subject.registry.task(subject.task)
    try:
        task = load_task(spec)
    except UserError as error:
        raise Failed(str(error)) from None
    metrics = [metric.name for metric in task.metrics]
    constraint = task.ranking.constraint
    shown = spec.shown
    wanted: dict[str, Iterable[str]] = {
        "shown.headline": shown.headline,
        "shown.names": shown.names,
        "shown.exact": shown.exact,
        "shown.items": shown.items,
    }
    for where, names in wanted.items():
        for name in names:
            if name not in metrics:
                raise Failed(f"{where} names the metric {name!r}, which the task lacks{did_you_mean(name, metrics)}")
    methods = [task.reference, *([constraint.relative_to] if constraint and constraint.relative_to else [])]
    for name in methods:
        _must_exist("method", name, subject.registry.methods)
    _must_exist("data set", task.default_data, subject.registry.datasets, after=", the default of the task")
    for name in spec.published.data:
        _must_exist("data set", name, subject.registry.datasets, after=", on which the task is published")
    for name in {name for data in (task.default_data, *spec.published.data) for name in task.data_roles(data).values()}:
        data = subject.registry.dataset(name)
        if data.data_type not in task.data_types():
            raise Failed(f"data set {name!r} holds {data.data_type}, and the task takes {', '.join(task.data_types())}")
    for name in ("published_seeds", "published_protocols"):
        if hasattr(task, name):
            raise Failed(f"{name} of {task.__name__} is not looked at: published=Publication(...) in the TaskSpec is")
    if set(spec.published.seeds) != set(task.seed_axes):
        axes, known = (", ".join(names) for names in (spec.published.seeds, task.seed_axes))
        raise Failed(f"the seeds of a published row name the axes {axes}, and the task has {known}")
    return ""


def check_score(subject: Subject) -> str:
    """``score`` gives a run's own predictions the run's own scores."""
    result, path = subject.finished()
    task = load_object(subject.registry.task(subject.task).load)
    if task.score is Task.score:
        raise NothingToCheck("the task judges no files")
    found = sorted((path.parent / "artifacts").glob("predictions.*"))
    if not found:
        raise NothingToCheck("the run keeps no predictions (a file predictions.* among its artifacts)")
    try:
        outcome = score_of_run(subject.registry, result.run, found[0], [])
    except UserError as error:
        raise Failed(f"score refuses the run's own predictions: {error}") from None
    quality = [metric.name for metric in task.metrics if metric.kind == "quality"]
    for name in quality:
        again, before = outcome.scores.get(name), result.scores.get(name)
        if again is not None and before is not None and not math.isclose(again, before, rel_tol=1e-6, abs_tol=1e-9):
            raise Failed(f"score gives {name} {again:g} to the run's own predictions, the run {before:g}")
    return f"{sum(outcome.scores.get(name) is not None for name in quality)} metrics"


CHECKS: dict[str, Callable[[Subject], str]] = {
    "registers lightly": check_light_registration,
    "claims and numbers": check_claims,
    "task definition": check_task,
    "constructor only stores": check_constructor,
    "unfitted method pickles": check_pickles,
    "runs": check_runs,
    "valid predictions": check_valid_predictions,
    "same seed, same scores": check_same_seed,
    "other seed, other training": check_other_seed,
    "goes on after a kill": check_goes_on,
    "hidden answers": check_hidden_answers,
    "data kept": check_data_kept,
    "forward on fake CUDA": check_fake_cuda,
    "result round trip": check_result_round_trip,
    "score round trip": check_score,
    "paper preset": check_paper_preset,
}


def run_check(name: str, subject: Subject) -> Finding:
    """Run one check; whatever the method does becomes a finding."""
    check = CHECKS[name]

    def finding(verdict: Verdict, detail: str) -> Finding:
        return Finding(name, subject.method.name, subject.task, verdict, detail)

    try:
        with _silence():
            return finding("passed", check(subject))
    except Failed as error:
        return finding("failed", str(error))
    except NothingToCheck as error:
        return finding("nothing to check", str(error))
    except (Exception, SystemExit) as error:  # a stranger's code outside a run (its class, its settings)
        return finding("failed", f"{type(error).__name__}: {' '.join(str(error).split())}")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep what a method prints, from Python or below it, out of the findings."""
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(Path(os.devnull).open("w"))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor in (1, 2):
            with contextlib.suppress(OSError):  # there is none
                kept = os.dup(descriptor)
                stack.callback(os.close, kept)
                stack.callback(os.dup2, kept, descriptor)
                os.dup2(nowhere.fileno(), descriptor)
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def check_methods(names: Sequence[str], checks: Sequence[str] = tuple(CHECKS)) -> Iterator[Finding]:
    """Run checks on registered methods, on each of their tasks that is installed."""
    registry = get_registry()
    with tempfile.TemporaryDirectory(prefix="benchsuite-check-") as folder, ForkServer() as server:
        for name in names:
            method = registry.method(name)
            for task in method.tasks:
                if task not in registry.tasks:
                    yield Finding("runs", name, task, "failed", f"there is no task {task!r}")
                    continue
                subject = Subject(method, task, registry, Path(folder, name, task), server)
                for check in checks:
                    yield run_check(check, subject)


def _predictions(result_file: Path) -> bytes | None:
    found = sorted((result_file.parent / "artifacts").glob("predictions.*"))
    return found[0].read_bytes() if found else None


def _load(subject: Subject) -> dict[str, Any]:
    names = {role: ref.name for role, ref in subject.planned().run.data.items()}
    return load_data(subject.registry, names, {}, 0)


def _digest(data: Any) -> str:
    """Return a digest of all arrays, numbers and texts in mappings, sequences and dataclasses."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if is_dataclass(value):
            for field in fields(value):
                add(getattr(value, field.name))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                add(key)
                add(item)
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        elif hasattr(value, "__array__"):
            array = np.asarray(value)
            digest.update(repr((array.shape, array.dtype)).encode() + np.ascontiguousarray(array).tobytes())
        elif value is None or isinstance(value, str | bytes | int | float | Path):
            digest.update(repr(value).encode())

    add(data)
    return digest.hexdigest()


class _Killed(BaseException):
    """Ends an evaluation as a kill would."""


@contextlib.contextmanager
def _saves(limit: int | None = None) -> Iterator[list[Position]]:
    """Save the state of trainings at every step, list the saves, and die after so many."""
    made: list[Position] = []
    save, before = Checkpoint.save, os.environ.get(EVERY_STEPS)

    def counted(checkpoint: Checkpoint, position: Position) -> None:
        save(checkpoint, position)
        made.append(position)
        if len(made) == limit:
            raise _Killed

    os.environ[EVERY_STEPS] = "1"
    Checkpoint.save = counted  # type: ignore[method-assign,assignment]  # for this block only
    try:
        yield made
    finally:
        Checkpoint.save = save  # type: ignore[method-assign]
        del os.environ[EVERY_STEPS]
        if before is not None:
            os.environ[EVERY_STEPS] = before


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with as many threads as a run does."""
    if "torch" not in sys.modules:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _evaluate(subject: Subject, data: Any, seed: int) -> bytes | None:
    """Evaluate in this process and return the predictions."""
    with tempfile.TemporaryDirectory(dir=subject.folder) as name:
        return _evaluate_in(Path(name), subject, data, seed)


def _evaluate_in(folder: Path, subject: Subject, data: Any, seed: int, **more: Any) -> bytes | None:
    """Evaluate in a folder, which may hold what an evaluation before left, and return the predictions."""
    planned = subject.planned(seed)
    shutil.rmtree(folder / "work", ignore_errors=True)
    ctx = make_context(
        planned.run,
        load_object(subject.registry.task(subject.task).load),
        folder,
        artifact_folder=folder / "artifacts",
        cache_root=folder / "cache",
        shared_digest=planned.shared_digest,
        uses=frozenset(planned.uses),
        **more,
    )
    with _threads(planned.run.threads):
        measure(planned.run, subject.registry, ctx, {}, data)
    return _predictions(folder / "result.json")
