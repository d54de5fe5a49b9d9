"""Tables of features and class labels."""

from __future__ import annotations

from typing import Any

from benchsuite.core import DatasetSpec

_INSTALL = "pip install 'benchsuite[distributed]'"
# Shares of the samples that are for training and validation; the rest is for testing.
DIGITS: dict[str, Any] = {"train": 0.6, "validation": 0.15, "split_seed": 0}
LINEAR_TEACHER: dict[str, Any] = {
    "samples": 6000,
    "features": 64,
    "classes": 10,
    "noise": 1.0,  # standard deviation of what is added to every score, which has one of 8
    "train": 0.6,
    "validation": 0.15,
}
_SHARED: dict[str, Any] = {
    "version": "1",
    "data_type": "benchsuite.datasets.tabular_digits.reader:TabularDataset",
    "embedded": True,
    "install": _INSTALL,
}

DATASETS = (
    DatasetSpec(
        name="digits-table",
        title="Handwritten digits shipped with scikit-learn (1,797 rows of 8 x 8 pixels)",
        load="benchsuite.datasets.tabular_digits.reader:load_digits",
        homepage="https://archive.ics.uci.edu/dataset/80",
        licence="CC-BY-4.0",
        citation="E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI, 1998",
        parameters=DIGITS,
        requires=("numpy", "sklearn"),
        **_SHARED,
    ),
    DatasetSpec(
        name="linear-teacher",
        title="Gaussian samples labelled by a noisy linear teacher",
        load="benchsuite.datasets.tabular_digits.reader:load_linear_teacher",
        licence="Apache-2.0",
        parameters=LINEAR_TEACHER,
        requires=("numpy",),
        **_SHARED,
    ),
)
