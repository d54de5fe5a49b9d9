"""Every mistake is one helpful line on standard error, exit code 2, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = ("run", "--task", "toy-graph")
SIGNAL = ("run", "--task", "toy-signal")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run",), "nothing to run: give --task NAME (there are: "),
        (("run", "--task", "toy-grap"), "there is no task 'toy-grap' - did you mean 'toy-graph'"),
        ((*RUN, "--method", "toy-studnet"), "there is no method 'toy-studnet' - did you mean 'toy-student'"),
        ((*RUN, "--method", "toy-stamp"), "method 'toy-stamp' is for toy-attack, not for task 'toy-graph'"),
        ((*RUN, "--dataset", "toy-rign"), "there is no data set 'toy-rign' - did you mean 'toy-ring'"),
        ((*RUN, "--dataset", "toy-points"), "data set 'toy-points' does not fit task 'toy-graph'"),
        ((*RUN, "--dataset", "trian=toy-ring"), "there is no role 'trian' - did you mean 'train'?"),
        (
            (*RUN, "--preset", "papr", "--method", "toy-student"),
            "method 'toy-student' has no preset 'papr'",
        ),
        ((*RUN, "--set", "stepps=3"), "nothing here has a setting 'stepps' - did you mean 'steps'?"),
        ((*RUN, "--set", "steps"), "--set needs key=value, not 'steps'"),
        ((*RUN, "--set", "steps=many"), "method 'toy-student': steps needs a whole number, not 'many'"),
        ((*RUN, "--set", "kind=nosy"), "kind cannot be 'nosy' - did you mean 'noisy'?"),
        ((*RUN, "--set", "task.teacher=mode"), "task 'toy-graph': teacher cannot be 'mode' - there are: mean, median"),
        ((*RUN, "--set", "task.shots=1"), "the task has no setting 'shots'"),
        ((*RUN, "--set", "methud.lr=1"), "no such scope 'methud' - did you mean 'method'?"),
        ((*RUN, "--set", "toy-student.lrr=1"), "method 'toy-student' has no setting 'lrr' - did you mean 'lr'?"),
        ((*RUN, "--seeds", "0"), "--seeds 0 asks for no runs"),
        ((*RUN, "--seeds", "1,1"), "seeds must be different"),
        ((*RUN, "--seeds", "a"), "--seeds needs a number"),
        ((*RUN, "--seeds", "base=2"), "there is no seed axis 'base'"),
        ((*RUN, "--threads", "0"), "--threads 0: give 1 or more"),
        ((*RUN, "--workers", "0"), "--workers 0: give 1 or more"),
        ((*RUN, "--max-steps", "0"), "--max-steps 0: give 1 or more"),
        ((*RUN, "--timeout", "-1"), "--timeout -1: give seconds above 0"),
        ((*RUN, "--device", "gpu"), "--device 'gpu' is none of auto, cpu, cuda, cuda:N"),
        ((*RUN, "--split", "train"), "--split 'train' is neither test nor val"),
        ((*RUN, "--weights", "nowhere.pt"), "--weights nowhere.pt: there is no such file"),
        ((*RUN, "--data-root", "."), "--data-root is for real data: name the data set with --dataset"),
        ((*SIGNAL, "--dataset", "toy-recorded-beats"), "give its folder with --data-root DIR (expected layout: beats/"),
        (
            (*SIGNAL, "--dataset", "toy-recorded-beats", "--data-root", "nowhere"),
            "--data-root nowhere is not a folder",
        ),
        (
            (*SIGNAL, "--dataset", "toy-recorded-beats", "--data-root", "."),
            "no beats/*.txt in . for data set 'toy-recorded-beats'",
        ),
        ((*RUN, "--tsk", "x"), "No such option: --tsk"),
        (("rnu",), "No such command 'rnu'"),
        (("run", "--all", "--dataset", "toy-ring"), "--all is what is published, on each task's own data"),
        ((*RUN, "--dataset", "toy-ring=a|b"), "--dataset toy-ring=a|b: a label is up to 40 letters"),
        (("results", "remove"), "nothing to remove: name fingerprints, or give --stale or --failed"),
        (("results", "remove", "abc"), "fingerprint 'abc' fits 0 runs"),
        (("claims", "--task", "toy-grahp"), "there is no task 'toy-grahp' - did you mean 'toy-graph'"),
        (("info", "toy-grahp"), "there is no task, method or data set 'toy-grahp' - did you mean 'toy-graph'"),
        (("rerun", "abc"), "no stored result has fingerprint 'abc'"),
        (("results", "show", ""), "fingerprint '' fits all runs"),
        (("results", "validate", "nothing.json"), "nothing.json: there is no such file"),
        (("leaderboard",), "no results in runs: run something first"),
        (("leaderboard", "--results", "nowhere"), "--results nowhere: there is no such folder"),
        (("cache", "clear", "nothing"), "the cache holds no step 'nothing'"),
        (("data", "verify", "toy-recorded-beats"), "give its folder with --data-root DIR"),
    ],
)
def test_mistakes(shared_cli: Any, arguments: tuple[str, ...], message: str) -> None:
    done = shared_cli(*arguments)
    assert done.code == 2, done.err
    assert done.out == ""
    assert done.err.startswith("benchsuite: ")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err


def test_a_missing_library_is_told_with_the_command_that_installs_it(cli: Any) -> None:
    cli.install(
        "needy",
        "from benchsuite.core import MethodSpec\n"
        "def benchsuite_methods():\n"
        "    return [MethodSpec('needy', '1', ('toy-graph',), 'x:Y',"
        " requires=('no_such_lib',), install='pip install xyz')]",
    )
    done = cli("run", "--task", "toy-graph", "--method", "needy")
    assert done.code == 2
    assert done.err == "benchsuite: method 'needy' needs no_such_lib, not installed here - run: pip install xyz\n"
    everything = cli("run", "--task", "toy-graph")
    assert everything.code == 0
    assert "left out: toy-graph needy: method 'needy' needs no_such_lib" in everything.err


def test_an_ambiguous_key_is_told(cli: Any) -> None:
    cli.install(
        "double",
        "import dataclasses\nfrom skeletons.graph import Copy\nfrom benchsuite.core import MethodSpec\n"
        "@dataclasses.dataclass(frozen=True)\nclass C:\n    teacher: str = 'x'\n"
        "class M(Copy):\n    Config = C\n"
        "def benchsuite_methods():\n    return [MethodSpec('double', '1', ('toy-graph',), 'double:M')]",
    )
    done = cli("run", "--task", "toy-graph", "--method", "double", "--set", "teacher=mean")
    assert done.code == 2
    assert "write task.teacher or method.teacher" in done.err


def test_a_method_that_needs_a_gpu_is_refused_on_the_cpu(cli: Any) -> None:
    cli.install(
        "greedy",
        "from benchsuite.core import MethodSpec, Resources\n"
        "def benchsuite_methods():\n"
        "    return [MethodSpec('greedy', '1', ('toy-graph',), 'skeletons.graph:Copy', resources=Resources(gpus=2))]",
    )
    done = cli("run", "--task", "toy-graph", "--method", "greedy", "--device", "cpu")
    assert done.code == 2
    assert "method 'greedy' needs 2 GPUs, and the device is the CPU" in done.err
    everything = cli("run", "--task", "toy-graph", "--device", "cpu")
    assert everything.code == 0
    assert "left out: toy-graph greedy" in everything.err


def test_results_that_cannot_be_written_are_told_before_anything_runs(cli: Any) -> None:
    (cli.folder / "file").write_text("")
    done = cli(*RUN, "--out", "file/runs")
    assert done.code == 2
    assert "cannot write results to file/runs" in done.err
    assert "choose another folder with --out" in done.err


def test_cuda_without_a_gpu_is_told(cli: Any) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = cli("run", "--task", "toy-parallel", "--device", "cuda")
    assert done.code == 2
    assert "there is no such GPU here (0 found); use --device cpu" in done.err


def test_debug_shows_the_traceback(cli: Any) -> None:
    done = cli("run", "--task", "nothing", "--debug")
    assert done.code != 0
    assert "Traceback" in done.err


def test_help_fits_a_screen(shared_cli: Any) -> None:
    done = shared_cli("--help")
    assert done.code == 0
    assert len(done.out.splitlines()) < 40
    assert Path("benchsuite").name in done.out


def test_a_task_of_one_data_set_refuses_two(shared_cli: Any) -> None:
    """Two names would be stored and printed, and one of them never read."""
    for names in ("train=toy-ring,test=toy-images", "train=toy-points"):
        done = shared_cli("run", "--task", "toy-graph", "--dataset", names)
        assert done.code == 2
        assert "task 'toy-graph' trains and tests on one data set" in done.err
        assert len(done.err.splitlines()) == 1


def test_a_home_folder_is_found_where_no_shell_has_looked(cli: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    cli.environment |= {"HOME": str(home), "BENCHSUITE_CACHE": "~/cache"}
    run = ("run", "--task", "toy-checked", "--method", "toy-plain", "--no-reference")
    assert cli(*run, "--out=~/mine").code == 0
    assert cli("leaderboard", "--results=~/mine", "--out=~/tables").code == 0
    assert {path.name for path in home.iterdir()} >= {"mine", "tables"}
    assert not (cli.folder / "~").exists()
    assert cli("cache", "info").out.find(str(home / "cache")) >= 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_output_is_told_in_one_line(shared_cli: Any) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "benchsuite.cli", "list"], stdout=full, stderr=subprocess.PIPE, text=True,
            env=shared_cli.full_environment(), check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert (
        done.stderr
        == "benchsuite: cannot write the output (No space left on device): make room, or send it elsewhere\n"
    )
