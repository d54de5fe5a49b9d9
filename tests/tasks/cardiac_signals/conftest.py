"""The generated recordings."""

from __future__ import annotations

import pytest

from benchsuite.datasets.ecg import generated as ecg_generator
from benchsuite.datasets.pcg import generated as pcg_generator
from benchsuite.harness.context import HarnessContext


@pytest.fixture(scope="module")
def ecg():
    return ecg_generator.load_generated(None, 0)


@pytest.fixture(scope="module")
def pcg():
    return pcg_generator.load_generated(None, 0)


@pytest.fixture
def make_context(tmp_path):
    def build(**changes):
        return HarnessContext(
            seeds={"run": 0},
            seed_axes=("run",),
            workdir=tmp_path,
            artifact_folder=tmp_path / "artifacts",
            cache_root=tmp_path / "cache",
            shared_digest="d",
            **changes,
        )

    return build
