"""The generated recordings."""

from __future__ import annotations

import pytest

from benchsuite.datasets.ecg import generated as ecg_generator


@pytest.fixture(scope="module")
def generated():
    return ecg_generator.load_generated(None, 0)
