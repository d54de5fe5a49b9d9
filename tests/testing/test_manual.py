"""The manual says what the docstrings say."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from benchsuite.core import DatasetSpec, MethodSpec, TaskSpec
from benchsuite.core.claim import Claim
from benchsuite.core.task import Presentation
from benchsuite.testing.manual import manual

FILE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.mark.skipif(not FILE.is_file(), reason="the documentation is not beside the tests")
def test_the_manual_is_made_from_the_docstrings() -> None:
    assert FILE.read_text() == manual(), "run: python -m benchsuite.testing.manual > docs/extending.md"


@pytest.mark.parametrize("spec", [MethodSpec, TaskSpec, DatasetSpec, Claim, Presentation])
def test_every_field_of_a_spec_is_explained(spec: type) -> None:
    explained = spec.__doc__ or ""
    for field in fields(spec):
        assert field.name in explained, f"{spec.__name__}.{field.name}"
