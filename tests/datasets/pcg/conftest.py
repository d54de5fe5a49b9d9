"""The generated recordings."""

from __future__ import annotations

import pytest

from benchsuite.datasets.pcg import generated as pcg_generator


@pytest.fixture(scope="module")
def generated():
    return pcg_generator.load_generated(None, 0)
