"""GPUs and memory without either: who may run beside whom, what a plan says, and what a run sees."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchsuite.core.errors import ConfigError, Incompatible, UserError
from benchsuite.core.method import Resources
from benchsuite.core.registry import get_registry
from benchsuite.harness.devices import (
    Machine,
    Needs,
    Shares,
    Waiting,
    choose_gpus,
    find_memory_mb,
    needs_of,
    resolve_device,
    this_machine,
    visible_gpus,
)
from benchsuite.harness.execute import SilentReporter, execute
from benchsuite.harness.executor import Options
from benchsuite.harness.local import LocalExecutor
from benchsuite.harness.plan import Request, plan
from benchsuite.harness.settings import SeedChoice
from benchsuite.harness.study import read_study

LOOKING = """
import json, os, time
from skeletons.graph import Distiller
from benchsuite.core import MethodSpec, Resources

class Looks(Distiller):
    def distil(self, features, teacher, ctx):
        begun = time.time()
        time.sleep(0.5)
        seen = {"mask": os.environ["CUDA_VISIBLE_DEVICES"], "device": ctx.device, "from": begun, "to": time.time()}
        ctx.artifact("seen.json").write_text(json.dumps(seen))
        return teacher - 0.5

class Counts(Distiller):
    def distil(self, features, teacher, ctx):
        import torch
        where = str(torch.zeros(1, device=ctx.device).device)
        ctx.artifact("seen.json").write_text(json.dumps({"count": torch.cuda.device_count(), "where": where}))
        return teacher - 0.5

def benchsuite_methods():
    needs = {
        "looks": Resources(), "looks-half": Resources(gpus=0.5), "looks-two": Resources(gpus=2),
        "looks-alone": Resources(exclusive=True), "looks-big": Resources(memory_mb=600),
    }
    looks = [MethodSpec(n, "1", ("toy-graph",), "looking:Looks", resources=r) for n, r in needs.items()]
    return [*looks, MethodSpec("counts", "1", ("toy-graph",), "looking:Counts", requires=("torch",))]
"""


def machine(gpus: int, memory_mb: float | None = None) -> Machine:
    return Machine([str(number) for number in range(gpus)], memory_mb)


@pytest.mark.parametrize(
    ("mask", "count", "names"),
    [
        (None, 0, ()),
        (None, 2, ("0", "1")),
        ("", 0, ()),
        ("-1", 0, ()),
        ("2,3", 2, ("2", "3")),
        ("3, 1,-1,0", 2, ("3", "1")),  # CUDA stops at what is no device
        ("GPU-8f,GPU-2a", 2, ("GPU-8f", "GPU-2a")),
    ],
)
def test_gpus_are_named_as_the_inherited_mask_names_them(mask: str | None, count: int, names: tuple[str, ...]) -> None:
    assert visible_gpus(mask, count) == names


def test_chosen_gpus_are_places_within_what_is_visible() -> None:
    assert choose_gpus(("2", "5", "7"), "0,2") == ("2", "7")
    assert choose_gpus(("GPU-a", "GPU-b"), " 1 ") == ("GPU-b",)
    for wrong, message in [
        ("a", "give places"),
        ("", "give places"),
        ("0,0", "twice"),
        ("0,2", "no GPU 2 here (2 found)"),
    ]:
        with pytest.raises(ConfigError) as caught:
            choose_gpus(("0", "1"), wrong)
        assert message in str(caught.value)


@pytest.mark.parametrize("wrong", [{"gpus": 1.5}, {"gpus": -1}, {"gpus": math.inf}, {"cpus": 0}, {"memory_mb": -1}])
def test_resources_that_cannot_be_meant(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}="):
        Resources(**wrong)  # type: ignore[arg-type]


def test_device_auto_is_decided_for_each_run() -> None:
    torch = {"torch"}
    assert resolve_device("auto", torch, Resources(), machine(0)) == "cpu"
    assert resolve_device("auto", torch, Resources(), machine(2)) == "cuda"
    assert resolve_device("auto", {"numpy"}, Resources(), machine(2)) == "cpu"
    assert resolve_device("auto", {"jax"}, Resources(gpus=1), machine(2)) == "cuda"
    assert resolve_device("cpu", torch, Resources(), machine(2)) == "cpu"
    assert resolve_device("cuda:1", torch, Resources(), machine(2)) == "cuda:1"
    for wrong in ("cuda:2", "gpu", "auto:0", "cuda:x"):
        with pytest.raises(ConfigError, match="--device"):
            resolve_device(wrong, torch, Resources(), machine(2))


def test_a_run_on_a_gpu_takes_one_unless_it_says_otherwise() -> None:
    assert needs_of(Resources(), "cpu").gpus == 0
    assert needs_of(Resources(), "cuda").gpus == 1
    assert needs_of(Resources(gpus=0.5), "cuda").gpus == 0.5
    assert needs_of(Resources(exclusive=True), "cuda").gpus == math.inf
    assert needs_of(Resources(gpus=1, exclusive=True), "cuda").gpus == 1
    assert needs_of(Resources(), "cuda:3").only == 3


def granted(shares: Shares, *wanted: Needs) -> list[tuple[str, ...] | str]:
    """Return for each the devices that it gets, or what it lacks."""
    return [shares.take(run, needs) or shares.gpus_of(run) for run, needs in enumerate(wanted)]


def test_gpus_are_shared_out() -> None:
    one, half, two = Needs(gpus=1), Needs(gpus=0.5), Needs(gpus=2)
    assert granted(Shares(machine(1), 8), one, one, Needs()) == [("0",), "gpus", ()]
    assert granted(Shares(machine(2), 8), half, one, half, half) == [("0",), ("1",), ("0",), "gpus"]
    assert granted(Shares(machine(8), 8), two, one, two, half, half, two) == [
        ("0", "1"),
        ("2",),
        ("3", "4"),
        ("5",),
        ("5",),
        ("6", "7"),
    ]
    assert granted(Shares(machine(2), 8), Needs(gpus=1, only=1), Needs(gpus=1, only=1), one) == [("1",), "gpus", ("0",)]
    assert granted(Shares(machine(2), 8), Needs(gpus=math.inf, exclusive=True), Needs()) == [("0", "1"), "room"]
    third = [Needs(gpus=1 / 3)] * 4
    assert granted(Shares(machine(1), 8), *third) == [("0",), ("0",), ("0",), "gpus"]
    tenths = [Needs(gpus=0.1)] * 11
    assert granted(Shares(machine(1), 20), *tenths)[9:] == [("0",), "gpus"]
    with pytest.raises(Incompatible, match="a run needs 2 GPUs, and there is 1 here"):
        Shares(machine(1), 8).take(0, two)


def test_what_is_given_back_is_free() -> None:
    shares = Shares(machine(1), 2)
    assert granted(shares, Needs(gpus=0.5), Needs(gpus=0.5)) == [("0",), ("0",)]
    shares.give_back(0)
    assert shares.take(2, Needs(gpus=1)) == "gpus"
    shares.give_back(1)
    assert shares.take(2, Needs(gpus=1)) == ""


def test_cpus_and_memory_hold_runs_back_and_a_run_alone_may_take_more_cpus() -> None:
    assert granted(Shares(machine(0), 2), Needs(), Needs(cpus=2)) == [(), "room"]
    assert granted(Shares(machine(0), 2), Needs(cpus=4), Needs()) == [(), "room"]
    big = Needs(memory_mb=600)
    assert granted(Shares(machine(0, 1000), 8), big, big, Needs()) == [(), "room", ()]
    assert granted(Shares(machine(0, None), 8), big, big) == [(), ()]
    assert machine(0, 500).misfit(big) == "needs 600 MB of memory, and there are 500 here"
    assert 0 < find_memory_mb() < 1e9


def test_a_run_that_waits_for_a_gpu_holds_up_none_without() -> None:
    gpu, cpu = Needs(gpus=1), Needs()
    shares, waiting = Shares(machine(1), 3), Waiting({10: gpu, 11: gpu, 12: cpu, 13: cpu, 14: cpu})
    order = []
    while (run := waiting.next(shares)) is not None:
        order.append(run)
    assert order == [10, 12, 13]
    shares.give_back(12)
    shares.give_back(10)
    assert waiting.next(shares) == 11  # before 14, which came after it
    alone = Waiting({0: Needs(exclusive=True), 1: cpu})
    assert alone.next(shares) is None


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from([0, 0.25, 0.3, 0.5, 1, 2]), st.booleans()), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
)
def test_no_device_is_ever_given_twice(count: int, wanted: list[tuple[float, bool]], random: Any) -> None:
    """Whatever comes and goes, the shares of every device add up to at most one, and all runs are made."""
    needs = {
        index: Needs(gpus=min(gpus, count), exclusive=alone and index % 5 == 0)
        for index, (gpus, alone) in enumerate(wanted)
    }
    shares, waiting, running = Shares(machine(count), 6), Waiting(needs), set[int]()
    while waiting or running:
        while (run := waiting.next(shares)) is not None:
            running.add(run)
        used = dict.fromkeys(map(str, range(count)), 0.0)
        for run in running:
            for name in shares.gpus_of(run):
                used[name] += min(needs[run].gpus, 1)
        assert max(used.values()) <= 1 + 1e-9
        assert len(running) == 1 or not any(needs[run].exclusive for run in running)
        assert running
        done = random.choice(sorted(running))
        running.remove(done)
        shares.give_back(done)


@pytest.fixture
def looking(cli: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Methods that note what they see, on the skeleton's task, in this process and in those of runs."""
    cli.install("looking", LOOKING)
    monkeypatch.syspath_prepend(str(cli.plugins))
    for name in ("PYTHONPATH", "BENCHSUITE_CACHE"):
        monkeypatch.setenv(name, cli.full_environment()[name])
    get_registry.cache_clear()
    yield
    get_registry.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("skeletons", "looking")]:
        del sys.modules[name]


def request(*methods: str, **more: Any) -> Request:
    asked: dict[str, Any] = {"device": "cuda", "reference": False} | more
    return Request(tasks=["toy-graph"], methods=methods, **asked)


@pytest.mark.usefixtures("looking")
@pytest.mark.parametrize(("count", "planned"), [(0, 0), (1, 4), (2, 5), (8, 5)])
def test_a_plan_has_what_the_declared_gpus_allow(count: int, planned: int) -> None:
    names = {name for name in get_registry().methods if name.startswith("looks")}
    if not count:
        with pytest.raises(ConfigError, match="there is no such GPU here"):
            plan(request("looks"), get_registry(), machine(0))
        return
    found = plan(request(device="cuda"), get_registry(), machine(count))
    assert len({run.run.method for run in found.runs} & names) == planned
    assert {run.run.device for run in found.runs} == {"cuda"}
    left_out = [drop.reason for drop in found.dropped if drop.method == "looks-two"]
    assert left_out == (["method 'looks-two' needs 2 GPUs, and there is 1 here"] if count == 1 else [])
    if count == 1:
        with pytest.raises(Incompatible, match="needs 2 GPUs"):
            plan(request("looks-two"), get_registry(), machine(count))
    mixed = plan(request(device="auto"), get_registry(), machine(count))
    devices = {run.run.method: run.device for run in mixed.runs}
    assert devices["looks"] == "cpu"  # it names neither torch nor a GPU
    assert devices["looks-half"] == "cuda"


@pytest.mark.usefixtures("looking")
def test_needs_may_be_set_for_a_study(tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    text = 'tasks = ["toy-graph"]\nmethods = ["looks"]\ndevice = "cuda"\ngpus = "0,1"\n[resources.looks]\ngpus = 0.25\n'
    study.write_text(text)
    asked = read_study(study)
    assert asked.gpus == "0,1"
    run = asked.plan(get_registry(), machine(1)).runs[0]
    assert run.needs.gpus == 0.25
    assert run.run.fingerprint == plan(request("looks"), get_registry(), machine(8)).runs[0].run.fingerprint
    for old, new, message in [
        ("gpus = 0.25", "gpu = 1", "line 6: there is no key 'gpu' - did you mean 'gpus'?"),
        ("gpus = 0.25", "gpus = '1'", "gpus needs a whole number or a number, not '1'"),
        ("gpus = 0.25", "gpus = 1.5", "resources: gpus=1.5"),
        ("resources.looks", "resources.lookx", "'lookx'"),
        ("[resources.looks]\ngpus = 0.25", "[resources]\nlooks = 2", "line 6: resources of a method are a table"),
    ]:
        study.write_text(text.replace(old, new))
        with pytest.raises(UserError) as caught:
            read_study(study).plan(get_registry(), machine(1))
        assert message in str(caught.value)


def seen(folder: Path, methods: list[str], gpus: list[str], seeds: int = 2, **more: Any) -> list[dict[str, Any]]:
    """Make runs on declared GPUs and return what they noted."""
    here = Machine(gpus, more.pop("memory_mb", None))
    wanted = plan(request(*methods, seeds=[SeedChoice(tuple(range(seeds)))], **more), get_registry(), here)
    summary = execute(wanted, Options(out=folder / "runs", workers=4), SilentReporter(), LocalExecutor(here))
    assert summary.all_well, [result.error for result in summary.results]
    return [json.loads((path.parent / "artifacts/seen.json").read_text()) for path in summary.paths]


def overlap(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return bool(one["from"] < two["to"] and two["from"] < one["to"])


@pytest.mark.usefixtures("looking")
def test_a_run_sees_its_own_devices_only(tmp_path: Path) -> None:
    notes = seen(tmp_path, ["looks", "looks-two"], ["4", "6", "GPU-8f"])
    assert [note["mask"].count(",") + 1 for note in notes] == [1, 1, 2, 2]
    assert {note["device"] for note in notes} == {"cuda:0"}
    for one in notes:
        for two in notes:
            if one is not two and overlap(one, two):
                assert not set(one["mask"].split(",")) & set(two["mask"].split(","))
    assert overlap(notes[0], notes[1])


@pytest.mark.usefixtures("looking")
def test_shares_exclusive_runs_one_device_and_the_cpu(tmp_path: Path) -> None:
    halves = seen(tmp_path / "a", ["looks-half"], ["4", "6"])
    assert [note["mask"] for note in halves] == ["4", "4"]
    assert overlap(*halves)
    (alone,) = seen(tmp_path / "b", ["looks-alone"], ["4", "6"], seeds=1)
    assert alone["mask"] == "4,6"
    named = seen(tmp_path / "c", ["looks"], ["4", "6"], device="cuda:1")
    assert [note["mask"] for note in named] == ["6", "6"]
    assert not overlap(*named)
    (cpu,) = seen(tmp_path / "d", ["looks"], ["4", "6"], seeds=1, device="cpu")
    assert (cpu["mask"], cpu["device"]) == ("", "cpu")


@pytest.mark.gpu
@pytest.mark.usefixtures("looking")
def test_cuda_shows_a_run_one_device(tmp_path: Path) -> None:
    """Also after the fork server has loaded torch."""
    notes = seen(tmp_path, ["counts"], list(this_machine().gpus))
    assert notes == [{"count": 1, "where": "cuda:0"}] * 2


@pytest.mark.usefixtures("looking")
def test_memory_that_methods_declare_is_shared_out(tmp_path: Path) -> None:
    one, two = seen(tmp_path, ["looks-big"], [], memory_mb=1000, device="cpu")
    assert not overlap(one, two)
    with pytest.raises(Incompatible, match="method 'looks-big' needs 600 MB of memory, and there are 500 here"):
        plan(request("looks-big", device="cpu"), get_registry(), machine(0, 500))


def test_a_gpu_that_is_not_there_is_told(cli: Any) -> None:
    done = cli("run", "--task", "toy-graph", "--gpus", "0,7")
    assert done.code == 2
    assert "--gpus 0,7: there is no GPU 7 here" in done.err
    assert done.err.count("\n") == 1
