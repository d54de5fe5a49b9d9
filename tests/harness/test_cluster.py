"""What travels together on a cluster, what a node refuses, and what becomes of runs whose node ends: without Ray."""

from __future__ import annotations

import importlib.util
import math
import socket
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchsuite.core.errors import ConfigError, MissingDependency
from benchsuite.core.method import Resources
from benchsuite.core.registry import get_registry
from benchsuite.harness import cluster, node
from benchsuite.harness.cluster import Node, RayExecutor, loads_of
from benchsuite.harness.devices import Machine, Needs
from benchsuite.harness.execute import SilentReporter, execute, open_executor
from benchsuite.harness.executor import Note, Options, Progress, Started
from benchsuite.harness.identity import SourceDigests
from benchsuite.harness.job import Report
from benchsuite.harness.node import Batch
from benchsuite.harness.plan import Plan, PlannedRun, Request, plan
from benchsuite.harness.settings import SeedChoice


@pytest.fixture
def runs(cli: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[PlannedRun]]]:
    """Plan runs of the skeleton's methods."""
    monkeypatch.syspath_prepend(str(cli.plugins))
    get_registry.cache_clear()

    def of(*methods: str, seeds: int = 2, resources: Resources | None = None) -> list[PlannedRun]:
        request = Request(
            tasks=["toy-graph"],
            methods=methods,
            seeds=[SeedChoice(tuple(range(seeds)))],
            device="cpu",
            reference=False,
        )
        found = plan(request, get_registry(), Machine([])).runs
        return [replace(run, resources=resources) for run in found] if resources else found

    yield of
    get_registry.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "skeletons"]:
        del sys.modules[name]


def nodes(*cpus: float, gpus: float = 0, memory_mb: float = 1000) -> list[Node]:
    return [Node(f"n{number}", count, gpus, memory_mb) for number, count in enumerate(cpus)]


def test_places_of_a_node() -> None:
    (four,) = nodes(4, gpus=2)
    places = {
        Needs(): 4,
        Needs(cpus=3): 1,
        Needs(cpus=8): 1,  # alone, as on one machine
        Needs(gpus=0.5): 4,
        Needs(gpus=1): 2,
        Needs(gpus=3): 0,
        Needs(memory_mb=400): 2,
        Needs(exclusive=True): 1,
        Needs(gpus=math.inf, exclusive=True): 1,
    }
    assert {needs: four.places(needs) for needs in places} == places
    assert nodes(0)[0].places(Needs()) == 0
    assert nodes(1)[0].places(Needs(gpus=math.inf, exclusive=True)) == 0


def test_runs_that_share_steps_travel_together(runs: Any) -> None:
    planned = dict(enumerate(runs("toy-student", "toy-copy", seeds=12)))
    loads = loads_of(planned, nodes(1, 1))
    assert sorted(index for load in loads for index in load.runs) == sorted(planned)
    assert len(loads) == 6
    for load in loads:
        methods_of: dict[int, set[str]] = {}
        for run in load.runs.values():
            methods_of.setdefault(run.run.seeds["run"], set()).add(run.run.method)
        assert all(len(methods) == 2 for methods in methods_of.values())  # both students of a seed share its teacher
    assert len(loads_of(dict(enumerate(runs("toy-student", seeds=1))), nodes(8))) == 1


def test_one_long_block_is_cut_so_that_no_place_is_empty(runs: Any) -> None:
    (run,) = runs("toy-student", seeds=1)
    loads = loads_of(dict.fromkeys(range(13), run), nodes(2))
    assert [len(load.runs) for load in loads] == [3, 3, 3, 3, 1]


def test_kinds_are_kept_apart_and_exclusive_runs_go_last(runs: Any) -> None:
    alone = runs("toy-student", resources=Resources(exclusive=True))
    planned = dict(enumerate([*alone, *runs("toy-copy")]))
    loads = loads_of(planned, nodes(2, 2))
    assert [load.needs.exclusive for load in loads] == [False] * (len(loads) - 2) + [True] * 2
    assert all(len({run.needs for run in load.runs.values()}) == 1 for load in loads)


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    (tmp_path / "proof").touch()
    return Batch({}, Options(out=tmp_path), str(tmp_path / "proof"))


def test_a_node_refuses_what_it_would_make_otherwise(runs: Any, batch: Batch, tmp_path: Path) -> None:
    (run,) = runs("toy-student", seeds=1)
    digests = SourceDigests(get_registry())

    def refused(planned: PlannedRun = run, **changes: Any) -> str:
        return node.refusal(planned, replace(batch, **changes), digests)

    def identified(**changes: Any) -> PlannedRun:
        return replace(run, identity=run.identity.model_copy(update=changes))

    assert refused() == ""
    assert "its code of method 'toy-student'" in refused(identified(source_digest="0" * 64))
    assert "its code of method 'toy-student'" in refused(replace(run, shared_digest="0" * 64))
    assert "it has benchsuite" in refused(version="0.0.1")
    assert f"does not see {tmp_path}: give --out" in refused(proof=str(tmp_path / "absent"))
    assert "does not see /absent: put data set 'beats'" in refused(replace(run, data_roots={"beats": "/absent"}))
    assert "put the weights" in refused(replace(run, weights=Path("/absent.pt")))
    assert "no method 'gone'" in refused(identified(run=run.run.model_copy(update={"method": "gone"})))


def test_a_refused_run_is_told_and_the_others_are_made(
    runs: Any, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = runs("toy-student")
    bad = replace(bad, shared_digest="0" * 64)
    made: list[Any] = []

    class Local:
        def __init__(self, machine: Machine, server: object) -> None:
            made.append(machine.gpus)

        def carry(self, given: Any, options: Options) -> Iterator[Any]:
            made.append(list(given))
            yield Started(0)

    monkeypatch.setattr(node, "LocalExecutor", Local)
    monkeypatch.setattr(node, "_worker", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("PYTHONPATH", "")
    events = list(node.carry_batch(replace(batch, runs={0: good, 1: bad})))
    assert made == [(), [0]]  # a run on the CPU is given no device of the worker
    assert isinstance(events[0], Report)
    assert events[0].id == 1
    assert "refused by node" in str(events[0].problem)
    assert events[1:] == [Started(0)]
    gpu = replace(good, device="cuda")
    list(node.carry_batch(replace(batch, runs={0: gpu})))
    assert made[2] == ("3", "5")


class Lost(Exception):
    """Stands for the loss of a node or worker."""


class TaskFailed(Lost):
    """Stands for an error of the function that a task calls."""


class FakeRay(types.ModuleType):
    """A cluster that is played: every task sends what ``plays`` says next, an exception among it is raised."""

    def __init__(self, alive: Sequence[Node]) -> None:
        super().__init__("ray")
        self.plays: list[list[Any]] = []
        self.alive = list(alive)
        self.wanted: list[dict[str, Any]] = []
        self.sent: list[list[int]] = []
        self.cancelled: list[bool] = []

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"NodeID": n.id, "Alive": True, "Resources": {"CPU": n.cpus, "GPU": n.gpus, "memory": n.memory_mb * 1e6}}
            for n in self.alive
        ]

    def remote(self, **wanted: Any) -> Callable[[Any], Any]:
        def task(function: Any) -> Any:
            return types.SimpleNamespace(remote=send)

        def send(given: Batch) -> Iterator[Any]:
            self.wanted.append(wanted)
            self.sent.append(list(given.runs))
            play = self.plays.pop(0) if self.plays else [Report(id=i, problem="played") for i in given.runs]
            return iter(play)

        return task

    def wait(self, streams: Any, **more: Any) -> tuple[list[Any], list[Any]]:
        return streams[:1], streams[1:]

    def get(self, event: Any) -> Any:
        if isinstance(event, BaseException):
            raise event
        return event

    def cancel(self, stream: Any, force: bool = False) -> None:
        self.cancelled.append(force)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    ray = FakeRay(nodes(1, 1))
    exceptions, scheduling = types.ModuleType("ray.exceptions"), types.ModuleType("ray.util.scheduling_strategies")
    exceptions.RayError, exceptions.RayTaskError = Lost, TaskFailed  # type: ignore[attr-defined]
    scheduling.NodeAffinitySchedulingStrategy = lambda node_id, soft: (node_id, soft)  # type: ignore[attr-defined]
    for module in (ray, exceptions, types.ModuleType("ray.util"), scheduling):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "ray" else found(name))
    monkeypatch.setattr(RayExecutor, "_connect", lambda self, address, workers, gpus: None)
    monkeypatch.setattr(cluster, "_LOOK_S", 0.0)
    return ray


def test_what_a_lost_node_left_unfinished_is_submitted_again(played: FakeRay, runs: Any, tmp_path: Path) -> None:
    (run,) = runs("toy-student", seeds=1)
    played.alive = nodes(1)
    done = Report(id=0, problem="has its result")
    played.plays = [
        [Started(0), done, Started(1), Progress(1, 1, 2, ""), Lost()],
        [Started(1), Report(id=1, problem="failed in its own way"), Report(id=2, problem="also")],
    ]
    executor = RayExecutor(resubmit=2)
    given = dict.fromkeys(range(3), run)
    loaded = [cluster.Load(dict(given), run.needs)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "loads_of", lambda *_: loaded)
        events = list(executor.carry(given, Options(out=tmp_path)))
    assert played.sent == [[0, 1, 2], [1, 2]]
    assert [event.id for event in events if isinstance(event, Report)] == [0, 1, 2]
    assert [event.id for event in events if isinstance(event, Started)] == [0, 1]  # plugins hear of a run once
    (note,) = [event.text for event in events if isinstance(event, Note)]
    assert "2 unfinished runs are submitted again" in note
    assert not list(tmp_path.glob(".shared-*"))


def test_a_run_that_is_lost_again_and_again_is_lost_and_stops_nothing(
    played: FakeRay, runs: Any, tmp_path: Path
) -> None:
    (run,) = runs("toy-student", seeds=1)
    played.plays = [[Lost()], [Started(0), Lost()], [Lost()]]
    summary = execute(Plan([run]), Options(out=tmp_path), SilentReporter(), RayExecutor(resubmit=2))
    assert len(played.sent) == 3
    (told,) = summary.lost
    assert "lost: its node or worker ended 3 times" in told
    assert summary.unstored == []
    assert summary.results == []
    assert not summary.all_well


def test_an_error_of_the_node_is_told_and_not_tried_again(played: FakeRay, runs: Any, tmp_path: Path) -> None:
    (run,) = runs("toy-student", seeds=1)
    played.plays = [[TaskFailed("No module named 'benchsuite'")]]
    summary = execute(Plan([run]), Options(out=tmp_path), SilentReporter(), RayExecutor())
    assert len(played.sent) == 1
    assert summary.lost == []
    assert "a node could not carry it: No module named 'benchsuite'" in summary.unstored[0]


def test_what_a_run_needs_is_asked_of_ray(played: FakeRay, runs: Any, tmp_path: Path) -> None:
    played.alive = nodes(4, 8, gpus=2)
    small = runs("toy-student", seeds=1, resources=Resources(cpus=2, gpus=0.5, memory_mb=100))
    alone = runs("toy-student", seeds=1, resources=Resources(exclusive=True))
    planned = {0: replace(alone[0], device="cuda"), 1: replace(small[0], device="cuda")}
    list(RayExecutor().carry(planned, Options(out=tmp_path)))
    assert played.sent == [[1], [0]]
    shared, whole = played.wanted
    assert shared == {"max_retries": 0, "num_cpus": 2, "num_gpus": 0.5, "memory": 100_000_000}
    assert whole == {"max_retries": 0, "num_cpus": 4, "num_gpus": 2, "scheduling_strategy": ("n0", False)}
    with pytest.raises(ConfigError, match="--device cuda:1: Ray chooses the GPU"):
        list(RayExecutor().carry({0: replace(small[0], device="cuda:1")}, Options(out=tmp_path)))


def test_what_travels_is_ended_by_force_when_the_caller_stops(played: FakeRay, runs: Any, tmp_path: Path) -> None:
    planned = dict(enumerate(runs("toy-student")))
    played.plays = [[Started(0)] * 9] * 2
    events = RayExecutor().carry(planned, Options(out=tmp_path))
    next(events)
    events.close()
    assert played.cancelled == [True, True]


def test_runs_that_no_node_can_make_any_more_do_not_wait_for_ever(
    played: FakeRay, runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = replace(runs("toy-student", seeds=1, resources=Resources(gpus=1))[0], device="cuda")
    played.alive = nodes(1, gpus=1)
    executor = RayExecutor()
    monkeypatch.setattr(cluster, "_UNSCHEDULED_S", -1.0)
    monkeypatch.setattr(FakeRay, "wait", lambda self, streams, **more: ([], streams))
    played.alive = nodes(1)
    (report,) = executor.carry({0: run}, Options(out=tmp_path))
    assert isinstance(report, Report)
    assert report.lost
    assert "no node is left that has what it needs" in str(report.problem)


def test_a_cluster_is_planned_for_by_its_largest_node(played: FakeRay) -> None:
    played.alive = [Node("a", 1, 0, 500), Node("b", 4, 2, 2000)]
    machine = RayExecutor("auto").machine
    assert (len(machine.gpus), machine.memory_mb) == (2, 2000)
    with pytest.raises(ConfigError, match="--gpus is for GPUs of this machine"):
        RayExecutor("auto", gpus="0")


def test_an_address_where_nobody_answers_is_told_at_once() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and it does not listen
        with pytest.raises(ConnectionRefusedError):
            cluster._check_reachable(f"127.0.0.1:{nobody.getsockname()[1]}")
        nobody.listen()
        cluster._check_reachable(f"127.0.0.1:{nobody.getsockname()[1]}")
    for other in ("auto", "local", "ray://head:10001"):
        cluster._check_reachable(other)


def test_executors_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="did you mean 'local'"):
        open_executor("lokal")
    with pytest.raises(ConfigError, match="--address auto is of a cluster: give --executor ray"):
        open_executor("local", address="auto")
    with pytest.raises(ConfigError, match="--resubmit -1"):
        open_executor("ray", resubmit=-1)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else found(name))
    with pytest.raises(MissingDependency, match="needs ray, which is not installed - run: pip install"):
        open_executor("ray")


@pytest.mark.xdist_group("ray")
def test_ray_carries_a_sweep(cli: Any) -> None:
    """Once with Ray itself; all else that may happen there is `--slow`."""
    pytest.importorskip("ray", reason="needs benchsuite[cluster]")
    cli.environment["MARK"] = str(cli.folder)
    sweep = ("run", "--task", "toy-graph", "--method", "toy-student", "--seeds", "2", "--json")
    away = cli(*sweep, "--executor", "ray", "--workers", "2", "--out", "away")
    assert away.code == 0, away.err
    cli.assert_nobody_left()
    home = cli(*sweep, "--out", "home")
    assert [(r["fingerprint"], r["scores"]) for r in away.json()] == [
        (r["fingerprint"], r["scores"]) for r in home.json()
    ]
