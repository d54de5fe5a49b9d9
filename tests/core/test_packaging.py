"""What pyproject.toml lists is what there is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def plugins() -> set[str]:
    return {path.parent.name for path in (ROOT / "plugins").glob("*/__init__.py")}


def test_every_plugin_is_shipped_and_registered(project: dict[str, Any], plugins: set[str]) -> None:
    shipped = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert shipped == {"benchsuite", *(f"plugins/{name}" for name in plugins)}
    registered = project["project"]["entry-points"]["benchsuite"]
    assert set(registered.values()) == {"benchsuite.builtin", *plugins}


def test_every_plugin_is_type_checked(project: dict[str, Any], plugins: set[str]) -> None:
    assert set(project["tool"]["mypy"]["packages"]) == {"benchsuite", *plugins}


def test_every_plugin_stands_under_the_import_contracts(project: dict[str, Any], plugins: set[str]) -> None:
    linter = project["tool"]["importlinter"]
    assert set(linter["root_packages"]) == {"benchsuite", *plugins}
    for contract in linter["contracts"]:
        if "plugins" in contract["name"]:
            assert set(contract.get("source_modules", contract.get("modules"))) >= plugins, contract["name"]
