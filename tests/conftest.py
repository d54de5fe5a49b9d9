"""Fixtures that every part of the suite shares."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import psutil
import pytest

if TYPE_CHECKING:
    from benchsuite.core.result import Result
    from benchsuite.core.task import Outcome

# As many threads as a run has: more would fight over the cores of the workers that run the tests side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Timings are never asserted; on CI the same cases are drawn every time.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=bool(os.environ.get("CI")), database=None)
hypothesis.settings.register_profile(
    "first-failure",  # where a test must fail, nobody reads the smallest example: finding it can take five minutes
    hypothesis.settings.get_profile("suite"),
    derandomize=True,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
)
hypothesis.settings.load_profile("suite")

SKELETONS = Path(__file__).parent / "skeletons"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        is_slow = getattr(getattr(item, "module", None), "is_slow", None)  # what a test module says of its own cases
        if is_slow is not None and is_slow(item):
            item.add_marker(pytest.mark.slow)
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))
        if "gpu" in item.keywords and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _has_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what tests cache apart from the user's cache."""
    os.environ["BENCHSUITE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the small real samples."""
    folder = os.environ.get("BENCHSUITE_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("BENCHSUITE_TEST_DATA does not name a folder of real samples")
    return Path(folder).resolve()


def install_plugin(folder: Path, name: str, source: str) -> None:
    """Make a module in ``folder`` that is registered as a plugin when the folder is on the path."""
    (folder / f"{name}.py").write_text(source)
    register_plugin(folder, name, name)


def register_plugin(folder: Path, name: str, module: str) -> None:
    """Write the metadata that makes an importable module a plugin."""
    meta = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    meta.mkdir(parents=True, exist_ok=True)
    (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text(f"[benchsuite]\n{name} = {module}\n")


@dataclass
class Done:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    def json(self) -> object:
        return json.loads(self.out)


@dataclass
class CommandLine:
    """The command line as a user has it: a process in a folder of its own."""

    folder: Path
    plugins: Path
    environment: dict[str, str] = field(default_factory=dict)
    executor: str = "local"

    def __call__(self, *arguments: str | Path, timeout: float = 300) -> Done:
        process = self.start(*self.carried(*arguments))
        out, err = process.communicate(timeout=timeout)
        return Done(process.returncode, out, err)

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start the command without waiting, in a session of its own, where Ctrl-C reaches it."""
        return subprocess.Popen(
            [sys.executable, "-m", "benchsuite.cli", *map(str, arguments)],
            cwd=self.folder,
            env=self.full_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            # A shell that starts the tests in the background has Ctrl-C ignored; a user's has not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def carried(self, *arguments: str | Path) -> list[str | Path]:
        """Return the command with the executor that carries its runs, if it is not the one of everybody."""
        named = arguments[0] == "run" and self.executor != "local"
        return [*arguments, "--executor", self.executor] if named else [*arguments]

    def full_environment(self) -> dict[str, str]:
        """Return the environment of the commands."""
        path = os.pathsep.join(filter(None, [str(self.plugins), os.environ.get("PYTHONPATH")]))
        cache = str(self.folder / "cache")
        return {**os.environ, "PYTHONPATH": path, "BENCHSUITE_CACHE": cache, **self.environment}

    def processes(self) -> list[psutil.Process]:
        """Return every live process of these commands: those that carry ``environment["MARK"]``."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                marked = process.environ().get("MARK") == self.environment["MARK"]
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def assert_nobody_left(self, within: float = 15.0) -> None:
        """Wait until no process of these commands is alive."""
        deadline = time.monotonic() + within
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert self.processes() == []

    def install(self, name: str, source: str) -> None:
        """Add a plugin of one module."""
        install_plugin(self.plugins, name, source)


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """The command line in an empty folder, with the skeleton tasks registered."""
    return _command_line(tmp_path)


RAY = pytest.param(
    "ray",
    marks=[
        pytest.mark.slow,
        pytest.mark.xdist_group("ray"),
        pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs benchsuite[cluster]"),
    ],
)


@pytest.fixture(params=["local", RAY])
def carried(cli: CommandLine, request: pytest.FixtureRequest) -> CommandLine:
    """The same, once for each executor that carries the runs; with Ray in a cluster that each command starts."""
    return dataclasses.replace(cli, executor=request.param)


@pytest.fixture(scope="module")
def shared_cli(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """The same, shared by the tests of a module (for those that only look)."""
    return _command_line(tmp_path_factory.mktemp("shared"))


def _command_line(folder: Path) -> CommandLine:
    plugins = folder / "plugins"
    plugins.mkdir()
    (plugins / "skeletons").symlink_to(SKELETONS)
    register_plugin(plugins, "skeletons", "skeletons")
    return CommandLine(folder, plugins)


@pytest.fixture
def evaluate(tmp_path: Path) -> Callable[..., Evaluated]:
    """Make one run in this process, where its own process and the loading of its libraries are not what is tested."""
    count = itertools.count()

    def of(task: str, method: str, settings: Mapping[str, Any] | None = None, **request: Any) -> Evaluated:
        from benchsuite.core.registry import get_registry, load_object
        from benchsuite.harness.measure import make_context, measure
        from benchsuite.harness.plan import Request, plan
        from benchsuite.harness.settings import SeedChoice, assignments_of

        registry = get_registry()
        request = {"seeds": [SeedChoice((0,))], "device": "cpu", "reference": False} | request
        assigned = assignments_of(settings or {})
        (planned,) = plan(Request(tasks=[task], methods=[method], settings=assigned, **request), registry).runs
        folder = tmp_path / f"evaluated-{next(count)}"
        folder.mkdir()
        more = {
            "cache_root": tmp_path / "cache",
            "shared_digest": planned.shared_digest,
            "uses": frozenset(planned.uses),
        }
        kind = load_object(registry.task(task).load)
        ctx = make_context(planned.run, kind, folder, artifact_folder=folder / "artifacts", **more)
        roots = {name: Path(root) for name, root in planned.data_roots.items()}
        return Evaluated(measure(planned.run, registry, ctx, roots), folder / "artifacts")

    return of


@dataclass(frozen=True)
class Evaluated:
    """What came of a run, and the folder of its artifacts."""

    outcome: Outcome
    artifacts: Path


@pytest.fixture(scope="session")
def make_result() -> Callable[..., Result]:
    """Build a valid result; keywords replace fields of the run or of the result."""
    return build_result


def build_result(**changes: Any) -> Result:
    """Return a valid result with some fields replaced."""
    from benchsuite.core.result import DataRef, Definition, MetricInfo, Result, RunSpec

    metrics = [
        MetricInfo(name="accuracy", direction="max", unit="fraction", kind="quality"),
        MetricInfo(name="error", direction="min", unit="m", kind="quality"),
    ]
    definition = Definition(title="A task", seed_axes=["run"], metrics=metrics, rank_by="accuracy", reference="base")
    run: dict[str, Any] = {
        "task": "a-task",
        "task_version": "1",
        "protocol": {"shots": 1},
        "data": {role: DataRef(name="a-set", version="1", hash="d" * 64) for role in ("train", "test")},
        "method": "a-method",
        "method_version": "1",
        "preset": "embedded",
        "config": {"lr": 0.1},
        "seeds": {"run": 0},
    }
    run |= {key: changes.pop(key) for key in list(changes) if key in RunSpec.model_fields}
    spec = RunSpec(**run)
    values: dict[str, Any] = {
        "run": spec,
        "fingerprint": spec.fingerprint,
        "source_digest": "s" * 64,
        "status": "ok",
        "label": spec.method,
        "role": "method",
        "definition": definition,
        "scores": {"accuracy": 0.5, "error": 1.0},
        "started": "2026-01-01T00:00:00+00:00",
        "wall_s": 1.0,
    }
    return Result(**(values | changes))
