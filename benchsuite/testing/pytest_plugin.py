"""The conformance checks inside a third party's own test run.

    @pytest.mark.benchsuite_method("mymethod")
    def test_conformance(conformance_check):
        conformance_check()

makes one test of every check. A check with nothing to look at is skipped with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from benchsuite.testing.checks import Subject


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "benchsuite_method(*names): methods that `conformance_check` checks")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of every method, task and check."""
    marker = metafunc.definition.get_closest_marker("benchsuite_method")
    if marker is None or "conformance_check" not in metafunc.fixturenames:
        return
    from benchsuite.core.registry import get_registry
    from benchsuite.testing.checks import CHECKS

    grouped = metafunc.config.pluginmanager.hasplugin("xdist")

    def marks(name: str, task: str) -> list[pytest.MarkDecorator]:
        """Keep the checks of one method on one xdist worker: they share its runs."""
        return [pytest.mark.xdist_group(f"{name}-{task}")] if grouped else []

    cases = [
        pytest.param((name, task, check), id=f"{name}-{task}-{check.replace(' ', '_')}", marks=marks(name, task))
        for name in marker.args
        for task in get_registry().method(name).tasks
        for check in CHECKS
    ]
    metafunc.parametrize("conformance_check", cases, indirect=True, scope="function")


@pytest.fixture(scope="session")
def _subjects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Subject]]:
    from benchsuite.core.registry import get_registry
    from benchsuite.harness.local import ForkServer
    from benchsuite.testing.checks import Subject

    folder: Path = tmp_path_factory.mktemp("conformance")
    subjects: dict[tuple[str, str], Subject] = {}

    def subject(method: str, task: str) -> Subject:
        if (method, task) not in subjects:
            registry = get_registry()
            place = folder / f"{method}-{task}"
            place.mkdir()
            subjects[method, task] = Subject(registry.method(method), task, registry, place, server)
        return subjects[method, task]

    with ForkServer() as server:
        yield subject


@pytest.fixture
def conformance_check(request: pytest.FixtureRequest, _subjects: Any) -> Callable[[], None]:
    """Return a function that makes one conformance check."""
    from benchsuite.testing.checks import run_check

    method, task, check = request.param

    def run() -> None:
        finding = run_check(check, _subjects(method, task))
        if finding.verdict == "nothing to check":
            pytest.skip(finding.detail)
        assert finding.verdict == "passed", finding.detail

    return run
