"""The generated recordings."""

from __future__ import annotations

import pytest

from benchsuite.datasets.ecg import generated as ecg_generator
from benchsuite.datasets.pcg import generated as pcg_generator


@pytest.fixture(scope="module")
def ecg():
    return ecg_generator.load_generated(None, 0)


@pytest.fixture(scope="module")
def pcg():
    return pcg_generator.load_generated(None, 0)
