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
_NOISE_STRESS = f"G. Moody, W. Muldrow, R. Mark, Computers in Cardiology 11, 1984; {_PHYSIONET}"

# The one copy: the generator reads it, and the data hash covers it.
GENERATED: dict[str, Any] = {
    "fs": 250,
    "train": {"records": 60, "seconds": 10.24, "snr_db": [6, 20], "slow_bpm": [55, 75], "fast_bpm": [95, 120]},
    "test": {"records": 16, "seconds": 30, "snr_db": [4, 16], "irregular_bpm": [50, 150]},
}

DATASETS = (
    DatasetSpec(
        name="generated-ecg",
        version="3",
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
        name="incartdb",
        version="1",
        title="St Petersburg INCART Arrhythmia Database: half-hour records of twelve leads",
        load="benchsuite.datasets.ecg.reader:load_incartdb",
        homepage="https://physionet.org/content/incartdb/1.0.0/",
        licence="ODC-BY 1.0",
        citation=f"V. Tihonenko, A. Khaustov, S. Ivanov, A. Rivin, E. Yakushenko, PhysioNet 2008; {_PHYSIONET}",
        files=("*.hea", "*.dat", "*.atr"),
        layout="I01 .. I75: .hea, .dat, .atr",
        **_ECG,
    ),
    DatasetSpec(
        name="qtdb",
        version="1",
        title="QT Database: quarter-hour records, those with reference beats",
        load="benchsuite.datasets.ecg.reader:load_qtdb",
        homepage="https://physionet.org/content/qtdb/1.0.0/",
        licence="ODC-BY 1.0",
        citation=f"P. Laguna, R. Mark, A. Goldberger, G. Moody, Computers in Cardiology 24, 1997; {_PHYSIONET}",
        files=("*.hea", "*.dat", "*.atr"),
        layout="sel*: .hea, .dat, .atr (records without .atr are left out)",
        **_ECG,
    ),
    DatasetSpec(
        name="ludb",
        version="1",
        title="Lobachevsky University Electrocardiography Database: ten seconds of twelve leads",
        load="benchsuite.datasets.ecg.reader:load_ludb",
        homepage="https://physionet.org/content/ludb/1.0.1/",
        licence="ODC-BY 1.0",
        citation=f"A. Kalyakulina et al., IEEE Access 8, 2020; {_PHYSIONET}",
        files=("*.hea", "*.dat", "*.i"),
        layout="1 .. 200: .hea, .dat, .i (data/ of the database)",
        **_ECG,
    ),
    DatasetSpec(
        name="nstdb",
        version="1",
        title="MIT-BIH Noise Stress Test Database: half-hour records with electrode motion at six ratios",
        load="benchsuite.datasets.ecg.reader:load_nstdb",
        homepage="https://physionet.org/content/nstdb/1.0.0/",
        licence="ODC-BY 1.0",
        citation=_NOISE_STRESS,
        files=("11*.hea", "11*.dat", "11*.atr"),
        layout="118e24, 118e18, ... 119e_6: .hea, .dat, .atr",
        **_ECG,
    ),
    DatasetSpec(
        name="nstdb-noise",
        version="1",
        title="MIT-BIH Noise Stress Test Database: its noise records, to be added to electrocardiograms",
        load="benchsuite.datasets.ecg.noise:load_nstdb_noise",
        homepage="https://physionet.org/content/nstdb/1.0.0/",
        licence="ODC-BY 1.0",
        citation=_NOISE_STRESS,
        files=("bw.hea", "bw.dat", "ma.hea", "ma.dat", "em.hea", "em.dat"),
        layout="bw, ma, em: .hea, .dat (the ECG records may lie beside them)",
        **{**_ECG, "data_type": "benchsuite.datasets.ecg.noise:NoiseDataset"},
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
