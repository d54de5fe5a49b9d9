"""Electrocardiograms with the position of every beat."""

from __future__ import annotations

from typing import Any

from benchsuite.core import DatasetSpec

_INSTALL = "pip install 'benchsuite[cardio]'"

_ECG: dict[str, Any] = {
    "data_type": "benchsuite.datasets.ecg.reader:EcgDataset",
    "requires": ("numpy", "scipy", "wfdb"),
    "install": _INSTALL,
}

_PHYSIONET = "A. Goldberger et al.: PhysioBank, PhysioToolkit, and PhysioNet, Circulation 101(23), 2000"
_ARRHYTHMIA = f"G. Moody, R. Mark, IEEE Engineering in Medicine and Biology 20(3), 2001; {_PHYSIONET}"

# The one copy: the generator reads it, and the data hash covers it.
GENERATED: dict[str, Any] = {
    "fs": 250,
    "train": {"records": 60, "seconds": 10.24, "snr_db": [6, 20], "slow_bpm": [55, 75], "fast_bpm": [95, 120]},
    "test": {"records": 16, "seconds": 30, "snr_db": [4, 16], "irregular_bpm": [50, 150]},
}

DATASETS = (
    DatasetSpec(
        name="generated-ecg",
        version="1",
        title="Generated electrocardiograms: shape and rhythm confounded in training, taken apart in the test",
        load="benchsuite.datasets.ecg.generated:load_generated",
        data_type="benchsuite.datasets.ecg.reader:EcgDataset",
        embedded=True,
        licence="Apache-2.0",
        parameters=GENERATED,
        requires=("numpy",),
    ),
    DatasetSpec(
        name="mitdb",
        version="2",
        title="MIT-BIH Arrhythmia Database: half-hour records, without the four paced ones",
        load="benchsuite.datasets.ecg.reader:load_mitdb",
        homepage="https://physionet.org/content/mitdb/1.0.0/",
        licence="ODC-BY 1.0",
        citation=_ARRHYTHMIA,
        files=("*.hea", "*.dat", "*.atr"),
        layout="*.hea, *.dat, *.atr",
        **_ECG,
    ),
    DatasetSpec(
        name="svdb",
        version="2",
        title="MIT-BIH Supraventricular Arrhythmia Database: half-hour records",
        load="benchsuite.datasets.ecg.reader:load_svdb",
        homepage="https://physionet.org/content/svdb/1.0.0/",
        licence="ODC-BY 1.0",
        citation=_PHYSIONET,
        files=("*.hea", "*.dat", "*.atr"),
        layout="*.hea, *.dat, *.atr",
        **_ECG,
    ),
    DatasetSpec(
        name="cpsc2019",
        version="1",
        title="China Physiological Signal Challenge 2019: ten-second segments",
        load="benchsuite.datasets.ecg.reader:load_cpsc2019",
        homepage="http://2019.icbeb.org/Challenge.html",
        licence="research use",
        citation="H. Gao, C. Liu, X. Wang et al., Journal of Medical Imaging and Health Informatics 9, 2019",
        files=("data/data_*.mat", "ref/R_*.mat"),
        layout="data/data_NNNNN.mat (ecg), ref/R_NNNNN.mat (R_peak)",
        **_ECG,
    ),
)
