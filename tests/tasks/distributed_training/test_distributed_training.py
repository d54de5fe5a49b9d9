"""The protocol, what is measured, and runs through the command line, also under fire."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from benchsuite.core.errors import ConfigError  # noqa: E402
from benchsuite.core.registry import get_registry, load_object  # noqa: E402
from benchsuite.datasets.tabular_digits import reader as tabular_digits  # noqa: E402
from benchsuite.harness.context import HarnessContext  # noqa: E402
from benchsuite.tasks.distributed_training import data_parallel  # noqa: E402
from benchsuite.tasks.distributed_training.contract import (  # noqa: E402
    DistributedTrainingProtocol,
    TrainingAlgorithm,
)
from benchsuite.tasks.distributed_training.data_parallel import RankReport, choose_backend  # noqa: E402
from benchsuite.tasks.distributed_training.distributed_training import (  # noqa: E402
    DistributedTraining,
    _check_data,
    _training_view,
)
from benchsuite.tasks.distributed_training.judge import consensus_distance, mean_state, time_to_loss  # noqa: E402
from benchsuite.tasks.distributed_training.models import build_model  # noqa: E402

RUN = ("run", "--task", "distributed-training")


# ---- the protocol ------------------------------------------------------------------------------------------------


def test_time_to_loss_is_when_the_mean_of_the_last_steps_is_there() -> None:
    losses, seconds = [1.0, 0.5, 0.5, 0.1], [1.0, 2.0, 3.0, 4.0]
    assert time_to_loss(losses, seconds, 0.5, window=2) == 3.0
    assert time_to_loss(losses, seconds, 0.31, window=2) == 4.0
    assert time_to_loss(losses, seconds, 0.2, window=2) is None
    assert time_to_loss(losses, seconds, 1.0) is None  # fewer steps than the window


def test_speed_is_the_median_of_three_parts_after_the_first_steps() -> None:
    def speed(seconds: list[float]) -> float | None:
        steps = len(seconds)
        return RankReport(0, {}, [0.0] * steps, seconds, 0, {}, 0, None, 0.0).steps_per_s  # type: ignore[arg-type]

    assert speed([1.0, 2.0]) is None
    assert speed([float(i) for i in range(5)] + [5.0, 6.0, 7.0, 9.0, 11.0, 11.5, 12.0]) == pytest.approx(1.0)


def test_the_mean_model_and_the_distance_of_ranks() -> None:
    states = [
        {"w": torch.tensor([1.0, 3.0]), "n": torch.tensor(5)},
        {"w": torch.tensor([3.0, 1.0]), "n": torch.tensor(7)},
    ]
    mean = mean_state(states)
    assert mean["w"].tolist() == [2.0, 2.0]
    assert mean["n"].item() == 5
    assert consensus_distance(torch.stack([s["w"] for s in states])) == pytest.approx(2**0.5 / 8**0.5)
    assert consensus_distance(torch.ones(3, 4)) == 0.0


def constant_model(scores: list[float], hidden: int = 4) -> dict[str, Any]:
    """Return the state of a model that gives every sample the same scores."""
    state = build_model(64, 10, DistributedTrainingProtocol(hidden=hidden)).state_dict()
    state = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    state["4.bias"][: len(scores)] = torch.tensor(scores)
    return state


class Silent(TrainingAlgorithm):
    """An algorithm that is never started, and says that it sends 100 bytes a step."""

    def join(self, worker: Any) -> Any:
        raise AssertionError

    def sent_bytes(self, shapes: Any, world: Any, steps: int, syncs: int) -> Fraction:
        return Fraction(100 * steps + syncs)


@pytest.mark.parametrize("split", ["test", "val"])
def test_scores_are_of_the_split_asked_for_and_of_all_ranks(tmp_path: Path, monkeypatch: Any, split: Any) -> None:
    # The mean of both models says 0 always, as the first does; the second says 1.
    models = [constant_model([8.0, 0.0]), constant_model([0.0, 1.0])]
    reports = [
        RankReport(rank, models[rank], [0.5] * 30, list(range(30)), Fraction(900 + 600 * rank), {}, 60, None, 0.0)  # type: ignore[arg-type]
        for rank in range(2)
    ]
    monkeypatch.setattr(data_parallel, "train", lambda *arguments: reports)
    ctx = HarnessContext(
        seeds={"run": 0},
        seed_axes=("run",),
        workdir=tmp_path,
        artifact_folder=tmp_path / "artifacts",
        cache_root=tmp_path / "cache",
        shared_digest="",
        split=split,
    )
    data = tabular_digits.load_digits(None, 0)
    protocol = DistributedTrainingProtocol(hidden=4, target_loss=0.6)
    scores = DistributedTraining().evaluate(Silent(None), {"train": data, "test": data}, protocol, ctx).scores
    labels = data.labels[data.test if split == "test" else data.validation]
    shares = [(labels == 0).mean(), (labels == 1).mean()]
    assert abs(shares[0] - shares[1]) > 0.001
    assert scores["accuracy"] == pytest.approx(shares[0])
    assert scores["worst_local_accuracy"] == pytest.approx(min(shares))
    assert scores["consensus_distance"] == pytest.approx(65**0.5 / 65**0.5)  # (4, -0.5) from a mean of (4, 0.5)
    assert scores["bytes_per_step"] == pytest.approx(2400 / (2 * 30))
    assert scores["formula_bytes_per_step"] == pytest.approx(100 + 60 / 30)
    assert scores["time_to_loss"] == 19


def test_ranks_see_the_training_samples_alone() -> None:
    data = tabular_digits.load_digits(None, 0)
    view = _training_view(data)
    assert np.array_equal(view.features, data.features[data.train])
    assert np.array_equal(view.labels, data.labels[data.train])
    assert [len(part) for part in (view.train, view.validation, view.test)] == [len(data.train), 0, 0]


@pytest.mark.parametrize("task", ["distributed-training", "distributed-training-simulated"])
def test_other_answers_change_the_test_labels_only(task: str) -> None:
    data = tabular_digits.load_digits(None, 0)
    other = load_object(get_registry().task(task).load)().with_other_answers({"train": data, "test": data})
    assert other["train"] is other["test"]
    changed = other["test"].labels != data.labels
    assert np.array_equal(np.flatnonzero(changed), data.test)
    assert set(other["test"].labels) == set(range(10))
    assert other["test"].features is data.features


def test_what_asks_for_the_impossible_is_refused() -> None:
    protocol = DistributedTrainingProtocol(world_size=8, local_batch=200)
    with pytest.raises(
        ConfigError, match="8 ranks with batches of 200 need 1600 training samples, but digits has 1078"
    ):
        _check_data(tabular_digits.load_digits(None, 0), protocol)
    with pytest.raises(ConfigError, match="backend nccl needs a GPU for each of 2 ranks, there are 0"):
        choose_backend(DistributedTrainingProtocol(backend="nccl"), "cpu")
    with pytest.raises(ConfigError, match="there is no model 'resnet'"):
        build_model(64, 10, DistributedTrainingProtocol(model="resnet"))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        build_model(64, 10, DistributedTrainingProtocol(model="nowhere:model"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("backend=mpi", "backend cannot be 'mpi'"),
        ("world_size=0", "world_size must be at least 1"),
        ("ranks_per_node=3", "world_size 2 is not a multiple of ranks_per_node 3"),
        ("bandwidth_mbit=100", "bandwidth_mbit needs network=veth"),
        ("latency_ms=-1", "latency_ms must not be negative"),
    ],
)
def test_protocols_that_make_no_sense_are_refused(shared_cli: Any, setting: str, message: str) -> None:
    done = shared_cli(*RUN, "--set", f"task.{setting}", "--dry-run")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert message in done.err


# ---- through the command line ------------------------------------------------------------------------------------


def test_ranks_of_one_machine_do_not_ask_the_environment_for_a_network(evaluate: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nowhere0")
    outcome = evaluate("distributed-training", "ddp", {"task.world_size": 2}, max_steps=2).outcome
    assert outcome.scores["bytes_per_step"] > 0


def test_a_run_measures_learns_and_repeats(cli: Any) -> None:
    short = (*RUN, "--set", "task.steps=60", "--set", "task.hidden=64")
    done = cli(*short, "--method", "bytegrad", "--json")
    assert done.code == 0, done.err
    results = {result["run"]["method"]: result for result in done.json()}
    ours, reference = results["bytegrad"], results["ddp"]
    assert ours["scores"]["bytes_per_step"] == ours["scores"]["formula_bytes_per_step"]
    assert reference["scores"]["bytes_per_step"] == 4 * reference["parameters"]
    assert ours["scores"]["accuracy"] > reference["scores"]["accuracy"] - 0.05 > 0.75
    assert ours["scores"]["consensus_distance"] == 0.0
    assert ours["scores"]["steps_per_s"] > 0
    assert [row["rank"] for row in ours["tables"]["ranks"]] == [0, 1]
    assert {row["steps"] for row in ours["tables"]["ranks"]} == {60}


UNUSED = """
import torch

class Model(torch.nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.used = torch.nn.Linear(features, classes)
        self.idle = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x)
"""


@pytest.mark.parametrize("method", ["bytegrad", "decentralized"])
def test_a_parameter_without_gradient_is_named(cli: Any, method: str) -> None:
    (cli.plugins / "unused.py").write_text(UNUSED)
    done = cli(*RUN, "--method", method, "--no-reference", "--set", "task.model=unused:Model")
    assert done.code == 1
    assert "parameter 'idle.weight' receives no gradient, but every parameter is exchanged" in done.err


def test_an_odd_world_is_refused_before_any_rank_starts(cli: Any) -> None:
    run = (*RUN, "--method", "decentralized-shift-one", "--no-reference", "--set", "task.world_size=3")
    done = cli(*run)
    assert done.code == 1
    assert "shift_one pairs ranks and needs an even number of them, not 3: choose peers=all" in done.err
    assert not list(cli.folder.glob("runs/**/meeting-point"))


# ---- under fire --------------------------------------------------------------------------------------------------


def ranks_of(cli: Any) -> list[psutil.Process]:
    """Return the ranks once both are training: the processes of the run that have no child."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if not list(cli.folder.glob("runs/**/meeting-point")):
            continue
        processes = cli.processes()
        parents = {process.ppid() for process in processes}
        leaves = [process for process in processes if process.pid not in parents]
        if len(leaves) == 2:
            time.sleep(2)
            return leaves
    raise AssertionError("the ranks did not start")


def start(cli: Any, *more: str) -> subprocess.Popen[str]:
    cli.environment["MARK"] = str(cli.folder / "mark")
    command = [*RUN, "--method", "ddp", "--set", "task.steps=1000000", "--set", "task.hidden=16", "--json", *more]
    process: subprocess.Popen[str] = cli.start(*command)
    return process


def assert_nothing_left(cli: Any, shared_memory: set[str], within: float = 15.0) -> None:
    cli.assert_nobody_left(within)
    assert segments() <= shared_memory


def segments() -> set[str]:
    folder = Path("/dev/shm")
    return (
        {path.name for path in folder.iterdir() if "torch" in path.name or "gloo" in path.name}
        if folder.is_dir()
        else set()
    )


@pytest.mark.slow
@pytest.mark.parametrize("death", ["of a rank", "of the parent", "by Ctrl-C", "by timeout"])
def test_a_run_that_is_cut_off_ends_and_leaves_nothing(cli: Any, death: str) -> None:
    before = segments()
    process = start(cli, *(("--timeout", "15") if death == "by timeout" else ()))
    ranks = ranks_of(cli)
    started = time.monotonic()
    if death == "of a rank":
        ranks[-1].kill()
    elif death == "of the parent":
        process.kill()
    elif death == "by Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert_nothing_left(cli, before)
    assert time.monotonic() - started < (35 if death == "by timeout" else 15)
    if death == "of a rank":
        (result,) = json.loads(out)
        assert result["status"] == "failed"
        assert "was killed by SIGKILL" in result["error"]["message"]
    elif death == "by timeout":
        (result,) = json.loads(out)
        assert result["status"] == "timeout"
    elif death == "by Ctrl-C":
        assert process.returncode == 130
        assert "Traceback" not in err
    again = cli(*RUN, "--method", "ddp", "--set", "task.steps=10", "--set", "task.hidden=16", "--json")
    assert [result["status"] for result in again.json()] == ["ok"]


# ---- at length, and on GPUs --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_relaxed_rows_are_as_accurate_as_ddp_to_one_and_a_half_points(cli: Any) -> None:
    rows = ("bytegrad", "decentralized-shift-one", "low-precision-decentralized")
    chosen = [part for row in rows for part in ("--method", row)]
    done = cli(*RUN, *chosen, "--seeds", "3", "--json", timeout=600)
    assert done.code == 0, done.err
    accuracy: dict[str, list[float]] = {}
    for result in done.json():
        accuracy.setdefault(result["run"]["method"], []).append(result["scores"]["accuracy"])
    assert {len(values) for values in accuracy.values()} == {3}
    for row in rows:
        assert np.mean(accuracy[row]) > np.mean(accuracy["ddp"]) - 0.015


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("method", ["ddp", "bytegrad", "decentralized-shift-one", "low-precision-decentralized"])
def test_the_same_over_nccl(cli: Any, method: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    nccl = ("--device", "cuda", "--set", "task.backend=nccl", "--set", "task.steps=60")
    done = cli(*RUN, "--method", method, "--no-reference", *nccl, "--json")
    assert done.code == 0, done.err
    (result,) = done.json()
    assert result["scores"]["bytes_per_step"] == result["scores"]["formula_bytes_per_step"]
    assert result["scores"]["accuracy"] > 0.8
